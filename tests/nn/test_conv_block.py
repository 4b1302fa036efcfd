"""conv_block as torch sees it: autograd, operator checks, torch.compile, modules, errors."""

import gc
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
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
        ({"input": torch.zeros(2, 3, 8, 8, device="meta")}, NotImplementedError, "kernels? only.*meta"),
        ({"weight": torch.zeros(4, 3, 9, 3)}, ValueError, "kernel sizes"),
        ({"weight": torch.zeros(4, 3, 3, 3, dtype=torch.float64)}, TypeError, "weight must be"),
        ({"bias": torch.zeros(3)}, ValueError, "bias must be"),
        ({"bias": torch.zeros(4, device="meta")}, NotImplementedError, "kernels? only.*meta"),
        ({"stride": 0}, ValueError, "stride"),
        ({"padding": (0, -1)}, ValueError, "padding"),
        ({"padding": (0, 0, 0)}, ValueError, "padding"),
        ({"pool": 3}, ValueError, "pool must be True or False, not 3"),
        ({"relu": "relu"}, ValueError, "relu must be True or False"),
        ({"stride": (2.0, 2.0)}, TypeError, "stride must be a whole number or two"),
        ({"stride": 1.5}, TypeError, "stride must be a whole number or two"),
        ({"padding": "same"}, TypeError, "padding must be a whole number or two"),
        (
            {"input": np.zeros((2, 3, 8, 8), np.float32)},
            TypeError,
            r"input must be a tensor.*torch.from_numpy\(input\)",
        ),
        ({"weight": None}, TypeError, "weight must be a tensor, not NoneType"),
        ({"bias": False}, TypeError, "bias must be a tensor or None, not bool"),
    ],
)
def test_bad_input_raises(change, kind, message):
    arguments = {"input": torch.zeros(2, 3, 8, 8), "weight": torch.zeros(4, 3, 3, 3), "bias": torch.zeros(4), **change}
    with pytest.raises(kind, match=message):
        hn.conv_block(**arguments)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((1, 1, 3, 1, 1, True, "relu"), ValueError, "relu must be True or False"),
        ((3, 4, 9), ValueError, r"kernel sizes must lie in 1…7, not be \[9, 9\]"),
        ((3, 4, 0), ValueError, "kernel sizes"),
        ((3, 4, (3, 3, 3)), ValueError, "kernel_size must be a whole number or two"),
        ((3, 4, 3, 1.5), TypeError, "stride must be a whole number or two"),
        ((3, 4, 3, 1, "same"), TypeError, "padding must be a whole number or two"),
        ((3, 4, 3, 1, 0, "zeros"), ValueError, "bias must be True or False"),
        ((0, 4, 3), ValueError, "channels must be whole numbers from 1 on"),
    ],
)
def test_a_module_that_could_only_fail_is_not_built(arguments, kind, message):
    with pytest.raises(kind, match=message):
        hn.ConvBlock(*arguments)


@pytest.mark.parametrize("stride", [2, (2,), [2, 2], np.int64(2), (np.int64(2), 2)], ids=repr)
def test_a_stride_is_what_torch_takes_for_one(stride):
    x, w = torch.randn(1, 2, 9, 9), torch.randn(3, 2, 3, 3)
    assert torch.equal(hn.conv_block(x, w, None, stride), hn.conv_block(x, w, None, (2, 2)))
    assert hn.ConvBlock(2, 3, 3, stride).stride == (2, 2)


HOOKS = {
    "another dtype": (lambda t: t.bfloat16() if t.is_floating_point() else t, TypeError, "float32 or float64"),
    "wider": (lambda t: t.double() if t.is_floating_point() else t, TypeError, "grad must be torch.float64"),
    "only the weight wider": (lambda t: t.double() if t.shape == (8, 8, 3, 3) else t, TypeError, "weight must be"),
    "shorter": (lambda t: t[:1], ValueError, "must be"),
    "codes of another dtype": (lambda t: t.float(), TypeError, "code uint8"),
    "codes that lead out": (lambda t: t + 7 if t.dtype is torch.uint8 else t, ValueError, "code holds numbers"),
}


@pytest.mark.parametrize(("change", "kind", "message"), HOOKS.values(), ids=HOOKS)
def test_hooks_that_change_what_was_saved_end_in_an_error(change, kind, message):
    x, block = torch.randn(4, 8, 16, 16), hn.ConvBlock(8, 8, 3)
    with torch.autograd.graph.saved_tensors_hooks(change, lambda t: t):
        y = block(x)
    with pytest.raises(kind, match=message):
        torch.autograd.grad(y.sum(), block.weight)


def test_without_hooks_the_codes_are_known_to_be_the_kernels_own(monkeypatch):
    """So they are not looked through, wherever the caller has left his tensors."""
    module, own = sys.modules["hw4fast.nn.conv_block"], []
    kernel = module._gradients_of
    monkeypatch.setattr(module, "_gradients_of", lambda *arguments: own.append(arguments[-1]) or kernel(*arguments))
    net = nn.Sequential(hn.ConvBlock(8, 8, 3), hn.ConvBlock(8, 8, 3))
    y = net(torch.randn(4, 8, 16, 16))
    gc.collect()
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    assert own == [True] * 4


def test_hooks_that_give_back_the_same_numbers_give_the_same_gradient():
    x, block = torch.randn(4, 8, 16, 16), hn.ConvBlock(8, 8, 3)
    (wanted,) = torch.autograd.grad(block(x).sum(), block.weight)
    clones = torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t.clone())
    turned = torch.autograd.graph.saved_tensors_hooks(lambda t: t.mT.contiguous(), lambda t: t.mT)
    for hooks in (clones, turned, torch.autograd.graph.save_on_cpu()):
        with hooks:
            y = block(x)
        torch.testing.assert_close(torch.autograd.grad(y.sum(), block.weight)[0], wanted)
    again = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(again.sum(), block.weight)[0], wanted)


def test_a_weight_that_its_owner_converts_before_backward_ends_in_an_error():
    block = hn.ConvBlock(8, 8, 3)
    y = block(torch.randn(4, 8, 16, 16))
    block.double()
    with pytest.raises(TypeError, match=r"weight must be torch\.float32"):
        y.sum().backward()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_casts_the_input_up(dtype, compiled):
    before, block, x = nn.Conv2d(1, 2, 3), hn.ConvBlock(2, 4, 3), torch.randn(2, 1, 12, 12)

    def run(x):
        return before(x), block(before(x))

    with torch.autocast("cpu", dtype):
        middle, y = (torch.compile(run, fullgraph=True) if compiled else run)(x)
    assert middle.dtype is dtype and y.dtype is torch.float32
    torch.testing.assert_close(y, block(middle.float()))
    y.sum().backward()
    assert before.weight.grad.abs().sum() > 0 and block.weight.grad.dtype is torch.float32
    with pytest.raises(TypeError, match="input must be float32"):
        block(middle)


def test_a_trace_is_the_module():
    block, x = hn.ConvBlock(1, 4, 3), torch.randn(2, 1, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace is deprecated, and notes that shapes are constants
        traced = torch.jit.trace(block, x)
    assert torch.equal(traced(2 * x), block(2 * x))
    (mine,) = torch.autograd.grad(traced(x).sum(), block.weight)
    torch.testing.assert_close(mine, torch.autograd.grad(block(x).sum(), block.weight)[0])


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
