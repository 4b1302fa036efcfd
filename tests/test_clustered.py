"""Several answers to each picture, in calibration and in means: how often the intervals hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw4fast.stats import calibration_bins, clustered_calibration_bins, wilson, wilson_of_means


def test_several_answers_to_a_picture_are_binned_as_if_they_were_one_each():
    rng = np.random.default_rng(2)
    sure, right = rng.random((7, 30)), rng.random((7, 30)) < 0.5
    found, plain = clustered_calibration_bins(sure, right), calibration_bins(sure.ravel(), right.ravel())
    assert [replace(one, interval=None) for one in found] == [replace(one, interval=None) for one in plain]
    assert found == clustered_calibration_bins(sure, right)
    assert found != clustered_calibration_bins(sure, right, seed=1)


def test_few_pictures_give_no_interval_and_equal_ones_wilsons_of_the_pictures():
    sure = np.full((20, 9), 0.5)
    assert clustered_calibration_bins(sure, sure > 0, 1)[0].interval is None
    sure = np.full((20, 12), 0.5)
    assert clustered_calibration_bins(sure, sure > 0, 1)[0].interval == wilson(12, 12)
    assert clustered_calibration_bins(sure, sure < 0, 1)[0].interval == wilson(0, 12)
    assert clustered_calibration_bins(sure, sure < 0, 2)[1].interval is None  # an empty bin


def test_intervals_that_resample_pictures_hold_the_truth_where_wilsons_does_not():
    rng = np.random.default_rng(3)
    held, wilsons = [], []
    for _ in range(150):
        chance = rng.beta(1.4, 0.93, 40)  # 0.6 on average; correlated 0.3 within a picture
        sure, right = rng.random((30, 40)), rng.random((30, 40)) < chance
        pairs = (
            clustered_calibration_bins(sure, right, 3, samples=400),
            calibration_bins(sure.ravel(), right.ravel(), 3),
        )
        for kept, bins in zip((held, wilsons), pairs, strict=True):
            kept += [one.interval[0] <= 1.4 / 2.33 <= one.interval[1] for one in bins if one.interval]
    assert np.mean(held) > 0.9
    assert np.mean(wilsons) < 0.75


@pytest.mark.parametrize(
    ("sure", "right"), [([0.5], [1]), ([[0.5]], [[1, 0]]), (np.ones((2, 2, 2)), np.ones((2, 2, 2)))]
)
def test_answers_that_are_no_table(sure, right):
    with pytest.raises(ValueError, match=r"must both be \[m, n\]"):
        clustered_calibration_bins(sure, right)


def test_of_one_answer_each_the_interval_of_a_mean_is_nearly_wilsons():
    right = np.arange(200) < 60
    assert wilson_of_means(right, 1) == pytest.approx(wilson(60, 200), abs=1e-12)
    assert wilson_of_means(right, 6) == pytest.approx(wilson(60, 200), abs=1e-3)  # six equal answers are one


def test_the_interval_of_a_mean_where_nothing_varies():
    for answers in (1, 6):
        assert wilson_of_means([1.0] * 20, answers) == wilson(20, 20)
        assert wilson_of_means([0.0] * 20, answers) == wilson(0, 20)
        assert wilson_of_means([1.0], answers) == wilson(1, 1)
    assert wilson_of_means([0.9], 6) == wilson_of_means([0.9], 1)  # one picture says nothing of how they vary
    assert wilson_of_means([0.5] * 20, 6) == wilson(60, 120)  # no more than all answers are there


@pytest.mark.parametrize(("p", "rho"), [(0.3, 0.1), (0.5, 0.4), (0.8, 0.8), (0.95, 0.1)])
def test_the_interval_of_a_mean_holds_it(p, rho):
    rng = np.random.default_rng(4)
    k = 1 / rho - 1
    chance = rng.beta(p * k, (1 - p) * k, (2000, 200, 1))
    shares = (rng.random((2000, 200, 6)) < chance) @ np.array([1, 2, 2, 2, 2, 1]) / 10
    held = [low <= p <= high for low, high in (wilson_of_means(row, 6) for row in shares)]
    assert 0.935 < np.mean(held) < 0.965


@pytest.mark.parametrize(("shares", "answers"), [([], 6), ([1.5], 6), ([[0.5]], 6), ([float("nan")], 6), ([0.5], 0)])
def test_means_that_are_none(shares, answers):
    with pytest.raises(ValueError, match="must"):
        wilson_of_means(shares, answers)
