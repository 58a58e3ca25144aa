import argparse

import models
import tiny


class BaseOptions():
    def initialize(self, parser):
        parser.add_argument('--dataroot', required=True)
        parser.add_argument('--name', type=str, default='experiment_name')
        parser.add_argument('--gpu_ids', type=str, default='0')
        parser.add_argument('--checkpoints_dir', type=str, default='./checkpoints')
        parser.add_argument('--model', type=str, default='cycle_gan')
        parser.add_argument('--ngf', type=int, default=64)
        parser.add_argument('--ndf', type=int, default=64)
        parser.add_argument('--netG', type=str, default='resnet_9blocks')
        parser.add_argument('--direction', type=str, default='AtoB')
        parser.add_argument('--num_threads', default=4, type=int)
        parser.add_argument('--batch_size', type=int, default=1)
        parser.add_argument('--load_size', type=int, default=286)
        parser.add_argument('--crop_size', type=int, default=256)
        parser.add_argument('--epoch', type=str, default='latest')
        return parser

    def parse(self):
        parser = self.initialize(argparse.ArgumentParser())
        parser = models.modify_commandline_options(parser, self.isTrain)
        return tiny.parse(parser)
