class Node(object):
    """Attributes that are there as soon as they are asked for."""

    def __getattr__(self, name):
        self.__dict__[name] = Node()
        return self.__dict__[name]


_C = Node()
_C.MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN = 2000
_C.SOLVER.WARMUP_ITERS = 500
_C.SOLVER.CHECKPOINT_PERIOD = 2500
