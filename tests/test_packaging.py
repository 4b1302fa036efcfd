"""The sdist holds what a build needs, the wheel only what a user needs."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_wheel_built_from_the_sdist_holds_the_package_and_nothing_else(tmp_path):
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    compiler = tmp_path / "compiler"  # makes empty files: what is in them is not the question
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n: >"$2"\n')
    compiler.chmod(0o755)
    names = ("CC", "CXX", "LDSHARED", "LDCXXSHARED")
    quickly = {**os.environ, **dict.fromkeys(names, str(compiler)), "HW4FAST_CUDA": "0"}
    result = subprocess.run(command, env=quickly, capture_output=True, text=True)  # the wheel is built from the sdist
    assert result.returncode == 0, result.stderr[-2000:]
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "csrc").iterdir()
        if path.suffix in (".cpp", ".h", ".inl", ".cu", ".cuh")
    }
    assert sources and sources <= names
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "hw4fast/cli/__init__.py"} <= names

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = archive.namelist()
        entry_points = archive.read(next(name for name in inside if name.endswith("entry_points.txt"))).decode()
    tops = {name.split("/")[0] for name in inside}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"hw4fast"}
    assert any(name.startswith("hw4fast/_C.") and name.endswith((".so", ".pyd")) for name in inside)
    packages = {str(path.relative_to(ROOT)) for path in (ROOT / "hw4fast").rglob("*.py")}
    assert packages == {name for name in inside if name.endswith(".py")}
    assert "hw4fast = hw4fast.cli:main" in entry_points
