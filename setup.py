"""Compiles csrc/ into hw4fast._C. It never imports torch: the kernels take raw pointers."""

import os
import sys
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup

SOURCES = sorted(str(path) for path in Path("csrc").glob("*.cpp"))
HEADERS = sorted(str(path) for pattern in ("*.h", "*.inl") for path in Path("csrc").glob(pattern))

if sys.platform == "win32":
    sys.exit("hw4fast's kernels are written for GCC and Clang (vector types): on Windows build and run them in WSL")

# No ISA flag on a whole file (each_isa.h marks the regions), never -ffast-math (it would change the floating-point
# state of the whole process). CXXFLAGS may name a level of its own, as tools/sanitize.sh does.
flags = [] if "-O" in os.environ.get("CXXFLAGS", "") else ["-O3"]
flags += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp-simd"]
flags += ["-Wall", "-Wextra", "-Wno-psabi", "-Wno-unknown-pragmas"]

ParallelCompile("MAX_JOBS", default=2).install()
setup(
    ext_modules=[
        Pybind11Extension("hw4fast._C", SOURCES, depends=HEADERS, cxx_std=17, extra_compile_args=flags),
    ]
)
