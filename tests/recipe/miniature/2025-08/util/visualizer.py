import sys
import wandb
import os


def use(opt):
    return wandb.init() if opt.use_wandb else None
