"""What changes each pixel by itself, on every instruction set: against colorsys and NumPy's float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw4fast import kernels
from hw4fast.kernels import pixels as card
from tests.kernels.arrays import misaligned
from tests.kernels.comparing import calls_during
from tests.kernels.walls import walled

CASES = list(card.cases())
ISAS = kernels.isas()
NUMBER = st.floats(-3, 3) | st.sampled_from([0.0, 1.0, -0.0, 1e6, -1e6])


def rounded_down(result, exact, error=0.005):
    """Whether bytes are the exact values, clipped and rounded down, where float32 lets one tell."""
    exact = np.clip(exact, 0, 255)
    return bool(np.all((result <= exact + error) & (result >= np.floor(exact - error))))


def picture_of(*shape):
    return np.random.default_rng(shape).integers(0, 256, shape, np.uint8)


def on_all(function, *arguments):
    """The one result of all instruction sets."""
    results = [function(*arguments, isa=isa) for isa in ISAS]
    for isa, result in zip(ISAS, results, strict=True):
        np.testing.assert_array_equal(result, results[0], err_msg=isa)
    assert results[0].dtype == np.uint8 and results[0].flags.c_contiguous
    return results[0]


# -- value and saturation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_the_reference_and_with_every_instruction_set(case):
    picture, factor, offset = case.make()
    before = picture.copy()
    result = on_all(card.scale_saturation, picture, factor, offset)
    assert result.shape == picture.shape
    assert rounded_down(result, card.scale_saturation_reference(picture, factor, offset))
    assert rounded_down(on_all(card.add_value, picture, offset), card.add_value_reference(picture, offset))
    assert np.array_equal(picture, before)


def cube():
    """Corners, edges and greys of the cube of colours, and what lies beside them: [n, 3]."""
    steps = np.array([0, 1, 2, 63, 127, 128, 200, 253, 254, 255], np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)


@pytest.mark.parametrize("offset", [-1, -0.5, -1 / 255, 0, 1 / 255, 0.1, 0.5, 1, 5])
def test_value_of_all_kinds_of_colours(offset):
    assert rounded_down(on_all(card.add_value, cube(), offset), card.add_value_reference(cube(), offset))


@pytest.mark.parametrize("factor", [0, 0.1, 0.3, 1, 2, 20, 1000])
@pytest.mark.parametrize("offset", [0, 0.2, -0.5, 1])
def test_saturation_of_all_kinds_of_colours(factor, offset):
    result = on_all(card.scale_saturation, cube(), factor, offset)
    assert rounded_down(result, card.scale_saturation_reference(cube(), factor, offset))


def test_what_changes_nothing_changes_nothing():
    colours = np.random.default_rng(0).integers(0, 256, (200_000, 3), np.uint8)
    assert np.array_equal(card.add_value(colours, 0.0), colours)
    assert np.array_equal(card.scale_saturation(colours, 1.0), colours)


def test_what_is_seen_at_once():
    colours = cube()
    assert (card.add_value(colours, 1.0).max(-1) == 255).all()
    assert not card.add_value(colours, -1.0).any()
    grey = card.scale_saturation(colours, 0.0)
    assert np.array_equal(grey, np.repeat(colours.max(-1, keepdims=True), 3, -1))
    assert card.scale_saturation(np.full((1, 3), 100, np.uint8), 1.0, 0.5).tolist() == [[100, 50, 50]]  # red
    assert card.add_value(np.zeros((1, 3), np.uint8), 0.2).tolist() == [[51, 51, 51]]


@settings(max_examples=100, deadline=None)
@given(shape=st.lists(st.integers(0, 9), max_size=3), factor=st.floats(0, 30), offset=st.floats(-1, 1))
def test_any_shape(shape, factor, offset):
    picture = picture_of(*shape, 3)
    result = on_all(card.scale_saturation, picture, factor, offset)
    assert result.shape == picture.shape
    assert rounded_down(result, card.scale_saturation_reference(picture, factor, offset))
    assert rounded_down(on_all(card.add_value, picture, offset), card.add_value_reference(picture, offset))


# -- veil, snow, tables ------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 70), st.integers(0, 9), st.sampled_from([1, 3])),
    numbers=st.tuples(NUMBER, NUMBER, NUMBER),
    covered=st.booleans(),
)
def test_a_veil(shape, numbers, covered):
    picture, rng = picture_of(*shape), np.random.default_rng(shape)
    cover = rng.random(shape[:2], np.float32) if covered else None
    colour = rng.uniform(0, 300, shape[2]).astype(np.float32)
    result = on_all(card.veil, picture, cover, colour.tolist(), *numbers)
    exact = card.veil_reference(picture, cover, colour, *numbers)
    assert rounded_down(result, exact, error=0.01 if max(map(abs, numbers)) < 4 else 100)
    layer = picture_of(*shape)[::-1]
    result = on_all(card.veil, picture, None, layer, numbers[0], 0.0, numbers[2])
    exact = card.veil_reference(picture, None, layer, numbers[0], 0.0, numbers[2])
    assert rounded_down(result, exact, error=0.01 if max(map(abs, numbers)) < 4 else 100)


@settings(max_examples=200, deadline=None)
@given(shape=st.tuples(st.integers(0, 70), st.integers(0, 9), st.sampled_from([1, 3])), kept=st.floats(0, 1))
def test_snow(shape, kept):
    picture = picture_of(*shape)
    flakes = np.random.default_rng(1).integers(0, 256, shape[:2], np.uint8) // 3
    result = on_all(card.snowed, picture, flakes, kept)
    assert rounded_down(result, card.snowed_reference(picture, flakes, kept))
    assert np.array_equal(on_all(card.snowed, picture, flakes * 0, 1.0), picture)


@settings(max_examples=50, deadline=None)
@given(shape=st.tuples(st.integers(0, 40), st.integers(0, 9), st.sampled_from([1, 3])), own=st.booleans())
def test_tables(shape, own):
    picture = picture_of(*shape)
    tables = np.random.default_rng(2).integers(0, 256, (shape[2], 256) if own else 256, np.uint8)
    wanted = np.empty_like(picture)
    for channel in range(shape[2]):
        wanted[..., channel] = (tables[channel] if own else tables)[picture[..., channel]]
    assert np.array_equal(card.look_up(picture, tables), wanted)


# -- memory, variants, what can't be done ------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
def test_the_forced_variant_is_the_one_that_ran(isa):
    picture, factor, offset = CASES[0].make()
    wanted = {i: int(i == isa) for i in ISAS}
    assert calls_during("pixels", lambda: card.variants()[f"cpp-{isa}"](picture, factor, offset)) == wanted


def test_any_strides():
    picture, cover = picture_of(20, 31, 3), np.random.default_rng(0).random((20, 31), np.float32)
    flakes = picture_of(20, 31)
    views = (np.asfortranarray, lambda a: np.repeat(a, 2, 1)[:, ::2], lambda a: a[::-1].copy()[::-1], misaligned)
    for view in views:
        other = view(picture)
        assert np.array_equal(card.add_value(other, 0.2), card.add_value(picture, 0.2))
        wanted = card.veil(picture, cover, [1, 2, 3], 0.5, 0.2, 0.9)
        assert np.array_equal(card.veil(other, view(cover), [1, 2, 3], 0.5, 0.2, 0.9), wanted)
        wanted = card.veil(picture, None, picture[::-1], 0.5, amount=0.3)
        assert np.array_equal(card.veil(other, None, view(picture[::-1]), 0.5, amount=0.3), wanted)
        assert np.array_equal(card.snowed(other, view(flakes), 0.7), card.snowed(picture, flakes, 0.7))
        assert np.array_equal(card.look_up(other, np.arange(256, dtype=np.uint8)), picture)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 63, 64, 65, 130])
def test_no_memory_beside_the_arrays_is_touched(n, c, isa):
    picture, layer, flakes = picture_of(n, 1, c), picture_of(n, 1, c)[::-1], picture_of(n, 1)
    cover = np.random.default_rng(n).random((n, 1), np.float32)
    tables = picture_of(c, 256)
    given = (picture, layer, flakes, cover, tables, np.zeros_like(picture))
    module = kernels.compiled()
    for arrays in walled(*given):
        at, over, falling, thick, table, output = (array.ctypes.data for array in arrays)
        if c == 3:
            for saturates in (False, True):
                module.hsv(at, output, n, saturates, 2.0, 0.1, isa)
        for covered in (0, thick):
            module.veil(at, output, n, c, covered, 0, [9.0] * c, 0.5, 0.1, 1.0, isa)
        module.veil(at, output, n, c, 0, over, [], 0.5, 0.0, 1.0, isa)
        module.snow(at, output, n, c, falling, 0.5, isa)
        assert np.array_equal(arrays[-1], card.snowed(picture, flakes, 0.5))
        module.look_up(at, output, n, c, table)
        assert np.array_equal(arrays[-1], card.look_up(picture, tables))


PICTURE, COVER = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.float32)
NAN = float("nan")


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: card.add_value(PICTURE.astype(float), 0.1), TypeError, "uint8"),
        (lambda: card.add_value(PICTURE[..., :1], 0.1), ValueError, r"\[..., 3\]"),
        (lambda: card.add_value(np.array(1, np.uint8), 0.1), ValueError, r"\[..., 3\]"),
        (lambda: card.add_value(PICTURE, NAN), ValueError, "within a million"),
        (lambda: card.add_value(PICTURE, float("inf")), ValueError, "within a million"),
        (lambda: card.add_value(PICTURE, 1e300), ValueError, "within a million"),
        (lambda: card.add_value(PICTURE, "much"), TypeError, "incompatible"),
        (lambda: card.scale_saturation(PICTURE, NAN), ValueError, "within a million"),
        (lambda: card.scale_saturation(PICTURE, 1.0, isa="sse9"), ValueError, "'sse9' is not to be had here"),
        (lambda: card.veil(PICTURE.astype(int), None, [1, 2, 3]), TypeError, "uint8"),
        (lambda: card.veil(PICTURE[0], None, [1, 2, 3]), ValueError, r"\[h, w, 1 or 3\]"),
        (lambda: card.veil(PICTURE[..., :2], None, [1, 2]), ValueError, r"\[h, w, 1 or 3\]"),
        (lambda: card.veil(PICTURE, None, [1, 2]), ValueError, "3 numbers, not 2"),
        (lambda: card.veil(PICTURE, None, [1, 2, NAN]), ValueError, "within a million"),
        (lambda: card.veil(PICTURE, COVER.astype(float), [1, 2, 3]), TypeError, "cover must be float32"),
        (lambda: card.veil(PICTURE, COVER[:3], [1, 2, 3]), ValueError, r"cover must be \[4, 5\], not \[3, 5\]"),
        (lambda: card.veil(PICTURE, None, PICTURE[:3]), ValueError, "a layer must be"),
        (lambda: card.veil(PICTURE, None, PICTURE.astype(float)), TypeError, "a layer must be uint8"),
        (lambda: card.veil(PICTURE, COVER, PICTURE), ValueError, "a layer has no cover"),
        (lambda: card.veil(PICTURE, None, PICTURE, shadow=0.5), ValueError, "a layer has no cover"),
        (lambda: card.veil(PICTURE, None, [1, 2, 3], kept=NAN), ValueError, "within a million"),
        (lambda: card.veil(PICTURE, None, PICTURE, amount=1e9), ValueError, "within a million"),
        (lambda: card.snowed(PICTURE, COVER, 0.5), TypeError, "flakes must be uint8"),
        (lambda: card.snowed(PICTURE, PICTURE[:3, :, 0], 0.5), ValueError, "flakes must be"),
        (lambda: card.snowed(PICTURE, PICTURE[..., 0], NAN), ValueError, "within a million"),
        (lambda: card.look_up(PICTURE, np.zeros(255, np.uint8)), ValueError, "broadcast"),
        (lambda: card.look_up(PICTURE, np.zeros((2, 256), np.uint8)), ValueError, "broadcast"),
        (lambda: card.look_up(PICTURE, np.zeros(256)), TypeError, "tables must be uint8"),
    ],
)
def test_bad_input_raises(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_the_compiled_functions_refuse_what_would_leave_their_memory():
    module, at = kernels.compiled(), PICTURE.copy().ctypes.data
    calls = {
        "hsv": lambda input, output, n, c: module.hsv(input, output, n, True, 1.0, 0.0),
        "veil": lambda input, output, n, c: module.veil(input, output, n, c, 0, 0, [0.0] * max(c, 0), 1.0, 0.0, 1.0),
        "snow": lambda input, output, n, c: module.snow(input, output, n, c, at, 1.0),
        "look_up": lambda input, output, n, c: module.look_up(input, output, n, c, at),
    }
    for name, call in calls.items():
        for bad in ((0, at, 20, 3), (at, 0, 20, 3), (at, at, -1, 3), (at, at, -(2**63), 3)):
            with pytest.raises(ValueError, match="pixels"):
                call(*bad)
        for c in (-1, 0, 2, 4):
            if name != "hsv":
                with pytest.raises(ValueError, match="bad shape"):
                    call(at, at, 4, c)
    with pytest.raises(ValueError, match="snow was given an array without memory"):
        module.snow(at, at, 20, 3, 0, 1.0)
    with pytest.raises(ValueError, match="look_up was given an array without memory"):
        module.look_up(at, at, 20, 3, 0)
