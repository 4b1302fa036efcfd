"""The fractal map against whole-array NumPy, by hand, and as a fractal."""

import numpy as np
import pytest

from hw4fast import kernels
from hw4fast.kernels import plasma as card
from hw4fast.kernels.noise import uniform
from tests.kernels.comparing import calls_during, error
from tests.kernels.walls import walled

SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


@pytest.mark.parametrize("decay", [0.1, 0.5, 1, 1.4, 1.7, 2, 3, 20, 1000])
@pytest.mark.parametrize("size", SIZES)
def test_agrees_with_the_reference(size, decay):
    heights = card.plasma(size, decay, 7)
    assert heights.shape == (size, size) and heights.dtype == np.float32
    assert error(heights, card.plasma_reference(size, decay, 7)) < 2e-6
    if size > 1:
        assert heights.min() == 0 and heights.max() == 1


def test_four_points_by_hand():
    a, b, c = (1e4 * (2 * float(draw) - 1) for draw in uniform(3, 5))
    middle = a
    side = (2 * middle + 2 * 0) / 4
    heights = np.array([[0, side + b], [side + c, middle]])
    heights = (heights - heights.min()) / np.ptp(heights)
    np.testing.assert_allclose(card.plasma(2, 2, 5), heights, atol=1e-6)


def test_opposite_sides_are_neighbours():
    """Steps across the border are as small as steps inside."""
    heights = card.plasma(256, 3, 1).astype(np.float64)
    for axis in (0, 1):
        steps = np.abs(heights - np.roll(heights, 1, axis)).mean(1 - axis)
        assert steps[0] < 3 * np.median(steps)


def test_a_greater_decay_is_smoother():
    roughness = [np.abs(np.diff(card.plasma(256, decay, 3), axis=0)).mean() for decay in (1, 1.4, 2, 3, 10)]
    assert roughness == sorted(roughness, reverse=True)


def test_keys_give_other_maps():
    maps = [card.plasma(64, 2, key).ravel() for key in (0, 1, 2**63, 2**64 - 1)]
    assert np.abs(np.corrcoef(maps) - np.eye(4)).max() < 0.9
    assert len({map.tobytes() for map in maps}) == 4
    assert np.array_equal(card.plasma(64, 2, 1), maps[1].reshape(64, 64))


@pytest.mark.parametrize("isa", kernels.isas())
def test_the_same_bytes_on_every_instruction_set(isa, monkeypatch):
    wanted = card.plasma(128, 1.7, 9)
    monkeypatch.setenv("HW4FAST_ISA", isa)
    assert np.array_equal(card.plasma(128, 1.7, 9), wanted)


def test_the_one_variant_is_what_runs():
    calls = calls_during("plasma", lambda: card.variants()["cpp-baseline"](4, 2.0, 1))
    assert {isa for isa, number in calls.items() if number} == {"baseline"}


@pytest.mark.parametrize("size", [0, -1, 3, 100, 2**15, -(2**15)])
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match="size must be a power of two, 1 … 16384"):
        card.plasma(size, 2, 1)


def test_bad_input_raises():
    for decay in (0.05, 0, -2, 1001, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"decay must lie in 0.1 … 1000"):
            card.plasma(8, decay, 1)
    for arguments in ((8.0, 2, 1), (8, "two", 1), (8, 2, -1), (8, 2, 2**64), (8, 2, 1.5), (None, 2, 1)):
        with pytest.raises(TypeError):
            card.plasma(*arguments)


def test_no_memory_beside_the_arrays_is_touched():
    for size in (1, 2, 8, 32):
        draws = uniform(max(size * size - 1, 1), 3)  # one is left over
        for heights, given in walled(np.zeros((size, size), np.float32), draws):
            kernels.compiled().plasma(heights.ctypes.data, given.ctypes.data, size, 2.0)
            assert np.array_equal(heights, card.plasma(size, 2.0, 3))


def test_the_compiled_function_refuses_what_would_leave_its_memory():
    heights = np.zeros((4, 4), np.float32)
    good = {"map": heights.ctypes.data, "draws": heights.ctypes.data, "size": 4, "decay": 2.0}
    for change in ({"size": -4}, {"size": 0}, {"size": 3}, {"size": 2**40}, {"size": -(2**63)}, {"map": 0},
                   {"draws": 0}, {"decay": 0.0}):  # fmt: skip
        with pytest.raises(ValueError, match="plasma"):
            kernels.compiled().plasma(**{**good, **change})
