"""The verbs that make something: train, export, reproduce."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from functools import partial
from typing import Any

from hw4fast.cli.common import Arguments, complain, numbers, positive, print_json, shown, threads, threads_option, verb


def add_train(verbs: Any) -> None:
    examples = ("hw4fast train digits", "hw4fast train flowers --backbone shufflenet_v2_x1_0 --two-step --patience 10")
    parser = verb(verbs, "train", "Train a net on a data set and write a run folder.", examples, _run_train)
    # what is not said stays unset: a new run takes it from Settings, a resumed one from what it was begun with
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    add(
        "dataset",
        nargs="?",
        metavar="DATASET|FOLDER",
        help="digits (default, needs no network), mnist, flowers, or a folder with one sub-folder per class",
    )
    add(
        "--recipe",
        metavar="NAME",
        help="named settings, such as the homework's l2, l1, adam or adam-bn; what else is said wins",
    )
    add("--epochs", type=positive, help="default: 10")
    add("--batch-size", type=positive, help="default: 100")
    add("--loss", help="cross-entropy (default), or seed: the homework's −p of the right class")
    add("--lr", type=float, help="learning rate; default: 0.1 for sgd, 0.001 for adagrad and adam, 1 for adadelta")
    add("--schedule", help="of the learning rate: constant (default), one-cycle or stairs (0.7 after each epoch)")
    add("--optimizer", help="sgd (default), adagrad, adam or adadelta")
    add("--label-smoothing", type=float, help="share of each target that is spread over all classes; default: 0.0")
    add("--beta2", type=float, help="of adam: how slowly it forgets the gradients' squares; default: 0.999")
    add("--momentum", type=float, help="of sgd; default: 0.0")
    add("--l1", type=float, help="λ of λ·Σ|w|, biases left out; default: 0.0")
    add("--l2", type=float, help="λ of λ/2·Σw², biases left out; default: 0.0001")
    add("--dropout", type=float, help="default: 0.4")
    add("--batch-norm", action="store_true", help="batch normalisation after each convolution")
    add("--channels", type=numbers, metavar="A,B", help="of the two convolutions; default: 16,32")
    tuning = parser.add_argument_group("a pretrained backbone (the default for pictures)")
    tune = partial(tuning.add_argument, default=argparse.SUPPRESS)
    tune(
        "--backbone",
        dest="model",
        metavar="NAME",
        help="a classification net of torchvision's; default: shufflenet_v2_x1_0",
    )
    tune(
        "--weights",
        metavar="FILE",
        help="its trained weights; default: HW4FAST_DATA/models, the cache, or torchvision's",
    )
    tune("--preprocess", metavar="PRESET", help="imagenet (default) or stretch (plainly to 224×224)")
    which = tuning.add_mutually_exclusive_group()
    for flag, value, words in (
        ("--freeze", "head", "train the last layer alone, on features that are computed once"),
        ("--unfreeze", "all", "train all layers (default)"),
        ("--two-step", "head-then-all", "first the last layer, then all"),
    ):
        which.add_argument(flag, dest="tune", action="store_const", const=value, default=argparse.SUPPRESS, help=words)
    tune(
        "--patience",
        type=positive,
        metavar="N",
        help="stop after N epochs without a lower validation cost; default: 10",
    )
    add("--seed", type=int, help="of the weights, the order and dropout; default: 0")
    add("--init", metavar="RUN", help="start from the weights of that finished run; default: random ones")
    threads_option(parser)
    add("--device", help="cpu (default) or cuda: pictures, net and steps on the GPU, the steps as a CUDA graph")
    add("--precision", help="float32 (default), or bfloat16 for the net on a GPU")
    add("--kernels", help="hw4fast (default) or torch: whose convolution blocks and loss")
    always = parser.add_argument
    always("--out", metavar="FOLDER", help="the run folder; default: runs/DATASET, or its next free sibling")
    always(
        "--resume",
        action="store_true",
        help="go on with the run in that folder; only --epochs and --threads may differ",
    )


def _run_train(arguments: Arguments) -> int:
    from dataclasses import fields

    from hw4fast.stats import percent
    from hw4fast.training.settings import Settings
    from hw4fast.training.train import train

    given = {field.name: getattr(arguments, field.name) for field in fields(Settings) if field.name in arguments}
    given["threads"] = threads(arguments)
    if given["threads"] is None:
        del given["threads"]
    result = train(given, out=arguments.out, resume=arguments.resume)
    for reason in result.left_out:
        complain(f"left out: {reason}")
    code = 3 if result.left_out else 0
    if arguments.json:
        print_json(asdict(result))
        return code
    print(f"test accuracy {percent(result.correct, result.n)}, cost {result.cost:.4f} nats, {result.seconds:.1f} s")
    ran = [f"{name} cpp-{isa}" for name, counts in result.kernels.items() for isa in counts]
    print(f"kernels: {', '.join(ran) or 'torch'}")
    folder = shown(result.folder)
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in result.folder.iterdir())
    print(f"run: {folder} ({shown(', '.join(names))})")
    print(f"next: hw4fast export {folder} --onnx")
    return code


def add_export(verbs: Any) -> None:
    examples = ("hw4fast export runs/digits --onnx", "hw4fast export shufflenet_v2_x1_0 --preprocess stretch")
    sentence = "Write a trained run, or a pretrained net of torchvision's, as one self-describing ONNX file."
    parser = verb(verbs, "export", sentence, examples, _run_export)
    add = parser.add_argument
    add("model", metavar="RUN|ARCHITECTURE", help="a finished run folder, or a name like resnet18")
    add("--onnx", nargs="?", default="", const="", metavar="FILE", help="default: RUN/model.onnx or ARCHITECTURE.onnx")
    text = (
        "of an architecture; DEFAULT, which is the default: HW4FAST_DATA/models, the cache, or torchvision's download"
    )
    add("--weights", metavar="FILE|DEFAULT", help=text)
    text = (
        "of an architecture: imagenet (shorter side to 256, crop of 224), stretch (plainly to 224×224) or torchvision"
        " (as its default weights were tested); default: as its weights were tested, if torchvision knows them"
    )
    add("--preprocess", metavar="PRESET", help=text)
    add(
        "--fused",
        action="store_true",
        help="name the convolution blocks that hw4fast's kernels do faster: `classify` runs those, others the standard",
    )
    add("--input", default="float32", metavar="DTYPE", help="uint8: normalise inside the graph; default: %(default)s")
    add("--fp16", action="store_true", help="weights and arithmetic in float16")
    add("--int8", action="store_true", help="weights and arithmetic in int8; tells what that costs and how fast it is")
    text = "of pictures, for --int8; default: training pictures of the run, photographs for an architecture"
    add("--calibrate", metavar="FOLDER", help=text)
    text = "allowed error against float64, in units of the largest logit; default: 1e-5, in float16 0.005, in int8 0.25"
    add("--tolerance", type=float, help=text)
    add("--licence", metavar="TEXT", help="of the weights, for the card; default: what torchvision says of its own")
    add("--begun", action="store_true", help=argparse.SUPPRESS)  # of inference.known: a line when the name is right


def _run_export(arguments: Arguments) -> int:
    from hw4fast.exporter import export

    a = arguments
    if a.begun:
        from hw4fast.inference.known import BEGUN
        from hw4fast.training.models.pretrained import check_architecture

        check_architecture(a.model)
        print(BEGUN, file=sys.stderr, flush=True)
    result = export(
        a.model,
        a.onnx or None,
        a.tolerance,
        a.weights,
        a.preprocess,
        a.fused,
        a.input,
        a.fp16,
        a.int8,
        a.calibrate,
        a.licence,
    )
    if result.replaced:
        complain(f"replaces the {result.replaced} file that was there")
    for reason in result.left_out:
        complain(f"left out: {reason}")
    if result.unchecked:
        complain(f"{len(result.unchecked)} of HW4FAST_DATA's photographs left out of the check:")
        for reason in result.unchecked:
            complain(f"  {reason}")
    code = 3 if result.left_out else 0
    card = result.card
    if arguments.json:
        print_json({"path": str(result.path), "size": result.size, "parity": card.parity})
        return code
    parity, path = card.parity, shown(result.path)
    size = f"{result.size / 1e3:.0f} kB, opset {card.opset}, {len(card.labels)} classes"
    told = parity["precision"] != "float32" and parity["near_ties"]
    ties = f" ({parity['near_ties']} are near ties)" if told else ""
    print(
        f"{path}: {size}{_kind(card)}\n{_preset(parity)}"
        f"checked on {parity['images']} pictures in batches of {', '.join(map(str, parity['batches']))}:"
        f" {parity['same_answers']} answers as torch gives them{ties},\n"
        f"  largest logit {parity['largest_logit']:.3g}, error at most {parity['max_error_to_torch']:.2g} to torch and"
        f" {parity['max_error_to_float64']:.2g} to float64 (torch's own {parity['torch_max_error_to_float64']:.2g};"
        f" allowed {parity['tolerance'] * parity['largest_logit']:.2g})"
    )
    if "speed" in parity:
        print(*_int8_lines(card), sep="\n")
    print(f"next: hw4fast classify PICTURE --model {path} --transform blur5")
    return code


def _preset(parity: dict[str, Any]) -> str:
    """How pictures become inputs, of an architecture."""
    if "preset" not in parity:
        return ""
    return (
        f"pictures prepared as {parity['preset']} says ({shown(parity['preset_because'])}):\n"
        f"  inputs of {parity['inputs_equal_to_torchvision']} photographs equal to the last bit to those of"
        f" {parity['inputs_compared_with']}\n"
    )


def _kind(card: Any) -> str:
    """What is not as usual."""
    precision = card.parity["precision"]
    kind = "" if precision == "float32" else f", {precision}"
    if "kernels" in card.parity:
        kind += f", fused (checked with our kernels on {', '.join(card.parity['kernels'])}, and without)"
    if card.input.dtype == "uint8":
        kind += f", takes uint8 pictures (normalised inside: {card.provenance['normalisation']})"
    return kind


def _int8_lines(card: Any) -> list[str]:
    from hw4fast.stats import percent

    parity, how = card.parity, card.provenance["calibration"]
    lines = [f"calibrated on {how['pictures']} pictures ({how['origin']})"]
    for name, found in parity["judged"].items():
        n = found["pictures"]
        lines += [
            f"on {n} others ({shown(name)}): {found['same_answers']} answers as in float32",
            f"  accuracy in float32 {percent(found['correct_float32'], n)}",
            f"  accuracy in int8    {percent(found['correct_int8'], n)}",
        ]
    if not parity["judged"]:
        lines.append("no labelled picture that it was not calibrated on is here: how good its answers are is not known")
    for batch, told in parity["speed"]["batches"].items():
        verdict = (
            "int8 is faster" if told["low"] > 1 else "INT8 IS SLOWER" if told["high"] < 1 else "no faster, no slower"
        )
        lines.append(
            f"batch {batch}: {verdict} on this CPU, {told['median']:.2f}× float32's speed (median of paired rounds,"
            f" 95 % interval {told['low']:.2f} … {told['high']:.2f})"
        )
    return lines


def add_reproduce(verbs: Any) -> None:
    examples = ("hw4fast reproduce theory", "hw4fast reproduce mnist --seeds 3 --out homework")
    sentence = "Run the homework's experiments and set its numbers beside ours."
    parser = verb(verbs, "reproduce", sentence, examples, _run_reproduce)
    add = parser.add_argument
    add("parts", nargs="*", default=["all"], metavar="PART", help="mnist, fast, flowers, corn, theory or all (default)")
    add("--out", default="homework", metavar="FOLDER", help="finished runs in it are kept; default: %(default)s")
    add("--seeds", type=positive, metavar="N", help="runs of each recipe; default: 1, for fast 20")
    add("--dataset", default="mnist", help="of the parts mnist and fast, such as digits; default: %(default)s")
    add("--pictures", default="flowers", metavar="FOLDER", help="of the flowers part; default: Oxford 102 Flowers")
    add("--epochs", type=positive, help="at most so many, to try it; default: the homework's")
    add("--kernels", default="hw4fast", help="of the mnist part: hw4fast (default) or torch")
    add("--photo", metavar="FILE|FOLDER", help="of the corn part; default: the corn in HW4FAST_DATA")
    threads_option(parser)
    text = "runs of the mnist part at a time, each on its share of the threads; default: one a thread, at most 8"
    add("--jobs", type=positive, metavar="N", help=text)


def _run_reproduce(arguments: Arguments) -> int:
    from hw4fast import record
    from hw4fast.homework.parts import Options
    from hw4fast.homework.reproduce import PARTS, reproduce

    a = arguments
    jobs = a.jobs or min(8, threads(a) or record.cores())
    options = Options(a.seeds, a.dataset, a.pictures, a.epochs, a.kernels, a.photo, threads(a), jobs)
    result = reproduce(a.parts, a.out, options)
    for name, why in result.failed.items():
        complain(f"{name}: {why}")
    if a.json:
        print_json(result.results)
    else:
        for name, found in result.results.items():
            print(f"{PARTS[name].title}: {PARTS[name].finding(found)}", *PARTS[name].table(found), "", sep="\n")
        print(f"report: {shown(result.report)}")
    return 1 if not result.works else 3 if result.failed else 0
