"""gaussian_blur on a GPU: against the float64 reference, the CPU's bytes, and as torch may call it."""

import numpy as np
import pytest
import torch

from hw4fast import kernels
from hw4fast.kernels import gaussian_blur as card
from hw4fast.nn import gaussian_blur

SIZES = [1, 3, 5, (15, 7), 17, 51, 151, 999]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (2, 3, 17, 33), (3, 224, 224), (1, 3, 500, 375), (2, 1, 1200, 40)], ids=str
)
@pytest.mark.parametrize("last", [False, True])
def test_it_is_the_cpus(shape, size, last):
    x = torch.randn(shape)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    if last:
        x, pixels = (t.movedim(-3, -1).contiguous().movedim(-1, -3) for t in (x, pixels))
    before = kernels.cuda_calls()["gaussian_blur"]
    found = gaussian_blur(x.cuda(), size).cpu()
    assert kernels.cuda_calls()["gaussian_blur"] == before + 1
    expected = card.reference(x.numpy(), *card.pairs(size, None), layout="CHW")
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=2e-6)
    bytes_found = gaussian_blur(pixels.cuda(), size).cpu().numpy().astype(int)
    differs = np.abs(bytes_found - np.rint(card.reference(pixels.numpy(), *card.pairs(size, None), layout="CHW")))
    assert differs.max() <= 1 and (differs > 0).sum() <= max(1, differs.size // 1000)
    assert np.abs(bytes_found - gaussian_blur(pixels, size).numpy().astype(int)).max() <= 1


@pytest.mark.parametrize("size", [3, 51])
def test_what_is_not_finite_stays_within_the_kernel(size):
    x = torch.randn(1, 1, 90, 170)
    x[0, 0, 40, 85] = torch.nan
    assert torch.equal(gaussian_blur(x.cuda(), size).isnan().cpu(), gaussian_blur(x, size).isnan())


def test_batches_of_batches_under_compile():
    x = torch.randn(2, 3, 24, 36, 3, device="cuda").movedim(-1, -3).transpose(0, 1)
    found = torch.compile(lambda t: gaussian_blur(t, 9) + 0, fullgraph=True)(x)
    torch.testing.assert_close(found.cpu(), gaussian_blur(x.cpu(), 9), rtol=1e-5, atol=2e-6)


def test_a_graph_outlives_the_weights_that_are_kept():
    x = torch.randn(2, 3, 40, 50, device="cuda")
    expected = gaussian_blur(x, 9, 1.25)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gaussian_blur(x, 9, 1.25)
    for k in range(600):
        gaussian_blur(x, 9, 2 + k / 100)
    graph.replay()
    assert torch.equal(captured, expected)


def test_in_a_graph_under_compile_and_its_gradient():
    x = torch.randn(2, 3, 40, 50, device="cuda")
    expected = gaussian_blur(x, 9)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gaussian_blur(x, 9)
    graph.replay()
    assert torch.equal(captured, expected)
    assert torch.equal(torch.compile(lambda t: gaussian_blur(t, 9), fullgraph=True)(x), expected)
    x.requires_grad_()
    y = x.detach().cpu().requires_grad_()
    weight = torch.randn(x.shape)
    (gaussian_blur(x, 9) * weight.cuda()).sum().backward()
    (gaussian_blur(y, 9) * weight).sum().backward()
    torch.testing.assert_close(x.grad.cpu(), y.grad, rtol=1e-4, atol=1e-5)
