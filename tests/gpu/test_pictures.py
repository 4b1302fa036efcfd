"""The operators on batches of pictures on a GPU: the CPU's bytes, at every size and on views."""

import numpy as np
import pytest
import torch

from hw4fast import kernels
from hw4fast.kernels.jpeg import cases
from hw4fast.nn import correlate, draws, fixed_blur, float_blur, jpeg, noise, sample, shuffle, warp, zoom_blur
from hw4fast.nn.noise import DRAWS
from tests.nn.test_pictures import KEYS, STRENGTHS, TURN, fields, pictures, places

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


@pytest.mark.parametrize("shape", [(3, 224, 224, 2), (2, 500, 375, 1), (3, 1, 1, 2), (3, 2, 700, 3)], ids=str)
@pytest.mark.parametrize("size", [1, 3, 17, 51, 999])
@pytest.mark.parametrize("border", ["mirror", "edge", "reflect"])
def test_float_blur(shape, size, border):
    if kernels.chosen_isa() == "baseline":
        pytest.skip("float_blur's bits are those of AVX2 or AVX-512")
    x, before = fields(*shape), kernels.cuda_calls()["float_blur"]
    x[0, shape[1] // 2 :] *= 1e-38  # subnormal sums
    x[1, 0, -1], x[1, -1, 0] = np.inf, np.nan
    given = ((size, size), (0.01, 0.01)), ((size, 5), (7.3, 0.9)), ((3, size), (0.7, 200.0))
    for sizes, sigmas in given:
        found, wanted = float_blur(x.cuda(), sizes, sigmas, border).cpu(), float_blur(x, sizes, sigmas, border)
        bits = [torch.where(y.isnan(), torch.nan, y).view(torch.int32) for y in (found, wanted)]  # of NaN any
        assert torch.equal(*bits), (sizes, sigmas)
    assert kernels.cuda_calls()["float_blur"] == before + len(given)


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


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_jpeg(shape):
    x, before = pictures(*shape), kernels.cuda_calls()["jpeg"]
    for quality in (1, 15, 50, 100):
        assert torch.equal(jpeg(x.cuda(), quality).cpu(), jpeg(x, quality))
    assert kernels.cuda_calls()["jpeg"] == before + 4


def test_jpeg_of_every_case():
    for case in cases():
        picture, quality = case.make()
        x = torch.from_numpy(np.stack([picture, picture[::-1], 255 - picture]))
        assert torch.equal(jpeg(x.cuda(), quality).cpu(), jpeg(x, quality)), case.name


def test_jpeg_of_more_pictures_than_a_grid_is_high():
    x = pictures(70_001, 3, 5, 3)
    assert torch.equal(jpeg(x.cuda(), 30).cpu(), jpeg(x, 30))


@pytest.mark.parametrize("c", [1, 3])
def test_jpeg_in_a_graph(c):
    """Nothing comes from host memory: a replay takes the pictures that then lie there."""
    first, then = pictures(3, 50, 37, c), pictures(3, 50, 37, c, seed=1)
    x, graph = first.cuda(), torch.cuda.CUDAGraph()
    jpeg(x, 30)
    with torch.cuda.graph(graph):
        found = jpeg(x, 30)
    for given in (first, then):
        x.copy_(given)
        graph.replay()
        assert torch.equal(found.cpu(), jpeg(given, 30))


@pytest.mark.parametrize("shape", [*SHAPES, (3, 63), (3, 65)], ids=str)
@pytest.mark.parametrize("kind", STRENGTHS)
def test_noise(shape, kind):
    x, before = pictures(*shape), kernels.cuda_calls()["noise"]
    for strength in (STRENGTHS[kind], STRENGTHS[kind] / 7):
        assert torch.equal(noise(x.cuda(), kind, strength, KEYS).cpu(), noise(x, kind, strength, KEYS))
    assert kernels.cuda_calls()["noise"] == before + 2


@pytest.mark.parametrize("kind", DRAWS)
def test_draws_of_many_counters(kind):
    """Every product and every sum of the polynomials is rounded: a fused one would show in some of ten million."""
    keys, here, there = list(range(10)), torch.empty(0), torch.empty(0, device="cuda")
    for shape in ((1_000_003,), (), (0, 3), (7, 33, 2)):
        assert torch.equal(draws(kind, shape, keys, there).cpu(), draws(kind, shape, keys, here))


@pytest.mark.parametrize("shape", [*SHAPES, (200, 224, 224, 3)], ids=str)
@pytest.mark.parametrize("reach", [1, 2, 4, 9])
def test_shuffle(shape, reach):
    x, keys = pictures(*shape), list(range(shape[0]))
    for turns in (1, 3):
        wanted = shuffle(x, reach, turns, keys)
        for _ in range(3):  # a race would show in one of some
            assert torch.equal(shuffle(x.cuda(), reach, turns, keys).cpu(), wanted)


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


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("border", ["edge", "reflect", "constant"])
@pytest.mark.parametrize("rounding", ["nearest", "down"])
def test_sample_at_places_of_each(shape, border, rounding):
    x, before = pictures(*shape), kernels.cuda_calls()["sample"]
    for size in (shape[1:3], (1, 1), (61, 67)):
        given = *places(shape[1:3], (len(x), *size)), border, 77, rounding
        there = (each.cuda() if isinstance(each, torch.Tensor) else each for each in given)
        assert torch.equal(sample(x.cuda(), *there).cpu(), sample(x, *given))
    assert kernels.cuda_calls()["sample"] == before + 3


def test_sample_in_a_graph():
    x, (rows, columns) = pictures(3, 40, 50, 3), places((40, 50), (3, 33, 44))
    there = [each.cuda() for each in (x, torch.zeros_like(rows), torch.zeros_like(columns))]
    sample(*there, "reflect", 0, "down")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = sample(*there, "reflect", 0, "down")
    there[1].copy_(rows), there[2].copy_(columns)
    graph.replay()
    assert torch.equal(found.cpu(), sample(x, rows, columns, "reflect", 0, "down"))


def test_views():
    x = pictures(6, 60, 80, 3)
    for view in (x[::2], x[:3, 5:40, 7:70], x[:3].transpose(1, 2)):
        assert torch.equal(fixed_blur(view.cuda(), 5, [1.0]).cpu(), fixed_blur(view.contiguous(), 5, [1.0]))
        assert torch.equal(warp(view.cuda(), TURN[None]).cpu(), warp(view.contiguous(), TURN[None]))
        rows, columns = (each.transpose(1, 2) for each in places(view.shape[1:3], (3, 20, 30)))
        found = sample(view.cuda(), rows.cuda(), columns[:1].cuda().expand(3, -1, -1), "reflect")
        assert torch.equal(found.cpu(), sample(view.contiguous(), rows, columns[:1].expand(3, -1, -1), "reflect"))
        if kernels.chosen_isa() != "baseline":
            numbers = view.float()
            assert torch.equal(float_blur(numbers.cuda(), 5, 1.0).cpu(), float_blur(numbers.contiguous(), 5, 1.0))
        assert torch.equal(jpeg(view.cuda(), 30).cpu(), jpeg(view.contiguous(), 30))
        assert torch.equal(noise(view.cuda(), "shot", 9.0, KEYS).cpu(), noise(view.contiguous(), "shot", 9.0, KEYS))


def test_none_of_the_others_is_captured_in_a_graph():
    """Replays would read host memory that is gone; the error comes before CUDA's, which would end the capture."""
    x = pictures(3, 20, 30, 3).cuda()
    taps = [(np.array([0]), np.array([1]), np.array([1.0]))]
    calls = {
        "noise": lambda: noise(x, "gaussian", 0.1, KEYS),
        "draws": lambda: draws("normal", (20, 30, 3), KEYS, x),
        "shuffle": lambda: shuffle(x, 1, 1, KEYS),
        "fixed_blur": lambda: fixed_blur(x, 5, [1.0]),
        "float_blur": lambda: float_blur(x.float(), 5, 1.0),
        "warp": lambda: warp(x, TURN[None]),
        "correlate": lambda: correlate(x, taps),
        "zoom_blur": lambda: zoom_blur(x, [1.5]),
    }
    for name, call in calls.items():
        call()
        with pytest.raises(RuntimeError, match="can't be in a CUDA graph"), torch.cuda.graph(torch.cuda.CUDAGraph()):
            call()
        assert call().shape == x.shape, name
