"""Fields above a threshold and the light on drops: the reference's values on every instruction set, and OpenCV's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw4fast import kernels
from hw4fast.kernels import drops as card
from tests.kernels.comparing import calls_during
from tests.kernels.walls import walled

CASES = list(card.cases())
ISAS = kernels.isas()


def assert_right(grey):
    results = [card.drops(grey, isa=isa) for isa in ISAS]
    assert results[0].dtype == np.float32 and results[0].shape == grey.shape
    for isa, result in zip(ISAS, results, strict=True):
        np.testing.assert_array_equal(result, results[0], err_msg=isa)
    np.testing.assert_allclose(results[0], card.drops_reference(grey), rtol=2e-7, atol=0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_drops_are_the_references(case):
    (grey,) = case.make()
    before = grey.copy()
    assert_right(grey)
    assert np.array_equal(grey, before)


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 70)), kind=st.sampled_from(("noise", "steps", "sparse", "flat"))
)
def test_drops_of_any_picture(shape, kind):
    rng = np.random.default_rng(shape)
    grey = rng.integers(0, 256, shape, np.uint8)
    if kind == "steps":
        grey = np.sort(grey // 85 * 85, axis=1)
    elif kind == "sparse":
        grey *= (rng.random(shape) < 0.02).astype(np.uint8)
    elif kind == "flat":
        grey[:] = grey[0, 0]
    assert_right(grey)


@pytest.mark.parametrize("case", [*CASES[::3], *card.BENCHMARK_CASES], ids=lambda case: case.name)
def test_drops_are_opencvs(case):
    """Its distances count in units of 2^−16, these in 2^−10: a nearly whole mean may be rounded otherwise."""
    cv2 = pytest.importorskip("cv2")
    (grey,) = case.make()
    distance = cv2.distanceTransform(255 - cv2.Canny(grey, 50, 150), cv2.DIST_L2, 5)
    distance = cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8)
    relief = cv2.filter2D(cv2.equalizeHist(distance), cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    theirs = cv2.blur(relief, (3, 3)).astype(np.float32) * grey
    difference = np.abs(card.drops(grey) - theirs / max(theirs.max(), 1))
    assert difference.max() < 0.05 and (difference > 1e-6).mean() < 0.01


def assert_above(field, threshold, scale, offset, size=None, steps=(1.0, 1.0)):
    arguments = {"scale": scale, "offset": offset, "size": size, "steps": steps}
    exact = card.above_reference(field, threshold, **arguments)
    near = np.abs(card.above_reference(field, -np.inf, **arguments) / 255 - threshold) < 1e-5  # on either side
    for rounding, half in (("nearest", 0.5), ("down", 0.0)):
        results = [card.above(field, threshold, rounding=rounding, isa=isa, **arguments) for isa in ISAS]
        for isa, result in zip(ISAS, results, strict=True):
            assert result.dtype == np.uint8
            np.testing.assert_array_equal(result, results[0], err_msg=isa)
        low, high = (np.floor(np.clip(exact + by, 0, 255) + half) for by in (-1e-3, 1e-3))
        assert (((results[0] >= low) & (results[0] <= high)) | near).all()


@pytest.mark.parametrize("width", [1, 2, 15, 16, 17, 33, 64, 65])
def test_above_is_the_references(width):
    field = np.random.default_rng(width).standard_normal((9, width)).astype(np.float32)
    assert_above(field, 0.6, 0.3, 0.55)
    assert_above(field, -1.0, 1.0, 0.0)


@settings(max_examples=100, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(0, 50), st.integers(0, 70)),
    steps=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    threshold=st.floats(-1, 1),
)
def test_above_of_any_enlarged_field(shape, size, steps, threshold):
    field = np.random.default_rng(shape).standard_normal(shape).astype(np.float32)
    assert_above(field, threshold, 0.5, 0.2, size, steps)


def test_what_is_seen_at_once():
    field = np.array([[-1.0, 0.0, 0.25, 0.5, 1.0, 7.0, np.inf, -np.inf, np.nan]], np.float32)
    assert card.above(field, 0.3, rounding="nearest").tolist() == [[0, 0, 0, 128, 255, 255, 255, 0, 0]]
    assert card.above(field, 0.3).tolist() == [[0, 0, 0, 127, 255, 255, 255, 0, 0]]
    assert card.above(field[:, 1:4:2], 0.0, size=(1, 3), steps=(1.0, 0.5)).tolist() == [[0, 63, 127]]
    np.testing.assert_allclose(card.drops(np.full((20, 30), 200, np.uint8)), 1, 1e-6)  # no edge: all as bright
    assert not card.drops(np.zeros((20, 30), np.uint8)).any()
    square = np.zeros((60, 60), np.uint8)
    square[20:40, 20:40] = 200
    lit = card.drops(square)
    assert (
        lit.max() == pytest.approx(1)
        and not lit[square == 0].any()
        and lit[22:30, 22:30].sum() != lit[30:38, 30:38].sum()
    )
    for shape in ((0, 5), (5, 0), (0, 0)):
        assert card.drops(np.zeros(shape, np.uint8)).shape == card.drops_reference(np.zeros(shape, np.uint8)).shape
        assert card.above(np.zeros(shape, np.float32), 0.0).shape == shape


def test_any_strides():
    (grey,) = card.Case("strides", (40, 31), 5).make()
    field = grey.astype(np.float32) / 255
    for view in (lambda a: a[::-1].copy()[::-1], lambda a: np.repeat(a, 2, 1)[:, ::2], lambda a: a.T.copy().T):
        np.testing.assert_array_equal(card.drops(view(grey)), card.drops(grey))
        np.testing.assert_array_equal(card.above(view(field), 0.3), card.above(field, 0.3))


@pytest.mark.parametrize("isa", ISAS)
def test_the_forced_variant_is_the_one_that_ran(isa):
    wanted = {i: int(i == isa) for i in ISAS}
    (grey,) = CASES[0].make()
    assert calls_during("drops", lambda: card.variants()[f"cpp-{isa}"](grey)) == wanted
    assert calls_during("drops", lambda: card.above(grey.astype(np.float32), 0.5, isa=isa)) == wanted


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(37, 31), (1, 5), (5, 1), (1, 1), (9, 64)])
def test_no_memory_beside_the_arrays_is_touched(shape, isa):
    (grey,) = card.Case("walls", shape, 3).make()
    field = grey.astype(np.float32) / 255
    for source, output in walled(grey, np.zeros(shape, np.float32)):
        kernels.compiled().drops(source.ctypes.data, output.ctypes.data, shape, isa)
        np.testing.assert_array_equal(output, card.drops(grey))
    for source, output in walled(field, np.zeros(shape, np.uint8)):
        addresses = source.ctypes.data, shape, output.ctypes.data, shape
        for steps in ((1.0, 1.0), (0.3, 0.9)):
            kernels.compiled().above(*addresses, steps, 1.0, 0.0, 0.3, True, isa)
            np.testing.assert_array_equal(output, card.above(field, 0.3, rounding="nearest", steps=steps))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: card.drops(np.zeros((8, 8), np.float32)), TypeError, "uint8"),
        (lambda: card.drops(np.zeros((8, 8, 1), np.uint8)), ValueError, r"\[h, w\]"),
        (lambda: card.drops(np.zeros((8, 8), np.uint8), isa="sse9"), ValueError, "'sse9'"),
        (lambda: card.above(np.zeros((8, 8)), 0.0), TypeError, "float32"),
        (lambda: card.above(np.zeros(8, np.float32), 0.0), ValueError, r"\[h, w\]"),
        (lambda: card.above(np.zeros((8, 8), np.float32), 0.0, rounding="up"), ValueError, "rounding"),
        (lambda: card.above(np.zeros((8, 8), np.float32), 0.0, size=(-1, 3)), ValueError, "negative"),
        (lambda: card.above(np.zeros((8, 8), np.float32), 0.0, steps=(1.0, 1.5)), ValueError, "steps"),
        (lambda: card.above(np.zeros((8, 8), np.float32), 0.0, steps=(float("nan"), 1.0)), ValueError, "steps"),
        (lambda: card.above(np.zeros((0, 8), np.float32), 0.0, size=(3, 3)), ValueError, "empty"),
    ],
)
def test_bad_input_raises(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
