import os

import tiny
from models import networks


class BaseModel(tiny.Networks):
    def initialize(self, opt, training):
        tiny.Networks.__init__(self, opt.ngf, opt.ndf, getattr(opt, 'lr', 0), training)
        self.reverse = opt.which_direction == 'BtoA'
        networks.define_G(self.nets['G'], opt.gpu_ids)
        networks.define_D(self.nets['D'], opt.gpu_ids)
        if not training or opt.continue_train:
            folder = os.path.join(opt.checkpoints_dir, opt.name)
            self.load(folder, opt.which_epoch, ['G', 'D'] if training else ['G'])

    def load_network(self, network, gpu_ids):
        if len(gpu_ids) > 0:
            network.cuda(device_id=gpu_ids[0])
