"""gaussian_blur as torch sees it: torchvision's results, autograd, operator checks, torch.compile, errors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torchvision.transforms.v2.functional import gaussian_blur as torchvisions

import hw4fast.nn as hn
from hw4fast.kernels import gaussian_blur as card

KERNELS = ([3, 3], [1, 7], [51, 9], [25, 51])


def random_image(*shape, dtype=torch.uint8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return image if dtype == torch.uint8 else torch.rand(shape, generator=generator)


def off(ours, theirs):
    return (ours.double() - theirs.double()).abs().max().item()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("size", KERNELS)
@pytest.mark.parametrize("sigma", [None, 1.3, [0.2, 40.0]])
def test_torchvisions_result(size, sigma, dtype):
    image = random_image(2, 3, 53, 64, dtype=dtype)
    before = image.clone()
    ours, theirs = hn.gaussian_blur(image, size, sigma), torchvisions(image, size, sigma)
    assert ours.dtype == dtype and ours.is_contiguous()
    assert off(ours, theirs) <= (1 if dtype == torch.uint8 else 1e-5)
    assert torch.equal(image, before)
    assert torch.equal(hn.GaussianBlur(size, sigma)(image), ours)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_any_shape_and_memory(dtype):
    image = random_image(2, 4, 3, 20, 31, dtype=dtype)
    whole = hn.gaussian_blur(image, [5, 9])
    last = image.movedim(2, -1).contiguous().movedim(-1, 2)
    views = {
        "channels-last": last,
        "turned": image.transpose(-1, -2).contiguous().transpose(-1, -2),
        "pictures anywhere": image.transpose(0, 1).contiguous().transpose(0, 1),
        "cropped": torch.nn.functional.pad(image, (3, 5, 2, 2))[..., 2:-2, 3:-5],
        "cropped channels-last": torch.nn.functional.pad(last, (0, 0, 2, 2))[..., 2:-2, :],
    }
    for name, view in views.items():
        assert torch.equal(view, image)
        assert torch.equal(hn.gaussian_blur(view, [5, 9]), whole), name
    assert hn.gaussian_blur(last, [5, 9]).stride() == last.stride()
    assert torch.equal(hn.gaussian_blur(last[1, 2], [5, 9]), whole[1, 2])
    assert hn.gaussian_blur(last[1, 2], [5, 9]).stride() == last[1, 2].stride()
    assert torch.equal(hn.gaussian_blur(image[0, 1, 2], [5, 9]), whole[0, 1, 2])
    rows = image[:, :, :, :1].expand(image.shape)
    assert torch.equal(hn.gaussian_blur(rows, [5, 9]), hn.gaussian_blur(rows.contiguous(), [5, 9]))
    assert hn.gaussian_blur(image[:0], 5).shape == (0, 4, 3, 20, 31)


def matrix(size, sigma, length):
    """The blur of a line as float64 [length, length]."""
    weights, line = card.gaussian_weights(size, sigma), card.reflected(size // 2, length)
    result = np.zeros((length, length))
    for i in range(length):
        np.add.at(result[i], line[i : i + size], weights)
    return torch.from_numpy(result)


@pytest.mark.parametrize("shape", [(2, 3, 9, 8), (1, 1), (2, 1), (3, 2), (2, 5, 1), (1, 7)])
@pytest.mark.parametrize(("size", "sigma"), [((3, 5), (0.8, 1.1)), ((11, 31), (2.0, 5.0))])
def test_the_gradient_is_the_adjoint(shape, size, sigma):
    image = random_image(*shape, dtype=torch.float32).requires_grad_()
    grad = random_image(*shape, dtype=torch.float32, seed=1)
    across, down = matrix(size[0], sigma[0], shape[-1]), matrix(size[1], sigma[1], shape[-2])
    blurred = hn.gaussian_blur(image, size, sigma)
    assert off(blurred, down @ image.double() @ across.T) < 1e-6
    (mine,) = torch.autograd.grad(blurred, image, grad, create_graph=True)
    assert off(mine, down.T @ grad.double() @ across) < 1e-6


def test_the_gradient_does_not_depend_on_torchs_default_dtype():
    image = random_image(3, 9, 8, dtype=torch.float32).requires_grad_()
    grad = torch.ones_like(image)
    (wanted,) = torch.autograd.grad(hn.gaussian_blur(image, 5), image, grad)
    torch.set_default_dtype(torch.float64)
    try:
        (mine,) = torch.autograd.grad(hn.gaussian_blur(image, 5), image, grad)
    finally:
        torch.set_default_dtype(torch.float32)
    assert mine.dtype is torch.float32 and torch.equal(mine, wanted)


def test_gradcheck_once_and_twice():
    image = random_image(2, 5, 6, dtype=torch.float32).requires_grad_()
    loose = {"eps": 1e-1, "atol": 1e-3, "rtol": 1e-3, "nondet_tol": 0.0}  # linear: a large step costs nothing
    with pytest.warns(UserWarning, match="double precision"):
        assert gradcheck(lambda x: hn.gaussian_blur(x, (3, 7)), image, **loose)
        assert torch.autograd.gradgradcheck(lambda x: hn.gaussian_blur(x, (3, 7)).square(), image, **loose)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", [(3, 8, 9), (2, 3, 8, 9), (8, 9), (2, 0, 3, 3), (0, 3, 8, 9)])
def test_opcheck(shape, dtype):
    image = random_image(*shape, dtype=dtype)
    inputs = [image, image.movedim(-2, 0).contiguous().movedim(0, -2)]
    if len(shape) > 2:
        inputs.append(image.movedim(-3, -1).contiguous().movedim(-1, -3))
    for one in inputs:
        tensor = one.requires_grad_() if dtype == torch.float32 else one
        torch.library.opcheck(torch.ops.hw4fast.gaussian_blur.default, (tensor, [5, 3], [1.0, 0.5]))


@pytest.mark.parametrize("last", [False, True])
def test_compile_without_graph_breaks_even_when_the_batch_changes(last):
    blur = hn.GaussianBlur(5)
    compiled = torch.compile(lambda x: blur(x).square(), fullgraph=True, dynamic=True)
    for n in (3, 6):
        image = random_image(n, 3, 10, 12, dtype=torch.float32)
        image = (image.contiguous(memory_format=torch.channels_last) if last else image).requires_grad_()
        torch.testing.assert_close(compiled(image), blur(image).square())
        gradients = [torch.autograd.grad(f(image).sum(), image)[0] for f in (compiled, lambda x: blur(x).square())]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"img": torch.zeros(8)}, ValueError, "image must be"),
        ({"img": torch.zeros(3, 8, 8, dtype=torch.float64)}, TypeError, "uint8 or float32"),
        ({"img": torch.zeros(3, 8, 8, device="meta")}, NotImplementedError, "kernels? only.*meta"),
        ({"kernel_size": 4}, ValueError, "kernel_size must be odd"),
        ({"kernel_size": [3, 3, 3]}, ValueError, "one number or two"),
        ({"kernel_size": 3.0}, TypeError, "integer"),
        ({"kernel_size": None}, TypeError, "kernel_size must be an integer or two"),
        ({"sigma": "a"}, ValueError, "sigma must be a number or two"),
        ({"img": np.zeros((3, 8, 8), np.float32)}, TypeError, "image must be a tensor, not ndarray"),
        ({"sigma": 0.0}, ValueError, "sigma must be positive"),
        ({"sigma": float("nan")}, ValueError, "sigma must be positive"),
    ],
)
def test_bad_input_raises(change, kind, message):
    with pytest.raises(kind, match=message):
        hn.gaussian_blur(**{"img": torch.zeros(3, 8, 8), "kernel_size": 3, **change})


def test_the_operator_itself_refuses_what_would_crash():
    image = torch.zeros(3, 8, 8)
    for arguments, kind in (
        ((image[0, 0], [3, 3], [1.0, 1.0]), ValueError),
        ((image.double(), [3, 3], [1.0, 1.0]), TypeError),
        ((image, [3, 2], [1.0, 1.0]), ValueError),
        ((image, [3, -3], [1.0, 1.0]), ValueError),
        ((image, [3, 3], [1.0, -1.0]), ValueError),
    ):
        with pytest.raises(kind):
            torch.ops.hw4fast.gaussian_blur(*arguments)


@settings(max_examples=200, deadline=None)
@given(
    shape=st.lists(st.integers(1, 40), min_size=3, max_size=4),
    size=st.tuples(*[st.integers(0, 20).map(lambda r: 2 * r + 1)] * 2),
    sigma=st.none() | st.floats(0.1, 100),
    dtype=st.sampled_from([torch.uint8, torch.float32]),
)
def test_random_pictures_against_torchvision(shape, size, sigma, dtype):
    image = random_image(*shape, dtype=dtype)
    ours = hn.gaussian_blur(image, size, sigma)
    if size[0] // 2 < shape[-1] and size[1] // 2 < shape[-2]:  # torchvision mirrors but once
        assert off(ours, torchvisions(image, list(size), sigma)) <= (1 if dtype == torch.uint8 else 1e-5)
