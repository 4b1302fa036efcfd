"""What a transform is, how it is named, and how names become something that can be called.

A spec is `NAME[LEVEL][:key=value,…]`, chained with `+`: `blur51:sigma=2`, `noise:std=0.1+rotate-30`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from hw4fast.errors import UsageError
from hw4fast.registry import Registry
from hw4fast.transforms.randomness import generator, picture_key

SEVERITIES = (1, 2, 3, 4, 5)
UNSTATED = 3  # the severity whose level a name without a level stands for
NUMBER = r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]-?[0-9]+)?"


@dataclass(frozen=True)
class Parameter:
    """One number, or one of a few words, that a transform reads; `low` and `high` are inclusive.

    default: the value when it isn't given (None: the transform derives it from the others).
    """

    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    odd: bool = False
    choices: tuple[str, ...] = ()
    default: float | str | None = None

    def read(self, text: str) -> float | str:
        """The value in `text`; ValueError with what would be right."""
        if self.choices:
            if text not in self.choices:
                raise ValueError(f"must be one of {', '.join(self.choices)}")
            return text
        if not re.fullmatch(NUMBER, text):
            raise ValueError("must be a number")
        value = float(text) + 0.0  # no −0
        if not self.low <= value <= self.high:
            raise ValueError(f"must lie in {_shown(self.low)} … {_shown(self.high)}")
        if (self.whole or self.odd) and not value.is_integer():
            raise ValueError(f"must be {'an odd' if self.odd else 'a whole'} number")
        if self.odd and value % 2 != 1:
            raise ValueError("must be odd")
        return int(value) if self.whole or self.odd else value


@dataclass(frozen=True)
class Transform:
    """A named way to change a picture.

    apply: f(picture, *, rng, **parameters) → picture; uint8 [h, w, 1 or 3] in, the same shape out, the input
        left as it was; all randomness comes from `rng`.
    level: the parameter that the LEVEL in `NAME[LEVEL]` sets.
    severities: the level at severity 1…5, from weak to strong.
    summary: one sentence.
    suffix: whether the canonical name writes the level as `NAME51` rather than as `NAME:key=51`.
    """

    name: str
    apply: Callable[..., np.ndarray]
    parameters: Mapping[str, Parameter] = field(hash=False)
    level: str
    severities: tuple[float, ...]
    summary: str
    suffix: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z_]+", self.name):
            raise ValueError(f"a transform's name is lower-case letters and underscores, not {self.name!r}")
        if len(self.severities) != len(SEVERITIES):
            raise ValueError(f"{self.name}: {len(SEVERITIES)} severities are needed")
        for value in self.severities:
            self.parameters[self.level].read(_shown(value))


@dataclass(frozen=True)
class Link:
    """One transform with every parameter settled; `name` is its canonical spec."""

    name: str
    transform: Transform
    parameters: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Chain:
    """Transforms applied one after the other."""

    links: tuple[Link, ...]

    @cached_property
    def name(self) -> str:
        """The canonical spec: two spellings of one thing have the same name."""
        return "+".join(link.name for link in self.links)

    def __call__(
        self, picture: np.ndarray, *, seed: int = 0, key: bytes | None = None, severity: int = 0
    ) -> np.ndarray:
        """A new uint8 picture of the same shape, [h, w, 1 or 3].

        key: what tells this image from others in the randomness; the hash of its pixels if None.
        The same (picture, seed, key, severity) gives the same bytes in any order, thread or process.
        Raises ValueError when `picture` isn't uint8 [h, w, 1 or 3] with at least one pixel.
        """
        shape = picture.shape
        if picture.dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape:
            raise ValueError(f"a picture is uint8 [h, w, 1 or 3], not {picture.dtype} {list(shape)}")
        key = picture_key(picture) if key is None else key
        result = picture
        for position, link in enumerate(self.links):
            rng = generator(seed, key, link.name, severity, position)
            result = link.transform.apply(result, rng=rng, **link.parameters)
            if result.dtype != np.uint8 or result.shape != shape:
                raise TypeError(f"{link.name} made {result.dtype} {result.shape} of uint8 {shape}")
        return result


TRANSFORMS: Registry[Transform] = Registry("transform")


def register(transform: Transform) -> Transform:
    """Enters a transform under its own name."""
    return TRANSFORMS.add(transform.name, transform)


def parse(spec: str) -> Chain:
    """The chain that `spec` names; a name without a level means its level at severity 3.

    Raises UsageError that names the nearest known when a name, parameter or value isn't known or right.
    """
    return Chain(tuple(_link(part.strip(), spec, None) for part in spec.split("+")))


def at_severity(name: str, severity: int) -> Chain:
    """The chain of that spec, in which no level is given, at severity 1…5 (`noise`, `rotate:fill=black`).

    Raises UsageError as `parse` does, for another severity, and when the spec gives a level itself.
    """
    if severity not in SEVERITIES:
        raise UsageError(f"severity must be 1 … 5, not {severity}")
    return Chain(tuple(_link(part.strip(), name, severity) for part in name.split("+")))


def _link(text: str, spec: str, severity: int | None) -> Link:
    """One `NAME[LEVEL][:key=value,…]`; with a severity that sets the level, else a level that isn't given is
    that of severity UNSTATED."""
    head, colon, tail = text.partition(":")
    match = re.fullmatch(rf"([A-Za-z_]+)({NUMBER})?", head.strip())
    if not match:
        hint = "expected NAME[LEVEL][:key=value,…], chained with +, like blur51 or noise:std=0.1"
        raise UsageError(f"transform '{spec}': can't read '{text}'; {hint}; known: {', '.join(TRANSFORMS)}")
    transform = TRANSFORMS.get(match[1])
    texts = [(transform.level, match[2])] if match[2] is not None else []
    texts += [_pair(pair, text) for pair in tail.split(",")] if colon else []
    given: dict[str, float | str] = {}
    for key, value in texts:
        if key in given:
            raise UsageError(f"transform '{text}': {key} is given twice")
        given[key] = _value(transform, key, value, text)
    if severity is not None and transform.level in given:
        raise UsageError(f"transform '{text}': {transform.level} is set by the severity; leave it out")
    level = transform.parameters[transform.level]
    unstated = level.read(_shown(transform.severities[(severity or UNSTATED) - 1]))
    given.setdefault(transform.level, unstated)
    settled = {key: given.get(key, parameter.default) for key, parameter in transform.parameters.items()}
    return Link(_canonical(transform, settled), transform, settled)


def _pair(text: str, whole: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise UsageError(f"transform '{whole}': expected key=value after ':', not '{text}'")
    return key.strip(), value.strip()


def _value(transform: Transform, key: str, text: str, whole: str) -> float | str:
    known = ", ".join(transform.parameters)
    if key not in transform.parameters:
        near = difflib.get_close_matches(key, transform.parameters, n=1)
        hint = f"did you mean {near[0]}?" if near else f"{transform.name} knows {known}"
        raise UsageError(f"transform '{whole}': unknown parameter '{key}'; {hint}")
    try:
        return transform.parameters[key].read(text)
    except ValueError as error:
        raise UsageError(f"transform '{whole}': {key} {error}, not '{text}'") from None


def _canonical(transform: Transform, settled: Mapping[str, Any]) -> str:
    """The level first, then what differs from its default, in the order of declaration."""
    head = f"{transform.name}{_shown(settled[transform.level])}" if transform.suffix else transform.name
    pairs = [
        f"{key}={_shown(settled[key])}"
        for key, parameter in transform.parameters.items()
        if (key != transform.level and settled[key] != parameter.default)
        or (key == transform.level and not transform.suffix)
    ]
    return f"{head}:{','.join(pairs)}" if pairs else head


def _shown(value: float | str) -> str:
    """51.0 → 51, 0.1 → 0.1: the shortest text that `Parameter.read` turns back into the value."""
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else repr(float(value))
