"""What a study applies to each picture: nothing, then every transform at each of its severities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hw4fast.errors import UsageError
from hw4fast.transforms import TRANSFORMS, Chain, at_severity, parse
from hw4fast.transforms.spec import SEVERITIES


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

    def apply(self, picture: np.ndarray, seed: int) -> np.ndarray:
        """uint8 [h, w, c] → the same shape. Chance is drawn from (seed, picture, spec) alone: the spec holds the
        level, so that `classify --transform SPEC` draws the same."""
        return self.chain(picture, seed=seed) if self.chain else picture


CLEAN = Point("clean", 0, None)


def points_of(transforms: Sequence[str] | None) -> tuple[Point, ...]:
    """CLEAN, then five severities of each transform that is named without a level, one point of any other.

    None means every transform. `rotate:fill=black` and `blur+noise` state no level; `blur51` does.
    Raises UsageError for an unknown name, for a repeated one, and for none at all.
    """
    names = list(TRANSFORMS) if transforms is None else [name.strip() for name in transforms]
    if not names:
        raise UsageError(f"no transform to study; name one or more of: {', '.join(TRANSFORMS)}")
    points = [CLEAN]
    for name in names:
        series = _series(name)
        if series[0].series in {point.series for point in points}:
            raise UsageError(f"the transform '{series[0].series}' is asked for twice; once is enough")
        points += series
    return tuple(points)


def _series(name: str) -> list[Point]:
    fixed = parse(name)  # says what is wrong with a name that is none
    try:
        return [Point(name, severity, at_severity(name, severity)) for severity in SEVERITIES]
    except UsageError:  # it states a level itself
        return [Point(fixed.name, None, fixed)]
