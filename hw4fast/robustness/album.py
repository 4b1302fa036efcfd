"""The few pictures that a report shows, kept while a study passes over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hw4fast.robustness.findings import FIXED
from hw4fast.robustness.metrics import NO_LABEL
from hw4fast.robustness.points import Point

EXAMPLES = 4
FLIPS_PER_SERIES = 4
CANDIDATES = 3 * FLIPS_PER_SERIES  # more than are shown: a picture that one transform shows isn't shown again


@dataclass(frozen=True, order=True)
class Flip:
    """A picture whose answer changed, though it was not wrong when clean. They sort by what is most telling: the
    smallest severity first; then those where the model is surest of its new answer.

    at: the first point of its series at which the answer differs; number: of the picture.
    """

    severity: int
    doubt: float
    number: int
    at: int


class Album:
    """Sees every batch and keeps the pictures (uint8 [h, w, c]) of a few examples and of the first flips.

    pictures: number of the picture → the picture, clean.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        self.pictures: dict[int, np.ndarray] = {}
        self._series: dict[str, list[int]] = {}
        for at, point in enumerate(points):
            if point.chain is not None:
                self._series.setdefault(point.series, []).append(at)
        self._severities = [point.severity or FIXED for point in points]
        self._flips: dict[str, list[Flip]] = {series: [] for series in self._series}
        self._first: list[int] = []
        self._known: dict[int, int] = {}

    def see(
        self,
        start: int,
        pictures: Sequence[np.ndarray],
        answers: np.ndarray,
        confidence: np.ndarray,
        labels: np.ndarray,
    ) -> None:
        """pictures: a batch of b, numbered from `start`; answers, confidence: [P, b]; labels: [b]."""
        wrong = (labels != NO_LABEL) & (answers[0] != labels)
        for column, answer in enumerate(map(int, answers[0])):
            if len(self._first) < EXAMPLES:
                self._first.append(start + column)
            if not wrong[column] and len(self._known) < EXAMPLES:
                self._known.setdefault(answer, start + column)
        for series, places in self._series.items():
            self._flips[series] += self._flips_of(places, start, answers, confidence, wrong)
            self._flips[series] = sorted(self._flips[series])[:CANDIDATES]
        seen = self.pictures | {start + column: picture for column, picture in enumerate(pictures)}
        flipped = [flip.number for flips in self._flips.values() for flip in flips]
        self.pictures = {number: seen[number] for number in sorted({*self._first, *self._known.values(), *flipped})}

    def examples(self) -> list[int]:
        """Up to EXAMPLES pictures of different classes that the model knows when clean, else the first ones."""
        known = list(self._known.values())
        others = [number for number in self._first if number not in known]
        return sorted((known + others)[:EXAMPLES])

    def flips(self) -> list[Flip]:
        """Up to FLIPS_PER_SERIES of each transform, the smallest severity first; each picture once."""
        chosen: dict[int, Flip] = {}
        room = dict.fromkeys(self._flips, FLIPS_PER_SERIES)
        for flip, series in sorted((flip, series) for series, flips in self._flips.items() for flip in flips):
            if room[series] and flip.number not in chosen:
                chosen[flip.number] = flip
                room[series] -= 1
        return list(chosen.values())

    def _flips_of(
        self, places: list[int], start: int, answers: np.ndarray, confidence: np.ndarray, wrong: np.ndarray
    ) -> list[Flip]:
        flipped = (answers[places] != answers[0]) & ~wrong
        found = []
        for column in np.flatnonzero(flipped.any(axis=0)):
            at = places[int(flipped[:, column].argmax())]
            doubt = 1 - float(confidence[at, column])
            found.append(Flip(self._severities[at], doubt, start + int(column), at))
        return found
