"""The few pictures that a report shows: chosen from the answers, and then read again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hw4fast.robustness.findings import FIXED
from hw4fast.robustness.measure import Measured
from hw4fast.robustness.metrics import NO_LABEL
from hw4fast.robustness.points import Point

EXAMPLES = 4
FLIPS_PER_SERIES = 4


@dataclass(frozen=True, order=True)
class Flip:
    """A picture whose answer changed, though it was not wrong when clean. They sort by what is most telling: the
    smallest severity first; then those where the model is surest of its new answer.

    at: the first point of its series at which the answer differs; number: of the picture among those measured.
    """

    severity: int
    doubt: float
    number: int
    at: int


@dataclass(frozen=True)
class Album:
    """examples: up to EXAMPLES pictures; flips: up to FLIPS_PER_SERIES of each transform, the smallest severity first,
    each picture once; pictures: the number of each of them → uint8 [h, w, c] as the net reads it, clean, and how it was
    read (`decoded` and `preprocessing` of Point.apply)."""

    examples: list[int]
    flips: list[Flip]
    pictures: dict[int, Shown] = field(repr=False)


Shown = tuple[np.ndarray, dict[str, Any]]


def make_album(measured: Measured, picture: Callable[[int], Shown]) -> Album:
    """picture: number among those measured → what the net reads of it, and how it was read."""
    examples, flips = examples_of(measured), flips_of(measured)
    shown = sorted({*examples, *(flip.number for flip in flips)})
    return Album(examples, flips, {number: picture(number) for number in shown})


def examples_of(measured: Measured) -> list[int]:
    """Pictures of different classes that the model knows when clean, else the first ones; ascending."""
    answers = measured.answers[0]
    right = ~_wrong(measured)
    known: dict[int, int] = {}
    for number in np.flatnonzero(right):
        if len(known) == EXAMPLES:
            break
        known.setdefault(int(answers[number]), int(number))
    first = [number for number in range(min(EXAMPLES, len(answers))) if number not in known.values()]
    return sorted([*known.values(), *first][:EXAMPLES])


def flips_of(measured: Measured) -> list[Flip]:
    candidates: list[tuple[Flip, str]] = []
    for series, places in _series(measured.points).items():
        found = _first_flips(measured, places)
        # more than are shown: a picture that one transform shows isn't shown again
        candidates += [(flip, series) for flip in sorted(found)[: 3 * FLIPS_PER_SERIES]]
    chosen: dict[int, Flip] = {}
    room = {series: FLIPS_PER_SERIES for _, series in candidates}
    for flip, series in sorted(candidates):
        if room[series] and flip.number not in chosen:
            chosen[flip.number] = flip
            room[series] -= 1
    return list(chosen.values())


def _series(points: Sequence[Point]) -> dict[str, list[int]]:
    series: dict[str, list[int]] = {}
    for at, point in enumerate(points):
        if point.chain is not None:
            series.setdefault(point.series, []).append(at)
    return series


def _first_flips(measured: Measured, places: list[int]) -> list[Flip]:
    flipped = (measured.answers[places] != measured.answers[0]) & ~_wrong(measured)
    found = []
    for number in np.flatnonzero(flipped.any(axis=0)):
        at = places[int(flipped[:, number].argmax())]
        doubt = 1 - float(measured.confidence[at, number])
        found.append(Flip(measured.points[at].severity or FIXED, doubt, int(number), at))
    return found


def _wrong(measured: Measured) -> np.ndarray:
    return (measured.labels != NO_LABEL) & (measured.answers[0] != measured.labels)
