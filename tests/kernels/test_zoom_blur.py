"""The mean of enlarged copies on every instruction set: scipy's values, the same bytes, no other memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hw4fast import kernels
from hw4fast.kernels import zoom_blur as card
from tests.kernels.arrays import misaligned
from tests.kernels.comparing import calls_during
from tests.kernels.walls import walled

CASES = list(card.cases())
ISAS = kernels.isas()


def assert_right(picture, factors, reference=None):
    """The same bytes from all: the exact mean rounded down, where float32 lets one tell."""
    results = [card.zoom_blur(picture, factors, isa=isa) for isa in ISAS]
    assert results[0].dtype == np.uint8 and results[0].flags.c_contiguous and results[0].shape == picture.shape
    for isa, result in zip(ISAS, results, strict=True):
        np.testing.assert_array_equal(result, results[0], err_msg=isa)
    exact = card.zoom_blur_reference(picture, factors) if reference is None else reference
    assert (results[0] <= exact + 0.01).all() and (results[0] >= np.floor(exact - 0.01)).all()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_the_reference_and_with_every_instruction_set(case):
    picture, factors = case.make()
    before = picture.copy()
    assert_right(picture, factors)
    assert np.array_equal(picture, before)


def scipys(picture, factors):
    """As the published code has it, in float64: the picture, and the upper left of its enlarged middles."""
    h, w, _ = picture.shape
    total = picture.astype(np.float64)
    for factor in factors:
        rows, columns = (int(np.ceil(n / factor)) for n in (h, w))
        top, left = (h - rows) // 2, (w - columns) // 2
        middle = picture[top : top + rows, left : left + columns].astype(np.float64)
        copy = ndimage.zoom(middle, (factor, factor, 1), order=1)[:h, :w]
        total[: copy.shape[0], : copy.shape[1]] += copy
    return total / (len(factors) + 1)


@pytest.mark.parametrize("shape", [(224, 224, 3), (64, 64, 1), (33, 50, 3), (7, 5, 1), (150, 31, 3)])
@pytest.mark.parametrize(("stop", "step"), [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)])
def test_is_what_scipy_gives(shape, stop, step):
    picture, factors = np.random.default_rng(shape).integers(0, 256, shape, np.uint8), np.arange(1, stop, step)
    theirs = scipys(picture, factors)
    np.testing.assert_allclose(card.zoom_blur_reference(picture, factors), theirs, atol=1e-9)
    assert_right(picture, factors, theirs)


@settings(max_examples=300, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 50), st.integers(1, 90), st.sampled_from([1, 3])),
    factors=st.lists(st.floats(1, 4) | st.floats(1, 100) | st.sampled_from([1.0, 1.5, 2.0, 100.0]), max_size=8),
)
def test_any_factors_of_any_picture(shape, factors):
    picture = np.random.default_rng(shape).integers(0, 256, shape, np.uint8)
    assert_right(picture, factors)


def test_what_is_seen_at_once():
    picture = np.random.default_rng(0).integers(0, 256, (21, 34, 3), np.uint8)
    assert np.array_equal(card.zoom_blur(picture, []), picture)
    assert np.array_equal(card.zoom_blur(picture, [1.0] * 7), picture)
    flat = np.full((40, 40, 3), 255, np.uint8)
    assert (card.zoom_blur(flat, [1.0, 1.25, 2.0]) == 255).all()
    assert card.zoom_blur(picture, [1.0] * 999 + [2.0]).shape == picture.shape
    for shape in ((0, 5, 3), (5, 0, 1), (0, 0, 3)):
        assert card.zoom_blur(np.zeros(shape, np.uint8), [1.5]).shape == shape


@pytest.mark.parametrize("isa", ISAS)
def test_the_forced_variant_is_the_one_that_ran(isa):
    picture, factors = CASES[0].make()
    wanted = {i: int(i == isa) for i in ISAS}
    assert calls_during("zoom_blur", lambda: card.variants()[f"cpp-{isa}"](picture, factors)) == wanted


def test_any_strides():
    picture, factors = card.Case("strides", (20, 31, 3), (1.1, 1.3)).make()
    wanted = card.zoom_blur(picture, factors)
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
        np.testing.assert_array_equal(card.zoom_blur(view, factors), wanted, err_msg=name)
    row = np.broadcast_to(picture[:1], (20, 31, 3))
    assert np.array_equal(card.zoom_blur(row, factors), card.zoom_blur(row.copy(), factors))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(37, 31, 3), (37, 31, 1), (1, 5, 3), (5, 1, 1), (1, 1, 3), (9, 64, 3), (3, 128, 1)])
def test_no_memory_beside_the_arrays_is_touched(shape, isa):
    picture, factors = card.Case("walls", shape, (1.0, 1.05, 1.3, 2.0)).make()
    wanted = card.zoom_blur(picture, factors)
    for source, output in walled(picture, np.zeros_like(picture)):
        addresses = source.ctypes.data, shape[1] * shape[2], output.ctypes.data
        kernels.compiled().zoom_blur(*addresses, shape, list(factors), isa)
        np.testing.assert_array_equal(output, wanted)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"picture": np.zeros((8, 8), np.uint8)}, ValueError, r"\[h, w, 1 or 3\]"),
        ({"picture": np.zeros((8, 8, 4), np.uint8)}, ValueError, r"\[h, w, 1 or 3\]"),
        ({"picture": np.zeros((8, 8, 3), np.float32)}, TypeError, "uint8"),
        ({"factors": [0.99]}, ValueError, "factors must lie in 1 … 100"),
        ({"factors": [100.1]}, ValueError, "factors must lie in 1 … 100"),
        ({"factors": [1.1, float("nan")]}, ValueError, "factors must lie in 1 … 100"),
        ({"factors": [float("inf")]}, ValueError, "factors must lie in 1 … 100"),
        ({"factors": [1.0] * 1001}, ValueError, "too many factors"),
        ({"factors": ["a"]}, ValueError, "could not convert"),
        ({"factors": 1.1}, TypeError, "not iterable"),
        ({"isa": "sse9"}, ValueError, "'sse9' is not to be had here"),
    ],
)
def test_bad_input_raises(change, kind, message):
    with pytest.raises(kind, match=message):
        card.zoom_blur(**{"picture": np.zeros((8, 8, 3), np.uint8), "factors": [1.1], **change})


def test_the_compiled_function_refuses_what_would_leave_its_memory():
    picture = np.zeros((8, 8, 3), np.uint8)
    good = {"input": picture.ctypes.data, "stride": 24, "output": picture.copy().ctypes.data, "shape": (8, 8, 3)}
    good["factors"] = [1.5]
    for change in (
        {"shape": (-8, 8, 3)}, {"shape": (8, -8, 3)}, {"shape": (8, 8, 0)}, {"shape": (8, 8, 2)}, {"shape": (8, 8, -3)},
        {"shape": (-(2**63), 8, 3)}, {"input": 0}, {"output": 0}, {"factors": [0.5]}, {"factors": [float("nan")]},
        {"factors": [1.0] * 1001},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="zoom_blur"):
            kernels.compiled().zoom_blur(**{**good, **change})


@pytest.mark.parametrize("shape", [(40, 31, 3), (1, 1, 1), (2, 77, 3)], ids=str)
@pytest.mark.parametrize("factors", [[], [1.0, 1.2], [1.0, 1.001, 2, 3.3, 100]], ids=str)
def test_the_tables_for_a_gpu_make_its_bytes(shape, factors):
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    h, w, _ = shape
    table, copies, own, lost, share = card.tables(h, w, factors)
    assert len(table) == 2 * copies * (h + w) and copies <= len(factors)
    sums = picture.astype(np.int64) * own + lost
    lines = table.reshape(-1, 2).astype(np.int64)
    every = lines[: copies * h].reshape(copies, h, 2), lines[copies * h :].reshape(copies, w, 2)
    for rows, columns in zip(*every, strict=True):
        (top, down), (left, right) = rows.T, columns.T
        beside = np.minimum(left + 1, w - 1)
        across = (
            picture[:, left] * (2**14 - right)[:, None] + picture[:, beside] * right[:, None].astype(np.int64)
        ) >> 7
        both = across[top] * (2**14 - down)[:, None, None] + across[np.minimum(top + 1, h - 1)] * down[:, None, None]
        sums += np.where((down >= 0)[:, None, None] & (right >= 0)[:, None], both >> 9, 0)
    made = (sums.astype(np.float32) * np.float32(share) + np.float32(2**-10)).astype(np.int64)
    assert np.array_equal(made, card.zoom_blur(picture, factors))
