"""What follows from a study's answers, transform by transform and class by class, and between two models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from hw4fast.robustness.corruption_error import ALEXNET, MCE, corruption_error
from hw4fast.robustness.findings import by_series
from hw4fast.robustness.measure import Measured
from hw4fast.robustness.metrics import NO_LABEL, Row
from hw4fast.robustness.points import Point, counted, doubles
from hw4fast.stats import (
    CalibrationBin,
    PairedDifference,
    area_under,
    calibration_bins,
    clustered_calibration_bins,
    expected_calibration_error,
    mcnemar,
    paired_bootstrap,
)
from hw4fast.transforms import TRANSFORMS
from hw4fast.transforms.spec import SEVERITIES

IMAGENET = 1000  # classes


@dataclass(frozen=True)
class Breaking:
    """The breaking points under one transform. n: pictures sought; never: how many hold all through the sweep;
    values: [n] levels in the sweep's order, the soonest first, those that never break left out; median and quartiles:
    the least level at which that share of all n pictures has broken, None where it never does; interval: 95 % of the
    median, from order statistics; not_monotone: pictures whose answer changes back and forth along the grid."""

    transform: str
    parameter: str
    unit: str
    n: int
    never: int
    shares: tuple[float, ...]
    values: tuple[float, ...]
    median: float | None
    quartiles: tuple[float | None, float | None]
    interval: tuple[float | None, float | None]
    not_monotone: int


def median_rank(n: int) -> int | None:
    """Of n sorted values, the place (from 0) of the greatest that lies above the median with a chance of at most
    2.5 %: with the value as far from the other end it makes a 95 % interval. None where n < 6: no two values do.

    Source: W. J. Conover, "Practical Nonparametric Statistics" (1999), section 3.2, with the binomial's own ranks.
    """
    below, rank = 0, None
    for place in range(n // 2):
        below += comb(n, place)
        if 40 * below > 2**n:
            break
        rank = place
    return rank


def breaking_points(measured: Measured) -> list[Breaking]:
    """One per transform that was swept, the one first whose median comes soonest in its sweep; none where no picture
    that was sought could be read."""
    found: list[Breaking] = []
    if not measured.broken:
        return found
    for place, transform in enumerate(measured.swept):
        each = sorted((row[place] for row in measured.broken), key=lambda b: (np.isnan(b.share), b.share))
        broken = [b for b in each if not np.isnan(b.share)]
        n = len(each)

        def at(rank: int, broken: list = broken) -> float | None:
            return broken[rank].value if 0 <= rank < len(broken) else None

        low = median_rank(n)
        parameter = transform.parameters.get(transform.level)
        found.append(
            Breaking(
                transform=transform.name,
                parameter=transform.level,
                unit=parameter.unit if parameter else "",
                n=n,
                never=n - len(broken),
                shares=tuple(b.share for b in broken),
                values=tuple(b.value for b in broken),
                median=at((n - 1) // 2),
                quartiles=(at(-(-n // 4) - 1), at(-(-3 * n // 4) - 1)),
                interval=(None, None) if low is None else (at(low), at(n - 1 - low)),
                not_monotone=sum(b.changes > 1 for b in each),
            )
        )
    return sorted(found, key=lambda b: b.shares[(b.n - 1) // 2] if (b.n - 1) // 2 < len(b.shares) else 2.0)


@dataclass(frozen=True)
class Series:
    """A transform over its severities. area: under the accuracy-severity curve, clean at 0 (1: all right at each);
    None without labels or severities. flip_area: of the flip rate. corruption_error: the errors over severities 1…5
    divided by AlexNet's published ones (Hendrycks and Dietterich 2019), None where there are none and for a model that
    hasn't ImageNet's classes."""

    name: str
    area: float | None
    flip_area: float | None
    corruption_error: float | None


def series_of(rows: Sequence[Row], classes: int) -> list[Series]:
    """classes: of the model."""
    clean = rows[0]
    found = []
    for group in by_series(rows):
        graded = [row.point.severity for row in group] == list(SEVERITIES)
        severities = (0, *SEVERITIES)
        right = [row.accuracy for row in (clean, *group)]
        labelled = all(value is not None for value in right)
        area = area_under([float(value or 0) for value in right], severities) if graded and labelled else None
        flips = area_under([row.flip_rate for row in (clean, *group)], severities) if graded else None
        name = group[0].point.series
        published = classes == IMAGENET and graded and labelled and name in ALEXNET and not TRANSFORMS.get(name).note
        errors = [1 - float(row.accuracy or 0) for row in group]
        found.append(Series(name, area, flips, corruption_error(errors, name) if published else None))
    return found


def calibration_error(measured: Measured, at: Sequence[int]) -> float | None:
    """Expected calibration error (15 bins) of the labelled pictures at some points together; None without any."""
    labelled = measured.labels != NO_LABEL
    if not labelled.any():
        return None
    confidence, right = pooled(measured, at)
    return expected_calibration_error(confidence, right)


def calibration_of(measured: Measured) -> list[tuple[str, list[CalibrationBin]]]:
    """Bins of the clean answers and of all spoiled ones together; nothing without labels. Each picture is answered at
    all points, so that the intervals of the spoiled ones resample pictures."""
    labelled = measured.labels != NO_LABEL
    if not labelled.any():
        return []
    at = counted(measured.points)
    sure, right = (array.reshape(len(at), -1) for array in pooled(measured, at))
    return [
        ("clean", calibration_bins(*pooled(measured, [0]))),
        ("spoiled", clustered_calibration_bins(sure, right, samples=1000)),
    ]


def pooled(measured: Measured, at: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Confidences and whether the answer is right, float and bool, of the labelled pictures at those points."""
    labelled = measured.labels != NO_LABEL
    places = list(at)
    confidence = measured.confidence[places][:, labelled].astype(np.float64).ravel()
    right = (measured.answers[places][:, labelled] == measured.labels[labelled]).ravel()
    return np.clip(confidence, 0, 1), right


@dataclass(frozen=True)
class ModelRow:
    """A model over the whole study. clean: its row without a transform; accuracy: the mean over all `counted` points
    (None without labels); flip_rate: likewise; area: the mean of its transforms' areas, `doubles` left out; calibration
    and spoiled_calibration: expected calibration errors; mean_corruption_error: over those of ImageNet-C's transforms
    that were studied and whose note doesn't say that they are other ones (`compared_with_alexnet` of 15); worst: the
    transform with the least area, and that."""

    model: str
    clean: Row
    accuracy: float | None
    flip_rate: float
    area: float | None
    calibration: float | None
    spoiled_calibration: float | None
    mean_corruption_error: float | None
    compared_with_alexnet: int
    worst: str
    worst_area: float | None


def model_row(name: str, measured: Measured, rows: Sequence[Row], classes: int) -> ModelRow:
    """classes: of the model; with another number than ImageNet's it isn't compared with AlexNet."""
    series = series_of(rows, classes)
    spoiled = [rows[at] for at in counted(measured.points)]
    right = [row.accuracy for row in spoiled if row.accuracy is not None]
    areas = {one.name: one.area if one.area is not None else 1 - (one.flip_area or 0) for one in series}
    graded = {one.name: areas[one.name] for one in series if one.flip_area is not None}
    worst = min(graded, key=lambda one: graded[one]) if graded else ""
    errors = [one.corruption_error for one in series if one.name in MCE and one.corruption_error is not None]
    twice = {point.series for point in doubles(measured.points)}
    known = [one.area for one in series if one.area is not None and one.name not in twice]
    return ModelRow(
        model=name,
        clean=rows[0],
        accuracy=float(np.mean(right)) if right else None,
        flip_rate=float(np.mean([row.flip_rate for row in spoiled])),
        area=float(np.mean(known)) if known else None,
        calibration=calibration_error(measured, [0]),
        spoiled_calibration=calibration_error(measured, counted(measured.points)),
        mean_corruption_error=float(np.mean(errors)) if errors else None,
        compared_with_alexnet=len(errors),
        worst=worst,
        worst_area=graded.get(worst),
    )


@dataclass(frozen=True)
class ClassRow:
    """label: the class; n: its pictures; clean: how many of them are right without a transform; spoiled: the share that
    is right over all `counted` points; worst: the series with the least accuracy, and that."""

    label: int
    n: int
    clean: int
    spoiled: float
    worst: str
    worst_accuracy: float


def classes_of(measured: Measured) -> list[ClassRow]:
    """Each class of a label, the one that suffers most first."""
    right, counts = measured.answers == measured.labels, counted(measured.points)
    series: dict[str, list[int]] = {}
    for at, point in enumerate(measured.points):
        if point.chain is not None:
            series.setdefault(point.series, []).append(at)
    found = []
    for label in np.unique(measured.labels[measured.labels != NO_LABEL]):
        own = measured.labels == label
        shares = {name: float(right[places][:, own].mean()) for name, places in series.items()}
        worst = min(shares, key=lambda name: shares[name])
        spoiled = float(right[counts][:, own].mean())
        found.append(ClassRow(int(label), int(own.sum()), int(right[0, own].sum()), spoiled, worst, shares[worst]))
    return sorted(found, key=lambda row: (row.spoiled - row.clean / row.n, row.label))


@dataclass(frozen=True)
class Compared:
    """Two models at one point, on the same labelled pictures. labelled: False where no picture has a label; "right"
    then means that the answer is the clean one.

    only_first, only_second: pictures that only one of them gets right; p: McNemar's exact test; difference: of the
    accuracies, first − second, with the 95 % interval of `paired_bootstrap`."""

    point: Point
    n: int
    only_first: int
    only_second: int
    p: float
    difference: PairedDifference
    labelled: bool = True


def compare(first: Measured, second: Measured) -> list[Compared]:
    """One per point that both have, clean first; `blur51` and severity 5 of `blur` are one."""
    places = {point.key: at for at, point in enumerate(second.points)}
    # each model's own class indices may differ: right is right
    labelled = (first.labels != NO_LABEL) & (second.labels != NO_LABEL)
    some = labelled.any()
    kept = labelled if some else np.ones(len(labelled), bool)
    found = []
    for at, point in enumerate(first.points):
        if point.key in places and point.key not in {earlier.key for earlier in first.points[:at]}:
            right = [
                (m.answers[place] == (m.labels if some else m.answers[0]))[kept]
                for m, place in ((first, at), (second, places[point.key]))
            ]
            a, b = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
            difference = paired_bootstrap(right[0], right[1], samples=2000)
            found.append(Compared(point, int(kept.sum()), a, b, mcnemar(a, b), difference, bool(some)))
    return found
