"""Configure with CMake, build with ninja, pack a wheel: the way PyTorch's own setup.py goes."""

import os
import subprocess
import sys

from setuptools import Extension, setup

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(HERE, "build")
ONLY_CONFIGURE = "--cmake-only" in sys.argv


def configure():
    passed = sorted(name for name in os.environ if name.startswith(("BUILD_", "USE_", "BLAS")))
    os.makedirs(BUILD, exist_ok=True)
    definitions = ["-D{}={}".format(name, os.environ[name]) for name in passed]
    install = "-DCMAKE_INSTALL_PREFIX=" + os.path.join(HERE, "torch")
    subprocess.check_call(["cmake", "-GNinja", install] + definitions + [HERE], cwd=BUILD)


def compile_all():
    jobs = os.environ.get("MAX_JOBS", "1")
    subprocess.check_call(["cmake", "--build", ".", "--target", "install", "--", "-j", jobs], cwd=BUILD)


configure()
if ONLY_CONFIGURE:
    sys.exit(0)
compile_all()
setup(
    name="torch",
    version=os.environ["PYTORCH_BUILD_VERSION"],
    packages=["torch"],
    package_data={"torch": ["lib/*.so*", "extension/*.so"]},
    ext_modules=[Extension("torch._C", ["torch/csrc/stub.c"])],
)
