#!/usr/bin/env python
"""Fills the README's numbers in from the committed records; `--check` only says whether they are up to date.

A block `<!-- from NAME -->` … `<!-- end -->` holds what the function of that name below makes of the records.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from hw4fast import record
from hw4fast.stats import percent

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- from (\w+) -->\n)(?:(?!<!-- ).)*(<!-- end -->)", re.DOTALL)  # an empty one ends, too


def where(entry: dict) -> str:
    machine, versions = entry["machine"], entry["versions"]
    return f"{machine['processor']}, {machine['cores']} cores, {machine['isas'][0]}; torch {versions['torch']}"


def softmax_xent() -> str:
    entry = record.read(RESULTS / "softmax_xent.jsonl")[-1]
    lines = ["| logits | hw4fast | F.cross_entropy | torch.compile | copy of as many bytes |", "|---|---|---|---|---|"]
    for row in entry["results"]["shapes"]:
        found = row["candidates"]
        cells = [f"{row['shape'][0]} × {row['shape'][1]}", f"{found['hw4fast']['median_us']:,.0f} µs"]
        for name in ("torch", "torch.compile"):
            low, high = found[name]["ratio_interval"]
            cells.append(f"{found[name]['ratio_to_ours']:.2f}× ({low:.2f} … {high:.2f})")
        cells.append(f"{found['copy']['median_us']:,.0f} µs")
        lines.append(f"| {' | '.join(cells)} |")
    rounds = min(row["rounds"] for row in entry["results"]["shapes"])
    threads = entry["results"]["threads"]
    return "\n".join(lines) + (
        f"\n\nForward and backward through autograd, float32, {threads} threads: our median, and how many times"
        f" longer the others took (median of paired ratios, 95 % bootstrap interval, at least {rounds} alternating"
        f" rounds). {where(entry)}."
    )


def run(name: str) -> tuple[dict, str]:
    entry = json.loads((RESULTS / f"{name}-run.json").read_text(encoding="utf-8"))
    return entry, percent(entry["result"]["test_correct"], entry["result"]["test_images"])


def accuracies() -> str:
    lines = []
    for name, command in (
        ("mnist", "hw4fast train mnist"),
        ("digits", "hw4fast train digits --epochs 20 --batch-size 50 --batch-norm --optimizer adam"),
    ):
        entry, accuracy = run(name)
        lines.append(f"- `{command}`: {accuracy} in {entry['seconds']:.0f} s")
    return "\n".join(lines) + f"\n\nOne run each, seed 0; {where(entry)}."


def classify() -> str:
    command = "hw4fast classify runs/digits/samples/00-6.png --model runs/digits"
    answers = (RESULTS / "digits-classify.txt").read_text(encoding="utf-8").rstrip()
    return f"```\n$ {command} --transform blur25 --transform rotate45 --top 3\n{answers}\n```"


def engines() -> str:
    entry = record.read(RESULTS / "bench.jsonl")[-1]
    lines = ["| engine | batch | p50 | p90 | p99 | images/s |", "|---|---|---|---|---|---|"]
    for row in entry["results"]["timings"]:
        times = " | ".join(f"{row[key]:.2f} ms" for key in ("p50_ms", "p90_ms", "p99_ms"))
        lines.append(f"| {row['engine']} | {row['batch']} | {times} | {row['images_per_s']:,.0f} |")
    return "\n".join(lines) + f"\n\n{entry['results']['threads']} threads, engines taking turns. {where(entry)}."


def cold_start() -> str:
    entry = record.read(RESULTS / "cold_start.jsonl")[-1]
    lines = []
    for name, row in entry["results"].items():
        low, high = row["quartiles_s"]
        lines.append(f"- `{name}`: {row['median_s']:.2f} s (quartiles {low:.2f} … {high:.2f}, n = {row['n']})")
    return "\n".join(lines) + f"\n\nWhole processes, files in the page cache. {where(entry)}."


BLOCKS: dict[str, Callable[[], str]] = {
    "softmax_xent": softmax_xent,
    "accuracies": accuracies,
    "classify": classify,
    "engines": engines,
    "cold_start": cold_start,
}


def filled(text: str) -> str:
    return BLOCK.sub(lambda block: block[1] + BLOCKS[block[2]]() + "\n" + block[3], text)


def main() -> int:
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    if "--check" in sys.argv[1:]:
        return int(filled(text) != text)
    path.write_text(filled(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
