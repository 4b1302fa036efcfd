"""`card`: shows what a model says about itself, and lets a foreign ONNX file say it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast.data.preprocessing import PRESETS, Preprocessing, preset
from hw4fast.errors import UsageError, UserError
from hw4fast.files import writing
from hw4fast.inference.card import DTYPES, KEY, KINDS, Card, Input, Output
from hw4fast.inference.classifier import TYPES, Classifier
from hw4fast.inference.session import open_session, said
from hw4fast.paths import is_file, one_line, readable_file

TEXTS = ("licence", "source")
OF_PREPROCESSING = ("mode", "resize", "resize_size", "interpolation", "crop", "divisor", "mean", "std")
SETTABLE = ("labels", "output", "kind", *TEXTS, *OF_PREPROCESSING)
LARGEST_LABELS = 64 * 2**20  # bytes


def describe(
    path: str | Path,
    values: Mapping[str, str] | None = None,
    preprocess: str | None = None,
    out: str | Path | None = None,
) -> Card:
    """The card of a model; with `values` or `preprocess` a file gets one, or another one, and is written anew.

    path: an .onnx file, or what Classifier takes when nothing is to be written. values: keys of SETTABLE with
    texts: labels a file (UTF-8) with a name per line or a JSON list, or names with commas between them; output the name
    of the graph's output, if it has several; kind "logits" or "probabilities" (found by a trial otherwise); licence
    and source in words; the others the card's preprocessing, lists with commas between them. preprocess: a preset that
    they change. out: the file to write; `path` itself if None.
    Raises UsageError for an unknown key, UserError for a file that is no such model, and when the card doesn't fit it:
    then nothing is written.
    """
    if not values and preprocess is None:
        if out is not None:
            raise UsageError("there is nothing to write: say what with --set or --preprocess")
        return Classifier(path).card
    unknown = [key for key in values or {} if key not in SETTABLE]
    if unknown:
        raise UsageError(f"unknown key '{one_line(unknown[0])}'; known: {', '.join(SETTABLE)}")
    file = readable_file(path, "model")
    card = _card(file, dict(values or {}), preprocess)
    target = Path(out) if out else file
    model = _without_card(file)
    if target.resolve().parent != file.resolve().parent and _external(model):
        raise UserError(f"'{file}' keeps its weights in other files beside it; write the card into the same folder")
    with writing(target) as temporary:
        entry = model.metadata_props.add()
        entry.key, entry.value = KEY, card.to_json_text()
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        try:
            Classifier(temporary)
        except UserError as error:
            raise UserError(str(error).replace(str(temporary), str(target))) from None
    return card


def _card(path: Path, values: dict[str, str], preprocess: str | None) -> Card:
    """The old card, if there is one, with what is new."""
    session = open_session(path)
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    old = None if text is None else Card.from_json_text(text)
    taken, given = (
        _one(session.get_inputs(), "input", None),
        _one(session.get_outputs(), "output", values.get("output")),
    )
    dtype = next((name for name in DTYPES if TYPES[name] == taken.type), None)
    if dtype is None or len(taken.shape) != 4:
        raise UserError(f"'{path}' takes {taken.type} {taken.shape}; a card is for four axes of {' or '.join(DTYPES)}")
    layout = "NHWC" if taken.shape[3] in (1, 3) and taken.shape[1] not in (1, 3) else "NCHW"
    sides = taken.shape[1:3] if layout == "NHWC" else taken.shape[2:]
    if preprocess is None and old is None:
        raise UserError(f"'{path}' has no card yet; say how pictures are read: --preprocess {' or '.join(PRESETS)}")
    base = old.preprocessing if preprocess is None and old else preset(preprocess or "imagenet")
    if "labels" not in values and old is None:
        raise UserError(f"'{path}' has no card yet; say what its classes are called: --set labels=FILE")
    made = Card(
        _preprocessing(base, values, sides),
        _labels(values["labels"]) if "labels" in values or old is None else old.labels,
        old.provenance if old else {"file": path.name},
        old.parity if old else {},
        old.opset if old else _opset(path),
        Input(taken.name, layout, dtype),
        Output(given.name, "logits"),
        values.get("licence", old.licence if old else ""),
        values.get("source", old.source if old else ""),
    )
    kind = values.get("kind", old.output.kind if old else None) or _kind(session, made)
    if kind not in KINDS:
        raise UsageError(f"kind must be one of {', '.join(KINDS)}, not '{one_line(kind)}'")
    return replace(made, output=Output(given.name, kind))


def _one(entries: list[Any], what: str, name: str | None) -> Any:
    chosen = [entry for entry in entries if name in (None, entry.name)]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(one_line(entry.name, 60) for entry in entries)
    if what == "input":
        raise UserError(f"a card is for models with one input; this one has {len(entries)}: {names}")
    raise UserError(f"the model's outputs are {names}; name one of them with --set output=NAME")


def _preprocessing(base: Preprocessing, values: dict[str, str], sides: list[Any]) -> Preprocessing:
    """`base` with what `values` say; a graph that states its size has the last word on the crop, unless told."""
    changed: dict[str, Any] = {}
    try:
        for key in set(OF_PREPROCESSING) & values.keys():
            text = values[key]
            if key in ("mode", "resize", "interpolation"):
                changed[key] = text
            elif key in ("mean", "std"):
                changed[key] = tuple(float(part) for part in text.split(","))
            elif key == "crop":
                parts = [int(part) for part in text.split(",")]
                changed[key] = (parts[0], parts[-1])
            elif key == "resize_size":
                changed[key] = None if text in ("", "none") else int(text)
            else:
                changed[key] = float(text)
        if "crop" not in changed and all(isinstance(side, int) for side in sides):
            changed["crop"] = tuple(sides)
        return replace(base, **changed)
    except ValueError as error:
        raise UsageError(f"the preprocessing can't be so: {error}") from None


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
    return tuple(name.strip() for name in names)


@np.errstate(over="ignore")  # of float16
def _kind(session: Any, card: Card) -> str:
    """Runs the graph once on grey noise: numbers from 0 to 1 that sum to 1 are probabilities."""
    preprocessing = card.preprocessing
    shape = (1, *preprocessing.crop, preprocessing.channels)
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, shape, np.uint8)
    tensor = noise if card.input.dtype == "uint8" else preprocessing.normalise(noise).astype(card.input.dtype)
    if (card.input.layout == "NHWC") != (card.input.dtype == "uint8"):
        tensor = tensor.transpose(0, 2, 3, 1) if card.input.layout == "NHWC" else tensor.transpose(0, 3, 1, 2)
    count = session.get_inputs()[0].shape[0]
    tensor = np.repeat(np.ascontiguousarray(tensor), count if isinstance(count, int) else 1, axis=0)
    try:
        (row, *_) = session.run([card.output.name], {card.input.name: tensor})[0].astype(np.float64)
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise UserError(f"the model fails on a picture of {list(tensor.shape)}: {said(error)}") from None
    sums_to_one = row.min() >= 0 and abs(row.sum() - 1) < 1e-3
    return "probabilities" if sums_to_one else "logits"


def _opset(path: Path) -> int:
    return max((entry.version for entry in _model(path).opset_import if entry.domain in ("", "ai.onnx")), default=1)


def _model(path: Path) -> Any:
    import onnx

    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, and whatever a hostile file brings
        raise UserError(f"'{path}' can't be read as an ONNX model: {one_line(error)}") from None


def _without_card(path: Path) -> Any:
    model = _model(path)
    kept = [entry for entry in model.metadata_props if entry.key != KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return model


def _external(model: Any) -> bool:
    from onnx.external_data_helper import uses_external_data

    return any(uses_external_data(tensor) for tensor in model.graph.initializer)
