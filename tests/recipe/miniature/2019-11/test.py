import tiny
from models import create_model
from options.test_options import TestOptions

if __name__ == '__main__':
    opt = TestOptions().parse()
    model = create_model(opt, False)
    tiny.test(opt, model, opt.epoch, opt.num_test,
              lambda index, path: tiny.say("picture", index, 1) if index % 5 == 0 else None)
