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


@pytest.mark.parametrize("last", [False, True])
def test_batches_of_batches_lie_as_the_fake_kernel_says(emulated, last):  # noqa: F811
    x = torch.randn(2, 3, 4, 6, 3).movedim(-1, -3) if last else torch.randn(2, 3, 3, 4, 6)
    pairs = card.pairs(3, None)
    for view in (x, x.transpose(0, 1), x[:, :2], x[..., 1:]):
        found = blur._gaussian_blur_cuda(view, *pairs)
        assert found.stride() == blur._output(view).stride()
        torch.testing.assert_close(found, blur._gaussian_blur_cpu(view, *pairs))


@pytest.mark.parametrize("size", [3, (5, 17), 16 + 15, 33])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_within_the_kernel(emulated, size, value):  # noqa: F811
    x, pairs = torch.randn(1, 1, 90, 70), card.pairs(size, None)
    x[0, 0, 40, 35] = value
    found, theirs = blur._gaussian_blur_cuda(x, *pairs), blur._gaussian_blur_cpu(x, *pairs)
    assert torch.equal(found.isfinite(), theirs.isfinite())


@pytest.mark.parametrize("case", [c for c in card.cases() if np.prod(c.shape) < 10_000], ids=lambda case: case.name)
def test_every_small_case_of_the_card(emulated, case):  # noqa: F811
    image, options = case.make()
    hwc, pairs = options.pop("layout") == "HWC", card.pairs(**options)
    x = torch.from_numpy(image)
    found = blur._gaussian_blur_cuda(x.movedim(-1, -3) if hwc else x, *pairs)
    found = (found.movedim(-3, -1) if hwc else found).numpy()
    exact = card.reference(image, *pairs, layout=case.layout)
    if case.dtype == "float32":
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=2e-6)
    else:
        assert np.array_equal(found, np.rint(exact))


def test_tall_pictures_need_no_scratch(emulated):  # noqa: F811
    for size in (5, 51):
        for is_float in (False, True):
            assert emulated.gaussian_blur_fits(is_float, (1, 3, 10_000, 100), (size, size))
    x, pairs = torch.randn(1, 1, 3000, 5), card.pairs((3, 33), None)
    torch.testing.assert_close(blur._gaussian_blur_cuda(x, *pairs), blur._gaussian_blur_cpu(x, *pairs))


def test_in_two_kernels(emulated, monkeypatch):  # noqa: F811
    x, pairs = torch.randn(2, 3, 700, 9), card.pairs((5, 999), None)
    assert not emulated.gaussian_blur_fits(True, tuple(x.shape), pairs[0][::-1])
    found = blur._gaussian_blur_cuda(x, *pairs)
    torch.testing.assert_close(found, blur._gaussian_blur_cpu(x, *pairs), rtol=1e-5, atol=1e-5)
