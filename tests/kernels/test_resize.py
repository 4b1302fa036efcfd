"""The NumPy face of resize on every instruction set that this machine has: Pillow's bytes, or nothing."""

import ctypes
import mmap
import sys

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hw4fast import kernels
from hw4fast.kernels import resize as card

CASES = list(card.cases())
ISAS = kernels.isas()
BEFORE_13 = int(PIL.__version__.split(".")[0]) < 13
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pillow(picture, size, box=None, interpolation="bilinear"):
    turned = BEFORE_13 and card.down_first(*picture.shape[:2], *size)  # it goes across first: so that is down
    if turned:
        picture, size, box = picture.transpose(1, 0, 2), size[::-1], box and (box[1], box[0], box[3], box[2])
    image = Image.fromarray(np.ascontiguousarray(picture[:, :, 0] if picture.shape[2] == 1 else picture))
    whole = np.asarray(image.resize(size[::-1], Image.Resampling[interpolation.upper()]))
    top, left, height, width = box or (0, 0, *size)
    wanted = whole.reshape(*size, picture.shape[2])[top : top + height, left : left + width]
    return wanted.transpose(1, 0, 2) if turned else wanted


def normalised(batch, channels):
    """As NumPy and torchvision do it, from the bytes."""
    mean, std = (np.asarray(values[:channels], np.float32) for values in (MEAN, STD))
    return ((batch.astype(np.float32) / np.float32(255) - mean) / std).transpose(2, 0, 1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gives_pillows_bytes(case, isa):
    picture, options = case.make()
    before, c = picture.copy(), picture.shape[2]
    wanted = pillow(picture, **options)
    result = card.resize(picture, **options, isa=isa)
    assert result.dtype == np.uint8 and result.flags.c_contiguous
    np.testing.assert_array_equal(result, wanted)
    floats = card.resize(picture, **options, mean=MEAN[:c], std=STD[:c], isa=isa)
    assert floats.dtype == np.float32 and floats.flags.c_contiguous
    np.testing.assert_array_equal(floats, normalised(wanted, c))
    assert np.array_equal(picture, before)


@pytest.mark.parametrize("case", CASES[::3], ids=lambda case: case.name)
def test_the_reference_is_what_is_rounded(case):
    """Each pass rounds to bytes, half a level each; the second one's weights, some of them negative, sum to less than
    1.6 in absolute value. Greys from 102 to 153: nothing is clipped."""
    picture, options = case.make()
    picture = picture // 5 + 102
    exact = card.reference(picture, **options)
    assert np.abs(card.resize(picture, **options) - exact).max() <= 0.5 + 0.5 * 1.6
    flat = np.full_like(picture, 77)
    np.testing.assert_allclose(card.reference(flat, **options), 77, rtol=1e-12)
    assert (card.resize(flat, **options) == 77).all()


@pytest.mark.parametrize("case", CASES[::7], ids=lambda case: case.name)
def test_the_numba_variant_gives_the_same_bytes(case):
    picture, options = case.make()
    np.testing.assert_array_equal(card.resize_numba(picture, **options), card.resize(picture, **options))


@pytest.mark.parametrize("isa", ISAS)
def test_the_forced_variant_is_the_one_that_ran(isa):
    picture, options = CASES[0].make()
    before = kernels.calls()["resize"]
    card.variants()[f"cpp-{isa}"](picture, **options)
    after = kernels.calls()["resize"]
    assert {i: after[i] - before[i] for i in ISAS} == {i: int(i == isa) for i in ISAS}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(301, 203, 3), (203, 301, 1)])
def test_the_result_does_not_depend_on_the_number_of_threads(shape, isa):
    picture, options = card.Case("threads", shape, (97, 131)).make()
    one = card.resize(picture, **options, threads=1, isa=isa)
    for threads in (2, 3, 7, 16):
        np.testing.assert_array_equal(card.resize(picture, **options, threads=threads, isa=isa), one)


def test_any_strides():
    picture, options = card.Case("strides", (40, 30, 3), (25, 21)).make()
    wanted = card.resize(picture, **options)
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
        np.testing.assert_array_equal(card.resize(view, **options), wanted, err_msg=name)
    green = picture[:, :, 1:2]
    np.testing.assert_array_equal(card.resize(green, **options), card.resize(green.copy(), **options))


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect by ctypes")
@pytest.mark.parametrize("isa", ISAS)
def test_nothing_is_read_around_the_picture(isa):
    """It begins or ends where the readable memory does: another byte would end the process."""
    page, libc = mmap.PAGESIZE, ctypes.CDLL(None, use_errno=True)
    memory = np.frombuffer(mmap.mmap(-1, 3 * page), np.uint8)
    for wall in (0, 2 * page):
        assert libc.mprotect(ctypes.c_void_p(memory.ctypes.data + wall), ctypes.c_size_t(page), 0) == 0
    for (h, w, c), size in (
        ((67, 61, 1), (30, 40)),
        ((67, 20, 3), (9, 40)),  # down first
        ((40, 19, 3), (50, 22)),
        ((1, 5, 1), (1, 3)),
        ((5, 1, 3), (2, 9)),
    ):
        for start in (page, 2 * page - h * w * c):
            picture = memory[start : start + h * w * c].reshape(h, w, c)
            picture[:] = np.arange(h * w * c).reshape(h, w, c) % 251
            np.testing.assert_array_equal(card.resize(picture, size, isa=isa), pillow(picture, size))
    assert libc.mprotect(ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(3 * page), 3) == 0


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"picture": np.zeros((8, 8), np.uint8)}, ValueError, r"\[h, w, 1 or 3\]"),
        ({"picture": np.zeros((8, 8, 4), np.uint8)}, ValueError, r"\[h, w, 1 or 3\]"),
        ({"picture": np.zeros((0, 8, 3), np.uint8)}, ValueError, "with pixels"),
        ({"picture": np.zeros((8, 8, 3), np.float32)}, TypeError, "uint8"),
        ({"size": (0, 4)}, ValueError, "must have pixels"),
        ({"size": (4, -1)}, ValueError, "must have pixels"),
        ({"size": (4, 4.0)}, TypeError, "integer"),
        ({"box": (0, 0, 5, 4)}, ValueError, "lie within"),
        ({"box": (-1, 0, 2, 2)}, ValueError, "lie within"),
        ({"box": (0, 3, 2, 2)}, ValueError, "lie within"),
        ({"box": (0, 0, 0, 2)}, ValueError, "must have pixels"),
        ({"interpolation": "nearest"}, ValueError, "interpolation must be one of"),
        ({"mean": (0.5,) * 3}, ValueError, "3 values each"),
        ({"mean": (0.5,) * 3, "std": (0.5,)}, ValueError, "3 values each"),
        ({"isa": "sse9"}, ValueError, "'sse9' is not to be had here"),
        ({"threads": "two"}, TypeError, "incompatible"),
    ],
)
def test_bad_input_raises(change, kind, message):
    with pytest.raises(kind, match=message):
        card.resize(**{"picture": np.zeros((8, 8, 3), np.uint8), "size": (4, 4), **change})


def test_the_compiled_function_refuses_what_would_leave_its_memory():
    picture, output = np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)

    def run(shape=(8, 8, 3), size=(4, 4), box=(0, 0, 4, 4), filter="bilinear", mean=(), std=()):
        addresses = picture.ctypes.data, output.ctypes.data
        kernels.compiled().resize(addresses[0], shape, 24, size, box, filter, addresses[1], mean, std)

    run()
    for change in (
        {"shape": (8, 8, 2)},
        {"shape": (-8, 8, 3)},
        {"shape": (0, 8, 3)},
        {"box": (1, 0, 4, 4)},
        {"box": (-1, 0, 4, 4)},
        {"box": (0, 0, 0, 4)},
        {"box": (2**63 - 1, 0, 4, 4)},
        {"size": (-4, 4)},
        {"size": (4, 2**62)},
        {"filter": "nearest"},
        {"mean": (1.0,), "std": (1.0,)},
        {"std": (1.0,) * 3},
    ):
        with pytest.raises(ValueError, match="resize"):
            run(**change)


SIDE = st.integers(1, 90) | st.sampled_from([1, 2, 255, 640])


@settings(max_examples=1000, deadline=None)
@given(
    shape=st.tuples(SIDE, SIDE, st.sampled_from(card.CHANNELS)),
    size=st.tuples(SIDE, SIDE),
    parts=st.tuples(*[st.floats(0, 1)] * 4),
    interpolation=st.sampled_from(list(card.FILTERS)),
    isa=st.sampled_from(ISAS),
    threads=st.integers(1, 3),
    contrast=st.booleans(),
)
def test_any_size_gives_pillows_bytes(shape, size, parts, interpolation, isa, threads, contrast):
    picture = np.random.default_rng(shape).integers(0, 256, shape, np.uint8)
    if contrast:  # over- and undershoots are clipped after each pass
        picture = (picture > 127).astype(np.uint8) * 255
    top, left = (int(part * (side - 1)) for part, side in zip(parts[:2], size, strict=True))
    height, width = 1 + int(parts[2] * (size[0] - top - 1)), 1 + int(parts[3] * (size[1] - left - 1))
    box = (top, left, height, width)
    result = card.resize(picture, size, box, interpolation, isa=isa, threads=threads)
    np.testing.assert_array_equal(result, pillow(picture, size, box, interpolation))
