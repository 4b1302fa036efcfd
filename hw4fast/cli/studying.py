"""The verbs that spoil pictures: study, and transforms, which lists what it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hw4fast.cli.common import Arguments, complain, positive, print_json, shown, threads, threads_option, verb

DEFAULT_MODEL = "shufflenet_v2_x1_0"


def add_study(verbs: Any) -> None:
    examples = (
        "hw4fast study digits --model runs/digits",
        "hw4fast study photos/ --model squeezenet1_1 net.onnx --transforms blur,fog,rotate30 --limit 100",
    )
    parser = verb(verbs, "study", "Find out which transforms break a model, and how soon.", examples, _run_study)
    add = parser.add_argument
    add("source", metavar="DATASET|FOLDER", help="a data set's test images, or a folder of pictures")
    add("--model", nargs="+", default=[DEFAULT_MODEL], metavar="MODEL", help=MODELS_HELP)
    add("--transforms", metavar="A,B,…", help="names (severity 1 to 5 each) or specs with a level; default: all")
    add(
        "--labels", metavar="FILE", help="what a folder's pictures show: CSV of file,label or wnid,index; JSON; or none"
    )
    add("--import", dest="imports", action="append", default=[], metavar="FILE", help="a .py file with transforms")
    add("--out", metavar="FOLDER", help="default: studies/SOURCE, or its next free sibling")
    add("--resume", action="store_true", help="go on with a study that was interrupted")
    add("--limit", type=positive, metavar="N", help="only N pictures, chosen by the seed")
    add(
        "--breaking",
        type=_count,
        default=200,
        metavar="N",
        help="pictures whose breaking points are sought; default: 200",
    )
    add("--seed", type=int, default=0, help="of all chance; default: %(default)s")
    add(
        "--provider",
        "--device",
        default="cpu",
        help="where the net runs: cpu (default), cuda or tensorrt; on a GPU transforms run there, too",
    )
    threads_option(parser)


ON_A_GPU = ("cuda", "tensorrt")  # providers
MODELS_HELP = (
    "one or more: an .onnx file with a card, a run folder, or a name like resnet18; default: shufflenet_v2_x1_0"
)


def add_transforms(verbs: Any) -> None:
    examples = ("hw4fast transforms", "hw4fast transforms --out transforms.html --picture corn.jpg")
    sentence = "List the transforms, and draw a picture under each of them."
    parser = verb(verbs, "transforms", sentence, examples, _run_transforms)
    add = parser.add_argument
    add("--out", metavar="FILE", help="a page with the picture under each transform at each severity")
    add("--picture", metavar="FILE", help="what is drawn; default: a photograph")
    add("--import", dest="imports", action="append", default=[], metavar="FILE", help="a .py file with transforms")


def _run_transforms(arguments: Arguments) -> int:
    from hw4fast.errors import UsageError
    from hw4fast.robustness.catalogue import catalogue, save_catalogue

    a = arguments
    if a.picture and not a.out:
        raise UsageError("--picture says what to draw: name the page with --out, too")
    entries = catalogue(a.imports)
    if a.out:
        save_catalogue(a.out, entries, a.picture)
    if a.json:
        for entry in entries:
            print_json(entry.to_json())
        return 0
    family = ""
    for entry in entries:
        if entry.transform.family != family:
            family = entry.transform.family
            print(f"\n{shown(family)}")
        levels = ", ".join(entry.levels)
        name = ", ".join((entry.transform.name, *entry.aliases))
        print(f"  {shown(name):<28} {entry.transform.level + ' ' + levels:<44} {shown(entry.transform.summary)}")
    if a.out:
        print(f"\npage: {shown(a.out)}")
    return 0


def _count(text: str) -> int:
    return 0 if text == "0" else positive(text)


def _run_study(arguments: Arguments) -> int:
    from hw4fast.robustness.study import study

    a = arguments
    transforms = None if a.transforms is None else _specs(a.transforms)
    options = {"out": a.out, "seed": a.seed, "provider": a.provider, "limit": a.limit, "labels": a.labels}
    options |= {"imports": a.imports, "resume": a.resume, "breaking": a.breaking}
    batches, reason = _batches(a.provider)
    result = study(a.source, a.model, transforms, threads=threads(a), batches=batches, **options)
    if reason:
        complain(f"transforms ran on the CPU's cores: {reason}")
    for note in result.notes:
        complain(note)
    for name, reason in result.failures:
        complain(f"{name}: {reason}")
    if a.out is not None and result.out != Path(a.out):
        complain(f"{shown(a.out)} holds something else; this study is in {shown(result.out)}")
    if result.reused:
        complain(f"{result.reused} of {result.predictions} answers were there from before")
    if a.json:
        print_json(result.to_json())
        return 3 if result.failures else 0
    for model in result.models:
        name = f"{shown(model.model)}: " if len(result.models) > 1 else ""
        print(f"{name}{shown(model.finding)}")
    print(f"report: {shown(result.report)}")
    return 3 if result.failures else 0


def _batches(provider: str) -> tuple[Any, str]:
    """What changes pictures where the provider computes, None for each core by itself; why, if that wasn't asked
    for."""
    if provider not in ON_A_GPU:
        return None, ""
    from hw4fast.batched import TorchBatches
    from hw4fast.errors import UserError

    try:
        return TorchBatches("cuda"), ""
    except UserError as error:
        return None, str(error)


def _specs(text: str) -> list[str]:
    """Splits at commas, but not before the key=value pairs that belong to the spec in front of them."""
    specs: list[str] = []
    for part in text.split(","):
        begin = part.partition("+")[0]  # behind a + another transform begins
        if specs and ":" in specs[-1].rpartition("+")[2] and "=" in begin and ":" not in begin:
            specs[-1] += "," + part
        else:
            specs.append(part)
    return specs
