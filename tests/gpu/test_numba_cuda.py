"""The numba-cuda variants on a GPU, against the float64 references: NumPy arrays, torch's tensors, several blocks."""

import numpy as np
import pytest
import torch

from hw4fast.errors import UserError
from hw4fast.kernels import (
    bce_with_logits,
    conv_block,
    gaussian_blur,
    numba_cuda,
    numba_cuda_kernels,
    resize,
    softmax_xent,
)


@pytest.fixture(autouse=True)
def numba_has_a_compiler():
    try:
        numba_cuda_kernels.load()
    except UserError as error:
        pytest.skip(str(error))


def near(found, reference):
    largest = float(np.max(np.abs(reference), initial=0.0))
    np.testing.assert_allclose(found, reference, rtol=1e-5, atol=2e-6 * max(1e-3, largest))


def softmax_cases():
    """Those of the card whose options the variant has, and lengths of every width of a block."""
    for case in softmax_xent.cases():
        smooth_or_ignored = case.options.keys() <= {"label_smoothing", "ignore_index"}
        if case.shape[0] in (4, 3, 19, 37) and smooth_or_ignored and not case.weighted:
            yield case
    yield softmax_xent.Case("many rows", (4099, 101), ignored=True, options={"label_smoothing": 0.1})


@pytest.mark.parametrize("case", softmax_cases(), ids=lambda case: case.name)
def test_softmax_xent(case):
    logits, target, options = case.make()
    loss, grad = numba_cuda.softmax_xent_numba_cuda(logits, target, **options)
    loss_ref, grad_ref = softmax_xent.reference(logits, target, **options)
    near(loss, loss_ref), near(grad, grad_ref)


@pytest.mark.parametrize("shape", [(), (7,), (1031, 101), (3, 4, 5, 7), (700, 1000)], ids=str)
def test_bce_with_logits(shape):
    logits, target, _ = bce_with_logits.Case("any", shape, size=20.0, soft=True).make()
    loss, grad = numba_cuda.bce_with_logits_numba_cuda(logits, target)
    loss_ref, grad_ref = bce_with_logits.reference(logits, target)
    near(loss, loss_ref), near(grad, grad_ref)


@pytest.mark.parametrize("layout", gaussian_blur.LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(("h", "w", "size"), [(1, 1, 5), (19, 23, (101, 3)), (33, 300, 999), (224, 224, 51)], ids=str)
def test_gaussian_blur(h, w, size, dtype, layout):
    shape = (2, h, w, 3) if layout == "HWC" else (2, 3, h, w)
    image, options = gaussian_blur.Case("any", shape, size, None, layout, dtype).make()
    found, reference = numba_cuda.gaussian_blur_numba_cuda(image, **options), gaussian_blur.reference(image, **options)
    assert found.dtype == image.dtype
    np.testing.assert_allclose(found, reference, rtol=0, atol=0.501 if dtype == "uint8" else 1e-5)


@pytest.mark.parametrize("interpolation", resize.FILTERS)
@pytest.mark.parametrize(("h", "w"), [(375, 500), (3000, 40), (28, 28), (1, 1)])
def test_resize(h, w, interpolation):
    pictures = np.random.default_rng(0).integers(0, 256, (2, h, w, 3), np.uint8)
    options = {"size": (256, 341), "box": (16, 58, 224, 224), "interpolation": interpolation}
    found = numba_cuda.resize_numba_cuda(pictures, **options)
    assert np.array_equal(found, [resize.resize(one, **options) for one in pictures])
    options |= {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    near(numba_cuda.resize_numba_cuda(pictures, **options), [resize.resize(one, **options) for one in pictures])


def conv_cases():
    for case in conv_block.cases():
        whole = case.relu and case.pool and case.bias and case.groups == 1 and case.stride == (1, 1)
        if whole and case.shape[0] > 0:
            yield case


@pytest.mark.parametrize("case", conv_cases(), ids=lambda case: case.name)
def test_conv_block(case):
    input, weight, bias, options = case.make()
    output, code = numba_cuda.conv_block_numba_cuda(input, weight, bias, case.padding)
    output_ref, code_ref = conv_block.reference(input, weight, bias, **options)
    np.testing.assert_allclose(output.transpose(0, 3, 1, 2), output_ref, rtol=0, atol=2e-5)
    assert (code != code_ref).mean() <= 1e-3  # of two nearly equal sums either may be the larger


def test_torchs_tensors_stay_on_the_gpu():
    x = torch.randn(300, 1000, device="cuda")
    target = torch.randint(0, 1000, (300,), device="cuda")
    target[7] = -100
    loss, grad = numba_cuda.softmax_xent_numba_cuda(x, target)
    y = x.double().requires_grad_()
    exact = torch.nn.functional.cross_entropy(y, target)
    exact.backward()
    torch.testing.assert_close(torch.as_tensor(loss, device="cuda")[0].double(), exact.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.as_tensor(grad, device="cuda").double(), y.grad, rtol=1e-4, atol=1e-8)
    target[0] = 1000
    loss, grad = numba_cuda.softmax_xent_numba_cuda(x, target)
    bad = torch.as_tensor(grad, device="cuda").isnan().any(1)
    assert torch.as_tensor(loss, device="cuda").isnan().all() and bad.nonzero().flatten().tolist() == [0]
    for arguments, kind, message in (
        ((x.cpu(), target.cpu()), TypeError, "logits must be a NumPy array or one on the GPU, not Tensor"),
        ((x, target.int()), TypeError, "target must be int64"),
        ((x.half(), target), TypeError, "logits must be float32"),
        ((x[:, ::2], target), ValueError, "must be contiguous"),
    ):
        with pytest.raises(kind, match=message):
            numba_cuda.softmax_xent_numba_cuda(*arguments)


def test_the_same_bits_with_every_call():
    x, target = np.random.default_rng(0).standard_normal((3000, 17)).astype(np.float32), np.arange(3000) % 17
    first, second = (numba_cuda.softmax_xent_numba_cuda(x, target) for _ in range(2))
    assert first[0] == second[0] and np.array_equal(first[1], second[1])
