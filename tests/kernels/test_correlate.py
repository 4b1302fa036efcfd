"""Correlation with taps on every instruction set: the documented bytes, scipy's values, no other memory."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hw4fast import kernels
from hw4fast.kernels import correlate as card
from hw4fast.transforms import parse
from hw4fast.transforms.blur import disk
from tests.kernels.arrays import misaligned
from tests.kernels.comparing import calls_during
from tests.kernels.walls import walled

CASES = list(card.cases())
ISAS = kernels.isas()
SCIPY = {"mirror": "mirror", "edge": "nearest"}


def assert_right(picture, rows, columns, weights, border, rounding):
    """The same bytes from all: those of the sum in fixed point, and beside the exact value, rounded the same way, by at
    most 1."""
    results = [card.correlate(picture, rows, columns, weights, border, rounding, isa=isa) for isa in ISAS]
    assert results[0].dtype == np.uint8 and results[0].flags.c_contiguous
    for isa, result in zip(ISAS, results, strict=True):
        np.testing.assert_array_equal(result, results[0], err_msg=isa)
    fixed, unit = card.in_fixed_point(np.asarray(weights))
    half = 2 ** (unit - 1) if rounding == "nearest" else 0
    sums = card.correlate_reference(picture, rows, columns, fixed, border)  # whole numbers: exact in float64
    np.testing.assert_array_equal(results[0], np.floor((sums + half) / 2**unit))
    exact = card.correlate_reference(picture, rows, columns, weights, border)
    rounded = np.floor(exact + (0.5 if rounding == "nearest" else 0) + 1e-9)
    assert np.abs(results[0] - rounded).max(initial=0) <= 1
    return results[0]


@pytest.mark.parametrize("rounding", card.ROUNDINGS)
@pytest.mark.parametrize("border", card.BORDERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_the_references(case, border, rounding):
    picture, rows, columns, weights = case.make()
    before = [array.copy() for array in (picture, rows, columns, weights)]
    assert assert_right(picture, rows, columns, weights, border, rounding).shape == case.shape
    for now, then in zip((picture, rows, columns, weights), before, strict=True):
        assert np.array_equal(now, then)


@pytest.mark.parametrize("border", card.BORDERS)
@pytest.mark.parametrize(("shape", "size"), [((31, 22, 3), (7, 5)), ((4, 3, 1), (15, 13)), ((1, 9, 4), (3, 3))])
def test_the_reference_is_scipys(shape, size, border):
    rng = np.random.default_rng(shape)
    picture, kernel = rng.integers(0, 256, shape, np.uint8), rng.random(size)
    rows, columns = (axis.ravel() for axis in np.indices(size))
    places = rows - size[0] // 2, columns - size[1] // 2
    kernel /= kernel.sum()
    theirs = ndimage.correlate(picture.astype(np.float64), kernel[..., None], mode=SCIPY[border])
    np.testing.assert_allclose(card.correlate_reference(picture, *places, kernel.ravel(), border), theirs, atol=1e-9)
    assert np.abs(card.correlate(picture, *places, kernel.ravel(), border) - theirs).max() <= 0.5 + 0.2


@settings(max_examples=300, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 50), st.integers(1, 90), st.integers(1, 4)),
    taps=st.lists(st.tuples(st.integers(-60, 60), st.integers(-60, 60), st.floats(0, 1)), min_size=1, max_size=40),
    share=st.floats(0, 1) | st.just(1.0),
    border=st.sampled_from(card.BORDERS),
    rounding=st.sampled_from(card.ROUNDINGS),
    extreme=st.booleans(),
)
def test_any_taps_of_any_picture(shape, taps, share, border, rounding, extreme):
    picture = np.random.default_rng(shape).integers(0, 256, shape, np.uint8)
    if extreme:  # black and white alone: the largest sums
        picture = (picture > 127).astype(np.uint8) * 255
    rows, columns, weights = map(np.array, zip(*taps, strict=True))
    weights = weights / weights.sum() * share if weights.sum() > 0 else weights
    assert_right(picture, rows, columns, weights, border, rounding)


STEP = np.repeat(np.repeat([[[0]], [[255]]], 80, 0), 120, 1).astype(np.uint8)


@pytest.mark.parametrize("border", card.BORDERS)
@pytest.mark.parametrize("radius", [10, 14, 18.2, 33.4, 60])
def test_of_many_taps_the_sum_is_as_exact_as_of_few(radius, border):
    """Each of 12,000 taps weighs three units of 2^-15: where they were short the upper ones were given one more, which
    was wrong by 5 grey levels beside an edge."""
    rows, columns, weights, _ = disk(radius, 0.5)
    exact = card.correlate_reference(STEP, rows, columns, weights, border)
    assert np.abs(card.correlate(STEP, rows, columns, weights, border) - exact).max() < 1
    down = card.correlate(STEP, rows, columns, weights, border, "down")
    assert np.abs(down - np.floor(exact + 1e-9)).max() <= 1


@pytest.mark.parametrize("rounding", card.ROUNDINGS)
@pytest.mark.parametrize("border", card.BORDERS)
@pytest.mark.parametrize("shape", [(61, 40, 3), (7, 90, 1), (1, 1, 4), (33, 2, 2)])
def test_sums_by_fourier_transforms_are_whole_numbers(shape, border, rounding, monkeypatch):
    """The bytes of the sum in fixed point, in one piece or in many; taps to one side, and far beyond the picture."""
    rng = np.random.default_rng(shape)
    for picture in (rng.integers(0, 256, shape, np.uint8), np.full(shape, 255, np.uint8)):
        rows, columns = rng.integers(-5, 70, 1500), rng.integers(-90, 3, 1500)
        weights = rng.random(1500) ** 3
        weights /= weights.sum()
        monkeypatch.setattr(card, "_unit", lambda *_: 26)
        fixed, _ = card.in_fixed_point(weights, 26)
        half = 2**25 if rounding == "nearest" else 0
        wanted = np.floor((card.correlate_reference(picture, rows, columns, fixed, border) + half) / 2**26)
        for long in (1024, 16):
            monkeypatch.setattr(card, "LONG", long)
            found = card.correlate(picture, rows, columns, weights, border, rounding)
            np.testing.assert_array_equal(found, wanted)


def test_the_unit_leaves_room_for_the_transforms_errors():
    heavy = np.array([0.999, *[1e-3 / 9999] * 9999])
    even = np.full(500_000, 2e-6)
    assert card._unit(even, (2400, 2400)) == 30 and 20 <= card._unit(heavy, (10_000, 10_000)) < 24
    picture = np.random.default_rng(0).integers(0, 256, (300, 280, 1), np.uint8)
    rows, columns = np.random.default_rng(1).integers(-40, 41, (2, 10_000))
    fixed, unit = card.in_fixed_point(heavy, card._unit(heavy, (400, 400)))
    taps = np.zeros((81, 81))
    np.add.at(taps, (rows + 40, columns + 40), fixed)
    sums = ndimage.correlate(picture[..., 0].astype(np.float64), taps, mode="mirror")  # whole numbers below 2^53
    found = card.correlate(picture, rows, columns, heavy, rounding="down")
    np.testing.assert_array_equal(found[..., 0], np.floor(sums / 2**unit))


def test_lengths_of_transforms():
    for n in (1, 2, 7, 11, 31, 97, 1000, 1021, 2304):
        fast = card._fast(n)
        assert n <= fast < 1.25 * n + 2
        for prime in (2, 3, 5):
            while fast % prime == 0:
                fast //= prime
        assert fast == 1


def test_a_large_picture_far_out_of_focus_takes_seconds_not_minutes():
    picture = np.random.default_rng(0).integers(0, 256, (900, 1000, 3), np.uint8)
    began = time.perf_counter()
    assert np.abs(parse("defocus_blur60")(picture)[450, 500] - 127.0).max() < 3
    assert time.perf_counter() - began < 5  # by taps it takes 9 s with AVX-512


def test_fixed_weights_keep_their_sum():
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 31, 150, 1000):
        for share in (0.0, 1e-6, 0.3, 1.0):
            weights = rng.random(n)
            weights *= share / weights.sum()
            fixed, unit = card.in_fixed_point(weights)
            assert fixed.sum() == round(share * 2**unit) and fixed.min() >= 0 and fixed.max() < 2**15
            assert np.abs(fixed / 2**unit - weights).max() < 2.0**-unit


def test_what_is_seen_at_once():
    picture = np.random.default_rng(0).integers(0, 256, (11, 14, 3), np.uint8)
    assert np.array_equal(card.correlate(picture, [0], [0], [1.0]), picture)
    assert np.array_equal(card.correlate(picture, [0, 0], [0, 0], [0.25, 0.75]), picture)
    assert np.array_equal(card.correlate(picture, [1], [2], [1.0], "edge")[:-1, :-2], picture[1:, 2:])
    assert np.array_equal(card.correlate(picture, [-1], [0], [1.0], "mirror")[0], picture[1])
    assert np.array_equal(card.correlate(picture, [4096], [-4096], [1.0], "edge")[3, 5], picture[-1, 0])
    assert not card.correlate(picture, [0, 3], [1, 4], [0.0, 0.0]).any()
    flat = np.full((9, 9, 3), 255, np.uint8)
    rng = np.random.default_rng(1)
    for taps in (1, 3, 70, 2000):
        weights = rng.random(taps)
        for rounding in card.ROUNDINGS:
            places = rng.integers(-9, 10, (2, taps))
            assert (card.correlate(flat, *places, weights / weights.sum(), rounding=rounding) == 255).all()


@pytest.mark.parametrize("isa", ISAS)
def test_the_forced_variant_is_the_one_that_ran(isa):
    arguments = CASES[0].make()
    wanted = {i: int(i == isa) for i in ISAS}
    assert calls_during("correlate", lambda: card.variants()[f"cpp-{isa}"](*arguments)) == wanted


def test_any_strides_and_empty_pictures():
    picture, *taps = card.Case("strides", (20, 31, 3), 5, 20).make()
    wanted = card.correlate(picture, *taps)
    views = {
        "upside down": picture[::-1].copy()[::-1],
        "every second row": np.repeat(picture, 2, 0)[::2],
        "every second pixel": np.repeat(picture, 2, 1)[:, ::2],
        "within a larger one": np.pad(picture, ((2, 3), (4, 5), (0, 0)))[2:-3, 4:-5],
        "channels first": np.ascontiguousarray(picture.transpose(2, 0, 1)).transpose(1, 2, 0),
        "misaligned": misaligned(picture),
        "read-only": picture.copy(),
    }
    views["read-only"].flags.writeable = False
    for name, view in views.items():
        assert np.array_equal(view, picture), name
        np.testing.assert_array_equal(card.correlate(view, *taps), wanted, err_msg=name)
    row = np.broadcast_to(picture[:1], (20, 31, 3))  # rows 0 bytes apart
    assert np.array_equal(card.correlate(row, *taps), card.correlate(row.copy(), *taps))
    many = [np.resize(values, 5000) for values in (*taps[:2], taps[2] * 20 / 5000)]
    for shape in ((0, 5, 3), (5, 0, 3), (0, 0, 1)):
        for some in (taps, many):
            assert card.correlate(np.zeros(shape, np.uint8), *some).shape == shape


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(37, 31, 3), (37, 31, 1), (1, 5, 3), (5, 1, 1), (1, 1, 4), (9, 64, 2), (3, 128, 1)])
def test_no_memory_beside_the_arrays_is_touched(shape, isa):
    picture, *taps = card.Case("walls", shape, 6, 30).make()
    fixed, unit = card.in_fixed_point(taps[2])
    given = [taps[0].tolist(), taps[1].tolist(), fixed.tolist(), unit]
    wanted = card.correlate(picture, *taps)
    for source, output in walled(picture, np.zeros_like(picture)):
        addresses = source.ctypes.data, shape[1] * shape[2], output.ctypes.data
        kernels.compiled().correlate(*addresses, shape, *given, True, True, isa)
        np.testing.assert_array_equal(output, wanted)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"picture": np.zeros((8, 8), np.uint8)}, ValueError, r"\[h, w, 1 … 4\]"),
        ({"picture": np.zeros((8, 8, 5), np.uint8)}, ValueError, r"\[h, w, 1 … 4\]"),
        ({"picture": np.zeros((8, 8, 0), np.uint8)}, ValueError, r"\[h, w, 1 … 4\]"),
        ({"picture": np.zeros((8, 8, 3), np.float32)}, TypeError, "uint8"),
        ({"border": "reflect"}, ValueError, "border must be one of"),
        ({"rounding": "up"}, ValueError, "rounding one of"),
        ({"rows": [0]}, ValueError, "as many"),
        ({"rows": [], "columns": [], "weights": []}, ValueError, "weights must be"),
        ({"weights": [0.5]}, ValueError, "as many"),
        ({"weights": [[0.5], [0.5]]}, ValueError, "weights must be"),
        ({"weights": [0.5, -0.1]}, ValueError, "weights must not be negative"),
        ({"weights": [0.5, 0.6]}, ValueError, "nor their sum more than 1"),
        ({"weights": [0.5, float("nan")]}, ValueError, "finite"),
        ({"weights": [0.5, float("inf")]}, ValueError, "finite"),
        ({"weights": ["a", "b"]}, ValueError, "could not convert"),
        ({"rows": [0, 4097]}, ValueError, "too far"),
        ({"columns": [0, -4097]}, ValueError, "too far"),
        ({"columns": [0, -(2**63)]}, ValueError, "too far"),
        ({"columns": [0, 2**80]}, OverflowError, "too large"),
        ({"rows": [0] * 5000, "columns": [0] * 4999, "weights": [1e-4] * 5000}, ValueError, "as many"),
        ({"rows": [4097] * 5000, "columns": [0] * 5000, "weights": [1e-4] * 5000}, ValueError, "too far"),
        ({"rows": [0] * 5000, "columns": [-(2**63)] * 5000, "weights": [1e-4] * 5000}, ValueError, "too far"),
        ({"rows": [0] * 5000, "columns": [0] * 5000, "weights": [1e-3] * 5000}, ValueError, "nor their sum"),
        ({"rows": [0] * 5000, "columns": [0] * 5000, "weights": [float("nan")] * 5000}, ValueError, "finite"),
        ({"isa": "sse9"}, ValueError, "'sse9' is not to be had here"),
    ],
)
def test_bad_input_raises(change, kind, message):
    good = {"picture": np.zeros((8, 8, 3), np.uint8), "rows": [0, 1], "columns": [0, 1], "weights": [0.5, 0.5]}
    with pytest.raises(kind, match=message):
        card.correlate(**{**good, **change})


def test_the_compiled_function_refuses_what_would_leave_its_memory():
    picture = np.zeros((8, 8, 3), np.uint8)
    good = {"input": picture.ctypes.data, "stride": 24, "output": picture.copy().ctypes.data, "shape": (8, 8, 3)}
    good |= {"rows": [0], "columns": [0], "weights": [16384], "unit": 14, "mirrored": True, "nearest": True}
    for change in (
        {"shape": (-8, 8, 3)}, {"shape": (8, -8, 3)}, {"shape": (8, 8, 0)}, {"shape": (8, 8, 5)}, {"shape": (8, 8, -1)},
        {"shape": (-(2**63), 8, 3)}, {"input": 0}, {"output": 0}, {"rows": []}, {"rows": [0, 0]}, {"rows": [5000]},
        {"columns": [-5000]}, {"columns": [-(2**63)]}, {"weights": [-1]}, {"weights": [32768]}, {"weights": [16385]},
        {"unit": 0}, {"unit": 16}, {"unit": -1},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="correlate"):
            kernels.compiled().correlate(**{**good, **change})
