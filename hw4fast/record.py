"""Records: what ran where. A number in the README comes from one of these."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import warnings
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "hw4fast", "torch", "torchvision", "onnx", "onnxruntime-gpu", "onnxruntime", "numpy", "pillow", "numba",
    "pyarrow", "pandas",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Installed versions of Python and the packages that results depend on, without importing any."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """The processor's name as the system tells it."""
    return _processor_says("model name") or platform.processor() or platform.machine()


def instructions() -> str:
    """What the processor can, as the system tells it: one name stands for many of them, virtual ones above all. Empty
    where the system doesn't say."""
    return _processor_says("flags") or _processor_says("Features")


def _processor_says(key: str) -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(gpu: bool = False) -> dict[str, Any]:
    """What tells a machine's speed; no host name. isas: none when the kernels were not built. gpu: with its GPUs, for
    what ran on one: to ask for them takes a tenth of a second and more."""
    try:
        from hw4fast import _C

        isas = _C.isas()
    except ImportError:
        isas = []
    found = {"processor": processor(), "cores": cores(), "isas": isas, "system": platform.system()}
    return found | _gpus() if gpu else found


def _gpus() -> dict[str, Any]:
    """gpus: name, capability (90: 9.0), memory in bytes and multiprocessors of each; driver: the CUDA that it knows
    (13000: 13.0). Nothing where hw4fast's CUDA kernels were not built, or find none."""
    try:
        from hw4fast import _cuda  # type: ignore[attr-defined, unused-ignore]

        return {"gpus": _cuda.devices(), "driver": _cuda.versions()[0]}
    except (ImportError, RuntimeError):
        return {}


def now() -> str:
    """UTC time, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def commit() -> str | None:
    """The checkout's commit, with '+' when it was changed; None outside a checkout, even when the package is
    installed somewhere inside another repository."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        changed = git("status", "--porcelain", "--untracked-files=no")  # `describe --dirty` would lock the index
        found = git("describe", "--always", "--abbrev=12", "--exclude=*")
        return found + "+" * bool(changed) or None
    except (OSError, subprocess.SubprocessError):
        return None


def append(path: str | Path, what: str, results: Any, gpu: bool = False) -> dict[str, Any]:
    """Adds one line to a JSON-lines file: the results with time, commit, machine and versions. Returns it.
    gpu: as `machine` has it.

    A last line without its end (somebody was killed while writing it) is ended first.
    """
    entry = {
        "what": what,
        "time": now(),
        "commit": commit(),
        "machine": machine(gpu),
        "versions": versions(),
        "results": results,
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with path.open("ab+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)  # at the end, wherever we read
    return entry


def read(path: str | Path) -> list[dict[str, Any]]:
    """All entries of a JSON-lines file, oldest first; none when the file does not exist.

    A line that is no entry is left out, with a warning that names file and line.
    """
    path = Path(path)
    if not path.is_file():
        return []
    entries = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            try:
                entries.append(_entry(line))
            except ValueError as error:
                warnings.warn(f"{path}, line {number} is no record and is left out: {error}", stacklevel=2)
    return entries


def _entry(line: bytes) -> dict[str, Any]:
    value = json.loads(line.decode("utf-8"))
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value
