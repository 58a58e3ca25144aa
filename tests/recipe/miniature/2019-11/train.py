import tiny
from models import create_model
from options.train_options import TrainOptions

if __name__ == '__main__':
    opt = TrainOptions().parse()
    model = create_model(opt, True)
    length = tiny.Length(opt.epoch_count, opt.niter, opt.niter_decay, opt.batch_size)
    tiny.train(opt, model, length, lambda losses: [float(loss) for loss in losses])
