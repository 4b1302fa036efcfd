"""How names become something that can be called.

A spec is `NAME[LEVEL][:key=value,…]`, chained with `+`: `blur51:sigma=2`, `snow3+jpeg30`, `gaussian_noise:severity=2`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from hw4fast.data.preprocessing import Preprocessing
from hw4fast.errors import UsageError
from hw4fast.transforms.randomness import generator, picture_key
from hw4fast.transforms.spec import (
    ALIASES,
    ANY_SEVERITY,
    NUMBER,
    SEVERITIES,
    SEVERITY,
    TRANSFORMS,
    WHOLE_SEVERITY,
    Settings,
    Transform,
    check_picture,
    check_result,
    shown,
)


@dataclass(frozen=True)
class Link:
    """One transform with every parameter settled; `name` is its canonical spec.

    draw: the whole severity that set the parameters, which is a part of what its chance is drawn from; 0 otherwise.
    """

    name: str
    transform: Transform
    parameters: Mapping[str, Any] = field(hash=False)
    draw: int = 0


@dataclass(frozen=True)
class Chain:
    """Transforms applied one after the other."""

    links: tuple[Link, ...]

    @cached_property
    def name(self) -> str:
        """The canonical spec: two spellings of one thing have the same name."""
        return "+".join(link.name for link in self.links)

    def __call__(
        self,
        picture: np.ndarray,
        *,
        seed: int = 0,
        key: bytes | None = None,
        decoded: np.ndarray | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> np.ndarray:
        """A new uint8 picture of the same shape, [h, w, 1 or 3].

        key: what tells this image from others in the randomness; the hash of its pixels if None. decoded: the picture
        before it was brought to its size, and how that was done: needed where the first link `reads`.
        The same (picture, seed, key) gives the same bytes in any order, thread or process.
        Raises ValueError when `picture` isn't uint8 [h, w, 1 or 3] with at least one pixel, UsageError when the picture
        as it was decoded is needed and missing.
        """
        check_picture(picture)
        key = picture_key(picture) if key is None else key
        result = picture
        for position, link in enumerate(self.links):
            given = dict(link.parameters)
            if link.transform.random:
                given["rng"] = generator(seed, key, link.transform.name, link.draw, position)
            if link.transform.reads:
                if decoded is None or preprocessing is None:
                    raise UsageError(f"{link.name} is about how a picture is read: it needs one as it was decoded")
                check_picture(decoded)
                made = link.transform.apply(decoded, preprocessing=preprocessing, **given)
            else:
                made = link.transform.apply(result, **given)
            result = check_result(link.name, picture, made)
        return result


def parse(spec: str) -> Chain:
    """The chain that `spec` names; a name without a level means severity 3.

    Raises UsageError that names the nearest known when a name, parameter or value isn't known or right.
    """
    return _chain(tuple(_link(part.strip(), spec, None) for part in spec.split("+")))


def _chain(links: tuple[Link, ...]) -> Chain:
    """UsageError where a transform that reads the picture comes after another: it would undo it."""
    late = [link.transform.name for link in links[1:] if link.transform.reads]
    if late:
        raise UsageError(f"{late[0]} is about how a picture is read: it can only stand first in a chain")
    return Chain(links)


def at_severity(name: str, severity: float) -> Chain:
    """The chain of that spec, in which no level is given, at severity 1…5 (`gaussian_noise`, `rotate:fill=black`).

    Fixed transforms stay what they are. Raises UsageError as `parse` does, for another severity, when the spec gives a
    level itself, and when nothing in it has severities.
    """
    if severity not in SEVERITIES:
        raise UsageError(f"severity must be 1 … 5, not {severity}")
    links = tuple(_link(part.strip(), name, severity) for part in name.split("+"))
    if all(link.transform.fixed for link in links):
        raise UsageError(f"transform '{name}' has no severities: it can only be used as it is")
    return _chain(links)


def at_level(transform: Transform, value: float, given: Settings = {}) -> Chain:  # noqa: B006 (never written)
    """One transform at the permitted level next to `value`; `given`: other parameters. Its chance does not depend on
    the level: what is drawn grows with it, and isn't drawn anew. Only where the level is the severity, at whole ones,
    it is drawn from as `parse` does. Raises ValueError for a transform without levels or between whole severities."""
    if transform.fixed or transform.strength.choices:
        raise ValueError(f"{transform.name} has no levels")
    settled, severity = transform.settle({**given, transform.level: transform.strength.nearest(float(value))})
    return Chain((_settled_link(transform, settled, severity),))


def _link(text: str, spec: str, severity: float | None) -> Link:
    """One `NAME[LEVEL][:key=value,…]`; with a severity that sets the level."""
    head, colon, tail = text.partition(":")
    match = re.fullmatch(rf"([A-Za-z_]+)({NUMBER})?", head.strip())
    if not match:
        hint = "expected NAME[LEVEL][:key=value,…], chained with +, like blur51 or gaussian_noise:std=0.1"
        raise UsageError(f"transform '{spec}': can't read '{text}'; {hint}; known: {', '.join(TRANSFORMS)}")
    transform = TRANSFORMS.get(ALIASES.get(match[1], match[1]))
    texts = [(transform.level, match[2])] if match[2] is not None else []
    texts += [_pair(pair, text) for pair in tail.split(",")] if colon else []
    given: dict[str, float | str] = {}
    for key, value in texts:
        if key in given:
            raise UsageError(f"transform '{text}': {key} is given twice")
        given[key] = _value(transform, key, value, text)
    if transform.fixed:
        severity = None
        if SEVERITY in given:
            raise UsageError(f"transform '{text}': {transform.name} has no severities; leave it out")
    if severity is not None:
        for key in (transform.level, SEVERITY):
            if key in given:
                raise UsageError(f"transform '{text}': {key} is set by the severity; leave it out")
        given[SEVERITY] = severity
    elif transform.level in given and SEVERITY in given and transform.level != SEVERITY:
        raise UsageError(f"transform '{text}': both {transform.level} and {SEVERITY} say how strong; name one")
    settled, strength = transform.settle(given)
    return _settled_link(transform, settled, strength)


def _settled_link(transform: Transform, settled: Mapping[str, Any], severity: float | None) -> Link:
    draw = int(severity) if transform.random and severity is not None and severity.is_integer() else 0
    return Link(_canonical(transform, settled, severity), transform, settled, draw)


def _pair(text: str, whole: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise UsageError(f"transform '{whole}': expected key=value after ':', not '{text}'")
    return key.strip(), value.strip()


def _value(transform: Transform, key: str, text: str, whole: str) -> float | str:
    parameters = dict(transform.parameters)
    if key == SEVERITY:
        parameters[SEVERITY] = WHOLE_SEVERITY if transform.origin is None else ANY_SEVERITY
    if key not in parameters:
        known = [*transform.parameters, SEVERITY]
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"{transform.name} knows {', '.join(known)}"
        raise UsageError(f"transform '{whole}': unknown parameter '{key}'; {hint}")
    try:
        return parameters[key].read(text)
    except ValueError as error:
        raise UsageError(f"transform '{whole}': {key} {error}, not '{text}'") from None


def _canonical(transform: Transform, settled: Mapping[str, Any], severity: float | None) -> str:
    """How strong first, then what differs from what that sets, in the order of declaration. A random transform that
    has its parameters from a severity is named by it: its draws belong to it."""
    by_severity = severity is not None and (transform.random or transform.level == SEVERITY)
    defaults = {key: parameter.default for key, parameter in transform.parameters.items()}
    pairs = []
    if by_severity:
        assert severity is not None
        usual = defaults | transform.row(severity)
        head = f"{transform.name}{shown(severity)}" if transform.level == SEVERITY else transform.name
        pairs += [f"{SEVERITY}={shown(severity)}"] if transform.level != SEVERITY else []
    else:
        usual = defaults | {transform.level: settled[transform.level]}
        head = f"{transform.name}{shown(settled[transform.level])}" if transform.suffix else transform.name
        pairs += [] if transform.suffix else [f"{transform.level}={shown(settled[transform.level])}"]
    pairs += [f"{key}={shown(value)}" for key, value in settled.items() if value != usual[key] and value is not None]
    return f"{head}:{','.join(pairs)}" if pairs else head
