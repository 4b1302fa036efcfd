"""The statistics against scipy's, scikit-learn's, exact integers and slow loops; and how often intervals hold."""

from __future__ import annotations

import itertools
import tracemalloc
from fractions import Fraction
from math import comb, sqrt

import numpy as np
import pytest
import scipy.stats
from scipy.stats import binom, binomtest, norm

from hw4fast import stats
from hw4fast.stats import (
    FEW_PAIRS,
    area_under,
    calibration_bins,
    expected_calibration_error,
    mcnemar,
    paired_bootstrap,
    percent,
    sign_flip,
    wilson,
)

CASES = [(9912, 10000), (0, 10), (10, 10), (1, 1), (0, 1), (5, 10), (1, 1000), (359, 360), (8, 100)]


@pytest.mark.parametrize(("successes", "n"), CASES)
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_it_is_scipys(successes, n, level):
    expected = binomtest(successes, n).proportion_ci(level, method="wilson")
    found = wilson(successes, n) if level == 0.95 else wilson(successes, n, z=norm.ppf(0.5 + level / 2))
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found[0] <= successes / n <= found[1] <= 1


def test_nothing_seen_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "n"), [(-1, 10), (11, 10), (1, 0)])
def test_impossible_counts(successes, n):
    with pytest.raises(ValueError, match=f"not {successes}"):
        wilson(successes, n)


@pytest.mark.parametrize("n", [30, 100, 500])
def test_wilson_holds_the_truth_as_often_as_it_says(n):
    """Exactly, by summing over all counts: 95 % on average over what the truth may be."""
    low, high = np.array([wilson(k, n) for k in range(n + 1)]).T[..., None]
    truth = np.linspace(0.005, 0.995, 199)
    holds = ((low <= truth) & (truth <= high)) * binom.pmf(np.arange(n + 1)[:, None], n, truth)
    assert 0.948 < holds.sum(axis=0).mean() < 0.956
    assert holds.sum(axis=0).min() > 0.83  # where it is known to be weakest, at shares near 0 and 1


def test_wilson_is_statsmodels():
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    for successes, n in CASES:
        assert wilson(successes, n) == pytest.approx(proportion.proportion_confint(successes, n, method="wilson"))


def test_percent():
    assert percent(9912, 10000) == "99.12 % (95 % interval 98.92 … 99.29, 9912 of 10000)"
    assert percent(0, 0) == "0.00 % (95 % interval 0.00 … 100.00, 0 of 0)"


# -- McNemar -----------------------------------------------------------------------------------------------------


def test_mcnemar_of_nothing_and_of_no_difference():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == mcnemar(4, 5) == 1.0
    assert mcnemar(0, 1) == 1.0  # one picture proves nothing
    assert mcnemar(0, 6) == pytest.approx(2 / 2**6)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 37, 100, 1001])
def test_mcnemar_is_exact(n):
    tail = 0
    for k in range(n // 2 + 1):
        tail += comb(n, k)
        expected = min(1.0, float(Fraction(2 * tail, 2**n)))
        if expected > 1e-300:
            assert mcnemar(k, n - k) == mcnemar(n - k, k) == pytest.approx(expected, rel=1e-13, abs=0)


@pytest.mark.parametrize("n", [100_000, 1_000_001, 2_000_000])
@pytest.mark.parametrize("deviations", [0, 0.5, 1.96, 5, 10, 30])
def test_mcnemar_of_many_is_scipys(n, deviations):
    k = int(n / 2 - deviations * sqrt(n) / 2)
    assert mcnemar(k, n - k) == pytest.approx(binomtest(k, n).pvalue, rel=1e-10, abs=0)


def test_mcnemar_far_out_is_nothing_rather_than_an_overflow():
    assert mcnemar(0, 1_000_000) == mcnemar(1_000_000, 1) == 0.0


def test_mcnemar_is_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    for first, second in [(0, 3), (12, 5), (40, 41), (300, 260)]:
        assert mcnemar(first, second) == pytest.approx(tables.mcnemar([[9, first], [second, 4]]).pvalue)


def test_mcnemar_of_less_than_nothing():
    with pytest.raises(ValueError, match="negative: 3, -1"):
        mcnemar(3, -1)


# -- the paired bootstrap ----------------------------------------------------------------------------------------


def answers(n: int, shares: tuple[float, float, float], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Right answers [n] of two models: `shares` of the pictures both, only the first, only the second has right."""
    cell = rng.choice(4, size=n, p=[*shares, 1 - sum(shares)])
    return cell <= 1, (cell == 0) | (cell == 2)


@pytest.mark.parametrize("kind", ["answers", "confidences"])
def test_bootstrap_is_scipys(kind):
    rng = np.random.default_rng(0)
    one, two = answers(120, (0.6, 0.2, 0.1), rng) if kind == "answers" else (rng.random(60) ** 0.5, rng.random(60))
    found = paired_bootstrap(one, two, samples=40_000)
    expected = scipy.stats.bootstrap(
        (np.subtract(one, two, dtype=float),), np.mean, n_resamples=40_000, method="percentile", rng=rng
    ).confidence_interval
    assert found.difference == pytest.approx(np.mean(one) - np.mean(two))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.005)
    assert found.n == len(one)


def test_counts_and_pictures_are_resampled_alike(monkeypatch):
    one, two = answers(200, (0.6, 0.2, 0.1), np.random.default_rng(1))
    values = np.subtract(one, two, dtype=float)
    counted = stats._resampled_means(values, 20_000, np.random.default_rng(2))
    monkeypatch.setattr(stats, "FEW", 0)
    monkeypatch.setattr(stats, "CHUNK", 200 * 7001)  # three pieces, the last one short
    picked = stats._resampled_means(values, 20_000, np.random.default_rng(2))
    assert picked.shape == counted.shape == (20_000,)
    assert not np.array_equal(picked, counted)
    levels = np.linspace(0.01, 0.99, 25)
    assert np.quantile(picked, levels) == pytest.approx(
        np.quantile(counted, levels), abs=0.0051
    )  # one picture is 0.005
    assert picked.std() == pytest.approx(counted.std(), rel=0.03)


# both right, only the first, only the second; n. Accuracies 0.6 … 0.95, correlations 0 … 0.6
COVERAGE = [
    ((0.504, 0.096, 0.096), 100),
    ((0.57, 0.03, 0.38), 100),
    ((0.76, 0.04, 0.19), 100),
    ((0.931, 0.019, 0.019), 500),
    ((0.557, 0.043, 0.243), 500),
]


def test_bootstrap_holds_the_truth_as_often_as_it_says():
    shares = []
    for number, ((both, first, second), n) in enumerate(COVERAGE):
        rng = np.random.default_rng(number)
        held = 0
        for only_first, only_second in rng.multinomial(n, [first, second, 1 - first - second], size=1000)[:, :2]:
            one, two = np.zeros(n), np.zeros(n)
            one[:only_first], two[only_first : only_first + only_second] = 1, 1
            found = paired_bootstrap(one, two, samples=1000, seed=number)
            held += found.low - 1e-12 <= first - second <= found.high + 1e-12
        shares.append(held / 1000)
        assert both + first + second < 1
    assert 0.94 < np.mean(shares) < 0.965
    assert min(shares) > 0.92


def test_bootstrap_depends_on_the_seed_only():
    one, two = answers(100, (0.6, 0.2, 0.1), np.random.default_rng(2))
    assert paired_bootstrap(one, two, seed=3) == paired_bootstrap(one, two, seed=3)
    real = np.random.default_rng(3).random((2, 100))
    assert paired_bootstrap(*real, seed=3) == paired_bootstrap(*real, seed=3) != paired_bootstrap(*real, seed=4)


def test_pairs_tell_more_than_two_separate_samples():
    rng = np.random.default_rng(4)
    one, two = answers(1000, (0.8, 0.03, 0.01), rng)
    together = paired_bootstrap(one, two)
    apart = paired_bootstrap(rng.permutation(one), two)
    assert together.low > 0 > apart.low
    assert together.high - together.low < 0.6 * (apart.high - apart.low)


def settings():
    """(only the first is right, only the second is) as chances: nets that are not alike, and nets that nearly are."""
    for one, two in itertools.combinations_with_replacement((0.6, 0.8, 0.95), 2):
        for correlation in (0, 0.3, 0.6):
            both = one * two + correlation * np.sqrt(one * (1 - one) * two * (1 - two))
            if min(one - both, two - both) >= 0:
                yield one - both, two - both
    yield from ((0.01, 0.005), (0.02, 0.01), (0.02, 0.0), (0.005, 0.002), (0.002, 0.002))


@pytest.mark.parametrize("n", [10, 30, 100, 456])
def test_where_few_answers_differ_it_holds_exactly(n):
    """Over all outcomes with fewer than FEW_PAIRS pairs, of which more than these say."""
    outcomes = [(a, b) for a in range(min(n, 60) + 1) for b in range(min(n, 60) + 1 - a) if a + b < FEW_PAIRS]
    found = [paired_bootstrap(np.arange(n) < a, np.arange(n) >= n - b) for a, b in outcomes]
    low, high = (np.array([getattr(one, end) for one in found]) for end in ("low", "high"))
    counts = np.array([(a, b, n - a - b) for a, b in outcomes])
    for first, second in settings():
        chance = scipy.stats.multinomial.pmf(counts, n, [first, second, 1 - first - second])
        if chance.sum() > 0.999:  # else it is the bootstrap's, too
            assert chance[(low <= first - second) & (first - second <= high)].sum() > 0.93, (first, second)


def test_bonett_and_prices_by_hand():
    found = paired_bootstrap([1, 1, 1, 0], [0, 0, 0, 1])
    p, q = 4 / 6, 2 / 6
    reach = 1.959963984540054 * np.sqrt((p + q - (p - q) ** 2) / 6)
    assert (found.difference, found.low, found.high) == pytest.approx((0.5, p - q - reach, min(1, p - q + reach)))
    assert paired_bootstrap([1] * 3, [0] * 3).high == 1
    shares = paired_bootstrap([0.5, 0.25, 1], [0.0, 0.5, 0.0])  # no right answers: resampled
    assert (shares.low, shares.high) == pytest.approx((-0.25, 1))


def test_models_that_answer_alike_may_still_differ():
    found = paired_bootstrap([1, 0, 1, 1], [1, 0, 1, 1])
    assert found.difference == 0 and -found.low == found.high > 0.4
    n, truth, held = 100, 0.01, 0
    for only_first in np.random.default_rng(8).binomial(n, truth, size=300):
        found = paired_bootstrap(np.arange(n) < only_first, np.zeros(n), samples=500)
        held += found.low <= truth <= found.high
    assert held / 300 > 0.94  # by resampling alone: 0.63


def test_bootstrap_of_many_confidences_needs_little_memory():
    one, two = np.random.default_rng(5).random((2, 50_000))
    tracemalloc.start()
    paired_bootstrap(one, two, samples=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6  # all at once: 80 MB


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1, 0], [1, 0, 1], "different lengths: first 2, second 3"),
        ([], [], "at least one"),
        ([[1, 0]], [[1, 0]], r"one dimension.*\(1, 2\)"),
        ([1, 0], [0.5, np.nan], "second must lie in 0…1, not nan"),
        ([1, 55.2], [1, 0], "first must lie in 0…1, not 55.2"),
    ],
)
def test_pairs_that_are_none(first, second, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(first, second)
    with pytest.raises(ValueError, match="samples must be at least 1, not 0"):
        paired_bootstrap([1], [0], samples=0)


# -- calibration -------------------------------------------------------------------------------------------------


def slow_ece(confidence, correct, bins):
    total = 0.0
    for m in range(1, bins + 1):
        low, high = (m - 1) / bins, m / bins
        here = [i for i, c in enumerate(confidence) if low < c <= high or (m == 1 and c == 0)]
        if here:
            gap = sum(correct[i] for i in here) / len(here) - sum(confidence[i] for i in here) / len(here)
            total += len(here) / len(confidence) * abs(gap)
    return total


@pytest.mark.parametrize("bins", [1, 2, 7, 10, 15, 100])
def test_ece_is_the_slow_loops(bins):
    rng = np.random.default_rng(bins)
    confidence = np.concatenate([rng.random(300), np.arange(bins + 1) / bins, np.linspace(0, 1, 11)])
    correct = rng.random(len(confidence)) < confidence**2
    found = expected_calibration_error(confidence, correct, bins)
    assert found == pytest.approx(slow_ece(confidence.tolist(), correct.tolist(), bins), abs=1e-12)


def test_calibration_by_hand():
    rows = calibration_bins([0.0, 0.25, 0.26, 0.5, 1.0, 1.0], [False, True, False, True, True, False], bins=4)
    assert [(row.low, row.high, row.n) for row in rows] == [(0, 0.25, 2), (0.25, 0.5, 2), (0.5, 0.75, 0), (0.75, 1, 2)]
    assert [row.confidence for row in rows] == [0.125, 0.38, None, 1.0]
    assert [row.accuracy for row in rows] == [0.5, 0.5, None, 0.5]
    assert [row.interval for row in rows] == [wilson(1, 2), wilson(1, 2), None, wilson(1, 2)]
    # 2/6 · (0.375 + 0.12 + 0.5)
    found = expected_calibration_error([0.0, 0.25, 0.26, 0.5, 1.0, 1.0], [0, 1, 0, 1, 1, 0], bins=4)
    assert found == pytest.approx(0.995 / 3)


def test_a_model_that_knows_how_sure_it_is():
    rng = np.random.default_rng(6)
    confidence = rng.random(100_000)
    assert expected_calibration_error(confidence, rng.random(100_000) < confidence) < 0.01
    assert expected_calibration_error(np.ones(4), np.zeros(4)) == 1.0
    assert len(calibration_bins(confidence, np.ones(100_000, bool))) == 15


@pytest.mark.parametrize(
    ("confidence", "correct", "bins", "message"),
    [
        ([0.5], [1, 0], 15, "different lengths: confidence 1, correct 2"),
        ([], [], 15, "at least one"),
        ([np.nan], [1], 15, "confidence must lie in 0…1, not nan"),
        ([1.5], [1], 15, "confidence must lie in 0…1, not 1.5"),
        ([0.5], [0.5], 15, "only 0 and 1"),
        ([0.5], [1], 0, "bins must be at least 1, not 0"),
    ],
)
def test_confidences_that_are_none(confidence, correct, bins, message):
    for function in (calibration_bins, expected_calibration_error):
        with pytest.raises(ValueError, match=message):
            function(confidence, correct, bins)


# -- one number from many ----------------------------------------------------------------------------------------


def test_area_under():
    assert area_under([1, 1, 1, 1, 1, 1], range(6)) == 1.0
    assert area_under([1, 0], [0, 5]) == 0.5
    assert area_under([0.9, 0.8, 0.5, 0.1], [0, 1, 2, 4]) == pytest.approx((0.85 + 0.65 + 0.6) / 4)
    values = np.random.default_rng(7).random(6)
    assert area_under(values, range(6)) == pytest.approx(np.trapezoid(values) / 5)


@pytest.mark.parametrize(
    ("values", "severities", "message"),
    [
        ([1], [0], "at least 2"),
        ([], [], "at least 2"),
        ([1, 1, 1], [0, 1], "as many values as severities"),
        ([1, np.nan], [0, 1], "finite"),
        ([1, 1, 1], [0, 1, 1], "must rise"),
        ([1, 1], [5, 0], "must rise"),
    ],
)
def test_curves_that_are_none(values, severities, message):
    with pytest.raises(ValueError, match=message):
        area_under(values, severities)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (1, 0), (4, 0), (8, 0), (3, 11), (40, 25), (300, 240), (999, 900)])
def test_of_right_answers_the_sign_flip_test_is_mcnemars(a, b):
    differences = np.array([1] * a + [-1] * b + [0] * 50)
    assert sign_flip(differences) == pytest.approx(mcnemar(a, b), rel=1e-9)


def test_the_sign_flip_test_counts_every_way_to_toss_the_signs():
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 11):
        for _ in range(5):
            differences = rng.integers(-10, 11, n)
            signs = np.array(list(itertools.product((-1, 1), repeat=n)))
            wanted = (np.abs(signs @ np.abs(differences)) >= abs(differences.sum())).mean()
            assert sign_flip(differences) == pytest.approx(wanted)


def test_the_normal_distribution_takes_over_where_there_are_many(monkeypatch):
    differences = np.random.default_rng(1).integers(-10, 12, 300)
    exact = sign_flip(differences)
    monkeypatch.setattr(stats, "EXACT", 100)
    assert sign_flip(differences) == pytest.approx(exact, rel=0.05)
    for wrong in ([0.5], [[1]], [float("nan")]):
        with pytest.raises(ValueError, match="whole numbers"):
            sign_flip(wrong)
