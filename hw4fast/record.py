"""Records: what ran where. A number in the README comes from one of these."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("hw4fast", "torch", "torchvision", "onnx", "onnxruntime-gpu", "onnxruntime", "numpy", "pillow", "numba")


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
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """What tells a machine's speed; no host name. isas: none when the kernels were not built."""
    try:
        from hw4fast import _C

        isas = _C.isas()
    except ImportError:
        isas = []
    return {"processor": processor(), "cores": cores(), "isas": isas, "system": platform.system()}


def now() -> str:
    """UTC time, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def commit() -> str | None:
    """The checkout's commit, with '+' when it was changed; None outside a checkout, even when the package is
    installed somewhere inside another repository."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*") or None
    except (OSError, subprocess.SubprocessError):
        return None


def append(path: str | Path, what: str, results: Any) -> dict[str, Any]:
    """Adds one line to a JSON-lines file: the results with time, commit, machine and versions. Returns it."""
    entry = {
        "what": what,
        "time": now(),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "results": results,
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n")
    return entry


def read(path: str | Path) -> list[dict[str, Any]]:
    """All entries of a JSON-lines file, oldest first; none when the file does not exist."""
    path = Path(path)
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
