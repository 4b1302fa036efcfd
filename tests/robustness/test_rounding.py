"""One rule for every percentage: halves go up."""

from __future__ import annotations

import pytest

from hw4fast.robustness.findings import points, share
from hw4fast.stats import half_up


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(12.5, 0, "13"), (13.5, 0, "14"), (100 * 0.145, 0, "15"), (0.25, 1, "0.3"), (0.35, 1, "0.4"), (2, 1, "2.0")],
)
def test_halves_go_up(value, digits, text):
    assert half_up(value, digits) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(1 / 16, 1, "6.3"), (1 / 8, 0, "13"), (0.9996, 1, "> 99.9"), (0.0004, 1, "< 0.1"), (1, 1, "100.0"), (0, 0, "0")],
)
def test_shares(value, digits, text):
    assert share(value, digits).replace("\u00a0", " ") == f"{text} %"


@pytest.mark.parametrize(("value", "text"), [(1 / 16, "+6.3"), (-1 / 16, "-6.3"), (0.0, "0.0"), (-1e-5, "0.0")])
def test_differences(value, text):
    assert points(value) == text
