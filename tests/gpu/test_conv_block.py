"""conv_block on a GPU: every case of its card, by each way, and how torch may call it."""

import importlib

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hw4fast import kernels
from hw4fast.kernels import conv_block as card
from hw4fast.nn import ConvBlock, conv_block, conv_block_cuda
from tests.gpu.calls import call_every_way, compare_with_torch

operators = importlib.import_module("hw4fast.nn.conv_block")  # the package's name is the function's
CASES = list(card.cases())
NEAR = {torch.float32: 2e-6, torch.float64: 1e-13, torch.bfloat16: 5e-3, torch.float16: 1e-3}


@pytest.fixture(autouse=True)
def exact_float32():
    """torch's own convolutions and ours in plain float32."""
    before = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    yield
    torch.backends.cudnn.conv.fp32_precision = before


def near(found, reference, bound):
    found, reference = found.double().cpu().numpy(), np.asarray(reference)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - reference) <= bound * np.linalg.norm(reference) + 1e-30


def check(case, dtype, way, tf32=False):
    torch.backends.cudnn.conv.fp32_precision = "tf32" if tf32 else "ieee"
    input, weight, bias, options = case.make(np.float64)
    x, w = torch.from_numpy(input).to(dtype), torch.from_numpy(weight).to(dtype)
    b = None if bias is None else torch.from_numpy(bias).to(dtype)
    exact = [None if t is None else t.double().numpy() for t in (x, w, b)]
    x, w, b = (None if t is None else t.cuda() for t in (x, w, b))
    packed = tuple(options[name] for name in ("stride", "padding", "relu", "pool", "groups"))
    shape = card.output_shape(input.shape, weight.shape, options["stride"], options["padding"], options["pool"])
    output, code = operators._outputs(x, shape, True)
    output.fill_(torch.nan)
    code.fill_(77)
    try:
        conv_block_cuda.forward(x, w, b, packed, output, code, way)
    except ValueError as error:
        assert "can't take" in str(error)
        pytest.skip(f"not for the way {way}")
    bound = 1e-3 if tf32 else NEAR[dtype]
    expected, expected_code = card.reference(*exact, **options)
    near(output, expected, bound)
    differs = code.cpu().numpy() != expected_code  # where two of the four are nearly equal
    assert differs.sum() <= differs.size * (0.03 if bound > 1e-5 else 1e-4)
    grad = torch.randn(shape, dtype=torch.float64).to(dtype)
    wanted = card.reference_backward(
        grad.double().numpy(), code.cpu().numpy(), exact[0], exact[1],
        options["stride"], options["padding"], options["pool"], options["groups"],
    )  # fmt: skip
    gradients = operators._gradients(x, w, (True, True, True))
    for gradient in gradients:
        gradient.fill_(torch.nan)
    conv_block_cuda.gradients_of(grad.cuda(), code, x, w, packed, gradients, (True, True, True), way)
    for found, reference in zip(gradients, wanted, strict=True):
        near(found, reference, bound)


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case(case, dtype):
    check(case, dtype, "best")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", ["any", "direct"])
@pytest.mark.parametrize("case", CASES[::3], ids=lambda case: case.name)
def test_each_way(case, way, dtype):
    check(case, dtype, way)


@pytest.mark.parametrize("case", [case for case in CASES if case.channels_last], ids=lambda case: case.name)
def test_tf32(case):
    check(case, torch.float32, "best", tf32=True)


def ours(x, weight, bias):
    return conv_block(x, weight, bias, padding=2)


def theirs(x, weight, bias):
    return F.max_pool2d(F.relu(F.conv2d(x, weight, bias, padding=2)), 2)


def tensors(c=16, o=32, n=50):
    torch.manual_seed(c)
    x = torch.randn(n, c, 14, 14, device="cuda", requires_grad=True)
    return (
        x,
        torch.randn(o, c, 5, 5, device="cuda", requires_grad=True),
        torch.randn(o, device="cuda", requires_grad=True),
    )


@pytest.mark.parametrize("c", [1, 16])
def test_autograd_is_torchs(c):
    given = tensors(c)
    before = kernels.cuda_calls()["conv_block"]
    compare_with_torch(given, ours, theirs, ((1e-4, 1e-4), (1e-3, 1e-3)))
    assert kernels.cuda_calls()["conv_block"] == before + 2


@pytest.mark.parametrize("c", [1, 16])
def test_the_same_bits_in_a_graph_under_compile_and_on_another_stream(c):
    call_every_way(tensors(c), ours)


def test_autocast_gives_its_dtype():
    x, weight, bias = tensors()
    with torch.autocast("cuda", torch.bfloat16):
        y = ours(x, weight, bias)
    assert y.dtype is torch.bfloat16
    (gradient,) = torch.autograd.grad(y.float().sum(), weight)
    assert gradient.dtype is torch.float32
    torch.testing.assert_close(y.float(), theirs(x, weight, bias), rtol=5e-2, atol=5e-1)


def test_what_can_not_be_is_an_error():
    x, weight, bias = tensors()
    with pytest.raises(ValueError, match="one device"):
        conv_block(x, weight.cpu(), bias)
    with pytest.raises(ValueError, match="one device"):
        torch.ops.hw4fast.conv_block(x, weight.cpu(), bias, (1, 1), (2, 2), True, True, 1, True)
    with pytest.raises(TypeError, match="int32"):
        conv_block(x.int(), weight.int())


def test_a_module_moves():
    block = ConvBlock(16, 32, 5, padding=2)
    x = torch.randn(3, 16, 9, 9)
    expected = block(x)
    torch.testing.assert_close(block.cuda()(x.cuda()).cpu(), expected, rtol=1e-4, atol=1e-5)
