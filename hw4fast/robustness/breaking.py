"""How strong a transform must be to change the answer to a picture: its breaking point.

A transform with a sweep is tried at GRID places of it, evenly apart (in the logarithm, where the sweep says so).
Between the first place where the answer differs from the clean one and the place before it, ROUNDS bisections follow.
The answer need not stay changed beyond that point: how often it changes there and back on the grid is told, too. Chance
is drawn once per picture and transform, and grows with the level: it is not drawn anew.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hw4fast.robustness.points import Point
from hw4fast.transforms import TRANSFORMS, Transform, at_level
from hw4fast.transforms.spec import ANY_SEVERITY

PICTURES = 200  # of a study, unless it says otherwise
GRID, ROUNDS = 8, 5  # so a point is known to 1 / 256 of the sweep


@dataclass(frozen=True)
class Broken:
    """share: of the sweep at which the answer changed first, NaN where it never did; value: of the level there;
    changes: how often the answer goes from as clean to changed or back along the grid."""

    share: float
    value: float
    changes: int


def swept(points: Sequence[Point]) -> list[Transform]:
    """The transforms of a study that have a sweep, those that are named by themselves, in their order."""
    names = dict.fromkeys(point.series for point in points if point.chain is not None)
    found = [TRANSFORMS.get(name) for name in names if name in TRANSFORMS]
    return [transform for transform in found if transform.sweep is not None]


def questions(transforms: Sequence[Transform], clean: int) -> Generator[Sequence[Point], Sequence[int], list[Broken]]:
    """Of one picture: gives points, takes the answers to the picture there, and returns a Broken per transform. clean:
    the answer without one. All transforms go on together, so that a net gets many questions at once."""
    shares = np.arange(1, GRID + 1) / GRID
    answers = iter((yield [_point(transform, share) for transform in transforms for share in shares]))
    changed = [[next(answers) != clean for _ in shares] for _ in transforms]
    high = [float(shares[row.index(True)]) if any(row) else math.nan for row in changed]
    low = [share - 1 / GRID for share in high]
    for _ in range(ROUNDS):
        going = [at for at, share in enumerate(high) if not math.isnan(share)]
        middle = {at: (low[at] + high[at]) / 2 for at in going}
        answers = iter((yield [_point(transforms[at], middle[at]) for at in going]))
        for at in going:
            (low if next(answers) == clean else high)[at] = middle[at]
    return [
        Broken(share, math.nan if math.isnan(share) else level_at(transform, share), _changes(row))
        for transform, share, row in zip(transforms, high, changed, strict=True)
    ]


def level_at(transform: Transform, share: float) -> float:
    """The level at a share of the sweep, as the transform takes it."""
    assert transform.sweep is not None
    parameter = transform.parameters.get(transform.level, ANY_SEVERITY)
    # six digits: the same text on every machine
    return float(parameter.nearest(float(f"{transform.sweep.at(share):.6g}")))


def _point(transform: Transform, share: float) -> Point:
    return Point(transform.name, None, at_level(transform, level_at(transform, share)))


def _changes(changed: Sequence[bool]) -> int:
    return sum(a != b for a, b in pairwise([False, *changed]))
