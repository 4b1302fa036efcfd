"""JPEG without a file on every instruction set: libjpeg-turbo's bytes, or nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import features

from hw4fast import kernels
from hw4fast.kernels import jpeg as card
from tests.kernels.arrays import misaligned
from tests.kernels.comparing import calls_during
from tests.kernels.walls import walled

CASES = list(card.cases())
ISAS = kernels.isas()
turbo = pytest.mark.skipif(not features.check_feature("libjpeg_turbo"), reason="Pillow has another libjpeg")


def assert_right(picture, quality):
    wanted = card.jpeg_reference(picture, quality)
    for isa in ISAS:
        result = card.jpeg(picture, quality, isa=isa)
        assert result.dtype == np.uint8 and result.flags.c_contiguous
        np.testing.assert_array_equal(result, wanted, err_msg=isa)


@turbo
@pytest.mark.parametrize("case", [*CASES, *card.BENCHMARK_CASES], ids=lambda case: case.name)
def test_gives_libjpegs_bytes(case):
    picture, quality = case.make()
    before = picture.copy()
    assert_right(picture, quality)
    assert np.array_equal(picture, before)


@turbo
@settings(max_examples=300, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 80), st.integers(1, 80), st.sampled_from((1, 3))),
    quality=st.integers(1, 100),
    kind=st.sampled_from(("noise", "extreme", "smooth", "flat")),
)
def test_any_size_and_quality_gives_libjpegs_bytes(shape, quality, kind):
    picture = np.random.default_rng([*shape, quality]).integers(0, 256, shape, np.uint8)
    if kind == "extreme":
        picture = picture // 128 * 255
    elif kind == "smooth":
        picture = (np.cumsum(picture % 7, 1) % 256).astype(np.uint8)
    elif kind == "flat":
        picture[:] = picture[0, 0]
    assert_right(picture, quality)


def test_what_is_seen_at_once():
    for value in (0, 1, 127, 128, 255):
        flat = np.full((21, 34, 3), value, np.uint8)
        assert np.array_equal(card.jpeg(flat, 100), flat)
    picture, _ = card.Case("photo", (64, 96, 3), 50, 5).make()
    errors = [np.abs(card.jpeg(picture, q) - picture.astype(float)).mean() for q in (100, 50, 20, 1)]
    assert errors == sorted(errors) and errors[0] < errors[-1]
    assert np.array_equal(card.jpeg(picture[..., :1], 20)[..., 0], card.jpeg(picture[..., :1].copy(), 20)[..., 0])


def test_any_strides_and_empty_pictures():
    picture, quality = card.Case("strides", (20, 31, 3), 40).make()
    wanted = card.jpeg(picture, quality)
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
        np.testing.assert_array_equal(card.jpeg(view, quality), wanted, err_msg=name)
    for shape in ((0, 5, 3), (5, 0, 3), (0, 0, 1)):
        assert card.jpeg(np.zeros(shape, np.uint8), 50).shape == shape


@pytest.mark.parametrize("isa", ISAS)
def test_the_forced_variant_is_the_one_that_ran(isa):
    arguments = CASES[0].make()
    wanted = {i: int(i == isa) for i in ISAS}
    assert calls_during("jpeg", lambda: card.variants()[f"cpp-{isa}"](*arguments)) == wanted


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(37, 31, 3), (37, 31, 1), (1, 5, 3), (5, 1, 1), (1, 1, 3), (16, 64, 3), (3, 128, 1)])
def test_no_memory_beside_the_arrays_is_touched(shape, isa):
    picture, quality = card.Case("walls", shape, 35).make()
    wanted = card.jpeg(picture, quality)
    for source, output in walled(picture, np.zeros_like(picture)):
        addresses = source.ctypes.data, shape[1] * shape[2], output.ctypes.data
        kernels.compiled().jpeg(*addresses, shape, quality, isa)
        np.testing.assert_array_equal(output, wanted)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"picture": np.zeros((8, 8), np.uint8)}, ValueError, r"\[h, w, 1 or 3\]"),
        ({"picture": np.zeros((8, 8, 4), np.uint8)}, ValueError, r"\[h, w, 1 or 3\]"),
        ({"picture": np.zeros((65536, 1, 1), np.uint8)}, ValueError, "65535"),
        ({"picture": np.zeros((8, 8, 3), np.float32)}, TypeError, "uint8"),
        ({"quality": 0}, ValueError, "quality"),
        ({"quality": 101}, ValueError, "quality"),
        ({"quality": 50.0}, TypeError, "integer"),
        ({"isa": "sse9"}, ValueError, "'sse9' is not to be had here"),
    ],
)
def test_bad_input_raises(change, kind, message):
    with pytest.raises(kind, match=message):
        card.jpeg(**{"picture": np.zeros((8, 8, 3), np.uint8), "quality": 50, **change})


def test_the_compiled_function_refuses_what_would_leave_its_memory():
    picture = np.zeros((8, 8, 3), np.uint8)
    good = {"input": picture.ctypes.data, "stride": 24, "output": picture.copy().ctypes.data, "shape": (8, 8, 3)}
    good |= {"quality": 50}
    for change in (
        {"shape": (-8, 8, 3)}, {"shape": (8, -8, 3)}, {"shape": (8, 8, 2)}, {"shape": (8, 70000, 3)}, {"input": 0},
        {"output": 0}, {"quality": 0}, {"quality": 101},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="jpeg"):
            kernels.compiled().jpeg(**{**good, **change})
