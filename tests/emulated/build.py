"""Compiles csrc/*.cu for the CPU: `module()` is hw4fast._cuda whose kernels tests/emulated/emulator.h runs.

Needs CUDA's headers and its static runtime library: those of nvcc, or what torch and triton bring with pip.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import ModuleType

import pybind11

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
FLAGS = ["-std=c++17", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-DHW4FAST_EMULATED", '-DHW4FAST_CUDA_ARCHS="80"']
FLAGS += ["-U_FORTIFY_SOURCE"]  # its longjmp knows one stack only
FLAGS += ["-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-psabi", "-Wno-attributes", "-Wno-class-memaccess"]


def _places() -> list[Path]:
    found = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))]
    for package, inside in (("nvidia", "cu13"), ("triton", "backends/nvidia")):
        spec = importlib.util.find_spec(package)
        found += [Path(place) / inside for place in (spec and spec.submodule_search_locations) or ()]
    return found


def headers() -> Path | None:
    """A folder with cuda_runtime.h and all that it includes."""
    return next((p for home in _places() if (p := home / "include") and (p / "crt/host_config.h").exists()), None)


def runtime() -> Path | None:
    """CUDA's static runtime library."""
    places = (home / lib / "libcudart_static.a" for home in _places() for lib in ("lib", "lib64"))
    return next((p for p in places if p.exists()), None)


@cache
def module() -> ModuleType:
    """Compiled where it has changed. Raises RuntimeError with the compiler's words."""
    include, library = headers(), runtime()
    if include is None or library is None:
        raise RuntimeError(
            "CUDA's headers or its runtime library are not here: they come with nvcc, or torch and triton"
        )
    folder = ROOT / "build" / "emulated"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # other workers of the tests wait, and find it made
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _made(folder, include, library)


def _made(folder: Path, include: Path, library: Path) -> ModuleType:
    includes = [f"-I{include}", f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
    shared = [*sorted((ROOT / "csrc").glob("*.cuh")), HERE / "emulator.h", HERE / "intrinsics.h", HERE / "build.py"]
    common = hashlib.sha256(b"".join(path.read_bytes() for path in shared) + sys.version.encode())

    def compile_one(source: Path) -> Path:
        key = common.copy()
        key.update(source.read_bytes())
        obj = folder / f"{source.stem}-{key.hexdigest()[:16]}.o"
        if not obj.exists():
            unfinished = obj.with_suffix(f".{os.getpid()}.o")
            command = ["g++", "-x", "c++", *FLAGS, *includes, "-include", str(HERE / "emulator.h"), "-c", str(source)]
            _run([*command, "-o", str(unfinished)])
            unfinished.replace(obj)
        return obj

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sorted((ROOT / "csrc").glob("*.cu"))))
    name = hashlib.sha256(" ".join(map(str, objects)).encode()).hexdigest()[:16]
    made = folder / f"_cuda-{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not made.exists():
        unfinished = made.with_suffix(f".{os.getpid()}.so")
        libraries = [str(library), "-ldl", "-lpthread", "-lrt"]
        _run(["g++", "-shared", *map(str, objects), *libraries, "-o", str(unfinished)])
        unfinished.replace(made)
    spec = importlib.util.spec_from_file_location("_cuda", made)
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[:4000]}")
    if done.stderr:
        print(done.stderr, file=sys.stderr)


if __name__ == "__main__":
    print(module().__file__)
