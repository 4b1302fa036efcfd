"""Compiles csrc/*.cu for every GPU that setup.py names, and reads what nvcc's assembler says: a warning is an error,
and so is a spill or a stack frame in a hot kernel, or much static shared memory. No GPU is needed:
python tools/cuda_check.py [--keep FOLDER]
"""

from __future__ import annotations

import argparse
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
        sources = sorted((ROOT / "csrc").glob("*.cu"))
        with ThreadPoolExecutor(2) as pool:
            found = [fault for faults in pool.map(lambda source: check(source, place), sources) for fault in faults]
    for fault in found:
        print(fault)
    sys.exit(f"{len(found)} faults" if found else 0)


def check(source: Path, place: Path) -> list[str]:
    """What is wrong with a file, a line each."""
    nvcc, flags = _from_setup()
    includes = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
    command = [nvcc, *flags, *includes, "-fatbin", str(source), "-o", str(place / f"{source.stem}.fatbin")]
    done = subprocess.run(command, capture_output=True, text=True)
    told = done.stdout + done.stderr
    (place / f"{source.name}.ptxas").write_text(told, encoding="utf-8")
    if done.returncode:
        return [f"{source.name}: {told[:2000]}"]
    faults = [f"{source.name}: {line}" for line in told.splitlines() if "warning" in line.lower()]
    faults += spills(told, source.name)
    print(f"{source.name}: {told.count('Compiling entry function')} kernels, {len(faults)} faults", flush=True)
    return faults


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
