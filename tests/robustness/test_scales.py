"""The numbers at the axes of drawings are round ones, and stand where they belong."""

from __future__ import annotations

import pytest

from hw4fast.robustness.scales import MOST, axis_name, round_ticks, share_of
from hw4fast.transforms import TRANSFORMS
from hw4fast.transforms.spec import Sweep

SWEEPS = {name: TRANSFORMS.get(name).sweep for name in TRANSFORMS if TRANSFORMS.get(name).sweep}


@pytest.mark.parametrize("name", SWEEPS)
def test_every_transforms_ticks_are_round_and_within_its_sweep(name):
    sweep = SWEEPS[name]
    ticks = round_ticks(sweep)
    assert 3 <= len(ticks) <= MOST and ticks == sorted(set(ticks))
    assert all(-1e-9 <= share_of(sweep, value) <= 1 + 1e-9 for value in ticks)
    assert all(len(f"{value:g}".replace(".", "").strip("0")) <= 2 for value in ticks)


@pytest.mark.parametrize(
    ("sweep", "ticks"),
    [
        (Sweep(0, 4.99), [0, 1, 2, 3, 4]),
        (Sweep(1, 0), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Sweep(1, 50, True), [1, 2, 5, 10, 20, 50]),
        (Sweep(1, 0.01, True), [0.01, 0.03, 0.1, 0.3, 1]),
        (Sweep(1e-4, 1e6, True), [1e-4, 1e-2, 1, 100, 1e4, 1e6]),
        (Sweep(1.01, 3, True), [1.5, 2, 2.5, 3]),
        (Sweep(-0.25, 0.25), [-0.2, -0.1, 0, 0.1, 0.2]),
    ],
)
def test_ticks(sweep, ticks):
    assert round_ticks(sweep) == ticks


@pytest.mark.parametrize("name", SWEEPS)
def test_a_share_of_a_sweep_is_the_inverse_of_its_values(name):
    for share in (0, 0.3, 1):
        assert share_of(SWEEPS[name], SWEEPS[name].at(share)) == pytest.approx(share)


def test_no_word_stands_twice_at_an_axis():
    assert axis_name("sigma", "px") == "sigma, px"
    assert axis_name("degrees", "degrees") == "degrees"
    assert axis_name("degrees", "degrees to the right") == "degrees to the right"
    assert axis_name("factor", "") == "factor"
