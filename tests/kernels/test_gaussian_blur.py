"""The NumPy face of gaussian_blur on every instruction set that this machine has."""

import ctypes
import mmap
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw4fast import kernels
from hw4fast.kernels import gaussian_blur as card
from tests.kernels.arrays import misaligned

CASES = list(card.cases())
ISAS = kernels.isas()
ODD = st.integers(0, 60).map(lambda radius: 2 * radius + 1)


def assert_right(result, image, options):
    """uint8: the documented bytes, and beside the exact value rounded by at most 1; float32: within 1e-5."""
    assert result.dtype == image.dtype and result.shape == image.shape and result.flags.c_contiguous
    exact = card.reference(image, **options)
    if image.dtype == np.uint8:
        np.testing.assert_array_equal(result, card.reference_uint8(image, **options))
        assert np.abs(result - np.rint(exact)).max(initial=0) <= 1
        assert np.abs(result - exact).max(initial=0) <= 0.5 + 0.2
    else:
        np.testing.assert_allclose(result, exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_matches_the_references(case, isa):
    image, options = case.make()
    before = image.copy()
    assert_right(card.gaussian_blur(image, **options, isa=isa), image, options)
    assert np.array_equal(image, before)


def test_the_references_agree_with_torchvision():
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    image = np.random.default_rng(0).random((2, 3, 40, 37))
    for size, sigma in (((5, 9), (1.0, 3.0)), ((51, 51), None), ((1, 31), 40.0)):
        wanted = functional.gaussian_blur(torch.from_numpy(image), size, sigma)
        np.testing.assert_allclose(card.reference(image, size, sigma, "CHW"), wanted, atol=1e-12)


@pytest.mark.parametrize("dtype", card.DTYPES)
@pytest.mark.parametrize(("shape", "size"), [((13, 9, 3), 7), ((3, 5, 1), 11), ((1, 1, 2), 5), ((40, 33, 4), 1)])
def test_the_numba_variant_matches_the_reference(dtype, shape, size):
    image = (np.random.default_rng(0).random(shape) * (255 if dtype == np.uint8 else 1)).astype(dtype)
    reference = card.reference(image, size)
    tolerance = 0.501 if dtype == np.uint8 else 1e-5
    np.testing.assert_allclose(card.gaussian_blur_numba(image, size), reference, rtol=0, atol=tolerance)


def test_the_numba_variant_takes_any_picture_or_says_what_it_takes():
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    turned = image.transpose(1, 0, 2)
    assert np.array_equal(card.gaussian_blur_numba(turned, 5), card.gaussian_blur_numba(turned.copy(), 5))
    assert card.gaussian_blur_numba(image[:, :0], 5).shape == (9, 0, 3)
    for arguments, kind, message in (
        ((image[None], 5), ValueError, r"one picture \[h, w, c\]"),
        ((image, (5, 3)), ValueError, "the same kernel across and down"),
        ((image.astype(np.float64), 5), TypeError, "uint8 or float32"),
    ):
        with pytest.raises(kind, match=message):
            card.gaussian_blur_numba(*arguments)


@pytest.mark.parametrize("isa", ISAS)
def test_the_forced_variant_is_the_one_that_ran(isa):
    image, options = CASES[0].make()
    before = kernels.calls()["gaussian_blur"]
    card.variants()[f"cpp-{isa}"](image, **options)
    after = kernels.calls()["gaussian_blur"]
    assert {i: after[i] - before[i] for i in ISAS} == {i: int(i == isa) for i in ISAS}


def test_an_unknown_instruction_set_raises():
    with pytest.raises(ValueError, match="'sse9' is not to be had here"):
        card.gaussian_blur(np.zeros((4, 4, 3), np.uint8), 3, isa="sse9")


@pytest.mark.parametrize("layout", card.LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_result_does_not_depend_on_the_number_of_threads(dtype, layout):
    shape = (3, 67, 41, 3) if layout == "HWC" else (3, 3, 67, 41)
    image, options = card.Case("threads", shape, (51, 7), layout=layout, dtype=dtype).make()
    if dtype == "float32":
        image[1, 1, 30, 2] = np.inf  # stays where it is seen, however the rows are shared out
    with np.errstate(invalid="ignore"):
        one = card.gaussian_blur(image, **options, threads=1)
    for threads in (2, 3, 7, 16):
        np.testing.assert_array_equal(card.gaussian_blur(image, **options, threads=threads), one)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_not_a_number_stays_within_the_kernel(isa, value):
    image = np.random.default_rng(0).random((40, 50, 3), np.float32)
    image[20, 25, 1] = value
    result = card.gaussian_blur(image, (7, 5), isa=isa)
    expected = np.zeros(image.shape, bool)
    expected[18:23, 22:29, 1] = True
    np.testing.assert_array_equal(~np.isfinite(result), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("layout", card.LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_any_strides(dtype, layout, isa):
    image, options = card.Case("whole", (3, 9, 14, 11), (9, 5), layout=layout, dtype=dtype).make()
    wanted = card.gaussian_blur(image, **options, isa=isa)
    rows = image.ndim - (3 if layout == "HWC" else 2)
    views = {
        "reversed": np.ascontiguousarray(image[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
        "every second row": np.repeat(image, 2, rows).swapaxes(0, rows)[::2].swapaxes(0, rows),
        "every second pixel": np.repeat(image, 2, axis=3)[..., ::2],
        "within a larger one": np.pad(image, 2)[2:-2, 2:-2, 2:-2, 2:-2],
        "turned": np.ascontiguousarray(image.T).T,
        "misaligned": misaligned(image),
        "read-only": image.copy(),
    }
    views["read-only"].flags.writeable = False
    for name, view in views.items():
        assert np.array_equal(view, image), name
        np.testing.assert_array_equal(card.gaussian_blur(view, **options, isa=isa), wanted, err_msg=name)
    assert np.array_equal(card.gaussian_blur(image[1], **options, isa=isa), wanted[1])


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect by ctypes")
@pytest.mark.parametrize("isa", ISAS)
def test_nothing_is_read_around_the_picture(isa):
    """It begins or ends where the readable memory does: another byte would end the process."""
    page, libc = mmap.PAGESIZE, ctypes.CDLL(None, use_errno=True)
    memory = np.frombuffer(mmap.mmap(-1, 3 * page), np.uint8)
    for wall in (0, 2 * page):
        assert libc.mprotect(ctypes.c_void_p(memory.ctypes.data + wall), ctypes.c_size_t(page), 0) == 0
    for h, w, c in ((67, 61, 1), (40, 19, 3), (32, 64, 2), (1, 5, 1)):
        for start in (page, 2 * page - h * w * c):
            image = memory[start : start + h * w * c].reshape(h, w, c)
            image[:] = np.arange(h * w * c).reshape(h, w, c) % 251
            assert_right(card.gaussian_blur(image, (5, 9), isa=isa), image, {"kernel_size": (5, 9)})
    assert libc.mprotect(ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(3 * page), 3) == 0


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"image": np.zeros((8, 8), np.uint8)}, ValueError, r"image must be \[h, w, c\] or \[n, h, w, c\]"),
        ({"image": np.zeros((2, 2, 2, 8, 8), np.uint8)}, ValueError, "image must be"),
        ({"image": np.zeros((8, 8, 3), np.float64)}, TypeError, "uint8 or float32"),
        ({"image": np.zeros((8, 8, 3), np.int8)}, TypeError, "uint8 or float32"),
        ({"image": np.zeros((8, 8, 3), ">f4")}, TypeError, "uint8 or float32"),
        ({"layout": "WHC"}, ValueError, "layout must be"),
        ({"kernel_size": 0}, ValueError, "kernel_size must be odd"),
        ({"kernel_size": 4}, ValueError, "kernel_size must be odd"),
        ({"kernel_size": -3}, ValueError, "kernel_size must be odd"),
        ({"kernel_size": 1001}, ValueError, "in 1…999"),
        ({"kernel_size": 2**80 + 1}, ValueError, "in 1…999"),
        ({"kernel_size": (3, 4)}, ValueError, "kernel_size must be odd"),
        ({"kernel_size": (3, 3, 3)}, ValueError, "one number or two"),
        ({"kernel_size": ()}, ValueError, "one number or two"),
        ({"kernel_size": 3.0}, TypeError, "integer"),
        ({"kernel_size": None}, TypeError, "integer"),
        ({"sigma": 0}, ValueError, "sigma must be positive"),
        ({"sigma": -1.0}, ValueError, "sigma must be positive"),
        ({"sigma": (1.0, float("nan"))}, ValueError, "sigma must be positive"),
        ({"sigma": float("inf")}, ValueError, "sigma must be positive"),
        ({"sigma": "wide"}, ValueError, "sigma must be a number or two"),
        ({"threads": "two"}, TypeError, "incompatible"),
    ],
)
def test_bad_input_raises(change, kind, message):
    arguments = {"image": np.zeros((8, 8, 3), np.uint8), "kernel_size": 3, **change}
    with pytest.raises(kind, match=message):
        card.gaussian_blur(**arguments)


def test_the_compiled_function_refuses_weights_that_would_overflow():
    image, weights = np.zeros((4, 4, 1), np.uint8), np.array([1, 6, 1], np.int16)

    def run(weights, units=(3, 3), kept=2, sizes=(3, 3), shape=(1, 1, 4, 4, 1)):
        address = weights.ctypes.data
        arguments = (address, address, sizes, units, kept)
        kernels.compiled().gaussian_blur(False, image.ctypes.data, (16, 16, 4), image.ctypes.data, shape, *arguments)

    run(weights)
    for change in (
        {"weights": np.array([-1, 10, -1], np.int16)},
        {"units": (4, 3)},
        {"units": (3, 63)},
        {"kept": 3},
        {"kept": 8},
        {"kept": -1},
        {"sizes": (2, 3)},
        {"shape": (1, 1, -4, 4, 1)},
    ):
        with pytest.raises(ValueError, match="gaussian_blur"):
            run(**{"weights": weights, **change})


# -- weights -----------------------------------------------------------------------------------------------------


def test_sigma_is_opencvs():
    assert card.default_sigma(51) == pytest.approx(8.0)
    assert card.default_sigma(3) == pytest.approx(0.8)


def test_weights_sum_to_one_and_are_symmetric():
    weights = card.gaussian_weights(51, 8.0)
    assert weights.sum() == pytest.approx(1, abs=1e-15)
    assert np.array_equal(weights, weights[::-1])


@pytest.mark.parametrize("sigma", [None, 1e-300, 0.1, 0.3, 0.5, 1.0, 2.0, 8.0, 30.0, 150.0, 1e300])
def test_fixed_weights_keep_the_promised_error(sigma):
    """Over any picture: that of weights meets grey levels within ±127.5 of the middle (their errors sum to 0)."""
    for size in (*range(1, 102, 2), *range(101, 1000, 58), 999):
        weights = card.gaussian_weights(size, sigma or card.default_sigma(size))
        fixed, unit = card.fixed_weights(weights)
        assert fixed.dtype == np.int16 and fixed.min() >= 0 and fixed.sum(dtype=int) == 2**unit
        assert np.array_equal(fixed, fixed[::-1])
        assert 255 * 2 ** (unit + card.kept_bits(unit)) + 2 ** (unit + card.kept_bits(unit) - 1) < 2**31
        of_weights = 127.5 * np.abs(fixed / 2**unit - weights).sum()
        assert 2 * of_weights + 0.5 / 2 ** card.kept_bits(unit) <= 0.2


def mirrored(position, length):
    """Walks back from the border as often as needed, one reflection at a time."""
    while length > 1 and not 0 <= position < length:
        position = -position if position < 0 else 2 * (length - 1) - position
    return position if length > 1 else 0


@settings(max_examples=60, deadline=None)
@given(radius=st.integers(0, 60), length=st.integers(1, 20))
def test_border_is_mirrored_about_the_end_pixels(radius, length):
    expected = [mirrored(position, length) for position in range(-radius, length + radius)]
    assert card.reflected(radius, length).tolist() == expected


# -- hypothesis --------------------------------------------------------------------------------------------------


@settings(max_examples=500, deadline=None)
@given(
    n=st.none() | st.integers(0, 3),
    sides=st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(1, 7)),
    sizes=st.tuples(ODD, ODD),
    sigma=st.none() | st.floats(1e-3, 1e3) | st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)),
    layout=st.sampled_from(card.LAYOUTS),
    dtype=st.sampled_from(["uint8", "float32"]),
    isa=st.sampled_from(ISAS),
    threads=st.integers(1, 3),
    extreme=st.booleans(),
)
def test_random_pictures(n, sides, sizes, sigma, layout, dtype, isa, threads, extreme):
    h, w, c = sides
    shape = (h, w, c) if layout == "HWC" else (c, h, w)
    image, options = card.Case("random", shape if n is None else (n, *shape), sizes, sigma, layout, dtype).make()
    if extreme:  # black and white alone: the largest sums
        white = image.dtype.type(255 if dtype == "uint8" else 1)
        image = np.where(image > white / 2, white, white * 0)
    assert_right(card.gaussian_blur(image, **options, isa=isa, threads=threads), image, options)
