#!/usr/bin/env python
"""How long whole processes of the command line take, from `exec` to exit, taking turns; --record keeps it.

    python benchmarks/cold_start.py runs/digits

The run must be exported. "Cold" means a new process with the files in the page cache, as a user has it from the
second call on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np

from hw4fast import record, timing

ROUNDS = 21


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="an exported run folder")
    parser.add_argument("--record", action="store_true", help="append to the record that the README quotes")
    arguments = parser.parse_args()
    program = [str(Path(sys.executable).with_name("hw4fast"))]
    picture = str(sorted((arguments.run / "samples").glob("*.png"))[0])
    commands = {
        "hw4fast --help": ["--help"],
        "hw4fast classify": ["classify", picture, "--model", str(arguments.run)],
        "hw4fast classify --transform": ["classify", picture, "--model", str(arguments.run), "--transform", "blur25"],
        "hw4fast info": ["info"],
    }
    calls = {
        name: partial(subprocess.run, program + words, check=True, stdout=subprocess.DEVNULL)
        for name, words in commands.items()
    }
    rows = {}
    for name, took in timing.alternate(calls, seconds=0, warmup=1, at_least=ROUNDS).items():
        low, median, high = np.percentile(took, (25, 50, 75))
        rows[name] = {"median_s": median, "quartiles_s": [low, high], "max_s": took.max(), "n": len(took)}
        print(f"{name:<30} {median:.3f} s (quartiles {low:.3f} … {high:.3f}, n = {len(took)})")
    if arguments.record:
        record.append(Path(__file__).parent / "results" / "cold_start.jsonl", "cold start", rows)


if __name__ == "__main__":
    main()
