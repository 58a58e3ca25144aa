"""Real CUDA tools for the tests, installed once with pip into a cache: no GPU, no driver."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "envforge-tests"


def installed(requirement: str) -> Path:
    """The folder a wheel is unpacked in; installed at the first call, by one process only."""
    folder = CACHE / requirement.replace("==", "-")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").exists():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            done = subprocess.run([*pip, "--target", folder, requirement], check=False)
            if done.returncode and "CI" not in os.environ:
                pytest.skip(f"no network to install {requirement}")
            done.check_returncode()
            (folder / "complete").touch()
    return folder


def tool(requirement: str, name: str) -> Path:
    """A program out of a wheel."""
    path = next(path for path in installed(requirement).rglob(name) if path.is_file())
    path.chmod(0o755)
    return path


class Nvrtc:
    """NVIDIA's run-time compiler: source text to cubin, PTX or LTO-IR, for any architecture."""

    def __init__(self, requirement: str) -> None:
        libraries = sorted(installed(requirement).rglob("libnvrtc*.so*"))
        libraries = [path for path in libraries if ".alt." not in path.name]
        builtins = next(path for path in libraries if "builtins" in path.name)
        ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
        compiler = next(path for path in libraries if "builtins" not in path.name)
        self._library = ctypes.CDLL(str(compiler))

    def compile(self, source: str, output: str, *options: str) -> bytes:
        """``output`` is CUBIN, PTX or LTOIR.

        In a thread of its own: the library leaves the locale of its thread at C, and in the main
        one every later test would read UTF-8 as ASCII.
        """
        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(self._compile, source, output, *options).result()

    def _compile(self, source: str, output: str, *options: str) -> bytes:
        program = ctypes.c_void_p()
        self._call("CreateProgram", ctypes.byref(program), source.encode(), b"k.cu", 0, None, None)
        arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        self._call("CompileProgram", program, len(options), arguments)
        size = ctypes.c_size_t()
        self._call(f"Get{output}Size", program, ctypes.byref(size))
        image = ctypes.create_string_buffer(size.value)
        self._call(f"Get{output}", program, image)
        self._call("DestroyProgram", ctypes.byref(program))
        return image.raw

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, f"nvrtc{function}")(*arguments)
        if status:
            raise RuntimeError(f"nvrtc{function} failed with {status}")
