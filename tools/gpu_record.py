"""Puts what tools/gpu_check.sh measured into one record, FOLDER/gpu.jsonl, and prints the table of targets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hw4fast import kernels, record


def main(folder: Path) -> None:
    results: dict[str, Any] = {}
    for path in sorted(folder.glob("gpu*.json")):
        try:
            results[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            print(f"{path.name} is unfinished: {error}")
    if not results:
        sys.exit(f"no benchmark has left its numbers in {folder}")
    for name in ("tests", "memcheck", "racecheck"):  # what each said last
        if (log := folder / f"{name}.log").exists():
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            results[name] = [line for line in lines if not line.startswith("exit code")][-1:]
    try:
        results["gpus"] = kernels.compiled_cuda().devices()
        results["driver"], results["cuda"] = kernels.compiled_cuda().versions()
    except RuntimeError as error:
        results["gpus"] = str(error)
    record.append(folder / "gpu.jsonl", "gpu", results)
    for name, parts in results.items():
        if isinstance(parts, dict):
            for part, entries in parts.items():
                print(name, part, "failed" if "error" in entries else f"{len(entries)} entries")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
