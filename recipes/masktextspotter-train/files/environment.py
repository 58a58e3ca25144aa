"""What MaskTextSpotter lacks to run without pip or without a GPU, through upstream's own hook.

Upstream imports the file that TORCH_DETECTRON_ENV_MODULE names before anything else and calls its
``setup_environment`` (maskrcnn_benchmark/utils/env.py). It begins by logging torch's description of
the machine, which raises in an image without pip (seen with torch 1.13).

Without a GPU training stopped at five more places, none of which needs an edit of upstream's files:

* the recognition branch asks for ``cuda`` by name, and moves tensors with ``.cuda()``;
* RoIAlign has a kernel for the CPU, but only forward;
* the log asks for the GPU's peak memory, which raises where there is no driver (torch 1.0);
* NLLLoss of torch 1.0 leaves the rows it shall ignore uninitialised on the CPU.

Runs on Python 3.5 and later, torch 1.0 to 2.15.
"""
import math

import torch
import torch.nn.functional as F
from torch.utils import collect_env


def setup_environment():
    collect_env.get_pretty_env_info = forgiving(collect_env.get_pretty_env_info)
    if torch.cuda.is_available():
        return
    torch.cuda.max_memory_allocated = lambda *_: 0
    torch.Tensor.cuda = lambda self, *_, **__: self
    torch.nn.NLLLoss.forward = masked_nll
    # imported late: these modules are upstream's, and need what was set above
    from maskrcnn_benchmark import _C
    from maskrcnn_benchmark.modeling.roi_heads.mask_head import roi_seq_predictors

    _C.roi_align_backward = roi_align_backward
    roi_seq_predictors.gpu_device = torch.device("cpu")


def forgiving(describe):
    def description():
        try:
            return describe()
        except Exception as error:  # it runs other programs and reads what they say
            return "torch {}; no more is known: {}".format(torch.__version__, error)

    return description


def masked_nll(self, scores, target):
    """NLLLoss(reduction="none"), zero where the target is to be ignored."""
    kept = (target != self.ignore_index).to(target.dtype)
    loss = F.nll_loss(scores, target * kept, self.weight, reduction="none")
    return loss * kept.to(loss.dtype)


def roi_align_backward(grad, rois, scale, out_h, out_w, images, channels, height, width, samples):
    """The gradient of RoIAlign with respect to the feature map.

    RoIAlign samples a grid, so it is a matrix product: rows x map x columns, each matrix holding
    the weights of linear interpolation. Its gradient is the product with both transposed; only
    the part of the map that the region touches is computed.
    """
    result = torch.zeros(images, channels, height, width, dtype=grad.dtype)
    for region, (image, x1, y1, x2, y2) in zip(grad, rois.tolist()):
        top, rows = _weights(y1 * scale, y2 * scale, out_h, samples, height)
        left, columns = _weights(x1 * scale, x2 * scale, out_w, samples, width)
        part = torch.matmul(rows.t().to(grad), torch.matmul(region, columns.to(grad)))
        bottom, right = top + part.size(1), left + part.size(2)
        result[int(image), :, top:bottom, left:right] += part
    return result


def _weights(start, end, bins, samples, size):
    """Return the first position touched, and a (bins, positions) matrix of mean weights."""
    step = max(end - start, 1.0) / bins
    samples = samples if samples > 0 else int(math.ceil(step))
    shares = []
    for index in range(bins * samples):
        at = start + (index + 0.5) * step / samples
        if -1.0 <= at <= size:  # as the forward kernel: outside counts as zero
            at = min(max(at, 0.0), size - 1.0)
            low = int(at)
            shares.append((index // samples, low, (low + 1 - at) / samples))
            shares.append((index // samples, min(low + 1, size - 1), (at - low) / samples))
    first = min([low for _, low, _ in shares] or [0])
    last = max([low for _, low, _ in shares] or [0])
    matrix = [[0.0] * (last + 1 - first) for _ in range(bins)]
    for row, column, share in shares:
        matrix[row][column - first] += share
    return first, torch.tensor(matrix)
