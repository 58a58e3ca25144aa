"""Predictions against a real card: what is said to run computes, what is not is refused.

Run by hand: ``pytest -m gpu tests/binaries/test_gpu.py``; outcome in docs/verification.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_captures import CAPTURES

from envforge.binaries import library, parts
from envforge.binaries.content import open_content
from envforge.values import ComputeCapability, best_support

pytestmark = pytest.mark.gpu

_LOG = logging.getLogger(__name__)

_NO_BINARY_FOR_GPU = 209
_MAJOR, _MINOR = 75, 76
_LOADABLE = [path for path in CAPTURES if ",rdc," not in path.name]
_ELEMENTS = 32


class Card:
    """The first card, through the driver's own interface."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", 0)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        numbers = []
        for attribute in (_MAJOR, _MINOR):
            number = ctypes.c_int()
            self.call("cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
            numbers.append(number.value)
        self.capability = ComputeCapability(*numbers)

    def call(self, function: str, *arguments: object) -> None:
        status = self.status(function, *arguments)
        assert status == 0, f"{function}: {status}"

    def status(self, function: str, *arguments: object) -> int:
        return getattr(self._driver, function)(*arguments)

    def load(self, image: bytes) -> tuple[int, ctypes.c_void_p]:
        module = ctypes.c_void_p()
        return self.status("cuModuleLoadData", ctypes.byref(module), image), module

    def axpy(self, module: ctypes.c_void_p) -> list[float]:
        """Run ``y = 2 x + y`` on 0, 1, 2 … and ones."""
        function, x, y = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_uint64()
        self.call("cuModuleGetFunction", ctypes.byref(function), module, b"_Z4axpyfPKfPfi")
        floats = ctypes.c_float * _ELEMENTS
        for pointer, values in ((x, floats(*range(_ELEMENTS))), (y, floats(*[1.0] * _ELEMENTS))):
            self.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.sizeof(values))
            self.call("cuMemcpyHtoD_v2", pointer, values, ctypes.sizeof(values))
        scalars = (ctypes.c_float(2.0), x, y, ctypes.c_int(_ELEMENTS))
        arguments = (ctypes.c_void_p * 4)(*map(ctypes.addressof, scalars))
        self.call("cuLaunchKernel", function, 1, 1, 1, _ELEMENTS, 1, 1, 0, None, arguments, None)
        result = floats()
        self.call("cuMemcpyDtoH_v2", result, y, ctypes.sizeof(result))
        return list(result)


@pytest.fixture(scope="session")
def card() -> Card:
    try:
        return Card()
    except OSError:
        pytest.skip("no NVIDIA driver")


def images(path: Path) -> Iterator[tuple[bytes, list[parts.Code]]]:
    """Yield the fatbins of a capture that hold the kernel, and what they carry."""
    with open_content(path) as content:
        for fatbins in library.find_fatbins(content, path.name).sections.values():
            for fatbin in fatbins:
                if parts._first_look(content, fatbin) is not None:
                    data = content.read(fatbin.end - fatbin.offset, fatbin.offset)
                    yield data, list(parts.codes_of(fatbin))


@pytest.mark.parametrize("path", _LOADABLE, ids=lambda path: path.name)
def test_a_real_card_runs_what_was_predicted_and_refuses_the_rest(card, path):
    for image, codes in images(path):
        predicted = best_support([code.device for code in codes], card.capability)
        status, module = card.load(image)
        labels = [str(code) for code in codes]
        _LOG.info("%s %s on %s: %s, %s", path.name, labels, card.capability, predicted, status)
        if predicted == "none":
            assert status == _NO_BINARY_FOR_GPU
        else:
            assert status == 0
            assert card.axpy(module) == [2.0 * number + 1.0 for number in range(_ELEMENTS)]
