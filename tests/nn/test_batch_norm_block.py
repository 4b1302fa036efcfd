"""batch_norm_block as torch sees it: autograd, operator checks, torch.compile, modules, errors."""

import warnings

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from torch import nn
from torch.nn import functional as F

import hw4fast.nn as hn
from hw4fast.kernels import batch_norm_block as card

NAMES = ("c17", "c5", "3x2", "plain-5x5", "options-relu-given", "options-pool", "options-relu-pool-nchw", "empty")
CASES = [case for case in card.cases() if case.name in NAMES]
SMALL = [card.Case("small", (2, 3, 4, 5), relu, pool, given) for relu in (0, 1) for pool in (0, 1) for given in (0, 1)]


def tensors(case, dtype=np.float32):
    *arrays, options = case.make(dtype)
    given = {name: torch.from_numpy(value) for name, value in options.items() if name in ("mean", "var")}
    return [torch.from_numpy(array).requires_grad_() for array in arrays], options | given


def torch_block(input, weight, bias, eps, relu, pool, mean=None, var=None):
    y = F.batch_norm(input, mean, var, weight, bias, mean is None, eps=eps)
    y = F.relu(y) if relu else y
    return F.max_pool2d(y, 2) if pool else y


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_output_and_gradients_are_those_of_torch(case):
    inputs, options = tensors(case, np.float64)
    before = [tensor.detach().clone() for tensor in inputs]
    (ours, mean, var), theirs = hn.batch_norm_block(*inputs, **options), torch_block(*inputs, **options)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)
    assert ours.is_contiguous(memory_format=torch.channels_last) or ours.numel() == 0
    assert not mean.requires_grad and not var.requires_grad
    grad = torch.randn_like(theirs)
    for mine, wanted in zip(
        torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(theirs, inputs, grad), strict=True
    ):
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-10)
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


@pytest.mark.parametrize("case", SMALL, ids=lambda case: f"relu{case.relu}-pool{case.pool}-given{case.given}")
def test_gradcheck_in_float64(case):
    inputs, options = tensors(case, np.float64)
    assert torch.autograd.gradcheck(lambda *args: hn.batch_norm_block(*args, **options)[0], inputs)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_opcheck(case):
    inputs, options = tensors(case)
    mean, var = options.pop("mean", None), options.pop("var", None)
    arguments = (*inputs, mean, var, *options.values())
    torch.library.opcheck(torch.ops.hw4fast.batch_norm_block.default, (*arguments, True))
    output, *kept = torch.ops.hw4fast.batch_norm_block(*arguments, True)
    x, w = inputs[0].detach(), inputs[1].detach()
    detached = (torch.randn_like(output), kept[0], x, w, *kept[1:], mean is None, *options.values())
    for want in ([True] * 3, [False, True, True], [True, False, False]):
        torch.library.opcheck(torch.ops.hw4fast.batch_norm_block_backward.default, (*detached, want))


def test_only_the_wanted_gradients_are_made():
    (x, w, b), options = tensors(CASES[0])
    for wanted in ((x,), (w,), (b,), (x, b)):
        tensors_ = [t.detach().requires_grad_(any(t is v for v in wanted)) for t in (x, w, b)]
        hn.batch_norm_block(*tensors_, **options)[0].square().sum().backward()
        assert [t.grad is not None for t in tensors_] == [t.requires_grad for t in tensors_]
    with torch.no_grad():
        assert not hn.batch_norm_block(x, w, b, **options)[0].requires_grad


def twins(c=6, **options):
    """Ours and torch's with the same parameters."""
    ours, theirs = hn.BatchNormBlock(c, **options), nn.BatchNorm2d(c, **options)
    nn.init.uniform_(ours.weight, -2, 2)
    nn.init.uniform_(ours.bias, -1, 1)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_the_module_is_torchs_step_by_step():
    ours, theirs = twins(momentum=0.3, eps=1e-3)
    for n in (3, 5, 4):
        x = torch.randn(n, 6, 7, 8) * 3 + 5
        torch.testing.assert_close(ours(x), F.max_pool2d(F.relu(theirs(x)), 2), rtol=1e-4, atol=1e-5)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), F.max_pool2d(F.relu(theirs(x)), 2), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in before.items())
    assert "momentum=0.3" in repr(ours) and "relu=True, pool=True" in repr(ours)


@pytest.mark.parametrize("training", [True, False])
def test_compile_without_graph_breaks_even_when_the_batch_changes(training):
    net = nn.Sequential(hn.ConvBlock(2, 5, 3, relu=False, pool=False), hn.BatchNormBlock(5), nn.Flatten())
    copy = nn.Sequential(hn.ConvBlock(2, 5, 3, relu=False, pool=False), hn.BatchNormBlock(5), nn.Flatten())
    copy.load_state_dict(net.state_dict())
    net.train(training), copy.train(training)
    compiled = torch.compile(net, fullgraph=True, dynamic=True)
    for n in (3, 6):
        x = torch.randn(n, 2, 10, 12)
        mine, theirs = compiled(x), copy(x)
        torch.testing.assert_close(mine, theirs)
        for a, b in zip(
            torch.autograd.grad(mine.square().sum(), list(net.parameters())),
            torch.autograd.grad(theirs.square().sum(), list(copy.parameters())),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for name, value in copy.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value)


def test_a_gradient_that_comes_as_nchw_or_expanded():
    x = torch.randn(3, 4, 8, 8, requires_grad=True)
    ours, theirs = twins(4)
    for loss in (lambda y: (y.flatten(1) @ torch.ones(64, 2)).square().sum(), lambda y: y.sum()):
        mine = torch.autograd.grad(loss(ours(x)), (x, ours.weight))
        wanted = torch.autograd.grad(loss(F.max_pool2d(F.relu(theirs(x)), 2)), (x, theirs.weight))
        for a, b in zip(mine, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * b.abs().max().item())


def test_an_operator_without_code_says_so_in_backward():
    (x, w, b), options = tensors(CASES[0])
    output, *_ = torch.ops.hw4fast.batch_norm_block(x, w, b, None, None, *options.values(), False)
    with pytest.raises(RuntimeError, match="want_code=False"):
        output.sum().backward()


def test_second_derivatives_are_refused():
    (x, w, b), options = tensors(CASES[0])
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(hn.batch_norm_block(x, w, b, **options)[0].square().sum(), x, create_graph=True)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"input": torch.zeros(3, 8, 8)}, ValueError, "input must be"),
        ({"input": torch.zeros(2, 3, 8, 8, dtype=torch.bfloat16)}, TypeError, "float32 or float64"),
        ({"input": torch.zeros(2, 3, 8, 8, device="meta")}, NotImplementedError, "kernels? only.*meta"),
        ({"input": torch.zeros(1, 3, 1, 1), "pool": False}, ValueError, "no two values"),
        ({"weight": torch.zeros(4)}, ValueError, "weight must be"),
        ({"weight": torch.zeros(3, dtype=torch.float64)}, TypeError, "weight must be"),
        ({"bias": None}, TypeError, "bias must be a tensor"),
        ({"mean": torch.zeros(3)}, ValueError, "go together"),
        ({"mean": np.zeros(3), "var": np.ones(3)}, TypeError, r"torch.from_numpy\(mean\)"),
        (
            {"mean": torch.zeros(3, requires_grad=True), "var": torch.ones(3)},
            ValueError,
            "mean must not require a gradient",
        ),
        ({"eps": -1.0}, ValueError, "eps must be"),
        ({"pool": 3}, ValueError, "pool must be True or False"),
    ],
)
def test_bad_input_raises(change, kind, message):
    arguments = {"input": torch.zeros(2, 3, 8, 8), "weight": torch.ones(3), "bias": torch.zeros(3), **change}
    with pytest.raises(kind, match=message):
        hn.batch_norm_block(**arguments)


def test_a_module_that_could_only_fail_is_not_built():
    for options in ({"relu": "relu"}, {"pool": 2}, {"momentum": 2}, {"eps": -1}, {"num_features": 0}):
        with pytest.raises(ValueError, match=r"must (be|lie)"):
            hn.BatchNormBlock(**({"num_features": 3} | options))
    with pytest.raises(TypeError, match="positional"):
        hn.BatchNormBlock(3, 1e-5, 0.1, False)  # BatchNorm2d's fourth is affine


def test_what_torch_does_to_batch_normalisation_it_can_do_to_ours():
    ours, theirs = twins(3)
    pictures = [torch.randn(4, 3, 6, 6) + k for k in range(3)]
    for net in (ours, theirs):
        torch.optim.swa_utils.update_bn(pictures, net)  # a momentum of None: means over the batches
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    kept = ours.running_mean.clone()
    ours.track_running_stats = False
    ours.train()(pictures[0])
    assert torch.equal(ours.running_mean, kept)
    ours.double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    ours.eval()(x).sum().backward()
    theirs.double().eval()
    (wanted,) = torch.autograd.grad(F.max_pool2d(F.relu(theirs(x)), 2).sum(), x)
    torch.testing.assert_close(x.grad, wanted)


def test_parameters_that_are_fixed_take_no_gradient():
    block = hn.BatchNormBlock(3).eval().requires_grad_(False)
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    block(x).sum().backward()
    assert x.grad.abs().sum() > 0 and block.weight.grad is None


def test_a_weight_that_its_owner_converts_before_backward_ends_in_an_error():
    block, x = hn.BatchNormBlock(8), torch.randn(4, 8, 6, 6, requires_grad=True)
    y = block(x)
    block.double()
    with pytest.raises(TypeError, match=r"must be torch\.float32"):
        y.sum().backward()


def test_the_operators_themselves_refuse_what_would_crash():
    (x, w, b), options = tensors(CASES[0])
    options = tuple(options.values())
    with torch.no_grad():
        output, code, mean, var = torch.ops.hw4fast.batch_norm_block(x, w, b, None, None, *options, True)
        for arguments, kind in (
            ((x, w[:1], b, None, None), ValueError),
            ((x, w, b.double(), None, None), TypeError),
            ((x, w, b, mean[:1], var), ValueError),
        ):
            with pytest.raises(kind):
                torch.ops.hw4fast.batch_norm_block(*arguments, *options, True)
        for grad, codes, used, kind in (
            (output[:1], code, mean, ValueError),
            (output, code[:1], mean, ValueError),
            (output.double(), code, mean, TypeError),
            (output, code.int(), mean, TypeError),
            (output, code, mean[:1], ValueError),
        ):
            with pytest.raises(kind):
                torch.ops.hw4fast.batch_norm_block_backward(grad, codes, x, w, used, var, True, *options, [True] * 3)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda t: t.bfloat16() if t.is_floating_point() else t, TypeError),
        (lambda t: t[:1], ValueError),
        (lambda t: t.float(), TypeError),
    ],
)
def test_hooks_that_change_what_was_saved_end_in_an_error(change, kind):
    x, block = torch.randn(4, 8, 16, 16, requires_grad=True), hn.BatchNormBlock(8)
    with torch.autograd.graph.saved_tensors_hooks(change, lambda t: t):
        y = block(x)
    with pytest.raises(kind):
        torch.autograd.grad(y.sum(), block.weight)


def test_hooks_that_give_back_the_same_numbers_give_the_same_gradient():
    x, block = torch.randn(4, 8, 16, 16, requires_grad=True), hn.BatchNormBlock(8)
    (wanted,) = torch.autograd.grad(block(x).square().sum(), x)
    for hooks in (
        torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t.clone()),
        torch.autograd.graph.save_on_cpu(),
    ):
        with hooks:
            y = block(x)
        torch.testing.assert_close(torch.autograd.grad(y.square().sum(), x)[0], wanted)
    again = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(again.square().sum(), x)[0], wanted)


def test_codes_that_no_forward_pass_writes_do_no_harm():
    """They are only compared with: a gradient that belongs to no place is counted nowhere but in the sums."""
    (x, w, b), options = tensors(CASES[0])
    with torch.no_grad():
        output, code, mean, var = torch.ops.hw4fast.batch_norm_block(x, w, b, None, None, *options.values(), True)
        wild = torch.full_like(code, 200)
        found = torch.ops.hw4fast.batch_norm_block_backward(
            output, wild, x, w, mean, var, True, *options.values(), [True] * 3
        )
    assert all(torch.isfinite(tensor).all() for tensor in found)


def test_autocast_casts_the_input_up():
    before, block, x = nn.Conv2d(1, 2, 3), hn.BatchNormBlock(2), torch.randn(2, 1, 12, 12)
    with torch.autocast("cpu", torch.bfloat16):
        middle = before(x)
        y = block(middle)
    assert middle.dtype is torch.bfloat16 and y.dtype is torch.float32
    y.square().sum().backward()
    assert before.weight.grad.abs().sum() > 0


def test_a_trace_is_the_module():
    block, x = hn.BatchNormBlock(4).eval(), torch.randn(2, 4, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace is deprecated, and notes that shapes are constants
        traced = torch.jit.trace(block, x)
    assert torch.equal(traced(2 * x), block(2 * x))


def test_negated_and_batched_gradients():
    """Their memory does not hold their numbers, or they have none: the road past the dispatcher is not theirs."""
    x, block = torch.randn(2, 8, 8, 8, requires_grad=True), hn.BatchNormBlock(8)
    y = block(x)
    grads = torch.randn(3, *y.shape)
    wanted = [torch.autograd.grad(y, x, grad, retain_graph=True)[0] for grad in grads]
    (negated,) = torch.autograd.grad(y, x, torch._neg_view(-grads[0]), retain_graph=True)
    torch.testing.assert_close(negated, wanted[0])
    (batched,) = torch.autograd.grad(y, x, grads, is_grads_batched=True)
    torch.testing.assert_close(batched, torch.stack(wanted))
