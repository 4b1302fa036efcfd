"""Wilson's interval against scipy's, and how it is told."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest, norm

from hw4fast.stats import percent, wilson

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


def test_percent():
    assert percent(9912, 10000) == "99.12 % (95 % interval 98.92 … 99.29, 9912 of 10000)"
    assert percent(0, 0) == "0.00 % (95 % interval 0.00 … 100.00, 0 of 0)"
