#!/usr/bin/env python
"""Times our kernels against the field's, taking turns in one process, and appends what was found to the records.

    python benchmarks/compare.py softmax_xent --threads 2
    python benchmarks/compare.py softmax_xent --shape 512x1000 --seconds 10 --dry-run

Prints for each candidate the median and the ratio to ours with its 95 % bootstrap interval. A record goes to
benchmarks/results/KERNEL.jsonl. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import candidates
import numpy as np
import torch

from hw4fast import record, timing
from hw4fast.kernels import softmax_xent as card

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel", choices=list(candidates.KERNELS))
    parser.add_argument("--shape", action="append", help="such as 512x1000; default: all of the kernel's")
    parser.add_argument("--threads", type=int, default=record.cores())
    parser.add_argument("--seconds", type=float, default=6.0, help="per shape; default: %(default)s")
    parser.add_argument("--dry-run", action="store_true", help="append no record")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    make, shapes = candidates.KERNELS[arguments.kernel]
    if arguments.shape:
        shapes = tuple(tuple(int(side) for side in text.split("x")) for text in arguments.shape)
    rows = [compare(make, shape, arguments.seconds) for shape in shapes]
    if not arguments.dry_run:
        path = RESULTS / f"{arguments.kernel}.jsonl"
        record.append(path, f"compare {arguments.kernel}", {"threads": arguments.threads, "shapes": rows})
        print(f"record: {path}")


def compare(make: Any, shape: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """Candidates and a copy of as many bytes as the kernel must move, in turn."""
    nbytes, _ = card.cost(*shape)
    calls = make(shape) | candidates.copy(nbytes)
    times = timing.alternate(calls, seconds=seconds, warmup=20, at_least=21, at_most=5000)
    ours = times[candidates.OURS]
    name = "×".join(map(str, shape))
    print(f"{name}, {len(ours)} rounds, {nbytes / 1e6:.2f} MB to move")
    row: dict[str, Any] = {"shape": list(shape), "rounds": len(ours), "bytes": nbytes, "candidates": {}}
    for candidate, took in times.items():
        low, median, high = np.percentile(took * 1e6, (25, 50, 75))
        found = timing.ratio(took, ours)
        print(f"  {candidate:<14} {median:>10.1f} µs  (quartiles {low:.1f} … {high:.1f})  {found} ours")
        row["candidates"][candidate] = {
            "median_us": median,
            "quartiles_us": [low, high],
            "ratio_to_ours": found.median,
            "ratio_interval": [found.low, found.high],
        }
    return row


if __name__ == "__main__":
    main()
