from .base_options import BaseOptions


class TestOptions(BaseOptions):
    isTrain = False

    def initialize(self, parser):
        parser = BaseOptions.initialize(self, parser)
        parser.add_argument('--results_dir', type=str, default='./results/')
        parser.add_argument('--phase', type=str, default='test')
        parser.add_argument('--num_test', type=int, default=50)
        return parser
