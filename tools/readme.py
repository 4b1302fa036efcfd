#!/usr/bin/env python
"""Fills the numbers of README.md and benchmarks/README.md in from the committed records; `--check` only says whether
they are up to date.

A block `<!-- from NAME -->` … `<!-- end -->` holds what the function of that name below makes of the records.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from readme_corruptions import corruptions, robust_recipes, studying
from readme_gpu import gpu
from readme_serving import (
    BOUNDS,
    RESULTS,
    OldRecordError,
    cold_start,
    engines,
    fuzz,
    markdown,
    parity,
    photographs,
    serving,
    where,
)
from readme_side_by_side import side_by_side

from hw4fast import record
from hw4fast.homework import corn_page, fast, flowers, mnist_page, theory
from hw4fast.homework.mnist_page import at_a_time
from hw4fast.homework.mnist_why import SEED, conclusions, spread
from hw4fast.stats import percent

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- from (\w+) -->\n)(?:(?!<!-- ).)*(<!-- end -->)", re.DOTALL)  # an empty one ends, too


def comparison(kernel: str, what: str) -> str:
    """A row per case: our median and its share of the roofline, how many times longer the others took, and what else
    bounds them on that machine."""
    entry = record.read(RESULTS / f"{kernel}.jsonl")[-1]
    cases, threads = entry["results"]["cases"], entry["results"]["threads"]
    rivals = [name for name in cases[0]["candidates"] if name not in ("hw4fast", *BOUNDS)]
    bounds = [name for name in BOUNDS if name in cases[0]["candidates"] and name != "sgemm 1024"]
    lines = [f"| {' | '.join(['case', 'hw4fast', *rivals, *bounds])} |", "|---" * (2 + len(rivals + bounds)) + "|"]
    for row in cases:
        found = row["candidates"]
        cells = [row["case"], f"{found['hw4fast']['median_us']:,.0f} µs{of_roofline(row, found['hw4fast'])}"]
        for name in rivals:
            low, high = found[name]["ratio_interval"]
            cells.append(f"{found[name]['ratio_to_ours']:.2f}× ({low:.2f} … {high:.2f})")
        cells += [f"{found[name]['median_us']:,.0f} µs" for name in bounds]
        lines.append(f"| {' | '.join(cells)} |")
    rounds = min(row["rounds"] for row in cases)
    return "\n".join(lines) + (
        f"\n\n{what}, {threads} threads: our median, and how many times longer the others took (median of paired"
        f" ratios, 95 % bootstrap interval, at least {rounds} alternating rounds).{ROOFLINE if bounds else ''}"
        f" {where(entry, entry['results']['isas'])}."
    )


ROOFLINE = (
    " In brackets the rate and its share of the roofline, the longer of a copy of as many bytes and as many flops at"
    " the rate of a 1024 × 1024 sgemm, measured in the same process; flops are those of a direct sum, of"
    " which Winograd and Fourier transforms need so few that they pass 100 %."
)


def of_roofline(row: dict, ours: dict) -> str:
    share = ours.get("roofline_share")
    if share is None:
        return ""
    by_copy = row["candidates"]["copy of as many bytes"]["median_us"]
    by_sgemm = row["candidates"]["sgemm 1024"]["median_us"] * row["flops"] / (2 * 1024**3)
    by_flops = by_sgemm > by_copy
    rate = row["flops" if by_flops else "bytes"] / ours["median_us"] / 1e3
    return f" ({rate:.{0 if rate >= 10 else 1}f} {'GFLOP/s' if by_flops else 'GB/s'}, {share * 100:.0f} %)"


def variants() -> str:
    """Every kernel's variants beside the best: how many times longer the older instruction sets and numba take."""
    lines: list[str] = []
    machines: set[tuple[str, int]] = set()
    for kernel in VARIANTS:
        entry = record.read(RESULTS / f"{kernel}-variants.jsonl")[-1]
        machines.add((where(entry, []), entry["results"]["threads"]))
        for row in entry["results"]["cases"]:
            found = row["candidates"]
            names = [name for name in found if name.startswith("kernel ") or name == "numba"]
            if not lines:
                lines = [f"| kernel | case | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
            if not names:
                continue
            best = found[names[0]]["median_us"]
            cells = [kernel, row["case"], f"{best:,.0f} µs"]
            cells += [f"{found[name]['median_us'] / best:.1f}×" if name in found else "" for name in names[1:]]
            lines.append(f"| {' | '.join(cells)} |")
    assert len(machines) == 1, f"records of several machines: {machines}"
    return "\n".join(lines) + (
        "\n\nThe bare kernels from NumPy arrays, conv_block_backward and batch_norm_block forward and backward (numba's"
        f" batch_norm_block writes no codes), {entry['results']['threads']} threads: medians, and how many times"
        f" longer the others took. {where(entry, [])}."
    )


VARIANTS = (
    "softmax_xent",
    "bce_with_logits",
    "conv_block",
    "conv_block_backward",
    "batch_norm_block",
    "gaussian_blur",
    "resize",
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
    return (
        "\n".join(lines) + f"\n\nOne run each, seed 0; {where(entry['sessions'][-1], [entry['sessions'][-1]['isa']])}."
    )


def classify() -> str:
    command = "hw4fast classify runs/digits/samples/00-6.png --model runs/digits"
    answers = (RESULTS / "digits-classify.txt").read_text(encoding="utf-8").rstrip()
    return f"```\n$ {command} --transform blur25 --transform rotate45 --top 3\n{answers}\n```"


def homework(name: str) -> dict:
    """The results of a part of the homework."""
    return json.loads((RESULTS / f"homework-{name}.json").read_text(encoding="utf-8"))


def reproduced() -> str:
    """What the parts of the homework found, from their results."""
    lines = []
    parts = (("theory", theory), ("fast", fast), ("flowers", flowers), ("corn", corn_page))
    for name, part in parts:
        results = homework(name)
        lines.append(f"- `hw4fast reproduce {name}`: {part.finding(results)}")
        if name == "fast":
            rows = [row for row in results["fast"] if row["sessions"] == 1]
            times, shares = sorted(row["seconds"] for row in rows), sorted(row["accuracy"] for row in results["fast"])
            spread = f"seeds: {100 * shares[0]:.2f} … {100 * shares[-1]:.2f} %, {times[0]:.1f} … {times[-1]:.1f} s"
            lines[-1] += (
                f" ({spread}); PyTorch's example first reaches 99 %"
                f" {' and '.join(map(to_goal, results['examples']))}, one seed"
            )
    return "\n".join(lines) + f"\n\n{where(results, [])}."


def homework_table() -> str:
    """The MNIST table, what survives of it, and its time on torch's kernels."""
    results = homework("mnist")
    lines = markdown(mnist_page.HEAD, map(mnist_page.cells, results["rows"]))
    lines += ["", *markdown(mnist_page.SURVIVAL, map(mnist_page.line, conclusions(results["rows"])))]
    ours = results["table_seconds"] / 60
    time = f"The 18 runs of one seed take {ours:.1f} min on our kernels ({at_a_time(results)}, medians of the seeds)"
    theirs = homework("mnist-torch")
    for same in (lambda r: r["epochs"], lambda r: r["machine"], at_a_time):
        assert same(results) == same(theirs)
    torchs = theirs["table_seconds"] / 60
    time += f", {torchs:.1f} min with `--kernels torch`: {torchs / ours:.2f} times as long"
    return "\n".join(lines) + (
        f"\n\n{dead_digits(results)} Means of {results['seeds']} seeds, and from the lowest to the highest bound of"
        f" their 95 % Wilson intervals; {results['epochs']} epochs. {time}. {where(results, [])}."
    )


def flowers_table() -> str:
    """Fine-tuning in problem 5's ways, and what tells them apart."""
    results = homework("flowers")
    lines = markdown(flowers.HEAD, flowers.rows(results))
    run = results["runs"][0]
    what = f"{run['train_images']} pictures to train on, {run['val_images']} to stop by, {run['test_images']} to test"
    return "\n".join(lines) + f"\n\n{what}. {flowers.reason(results)} {where(results, [])}."


def dead_digits(results: dict) -> str:
    """What the seeds of `sgd` tell of the homework's 88 %."""
    found = next(row for row in results["rows"] if row["recipe"] == "sgd")[SEED]
    pairs = list(zip(found["never"], found["wholes"], strict=True))
    dead, whole = ([share for never, share in pairs if bool(never) is kind] for kind in (True, False))
    assert dead and whole
    return (
        f"Under −p_y {len(dead)} of {len(pairs)} nets of `sgd` never answer one of the digits: these reach"
        f" {spread(dead)}, with the other seed{'s' * (len(whole) > 1)} it is {spread(whole)}, as far apart as the"
        " homework's 88 % without and 97 % with momentum."
    )


def to_goal(row: dict) -> str:
    whose = "torch’s kernels" if row["kernels"] == "torch" else "our kernels"
    if row["epochs_to_goal"] is None:
        return f"not in {len(row['epochs'])} epochs on {whose}"
    each = statistics.median(epoch["seconds"] for epoch in row["epochs"])
    return f"in {row['seconds_to_goal']:.0f} s on {whose} (epoch {row['epochs_to_goal']}, {each:.0f} s each)"


BLOCKS: dict[str, Callable[[], str]] = {
    "softmax_xent": partial(comparison, "softmax_xent", "Loss and gradient through autograd, float32 or as named"),
    "bce_with_logits": partial(comparison, "bce_with_logits", "Loss and gradient through autograd, float32"),
    "conv_block": partial(comparison, "conv_block", "Forward pass, batch 100, float32"),
    "conv_block_backward": partial(comparison, "conv_block_backward", "Forward and backward, batch 100, float32"),
    "batch_norm_block": partial(comparison, "batch_norm_block", "Forward and backward of a training step, float32"),
    "conv": partial(comparison, "conv", "Convolution and bias, float32"),
    "gaussian_blur": partial(comparison, "gaussian_blur", "One picture, in bursts of three calls after a pause"),
    "resize": partial(comparison, "resize", "One picture, in bursts of three calls after a pause"),
    "variants": variants,
    "homework": homework_table,
    "flowers": flowers_table,
    "train_step": partial(comparison, "train_step", "Forward, loss, backward and SGD of `seed_cnn` at batch 100"),
    "accuracies": accuracies,
    "classify": classify,
    "engines": engines,
    "cold_start": cold_start,
    "photographs": photographs,
    "serving": serving,
    "parity": parity,
    "fuzz": fuzz,
    "reproduced": reproduced,
    "studying": studying,
    "robust_recipes": robust_recipes,
    "corruptions": corruptions,
    "gpu": gpu,
    "side_by_side": side_by_side,
}
PAGES = ("README.md", "benchmarks/README.md")


def filled(text: str) -> str:
    return BLOCK.sub(lambda block: block[1] + BLOCKS[block[2]]() + "\n" + block[3], text)


def outdated() -> list[str]:
    """What keeps the pages from being filled in."""
    found = []
    for block in BLOCKS.values():
        try:
            block()
        except OldRecordError as error:
            found.append(str(error))
    return found


def main() -> int:
    if old := outdated():
        print(*old, sep="\n", file=sys.stderr)
        return 2
    pages = {ROOT / page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
    if "--check" in sys.argv[1:]:
        return int(any(filled(text) != text for text in pages.values()))
    for page, text in pages.items():
        page.write_text(filled(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
