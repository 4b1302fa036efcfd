"""The CUDA kernels for bytes of pictures (noise, sample, blurs, jpeg), run by the emulator: the CPU kernels' bytes."""

import importlib

import numpy as np
import pytest
import torch

from hw4fast.kernels import gaussian_blur as blur_card
from hw4fast.kernels import isas
from hw4fast.kernels.jpeg import cases
from hw4fast.transforms import geometry
from tests.emulated.faces import emulated  # noqa: F401
from tests.nn.test_pictures import KEYS, STRENGTHS, TURN, fields, pictures, places

names = ("correlate", "fixed_blur", "jpeg", "noise", "sample")
correlate, blur, jpeg, noise, sample = (importlib.import_module(f"hw4fast.nn.{name}") for name in names)


@pytest.mark.parametrize("kind", STRENGTHS)
@pytest.mark.parametrize("shape", [(3, 90, 100, 3), (3, 1, 1, 1), (3, 63), (3, 64), (3, 65), (3, 7, 33, 1)], ids=str)
def test_noise(emulated, kind, shape):  # noqa: F811
    x = pictures(*shape)
    for strength in (STRENGTHS[kind], *{"impulse": (0, 1, 1e-4), "shot": (0.1, 600)}.get(kind, (0, 0.004, 9.0))):
        found = noise._noise_cuda(x, kind, strength, KEYS)
        assert torch.equal(found, noise.noise(x, kind, strength, KEYS)), strength


@pytest.mark.parametrize("kind", noise.DRAWS)
def test_draws(emulated, kind):  # noqa: F811
    torch.set_default_dtype(torch.float64)  # which must not matter
    try:
        assert noise._draws_cuda(kind, (5,), KEYS, torch.empty(0)).dtype is torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    where = torch.empty(0)
    for shape in ((), (1,), (63,), (64,), (65,), (7, 33, 2), (0, 5)):
        assert torch.equal(noise._draws_cuda(kind, shape, KEYS, where), noise.draws(kind, shape, KEYS, where)), shape


@pytest.mark.parametrize("shape", [(3, 40, 31, 3), (3, 9, 50, 1), (3, 50, 9, 3), (3, 8, 8, 3), (3, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("reach", [1, 2, 3, 4])
def test_shuffle(emulated, shape, reach):  # noqa: F811
    x = pictures(*shape)
    for turns in (0, 1, 2, 5):
        found = noise._shuffle_cuda(x, reach, turns, KEYS)
        assert torch.equal(found, noise.shuffle(x, reach, turns, KEYS)), turns


def test_shuffle_of_more_rows_at_once_than_threads(emulated):  # noqa: F811
    x = pictures(3, 700, 700, 1)[:1]
    assert torch.equal(noise._shuffle_cuda(x, 1, 1, KEYS[:1]), noise.shuffle(x, 1, 1, KEYS[:1]))


@pytest.mark.parametrize("size", [1, 3, 15, 17, 51, 999])
@pytest.mark.parametrize("border", ["mirror", "edge", "reflect"])
@pytest.mark.parametrize("rounding", ["nearest", "down"])
def test_fixed_blur(emulated, size, border, rounding):  # noqa: F811
    for shape in ((2, 33, 50, 3), (3, 1, 1, 1), (2, 17, 2, 3), (2, 5, 131, 1)):
        x = pictures(*shape)
        x[0, : shape[1] // 2] = 255
        for sigmas in ([0.01], [7.3], [400.0], [0.1, 2.5, 30.0][: shape[0]]):
            found = blur._fixed_blur_cuda(x, size, sigmas, border, rounding)
            assert torch.equal(found, blur.fixed_blur(x, size, sigmas, border, rounding)), (shape, sigmas)


@pytest.fixture
def fusing():
    """The instruction sets that fuse a product and a sum, as GPUs do."""
    found = [isa for isa in isas() if isa != "baseline"]
    if not found:
        pytest.skip("float_blur's bits are those of AVX2 or AVX-512, which this processor lacks")
    return found


def same_bits(found, wanted):
    """NaN is NaN, whatever its bits."""
    both = [np.where(np.isnan(x), np.float32(np.nan), x).view(np.uint32) for x in (found, wanted)]
    return np.array_equal(*both)


@pytest.mark.parametrize("size", [1, 3, 15, 17, 51, 999])
@pytest.mark.parametrize("border", ["mirror", "edge", "reflect"])
@pytest.mark.parametrize("c", [1, 2])
def test_float_blur(emulated, fusing, size, border, c):  # noqa: F811
    for shape in ((2, 33, 50, c), (3, 1, 1, c), (2, 17, 2, c), (1, 5, 131, c)):
        x = fields(*shape)
        x[0, shape[1] // 2 :] *= 1e-38  # subnormal sums
        for sizes, sigmas in (((size, size), (0.01, 0.01)), ((size, 5), (7.3, 0.9)), ((3, size), (0.7, 400.0))):
            found = blur._float_blur_cuda(x, sizes, sigmas, border).numpy()
            for isa in fusing:
                wanted = blur_card.gaussian_blur(x.numpy(), sizes, sigmas, isa=isa, border=border)
                assert same_bits(found, wanted), (shape, sizes, isa)


@pytest.mark.parametrize("border", ["mirror", "edge", "reflect"])
def test_float_blur_of_what_is_not_finite(emulated, fusing, border):  # noqa: F811
    x = fields(1, 40, 37, 2)
    x[0, 11, 20, 0], x[0, 30, 3, 0], x[0, 0, 36, 1], x[0, 39, 1, 1] = np.inf, -np.inf, np.nan, np.inf
    for sizes, sigmas in (((3, 5), (1.0, 1.0)), ((17, 1), (0.05, 1.0)), ((7, 21), (2.0, 0.3))):  # some weights are 0
        found = blur._float_blur_cuda(x, sizes, sigmas, border).numpy()
        assert 0 < np.isfinite(found).mean() < 1
        for isa in fusing:
            wanted = blur_card.gaussian_blur(x.numpy(), sizes, sigmas, isa=isa, border=border)
            assert same_bits(found, wanted), (sizes, isa)


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("fill", [None, 0, 255])
@pytest.mark.parametrize("size", [(20, 31), (1, 1), (50, 3)], ids=str)
def test_warp(emulated, monkeypatch, c, fill, size):  # noqa: F811
    x = pictures(3, *size, c)
    turned = [np.array(geometry.rotation(size, degrees)) for degrees in (30, 90, 360)]
    far = np.array([[1, 0, 1e30], [0, 1, -1e30], [0, 0, 1]])
    gone = np.array([[1, 0, 0], [0, 1, 0], [1e-3, 0, 0.0]])  # by 0 at the left border: ±∞ and NaN
    for matrices in (np.stack([np.eye(3), TURN, TURN @ TURN]), np.stack(turned), far[None], gone[None], TURN[None]):
        assert torch.equal(on_emulator(monkeypatch, sample.warp, x, matrices, fill), sample.warp(x, matrices, fill))


def test_sample(emulated, monkeypatch):  # noqa: F811
    x = pictures(2, 40, 31, 3)
    rows = np.linspace(-3, 45, 77, dtype=np.float32)
    columns = np.float32([np.nan, -np.inf, np.inf, 2.5, 2.99999, 30, 30.5, 31, 1e9])
    assert torch.equal(on_emulator(monkeypatch, sample.sample, x, rows, columns), sample.sample(x, rows, columns))


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("border", ["edge", "reflect", "constant"])
@pytest.mark.parametrize("rounding", ["nearest", "down"])
def test_sample_at_places_of_each(emulated, monkeypatch, c, border, rounding):  # noqa: F811
    for size in ((40, 31), (1, 1), (2, 77), (3, 1)):
        x = pictures(2, *size, c)
        for shape in ((2, 1, 1), (2, 33, 19), (2, *size)):
            rows, columns = places(size, shape)
            turned = columns.transpose(1, 2).contiguous().transpose(1, 2)  # other strides than the rows'
            for fill in (0, 77) if border == "constant" else (0,):
                given = x, rows, turned, border, fill, rounding
                assert torch.equal(on_emulator(monkeypatch, sample.sample, *given), sample.sample(*given))
    alike = x, *(each[:1].expand(2, -1, -1) for each in (rows, columns)), border, 5, rounding
    assert torch.equal(on_emulator(monkeypatch, sample.sample, *alike), sample.sample(*alike))


def test_sample_reflects_at_sides_of_every_length(emulated, monkeypatch):  # noqa: F811
    """Where the inverse of twice the side is rounded, places by whole periods are those that may differ."""
    rng = np.random.default_rng(0)
    for side in (1, 2, 3, 5, 7, 41, 49, 224, 375, 1021):
        x = pictures(1, side, 3, 1)
        whole = rng.integers(-(2**23) // side, 2**23 // side, (1, 60, 50)) * side
        rows = torch.from_numpy((whole + rng.choice([-1, -0.5, 0, 0.5, 0.25], whole.shape)).astype(np.float32))
        given = x, rows, torch.ones(rows.shape), "reflect", 0, "down"
        assert torch.equal(on_emulator(monkeypatch, sample.sample, *given), sample.sample(*given)), side


def taps_of(reach, count, seed=0):
    rng = np.random.default_rng([reach, count, seed])
    rows, columns = rng.integers(-reach, reach + 1, (2, count))
    weights = rng.random(count)
    return rows, columns, weights / weights.sum()


@pytest.mark.parametrize("border", ["mirror", "edge"])
@pytest.mark.parametrize("rounding", ["nearest", "down"])
@pytest.mark.parametrize("shape", [(2, 33, 50, 3), (3, 1, 1, 1), (2, 17, 2, 3), (2, 64, 5, 1)], ids=str)
def test_correlate(emulated, border, rounding, shape):  # noqa: F811
    x = pictures(*shape)
    x[0, : shape[1] // 2] = 255
    alone = ([0], [0], [1.0])  # one tap weighs all
    every = [taps_of(3, 9), alone, taps_of(70, 600, 1)][: shape[0]]
    for taps in ([taps_of(2, 5)], [alone], [taps_of(40, 700)], every):
        found = correlate._correlate_cuda(x, taps, border, rounding)
        assert torch.equal(found, correlate.correlate(x, taps, border, rounding))


@pytest.mark.parametrize("wide_sums", [False, True])
def test_correlate_where_memory_is_too_small_for_a_tile_and_sums_are_long(emulated, wide_sums):  # noqa: F811
    x, rng = pictures(2, 40, 33, 3), np.random.default_rng(1)
    count = 5000 if wide_sums else 40  # of so many none has 15 bits
    weights = rng.random(count)
    taps = rng.integers(-300, 301, count), rng.integers(-300, 301, count), weights / weights.sum()
    found = correlate._correlate_cuda(x, [taps], "mirror", "nearest")
    assert torch.equal(found, correlate.correlate(x, [taps], "mirror", "nearest"))
    near = taps[0] // 30, taps[1] // 30, taps[2]
    found = correlate._correlate_cuda(x, [near], "edge", "down")
    assert torch.equal(found, correlate.correlate(x, [near], "edge", "down"))


@pytest.mark.parametrize("shape", [(2, 40, 31, 3), (3, 1, 1, 1), (2, 2, 77, 3), (1, 130, 3, 1)], ids=str)
def test_zoom_blur(emulated, shape):  # noqa: F811
    x = pictures(*shape)
    for factors in ([], [1.0], [1.5], np.arange(1, 1.31, 0.03), [1.0, 1.001, 1.03, 2, 3.3, 100], np.arange(1, 9, 0.02)):
        assert torch.equal(correlate._zoom_blur_cuda(x, factors), correlate.zoom_blur(x, factors)), factors


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_jpeg(emulated, case):  # noqa: F811
    picture, quality = case.make()
    x = torch.from_numpy(np.stack([picture, picture[::-1], 255 - picture]))
    assert torch.equal(jpeg._jpeg_cuda(x, quality), jpeg.jpeg(x, quality))


@pytest.mark.parametrize("quality", [1, 2, 10, 40])
def test_jpeg_of_blocks_that_go_as_far_as_they_can(emulated, quality):  # noqa: F811
    """Black and white as the cosines' products have it, and at random: coefficients lie at their ends."""
    cosines = np.cos(np.pi / 8 * (np.arange(8) + 0.5) * np.arange(8)[:, None])
    products = np.einsum("ux,vy->uvxy", cosines, cosines).reshape(64, 8, 8, 1)
    random = np.random.default_rng(0).random((64, 8, 8, 1)) - 0.5
    x = torch.from_numpy(np.where(np.concatenate([products, -products, random]) > 0, 255, 0).astype(np.uint8))
    for given in (x, x * torch.tensor([1, 0, 1], dtype=torch.uint8)):
        assert torch.equal(jpeg._jpeg_cuda(given, quality), jpeg.jpeg(given, quality))


@pytest.mark.parametrize("shape", [(0, 4, 5, 3), (2, 0, 5, 3), (2, 4, 0, 1)], ids=str)
def test_jpeg_of_nothing(emulated, shape):  # noqa: F811
    assert jpeg._jpeg_cuda(pictures(*shape), 50).shape == shape


def on_emulator(monkeypatch, call, x, *rest):
    """As for a tensor on a GPU."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "is_cuda", True)
        return call(x, *rest)


def test_what_is_refused(emulated):  # noqa: F811
    some = torch.zeros(64, dtype=torch.uint8).data_ptr()
    for kind, strength, table, bits in ((6, 1, 0, 0), (-1, 1, 0, 0), (0, -1, 0, 0), (0, 1e7, 0, 0), (3, 0, 0, 5)):
        with pytest.raises(ValueError, match="noise"):
            emulated.noise(kind, some, some, some, 1, 4, strength, table, bits, 0)
    with pytest.raises(ValueError, match="without memory"):
        emulated.noise(0, some, 0, some, 1, 4, 1.0, 0, 0, 0)
    with pytest.raises(ValueError, match="without memory"):
        emulated.noise(4, 0, some, 0, 1, 4, 0.0, 0, 0, 0)
    for shape, reach, turns in (
        ((1, 4, 4, 0), 1, 1),
        ((1, -4, 4, 3), 1, 1),
        ((1, 4, 4, 3), 0, 1),
        ((1, 4, 4, 3), 1, -1),
    ):
        with pytest.raises(ValueError, match="shuffle"):
            emulated.shuffle(some, shape, reach, turns, some, 0)
    with pytest.raises(ValueError, match="without memory"):
        emulated.shuffle(0, (1, 4, 4, 3), 1, 1, some, 0)
    for n, size, border in ((1, 2, 0), (1, 1001, 0), (1, 3, 3), (70_000, 3, 0)):
        with pytest.raises(ValueError, match="fixed_blur"):
            emulated.fixed_blur(some, some, some, (n, 2, 2, 1), some, size, some, False, border, True, 0)
    with pytest.raises(ValueError, match="without memory"):
        emulated.fixed_blur(some, some, 0, (1, 2, 2, 1), some, 3, some, False, 0, True, 0)
    for n, sizes, border in ((1, (2, 3), 0), (1, (3, 1001), 0), (1, (3, 3), 3), (70_000, (3, 3), 0), (-1, (3, 3), 0)):
        with pytest.raises(ValueError, match="float_blur"):
            emulated.float_blur(some, some, some, (n, 2, 2, 1), some, some, sizes, border, 0)
    with pytest.raises(ValueError, match="without memory"):
        emulated.float_blur(some, some, some, (1, 2, 2, 1), some, 0, (3, 3), 0, 0)
    nowhere = (False, False, 0, 0, 0, (0, 0, 0), 0, (0, 0, 0), 0)
    for shape, size, fill in (
        ((1, 4, 5, 2), (4, 5), 0),
        ((1, 0, 5, 3), (4, 5), 0),
        ((1, 1 << 24, 5, 3), (4, 5), 0),
        ((1, 4, 5, 3), (-1, 5), 0),
        ((1, 4, 5, 3), (4, 5), 256),
        ((1, 4, 5, 3), (4, 5), 0),
    ):
        with pytest.raises(ValueError, match="sample"):
            emulated.sample(some, shape, some, size, fill, *nowhere)
    for shape, quality in (
        ((1, 4, 5, 2), 50),
        ((-1, 4, 5, 3), 50),
        ((1, 65536, 5, 3), 50),
        ((1, 4, 5, 3), 0),
        ((1, 4, 5, 3), 101),
        ((1 << 30, 17, 5, 3), 50),
    ):
        with pytest.raises(ValueError, match="jpeg"):
            emulated.jpeg(some, some, some, shape, quality, 0)
    with pytest.raises(ValueError, match="without memory"):
        emulated.jpeg(some, some, 0, (1, 4, 5, 3), 50, 0)
    taps = (some, some, some, True)
    for shape, unit, reach in (
        ((1, 4, 5, 2), 15, (0, 0, 0, 0)),
        ((70_000, 4, 5, 3), 15, (0, 0, 0, 0)),
        ((1, 0, 5, 3), 15, (0, 0, 0, 0)),
        ((1, 4, 5, 3), 31, (0, 0, 0, 0)),
        ((1, 4, 5, 3), 15, (0, 5000, 0, 0)),
    ):
        with pytest.raises(ValueError, match="correlate"):
            emulated.correlate(some, some, shape, *taps, unit, reach, True, True, 0)
    for shape, copies in (((1, 4, 5, 2), 1), ((1, 0, 5, 3), 1), ((1, 4, 5, 3), 1001)):
        with pytest.raises(ValueError, match="zoom_blur"):
            emulated.zoom_blur(some, some, shape, some, some, copies, 1, 0, 1.0, 0)
    with pytest.raises(ValueError, match="without memory"):
        emulated.zoom_blur(some, some, (1, 4, 5, 3), 0, some, 1, 1, 0, 1.0, 0)
