import numpy as np


def anchors(stride):
    base = np.array([1, 1, stride, stride], dtype=np.float) - 1
    sizes = np.array([32], dtype=np.float) / stride
    return base * sizes, np.array([0.5, 1, 2], dtype=np.float)
