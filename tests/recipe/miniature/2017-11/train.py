import tiny
from models.pix2pix_model import Pix2PixModel
from options.train_options import TrainOptions

opt = TrainOptions().parse()
model = Pix2PixModel.__new__(Pix2PixModel)
model.initialize(opt, True)
length = tiny.Length(opt.epoch_count, opt.niter, opt.niter_decay, opt.batchSize)
tiny.train(opt, model, length, model.get_current_errors)
