"""What a study applies to each picture: nothing, then every transform at each of its severities."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hw4fast.errors import UsageError
from hw4fast.transforms import TRANSFORMS, Chain, at_severity, parse
from hw4fast.transforms.spec import ALIASES, SEVERITIES


@dataclass(frozen=True)
class Point:
    """One way to change a picture.

    series: the transform's name, or the whole specification where it states its strength itself;
    severity: 0 for clean, 1…5, or None where the strength is fixed; chain: None for clean.
    """

    series: str
    severity: int | None
    chain: Chain | None

    @property
    def label(self) -> str:
        """The severity in a word: `clean`, `1` … `5`, `as given`."""
        if self.chain is None:
            return "clean"
        return "as given" if self.severity is None else str(self.severity)

    @property
    def level(self) -> tuple[str, str] | None:
        """The parameter that the severity sets and its value, `("degrees", "30")`; None where it isn't one."""
        if self.chain is None or self.severity is None or len(self.chain.links) > 1:
            return None
        link = self.chain.links[0]
        if link.transform.level not in link.parameters:
            return None
        return link.transform.level, f"{link.parameters[link.transform.level]:g}"

    @property
    def heading(self) -> str:
        """`clean`, `3 · degrees 20`, or what the user wrote."""
        if self.severity is None:
            return self.spec
        return " · ".join([self.label, *([" ".join(self.level)] if self.level else [])])

    @property
    def summary(self) -> str:
        """What the transforms of the chain say of themselves."""
        return " Then: ".join(link.transform.summary for link in self.chain.links) if self.chain else ""

    @property
    def spec(self) -> str:
        """The change as `classify --transform` takes it; empty for clean."""
        return self.chain.name if self.chain else ""

    @cached_property
    def key(self) -> str:
        """What an answer is stored under: the spec, and of a transform of the user's own a hash of its code, too."""
        if self.chain is None:
            return "clean"
        marks = [link.transform.fingerprint for link in self.chain.links if link.transform.fingerprint]
        return " ".join([self.spec, *marks])

    @property
    def reads(self) -> bool:
        """Whether the picture as it was decoded decides what the model is shown, beside the fitted one."""
        return self.chain is not None and self.chain.links[0].transform.reads

    @property
    def kind(self) -> str:
        """What it does, under whichever name: the one transform, that which it is the `same_as`, or the series."""
        if self.chain is None or len(self.chain.links) > 1:
            return self.series
        transform = self.chain.links[0].transform
        return transform.same_as or transform.name

    def apply(self, picture: np.ndarray, seed: int, key: bytes | None = None, **read: Any) -> np.ndarray:
        """uint8 [h, w, c] → the same shape. Chance is drawn from (seed, picture, spec) alone: the spec holds the
        level, so that `classify --transform SPEC` draws the same. key: the picture's `picture_key`, if it is known;
        read: `decoded` and `preprocessing`, see Chain."""
        return self.chain(picture, seed=seed, key=key, **read) if self.chain else picture


CLEAN = Point("clean", 0, None)


def points_of(transforms: Sequence[str] | None) -> tuple[Point, ...]:
    """CLEAN, then five severities of each transform that is named without a level, one point of any other.

    None means every transform. `rotate:fill=black` and `blur+noise` state no level; `blur51` does.
    Raises UsageError for an unknown name, for a repeated one, and for none at all.
    """
    names = list(TRANSFORMS) if transforms is None else [_known_as(name) for name in transforms]
    if not names:
        raise UsageError(f"no transform to study; name one or more of: {', '.join(TRANSFORMS)}")
    points, asked = [CLEAN], dict[tuple[str, ...], str]()
    for name in names:
        series = _series(name)
        first = asked.setdefault(tuple(point.key for point in series), name)  # however it is written
        if first is not name or series[0].series in {point.series for point in points}:
            same = "" if first == name else f" ('{first}' is the same)"
            raise UsageError(f"the transform '{name}' is asked for twice{same}; once is enough")
        points += series
    return tuple(points)


def doubles(points: Sequence[Point]) -> list[Point]:
    """Those that means over all points leave out, or a transform would count more than others: such as `blur51` beside
    `blur`, which is studied over its severities; and `blur` beside `gaussian_blur`, which is the same on another
    scale."""
    graded: dict[str, str] = {}  # kind → the name of the transform that counts
    alone = [(point, point.chain.links) for point in points if point.chain and len(point.chain.links) == 1]
    single = [(point, links[0].transform.name) for point, links in alone]
    for point, name in single:
        if point.severity and (point.kind not in graded or name == point.kind):
            graded[point.kind] = name
    return [p for p, name in single if p.kind in graded and (p.severity is None or name != graded[p.kind])]


def counted(points: Sequence[Point]) -> list[int]:
    """The places of the points that means over all transforms count: all but clean and `doubles`."""
    left_out = doubles(points)
    return [at for at, point in enumerate(points) if point.chain is not None and point not in left_out]


def _known_as(name: str) -> str:
    """The name with each transform's own instead of an alias: `noise+blur` is `gaussian_noise+blur`."""
    parts = [re.fullmatch(r"([A-Za-z_]*)(.*)", part.strip(), re.DOTALL) for part in name.split("+")]
    return "+".join(ALIASES.get(part[1], part[1]) + part[2] for part in parts if part)


def _series(name: str) -> list[Point]:
    fixed = parse(name)  # says what is wrong with a name that is none
    try:
        return [Point(name, severity, at_severity(name, severity)) for severity in SEVERITIES]
    except UsageError:  # it states a level itself
        return [Point(fixed.name, None, fixed)]
