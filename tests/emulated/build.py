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
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import ModuleType

import pybind11

from tools.cuda_check import sources_of

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
FLAGS = ["-std=c++17", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-DHW4FAST_EMULATED", '-DHW4FAST_CUDA_ARCHS="80"']
FLAGS += ["--param", "ggc-min-heapsize=1000000"]  # kB before the compiler looks for garbage: a tenth of its time
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
    # What is compiled is kept in the virtual environment, by the hash of all that it was made of, for all checkouts.
    folder = ROOT / "build" / "emulated" if sys.prefix == sys.base_prefix else Path(sys.prefix) / "hw4fast-emulated"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # other workers of the tests wait, and find it made
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _made(folder, include, library)


def _made(folder: Path, include: Path, library: Path) -> ModuleType:
    places = (include, pybind11.get_include(), sysconfig.get_paths()["include"])
    compiler = ["g++", *FLAGS, *(f"-isystem{place}" for place in places)]
    made_by = "".join((sys.version, pybind11.__version__, *FLAGS, _run(["g++", "--version"])))
    own = [HERE / "emulator.h", HERE / "intrinsics.h", HERE / "build.py"]
    own.append(include / "cuda_runtime_api.h")  # the version of all the others
    common = hashlib.sha256(b"".join((made_by.encode(), *(path.read_bytes() for path in own))))

    def object_of(source: Path) -> Path:
        key = common.copy()
        for path, text in sorted(sources_of(source).items()):
            key.update(path.name.encode() + text)
        return folder / f"{source.stem}-{key.hexdigest()[:16]}.o"

    objects = {source: object_of(source) for source in sorted((ROOT / "csrc").glob("*.cu"))}
    missing = [source for source, made in objects.items() if not made.exists()]
    with tempfile.TemporaryDirectory(dir=folder) as temporary, ThreadPoolExecutor(2) as pool:
        first = HERE / "emulator.h"
        if len(missing) > 2:  # what all include is compiled once: it is a third of each
            first = Path(temporary) / "first.h"
            names = [HERE / "emulator.h", ROOT / "csrc" / "cuda.cuh", "pybind11/stl.h"]
            first.write_text("".join(f'#include "{name}"\n' for name in names), encoding="utf-8")
            _run([*compiler, "-x", "c++-header", str(first), "-o", f"{first}.gch"])

        def compile_one(source: Path) -> None:
            unfinished = Path(temporary) / f"{source.stem}.o"
            _run([*compiler, "-x", "c++", "-include", str(first), "-c", str(source), "-o", str(unfinished)])
            unfinished.replace(objects[source])

        list(pool.map(compile_one, missing))
    name = hashlib.sha256(" ".join(made.name for made in objects.values()).encode()).hexdigest()[:16]
    made = folder / f"_cuda-{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not made.exists():
        unfinished = made.with_suffix(f".{os.getpid()}.so")
        libraries = [str(library), "-ldl", "-lpthread", "-lrt"]
        _run(["g++", "-shared", *map(str, objects.values()), *libraries, "-o", str(unfinished)])
        unfinished.replace(made)
    for kept in {*objects.values(), made}:
        kept.touch()
    for old in folder.glob("*-*"):  # that nobody asked for in a week
        if old.stat().st_mtime < time.time() - 7 * 86400:
            old.unlink()
    spec = importlib.util.spec_from_file_location("_cuda", made)
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[:4000]}")
    if done.stderr:
        print(done.stderr, file=sys.stderr)
    return done.stdout


if __name__ == "__main__":
    print(module().__file__)
