import os

import tiny
from models.pix2pix_model import modify_commandline_options  # noqa: F401


def create_model(opt, training):
    model = tiny.Networks(opt.ngf, opt.ndf, getattr(opt, 'lr', 0), training)
    model.reverse = opt.direction == 'BtoA'
    folder = os.path.join(opt.checkpoints_dir, opt.name)
    if not training or opt.continue_train:
        model.load(folder, opt.epoch, ['G', 'D'] if training else ['G'])
    return model
