"""What the verb `card` prints of a card: its main figures, in lines to read. `--json` has all of them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from hw4fast.cli.common import shown

WIDTH, LINE = 15, 105  # signs of the column of names, and of the lines beside it
FEW, MOST = 5, 8  # labels are shown; keys of provenance that are no part of the above
OTHERS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)  # of keys that mean something else
MODES = {"L": "grey (L)", "RGB": "RGB", "BGR": "BGR (blue first)"}
SETTINGS = {  # of a run: how they are told, after its model and data
    "recipe": "recipe {}",
    "epochs": "{} epochs",
    "batch_size": "batches of {}",
    "optimizer": "{}",
    "lr": "learning rate {}",
    "tune": "tuned {}",
    "patience": "patience {}",
    "seed": "seed {}",
}
USUAL = {"tune": "all"}  # and then not told


def card_lines(card: Any) -> Iterator[str]:
    """card: an inference.card.Card. What isn't as `export` or `card` writes it is shown as JSON, cut."""
    for name, told in (
        ("labels", _labels),
        ("preprocessing", _preprocessing),
        ("input", _input),
        ("output", lambda card: [f"{card.output.name}: {card.output.kind} [n, {len(card.labels)}]"]),
        ("licence", lambda card: [card.licence or "not said"]),
        ("source", lambda card: [card.source or "not said"]),
        ("provenance", _provenance),
        ("parity", _parity),
        ("opset", lambda card: [f"{card.opset}; the card has schema {card.schema}"]),
    ):
        for number, line in enumerate(_lines(card, name, told)):
            yield f"{'' if number else name:<{WIDTH}}{line}".rstrip()


def _lines(card: Any, name: str, told: Callable[[Any], Any]) -> list[str]:
    try:
        lines = list(told(card))
    except OTHERS:
        lines = [_cut(json.dumps(card.to_json()[name], ensure_ascii=False), 200)]
    return [
        part
        for line in lines
        for part in textwrap.wrap(shown(_cut(line, 500)), LINE, subsequent_indent="  ", break_on_hyphens=False) or [""]
    ]


def _cut(value: object, limit: int = 60) -> str:
    from hw4fast.paths import one_line

    return one_line(value, limit)


def _labels(card: Any) -> Iterator[str]:
    more = " | …" if len(card.labels) > FEW else ""  # names may hold commas
    yield f"{len(card.labels)}: {' | '.join(_cut(label) for label in card.labels[:FEW])}{more}"


def _preprocessing(card: Any) -> Iterator[str]:
    p = card.preprocessing
    filtered = f"{p.interpolation}, {'not ' if p.interpolation == 'nearest' else ''}antialiased"
    yield f"read as {MODES[p.mode]}"
    if p.resize == "stretch":
        yield f"stretched to {_size(p.crop)} pixels ({filtered})"
    else:
        yield f"shorter side to {p.resize_size} pixels ({filtered}), then the centre, {_size(p.crop)}"
    yield f"(byte / {p.divisor:g} − mean) / std, mean {_numbers(p.mean)}, std {_numbers(p.std)}"


def _size(crop: tuple[int, int]) -> str:
    rows, columns = crop
    return f"{rows}×{columns}" + ("" if rows == columns else " (height × width)")


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.9g}" for value in values)


def _input(card: Any) -> Iterator[str]:
    p, taken = card.preprocessing, card.input
    axes = ["n", *p.crop, p.channels] if taken.layout == "NHWC" else ["n", p.channels, *p.crop]
    inside = "; divided and normalised in the graph" if taken.dtype == "uint8" else ""
    yield f"{taken.name}: {taken.dtype} [{', '.join(map(str, axes))}] ({taken.layout}){inside}"


# -- how it was made ---------------------------------------------------------------------------------------------


def _provenance(card: Any) -> Iterator[str]:
    """A line for each part that is as it should be; the others are named."""
    p = card.provenance
    left = dict(p)
    for keys, told in PARTS.items():
        if keys[0] in p:
            try:
                yield told(p)
            except OTHERS:
                continue
            for key in keys:
                left.pop(key, None)
    if left:
        more = ", …" if len(left) > MOST else ""
        yield ", ".join(f"{_cut(key)}: {_cut(_as_text(value))}" for key, value in list(left.items())[:MOST]) + more
    elif not p:
        yield "not said"


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _run(p: Any) -> str:
    settings, data = p["settings"], p["data"]
    told = [
        text.format(settings[key])
        for key, text in SETTINGS.items()
        if settings.get(key) is not None and settings[key] != USUAL.get(key)
    ]
    return f"{settings['model']} trained on {data['name']} ({data['source']}): {', '.join(told)}"


def _result(p: Any) -> str:
    from hw4fast.stats import percent

    result = p["result"]
    best = result.get("best_epoch")
    chosen = f", epoch {best['epoch']} of stage {best['stage']}" if best else ""
    accuracy = percent(result["test_correct"], result["test_images"])
    return f"test accuracy {accuracy}, cost {result['test_cost']:.4f} nats{chosen}"


def _sessions(p: Any) -> str:
    *before, last = p["sessions"]
    machine = last["machine"]
    many = f"in {len(before) + 1} sessions, the last one " if before else ""
    commit = f", commit {p['commit']}" if p.get("commit") else ""
    return (
        f"{many}begun {last['begun']} on {machine['processor']}, {machine['cores']} cores, {last['isa']}{commit}; "
        f"{_versions(last['versions'])}"
    )


def _versions(versions: Any) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _architecture(p: Any) -> str:
    return f"{p['architecture']}, weights {p['weights']}, preprocessing {p['preset']}"


def _exported(p: Any) -> str:
    told = f"exported {p['exported']} as {p['precision']}"
    if "calibration" in p:
        told += f" (calibrated on {p['calibration']['pictures']} pictures: {p['calibration']['origin']})"
    if "normalisation" in p:
        told += f", {p['normalisation']}"
    if p.get("fused"):
        told += ", with blocks that hw4fast's kernels run"
    trained = p["sessions"][-1]["versions"] if "sessions" in p else None
    return told if p["versions"] == trained else f"{told}; {_versions(p['versions'])}"


PARTS: dict[tuple[str, ...], Callable[[Any], str]] = {
    ("settings", "data"): _run,
    ("result",): _result,
    ("sessions", "commit"): _sessions,
    ("architecture", "weights", "preset"): _architecture,
    ("exported", "versions", "precision", "normalisation", "fused", "calibration"): _exported,
    ("file",): lambda p: f"the card was set by hand, for {p['file']}",
    ("edited",): lambda p: f"edited by hand since: {', '.join(p['edited'])}",
}


# -- how far it is from torch ------------------------------------------------------------------------------------


def _parity(card: Any) -> Iterator[str]:
    p = card.parity
    if not p:
        yield "not measured" + (" since it was edited" if "edited" in card.provenance else "")
        return
    ties = f", {p['near_ties']} near ties" if p.get("near_ties") else ""
    yield (
        f"on {p['images']} pictures in batches of {', '.join(map(str, p['batches']))}: "
        f"{p['same_answers']} answers as torch gives them{ties}"
    )
    if "inputs_equal_to_torchvision" in p:
        theirs = p.get("inputs_compared_with", "torchvision's transforms")
        yield f"inputs of {p['inputs_equal_to_torchvision']} photographs equal to the last bit to those of {theirs}"
    yield (
        f"error at most {p['max_error_to_float64']:.2g} to float64, torch's own {p['torch_max_error_to_float64']:.2g}; "
        f"allowed {p['tolerance'] * p['largest_logit']:.2g}, {p['tolerance']:g} of the largest logit"
    )
    for name, found in p.get("judged", {}).items():
        yield _judged(name, found)
    if "speed" in p:
        yield from _speed(p["speed"])


def _judged(name: str, found: Any) -> str:
    from hw4fast.stats import percent

    n = found["pictures"]
    return (
        f"on {n} others ({_cut(name)}): {found['same_answers']} answers as in float32; accuracy in float32 "
        f"{percent(found['correct_float32'], n)}, in int8 {percent(found['correct_int8'], n)}"
    )


def _speed(speed: Any) -> Iterator[str]:
    for batch, told in speed["batches"].items():
        yield (
            f"batch {batch}: {told['median']:.2f}× float32's speed (95 % interval {told['low']:.2f} … "
            f"{told['high']:.2f}) on {speed['processor']}, {speed['cores']} cores"
        )
