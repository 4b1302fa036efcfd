"""gaussian_blur beyond the border and with either rounding: scipy's values, the documented bytes, no other memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hw4fast import kernels
from hw4fast.kernels import gaussian_blur as card
from tests.kernels.walls import walled

ISAS = kernels.isas()
SCIPY = {"mirror": "mirror", "edge": "nearest", "reflect": "reflect"}
SIDE = st.integers(1, 70)


def scipys(image, sizes, sigmas, border):
    """float64, of [h, w, c]; sizes and sigmas: across, down."""
    result = image.astype(np.float64)
    for axis, size, sigma in zip((1, 0), sizes, sigmas, strict=True):
        result = ndimage.gaussian_filter1d(result, sigma, axis, mode=SCIPY[border], radius=size // 2)
    return result


def assert_right(image, sizes, sigmas, border, rounding, threads=1):
    """The same from all; uint8: the documented bytes, within 0.2 of scipy's value before the last rounding."""
    options = {"kernel_size": sizes, "sigma": sigmas, "border": border}
    results = [card.gaussian_blur(image, **options, rounding=rounding, isa=isa, threads=threads) for isa in ISAS]
    exact = scipys(image, sizes, sigmas, border)
    np.testing.assert_allclose(card.reference(image, **options), exact, atol=1e-9)
    for isa, result in zip(ISAS, results, strict=True):
        assert result.dtype == image.dtype and result.flags.c_contiguous
        if image.dtype == np.float32:
            np.testing.assert_allclose(result, exact, rtol=0, atol=1e-5, err_msg=isa)
            continue
        np.testing.assert_array_equal(result, card.reference_uint8(image, **options, rounding=rounding), err_msg=isa)
        low, high = (0.5, 0.5) if rounding == "nearest" else (1, 0)
        assert (result - exact <= high + 0.2).all() and (exact - result <= low + 0.2).all()


@pytest.mark.parametrize("rounding", card.ROUNDINGS)
@pytest.mark.parametrize("border", card.BORDERS)
@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((40, 33, 3), (9, 5)),
        ((31, 64, 1), (51, 51)),
        ((5, 130, 3), (3, 25)),
        ((3, 2, 3), (21, 31)),  # the border is met again and again
        ((1, 1, 1), (5, 7)),
        ((1, 9, 3), (999, 1)),
    ],
)
@pytest.mark.parametrize("dtype", card.DTYPES)
def test_agrees_with_scipy(shape, sizes, border, rounding, dtype):
    rng = np.random.default_rng(shape)
    image = (rng.random(shape) * (256 if dtype == np.uint8 else 1)).astype(dtype)
    before = image.copy()
    assert_right(image, sizes, (2.5, 4.0), border, rounding)
    assert np.array_equal(image, before)


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(SIDE, SIDE, st.integers(1, 4)),
    sizes=st.tuples(*[st.integers(0, 40).map(lambda radius: 2 * radius + 1)] * 2),
    sigmas=st.tuples(*[st.floats(0.05, 100)] * 2),
    border=st.sampled_from(card.BORDERS),
    rounding=st.sampled_from(card.ROUNDINGS),
    dtype=st.sampled_from(card.DTYPES),
    threads=st.integers(1, 3),
)
def test_random_pictures(shape, sizes, sigmas, border, rounding, dtype, threads):
    image = (np.random.default_rng(shape).random(shape) * (256 if dtype == np.uint8 else 1)).astype(dtype)
    assert_right(image, sizes, sigmas, border, rounding, threads)


@pytest.mark.parametrize("border", card.BORDERS)
def test_batches_and_layouts(border):
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 17, 3), np.uint8)
    wanted = np.stack([card.gaussian_blur(image, (11, 31), border=border, rounding="down") for image in images])
    assert np.array_equal(card.gaussian_blur(images, (11, 31), border=border, rounding="down"), wanted)
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    turned = card.gaussian_blur(planes, (11, 31), layout="CHW", border=border, rounding="down")
    assert np.array_equal(turned.transpose(0, 2, 3, 1), wanted)


@pytest.mark.parametrize("rounding", card.ROUNDINGS)
@pytest.mark.parametrize("border", card.BORDERS)
def test_a_flat_picture_stays(border, rounding):
    for value in (0, 1, 127, 254, 255):
        flat = np.full((30, 20, 3), value, np.uint8)
        for size in (1, 3, 25, 101):
            assert np.array_equal(card.gaussian_blur(flat, size, border=border, rounding=rounding), flat)


def test_halves_go_to_even_or_down():
    """A needle-wide kernel of three equal-ish taps over 0 and 1: sums of quarters."""
    line = np.array([[0, 1, 0, 1, 2, 2, 3]], np.uint8)[..., None]
    sigma = (2 * np.log(2)) ** -0.5  # weights ¼, ½, ¼
    exact = np.array([0.25, 0.5, 0.5, 1.0, 1.75, 2.25, 2.75])
    nearest = card.gaussian_blur(line, (3, 1), sigma, border="edge")[0, :, 0]
    down = card.gaussian_blur(line, (3, 1), sigma, border="edge", rounding="down")[0, :, 0]
    assert nearest.tolist() == np.rint(exact).tolist() and down.tolist() == np.floor(exact).tolist()


def test_rounding_down_and_to_nearest_differ_by_half_a_level():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for border in card.BORDERS:
        nearest, down = (
            card.gaussian_blur(image, 9, border=border, rounding=r).astype(int) for r in ("nearest", "down")
        )
        assert set(np.unique(nearest - down).tolist()) == {0, 1} and 0.4 < (nearest - down).mean() < 0.6


@pytest.mark.parametrize("border", card.BORDERS)
def test_floats_ignore_the_rounding_and_infinity_stays_within_the_kernel(border):
    image = np.random.default_rng(0).random((20, 25, 3), np.float32)
    image[0, 3, 1] = np.inf
    results = [card.gaussian_blur(image, (7, 5), border=border, rounding=r) for r in card.ROUNDINGS]
    np.testing.assert_array_equal(*results)
    expected = np.zeros(image.shape, bool)
    expected[:3, : 3 + 4, 1] = True
    np.testing.assert_array_equal(~np.isfinite(results[0]), expected)


@settings(max_examples=60, deadline=None)
@given(radius=st.integers(0, 60), length=st.integers(1, 20))
def test_lines_are_continued_as_numpy_pads(radius, length):
    for border, mode in (("edge", "edge"), ("reflect", "symmetric"), ("mirror", "reflect")):
        assert card.reflected(radius, length, border).tolist() == np.pad(np.arange(length), radius, mode).tolist()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("border", card.BORDERS)
@pytest.mark.parametrize("shape", [(67, 61, 1), (40, 19, 3), (32, 64, 2), (1, 5, 1), (5, 1, 3)])
def test_no_memory_beside_the_picture_is_read(shape, border, isa):
    image = np.random.default_rng(shape).integers(0, 256, shape, np.uint8)
    wanted = card.reference_uint8(image, (5, 9), border=border)
    for (source,) in walled(image):
        np.testing.assert_array_equal(card.gaussian_blur(source, (5, 9), border=border, isa=isa), wanted)


def test_bad_input_raises():
    image = np.zeros((8, 8, 3), np.uint8)
    for border in ("reflect101", "nearest", "", None):
        with pytest.raises(ValueError, match="border must be one of"):
            card.gaussian_blur(image, 3, border=border)
    for rounding in ("up", "", None):
        with pytest.raises(ValueError, match="rounding one of"):
            card.gaussian_blur(image, 3, rounding=rounding)
    weights = np.array([1, 6, 1], np.int16)
    where = (image.ctypes.data, (192, 192, 24), image.copy().ctypes.data, (1, 1, 8, 8, 3))
    arguments = (weights.ctypes.data, weights.ctypes.data, (3, 3), (3, 3), 2)
    for border in (-1, 3, 2**31 - 1):
        with pytest.raises(ValueError, match="border must be 0, 1 or 2"):
            kernels.compiled().gaussian_blur(False, *where, *arguments, border=border)
