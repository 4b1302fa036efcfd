"""Models side by side: areas as they are counted elsewhere, and how often equal models are called different."""

from __future__ import annotations

import numpy as np
import pytest

from hw4fast.robustness.across import across_models
from hw4fast.robustness.analysis import series_of
from hw4fast.robustness.metrics import NO_LABEL
from hw4fast.robustness.points import points_of
from tests.robustness.rows import measured_of

POINTS = points_of(["gaussian_noise", "frost", "blur51"])
ONE = points_of(["fog"])


def some(seed=0, n=60, classes=4, points=POINTS, unlabelled=0, share=0.6):
    labels = np.random.default_rng(7).integers(0, classes, n)
    rng = np.random.default_rng(seed)
    columns = np.where(
        rng.random((n, len(points))) < share, labels[:, None], rng.integers(0, classes, (n, len(points)))
    )
    labels[:unlabelled] = NO_LABEL
    return measured_of(points, columns, labels)


@pytest.mark.parametrize("unlabelled", [0, 7, 60])
def test_areas_are_those_of_each_model(unlabelled):
    measured = [some(seed, unlabelled=unlabelled) for seed in range(3)]
    found = across_models(["a", "b", "c"], measured)
    assert (found.labelled, found.n, found.whole) == (unlabelled < 60, (60 - unlabelled) % 60 or 60, 60)
    lines = {one.series: one for one in found.lines}
    assert set(lines) == {"gaussian_noise", "frost", *(["clean"] if found.labelled else [])}
    for at, model in enumerate(measured):
        for one in series_of(model.rows(), 4):
            if one.name in lines:
                area = 1 - one.flip_area if one.area is None else one.area
                assert lines[one.name].areas[at] == pytest.approx(area)
        assert all(one.intervals[at][0] <= one.areas[at] <= one.intervals[at][1] for one in found.lines)
        if not found.labelled:  # the clean answer is what it is
            assert all(one.intervals[at][0] >= 0.1 for one in found.lines)
    assert not found.labelled or found.lines[0].areas[1] == pytest.approx(measured[1].rows()[0].accuracy)


def test_only_pictures_that_all_models_have_a_label_for_are_counted():
    first, second = some(0), some(1, unlabelled=50)
    found = across_models(["a", "b"], [first, second])
    assert (found.n, found.whole) == (10, 60)
    right = (first.answers == first.labels)[:, 50:]
    assert found.lines[0].areas[0] == pytest.approx(right[0].mean())


def test_the_best_are_told_from_the_rest_only_where_pictures_show_it():
    better, worse = some(0, n=200, share=0.9), some(1, n=200, share=0.4)
    assert all(line.best == (True, False) for line in across_models(["a", "b"], [better, worse]).lines)
    assert all(line.best == (True, True) for line in across_models(["a", "b"], [better, better]).lines)
    for n in (1, 2, 5):  # nothing can be told from so few
        better, worse = some(0, n=n, share=1, points=ONE), some(1, n=n, share=0, classes=40, points=ONE)
        assert all(line.best == (True, True) for line in across_models(["a", "b"], [better, worse]).lines)
    labels = np.zeros(100, int)
    columns = np.zeros((100, len(ONE)), int)
    few = columns.copy()
    few[:4, 5] = 1  # as many as McNemar's test has p = 0.125 for
    found = across_models(["a", "b"], [measured_of(ONE, columns, labels), measured_of(ONE, few, labels)])
    assert found.lines[1].best == (True, True)
    few[:8, 5] = 1
    found = across_models(["a", "b"], [measured_of(ONE, columns, labels), measured_of(ONE, few, labels)])
    assert found.lines[1].best == (True, False)


def test_of_many_equal_models_most_stay_among_the_best():
    """Each line leaves one of nine equal models out in at most 5 % of cases."""
    missed = []
    for seed in range(60):
        models = [some(9 * seed + k, n=80, points=ONE) for k in range(9)]
        missed += [not all(line.best) for line in across_models(list("abcdefghi"), models).lines]
    assert np.mean(missed) < 0.25 and np.mean(missed) > 0


def test_there_must_be_models_and_severities():
    assert across_models(["a"], [some()]) is None
    fixed = some(points=points_of(["flip", "blur51"]))
    assert across_models(["a", "b"], [fixed, fixed]) is None
