import tiny
from models.pix2pix_model import Pix2PixModel
from options.test_options import TestOptions

opt = TestOptions().parse()
model = Pix2PixModel.__new__(Pix2PixModel)
model.initialize(opt, False)
tiny.test(opt, model, opt.which_epoch, opt.how_many, lambda index, path: tiny.say("picture", 1))
