"""conv_block as torch sees it: autograd, operator checks, torch.compile, modules, errors."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hw4fast.nn as hn
from hw4fast.kernels import conv_block as card

NAMES = ("o9", "c5", "k4", "k2x6", "stride(2, 2)-pool", "stride(3, 3)", "relu-bias", "plain", "empty", "border")
NAMES += ("c16-o32-k5", "depthwise-c7", "depthwise-stride(2, 2)-pool")
CASES = [case for case in card.cases() if case.name in NAMES]
SMALL = [card.Case("small", (2, 2, 5, 6), (3, 3, 2), (1, 2), (1, 0), relu, pool) for relu in (0, 1) for pool in (0, 1)]


def tensors(case, dtype=np.float32):
    *arrays, options = case.make(dtype)
    return [None if a is None else torch.from_numpy(a).requires_grad_() for a in arrays], options


def torch_block(input, weight, bias, stride, padding, relu, pool, groups):
    y = F.conv2d(input, weight, bias, stride, padding, groups=groups)
    y = F.relu(y) if relu else y
    return F.max_pool2d(y, 2) if pool else y


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_output_and_gradients_are_those_of_torch(case):
    inputs, options = tensors(case, np.float64)
    given = [tensor for tensor in inputs if tensor is not None]
    before = [tensor.detach().clone() for tensor in given]
    ours, theirs = hn.conv_block(*inputs, **options), torch_block(*inputs, **options)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    assert ours.is_contiguous(memory_format=torch.channels_last) or ours.numel() == 0
    grad = torch.randn_like(theirs)
    for mine, wanted in zip(
        torch.autograd.grad(ours, given, grad), torch.autograd.grad(theirs, given, grad), strict=True
    ):
        torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-11)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


@pytest.mark.parametrize("case", SMALL, ids=lambda case: f"relu{case.relu}-pool{case.pool}")
def test_gradcheck_in_float64(case):
    inputs, options = tensors(case, np.float64)
    assert torch.autograd.gradcheck(lambda *args: hn.conv_block(*args, **options), inputs)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_opcheck(case):
    inputs, options = tensors(case)
    arguments = (*inputs, *options.values())
    torch.library.opcheck(torch.ops.hw4fast.conv_block.default, (*arguments, True))
    output, code = torch.ops.hw4fast.conv_block(*arguments, True)
    detached = (torch.randn_like(output), code, inputs[0].detach(), inputs[1].detach(), *options.values())
    for want in ([True] * 3, [False, True, True], [True, False, False]):
        torch.library.opcheck(torch.ops.hw4fast.conv_block_backward.default, (*detached, want))


def test_only_the_wanted_gradients_are_made():
    (x, w, b), options = tensors(CASES[0])
    for wanted in ((x,), (w,), (b,), (x, b)):
        tensors_ = [t.detach().requires_grad_(any(t is v for v in wanted)) for t in (x, w, b)]
        hn.conv_block(*tensors_, **options).sum().backward()
        assert [t.grad is not None for t in tensors_] == [t.requires_grad for t in tensors_]
    with torch.no_grad():
        assert not hn.conv_block(x, w, b, **options).requires_grad


def test_compile_without_graph_breaks_even_when_the_batch_changes():
    net = nn.Sequential(hn.ConvBlock(2, 5, 3, padding=1), hn.ConvBlock(5, 4, 3, pool=False), nn.Flatten())
    compiled = torch.compile(net, fullgraph=True, dynamic=True)
    for n in (3, 6):
        x = torch.randn(n, 2, 10, 12)
        torch.testing.assert_close(compiled(x), net(x))
        gradients = [torch.autograd.grad(f(x).square().sum(), list(net.parameters())) for f in (compiled, net)]
        for mine, wanted in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, wanted)


def test_the_module_starts_and_loads_as_conv2d_does():
    for options in ({"bias": True, "stride": 2}, {"bias": False, "padding": (2, 1)}):
        torch.manual_seed(3)
        ours = hn.ConvBlock(3, 8, (5, 3), **options)
        torch.manual_seed(3)
        theirs = nn.Conv2d(3, 8, (5, 3), **options)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        assert all(torch.equal(ours.state_dict()[key], value) for key, value in theirs.state_dict().items())
        ours.load_state_dict(nn.Conv2d(3, 8, (5, 3), **options).state_dict())
        x = torch.randn(2, 3, 14, 15)
        theirs.load_state_dict(ours.state_dict())
        torch.testing.assert_close(ours(x), F.max_pool2d(F.relu(theirs(x)), 2))
    assert "kernel_size=(5, 3)" in repr(ours)


def test_a_block_that_feeds_a_flat_layer_gets_its_gradient_back():
    """Its gradient arrives as NCHW, or expanded without memory of its own."""
    x = torch.randn(3, 2, 8, 8)
    block = hn.ConvBlock(2, 4, 3, padding=1)
    for loss in (lambda y: (y.flatten(1) @ torch.ones(64, 2)).square().sum(), lambda y: y.sum()):
        mine = torch.autograd.grad(loss(block(x)), block.weight)[0]
        y = F.max_pool2d(F.relu(F.conv2d(x, block.weight, block.bias, padding=1)), 2)
        torch.testing.assert_close(mine, torch.autograd.grad(loss(y), block.weight)[0], rtol=1e-4, atol=1e-4)


def test_an_operator_without_code_says_so_in_backward():
    (x, w, b), options = tensors(CASES[0])
    output, _ = torch.ops.hw4fast.conv_block(x, w, b, *options.values(), False)
    with pytest.raises(RuntimeError, match="want_code=False"):
        output.sum().backward()


def test_second_derivatives_are_refused():
    (x, w, b), options = tensors(CASES[0])
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(hn.conv_block(x, w, b, **options).square().sum(), x, create_graph=True)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"input": torch.zeros(3, 8, 8)}, ValueError, "input must be"),
        ({"input": torch.zeros(2, 6, 8, 8)}, ValueError, "weight must be .*groups = 1"),
        ({"input": torch.zeros(2, 3, 8, 8, dtype=torch.bfloat16)}, TypeError, "float32 or float64"),
        ({"input": torch.zeros(2, 3, 8, 8, device="meta")}, NotImplementedError, "CPU kernel only.*meta"),
        ({"weight": torch.zeros(4, 3, 9, 3)}, ValueError, "kernel sizes"),
        ({"weight": torch.zeros(4, 3, 3, 3, dtype=torch.float64)}, TypeError, "weight must be"),
        ({"bias": torch.zeros(3)}, ValueError, "bias must be"),
        ({"bias": torch.zeros(4, device="meta")}, NotImplementedError, "CPU kernel only.*meta"),
        ({"stride": 0}, ValueError, "stride"),
        ({"padding": (0, -1)}, ValueError, "padding"),
        ({"padding": (0, 0, 0)}, ValueError, "padding"),
    ],
)
def test_bad_input_raises(change, kind, message):
    arguments = {"input": torch.zeros(2, 3, 8, 8), "weight": torch.zeros(4, 3, 3, 3), "bias": torch.zeros(4), **change}
    with pytest.raises(kind, match=message):
        hn.conv_block(**arguments)


def test_the_operators_themselves_refuse_what_would_crash():
    (x, w, b), options = tensors(CASES[0])
    with torch.no_grad():
        output, code = torch.ops.hw4fast.conv_block(x, w, b, *options.values(), True)
        with pytest.raises(ValueError, match="weight must be"):
            torch.ops.hw4fast.conv_block(x, w[:, :1], b, *options.values(), True)
        with pytest.raises(TypeError, match="bias must be"):
            torch.ops.hw4fast.conv_block(x, w, b.double(), *options.values(), True)
        for grad, codes, kind in (
            (output[:1], code, ValueError),
            (output, code[:1], ValueError),
            (output.double(), code, TypeError),
            (output, code.int(), TypeError),
            (output, code + 5, ValueError),
        ):
            with pytest.raises(kind):
                torch.ops.hw4fast.conv_block_backward(grad, codes, x, w, *options.values(), [True] * 3)


@pytest.mark.parametrize("pool", [False, True])
def test_negated_and_batched_gradients(pool):
    """Their memory does not hold their numbers, or they have none: the road past the dispatcher is not theirs."""
    x, w = torch.randn(2, 8, 8, 8), torch.randn(8, 8, 3, 3, requires_grad=True)
    y = hn.conv_block(x, w, pool=pool)
    grads = torch.randn(3, *y.shape)
    wanted = [torch.autograd.grad(y, w, grad, retain_graph=True)[0] for grad in grads]
    (negated,) = torch.autograd.grad(y, w, torch._neg_view(-grads[0]), retain_graph=True)
    torch.testing.assert_close(negated, wanted[0])
    (batched,) = torch.autograd.grad(y, w, grads, is_grads_batched=True)
    torch.testing.assert_close(batched, torch.stack(wanted))


def test_options_are_those_of_the_forward_pass_whatever_the_caller_does_to_his_list():
    stride = [2, 2]
    x, w = torch.ones(1, 8, 16, 16), torch.ones(8, 8, 3, 3, requires_grad=True)
    y = hn.conv_block(x, w, None, stride)
    (wanted,) = torch.autograd.grad(y.sum(), w, retain_graph=True)
    stride[:] = [1, 1]
    torch.testing.assert_close(torch.autograd.grad(y.sum(), w)[0], wanted)


@pytest.mark.parametrize("far", [32768, 2**20, 2**31 - 1])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("pool", [False, True])
def test_a_long_stride_takes_no_memory_for_what_it_leaves_out(pool, groups, far):
    """Of 3 × 3 outputs the middle one sees the picture, the others the border: so at 40, and as well at 2³¹ − 1."""
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    w = torch.randn(3, 3 // groups, 3, 3, requires_grad=True)
    found = []
    for step in (40, far):
        y = hn.conv_block(x, w, None, step, step, True, pool, groups)
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, w))))
    y = torch_block(x, w, None, 40, 40, True, pool, groups)
    wanted = (y, *torch.autograd.grad(y.square().sum(), (x, w)))
    for near, mine, theirs in zip(*found, wanted, strict=True):
        assert torch.equal(near, mine)
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_strides_of_any_size_are_taken_or_refused(groups):
    x, w = torch.ones(1, 2, 4, 4), torch.ones(2, 2 // groups, 1, 1)
    out = hn.conv_block(x, w, None, (1, 2**31 - 1), 0, True, False, groups)
    assert out.shape == (1, 2, 4, 1) and (out == 2 // groups).all()
    with pytest.raises(ValueError, match="2147483647"):
        hn.conv_block(x, w, None, (1, 2**62), 0, True, False, groups)
    with pytest.raises(ValueError, match="2147483647"):
        hn.conv_block(x, w, None, (1, 1), (0, 2**61), True, False, groups)
