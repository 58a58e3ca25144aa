import argparse

import tiny


class BaseOptions():
    def __init__(self):
        self.parser = argparse.ArgumentParser()

    def initialize(self):
        self.parser.add_argument('--dataroot', required=True)
        self.parser.add_argument('--batchSize', type=int, default=1)
        self.parser.add_argument('--loadSize', type=int, default=286)
        self.parser.add_argument('--fineSize', type=int, default=256)
        self.parser.add_argument('--ngf', type=int, default=64)
        self.parser.add_argument('--ndf', type=int, default=64)
        self.parser.add_argument('--which_model_netG', type=str, default='resnet_9blocks')
        self.parser.add_argument('--gpu_ids', type=str, default='0')
        self.parser.add_argument('--name', type=str, default='experiment_name')
        self.parser.add_argument('--dataset_mode', type=str, default='unaligned')
        self.parser.add_argument('--model', type=str, default='cycle_gan')
        self.parser.add_argument('--which_direction', type=str, default='AtoB')
        self.parser.add_argument('--nThreads', default=2, type=int)
        self.parser.add_argument('--checkpoints_dir', type=str, default='./checkpoints')
        self.parser.add_argument('--norm', type=str, default='instance')
        self.parser.add_argument('--display_id', type=int, default=1)

    def parse(self):
        self.initialize()
        opt = tiny.parse(self.parser)
        opt.gpu_ids = [int(each) for each in opt.gpu_ids.split(',') if int(each) >= 0]
        return opt
