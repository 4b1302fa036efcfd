"""Compiles csrc/*.cu for every GPU that setup.py names, and reads what nvcc's assembler says: a warning is an error,
and so is a spill or a stack frame in a hot kernel, or much static shared memory. No GPU is needed:
python tools/cuda_check.py [--keep FOLDER]

In a virtual environment it keeps note of files without faults, by the hash of all that their compilation reads, and
passes over them the next time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11

ROOT = Path(__file__).parents[1]
# What may keep numbers in memory: kernels for anything that no quicker one takes, double, and label smoothing's, whose
# weights take what the logits leave of 64 registers (…Lb1E… is SMOOTH of softmax_xent_rows).
COLD = re.compile(r"conv_any_|softmax_xent_any|softmax_xent_weights|softmax_xent_rowsI\w+?Li\d+ELi\d+ELb1E|tally")
STATIC = 16 << 10  # bytes of shared memory: csrc/cuda.cuh's `settings` counts on it
FEW = 32  # bytes: a loop's bounds or a pointer that rests while a row is on its way


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="where the assembler's reports go")
    folder = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        sources = sorted((ROOT / "csrc").glob("*.cu"), key=lambda source: -sum(map(len, sources_of(source).values())))
        with ThreadPoolExecutor(2) as pool:  # what takes longest first
            found = [
                fault
                for faults in pool.map(lambda source: check(source, place, folder is None), sources)
                for fault in faults
            ]
    for fault in found:
        print(fault)
    sys.exit(f"{len(found)} faults" if found else 0)


def check(source: Path, place: Path, may_know: bool) -> list[str]:
    """What is wrong with a file, a line each; may_know: a note of an earlier check will do."""
    nvcc, flags = _from_setup()
    includes = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
    command = [
        nvcc,
        *flags,
        "-Xptxas=-v",
        *includes,
        "-fatbin",
        str(source),
        "-o",
        str(place / f"{source.stem}.fatbin"),
    ]
    report, note = place / f"{source.name}.ptxas", _note(source, command)
    if may_know and note and note.exists():
        print(f"{source.name}: {note.read_text(encoding='utf-8')}, as before", flush=True)
        return []
    done = subprocess.run(command, capture_output=True, text=True)
    told = done.stdout + done.stderr
    report.write_text(told, encoding="utf-8")
    if done.returncode:
        return [f"{source.name}: {told[:2000]}"]
    faults = [f"{source.name}: {line}" for line in told.splitlines() if "warning" in line.lower()]
    faults += spills(told, source.name)
    kernels = f"{told.count('Compiling entry function')} kernels"
    print(f"{source.name}: {kernels}, {len(faults)} faults", flush=True)
    if note and not faults:
        note.parent.mkdir(exist_ok=True)
        note.write_text(kernels, encoding="utf-8")
    return faults


def sources_of(source: Path) -> dict[Path, bytes]:
    """A file of csrc/ and all that it includes from there."""
    found, left = {}, [source]
    while left:
        path = left.pop()
        if path not in found:
            found[path] = path.read_bytes()
            left += [path.parent / name for name in re.findall(r'^#include "(.+)"', found[path].decode(), re.MULTILINE)]
    return found


def _note(source: Path, command: list[str]) -> Path | None:
    """Where it stands that a file has no faults; None where there is no virtual environment to keep it in."""
    if sys.prefix == sys.base_prefix:
        return None
    compiler = subprocess.run([command[0], "--version"], capture_output=True, check=True).stdout
    flags = " ".join(word for word in command[1:] if word[0] == "-" and not word.startswith("-I"))
    parts = [compiler, pybind11.__version__.encode(), flags.encode(), Path(__file__).read_bytes()]
    parts += [bytes_ for _, bytes_ in sorted(sources_of(source).items())]
    return Path(sys.prefix) / "hw4fast-cuda-check" / hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def spills(told: str, name: str) -> list[str]:
    """The hot kernels with a stack frame and those with much static memory, from the assembler's report."""
    faults, kernel, target = [], "", ""
    for line in told.splitlines():
        if found := re.search(r"Compiling entry function '(\S+)' for '(\S+)'", line):
            kernel, target = found.groups()
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", line):
            frame, stores = map(int, found.groups())
            if max(frame, stores) > FEW and not COLD.search(kernel):
                faults.append(f"{name}: {kernel} for {target}: {frame} bytes of stack, {stores} of spills")
        elif (found := re.search(r"(\d+) bytes smem", line)) and int(found.group(1)) > STATIC:
            faults.append(f"{name}: {kernel} for {target}: {found.group(1)} bytes of static shared memory")
    return faults


def _from_setup() -> tuple[str, list[str]]:
    """setup.py's nvcc and flags, without setting up."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    body = text[text.index("def find_nvcc") : text.index("class BuildExtensions")]
    exec("import importlib.util, os, shutil, sys\n" + body, names)
    os.environ.pop("HW4FAST_CUDA", None)  # what is to be installed is another matter: tools/setup.sh sets it to 0
    nvcc = names["find_nvcc"]()  # type: ignore[operator]
    if nvcc is None:
        sys.exit("there is no nvcc: put it on the PATH, set CUDA_HOME or install nvidia-cuda-nvcc")
    return nvcc, names["cuda_flags"]()  # type: ignore[operator]


if __name__ == "__main__":
    main()
