"""Compiles csrc/ into hw4fast._C and hw4fast._ort. It never imports torch: the kernels take raw pointers."""

import os
import sys
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup

# without Python: onnxruntime's operators, and the kernels that they share with the module
SHARED = [f"csrc/{name}.cpp" for name in ("conv_depthwise", "conv_fft", "conv_forward", "conv_winograd", "isa")]
SOURCES = sorted({str(path) for path in Path("csrc").glob("*.cpp")} - {"csrc/ort_ops.cpp"})
HEADERS = sorted(str(path) for pattern in ("*.h", "*.inl") for path in Path("csrc").glob(pattern))

if sys.platform == "win32":
    sys.exit("hw4fast's kernels are written for GCC and Clang (vector types): on Windows build and run them in WSL")

# No ISA flag on a whole file (each_isa.h marks the regions), never -ffast-math (it would change the floating-point
# state of the whole process). CXXFLAGS may name a level of its own, as tools/sanitize.sh does.
flags = [] if "-O" in os.environ.get("CXXFLAGS", "") else ["-O3"]
flags += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp-simd"]
flags += ["-Wall", "-Wextra", "-Wno-psabi", "-Wno-unknown-pragmas"]


def stale(object_file: str, source: str) -> bool:
    """Whether it must be compiled (again): the sources in SHARED are named twice and compiled once."""
    made = Path(object_file)
    return not made.exists() or any(Path(p).stat().st_mtime >= made.stat().st_mtime for p in [source, *HEADERS])


def extension(name: str, sources: list[str]) -> Pybind11Extension:
    return Pybind11Extension(name, sources, depends=HEADERS, cxx_std=17, extra_compile_args=list(flags))


ParallelCompile("MAX_JOBS", default=2, needs_recompile=stale).install()
setup(ext_modules=[extension("hw4fast._C", SOURCES), extension("hw4fast._ort", [*SHARED, "csrc/ort_ops.cpp"])])
