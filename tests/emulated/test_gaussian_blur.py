"""gaussian_blur's CUDA kernels, run by the emulator, against the float64 reference and the CPU's bytes."""

import importlib

import numpy as np
import pytest
import torch

from hw4fast.kernels import gaussian_blur as card
from tests.emulated.faces import emulated  # noqa: F401

blur = importlib.import_module("hw4fast.nn.gaussian_blur")  # the package's name is the function's

SHAPES = [(1, 1, 1, 1), (2, 3, 17, 33), (1, 3, 40, 70), (3, 1, 5, 100), (1, 2, 64, 31)]


@pytest.mark.parametrize("size", [1, 3, 5, (15, 7), 17, 51])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("last", [False, True])
def test_it_is_the_reference(emulated, shape, size, last):  # noqa: F811
    x = torch.randn(shape)
    if last:
        x = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    pairs = card.pairs(size, None)
    found = blur._gaussian_blur_cuda(x, *pairs)
    assert found.stride() == blur._output(x).stride()
    expected = card.reference(x.numpy(), *pairs, layout="CHW")
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=2e-6)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    found = blur._gaussian_blur_cuda(pixels, *pairs).numpy().astype(int)
    differs = np.abs(found - np.rint(card.reference(pixels.numpy(), *pairs, layout="CHW")))
    assert differs.max() <= 1 and (differs > 0).sum() <= differs.size // 1000
    assert np.abs(found - blur._gaussian_blur_cpu(pixels, *pairs).numpy().astype(int)).max() <= 1


@pytest.mark.parametrize("shape", [(2, 9, 20), (9, 20), (2, 2, 3, 9, 20)], ids=str)
def test_other_dimensions(emulated, shape):  # noqa: F811
    x, pairs = torch.randn(shape), card.pairs(5, None)
    found = blur._gaussian_blur_cuda(x, *pairs)
    torch.testing.assert_close(found, blur._gaussian_blur_cpu(x, *pairs))


def test_in_two_kernels(emulated, monkeypatch):  # noqa: F811
    x, pairs = torch.randn(2, 3, 700, 9), card.pairs((5, 999), None)
    assert not emulated.gaussian_blur_fits(True, tuple(x.shape), pairs[0][::-1])
    found = blur._gaussian_blur_cuda(x, *pairs)
    torch.testing.assert_close(found, blur._gaussian_blur_cpu(x, *pairs), rtol=1e-5, atol=1e-5)
