"""Compiles csrc/ into hw4fast._C and hw4fast._ort, and with an nvcc into hw4fast._cuda. It never imports torch.

CXXFLAGS             may name an optimisation level of its own, as tools/sanitize.sh does
HW4FAST_CUDA         0: without CUDA though an nvcc is there; 1: an error without one; else: as it is found
HW4FAST_CUDA_ARCHS   for which GPUs, "75 80 86 90a 100 120" by default; the last's PTX comes, too
MAX_JOBS             files compiled at a time, 2 by default, into HW4FAST_OBJECTS if set: pip's folder is new each time
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pybind11 import __version__ as pybind11_version
from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import errors, setup

# without Python: onnxruntime's operators, and what they share with the module
SHARED = [f"csrc/{name}.cpp" for name in ("conv_depthwise", "conv_fft", "conv_forward", "conv_winograd", "isa")]
SOURCES = sorted({str(path) for path in Path("csrc").glob("*.cpp")} - {"csrc/ort_ops.cpp"})
HEADERS, CUDA_SOURCES, CUDA_HEADERS = (sorted(map(str, Path("csrc").glob(p))) for p in ("*.[hi]*", "*.cu", "*.cuh"))

if sys.platform == "win32":
    sys.exit("hw4fast's kernels are written for GCC and Clang (vector types): on Windows build and run them in WSL")

# No ISA flag on a whole file (each_isa.h marks the regions), never -ffast-math (it would change the whole process).
flags = ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp-simd", "-Wall", "-Wextra"]
flags += ["-Wno-psabi", "-Wno-unknown-pragmas"] + ["-O3"] * ("-O" not in os.environ.get("CXXFLAGS", ""))


def find_nvcc() -> str | None:
    """The system's compiler for CUDA, or that of pip's nvidia-cuda-nvcc; None without one or with HW4FAST_CUDA=0."""
    spec, wish = importlib.util.find_spec("nvidia"), os.environ.get("HW4FAST_CUDA")
    homes = [os.environ.get("CUDA_HOME", ""), *(f"{p}/cu13" for p in (spec and spec.submodule_search_locations) or ())]
    found = [*(f"{home}/bin/nvcc" for home in homes), shutil.which("nvcc") or "", "/usr/local/cuda/bin/nvcc"]
    nvcc = next((path for path in found if os.access(path, os.X_OK)), None)
    if wish == "1" and not nvcc:
        sys.exit("HW4FAST_CUDA=1, but there is no nvcc: put it on the PATH, set CUDA_HOME or install nvidia-cuda-nvcc")
    return nvcc if wish != "0" else None


def cuda_flags() -> list[str]:
    archs = os.environ.get("HW4FAST_CUDA_ARCHS", "75 80 86 90a 100 120").split()
    ptx = [{"86": "80", "120": "100"}.get(arch, arch) for arch in archs]  # no kernel asks for more than the elder has
    code = [f"-gencode=arch=compute_{elder},code=sm_{arch}" for elder, arch in zip(ptx, archs, strict=True)]
    code += [f"-gencode=arch=compute_{ptx[-1]},code=compute_{ptx[-1]}"] * (ptx[-1][-1] != "a")  # a: for none to come
    code += ["-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra", f'-DHW4FAST_CUDA_ARCHS="{" ".join(archs)}"']
    return ["-std=c++17", "-O3", *code, "--threads=2"]


class BuildExtensions(build_ext):
    def build_extension(self, ext: Pybind11Extension) -> None:
        is_cuda = ext.name == "hw4fast._cuda"  # the last one; NAME.cpp and NAME.cu would have one object's name
        self.build_temp = (os.environ.get("HW4FAST_OBJECTS") or self.build_temp) + "/cuda" * is_cuda
        self.force = self.compiler.force = True  # dates don't say what is to be linked again
        self.compile_any = compile_cuda if is_cuda else type(self.compiler)._compile.__get__(self.compiler)
        self.compiler._compile = self.compile_new
        self.compiler.src_extensions = [".cu" if is_cuda else ".cpp"]
        self.version = subprocess.check_output([nvcc if is_cuda else self.compiler.compiler_so[0], "--version"])
        super().build_extension(ext)

    def compile_new(self, obj: str, src: str, *others: object) -> None:
        """Leaves an object that is of what would go into it now; dates don't say that, a clone's are all new."""
        is_cuda = src.endswith(".cu")
        names = "(C|CXX|CPP)FLAGS|CXX$" + "|NVCC_|HW4FAST_CUDA_" * is_cuda
        wishes = sorted(wish for wish in os.environ.items() if re.match(names, wish[0]))
        parts = [self.version, repr([wishes, sys.version, pybind11_version]).encode()]
        read = ("setup.py", src, *([*CUDA_HEADERS, *Path("csrc").glob("jpeg.h")] if is_cuda else HEADERS))
        key = hashlib.sha256(b"".join([*parts, *(Path(path).read_bytes() for path in read)])).hexdigest()
        note = Path(obj).with_suffix(".key")
        if not (note.exists() and Path(obj).exists() and note.read_text() == key):
            note.unlink(missing_ok=True)  # until the object is whole
            self.compile_any(obj, src, *others)
            note.write_text(key)


def compile_cuda(obj: str, src: str, ext: str, cc_args: list[str], extra: list[str], pp_opts: list[str]) -> None:
    command = [find_nvcc(), *cuda_flags(), *(flag for flag in cc_args if flag != "-c"), "-c", src, "-o", obj]
    if (done := subprocess.run(command, capture_output=True, text=True)).returncode:
        raise errors.CompileError(f"nvcc can't compile {src} (HW4FAST_CUDA=0: without):\n{done.stdout}{done.stderr}")


def extension(name: str, sources: list[str], **more: list[str]) -> Pybind11Extension:
    depends = [*HEADERS, *CUDA_HEADERS, *CUDA_SOURCES]  # these come with the source package, nvcc or not
    return Pybind11Extension(name, sources, depends=depends, cxx_std=17, extra_compile_args=list(flags), **more)


ParallelCompile("MAX_JOBS", default=2).install()
modules = [extension("hw4fast._C", SOURCES), extension("hw4fast._ort", [*SHARED, "csrc/ort_ops.cpp"])]
if nvcc := find_nvcc():
    told = subprocess.run([nvcc, "--dryrun", "none.cu"], capture_output=True, text=True).stderr
    at = [*re.findall(r'"-L([^"]+)"', told), str(Path(nvcc).parents[1] / "lib")]  # the last: pip's
    libraries = ["cudart_static", "dl", "pthread", "rt"]
    modules.append(extension("hw4fast._cuda", CUDA_SOURCES, library_dirs=at, libraries=libraries))
setup(ext_modules=modules, cmdclass={"build_ext": BuildExtensions})
