"""Stands for upstream's build: the same question whether there is CUDA, and nothing to compile."""
import os
import sys

import torch

CUDA_HOME = os.environ.get("CUDA_HOME")
kind = "without CUDA"
if torch.cuda.is_available() and CUDA_HOME is not None:
    kind = "with CUDA"
assert sys.argv[1:] == ["build_ext", "--inplace"]
with open("maskrcnn_benchmark/_C.so", "w") as product:
    product.write(kind)
