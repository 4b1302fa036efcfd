#!/usr/bin/env python
"""Fills the README's numbers in from the committed records; `--check` only says whether they are up to date.

A block `<!-- from NAME -->` … `<!-- end -->` holds what the function of that name below makes of the records.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from hw4fast import record
from hw4fast.homework import corn_page, fast, flowers, mnist_page, theory
from hw4fast.homework.mnist_page import at_a_time
from hw4fast.homework.mnist_why import SEED, conclusions, spread
from hw4fast.stats import percent, wilson

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- from (\w+) -->\n)(?:(?!<!-- ).)*(<!-- end -->)", re.DOTALL)  # an empty one ends, too


def where(entry: dict, isas: list[str]) -> str:
    """The machine, the instruction sets of our kernels that ran, torch's version."""
    machine, versions = entry["machine"], entry["versions"]
    ran = f", {' and '.join(isas)}" if isas else ""
    return f"{machine['processor']}, {machine['cores']} cores{ran}; torch {versions['torch']}"


BOUNDS = ("copy of as many bytes", "sgemm 1024", "autograd alone")


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
    " the rate of a 1024 × 1024 sgemm, measured in the same process; flops are those of a direct sum."
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


def engines() -> str:
    entry = record.read(RESULTS / "bench.jsonl")[-1]
    lines = ["| engine | batch | p50 | p90 | p99 | images/s |", "|---|---|---|---|---|---|"]
    for row in entry["results"]["timings"]:
        times = " | ".join(f"{row[key]:.2f} ms" for key in ("p50_ms", "p90_ms", "p99_ms"))
        lines.append(f"| {row['engine']} | {row['batch']} | {times} | {row['images_per_s']:,.0f} |")
    return "\n".join(lines) + (
        f"\n\n{entry['results']['threads']} threads, engines taking turns.{same_answers(entry)} {where(entry, [])}."
    )


def same_answers(entry: dict) -> str:
    """Who answers otherwise than the first engine, and how often; nothing where a record doesn't know."""
    rows = entry["results"].get("answers")
    if not rows:
        return ""
    other = ", ".join(f"{row['engine']} on {row['same']}" for row in rows if row["same"] < row["n"])
    return f" On {rows[0]['n']} pictures all give the same answers{f', {other} of them' if other else ''}."


def cold_start() -> str:
    entry = record.read(RESULTS / "cold_start.jsonl")[-1]
    lines = []
    for name, row in entry["results"].items():
        low, high = row["quartiles_s"]
        lines.append(f"- `{name}`: {row['median_s']:.2f} s (quartiles {low:.2f} … {high:.2f}, n = {row['n']})")
    return "\n".join(lines) + f"\n\nWhole processes, files in the page cache. {where(entry, [])}."


class OldRecordError(ValueError):
    """The newest record is of an older form, or of some parts alone; the text says what to run."""


def photographs() -> str:
    """shufflenet_v2_x1_0 and squeezenet1_1 on photographs: batches that fill the cores, and from files."""
    lines = []
    for name, what in PHOTOGRAPHED.items():
        entry = record.read(RESULTS / f"bench-{name}.jsonl")[-1]
        rows = entry["results"]["files"]
        ways = {row["way"]: row for row in rows}
        if not {"hw4fast classify", *ALONE} <= ways.keys():
            raise OldRecordError(f"{OLD} `hw4fast bench {what} --out benchmarks/results/bench-{name}.jsonl`")
        ours = ways["hw4fast classify"]
        theirs = min(
            (row for row in rows if row["way"].startswith("torchvision")), key=lambda row: row["ratio_to_ours"]
        )
        alone = [ways[way] for way in ALONE]
        rates = [f"{row['images_per_s']:.0f} ({row['low']:.0f} … {row['high']:.0f})" for row in (ours, *alone, theirs)]
        allowed = 1 / sum(1 / row["images_per_s"] for row in alone)
        share = f"{100 * ours['images_per_s'] / allowed:.0f} %"
        lines.append([entry["results"]["model"], *rates, share, f"{theirs['ratio_to_ours']:.2f}×"])
    head = ("model", "hw4fast classify", *ALONE, "torchvision + torch")
    columns = (*head, "of the three one after the other", "over torch")
    files, count = ours["files"], entry["results"]["threads"]
    return "\n".join(markdown(columns, lines)) + (
        f"\n\nPhotographs per second from {files} JPEG files of 500 × 375 or so, {count} threads: medians (slowest …"
        f" fastest) of {ours['rounds']} passes that take turns. A pass of `classify` opens its model, torch's net is in"
        " memory; torch reads on threads of its own where that is faster for it, and the ratio is the median of paired"
        f" ones. {where(entry, [])}."
    )


OLD = "a newest record has another form than is written now, measure it again:"
PHOTOGRAPHED = {"shufflenet": "shufflenet_v2_x1_0 --batches 1,2,4,8,16,32", "squeezenet": "squeezenet1_1 --batches 1"}
ALONE = ("opening the model alone", "reading and fitting alone", "the net alone")
PARTS = ("overhead", "processes", "fused", "torch")

PARITY_HEAD = (
    "net", "weights", "megabytes", "inputs equal to torchvision's", "answers equal to torch's",
    "top-1, imagenet-sample", "top-1, nips2017", "largest logit", "error to torch", "error to float64", "torch's own",
)  # fmt: skip


def parity() -> str:
    """The newest record of each net and file: its inputs, answers and logits beside torchvision's and torch's."""
    entries = {entry["results"]["subject"]: entry for entry in record.read(RESULTS / "parity.jsonl")}
    assert len({where(entry, []) for entry in entries.values()}) == 1, "records of several machines"
    rows = [entry["results"] for entry in entries.values()]
    batches = {tuple(sorted(row["batches"])) for row in rows if "batches" in row}
    assert len(batches) == 1, batches
    bare = [row["subject"] for row in rows if row.get("answers_compared_with", "torch") != "torch"]
    *few, last = sorted(*batches)
    fused = [row for row in rows if isinstance(row.get("fused"), dict)]
    worst = max(row["fused"]["max_error_to_float64"] / row["largest_logit"] for row in fused)
    assert all("no convolution" in row["fused"] for row in rows if "fused" in row and row not in fused)
    isas = sorted({isa for row in fused for isa in row["fused"]["kernels"]})
    return "\n".join(markdown(PARITY_HEAD, map(parity_row, rows))) + (
        "\n\nInputs: photographs whose tensor, from the JPEG file on, is that of torchvision's own transforms to the"
        " last bit. Answers: the top-1 class, as torchvision's transforms and torch give it, and how often it is right"
        " (95 % Wilson intervals; imagenet-sample is probably of the training set, nips2017 isn't); of random weights"
        f" those of {last} photographs. Logits: of {last} photographs, in batches of {', '.join(map(str, few))} and"
        f" {last}. With `--fused` the error of {len(fused)} of these nets to float64 is at most {worst:.1g} of the"
        " largest logit, too; the others have no block that our kernels do faster. For"
        f" {' and '.join(bare)} torch's weights aren't here: its answers are compared with those of the same file in a"
        f" bare onnxruntime to torchvision's inputs. {where(next(iter(entries.values())), isas)}."
    )


def parity_row(row: dict) -> list[str]:
    answers = {each["folder"]: each for each in row.get("answers", ())}
    total = sum(each["n"] for each in answers.values()) or row["images"]
    same = sum(each["same_answers"] for each in answers.values()) or row["same_answers"]
    mark = "" if row.get("answers_compared_with", "torch") == "torch" else " (see below)"
    tops = [short_percent(answers[name]) if name in answers else "" for name in ("imagenet-sample", "nips2017")]
    errors = ("max_error_to_torch", "max_error_to_float64", "torch_max_error_to_float64")
    logits = [f"{row['largest_logit']:.3g}", *(f"{row[key]:.1e}" for key in errors)] if "images" in row else [""] * 4
    weights = "random" if row["weights"] == "random" else "trained"
    inputs = f"{row['inputs_equal_to_torchvision']} of {row['photos']}"
    return [row["subject"], weights, f"{row['megabytes']:.1f}", inputs, f"{same} of {total}{mark}", *tops, *logits]


def short_percent(answers: dict) -> str:
    low, high = wilson(answers["right"], answers["n"])
    return f"{100 * answers['right'] / answers['n']:.1f} % ({100 * low:.1f} … {100 * high:.1f})"


def serving() -> str:
    entry = record.read(RESULTS / "serving.jsonl")[-1]
    found = entry["results"]
    if not set(PARTS) <= found.keys() or "over" not in found["overhead"][0] or "ratios" not in found["torch"]:
        raise OldRecordError(f"{OLD} `python benchmarks/serving.py --record` (all parts)")
    starts, corn, fused = found["processes"]["resnet50"], found["processes"], found["fused"]
    lines = [
        f"- `hw4fast classify corn.jpg`, whole process: {corn['hw4fast classify']['median_s']:.2f} s, the shortest"
        f" script with torch and torchvision for the same answers {corn['torch and torchvision']['median_s']:.2f} s:"
        f" {told(corn['ratio'])} times as long",
        f"- with resnet50: {starts['first start']['median_s']:.2f} s at the first start, in which the file is tried and"
        f" optimised, {starts['second start']['median_s']:.2f} s from then on",
        f"- `Classifier.logits` of tensors over its own session's `run`: {times_as_long(found, 'the same session')}",
        "- over `run` of a session that onnxruntime opens by itself, with as many threads:"
        f" {times_as_long(found, OWN)} (shufflenet's weights are stored in int8; our session unpacks them once)",
        f"- `--fused`, the homework's net: {told(fused['100']['ratio'])} times onnxruntime's own speed at batch 100,"
        f" {told(fused['1']['ratio'])} at batch 1",
        f"- a net in torch and one in onnxruntime by turns in one process: {beside_torch(found['torch'])}",
    ]
    return "\n".join(lines) + f"\n\nMedians, and of ratios 95 % bootstrap intervals. {where(entry, [])}."


OWN = "onnxruntime's own session"


def told(ratio: dict) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} … {ratio['high']:.2f})"


def times_as_long(found: dict, over: str) -> str:
    """squeezenet1_1 takes 1.01 (…) times as long at batch 1, 1.00 (…) at batch 32, …"""
    nets: dict[str, list[str]] = {}
    for row in found["overhead"]:
        if row["what"] == "tensors" and row["over"] == over:
            nets.setdefault(row["net"], []).append(f"{told(row['times_as_long'])} at batch {row['batch']}")
    return "; ".join(f"{net} takes {' and '.join(cells)} times as long" for net, cells in nets.items())


def beside_torch(found: dict) -> str:
    ratios, times = found["ratios"], found["times"]

    def ms(name: str) -> str:
        return f"{times[f'{name} alone']['median_s'] * 1e3:.1f} ms"

    def beside(who: str, other: str) -> str:
        return f"{told(ratios[f'{who} beside {other} over {who} alone'])} times as long as alone ({ms(who)})"

    rounds = ratios["Classifier alone over InferenceSession as it comes alone"]["n"]
    sentences = [
        f"beside {name} torch takes {beside('torch', name)}, and that {beside(name, 'torch')}"
        for name in ("InferenceSession as it comes", "Classifier")
    ]
    price = told(ratios["Classifier alone over Classifier that spins alone"])
    return "; ".join(
        [*sentences, f"alone Classifier takes {price} times as long as one whose threads spin ({rounds} rounds)"]
    )


def homework(name: str) -> dict:
    """The results of a part of the homework."""
    return json.loads((RESULTS / f"homework-{name}.json").read_text(encoding="utf-8"))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


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
    "reproduced": reproduced,
}


def filled(text: str) -> str:
    return BLOCK.sub(lambda block: block[1] + BLOCKS[block[2]]() + "\n" + block[3], text)


def outdated() -> list[str]:
    """What keeps the README from being filled in."""
    found = []
    for block in BLOCKS.values():
        try:
            block()
        except OldRecordError as error:
            found.append(str(error))
    return found


def main() -> int:
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    if old := outdated():
        print(*old, sep="\n", file=sys.stderr)
        return 2
    if "--check" in sys.argv[1:]:
        return int(filled(text) != text)
    path.write_text(filled(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
