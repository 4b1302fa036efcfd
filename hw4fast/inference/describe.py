"""`card`: shows what a model says about itself, and lets a foreign ONNX file say it."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast.data.preprocessing import PRESETS, Preprocessing, preset
from hw4fast.errors import UsageError, UserError
from hw4fast.files import writing
from hw4fast.inference.card import DTYPES, KEY, KINDS, LAYOUTS, Card, Input, Output
from hw4fast.inference.classifier import TYPES, Classifier
from hw4fast.inference.known import find_model, known_card
from hw4fast.inference.session import open_session
from hw4fast.paths import is_file, one_line, printable

TEXTS = ("licence", "source")
IN_GRAPH = "divisor", "mean", "std"  # of a graph that normalises
OF_PREPROCESSING = ("mode", "resize", "resize_size", "interpolation", "crop", "divisor", "mean", "std")
SETTABLE = ("labels", "output", "kind", "layout", *TEXTS, *OF_PREPROCESSING)
MEASURED = ("preprocessing", "input", "output", "labels")  # parts of the card for which its parity was measured
ROUNDED = 0.05  # how far the sum of probabilities may be from 1: in int8 each of them is rounded
COLUMNS = {"", "id", "idx", "index", "class", "class_id", "class_name", "label", "labels", "name", "wnid", "synset"}
LARGEST_LABELS = 64 * 2**20  # bytes


def describe(
    path: str | Path,
    values: Mapping[str, str] | None = None,
    preprocess: str | None = None,
    out: str | Path | None = None,
) -> Card:
    """The card of a model; with `values` or `preprocess` a file gets one, or another one, and is written anew.

    path: what Classifier takes. values: keys of SETTABLE with texts: labels a file (UTF-8) with one name per line (or
    a JSON list), or names with commas between them; output the name of the graph's output, if it has several; kind
    "logits" or "probabilities" (found by a trial otherwise) and layout "NCHW" or "NHWC", of that output and of the
    input; licence and source in words; the others the card's preprocessing, lists with commas between them.
    preprocess: a preset that they change, needless where they say all of it. What is not said stays as the old card
    has it. out: the file to write; the model's own if None.
    When anything but licence and source becomes another, the parity is taken out, and `edited` in the provenance says
    why. An old card that can't be read is left out, with a line on stderr, when labels and `preprocess` are given.
    Raises UsageError for an unknown key, UserError for a file that is no such model, that may not be written, and when
    the card doesn't fit: the graph is run once. Then nothing is written.
    """
    if not values and preprocess is None:
        if out is not None:
            raise UsageError("there is nothing to write: say what with --set or --preprocess")
        return Classifier(path).card
    values = dict(values or {})
    _check(values)
    file = find_model(path)
    target = Path(out) if out else file
    _insist_writable(target)
    session = open_session(file)
    old = _old_card(file, session, "labels" in values and preprocess is not None)
    made, model = _card(file, session, old, values, preprocess), _model(file)
    if target.resolve().parent != file.resolve().parent and _external(model):
        raise UserError(f"'{file}' keeps its weights in other files beside it; write the card into the same folder")
    try:
        with writing(target) as temporary:
            _write(model, made, temporary)
            try:
                kind = _kind(_answer(temporary), made, values, old)
            except UserError as error:
                reason = str(error).replace(str(temporary), str(target)).removesuffix("; export it again")
                raise UserError(
                    f"a card of {'×'.join(map(str, made.preprocessing.crop))} pixels and {len(made.labels)} labels "
                    f"doesn't fit: {reason}"
                ) from None
            card = _noted(replace(made, output=Output(made.output.name, kind)), old)
            if card != made:
                _write(model, card, temporary)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise UserError(f"'{target}' can't be written: {reason}; write it elsewhere with --out FILE") from None
    return card


def _check(values: dict[str, str]) -> None:
    unknown = [key for key in values if key not in SETTABLE]
    if unknown:
        raise UsageError(f"unknown key '{one_line(unknown[0])}'; known: {', '.join(SETTABLE)}")
    for key, known in (("kind", KINDS), ("layout", LAYOUTS)):
        if values.get(key, known[0]) not in known:
            raise UsageError(f"{key} must be one of {', '.join(known)}, not '{one_line(values[key])}'")


def _insist_writable(path: Path) -> None:
    """Renaming asks the folder, not the file: who has locked a file means it."""
    if path.is_file() and not (path.stat().st_mode & 0o222 and os.access(path, os.W_OK)):
        raise UserError(f"'{path}' is read-only; write a file of your own with --out FILE")


def _old_card(path: Path, session: Any, replaced: bool) -> Card | None:
    """The card that the file has, or that is known of it. replaced: all that it says is said anew, so that it may be
    unreadable."""
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    try:
        return known_card(path) if text is None else Card.from_json_text(text)
    except UserError as error:
        if not replaced:
            raise UserError(
                f"'{path}': {error}; or give it a new card: --set labels=FILE --preprocess {' or '.join(PRESETS)}"
            ) from None
        reason = one_line(error).removesuffix("; export the model again")
        print(f"hw4fast: the old card is left out: {reason}", file=sys.stderr)
        return None


def _card(path: Path, session: Any, old: Card | None, values: dict[str, str], preprocess: str | None) -> Card:
    """The old card with what is new, as if the output were logits."""
    taken, given = _one(session.get_inputs(), "input", None), _output(session.get_outputs(), old, values)
    dtype = next((name for name in DTYPES if TYPES[name] == taken.type), None)
    if dtype is None or len(taken.shape) != 4:
        raise UserError(f"'{path}' takes {taken.type} {taken.shape}; a card is for four axes of {' or '.join(DTYPES)}")
    layout = values.get("layout") or _layout(taken.shape, old)
    *sides, channels = taken.shape[1:] if layout == "NHWC" else (*taken.shape[2:], taken.shape[1])
    base = preset(preprocess) if preprocess is not None else old.preprocessing if old else None
    if base is None and (missing := _missing(values, sides)):
        among = f", or --set {', '.join(missing)}, too" if len(missing) < len(OF_PREPROCESSING) // 2 else ""
        raise UserError(
            f"'{path}' has no card yet; say how pictures are read: --preprocess {' or '.join(PRESETS)} as a starting "
            f"point; --set changes parts of it{among}"
        )
    if "labels" not in values and old is None:
        raise UserError(f"'{path}' has no card yet; say what its classes are called: --set labels=FILE")
    preprocessing = _preprocessing(base, values, sides)
    if old and dtype == "uint8" and "normalisation" in old.provenance:  # as `export` notes
        other = [key for key in IN_GRAPH if getattr(preprocessing, key) != getattr(old.preprocessing, key)]
        if other:
            raise UserError(
                f"'{path}' normalises inside its graph, so {', '.join(other)} can't be set: export it again"
            )
    if isinstance(channels, int) and channels != preprocessing.channels:
        raise UserError(
            f"'{path}' takes {channels} channels ({taken.shape}), but mode {preprocessing.mode} has "
            f"{preprocessing.channels}: --set mode=, mean= and std= say another"
        )
    return Card(
        preprocessing,
        _labels(values["labels"]) if "labels" in values or old is None else old.labels,
        old.provenance if old else {"file": printable(path.name)},
        old.parity if old else {},
        old.opset if old else _opset(path),
        Input(taken.name, layout, dtype),
        Output(given.name),
        values.get("licence", old.licence if old else ""),
        values.get("source", old.source if old else ""),
    )


def _noted(card: Card, old: Card | None) -> Card:
    """Without a proof of what is no longer so, and with a note of that."""
    edited = [key for key in MEASURED if old and getattr(card, key) != getattr(old, key)]
    if not edited:
        return card
    before = card.provenance.get("edited")
    edited += [key for key in before if key not in edited] if isinstance(before, list) else []
    return replace(card, parity={}, provenance=card.provenance | {"edited": edited})


def _output(outputs: list[Any], old: Card | None, values: dict[str, str]) -> Any:
    """The one that is named, else the one that the old card names, else the only one."""
    names = [entry.name for entry in outputs]
    kept = old.output.name if old and old.output.name in names else None
    given = _one(outputs, "output", values.get("output", kept))
    if given.type not in (TYPES["float32"], TYPES["float16"]):
        raise UserError(f"the output {one_line(given.name, 60)} is {given.type}; a card is for floats of 32 or 16 bits")
    return given


def _layout(shape: list[Any], old: Card | None) -> str:
    """Where there is one axis that can be channels, it is; else as the old card has it."""
    first, last = (shape[axis] in (1, 3) for axis in (1, 3))
    if first == last:
        return old.input.layout if old else "NCHW"
    return "NHWC" if last else "NCHW"


def _one(entries: list[Any], what: str, name: str | None) -> Any:
    chosen = [entry for entry in entries if name in (None, entry.name)]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(one_line(entry.name, 60) for entry in entries)
    if what == "input":
        raise UserError(f"a card is for models with one input; this one has {len(entries)}: {names}")
    raise UserError(f"the model's outputs are {names}; name one of them with --set output=NAME")


def _missing(values: dict[str, str], sides: list[Any]) -> list[str]:
    """What `values` leave open of a preprocessing that starts from nothing; the graph may state its size."""
    needless = {"resize_size"} if values.get("resize") == "stretch" else set()
    if all(isinstance(side, int) for side in sides):
        needless.add("crop")
    return [f"{key}=" for key in OF_PREPROCESSING if key not in values and key not in needless]


def _preprocessing(base: Preprocessing | None, values: dict[str, str], sides: list[Any]) -> Preprocessing:
    """`base`, None where `values` say all, with what they say; a graph that states its size has the last word on the
    crop, unless told."""
    changed = {key: _read(key, values[key]) for key in OF_PREPROCESSING if key in values}
    if changed.get("resize") == "stretch":
        changed.setdefault("resize_size", None)
    if "crop" not in changed and all(isinstance(side, int) for side in sides):
        changed["crop"] = tuple(sides)
    try:
        return replace(base, **changed) if base else Preprocessing(**changed)
    except ValueError as error:
        raise UsageError(f"the preprocessing can't be so: {one_line(error)}") from None


def _read(key: str, text: str) -> Any:
    """What Preprocessing takes."""
    if key in ("mode", "resize", "interpolation"):
        return text
    parts = text.split(",")
    try:
        if key in ("mean", "std"):
            return tuple(map(float, parts))
        if key == "crop" and len(parts) < 3:
            return int(parts[0]), int(parts[-1])
        if key == "resize_size":
            return None if text in ("", "none") else int(text)
        if key == "divisor":
            return float(text)
    except ValueError:
        pass
    wanted = {"mean": "numbers", "std": "numbers", "divisor": "a number", "crop": "HEIGHT,WIDTH in pixels"}
    raise UsageError(f"{key} must be {wanted.get(key, 'a whole number of pixels')}, not '{one_line(text, 60)}'")


def _labels(text: str) -> tuple[str, ...]:
    path = Path(text)
    if not is_file(path):
        if "," not in text:
            raise UserError(f"there is no file of labels '{one_line(text)}', nor are these names with commas between")
        return tuple(part.strip() for part in text.split(","))
    if path.stat().st_size > LARGEST_LABELS:
        raise UserError(f"'{path}' is too large for a list of labels")
    try:
        content = path.read_text(encoding="utf-8-sig")
        # empty lines at the end are none; in the middle they are classes without a name
        names = json.loads(content) if content.lstrip().startswith("[") else content.rstrip().split("\n")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"'{path}' holds no labels, one per line or a JSON list: {one_line(error)}") from None
    if not names or names == [""] or not all(isinstance(name, str) for name in names):
        raise UserError(f"'{path}' holds no labels, one per line or a JSON list of texts")
    if not content.lstrip().startswith("[") and _is_table(names):
        raise UserError(f"'{path}': is this a CSV? a labels file holds one name per line, or is a JSON list")
    return tuple(name.strip() for name in names)


def _is_table(lines: list[str]) -> bool:
    """Whether the first line is a head of columns, or every line begins with a number and a comma. Names themselves
    have commas: "tench, Tinca tinca"."""
    head = [cell.strip().strip('"').lower() for cell in lines[0].split(",")]
    numbered = len(lines) > 1 and all(re.match(r'\s*"?\d+"?,', line) for line in lines)
    return numbered or (len(head) > 1 and COLUMNS.issuperset(head))


def _answer(path: Path) -> np.ndarray:
    """What the model answers to a picture of noise: float32 [classes]. UserError when its card doesn't fit it."""
    classifier = Classifier(path)
    preprocessing = classifier.card.preprocessing
    shape = (1, *preprocessing.crop, preprocessing.channels)
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, shape, np.uint8)
    row = classifier.logits(noise)[0]
    if not np.isfinite(row.max()):
        raise UserError("the model answers a picture of noise with what is no number: are mean, std and divisor right?")
    return row


def _kind(row: np.ndarray, card: Card, values: dict[str, str], old: Card | None) -> str:
    """As it was said, else as the old card has it of the same output, else found: numbers from 0 to 1 that sum to 1
    are probabilities."""
    told = values.get("kind") or (old.output.kind if old and old.output.name == card.output.name else None)
    off = abs(row.sum(dtype=np.float64) - 1) if row.min() >= 0 else np.inf
    if told == "probabilities" and off > ROUNDED:
        raise UserError(
            f"the output {one_line(card.output.name, 60)} gives from {row.min():.3g} to {row.max():.3g}, which sum to "
            f"{row.sum():.3g}: no probabilities; say --set kind=logits"
        )
    return told or ("probabilities" if off < 1e-3 else "logits")


def _opset(path: Path) -> int:
    return max((entry.version for entry in _model(path).opset_import if entry.domain in ("", "ai.onnx")), default=1)


def _model(path: Path) -> Any:
    import onnx

    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, and whatever a hostile file brings
        raise UserError(f"'{path}' can't be read as an ONNX model: {one_line(error)}") from None


def _write(model: Any, card: Card, path: Path) -> None:
    """The model with that card, and what other metadata it has."""
    kept = [entry for entry in model.metadata_props if entry.key != KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, card.to_json_text()
    path.write_bytes(model.SerializeToString(deterministic=True))


def _external(model: Any) -> bool:
    from onnx.external_data_helper import uses_external_data

    return any(uses_external_data(tensor) for tensor in model.graph.initializer)
