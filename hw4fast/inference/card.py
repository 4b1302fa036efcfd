"""The card: what an exported ONNX file says about itself, as JSON in its metadata under the key `hw4fast.card`.

Schema 2, every key always there:

    schema         2
    input          of the graph's inputs the only one:
                     name           of the tensor
                     layout         "NCHW" or "NHWC"
                     dtype          "float32", "float16" or "uint8"; the latter takes the fitted pictures, and the
                                    graph itself divides, subtracts and divides
    output         what is read of the graph's outputs:
                     name           of the tensor
                     kind           "logits", or "probabilities" that sum to 1
    preprocessing  from a picture to that input, in this order:
                     mode           "RGB", "BGR" or "L": which channels the net reads, in which order
                     resize         "shorter-side" to resize_size pixels, or "stretch" to crop
                     resize_size    pixels, null for "stretch"
                     interpolation  "bilinear", "bicubic", "lanczos" or "nearest", as Pillow computes them
                     antialias      true but for "nearest": the filter is stretched when the picture shrinks
                     crop           [height, width] in pixels, from the centre
                     divisor        of the bytes (255: values in 0…1)
                     mean, std      per channel of what was divided: (x / divisor − mean) / std
    labels         the name of each class, in the order of the outputs
    licence        of the weights, "" if nobody said it
    source         where the weights come from, in words
    provenance     how the file was made; of files that `export` wrote:
                     settings       of a run: the arguments of its training, by name
                     data           of a run: name, source and fingerprint of its data set, files left_out of it
                     result         of a run: test_correct of test_images, test_cost in nats, and more of that kind
                     commit         of hw4fast, when the run began
                     sessions       of a run, one or more: begun, machine, versions, threads, isa, wall_seconds
                     architecture   of torchvision's, if it was no run
                     weights        their file, if it was no run
                     weights_sha256  of the file of weights
                     preset         the preprocessing's name, if it was no run
                     exported       UTC time
                     versions       of Python and packages, by name
                     precision      "float32", "float16" or "int8" of weights and arithmetic
                     normalisation  of a uint8 input: where the graph divides, in the first convolution or in a node
                     fused          true where blocks are named that hw4fast's kernels run
                     calibration    of int8: method, how many pictures, their origin
                   and of files that `card` wrote:
                     file           the name that it had before it had a card
                     edited         the keys among preprocessing, input, output and labels that were changed afterwards
    parity         how far its answers are from torch's and from float64's; empty where that was not measured, and when
                   something was edited afterwards:
                     precision      as above
                     images         how many pictures it was measured on
                     batches        how many of them at a time
                     provider       of onnxruntime's
                     kernels        of a fused file: how many blocks hw4fast's kernels ran, by instruction set
                     largest_logit  in float64
                     max_error_to_torch, max_error_to_float64, torch_max_error_to_float64: of the logits
                     tolerance      allowed error against float64, in units of the largest logit
                     same_answers   as torch gives them in float32; all of them in a float32 file
                     near_ties      pictures whose first and second logit in float64 are at most twice the error
                                    apart: only their answers can differ
                     inputs_equal_to_torchvision  of an architecture: photographs whose input, from the file's bytes
                                    on, is that of torchvision's transforms to the last bit
                     inputs_compared_with, preset, preset_because  of an architecture: which transforms, and why
                     float32        of int8: size, max_error_to_float64 and tolerance of the float32 file that it was
                                    made from
                     judged         of int8, by name of a set of labelled pictures that it was not calibrated on:
                                    pictures, same_answers (as in float32), correct_float32, correct_int8, the 95 %
                                    intervals accuracy_float32_95 and accuracy_int8_95 of these shares, largest_logit,
                                    max_error_to_float32
                     speed          of int8: processor, cores, and for batches of 1 and 32 how many times faster than
                                    float32 it was there: median, 95 % interval (low, high) over n rounds, and
                                    float32_ms and int8_ms
    opset          of the standard ONNX operators

Text is Unicode without halves of surrogate pairs, numbers are finite, no key stands twice in an object, nothing is
nested more than 32 deep, and the whole is no longer than 32 million signs.
Schema 1 (before inputs, outputs, licence and source were written down) is read, too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from typing import Any, NoReturn

from hw4fast.data.preprocessing import Preprocessing
from hw4fast.errors import UserError
from hw4fast.paths import one_line

KEY = "hw4fast.card"  # in the model's metadata_props
SCHEMA = 2
LAYOUTS = ("NCHW", "NHWC")
DTYPES = ("float32", "float16", "uint8")
KINDS = ("logits", "probabilities")
OF_PREPROCESSING = {"antialias", *(entry.name for entry in fields(Preprocessing))}
LONGEST, DEEPEST, DIGITS = 32_000_000, 32, 20  # signs of a card; objects and lists in each other; of a whole number


@dataclass(frozen=True)
class Input:
    """Of the graph: its name, the order of its axes and its numbers. ValueError for another layout or dtype."""

    name: str = "input"
    layout: str = "NCHW"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS or self.dtype not in DTYPES or not isinstance(self.name, str):
            raise ValueError(f"input must have a name, a layout of {LAYOUTS} and a dtype of {DTYPES}, not {self}")


@dataclass(frozen=True)
class Output:
    """Of the graph: its name, and what its numbers are. ValueError for another kind."""

    name: str = "logits"
    kind: str = "logits"

    def __post_init__(self) -> None:
        if self.kind not in KINDS or not isinstance(self.name, str):
            raise ValueError(f"output must have a name and a kind of {KINDS}, not {self}")


@dataclass(frozen=True)
class Card:
    """All that a consumer of the model must know; see the head of this file for what each key means.

    Raises UserError for a label that is no text.
    """

    preprocessing: Preprocessing
    labels: tuple[str, ...]
    provenance: dict[str, Any]
    parity: dict[str, Any]
    opset: int
    input: Input = field(default_factory=Input)
    output: Output = field(default_factory=Output)
    licence: str = ""
    source: str = ""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if _broken("".join(self.labels)):
            number, label = next(entry for entry in enumerate(self.labels) if _broken(entry[1]))
            raise UserError(f"the label of class {number} can't be so: {_broken(label)}; write it anew")

    def to_json(self) -> dict[str, Any]:
        """Every key of the schema, with JSON values."""
        value = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        value |= {"input": asdict(self.input), "output": asdict(self.output), "labels": list(self.labels)}
        return value | {"preprocessing": self.preprocessing.to_json()}

    def to_json_text(self) -> str:
        """Compact JSON. Raises ValueError for NaN and infinities, TypeError for what isn't JSON, UserError for text
        that isn't any: half of a surrogate pair."""
        text = json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        if broken := _broken(text):
            raise UserError(f"the card can't be written: {broken}")
        return text

    @classmethod
    def from_json_text(cls, text: str) -> Card:
        """The inverse of `to_json_text`; UserError when `text` isn't a card of a known schema."""
        try:
            return cls(**_checked(_parsed(text)))
        except (ValueError, RecursionError) as error:
            raise UserError(f"the card ({KEY}) can't be read: {one_line(error)}; export the model again") from None


def _parsed(text: str) -> Any:
    """The JSON value; ValueError for what isn't JSON, or could not be written again as it was read."""
    if len(text) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST // 10**6} million signs")
    value = json.loads(
        text, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole, object_pairs_hook=_each_once
    )
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    if "\\u" in text and (broken := _broken(json.dumps(value, ensure_ascii=False))):
        raise ValueError(broken)
    return value


def _checked(value: Any) -> dict[str, Any]:
    """The arguments of Card; ValueError for anything else than a card's JSON."""
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    value = _of_this_schema(value)
    names = {entry.name for entry in fields(Card)}
    if value.keys() != names:
        missing, unknown = sorted(names - value.keys()), sorted(value.keys() - names)
        raise ValueError(f"missing keys {missing}, unknown keys {unknown}")
    labels = value["labels"]
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError("labels is not a list of one or more texts")
    if type(value["opset"]) is not int or value["opset"] < 1:
        raise ValueError("opset is not a positive whole number")
    for key in ("licence", "source"):
        if not isinstance(value[key], str):
            raise ValueError(f"{key} is not a text")
    for key in ("provenance", "parity", "input", "output"):
        if not isinstance(value[key], dict):
            raise ValueError(f"{key} is not an object")
    preprocessing = Preprocessing.from_json(value["preprocessing"])
    parts = {"input": _part(Input, value["input"]), "output": _part(Output, value["output"])}
    return {**value, **parts, "labels": tuple(labels), "preprocessing": preprocessing}


def _of_this_schema(value: dict[str, Any]) -> dict[str, Any]:
    """A card of schema 1 as one of schema 2; UserError for any other, ValueError for one of schema 2 that leaves how
    pictures are read to be guessed."""
    found = value.get("schema", "none")
    if type(found) is not int or found not in (1, SCHEMA):
        raise UserError(
            f"the card ({KEY}) has schema {one_line(found, 40)}, but this hw4fast reads schema 1 and {SCHEMA}; "
            "upgrade hw4fast or export the model again"
        )
    if found == SCHEMA:
        preprocessing = value.get("preprocessing")
        missing = sorted(OF_PREPROCESSING - preprocessing.keys()) if isinstance(preprocessing, dict) else []
        if missing:
            raise ValueError(f"preprocessing has no {', '.join(missing)}")
        return value
    added = {"input": asdict(Input()), "output": asdict(Output()), "licence": "", "source": ""}
    return {**added, **value, "schema": SCHEMA}


def _part(kind: Any, value: dict[str, Any]) -> Any:
    names = [entry.name for entry in fields(kind)]
    if value.keys() != set(names):
        raise ValueError(f"{kind.__name__.lower()} has other keys than {names}")
    return kind(**value)


def _broken(text: str) -> str | None:
    """Where there is half of a surrogate pair in it: JSON and names of files may hold one, UTF-8 can't."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - 20) : error.end + 10]
        return f"there is half of a surrogate pair, which is no text, at {around!a}"
    return None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{one_line(text, 40)} is too large for a number")
    return number


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > DIGITS:
        raise ValueError(f"a whole number of more than {DIGITS} digits")
    return int(text)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, entry in pairs:
        if key in value:
            raise ValueError(f"the key '{one_line(key, 60)}' stands twice in it")
        value[key] = entry
    return value
