#!/usr/bin/env python
"""Times our kernels against the field's, taking turns in one process; --record appends what was found to the records.

    python benchmarks/compare.py softmax_xent --threads 2
    python benchmarks/compare.py conv_block --case 16x14-32-5x5 --seconds 10
    python benchmarks/compare.py conv_block --everything --record

Prints for each candidate the median, the ratio to ours with its 95 % bootstrap interval, and the share of this
machine's roofline: the longer of a copy of as many bytes, which takes turns with them, and as many flops at the rate
of sgemm, which runs after them. With --record the README's records in benchmarks/results/ grow, KERNEL.jsonl or, with
--everything, KERNEL-variants.jsonl; tools/readme.py fills them in. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import candidates
import numpy as np
import torch

from hw4fast import kernels, record, timing
from hw4fast.errors import UsageError

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel", choices=list(candidates.COMPARISONS))
    parser.add_argument(
        "--case", action="append", metavar="NAME", help="such as 512x1000; default: all of the kernel's"
    )
    parser.add_argument("--threads", type=int, default=record.cores())
    parser.add_argument("--seconds", type=float, default=6.0, help="per case; default: %(default)s")
    parser.add_argument(
        "--everything", action="store_true", help="also the bare kernel on each instruction set, and numba"
    )
    parser.add_argument("--record", action="store_true", help="append to the records that the README quotes")
    arguments = parser.parse_args()
    try:
        kernels.check_threads(arguments.threads, "--threads")
    except UsageError as error:
        parser.error(str(error))
    torch.set_num_threads(arguments.threads)
    comparison = candidates.COMPARISONS[arguments.kernel]
    names = arguments.case or list(comparison.cases)
    unknown = [name for name in names if name not in comparison.cases]
    if unknown:
        parser.error(f"unknown case {unknown[0]}; known: {', '.join(comparison.cases)}")
    before = kernels.calls()
    rows = [compare(comparison, name, arguments.seconds, arguments.everything) for name in names]
    ran = {isa for kernel, counts in kernels.calls().items() for isa, n in counts.items() if n > before[kernel][isa]}
    if arguments.record:
        path = RESULTS / f"{arguments.kernel}{'-variants' * arguments.everything}.jsonl"
        results = {"threads": arguments.threads, "isas": sorted(ran), "cases": rows}
        record.append(path, f"compare {arguments.kernel}", results)
        print(f"record: {path}")


def compare(comparison: candidates.Comparison, name: str, seconds: float, everything: bool) -> dict[str, Any]:
    """Candidates and what bounds them, in turn."""
    case = comparison.cases[name]
    calls = comparison.make(case, everything) if everything else comparison.make(case)
    yardsticks = comparison.yardsticks(case)
    sgemm = {name: call for name, call in yardsticks.items() if name == candidates.SGEMM}
    calls |= {name: call for name, call in yardsticks.items() if name not in sgemm}
    turns = {"burst": 3, "pause": 0.01} if everything or comparison.bursts else {}
    times = timing.alternate(calls, seconds=seconds, warmup=20, at_least=21, at_most=5000, **turns)
    # by itself: its matrices would empty the caches before the small ones' turns
    if sgemm:
        times |= timing.alternate(sgemm, seconds=0.5, warmup=5, at_least=21, **turns)
    bytes_, flops = comparison.cost(case) if comparison.cost else (0, 0)
    roofline = 0.0
    if comparison.cost:
        by_sgemm = float(np.median(times[candidates.SGEMM])) * flops / candidates.SGEMM_FLOPS
        roofline = max(float(np.median(times[candidates.COPY])), by_sgemm)
    # a burst's calls are no independent ones: their mean counts once
    per_round = {candidate: took.reshape(-1, int(turns.get("burst", 1))).mean(1) for candidate, took in times.items()}
    ours = per_round[candidates.OURS]
    print(f"{name}, {len(ours)} rounds")
    row: dict[str, Any] = {"case": name, "rounds": len(ours), "bytes": bytes_, "flops": flops, "candidates": {}}
    for candidate, took in times.items():
        low, median, high = np.percentile(took * 1e6, (25, 50, 75))
        found = None if candidate in sgemm else timing.ratio(per_round[candidate], ours)
        share = None if candidate in yardsticks or not roofline else roofline * 1e6 / median
        rates = "" if share is None else f"  {flops / median / 1e3:.0f} GFLOP/s, {bytes_ / median / 1e3:.0f} GB/s"
        rates += "" if share is None else f", {share * 100:.0f} % of the roofline"
        print(
            f"  {candidate:<22} {median:>10.1f} µs  (quartiles {low:.1f} … {high:.1f})  {found or 'after'} ours{rates}"
        )
        row["candidates"][candidate] = {
            "median_us": median,
            "quartiles_us": [low, high],
            "ratio_to_ours": found and found.median,
            "ratio_interval": found and [found.low, found.high],
            "roofline_share": share,
        }
    return row


if __name__ == "__main__":
    main()
