"""Thousands of damaged models and pictures, each opened and classified in a process that is watched.

    python tools/fuzz.py                                  2,000 of each, in 2 processes
    python tools/fuzz.py --models 300 --pictures 0 --first 5000 --also runs/digits/model.onnx

Prints how many were answered and how many refused, with which kinds of message, and the peak memory. What crashes,
hangs, fills the memory, prints, raises or refuses in more than a line is kept in --keep, and the exit code is 1. The
files are the same each time: a file is made from its number.
"""

from __future__ import annotations

import argparse
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hw4fast import record  # noqa: E402
from tests.data.hostile_pictures import damaged_picture  # noqa: E402
from tests.inference.damaged_models import damaged_model  # noqa: E402
from tests.watched import BAD, Outcome, Watched  # noqa: E402

RECORD = ROOT / "benchmarks" / "results" / "fuzz.jsonl"
SECONDS = {"model": 25, "picture": 20}  # for one file; a model's trial has 10
MEMORY = {"model": 1800, "picture": 3000}  # MiB of a process and its children; a model's trial has 1024
LIMITS = {"HW4FAST_TRIAL_SECONDS": "10", "HW4FAST_TRIAL_MB": "1024"}
KINDS = {  # of refusals, in words of theirs
    "a trial crashed": "makes onnxruntime crash",
    "a trial took too long": "isn't done with one picture",
    "a trial asked for too much memory": "of memory for one picture",
    "onnxruntime can't load it": "can't be loaded as an ONNX model",
    "onnxruntime can't run it": "failed on a batch",
    "no text": "that are no text",
    "no card": "it has no card",
    "a card that can't be read": r"the card \(hw4fast.card\)",
    "a card that doesn't fit": "the card (?:says|has)|tensors are|pictures at a time",
    "an answer of another shape": "answered ",
    "an answer that is no number": "is no number",
    "too many pixels": "aren't decoded|too long and thin",
    "no picture": "is no picture that can be read",
    "a broken header": "has a broken header",
    "a broken picture": "is a broken or truncated",
    "32 bits per pixel": "32 bits per pixel",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=2000)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file; default: %(default)s")
    parser.add_argument("--also", type=Path, action="append", default=[], help="another model that is damaged")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument(
        "--keep", type=Path, default=ROOT / "build" / "fuzz", help="where bad files go; default: %(default)s"
    )
    parser.add_argument("--record", action="store_true", help="append the outcome to the README's records")
    given = parser.parse_args()
    more = tuple(path.read_bytes() for path in given.also)
    makers = {"model": lambda number: damaged_model(number, more), "picture": damaged_picture}
    bad, results = 0, {}
    for kind, count in (("model", given.models), ("picture", given.pictures)):
        if count > 0:
            start = time.monotonic()
            outcomes = judge_all(kind, makers[kind], range(given.first, given.first + count), given.workers, given.keep)
            results[kind] = summary(outcomes, time.monotonic() - start)
            show(kind, results[kind])
            bad += sum(outcome.kind in BAD for outcome in outcomes)
    if given.record:
        record.append(RECORD, "fuzz", results)
    print(f"{bad} bad" + (f": see {given.keep}" if bad else ""))
    return 1 if bad else 0


def judge_all(
    kind: str, make: Callable[[int], tuple[str, bytes]], numbers: range, workers: int, keep: Path
) -> list[Outcome]:
    """All files of those numbers, by so many processes at once; the bad ones are kept."""
    waiting, found = iter(numbers), []
    lock = threading.Lock()

    def work(folder: Path) -> None:
        path = folder / "damaged"
        with Watched(kind, SECONDS[kind], MEMORY[kind], {**LIMITS, "HW4FAST_CACHE": str(folder / "cache")}) as watched:
            while True:
                with lock:
                    number = next(waiting, None)
                if number is None:
                    return
                name, data = make(number)
                path.write_bytes(data)
                outcome = watched.judge(path)
                with lock:
                    found.append(outcome)
                    if outcome.kind in BAD:
                        keep.mkdir(parents=True, exist_ok=True)
                        (keep / f"{kind}-{number}").write_bytes(data)
                        print(f"{kind} {number} ({name}): {outcome.kind}: {outcome.text}", flush=True)
                    if len(found) % 200 == 0:
                        print(f"{len(found)} of {len(numbers)} {kind}s", file=sys.stderr, flush=True)

    with TemporaryDirectory() as folder:
        threads = []
        for i in range(workers):
            own = Path(folder) / str(i)
            own.mkdir()
            threads.append(threading.Thread(target=work, args=(own,)))
            threads[-1].start()
        for thread in threads:
            thread.join()
    if len(found) < len(numbers):
        raise SystemExit(f"only {len(found)} of {len(numbers)} were judged")
    return found


def summary(outcomes: list[Outcome], seconds: float) -> dict[str, Any]:
    said = Counter(kind_of(outcome.text) for outcome in outcomes if outcome.kind == "refused")
    return {
        "files": len(outcomes),
        "seconds": seconds,
        "outcomes": dict(Counter(outcome.kind for outcome in outcomes).most_common()),
        "refused": dict(said.most_common()),
        "slowest_s": max(outcome.seconds for outcome in outcomes),
        "peak_mib": max(outcome.peak for outcome in outcomes),
    }


def show(kind: str, found: dict[str, Any]) -> None:
    print(f"\n{found['files']} damaged {kind}s in {found['seconds']:.0f} s")
    for name, count in found["outcomes"].items():
        print(f"  {count:5}  {name}")
    for name, count in found["refused"].items():
        print(f"  {count:5}    refused: {name}")
    print(
        f"  slowest {found['slowest_s']:.1f} s; peak memory {found['peak_mib']:.0f} MiB, of a process with its children"
    )


def kind_of(text: str) -> str:
    return next((kind for kind, words in KINDS.items() if re.search(words, text)), f"something else: {text[-80:]}")


if __name__ == "__main__":
    raise SystemExit(main())
