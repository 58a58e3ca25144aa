from .base_options import BaseOptions


class TestOptions(BaseOptions):
    def initialize(self):
        BaseOptions.initialize(self)
        self.parser.add_argument('--results_dir', type=str, default='./results/')
        self.parser.add_argument('--phase', type=str, default='test')
        self.parser.add_argument('--which_epoch', type=str, default='latest')
        self.parser.add_argument('--how_many', type=int, default=50)
