"""The command line: the verbs in story order. It parses and prints; everything else is done in the rooms.

Results go to stdout, progress and notices to stderr. Exit codes: 0 all well, 1 it failed, 2 wrong usage,
3 done but some inputs failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from hw4fast.errors import UserError

Arguments = argparse.Namespace


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code. A user's mistake is one line on stderr, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a stand-in for a stream may lack it
            stream.reconfigure(errors="backslashreplace")  # a sign that the terminal lacks is no reason to stop
    try:
        arguments = _parser().parse_args(argv)
        code = arguments.run(arguments)
        sys.stdout.flush()  # here, where a reader that went away can still be told from a failure
        return code
    except UserError as error:
        _complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _complain(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hw4fast",
        description="Train a small net, export one self-describing ONNX file, run it fast, find out what breaks it.",
        epilog="Start with: hw4fast train digits",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for add in (_train, _export, _classify, _study, _bench, _info):
        add(verbs)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"hw4fast {version('hw4fast')}")
        parser.exit()


def _verb(
    verbs: Any, name: str, sentence: str, examples: tuple[str, str], run: Callable[[Arguments], int]
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=sentence[0].lower() + sentence[1:-1],
        description=f"{sentence}\n\nexamples:\n  {examples[0]}\n  {examples[1]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="one JSON value per result on stdout, nothing else")
    return parser


def _threads_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=_positive, help="default: HW4FAST_THREADS, else all cores")


def _threads(arguments: Arguments) -> int | None:
    from hw4fast.kernels import threads_from_environment

    return arguments.threads or threads_from_environment()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no positive whole number")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _print_json(value: Any) -> None:
    """One line of JSON that says exactly `value`. UserError for NaN and infinities, which JSON hasn't."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    try:
        text = json.dumps(value, ensure_ascii=encoding != "utf8", default=str, allow_nan=False)
    except ValueError:
        raise UserError("a result is NaN or infinite, which JSON can't say; without --json it is shown") from None
    print(text, flush=True)


def _printable(value: object) -> str:
    """For names that come from outside: in text, nothing that a terminal obeys. JSON shows them as they are."""
    from hw4fast.inference.paths import printable

    return printable(value)


def _complain(what: object) -> None:
    """Says it on stderr, line by line."""
    print("hw4fast:", "\n".join(map(_printable, str(what).split("\n"))), file=sys.stderr)


# -- train ---------------------------------------------------------------------------------------------------------


def _train(verbs: Any) -> None:
    examples = ("hw4fast train digits", "hw4fast train mnist --recipe adam-bn --epochs 5 --out runs/adam")
    parser = _verb(verbs, "train", "Train a net on a data set and write a run folder.", examples, _run_train)
    # what is not said stays unset: a new run takes it from Settings, a resumed one from what it was begun with
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    add("dataset", nargs="?", metavar="DATASET", help="digits (default, needs no network) or mnist")
    add(
        "--recipe",
        metavar="NAME",
        help="named settings, such as the homework's l2, l1, adam or adam-bn; what else is said wins",
    )
    add("--epochs", type=_positive, help="default: 10")
    add("--batch-size", type=_positive, help="default: 100")
    add("--loss", help="cross-entropy (default), or seed: the homework's −p of the right class")
    add("--lr", type=float, help="learning rate; default: 0.1 for sgd, 0.001 for adagrad and adam, 1 for adadelta")
    add("--schedule", help="of the learning rate: constant (default), one-cycle or stairs (0.7 after each epoch)")
    add("--optimizer", help="sgd (default), adagrad, adam or adadelta")
    add("--momentum", type=float, help="of sgd; default: 0.0")
    add("--l1", type=float, help="λ of λ·Σ|w|, biases left out; default: 0.0")
    add("--l2", type=float, help="λ of λ/2·Σw², biases left out; default: 0.0001")
    add("--dropout", type=float, help="default: 0.4")
    add("--batch-norm", action="store_true", help="batch normalisation after each convolution")
    add("--channels", type=_numbers, metavar="A,B", help="of the two convolutions; default: 16,32")
    add("--seed", type=int, help="of the weights, the order and dropout; default: 0")
    add("--init", metavar="RUN", help="start from the weights of that finished run; default: random ones")
    _threads_option(parser)
    add("--device", help="cpu (default) or cuda")
    add("--kernels", help="hw4fast (default) or torch: whose convolution blocks and loss")
    always = parser.add_argument
    always("--out", metavar="FOLDER", help="the run folder; default: runs/DATASET, or its next free sibling")
    always("--resume", action="store_true", help="go on with the run in that folder; only --epochs may differ")


def _run_train(arguments: Arguments) -> int:
    from dataclasses import fields

    from hw4fast.stats import percent
    from hw4fast.training.settings import Settings
    from hw4fast.training.train import train

    given = {field.name: getattr(arguments, field.name) for field in fields(Settings) if field.name in arguments}
    given["threads"] = _threads(arguments)
    if given["threads"] is None:
        del given["threads"]
    result = train(given, out=arguments.out, resume=arguments.resume)
    if arguments.json:
        _print_json(asdict(result))
        return 0
    print(f"test accuracy {percent(result.correct, result.n)}, cost {result.cost:.4f} nats, {result.seconds:.1f} s")
    ran = [f"{name} cpp-{isa}" for name, counts in result.kernels.items() for isa in counts]
    print(f"kernels: {', '.join(ran) or 'torch'}")
    folder = _printable(result.folder)
    print(f"run: {folder} (curves.png, contact_sheet.png, samples/, metrics.csv, run.json, weights.safetensors)")
    print(f"next: hw4fast export {folder} --onnx")
    return 0


# -- export --------------------------------------------------------------------------------------------------------


def _export(verbs: Any) -> None:
    examples = ("hw4fast export runs/digits --onnx", "hw4fast export runs/mnist --onnx mnist.onnx")
    sentence = "Write a trained run as one self-describing ONNX file, checked against torch."
    parser = _verb(verbs, "export", sentence, examples, _run_export)
    parser.add_argument("folder", metavar="RUN", help="a finished run folder")
    parser.add_argument(
        "--onnx", nargs="?", default="", const="", metavar="FILE", help="the file to write; default: RUN/model.onnx"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-5,
        help="allowed error against float64, in units of the largest logit; default: %(default)s",
    )


def _run_export(arguments: Arguments) -> int:
    from hw4fast.exporter import export

    result = export(arguments.folder, arguments.onnx or None, arguments.tolerance)
    if arguments.json:
        _print_json({"path": str(result.path), "size": result.size, "parity": result.card.parity})
        return 0
    parity, path = result.card.parity, _printable(result.path)
    print(
        f"{path}: {result.size / 1e3:.0f} kB, opset {result.card.opset}, {len(result.card.labels)} classes\n"
        f"checked on {parity['images']} test images in batches of {', '.join(map(str, parity['batches']))}:"
        f" {parity['same_answers']} answers as torch gives them,\n"
        f"  largest logit {parity['largest_logit']:.3g}, error at most {parity['max_error_to_torch']:.2g} to torch and"
        f" {parity['max_error_to_float64']:.2g} to float64 (torch's own {parity['torch_max_error_to_float64']:.2g})\n"
        f"next: hw4fast classify PICTURE --model {path} --transform blur5"
    )
    return 0


# -- classify ------------------------------------------------------------------------------------------------------


def _classify(verbs: Any) -> None:
    examples = (
        "hw4fast classify digit.png --model runs/digits --transform blur9",
        "hw4fast classify *.jpg --model net.onnx --top 3 --json",
    )
    parser = _verb(verbs, "classify", "Name what is in pictures, clean and transformed.", examples, _run_classify)
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE")
    add("--model", required=True, metavar="FILE", help="an .onnx file with a card, or an exported run folder")
    add("--transform", action="append", default=[], metavar="SPEC", help="NAME[LEVEL][:key=value,…]; may be repeated")
    add("--top", type=_positive, default=5, metavar="K", help="answers per picture; default: %(default)s")
    add("--save-transformed", metavar="FOLDER", help="write what the model saw as PNG")
    add("--seed", type=int, default=0, help="of random transforms; default: %(default)s")
    add("--provider", default="cpu", help="cpu (default), cuda or tensorrt")
    _threads_option(parser)


def _run_classify(arguments: Arguments) -> int:
    from hw4fast.inference.classify import Failure, classify

    a = arguments
    failed = 0
    options = {"top": a.top, "save_transformed": a.save_transformed, "seed": a.seed, "provider": a.provider}
    for result in classify(a.images, a.model, a.transform, threads=_threads(a), **options):
        if isinstance(result, Failure):
            failed += 1
            _complain(result.reason)
        if a.json:
            _print_json(result.to_json())
        elif not isinstance(result, Failure):
            print(_printable(result.file), *_side_by_side([result.clean, *result.transformed]), sep="\n")
    if failed:
        _complain(f"{failed} of {len(a.images)} pictures could not be classified")
        return 1 if failed == len(a.images) else 3
    return 0


def _side_by_side(answers: Sequence[Any]) -> list[str]:
    """One column per answer: its transform, then its classes with their probabilities."""
    columns = [
        [answer.transform, *(f"{100 * share:5.1f} %  {_printable(label)}" for _, label, share in answer.top)]
        for answer in answers
    ]
    widths = [max(map(len, column)) for column in columns]
    rows = zip(*columns, strict=True)
    return [
        "  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


# -- study ---------------------------------------------------------------------------------------------------------


def _study(verbs: Any) -> None:
    examples = (
        "hw4fast study digits --model runs/digits",
        "hw4fast study photos/ --model net.onnx --transforms blur,noise,rotate30 --limit 100",
    )
    parser = _verb(verbs, "study", "Find out which transforms break a model, and how soon.", examples, _run_study)
    add = parser.add_argument
    add("source", metavar="DATASET|FOLDER", help="a data set's test images, or a folder of pictures")
    add("--model", required=True, metavar="FILE", help="an .onnx file with a card, or an exported run folder")
    add("--transforms", metavar="A,B,…", help="names (severity 1 to 5 each) or specs with a level; default: all")
    add("--out", metavar="FOLDER", help="default: studies/SOURCE, or its next free sibling")
    add("--limit", type=_positive, metavar="N", help="only N pictures, chosen by the seed")
    add("--seed", type=int, default=0, help="of all chance; default: %(default)s")
    add("--provider", default="cpu", help="cpu (default), cuda or tensorrt")
    _threads_option(parser)


def _run_study(arguments: Arguments) -> int:
    from hw4fast.robustness.study import study

    a = arguments
    transforms = _specs(a.transforms) if a.transforms else None
    options = {"out": a.out, "seed": a.seed, "provider": a.provider, "limit": a.limit}
    result = study(a.source, a.model, transforms, threads=_threads(a), **options)
    for name, reason in result.failures:
        _complain(f"{name}: {reason}")
    if a.json:
        _print_json(result.to_json())
    else:
        print(f"{_printable(result.finding)}\nreport: {_printable(result.report)}")
    return 3 if result.failures else 0


def _specs(text: str) -> list[str]:
    """Splits at commas, but not before the key=value pairs that belong to the spec in front of them."""
    specs: list[str] = []
    for part in text.split(","):
        if specs and ":" in specs[-1] and "=" in part and ":" not in part:
            specs[-1] += "," + part
        else:
            specs.append(part)
    return specs


# -- bench and info ------------------------------------------------------------------------------------------------


def _bench(verbs: Any) -> None:
    examples = ("hw4fast bench runs/digits", "hw4fast bench net.onnx --batches 1,8,64 --seconds 10")
    sentence = "Time a model on every engine that runs here, taking turns."
    parser = _verb(verbs, "bench", sentence, examples, _run_bench)
    add = parser.add_argument
    add("model", metavar="MODEL", help="a run folder (torch and onnxruntime) or an .onnx file (onnxruntime)")
    add("--batches", type=_numbers, default=(1, 32), metavar="A,B,…", help="batch sizes; default: 1,32")
    add("--seconds", type=float, default=3.0, help="how long each batch size is measured; default: %(default)s")
    add("--out", metavar="FILE", help="the record to append to; default: bench.jsonl beside the model")
    _threads_option(parser)


def _run_bench(arguments: Arguments) -> int:
    from hw4fast.bench import bench

    a = arguments
    result = bench(a.model, a.batches, a.seconds, _threads(a), a.out)
    if a.json:
        _print_json(asdict(result))
        return 0
    print(f"{_printable(result.model)}, {result.threads} threads, engines taking turns")
    print(f"{'engine':<18} {'batch':>5} {'p50 ms':>9} {'p90 ms':>9} {'p99 ms':>9} {'images/s':>10} {'calls':>7}")
    for t in result.timings:
        times = f"{t.p50_ms:>9.3f} {t.p90_ms:>9.3f} {t.p99_ms:>9.3f}"
        print(f"{t.engine:<18} {t.batch:>5} {times} {t.images_per_s:>10.0f} {t.calls:>7}")
    for engine, reason in result.left_out.items():
        print(f"left out: {engine}: {_printable(reason)}", file=sys.stderr)
    print(f"record: {_printable(result.path)}")
    return 0


def _info(verbs: Any) -> None:
    examples = ("hw4fast info", "hw4fast info --json")
    _verb(verbs, "info", "Tell what this machine can run, by trying it.", examples, _run_info)


def _run_info(arguments: Arguments) -> int:
    from hw4fast.info import info

    found = info()
    if arguments.json:
        _print_json(asdict(found))
        return 0
    print(f"processor    {found.processor}, {found.cores} cores; instruction sets: {', '.join(found.isas)}")
    print(f"kernels      {found.kernels_error or ', '.join(f'{k}: {v}' for k, v in found.variants.items())}")
    print(f"versions     {', '.join(f'{name} {number}' for name, number in found.versions.items())}")
    for name, reason in found.providers.items():
        print(f"onnxruntime  {name}: {'runs' if reason is None else f'does not run: {reason}'}")
    for name, state in found.folders.items():
        print(f"folder       {name}: {state}")
    return 0
