"""The operators on batches of pictures on the CPU: the kernels' bytes picture by picture, and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hw4fast.kernels import correlate as correlate_card
from hw4fast.kernels import gaussian_blur as blur_card
from hw4fast.kernels import jpeg as jpeg_card
from hw4fast.kernels import noise as noise_card
from hw4fast.kernels import sample as sample_card
from hw4fast.kernels import zoom_blur as zoom_card
from hw4fast.nn import correlate, draws, fixed_blur, float_blur, jpeg, noise, sample, shuffle, warp, zoom_blur
from hw4fast.nn.noise import DRAWS, ON_PICTURES

KEYS = [0, 2**64 - 1, 12345678901234567890]
STRENGTHS = {"gaussian": 0.2, "speckle": 0.5, "impulse": 0.1, "shot": 25.0}
TURN = np.array([[0.9, -0.3, 4.2], [0.3, 0.9, -1.7], [0.001, -0.002, 1]])


def pictures(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def fields(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def places(size, shape, seed=0):
    """float32 [n, H, W] rows and columns within and beyond pictures of a size, far, infinite, NaN and at the edges."""
    rng = np.random.default_rng(seed)
    found = []
    for side in size:
        some = (rng.uniform(-2.5, 3.5, shape) * side).astype(np.float32)
        far = [np.nan, np.inf, -np.inf, 3e9, -3e9, *(s * v for s in (-1, 1) for v in (2**24, 2**24 - 1, 2**24 - 2))]
        near = [v + d for v in (-side, 0, side, 2 * side, 65536 * side) for d in (-1, -0.5, -1e-7, 0, 0.25, 0.5)]
        odd = np.float32([*far, *near, -0.0, 0.49999997, 1e-45])
        where = rng.choice(some.size, min(some.size // 2, len(odd)), replace=False)
        some.ravel()[where] = rng.permutation(odd)[: len(where)]
        found.append(torch.from_numpy(some))
    return found


@pytest.mark.parametrize("kind", ON_PICTURES)
@pytest.mark.parametrize("shape", [(3, 17, 23, 3), (3, 1, 1, 1), (3, 100)], ids=str)
def test_each_picture_has_its_own_noise(kind, shape):
    x = pictures(*shape)
    found = noise(x, kind, STRENGTHS[kind], KEYS)
    for one, key, made in zip(x.numpy(), KEYS, found.numpy(), strict=True):
        assert np.array_equal(made, ON_PICTURES[kind](one, STRENGTHS[kind], key))
    assert np.array_equal(noise_card.shot_noise(x[0].numpy(), 3.0, 5), noise(x[:1], "shot", 3.0, [5])[0].numpy())


@pytest.mark.parametrize("kind", DRAWS)
def test_each_key_has_its_own_draws(kind):
    for shape in ((), (5,), (7, 9, 2), (0, 3)):
        found = draws(kind, shape, KEYS, torch.empty(0))
        assert found.dtype is torch.float32 and found.shape == (3, *shape)
        for key, made in zip(KEYS, found, strict=True):
            assert np.array_equal(made.numpy(), DRAWS[kind](shape, key))


@pytest.mark.parametrize("shape", [(3, 17, 23, 3), (3, 1, 1, 1), (3, 5, 90, 2)], ids=str)
def test_each_picture_is_moved_about_by_its_own_key(shape):
    x = pictures(*shape)
    for reach, turns in ((1, 1), (2, 3), (9, 1), (1, 0)):
        before, found = x.clone(), shuffle(x, reach, turns, KEYS)
        assert torch.equal(x, before)
        for one, key, made in zip(x.numpy(), KEYS, found.numpy(), strict=True):
            assert np.array_equal(made, noise_card.shuffle(one, reach, turns, key))


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("fill", [None, 0, 255])
def test_each_picture_has_its_own_homography(c, fill):
    x, matrices = pictures(3, 20, 31, c), np.stack([np.eye(3), TURN, TURN @ TURN])
    border = ("edge", 0) if fill is None else ("constant", fill)
    found, alike = warp(x, matrices, fill), warp(x, TURN[None], fill)
    for one, matrix, made, other in zip(x.numpy(), matrices, found.numpy(), alike.numpy(), strict=True):
        assert np.array_equal(made, sample_card.warp(one, matrix, *border))
        assert np.array_equal(other, sample_card.warp(one, TURN, *border))


@pytest.mark.parametrize("border", ["mirror", "edge"])
@pytest.mark.parametrize("rounding", ["nearest", "down"])
def test_each_picture_has_its_own_sigma(border, rounding):
    x, sigmas = pictures(3, 20, 31, 3), [0.3, 2.0, 11.0]
    found, alike = fixed_blur(x, 15, sigmas, border, rounding), fixed_blur(x, 15, [2.0], border, rounding)
    for one, sigma, made, other in zip(x.numpy(), sigmas, found.numpy(), alike.numpy(), strict=True):
        assert np.array_equal(made, blur_card.gaussian_blur(one, 15, sigma, border=border, rounding=rounding))
        assert np.array_equal(other, blur_card.gaussian_blur(one, 15, 2.0, border=border, rounding=rounding))


@pytest.mark.parametrize("border", ["mirror", "edge", "reflect"])
def test_fields_of_numbers_are_blurred(border):
    x = fields(3, 20, 31, 2)
    found, alike = float_blur(x, (15, 7), (2.0, 3.5), border), float_blur(x, 5, 1.5, border)
    for one, made, other in zip(x.numpy(), found.numpy(), alike.numpy(), strict=True):
        assert np.array_equal(made, blur_card.gaussian_blur(one, (15, 7), (2.0, 3.5), border=border))
        assert np.array_equal(other, blur_card.gaussian_blur(one, 5, 1.5, border=border))
    view = x.permute(0, 2, 1, 3)[:, ::2]
    assert torch.equal(float_blur(view, 5, 1.0, border), float_blur(view.contiguous(), 5, 1.0, border))


TAPS = ([0, -2, 5], [1, 0, -7], [0.25, 0.5, 0.25])


@pytest.mark.parametrize("border", ["mirror", "edge"])
def test_each_picture_has_its_own_taps(border):
    x, others = pictures(3, 20, 31, 3), ([3], [-1], [1.0])
    found, alike = correlate(x, [TAPS, others, TAPS], border, "down"), correlate(x, [TAPS], border, "down")
    for one, taps, made, other in zip(x.numpy(), [TAPS, others, TAPS], found.numpy(), alike.numpy(), strict=True):
        assert np.array_equal(made, correlate_card.correlate(one, *taps, border=border, rounding="down"))
        assert np.array_equal(other, correlate_card.correlate(one, *TAPS, border=border, rounding="down"))


def test_each_picture_is_zoomed():
    x = pictures(2, 20, 31, 3)
    for one, made in zip(x.numpy(), zoom_blur(x, [1.0, 1.2, 1.4]).numpy(), strict=True):
        assert np.array_equal(made, zoom_card.zoom_blur(one, [1.0, 1.2, 1.4]))


@pytest.mark.parametrize("c", [1, 3])
def test_each_picture_is_written_and_read(c):
    x = pictures(3, 20, 31, c)
    for given in (x, x.transpose(1, 2)):
        for one, made in zip(given.numpy(), jpeg(given, 30).numpy(), strict=True):
            assert np.array_equal(made, jpeg_card.jpeg(one, 30))


def test_places_that_cross():
    x = pictures(2, 20, 31, 3)
    rows, columns = np.float32([-3, 0.25, 7.5, 30]), np.float32([1, 2.125, 40])
    down, across = (np.ascontiguousarray(a) for a in np.broadcast_arrays(rows[:, None], columns))
    found = sample(x, rows, columns)
    assert found.shape == (2, 4, 3, 3)
    for one, made in zip(x.numpy(), found.numpy(), strict=True):
        assert np.array_equal(made, sample_card.sample(one, down, across))


@pytest.mark.parametrize("border", ["edge", "reflect", "constant"])
@pytest.mark.parametrize("rounding", ["nearest", "down"])
def test_each_picture_has_its_own_places(border, rounding):
    x = pictures(2, 20, 31, 3)
    rows, columns = places((20, 31), (2, 15, 40))
    found = sample(x, rows, columns, border, 77, rounding)
    for one, y, x_, made in zip(x.numpy(), rows.numpy(), columns.numpy(), found.numpy(), strict=True):
        assert np.array_equal(made, sample_card.sample(one, y, x_, border, 77, rounding))
    view = rows[:, ::2, 3:].transpose(1, 2), columns[:1, ::2, 3:].transpose(1, 2).expand(2, -1, -1)
    whole = [each.contiguous() for each in view]
    assert torch.equal(sample(x, *view, border, 77, rounding), sample(x, *whole, border, 77, rounding))
    with torch.no_grad():
        assert torch.equal(sample(x, rows.requires_grad_(), columns, border, 77, rounding), found)


def test_no_pictures():
    nothing = pictures(0, 4, 5, 3)
    assert noise(nothing, "impulse", 0.5, []).shape == warp(nothing, TURN[None]).shape == nothing.shape
    assert fixed_blur(nothing, 3, [1.0]).shape == correlate(nothing, [TAPS]).shape == nothing.shape
    assert zoom_blur(nothing, [1.5]).shape == jpeg(nothing, 50).shape == nothing.shape
    assert sample(nothing, np.float32([1]), np.float32([1, 2])).shape == (0, 1, 2, 3)
    assert sample(nothing, torch.zeros(0, 6, 7), torch.zeros(0, 6, 7)).shape == (0, 6, 7, 3)
    assert sample(pictures(2, 4, 5, 3), torch.zeros(2, 0, 7), torch.zeros(2, 0, 7)).shape == (2, 0, 7, 3)
    assert float_blur(nothing.float(), 3, 1.0).shape == nothing.shape


PLACES = torch.ones(3, 2, 2)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: noise(x.numpy(), "shot", 5, KEYS), TypeError, "ndarray"),
        (lambda x: noise(x.float(), "shot", 5, KEYS), TypeError, "uint8"),
        (lambda x: noise(x, "snow", 5, KEYS), ValueError, "one of"),
        (lambda x: noise(x, "shot", 5, KEYS[:2]), ValueError, "a key per picture"),
        (lambda x: noise(x, "shot", 1e4, KEYS), ValueError, "photons"),
        (lambda x: noise(x, "impulse", 1.5, KEYS), ValueError, "amount"),
        (lambda x: noise(x, "gaussian", -1, KEYS), ValueError, "strength"),
        (lambda x: noise(x.to("meta"), "gaussian", 1, KEYS), NotImplementedError, "meta"),
        (lambda x: fixed_blur(x.numpy(), 3, [1.0]), TypeError, "ndarray"),
        (lambda x: fixed_blur(x.float(), 3, [1.0]), TypeError, "uint8"),
        (lambda x: fixed_blur(x[0], 3, [1.0]), ValueError, r"\[n, h, w, c\]"),
        (lambda x: fixed_blur(x, 4, [1.0]), ValueError, "odd"),
        (lambda x: fixed_blur(x, 3, [1.0, -1.0, 1.0]), ValueError, "sigma"),
        (lambda x: fixed_blur(x, 3, [1.0, 1.0]), ValueError, "3 sigmas or one"),
        (lambda x: fixed_blur(x, 3, [1.0], "wrap"), ValueError, "border"),
        (lambda x: float_blur(x.numpy(), 3, 1.0), TypeError, "ndarray"),
        (lambda x: float_blur(x, 3, 1.0), TypeError, "float32"),
        (lambda x: float_blur(x[0].float(), 3, 1.0), ValueError, r"\[n, h, w, c\]"),
        (lambda x: float_blur(x.float(), (3, 4), 1.0), ValueError, "odd"),
        (lambda x: float_blur(x.float(), 3, (1.0, 0)), ValueError, "sigma"),
        (lambda x: float_blur(x.float(), 3, 1.0, "wrap"), ValueError, "border"),
        (lambda x: float_blur(x.float().to("meta"), 3, 1.0), NotImplementedError, "meta"),
        (lambda x: float_blur(x.float().requires_grad_(), 3, 1.0), NotImplementedError, "gradient"),
        (lambda x: correlate(x.numpy(), [TAPS]), TypeError, "ndarray"),
        (lambda x: correlate(x.float(), [TAPS]), TypeError, "uint8"),
        (lambda x: correlate(x[0], [TAPS]), ValueError, r"\[n, h, w, 1 or 3\]"),
        (lambda x: correlate(x, [TAPS, TAPS]), ValueError, "3 lists of taps or one"),
        (lambda x: correlate(x, [TAPS], "wrap"), ValueError, "border"),
        (lambda x: correlate(x, [([0], [0], [1.5])]), ValueError, "sum"),
        (lambda x: correlate(x, [([0], [9999], [0.5])]), ValueError, "too far"),
        (lambda x: correlate(x, [([0, 1], [0], [0.5])]), ValueError, "as many"),
        (lambda x: zoom_blur(x.float(), [1.5]), TypeError, "uint8"),
        (lambda x: zoom_blur(x, [0.5]), ValueError, "factors"),
        (lambda x: zoom_blur(x, [2.0] * 1001), ValueError, "1000 factors"),
        (lambda x: draws("poisson", (3,), KEYS, x), ValueError, "kind"),
        (lambda x: draws("normal", (3,), KEYS, x.to("meta")), NotImplementedError, "meta"),
        (lambda x: shuffle(x.numpy(), 1, 1, KEYS), TypeError, "ndarray"),
        (lambda x: shuffle(x.float(), 1, 1, KEYS), TypeError, "uint8"),
        (lambda x: shuffle(x, 1, 1, KEYS[:2]), ValueError, "a key per picture"),
        (lambda x: shuffle(x.view(3, 20, 3), 1, 1, KEYS), ValueError, r"\[n, h, w, c\]"),
        (lambda x: shuffle(x, 0, 1, KEYS), ValueError, "reach"),
        (lambda x: shuffle(x, 1, -1, KEYS), ValueError, "turns"),
        (lambda x: jpeg(x.numpy(), 50), TypeError, "ndarray"),
        (lambda x: jpeg(x.float(), 50), TypeError, "uint8"),
        (lambda x: jpeg(x, 50.0), TypeError, "integer"),
        (lambda x: jpeg(x[0], 50), ValueError, r"\[n, h, w, 1 or 3\]"),
        (lambda x: jpeg(x[..., :2], 50), ValueError, r"\[n, h, w, 1 or 3\]"),
        (lambda x: jpeg(x[:, :1, :1].expand(3, 1, 65536, 3), 50), ValueError, "65535"),
        (lambda x: jpeg(x[:0], 0), ValueError, "quality"),
        (lambda x: jpeg(x, 101), ValueError, "quality"),
        (lambda x: jpeg(x.to("meta"), 50), NotImplementedError, "meta"),
        (lambda x: warp(x.numpy(), TURN[None]), TypeError, "ndarray"),
        (lambda x: warp(x.float(), TURN[None]), TypeError, "uint8"),
        (lambda x: warp(x[0], TURN[None]), ValueError, r"\[n, h, w, 1 or 3\]"),
        (lambda x: warp(x, TURN), ValueError, r"\[3 or 1, 3, 3\]"),
        (lambda x: warp(x, TURN[None], 256), ValueError, "fill"),
        (lambda x: sample(x, [0.5], np.float32([1])), TypeError, "float32"),
        (lambda x: sample(x, np.ones((2, 2), np.float32), np.float32([1])), ValueError, "lines"),
        (lambda x: sample(x, PLACES, np.float32([1])), TypeError, "both"),
        (lambda x: sample(x, PLACES.double(), PLACES), TypeError, "float32"),
        (lambda x: sample(x, PLACES[0], PLACES[0]), ValueError, r"\[3, H, W\]"),
        (lambda x: sample(x, PLACES[:1], PLACES[:1]), ValueError, r"\[3, H, W\]"),
        (lambda x: sample(x, PLACES, PLACES[:, :1]), ValueError, r"\[3, H, W\]"),
        (lambda x: sample(x, PLACES.to("meta"), PLACES), NotImplementedError, "meta"),
        (lambda x: sample(x, PLACES.clone().requires_grad_(), PLACES), NotImplementedError, "gradient"),
        (lambda x: sample(x, PLACES, PLACES, "mirror"), ValueError, "border"),
        (lambda x: sample(x, PLACES, PLACES, "constant", 256), ValueError, "fill"),
        (lambda x: sample(x, PLACES, PLACES, rounding="up"), ValueError, "rounding"),
    ],
)
def test_what_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call(pictures(3, 4, 5, 3))
