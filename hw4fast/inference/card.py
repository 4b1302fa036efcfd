"""The card: what an exported ONNX file says about itself, as JSON in its metadata under the key `hw4fast.card`.

Schema 2, every key always there:

    schema         2
    input          name, layout ("NCHW" or "NHWC"), dtype ("float32", "float16" or "uint8") of the graph's only input;
                   a uint8 input takes the fitted pictures, and the graph itself divides, subtracts and divides
    output         name, kind ("logits", or "probabilities" that sum to 1) of what is read of its outputs
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
    provenance     how the file was made: arguments, versions, data set, accuracy; of files that `export` wrote:
                     precision      "float32", "float16" or "int8" of weights and arithmetic
                     normalisation  of a uint8 input: where the graph divides, in the first convolution or in a node
                     fused          true where blocks are named that hw4fast's kernels run
                     calibration    of int8: method, how many pictures, where they are from
    parity         how far its answers are from torch's and from float64's, on `images` pictures in `batches`:
                     precision, largest_logit, max_error_to_torch, max_error_to_float64, torch_max_error_to_float64,
                     tolerance      allowed error against float64, in units of the largest logit
                     same_answers   as torch gives them in float32; all of them in a float32 file
                     near_ties      pictures whose first and second logit in float64 are at most twice the error
                                    apart: only their answers can differ
                     float32        of int8: size and error of the float32 file that it was made from
                     judged         of int8, by name of a set of labelled pictures that it was not calibrated on:
                                    pictures, same_answers (as in float32), correct_float32, correct_int8, the 95 %
                                    intervals of these shares, largest_logit, max_error_to_float32
                     speed          of int8: processor, cores, and for batches of 1 and 32 how many times faster than
                                    float32 it was there: median, 95 % interval (low, high) over n rounds, both in ms
    opset          of the standard ONNX operators

Schema 1 (before inputs, outputs, licence and source were written down) is read, too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NoReturn

from hw4fast.data.preprocessing import Preprocessing
from hw4fast.errors import UserError
from hw4fast.paths import one_line

KEY = "hw4fast.card"  # in the model's metadata_props
SCHEMA = 2
LAYOUTS = ("NCHW", "NHWC")
DTYPES = ("float32", "float16", "uint8")
KINDS = ("logits", "probabilities")


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
    """All that a consumer of the model must know; see the head of this file for what each key means."""

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

    def to_json(self) -> dict[str, Any]:
        """Every key of the schema, with JSON values."""
        value = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        value |= {"input": asdict(self.input), "output": asdict(self.output), "labels": list(self.labels)}
        return value | {"preprocessing": self.preprocessing.to_json()}

    def to_json_text(self) -> str:
        """Compact JSON. Raises ValueError for NaN and infinities, TypeError for what isn't JSON."""
        return json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json_text(cls, text: str) -> Card:
        """The inverse of `to_json_text`; UserError when `text` isn't a card of a known schema."""
        try:
            return cls(**_checked(json.loads(text, parse_constant=_no_constant)))
        except (ValueError, RecursionError) as error:
            raise UserError(f"the card ({KEY}) can't be read: {one_line(error)}; export the model again") from None


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
    if not isinstance(value["opset"], int) or value["opset"] < 1:
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
    """A card of schema 1 as one of schema 2; UserError for any other."""
    found = value.get("schema", "none")
    if isinstance(found, bool) or found not in (1, SCHEMA):
        raise UserError(
            f"the card ({KEY}) has schema {one_line(found, 40)}, but this hw4fast reads schema 1 and {SCHEMA}; "
            "upgrade hw4fast or export the model again"
        )
    if found == SCHEMA:
        return value
    added = {"input": asdict(Input()), "output": asdict(Output()), "licence": "", "source": ""}
    return {**added, **value, "schema": SCHEMA}


def _part(kind: Any, value: dict[str, Any]) -> Any:
    try:
        return kind(**value)
    except TypeError:
        raise ValueError(f"{kind.__name__.lower()} has other keys than {[f.name for f in fields(kind)]}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
