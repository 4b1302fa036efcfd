"""batch_norm_block on a GPU: every case of its card, and how torch may call it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hw4fast import kernels
from hw4fast.kernels import batch_norm_block as card
from hw4fast.nn import BatchNormBlock, batch_norm_block
from tests.gpu.calls import call_every_way, compare_with_torch

NEAR = {torch.float32: 2e-6, torch.float64: 1e-12, torch.bfloat16: 4e-3, torch.float16: 5e-4}


def close(found, expected, bound):
    found, expected = found.detach().double().cpu().numpy(), np.asarray(expected)
    assert np.linalg.norm(found - expected) <= bound * np.linalg.norm(expected) + 1e-30


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("case", card.cases(), ids=lambda case: case.name)
def test_every_case(case, dtype):
    if case.offset and dtype in (torch.bfloat16, torch.float16):
        pytest.skip("such numbers have no digits left for a deviation")
    *arrays, options = case.make(np.float64)
    accurate = torch.float64 if dtype is torch.float64 else torch.float32
    x, weight, bias = (
        torch.from_numpy(array).to(dtype if k == 0 else accurate).cuda().requires_grad_()
        for k, array in enumerate(arrays)
    )
    given = [
        None if (t := options.pop(name, None)) is None else torch.from_numpy(t).to(accurate) for name in ("mean", "var")
    ]
    there = [t if t is None else t.cuda() for t in given]
    output, code, *used = torch.ops.hw4fast.batch_norm_block(x, weight, bias, *there, *options.values(), True)
    exact = [None if t is None else t.detach().double().cpu().numpy() for t in (x, weight, bias, *given)]
    expected, expected_code, mean, var = card.reference(*exact, **options)
    far = max(1.0, abs(case.offset) / 100)
    assert output.dtype is dtype and used[0].dtype is accurate
    assert torch.equal(output, batch_norm_block(x, weight, bias, *there, **options)[0])
    close(output, expected, NEAR[dtype] * far)
    differs = code.cpu().numpy() != expected_code  # where two of the four are nearly equal, or one nearly zero
    assert differs.sum() <= differs.size * (0.02 if NEAR[dtype] > 1e-5 else 2e-4 * far)
    np.testing.assert_allclose(used[0].double().cpu(), mean, rtol=1e-7, atol=2e-7)
    np.testing.assert_allclose(used[1].double().cpu(), var, rtol=1e-6)
    grad = torch.randn(output.shape, device="cuda").to(dtype)
    if case.channels_last:
        grad = grad.to(memory_format=torch.channels_last)
    gradients = torch.autograd.grad(output, (x, weight, bias), grad)
    statistics = [t.double().cpu().numpy() for t in used]
    wanted = card.reference_backward(
        grad.double().cpu().numpy(), code.cpu().numpy(), *exact[:2], *statistics,
        given[0] is None, options["eps"], options["pool"],
    )  # fmt: skip
    for found, reference in zip(gradients, wanted, strict=True):
        close(found, reference, NEAR[dtype])


def tensors(dtype=torch.float32):
    torch.manual_seed(3)
    x = torch.randn(50, 14, 14, 32, device="cuda").to(dtype).permute(0, 3, 1, 2).requires_grad_()
    weight, bias = torch.randn(2, 32, device="cuda")
    return x, weight.requires_grad_(), bias.requires_grad_()


def ours(x, weight, bias):
    return batch_norm_block(x, weight, bias)[0]


def theirs(x, weight, bias):
    return F.max_pool2d(F.relu(F.batch_norm(x, None, None, weight, bias, True)), 2)


def test_autograd_is_torchs():
    given = tensors()
    before = kernels.cuda_calls()
    compare_with_torch(given, ours, theirs, ((1e-4, 1e-5), (1e-3, 1e-4)))
    for name in ("batch_norm_block", "batch_norm_block_backward"):
        assert kernels.cuda_calls()[name] == before[name] + 1


def test_the_same_bits_in_a_graph_under_compile_and_on_another_stream():
    call_every_way(tensors(), ours)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_module_is_torchs_step_by_step(dtype):
    mine, other = BatchNormBlock(32).cuda(), nn.BatchNorm2d(32).cuda()
    for _ in range(3):
        x = tensors(dtype)[0].detach() * 3 + 1
        torch.testing.assert_close(mine(x), F.max_pool2d(F.relu(other(x)), 2), rtol=2e-2, atol=1e-2)
    for name, value in other.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    mine.eval(), other.eval()
    torch.testing.assert_close(mine(x), F.max_pool2d(F.relu(other(x)), 2), rtol=2e-2, atol=1e-2)
    halves = mine.bfloat16()(x.bfloat16())
    assert halves.dtype is torch.bfloat16
    torch.testing.assert_close(halves, F.max_pool2d(F.relu(other(x)), 2).bfloat16(), rtol=5e-2, atol=5e-2)


def test_what_can_not_be_is_an_error():
    x, weight, bias = tensors()
    with pytest.raises(ValueError, match="one device"):
        batch_norm_block(x, weight.cpu(), bias)
    with pytest.raises(TypeError, match="float32 like input"):
        batch_norm_block(x, weight.double(), bias)
    with pytest.raises(TypeError, match="int32"):
        batch_norm_block(x.int(), weight, bias)
