"""What follows from answers, against counting by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw4fast.robustness.analysis import (
    breaking_points,
    calibration_error,
    classes_of,
    compare,
    median_rank,
    model_row,
    series_of,
)
from hw4fast.robustness.breaking import Broken
from hw4fast.robustness.corruption_error import ALEXNET
from hw4fast.robustness.metrics import NO_LABEL
from hw4fast.robustness.model_sections import comparison_section
from hw4fast.robustness.points import counted, doubles, points_of
from hw4fast.robustness.sections import breaking_line, breaking_section
from hw4fast.transforms import TRANSFORMS
from tests.robustness.rows import measured_of

POINTS = points_of(["gaussian_noise", "frost", "blur51"])


def some(seed=0, n=40, classes=4, unlabelled=0):
    rng = np.random.Generator(np.random.PCG64(seed))
    labels = rng.integers(0, classes, n)
    columns = np.where(rng.random((n, len(POINTS))) < 0.6, labels[:, None], rng.integers(0, classes, (n, len(POINTS))))
    labels[:unlabelled] = NO_LABEL
    return measured_of(POINTS, columns, labels)


def test_areas_and_corruption_errors():
    measured = some()
    series = {one.name: one for one in series_of(measured.rows(), 1000)}
    accuracy = (measured.answers == measured.labels).mean(axis=1)
    assert series["gaussian_noise"].area == pytest.approx(np.trapezoid(accuracy[:6]) / 5)
    flips = (measured.answers != measured.answers[0]).mean(axis=1)
    assert series["gaussian_noise"].flip_area == pytest.approx(np.trapezoid(flips[:6]) / 5)
    wanted = (1 - accuracy[1:6]).sum() / sum(ALEXNET["gaussian_noise"])
    assert series["gaussian_noise"].corruption_error == pytest.approx(wanted)
    assert series["frost"].corruption_error is None  # generated, not the published photographs
    assert series["blur51"].area is series["blur51"].flip_area is None  # one strength has no curve


def test_only_imagenets_classes_are_compared_with_alexnet():
    assert all(one.corruption_error is None for one in series_of(some().rows(), 10))


def test_without_labels_there_are_flips_only():
    series = series_of(some(unlabelled=40).rows(), 1000)
    assert all(one.area is None and one.corruption_error is None for one in series)
    assert any(one.flip_area is not None for one in series)
    assert classes_of(some(unlabelled=40)) == [] and calibration_error(some(unlabelled=40), [0]) is None


def test_classes_are_counted_each():
    measured = some(unlabelled=5)
    found = {row.label: row for row in classes_of(measured)}
    right = measured.answers == measured.labels
    assert sum(row.n for row in found.values()) == 35
    for label, row in found.items():
        own = measured.labels == label
        assert (row.n, row.clean) == (own.sum(), right[0, own].sum())
        assert row.spoiled == pytest.approx(right[1:, own].mean())
        noise, frost, blur = (right[places][:, own].mean() for places in (slice(1, 6), slice(6, 11), slice(11, 12)))
        assert row.worst_accuracy == pytest.approx(min(noise, frost, blur))
    losses = [row.spoiled - row.clean / row.n for row in classes_of(measured)]
    assert losses == sorted(losses)


def test_a_point_of_a_transform_that_is_studied_anyway_counts_once():
    points = points_of(["blur", "blur51", "rotate30", "blur51+rotate30"])
    assert [point.spec for point in doubles(points)] == ["blur51"]
    rng = np.random.Generator(np.random.PCG64(5))
    measured = measured_of(points, rng.integers(0, 3, (30, len(points))), rng.integers(0, 3, 30))
    rows = measured.rows()
    without = [row for row in rows[1:] if row.point.spec != "blur51"]
    assert len(rows) == 1 + len(without) + 2  # blur at severity 5 is blur51, too
    found = model_row("m", measured, rows, 3)
    kept = [row for row in rows[1:] if row.point.series != "blur51"]
    assert found.accuracy == pytest.approx(np.mean([row.accuracy for row in kept]))
    assert found.flip_rate == pytest.approx(np.mean([row.flip_rate for row in kept]))
    (one,) = [row for row in classes_of(measured) if row.label == 0]
    right, own = measured.answers == measured.labels, measured.labels == 0
    places = [at for at, point in enumerate(points) if point.chain and point.series != "blur51"]
    assert one.spoiled == pytest.approx(right[places][:, own].mean())


def test_transforms_that_are_the_same_under_another_name_count_once():
    points = points_of(None)
    assert {point.series for point in doubles(points)} == {"blur", "trick"}
    assert len(counted(points)) == len(points) - 1 - 10
    for names, left_out in (
        (["blur", "trick"], {"trick"}),
        (["trick", "gaussian_blur", "gaussian_blur2"], {"trick", "gaussian_blur:sigma=2"}),
        (["gaussian_blur:sigma=2", "blur51", "trick+rotate", "rotate:fill=black", "rotate"], set()),
    ):
        assert {point.series for point in doubles(points_of(names))} == left_out
    points = points_of(["gaussian_blur", "blur", "fog"])
    rng = np.random.Generator(np.random.PCG64(6))
    measured = measured_of(points, rng.integers(0, 3, (30, len(points))), rng.integers(0, 3, 30))
    areas = {one.name: one.area for one in series_of(measured.rows(), 3)}
    found = model_row("m", measured, measured.rows(), 3)
    assert found.area == pytest.approx((areas["gaussian_blur"] + areas["fog"]) / 2)


def test_what_a_transform_is_the_same_as_is_a_transform_itself():
    for transform in map(TRANSFORMS.get, TRANSFORMS):
        if transform.same_as:
            assert not TRANSFORMS.get(transform.same_as).same_as


def test_calibration_error_of_a_model_that_is_always_half_sure():
    measured = some()
    accuracy = (measured.answers[1:6] == measured.labels).mean()
    assert calibration_error(measured, range(1, 6)) == pytest.approx(abs(accuracy - 0.5))


def test_two_models_are_compared_on_what_both_were_asked():
    first, second = some(0), some(1)
    second = measured_of(POINTS, second.answers.T, first.labels)
    for one in compare(first, second):
        at = first.points.index(one.point)
        a, b = (m.answers[at] == first.labels for m in (first, second))
        assert (one.only_first, one.only_second) == ((a & ~b).sum(), (b & ~a).sum())
        assert one.difference.difference == pytest.approx(a.mean() - b.mean())
        assert one.difference.low <= one.difference.difference <= one.difference.high
        assert 0 < one.p <= 1
    assert [one.p for one in compare(first, first)] == [1.0] * len(POINTS)


def test_a_point_that_stands_twice_is_one_test():
    points = points_of(["blur", "blur51"])
    rng = np.random.Generator(np.random.PCG64(7))
    first, second = (measured_of(points, rng.integers(0, 3, (20, len(points))), [0, 1] * 10) for _ in range(2))
    assert [one.point.spec for one in compare(first, second)] == ["", "blur3", "blur7", "blur13", "blur25", "blur51"]


def test_models_without_labels_are_compared_by_their_changed_answers():
    first, second = some(0, unlabelled=40), some(1, unlabelled=40)
    found = compare(first, second)
    assert found[0].only_first == found[0].only_second == 0  # clean is clean
    a, b = (m.answers[3] == m.answers[0] for m in (first, second))
    assert (found[3].only_first, found[3].only_second) == ((a & ~b).sum(), (b & ~a).sum())


def test_the_medians_interval_has_the_binomials_ranks():
    from scipy.stats import binom

    for n in (1, 3, 5, 6, 7, 10, 25, 100, 201):
        rank = median_rank(n)
        if n < 6:
            assert rank is None  # no two of the values make a 95 % interval
            continue
        assert rank is not None
        coverage = binom.cdf(n - 1 - rank, n, 0.5) - binom.cdf(rank, n, 0.5)
        assert coverage >= 0.95
        assert binom.cdf(n - 2 - rank, n, 0.5) - binom.cdf(rank + 1, n, 0.5) < 0.95


@pytest.mark.parametrize(
    ("shares", "median", "quartiles"),
    [
        ((0.1, 0.2, 0.3, 0.4, None, None), 0.3, (0.2, None)),  # two thirds break, three quarters never do
        ((0.1, None), 0.1, (0.1, None)),
        ((0.1, 0.2, 0.3, 0.4), 0.2, (0.1, 0.3)),
        ((None, None, None, 0.5), None, (0.5, None)),
        ((0.5,), 0.5, (0.5, 0.5)),
    ],
)
def test_quartiles_of_pictures_that_never_break(shares, median, quartiles):
    rotate = TRANSFORMS.get("rotate")
    broken = [(Broken(np.nan, np.nan, 0) if share is None else Broken(share, share, 1),) for share in shares]
    (found,) = breaking_points(replace(some(), swept=(rotate,), broken=tuple(broken)))
    assert (found.median, found.quartiles) == (median, quartiles)


def test_no_picture_that_was_sought_could_be_read():
    assert breaking_points(replace(some(), swept=(TRANSFORMS.get("rotate"),), broken=())) == []


def test_without_labels_the_comparison_speaks_of_kept_answers_and_clean_is_no_test():
    first, second = some(0, unlabelled=40), some(1, unlabelled=40)
    text = comparison_section(["a", "b"], [first, second])
    assert "clearly keeps more of its clean answers" in text and "gets right" not in text and "accuracy" not in text
    assert f"correction for {len(POINTS) - 1} tests" in text and '<th scope="row">clean' not in text
    labels = comparison_section(["a", "b"], [some(0), measured_of(POINTS, some(1).answers.T, some(0).labels)])
    assert "is clearly better" in labels and f"correction for {len(POINTS)} tests" in labels
    assert "Bonett and Price’s" in labels


@pytest.mark.parametrize("n", [1, 5, 6, 24])
def test_the_first_lines_say_a_median_only_with_its_interval(n):
    broken = [(Broken(share, 180 * share, 1),) for share in np.linspace(0.1, 0.9, n)]
    found = breaking_points(replace(some(), swept=(TRANSFORMS.get("rotate"),), broken=tuple(broken)))
    line = breaking_line(found)
    if n < 6:
        assert line == "" and "too few pictures" in breaking_section(found)
    else:
        assert line.startswith(f"Of {n} pictures half get another answer by rotate at degrees ")
        assert "(95 % interval " in line
