from .base_options import BaseOptions


class TrainOptions(BaseOptions):
    def initialize(self):
        BaseOptions.initialize(self)
        self.parser.add_argument('--display_freq', type=int, default=100)
        self.parser.add_argument('--print_freq', type=int, default=100)
        self.parser.add_argument('--save_epoch_freq', type=int, default=5)
        self.parser.add_argument('--continue_train', action='store_true')
        self.parser.add_argument('--epoch_count', type=int, default=1)
        self.parser.add_argument('--phase', type=str, default='train')
        self.parser.add_argument('--which_epoch', type=str, default='latest')
        self.parser.add_argument('--niter', type=int, default=100)
        self.parser.add_argument('--niter_decay', type=int, default=100)
        self.parser.add_argument('--lr', type=float, default=0.0002)
        self.parser.add_argument('--no_lsgan', action='store_true')
        self.parser.add_argument('--lambda_A', type=float, default=10.0)
        self.parser.add_argument('--pool_size', type=int, default=50)
