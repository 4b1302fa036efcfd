"""The sdist holds what a build needs, the wheel only what a user needs."""

import ctypes
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


# Compilers that make empty files: what is in them is not the question.
COMPILER = """#!/bin/sh
if [ "$1" = --version ]; then echo one; exit; fi
while [ "$1" != -o ]; do shift; done
: >"$2"
case $2 in *"${BROKEN:-nothing}".o) exit 1 ;; esac
"""
NVCC = """#!/bin/sh
if [ "$1" = --version ]; then echo one; exit; fi
if [ "$1" = --dryrun ]; then echo '#$ LIBRARIES=  "-L/nowhere"' >&2; exit; fi
while [ "$1" != -c ]; do shift; done
test -s "$2" && : >"$4"
"""


def with_compilers(folder: Path, cuda: str) -> dict[str, str]:
    """The environment in which those compile; HW4FAST_CUDA: `cuda`."""
    for name, text in (("compiler", COMPILER), ("bin/nvcc", NVCC)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    compilers = dict.fromkeys(("CC", "CXX", "LDSHARED", "LDCXXSHARED"), str(folder / "compiler"))
    return {**os.environ, **compilers, "HW4FAST_CUDA": cuda, "CUDA_HOME": str(folder), "HW4FAST_OBJECTS": ""}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist and a wheel that is built from it, without CUDA."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    result = subprocess.run(command, env=with_compilers(folder, "0"), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return folder


def inside(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.slow
def test_a_wheel_built_from_the_sdist_holds_the_package_and_nothing_else(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    kinds = (".cpp", ".h", ".inl", ".cu", ".cuh")
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").iterdir() if path.suffix in kinds}
    assert {Path(name).suffix for name in sources} == set(kinds) and sources <= names
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "hw4fast/cli/__init__.py"} <= names

    (wheel,) = built.glob("*.whl")
    found = inside(wheel)
    tops = {name.split("/")[0] for name in found}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"hw4fast"}
    assert any(name.startswith("hw4fast/_C.") and name.endswith((".so", ".pyd")) for name in found)
    packages = {str(path.relative_to(ROOT)) for path in (ROOT / "hw4fast").rglob("*.py")}
    assert packages == {name for name in found if name.endswith(".py")}
    entry_points = next(found[name] for name in found if name.endswith("entry_points.txt"))
    assert "hw4fast = hw4fast.cli:main" in entry_points.decode()


@pytest.mark.slow
def test_with_an_nvcc_the_wheel_is_the_same_but_for_the_cuda_kernels(built, tmp_path):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("hw4fast-*")
    command = [sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", str(tmp_path)]
    result = subprocess.run(command, env=with_compilers(tmp_path, "1"), cwd=source, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    (plain,), (with_cuda,) = built.glob("*.whl"), tmp_path.glob("*.whl")
    without, found = inside(plain), inside(with_cuda)
    (more,) = found.keys() - without.keys()
    assert more.startswith("hw4fast/_cuda.") and not without.keys() - found.keys()
    assert plain.name == with_cuda.name
    assert {name for name in without if found[name] != without[name] and not name.endswith("/RECORD")} == set()


@pytest.mark.slow
def test_only_what_has_changed_is_compiled_again(tmp_path):
    source, objects = tmp_path / "source", tmp_path / "objects"
    shutil.copytree(ROOT / "csrc", source / "csrc")
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    (source / "hw4fast").mkdir()
    (source / "hw4fast/__init__.py").touch()
    known: dict[str, int] = {}

    def made(folder: Path, kind: str) -> dict[str, int]:
        return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob(kind)}

    def build(**more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "setup.py", "-q", "build", "--build-lib", str(tmp_path / "lib")]
        environment = with_compilers(tmp_path, "1") | {"HW4FAST_OBJECTS": str(objects)} | more
        return subprocess.run(command, env=environment, cwd=source, capture_output=True, text=True)

    def compiled(**more: str) -> set[str]:
        linked, result = made(tmp_path / "lib", "*.so"), build(**more)
        assert result.returncode == 0, result.stderr[-2000:]
        again = made(tmp_path / "lib", "*.so")
        assert len(again) == 3 and not linked.items() & again.items()  # whatever was compiled
        found = made(objects, "*.o")
        new = {name for name, when in found.items() if known.get(name) != when}
        known.update(found)
        return new

    def append(name: str) -> None:
        with (source / "csrc" / name).open("a") as file:
            file.write("// more\n")

    plain = {f"csrc/{path.stem}.o" for path in (source / "csrc").glob("*.cpp")}
    cuda = {f"cuda/csrc/{path.stem}.o" for path in (source / "csrc").glob("*.cu")}
    assert compiled() == plain | cuda
    (source / "csrc/isa.cpp").touch()
    assert compiled() == set()
    append("isa.cpp")
    assert compiled() == {"csrc/isa.o"}
    append("parallel.h")
    assert compiled() == plain
    append("cuda.cuh")
    assert compiled() == cuda
    append("jpeg.h")  # of both
    assert compiled() == plain | cuda
    assert compiled(CXXFLAGS="-O1") == plain | cuda
    append("isa.cpp")  # what is left of a compilation that broke off is no object
    assert build(CXXFLAGS="-O1", BROKEN="isa").returncode and (objects / "csrc/isa.o").exists()
    assert compiled(CXXFLAGS="-O1") == {"csrc/isa.o"}


@pytest.mark.slow
def test_what_nvcc_compiles_is_linked_with_its_runtime(tmp_path):
    """The real compilers, the system's or pip's nvcc, of files that are as good as empty."""
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    for folder in ("csrc", "hw4fast"):
        (tmp_path / folder).mkdir()
    (tmp_path / "hw4fast/__init__.py").touch()
    for path in (ROOT / "csrc").glob("*.cpp"):
        (tmp_path / "csrc" / path.name).write_text(f"int {path.stem}() {{ return 0; }}")
    text = (
        "#include <cuda_runtime.h>\nint devices() { int n = 0; return cudaGetDeviceCount(&n) == cudaSuccess ? n : 0; }"
    )
    (tmp_path / "csrc/devices.cu").write_text(text)
    environment = {**os.environ, "HW4FAST_CUDA": "1", "HW4FAST_CUDA_ARCHS": "80", "HW4FAST_OBJECTS": ""}
    command = [sys.executable, "setup.py", "-q", "build", "--build-lib", "lib"]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    if "there is no nvcc" in result.stderr:
        pytest.skip("there is no nvcc")
    assert result.returncode == 0, result.stderr[-2000:]
    (module,) = (tmp_path / "lib/hw4fast").glob("_cuda.*.so")
    ctypes.CDLL(str(module))
