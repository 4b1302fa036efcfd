"""Several models side by side, transform by transform: which of them bears what, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hw4fast.robustness.findings import by_series
from hw4fast.robustness.measure import Measured
from hw4fast.robustness.metrics import NO_LABEL
from hw4fast.robustness.points import CLEAN
from hw4fast.stats import sign_flip, wilson_of_means
from hw4fast.transforms.spec import SEVERITIES

WEIGHTS = np.array([1, *[2] * (len(SEVERITIES) - 1), 1])  # of clean and severities 1…5: `area_under` in whole numbers
LEVEL = 0.05  # of all tests of a line together


@dataclass(frozen=True)
class Line:
    """A transform. areas: per model, under its curve from clean to severity 5 (without labels of the answers that stay;
    of CLEAN the accuracy); intervals: their 95 % intervals; best: whether it is the greatest, or can't be told apart
    from it: by the sign-flip test at LEVEL divided by the number of other models."""

    series: str
    areas: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]
    best: tuple[bool, ...]


@dataclass(frozen=True)
class Across:
    """models: their names; labelled: whether right answers are counted, else those that stay as they were when clean;
    n: pictures, of `whole`: those that have a label for all of the models, or all; lines: CLEAN first where there are
    labels, then the transforms with severities, the most harmful one for the first model first."""

    models: tuple[str, ...]
    labelled: bool
    n: int
    whole: int
    lines: tuple[Line, ...]


def across_models(models: Sequence[str], measured: Sequence[Measured]) -> Across | None:
    """None for one model, and where no transform has severities. All models were asked about the same points."""
    groups = [group for group in by_series(measured[0].rows()) if group[0].point.severity]
    if len(models) < 2 or not groups:
        return None
    labels = np.logical_and.reduce([one.labels != NO_LABEL for one in measured])
    labelled = bool(labels.any())
    kept = labels if labelled else np.ones(len(labels), bool)
    right = [(m.answers == (m.labels if labelled else m.answers[0]))[:, kept].astype(np.int64) for m in measured]
    lines = [_line(CLEAN.series, [one[:1] for one in right], np.ones(1, np.int64))] if labelled else []
    for group in groups:
        places = [0, *(measured[0].points.index(row.point) for row in group)]
        lines.append(_line(group[0].point.series, [one[places] for one in right], WEIGHTS, certain=not labelled))
    return Across(tuple(models), labelled, int(kept.sum()), len(kept), tuple(lines))


def _line(series: str, right: Sequence[np.ndarray], weights: np.ndarray, certain: bool = False) -> Line:
    """right: per model 0 or 1, [points, pictures]; certain: that it is 1 at the first point."""
    sums = [weights @ one for one in right]
    areas = [float(one.mean() / weights.sum()) for one in sums]
    first = int(np.argmax(areas))
    level = LEVEL / (len(right) - 1)
    best = (at == first or sign_flip(sums[first] - one) > level for at, one in enumerate(sums))
    least = weights[0] / weights.sum() if certain else 0.0
    intervals = []
    for one in right:
        shares = (weights[certain:] @ one[certain:]) / weights[certain:].sum()
        ends = wilson_of_means(shares, len(one) - certain)
        intervals.append((least + (1 - least) * ends[0], least + (1 - least) * ends[1]))
    return Line(series, tuple(areas), tuple(intervals), tuple(best))
