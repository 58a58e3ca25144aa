def modify_commandline_options(parser, is_train):
    parser.set_defaults(netG='unet_256')
    if is_train:
        parser.add_argument('--lambda_L1', type=float, default=100.0)
    return parser
