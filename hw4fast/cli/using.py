"""The verbs that use a model, and info."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from hw4fast.cli.common import (
    Arguments,
    complain,
    numbers,
    positive,
    print_json,
    print_row,
    shown,
    threads,
    threads_option,
    verb,
)

DEFAULT_MODEL = "shufflenet_v2_x1_0"
MODEL_HELP = "an .onnx file with a card, an exported run folder, or a name like resnet18; default: %(default)s"


def add_classify(verbs: Any) -> None:
    examples = (
        "hw4fast classify corn.jpg --transform blur51",
        "hw4fast classify photos/ --model resnet18 --top 1 --csv",
    )
    parser = verb(verbs, "classify", "Name what is in pictures, clean and transformed.", examples, _run_classify)
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE|FOLDER", help="picture files, or folders of them")
    add("--model", default=DEFAULT_MODEL, metavar="MODEL", help=MODEL_HELP)
    add("--transform", action="append", default=[], metavar="SPEC", help="NAME[LEVEL][:key=value,…]; may be repeated")
    add("--csv", action="store_true", help="a table on stdout: a row per picture, transform and answer")
    add("--top", type=positive, default=5, metavar="K", help="answers per picture; default: %(default)s")
    add("--save-transformed", metavar="FOLDER", help="write what the model saw as PNG")
    add("--seed", type=int, default=0, help="of random transforms; default: %(default)s")
    add("--provider", "--device", default="cpu", help="where the net runs: cpu (default), cuda or tensorrt")
    threads_option(parser)


def _run_classify(arguments: Arguments) -> int:
    from hw4fast.errors import UsageError
    from hw4fast.inference.classify import Failure, classify
    from hw4fast.paths import is_folder

    a = arguments
    if a.csv and a.json:
        raise UsageError("--csv and --json are two ways to print the same; name one")
    options = {"top": a.top, "save_transformed": a.save_transformed, "seed": a.seed, "providers": a.provider}
    results = classify(a.images, a.model, a.transform, threads=threads(a), progress=not sys.stdout.isatty(), **options)
    if a.csv:
        print_row("file", "transform", "rank", "index", "label", "probability", "error")
    count, failures, folders = 0, [], 0
    try:
        for result in results:
            count += 1
            if isinstance(result, Failure):
                failures.append(result.reason)
                folders += is_folder(result.file)  # without pictures: none that could not be classified
            if a.json:
                print_json(result.to_json())
            elif a.csv:
                _print_rows(result)
            elif not isinstance(result, Failure):
                print(shown(result.file), *_side_by_side([result.clean, *result.transformed]), sep="\n")
    finally:  # an error or Ctrl-C on the way, too
        for reason in failures:
            complain(reason)
    if len(failures) > folders:
        complain(f"{len(failures) - folders} of {count - folders} pictures could not be classified")
    return 0 if not failures else 1 if len(failures) == count else 3


def _print_rows(result: Any) -> None:
    value = result.to_json()
    if "error" in value:
        print_row(result.file, "", "", "", "", "", value["error"])
        return
    for answer in (value["clean"], *value["transformed"]):
        for rank, guess in enumerate(answer["top"], 1):
            probability = f"{guess['probability']:.6g}"
            print_row(result.file, answer["transform"], rank, guess["index"], guess["label"], probability, "")


def _side_by_side(answers: Sequence[Any]) -> list[str]:
    """One column per answer: its transform, then its classes with their probabilities."""
    from hw4fast.stats import half_up

    columns = [
        [answer.transform, *(f"{half_up(100 * share, 1):>5} %  {shown(label)}" for _, label, share in answer.top)]
        for answer in answers
    ]
    widths = [max(map(len, column)) for column in columns]
    rows = zip(*columns, strict=True)
    return [
        "  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def add_bench(verbs: Any) -> None:
    examples = ("hw4fast bench runs/digits", "hw4fast bench resnet18 --batches 1,2,4,8,16,32 --seconds 10")
    sentence = "Time a model on every engine that runs here, taking turns."
    parser = verb(verbs, "bench", sentence, examples, _run_bench)
    add = parser.add_argument
    add("model", metavar="MODEL", help="a run folder or a name like resnet18 (torch, too), or an .onnx file")
    add("--batches", type=numbers, default=(1, 32), metavar="A,B,…", help="batch sizes; default: 1,32")
    add("--seconds", type=float, default=3.0, help="how long each batch size is measured; default: %(default)s")
    add("--against", metavar="MODEL|RECORDS", help="a model that takes turns with it, or a .jsonl file of records")
    add("--pictures", metavar="FOLDER", help="files to read; default: of the run's data set, or some photographs")
    add("--no-whole", action="store_true", help="only from tensors: nothing from files, no whole processes")
    add("--out", metavar="FILE", help="the .jsonl record to append to; default: bench.jsonl beside the model")
    threads_option(parser)


def _run_bench(arguments: Arguments) -> int:
    from hw4fast.bench import bench

    a = arguments
    result = bench(a.model, a.batches, a.seconds, threads(a), a.out, a.against, a.pictures, not a.no_whole)
    for what, reason in result.left_out.items():
        complain(f"left out: {what}: {reason}")
    for difference in result.differences:
        complain(f"not the same: {difference}")
    code = 3 if result.failed else 0
    if a.json:
        print_json(asdict(result))
        return code
    print(*_bench_tables(result), sep="\n")
    print(f"record: {shown(result.path)}" + (f"\npicture: {shown(result.picture)}" if result.picture else ""))
    return code


def _bench_tables(result: Any) -> Iterator[str]:
    yield f"{shown(result.model)}, {result.threads} threads, engines taking turns"
    yield f"{'engine':<24} {'batch':>5} {'p50 ms':>9} {'p90 ms':>9} {'p99 ms':>9} {'images/s':>10} {'calls':>7}"
    for t in result.timings:
        times = f"{t.p50_ms:>9.3f} {t.p90_ms:>9.3f} {t.p99_ms:>9.3f}"
        yield f"{t.engine:<24} {t.batch:>5} {times} {t.images_per_s:>10.0f} {t.calls:>7}"
    yield _bench_answers(result.answers)
    if result.files:
        yield f"\n{'from picture files':<36} {'images/s':>10} {'slowest … fastest':>20} {'× our time':>10}"
    for f in result.files:
        spread = f"{f.low:.0f} … {f.high:.0f}"
        yield f"{f.way:<36} {f.images_per_s:>10.0f} {spread:>20} {f.ratio_to_ours:>10.2f}"
    if result.processes:
        yield f"\n{'whole process':<24} {'first answer s':>15} {'fastest … slowest':>20} {'memory MB':>10}"
    for p in result.processes:
        spread = f"{p.low_s:.2f} … {p.high_s:.2f}"
        yield f"{p.engine:<24} {p.cold_start_s:>15.2f} {spread:>20} {p.memory_mb:>10.0f}"
    if result.comparisons:
        yield f"\nhow many times faster than {shown(result.against)}"
    for c in result.comparisons:
        interval = "" if c.low is None else f" (95 %: {c.low:.2f} … {c.high:.2f}, n = {c.n})"
        yield f"{c.engine:<24} {c.batch:>5} {c.ratio:>9.2f}×{interval}"


def _bench_answers(answers: Sequence[Any]) -> str:
    """Who answers as the first one does, and who how often."""
    first = answers[0]
    other = ", ".join(f"{row.engine} ({row.same} of {row.n})" for row in answers if row.same < row.n)
    return f"{first.n} pictures, the same answers as {first.other}: every engine" + (f" but {other}" if other else "")


def add_card(verbs: Any) -> None:
    examples = (
        "hw4fast card runs/digits",
        "hw4fast card net.onnx --set labels=labels.txt --set licence=MIT --preprocess imagenet",
    )
    sentence = "Show what a model says about itself, or let a foreign ONNX file say it."
    parser = verb(verbs, "card", sentence, examples, _run_card)
    add = parser.add_argument
    add("model", metavar="MODEL", help="an .onnx file, an exported run folder, or a name like resnet18")
    add("--set", action="append", default=[], type=_pair, metavar="KEY=VALUE", help=_settable())
    add("--preprocess", metavar="PRESET", help="a starting point, imagenet or stretch, parts of which --set changes")
    add("--out", metavar="FILE", help="write there; default: into the file itself")


def _settable() -> str:
    return (
        "labels (a file with a name per line, or names with commas between), output, kind (logits or probabilities),"
        " layout (NCHW or NHWC), licence, source; of the preprocessing mode (RGB, BGR or L), resize (shorter-side or"
        " stretch), resize_size (pixels of the shorter side), interpolation (bilinear, bicubic, lanczos or nearest),"
        " crop (HEIGHT,WIDTH in pixels), divisor (255 for values in 0…1), mean and std (a number per channel, commas"
        " between); may be repeated"
    )


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is not KEY=VALUE")
    return key.strip(), value


def _run_card(arguments: Arguments) -> int:
    from hw4fast.cli.card_lines import WIDTH, card_lines
    from hw4fast.inference.describe import describe
    from hw4fast.inference.known import find_model

    a = arguments
    card = describe(a.model, dict(a.set), a.preprocess, a.out)
    if a.json:
        print_json(card.to_json())
        return 0
    print(f"{'file':<{WIDTH}}{shown(a.out or find_model(a.model))}", *card_lines(card), sep="\n")
    return 0


def add_info(verbs: Any) -> None:
    examples = ("hw4fast info", "hw4fast info --json")
    verb(verbs, "info", "Tell what this machine can run, by trying it.", examples, _run_info)


def _run_info(arguments: Arguments) -> int:
    from hw4fast.info import info

    found = info()
    if arguments.json:
        print_json(asdict(found))
        return 0
    print(f"processor    {found.processor}, {found.cores} cores; instruction sets: {', '.join(found.isas)}")
    print(f"kernels      {found.kernels_error or ', '.join(f'{k}: {v}' for k, v in found.variants.items())}")
    for gpu in found.gpus or ["none that hw4fast's CUDA kernels can use"]:
        print(f"GPU          {gpu}")
    print(f"CUDA kernels {found.cuda}")
    print(f"versions     {', '.join(f'{name} {number}' for name, number in found.versions.items())}")
    for name, reason in found.providers.items():
        print(f"onnxruntime  {name}: {'runs' if reason is None else f'does not run: {reason}'}")
    for name, state in found.folders.items():
        print(f"folder       {name}: {state}")
    return 0
