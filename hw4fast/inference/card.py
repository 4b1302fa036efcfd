"""The card: what an exported ONNX file says about itself, as JSON in its metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from hw4fast.data.preprocessing import Preprocessing
from hw4fast.errors import UserError
from hw4fast.paths import one_line

KEY = "hw4fast.card"  # in the model's metadata_props
SCHEMA = 1


@dataclass(frozen=True)
class Card:
    """All that a consumer of the model must know.

    preprocessing: from a picture to the model's input.
    labels: the name of each class, in the order of the logits.
    provenance: where the model comes from (data set, arguments, versions, accuracy), JSON values.
    parity: how far the file's answers are from torch's and from float64's, JSON values.
    opset: of the standard ONNX operators. schema: of this card.
    """

    preprocessing: Preprocessing
    labels: tuple[str, ...]
    provenance: dict[str, Any]
    parity: dict[str, Any]
    opset: int
    schema: int = SCHEMA

    def to_json_text(self) -> str:
        """Compact JSON. Raises ValueError for NaN and infinities, TypeError for what isn't JSON."""
        value = {field.name: getattr(self, field.name) for field in fields(self)}
        value["preprocessing"] = self.preprocessing.to_json()
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

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
    if value.get("schema") != SCHEMA or isinstance(value["schema"], bool):
        found = value.get("schema", "none")
        raise UserError(
            f"the card ({KEY}) has schema {one_line(found, 40)}, but this hw4fast reads schema {SCHEMA}; "
            "upgrade hw4fast or export the model again"
        )
    names = {field.name for field in fields(Card)}
    if value.keys() != names:
        missing, unknown = sorted(names - value.keys()), sorted(value.keys() - names)
        raise ValueError(f"missing keys {missing}, unknown keys {unknown}")
    labels = value["labels"]
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError("labels is not a list of one or more texts")
    if not isinstance(value["opset"], int) or value["opset"] < 1:
        raise ValueError("opset is not a positive whole number")
    for key in ("provenance", "parity"):
        if not isinstance(value[key], dict):
            raise ValueError(f"{key} is not an object")
    return {**value, "labels": tuple(labels), "preprocessing": Preprocessing.from_json(value["preprocessing"])}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
