"""correlate, zoom_blur, fixed_blur, noise, sample and warp on a GPU: the CPU's bytes, at every size and on views."""

import numpy as np
import pytest
import torch

from hw4fast import kernels
from hw4fast.nn import correlate, fixed_blur, noise, sample, warp, zoom_blur
from tests.nn.test_pictures import KEYS, STRENGTHS, TURN, pictures

SHAPES = [(3, 224, 224, 3), (3, 500, 375, 3), (3, 33, 50, 1), (3, 1, 1, 3), (3, 2, 700, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [1, 3, 17, 51, 999])
@pytest.mark.parametrize("border", ["mirror", "edge", "reflect"])
def test_fixed_blur(shape, size, border):
    x, before = pictures(*shape), kernels.cuda_calls()["fixed_blur"]
    for sigmas in ([0.01], [5.5], [0.3, 2.0, 200.0]):
        for rounding in ("nearest", "down"):
            found = fixed_blur(x.cuda(), size, sigmas, border, rounding)
            assert torch.equal(found.cpu(), fixed_blur(x, size, sigmas, border, rounding))
    assert kernels.cuda_calls()["fixed_blur"] == before + 6


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("border", ["mirror", "edge"])
def test_correlate(shape, border):
    x, rng = pictures(*shape), np.random.default_rng(0)
    before = kernels.cuda_calls()["correlate"]

    def taps(reach, count):
        weights = rng.random(count)
        return *rng.integers(-reach, reach + 1, (2, count)), weights / weights.sum()

    each = [([0], [0], [1.0]), taps(10, 300), taps(90, 40)]  # the last one's tile of 3 channels takes 135 kB
    # of reach 46 and 92 tiles take 44 to 48 kB, which with the taps is more than a kernel has without asking
    for given in ([taps(3, 9)], [taps(46, 300)], [taps(92, 300)], [taps(60, 6000)], [taps(400, 50)], each):
        for rounding in ("nearest", "down"):
            found = correlate(x.cuda(), given, border, rounding)
            assert torch.equal(found.cpu(), correlate(x, given, border, rounding))
    assert kernels.cuda_calls()["correlate"] == before + 12


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_zoom_blur(shape):
    x = pictures(*shape)
    for factors in ([], [1.0], np.arange(1, 1.31, 0.03), [1.0, 1.001, 2, 3.3, 100], np.arange(1, 9, 0.02)):
        assert torch.equal(zoom_blur(x.cuda(), factors).cpu(), zoom_blur(x, factors))


@pytest.mark.parametrize("shape", [*SHAPES, (3, 63), (3, 65)], ids=str)
@pytest.mark.parametrize("kind", STRENGTHS)
def test_noise(shape, kind):
    x, before = pictures(*shape), kernels.cuda_calls()["noise"]
    for strength in (STRENGTHS[kind], STRENGTHS[kind] / 7):
        assert torch.equal(noise(x.cuda(), kind, strength, KEYS).cpu(), noise(x, kind, strength, KEYS))
    assert kernels.cuda_calls()["noise"] == before + 2


def test_normal_deviates_of_many_counters():
    """Every product and every sum of the polynomials is rounded: a fused one would show in some of ten million."""
    x = torch.full((10, 1_000_003), 128, dtype=torch.uint8)
    keys = list(range(10))
    assert torch.equal(noise(x.cuda(), "gaussian", 0.2, keys).cpu(), noise(x, "gaussian", 0.2, keys))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("fill", [None, 0, 255])
def test_warp(shape, fill):
    x, before = pictures(*shape), kernels.cuda_calls()["sample"]
    far = np.array([[1, 0, 1e30], [0, 1, -1e30], [0, 0, 1]])
    gone = np.array([[1, 0, 0], [0, 1, 0], [1e-3, 0, 0.0]])
    some = [np.stack([np.eye(3), TURN, TURN @ TURN]), TURN[None], far[None], gone[None]]
    for matrices in some:
        assert torch.equal(warp(x.cuda(), matrices, fill).cpu(), warp(x, matrices, fill))
    assert kernels.cuda_calls()["sample"] == before + len(some)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sample(shape):
    x = pictures(*shape)
    rows = np.linspace(-3, shape[1] + 3, 77, dtype=np.float32)
    columns = np.float32([np.nan, -np.inf, np.inf, 2.5, 2.99999, 30, 30.5, 31, 1e9])
    assert torch.equal(sample(x.cuda(), rows, columns).cpu(), sample(x, rows, columns))


def test_views():
    x = pictures(6, 60, 80, 3)
    for view in (x[::2], x[:3, 5:40, 7:70], x[:3].transpose(1, 2)):
        assert torch.equal(fixed_blur(view.cuda(), 5, [1.0]).cpu(), fixed_blur(view.contiguous(), 5, [1.0]))
        assert torch.equal(warp(view.cuda(), TURN[None]).cpu(), warp(view.contiguous(), TURN[None]))
        assert torch.equal(noise(view.cuda(), "shot", 9.0, KEYS).cpu(), noise(view.contiguous(), "shot", 9.0, KEYS))


def test_none_is_captured_in_a_graph():
    """Replays would read host memory that is gone; the error comes before CUDA's, which would end the capture."""
    x = pictures(3, 20, 30, 3).cuda()
    taps = [(np.array([0]), np.array([1]), np.array([1.0]))]
    calls = {
        "noise": lambda: noise(x, "gaussian", 0.1, KEYS),
        "fixed_blur": lambda: fixed_blur(x, 5, [1.0]),
        "warp": lambda: warp(x, TURN[None]),
        "correlate": lambda: correlate(x, taps),
        "zoom_blur": lambda: zoom_blur(x, [1.5]),
    }
    for name, call in calls.items():
        call()
        with pytest.raises(RuntimeError, match="can't be in a CUDA graph"), torch.cuda.graph(torch.cuda.CUDAGraph()):
            call()
        assert call().shape == x.shape, name
