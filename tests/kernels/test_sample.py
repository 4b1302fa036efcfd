"""Sampling on every instruction set that this machine has: the reference's values, the same bytes, no other memory."""

import ctypes
import mmap
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hw4fast import kernels
from hw4fast.kernels import sample as card
from tests.kernels.comparing import calls_during

CASES = list(card.cases())
ISAS = kernels.isas()
SCIPY = {"edge": "nearest", "reflect": "reflect", "constant": "grid-constant"}
WILD = [-1e30, -3.5e9, -(2.0**24), -1.0, -0.5, -0.0, 0.0, 1e-45, 0.5, 2.0**24, 1e30, np.inf, -np.inf, np.nan]


def near(result, reference, rounding="nearest", error=0.04):
    """Whether a result is the reference, rounded, up to what the contract allows for."""
    low, high = (0.5, 0.5) if rounding == "nearest" else (1.0, 0.0)
    return bool(np.all((result - reference <= high + error) & (reference - result <= low + error)))


@pytest.mark.parametrize("rounding", card.ROUNDINGS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_the_reference_and_with_every_instruction_set(case, rounding):
    picture, options = case.make()
    before = picture.copy(), options["rows"].copy(), options["columns"].copy()
    results = [run(picture, **options, rounding=rounding) for run in card.variants().values()]
    assert results[0].dtype == np.uint8 and results[0].flags.c_contiguous
    assert results[0].shape == (*case.size, case.shape[2])
    reference = card.reference(picture, **options)
    assert near(results[0], reference, rounding, error=0.04 if max(case.shape) <= 512 else 0.3)
    for isa, result in zip(ISAS, results, strict=True):
        np.testing.assert_array_equal(result, results[0], err_msg=isa)
    for now, then in zip((picture, options["rows"], options["columns"]), before, strict=True):
        assert np.array_equal(now, then)


@pytest.mark.parametrize("border", card.BORDERS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 3), (7, 5, 3), (40, 33, 1)])
def test_the_reference_is_scipys(border, shape):
    ndimage = pytest.importorskip("scipy.ndimage")
    rng = np.random.default_rng(shape)
    picture = rng.integers(0, 256, shape, np.uint8)
    rows, columns = (rng.uniform(-3 * side, 4 * side, (31, 20)).astype(np.float32) for side in shape[:2])
    theirs = [
        ndimage.map_coordinates(plane.astype(np.float64), [rows, columns], order=1, mode=SCIPY[border], cval=77)
        for plane in picture.transpose(2, 0, 1)
    ]
    ours = card.reference(picture, rows, columns, border, 77)
    np.testing.assert_allclose(ours, np.stack(theirs, -1), atol=1e-9)


SIDE = st.integers(1, 40)
PLACE = st.floats(width=32) | st.sampled_from(WILD) | st.floats(-90, 90, width=32) | st.integers(-3, 42).map(float)


@settings(max_examples=400, deadline=None)
@given(
    shape=st.tuples(SIDE, SIDE, st.sampled_from(card.CHANNELS)),
    size=st.tuples(st.integers(0, 5), SIDE),
    places=st.lists(PLACE, min_size=1, max_size=20),
    border=st.sampled_from(card.BORDERS),
    rounding=st.sampled_from(card.ROUNDINGS),
    fill=st.integers(0, 255),
)
@example((3, 3, 3), (5, 40), WILD, "reflect", "nearest", 9)
@example((1, 1, 1), (5, 40), WILD, "edge", "down", 9)
@example((2, 5, 3), (5, 40), WILD, "constant", "nearest", 9)
def test_any_place_of_any_picture(shape, size, places, border, rounding, fill):
    rng = np.random.default_rng(shape)
    picture = rng.integers(0, 256, shape, np.uint8)
    rows, columns = (rng.choice(np.array(places, np.float32), size) for _ in range(2))
    options = {"border": border, "fill": fill}
    results = [run(picture, rows, columns, **options, rounding=rounding) for run in card.variants().values()]
    assert all(np.array_equal(result, results[0]) for result in results)
    # mirrored places beyond 512 have lost their last bits
    known = (np.abs(rows) < 512) & (np.abs(columns) < 512) if border == "reflect" else np.full(size, True)
    assert near(results[0][known], card.reference(picture, rows, columns, **options)[known], rounding)
    again = card.sample(picture, rows, columns, **options, rounding=rounding, threads=4)
    assert np.array_equal(again, results[0])


@pytest.mark.parametrize("isa", ISAS)
def test_the_forced_variant_is_the_one_that_ran(isa):
    picture, options = CASES[0].make()
    wanted = {i: int(i == isa) for i in ISAS}
    assert calls_during("sample", lambda: card.variants()[f"cpp-{isa}"](picture, **options)) == wanted
    assert calls_during("sample", lambda: card.warp(picture, np.eye(3), isa=isa)) == wanted


@pytest.mark.parametrize("c", card.CHANNELS)
@pytest.mark.parametrize("isa", ISAS)
def test_the_result_does_not_depend_on_the_number_of_threads(c, isa):
    picture, options = card.Case("threads", (61, 50, c), (403, 301)).make()
    tilted = ((0.9, 0.2, -3), (-0.1, 1.1, 4), (1e-3, 2e-3, 1))
    larger = np.tile(picture, (7, 6, 1))
    one = card.sample(picture, **options, isa=isa), card.warp(larger, tilted, isa=isa)
    for threads in (0, 2, 4):
        several = card.sample(picture, **options, isa=isa, threads=threads)
        np.testing.assert_array_equal(several, one[0])
        np.testing.assert_array_equal(card.warp(larger, tilted, isa=isa, threads=threads), one[1])


@pytest.mark.parametrize("border", card.BORDERS)
@pytest.mark.parametrize("rounding", card.ROUNDINGS)
def test_whole_places_show_the_pixels_themselves(border, rounding):
    picture = np.random.default_rng(0).integers(0, 256, (19, 23, 3), np.uint8)
    rows, columns = np.mgrid[0:19, 0:23].astype(np.float32)
    np.testing.assert_array_equal(card.sample(picture, rows, columns, border, 77, rounding), picture)
    np.testing.assert_array_equal(card.sample(picture, rows[::-1], columns[::-1], border, 77, rounding), picture[::-1])


@pytest.mark.parametrize("rounding", card.ROUNDINGS)
@pytest.mark.parametrize("border", ["edge", "reflect"])
def test_a_flat_picture_is_flat_everywhere(border, rounding):
    rng = np.random.default_rng(1)
    rows, columns = (rng.normal(0, 30, (50, 60)).astype(np.float32) for _ in range(2))
    for value in (0, 1, 127, 128, 254, 255):
        flat = np.full((9, 7, 3), value, np.uint8)
        assert (card.sample(flat, rows, columns, border, 77, rounding) == value).all()


def test_halves_go_to_the_even_level_or_down():
    picture = np.array([[0, 1, 2, 3, 5, 255, 254]], np.uint8)[..., None]
    places = np.arange(6, dtype=np.float32)[None] + np.float32(0.5)
    rows = np.zeros_like(places)
    assert card.sample(picture, rows, places)[0, :, 0].tolist() == [0, 2, 2, 4, 130, 254]
    assert card.sample(picture, rows, places, rounding="down")[0, :, 0].tolist() == [0, 1, 2, 4, 130, 254]


def test_a_constant_border_is_reached_in_one_pixel():
    picture = np.full((1, 1, 1), 200, np.uint8)
    places = np.array([[-2, -1, -0.75, -0.5, 0, 0.25, 1, 9]], np.float32)
    values = card.sample(picture, np.zeros_like(places), places, "constant", 100)
    assert values[0, :, 0].tolist() == [100, 100, 125, 150, 200, 175, 100, 100]


def test_a_place_that_is_no_number_is_above_or_left():
    picture = np.array([[10, 20], [30, 40]], np.uint8)[..., None]
    nan = np.full((1, 1), np.nan, np.float32)
    one = np.ones((1, 1), np.float32)
    assert card.sample(picture, nan, one)[0, 0, 0] == 20
    assert card.sample(picture, one, nan)[0, 0, 0] == 30
    assert card.sample(picture, one, nan, "constant", 7)[0, 0, 0] == 7
    for value in (np.nan, np.inf, -np.inf, 2.0**24):
        assert card.sample(picture, one, np.full_like(one, value), "reflect")[0, 0, 0] == 30


def test_any_strides():
    picture, options = card.Case("strides", (40, 30, 3), (25, 21)).make()
    wanted = card.sample(picture, **options)
    views = {
        "upside down": np.ascontiguousarray(picture[::-1])[::-1],
        "every second row": np.repeat(picture, 2, 0)[::2],
        "every second pixel": np.repeat(picture, 2, 1)[:, ::2],
        "within a larger one": np.pad(picture, ((2, 3), (4, 5), (0, 0)))[2:-3, 4:-5],
        "channels first": np.ascontiguousarray(picture.transpose(2, 0, 1)).transpose(1, 2, 0),
        "read-only": picture.copy(),
    }
    views["read-only"].flags.writeable = False
    for name, view in views.items():
        assert np.array_equal(view, picture), name
        np.testing.assert_array_equal(card.sample(view, **options), wanted, err_msg=name)
    turned = {**options, **{name: np.asfortranarray(options[name]) for name in ("rows", "columns")}}
    np.testing.assert_array_equal(card.sample(picture, **turned), wanted)


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect by ctypes")
@pytest.mark.parametrize("isa", ISAS)
def test_nothing_is_read_around_the_picture(isa):
    """It begins or ends where the readable memory does: another byte would end the process."""
    page, libc = mmap.PAGESIZE, ctypes.CDLL(None, use_errno=True)
    memory = np.frombuffer(mmap.mmap(-1, 3 * page), np.uint8)
    for wall in (0, 2 * page):
        assert libc.mprotect(ctypes.c_void_p(memory.ctypes.data + wall), ctypes.c_size_t(page), 0) == 0
    for h, w, c in ((37, 31, 3), (37, 31, 1), (1, 5, 3), (5, 1, 1), (1, 1, 3)):
        for start in (page, 2 * page - h * w * c):
            picture = memory[start : start + h * w * c].reshape(h, w, c)
            picture[:] = np.arange(h * w * c).reshape(h, w, c) % 251
            np.testing.assert_array_equal(card.warp(picture, np.eye(3), isa=isa), picture)
    assert libc.mprotect(ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(3 * page), 3) == 0


# -- warp --------------------------------------------------------------------------------------------------------

ENTRY = st.floats(-3, 3) | st.floats() | st.sampled_from([0.0, -0.0, 1.0, 1e-3, 1e300])


@settings(max_examples=200, deadline=None)
@given(
    shape=st.tuples(SIDE, SIDE | st.just(300), st.sampled_from(card.CHANNELS)),
    matrix=st.lists(ENTRY, min_size=9, max_size=9),
    border=st.sampled_from(card.BORDERS),
)
@example((3, 4, 3), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], "edge")
@example((30, 300, 3), [0.9, 0.1, 3.0, -0.2, 1.1, 4.0, 1e-3, 2e-3, 1.0], "reflect")
def test_a_warp_is_a_sample_at_its_places(shape, matrix, border):
    picture = np.random.default_rng(shape).integers(0, 256, shape, np.uint8)
    matrix = np.array(matrix).reshape(3, 3)
    with np.errstate(over="ignore", invalid="ignore"):
        rows, columns = (places.astype(np.float32) for places in card.places(matrix, *shape[:2]))
    wanted = card.sample(picture, rows, columns, border, 9)
    for isa in ISAS:
        np.testing.assert_array_equal(card.warp(picture, matrix, border, 9, isa=isa), wanted)


def test_warps_that_are_known():
    picture = np.random.default_rng(0).integers(0, 256, (11, 14, 3), np.uint8)
    assert np.array_equal(card.warp(picture, np.eye(3)), picture)
    assert np.array_equal(card.warp(picture, 3 * np.eye(3)), picture)
    assert np.array_equal(card.warp(picture, [[-1, 0, 13], [0, 1, 0], [0, 0, 1]]), picture[:, ::-1])
    moved = card.warp(picture, [[1, 0, -2], [0, 1, 1], [0, 0, 1]], "constant", 9)
    assert np.array_equal(moved[:-1, 2:], picture[1:, :-2])
    assert (moved[-1] == 9).all() and (moved[:, :2] == 9).all()


# -- what can't be done ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"picture": np.zeros((8, 8), np.uint8)}, ValueError, r"\[h, w, 1 or 3\]"),
        ({"picture": np.zeros((8, 8, 4), np.uint8)}, ValueError, r"\[h, w, 1 or 3\]"),
        ({"picture": np.zeros((0, 8, 3), np.uint8)}, ValueError, "with pixels"),
        ({"picture": np.zeros((8, 8, 3), np.float32)}, TypeError, "uint8"),
        ({"rows": np.zeros((4, 4))}, TypeError, "float32"),
        ({"columns": np.zeros((4, 4), np.int64)}, TypeError, "float32"),
        ({"rows": np.zeros((4, 5), np.float32)}, ValueError, r"\[H, W\] both"),
        ({"rows": np.zeros(4, np.float32), "columns": np.zeros(4, np.float32)}, ValueError, r"\[H, W\] both"),
        ({"border": "mirror"}, ValueError, "border must be one of"),
        ({"rounding": "up"}, ValueError, "rounding must be one of"),
        ({"fill": 256}, ValueError, "fill must lie in 0 … 255"),
        ({"fill": -1}, ValueError, "fill must lie in 0 … 255"),
        ({"fill": 1.5}, TypeError, "integer"),
        ({"isa": "sse9"}, ValueError, "'sse9' is not to be had here"),
        ({"threads": "two"}, TypeError, "incompatible"),
    ],
)
def test_bad_input_raises(change, kind, message):
    places = np.zeros((4, 4), np.float32)
    good = {"picture": np.zeros((8, 8, 3), np.uint8), "rows": places, "columns": places}
    with pytest.raises(kind, match=message):
        card.sample(**{**good, **change})
    if not change.keys() & {"rows", "columns"}:
        with pytest.raises(kind, match=message):
            card.warp(**{"picture": good["picture"], "matrix": np.eye(3), **change})


@pytest.mark.parametrize("matrix", [np.eye(2), np.zeros(9), np.zeros((3, 3, 1))])
def test_a_matrix_that_is_none_raises(matrix):
    with pytest.raises(ValueError, match=r"matrix must be \[3, 3\]"):
        card.warp(np.zeros((8, 8, 3), np.uint8), matrix)


def test_a_picture_of_too_many_pixels_is_refused():
    long = np.broadcast_to(np.uint8(1), (1, 2**24, 1))
    with pytest.raises(ValueError, match="too large"):
        card.warp(long, np.eye(3))


def test_the_compiled_functions_refuse_what_would_leave_their_memory():
    picture, output, places = (np.zeros((8, 8, 3), dtype) for dtype in (np.uint8, np.uint8, np.float32))
    good = {"shape": (8, 8, 3), "border": "edge", "fill": 0, "size": (8, 8), "rows": places.ctypes.data}

    def run(**change):
        given = {**good, "columns": good["rows"], **change}
        rows, columns = given.pop("rows"), given.pop("columns")
        arguments = {"input": picture.ctypes.data, "row_stride": 24, "down": False, "output": output.ctypes.data}
        kernels.compiled().sample(**arguments, rows=rows, columns=columns, **given)
        kernels.compiled().warp(**arguments, matrix=[1.0] * 9, **given)

    run()
    for change in (
        {"shape": (8, 8, 2)},
        {"shape": (-8, 8, 3)},
        {"shape": (0, 8, 3)},
        {"shape": (2**24, 1, 3)},
        {"shape": (2**20, 2**20, 3)},
        {"shape": (2**62, 2**62, 3)},
        {"size": (-1, 8)},
        {"size": (8, 2**40)},
        {"border": "mirror"},
        {"fill": 256},
        {"rows": 0},
    ):
        with pytest.raises(ValueError, match="sample"):
            run(**change)
