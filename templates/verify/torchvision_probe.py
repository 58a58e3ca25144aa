"""Asked inside an image: does the torchvision that was built beside torch work?

Prints one line of JSON: its version, the path of its own library, and what its compiled
non-maximum suppression keeps of three boxes of which two overlap.
"""

import json

import torch
import torchvision
from torchvision.extension import _get_extension_path


def main():
    """Print the answers."""
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
    answer = {
        "torchvision": torchvision.__version__,
        "library": _get_extension_path("_C"),
        "kept": kept.tolist(),
    }
    print(json.dumps(answer, sort_keys=True))


if __name__ == "__main__":
    main()
