"""What every loss with a kernel promises torch: autograd, torch.compile, memory, transforms."""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

import hw4fast.nn as hn


@dataclass(frozen=True)
class Loss:
    name: str  # of the operator, and so of everything else
    function: Callable
    theirs: Callable
    target: Callable  # of (n, classes)

    @property
    def operator(self):
        return getattr(torch.ops.hw4fast, self.name)


LOSSES = (
    Loss(
        "softmax_xent",
        hn.softmax_cross_entropy,
        F.cross_entropy,
        lambda n, classes: torch.arange(n) % classes,
    ),
    Loss(
        "bce_with_logits",
        hn.binary_cross_entropy_with_logits,
        F.binary_cross_entropy_with_logits,
        lambda n, classes: torch.rand(n, classes, generator=torch.Generator().manual_seed(n)),
    ),
)
pytestmark = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)


def test_compile_without_graph_breaks_even_when_the_batch_changes(loss):
    layer, weight = torch.nn.Linear(5, 10), torch.rand(10) + 0.1

    def step(x, y):
        return loss.function(layer(x), y, weight)

    compiled = torch.compile(step, fullgraph=True, dynamic=True)
    for n in (4, 7):
        x, y = torch.randn(n, 5), loss.target(n, 10)
        value = compiled(x, y)
        torch.testing.assert_close(value, step(x, y))
        (grad,) = torch.autograd.grad(value, layer.weight)
        (want,) = torch.autograd.grad(step(x, y), layer.weight)
        torch.testing.assert_close(grad, want)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_backward_twice_through_a_retained_graph(loss, reduction):
    x, y = torch.randn(6, 4, requires_grad=True), loss.target(6, 4)
    value = loss.function(x, y, reduction=reduction)
    seed = torch.rand_like(value)
    value.backward(seed, retain_graph=True)
    first = x.grad.clone()
    value.backward(seed, retain_graph=True)
    torch.testing.assert_close(x.grad, 2 * first)
    value.backward(seed)
    torch.testing.assert_close(x.grad, 3 * first)


@pytest.mark.parametrize("eager", [True, False], ids=["function", "op"])
@pytest.mark.parametrize("kind", [lambda x: x.requires_grad_(), torch.nn.Parameter], ids=["tensor", "parameter"])
def test_second_derivatives_are_refused(loss, kind, eager):
    x, y = kind(torch.randn(6, 4)), loss.target(6, 4)
    value = loss.function(x, y) if eager else loss.operator(x, y)[0]
    with pytest.raises(
        RuntimeError, match=f"{loss.function.__name__} has no second derivative.*F.{loss.theirs.__name__}"
    ):
        torch.autograd.grad(value, x, create_graph=True)


@pytest.mark.parametrize(
    ("change", "kind"), [(lambda t: t.bfloat16(), TypeError), (lambda t: t[:2], RuntimeError)], ids=["dtype", "shape"]
)
def test_hooks_that_change_what_was_saved_end_in_an_error(loss, change, kind):
    """The first backward pass needs nothing that was saved, the second does."""
    x, y = torch.randn(6, 4, requires_grad=True), loss.target(6, 4)
    with torch.autograd.graph.saved_tensors_hooks(change, lambda t: t):
        value = loss.function(x, y)
    (first,) = torch.autograd.grad(value, x, retain_graph=True)
    torch.testing.assert_close(first, torch.autograd.grad(loss.theirs(x, y), x)[0])
    with pytest.raises(kind):
        torch.autograd.grad(value, x)


def test_targets_cut_by_hooks_end_in_an_error(loss):
    x, y = torch.randn(6, 4, requires_grad=True), loss.target(6, 4)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t if t is x else t[:2], lambda t: t):
        value = loss.function(x, y)
    torch.autograd.grad(value, x, retain_graph=True)
    with pytest.raises(ValueError, match="target must be"):
        torch.autograd.grad(value, x)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_loss_is_computed_in_float32(loss, dtype, compiled):
    layer, x, y = torch.nn.Linear(5, 4), torch.randn(6, 5), loss.target(6, 4)

    def run(function):
        logits = layer(x)
        assert logits.dtype is dtype
        return function(logits, y, torch.ones(4, dtype=dtype))

    with torch.autocast("cpu", dtype):
        ours = (torch.compile(run, fullgraph=True) if compiled else run)(loss.function)
        theirs = run(loss.theirs)
        assert loss.function(layer(x).double(), y.double() if y.is_floating_point() else y).dtype is torch.float64
    assert ours.dtype is theirs.dtype is torch.float32
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(value, layer.weight)[0] for value in (ours, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("wrong", ["input", "target", "weight"])
def test_arrays_and_numbers_are_no_tensors(loss, wrong):
    arguments = {"input": torch.randn(6, 4), "target": loss.target(6, 4), "weight": torch.ones(4)}
    arguments[wrong] = arguments[wrong].numpy()
    with pytest.raises(TypeError, match=rf"{wrong} must be a tensor.*torch.from_numpy\({wrong}\)"):
        loss.function(**arguments)
    with pytest.raises(TypeError, match=f"{wrong} must be a tensor.*not float"):
        loss.function(**{**arguments, wrong: 2.0})


def test_a_weight_that_requires_a_gradient_is_welcome_where_none_is_taken(loss):
    x, y, weight = torch.randn(6, 4), loss.target(6, 4), torch.ones(4, requires_grad=True)
    with pytest.raises(ValueError, match="weight must not require a gradient"):
        loss.function(x, y, weight)
    with pytest.raises(ValueError, match="only logits have a gradient"):
        loss.operator(x, y, weight)
    with torch.no_grad():
        torch.testing.assert_close(loss.operator(x, y, weight)[0], loss.theirs(x, y, weight))
        torch.testing.assert_close(loss.function(x, y, weight), loss.theirs(x, y, weight))


def test_a_trace_is_the_loss(loss):
    layer, x, y = torch.nn.Linear(5, 4), torch.randn(6, 5), loss.target(6, 4)

    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, y):
            return loss.function(self.layer(x), y)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace is deprecated, and notes that shapes are constants
        traced = torch.jit.trace(Whole(), (x, y))
    torch.testing.assert_close(traced(2 * x, y), loss.theirs(layer(2 * x), y))
    (mine,) = torch.autograd.grad(traced(x, y), layer.weight)
    torch.testing.assert_close(mine, torch.autograd.grad(loss.theirs(layer(x), y), layer.weight)[0])


def test_without_requires_grad_nothing_is_kept(loss):
    x, y = torch.randn(6, 4), loss.target(6, 4)
    value = loss.function(x, y)
    assert not value.requires_grad
    torch.testing.assert_close(value, loss.theirs(x, y))
    with torch.no_grad():
        assert not loss.function(x.requires_grad_(), y).requires_grad


def test_a_want_grad_false_operator_says_so_in_backward(loss):
    x, y = torch.randn(6, 4, requires_grad=True), loss.target(6, 4)
    value, _ = loss.operator(x, y, want_grad=False)
    with pytest.raises(RuntimeError, match=f"{loss.name} was called with want_grad=False"):
        value.backward()


def large_gradient(loss, seed):
    x = torch.randn(300, 1000, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    y = loss.target(300, 1000)
    loss.function(x, y).backward()
    (want,) = torch.autograd.grad(loss.theirs(x, y), x)
    return x, want


def test_memory_of_a_large_gradient_is_used_again_only_when_nobody_holds_it(loss):
    first, want_first = large_gradient(loss, 1)
    second, _ = large_gradient(loss, 2)
    assert first.grad.data_ptr() != second.grad.data_ptr()
    place = second.grad.data_ptr()
    second.grad = None
    third, want_third = large_gradient(loss, 3)
    assert third.grad.data_ptr() == place
    view = third.grad[5:6, 2:3].numpy()  # one element, as an array, is enough to keep it
    third.grad = None
    fourth, want_fourth = large_gradient(loss, 4)
    assert fourth.grad.data_ptr() != place
    for x, want in ((first, want_first), (fourth, want_fourth)):
        torch.testing.assert_close(x.grad, want)
    assert view.item() == pytest.approx(want_third[5, 2].item())


def test_large_gradients_in_many_threads_do_not_share_memory(loss):
    def work(seed):
        for repeat in range(20):
            x, want = large_gradient(loss, 100 * seed + repeat)
            if not torch.allclose(x.grad, want, rtol=1e-4, atol=1e-7):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_transformed_and_watched_tensors_go_through_the_dispatcher(loss):
    """Never raw addresses of tensors that have none: the right answer or an error, no crash and no garbage."""
    x, y = torch.randn(6, 4), loss.target(6, 4)
    want = loss.theirs(x, y)
    with pytest.raises(RuntimeError, match="functorch transforms"):  # torch's own limit on operators like ours
        torch.func.grad(lambda x: loss.function(x, y))(x)
    torch.testing.assert_close(torch.func.functionalize(lambda x: loss.function(x, y))(x), want)
    graph = torch.fx.experimental.proxy_tensor.make_fx(lambda x: loss.function(x, y))(x)
    torch.testing.assert_close(graph(2 * x), loss.theirs(2 * x, y))
    with torch._subclasses.FakeTensorMode() as fake:
        assert loss.function(fake.from_tensor(x), fake.from_tensor(y)).shape == ()
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        loss.function(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)), y)


def test_what_the_gradient_no_longer_needs_may_change_before_backward(loss):
    x, y, weight = torch.randn(6, 4, requires_grad=True), loss.target(6, 4), torch.rand(4)
    (want,) = torch.autograd.grad(loss.theirs(x, y, weight), x)
    value = loss.function(x, y, weight)
    y.zero_()
    weight.zero_()
    value.backward()
    torch.testing.assert_close(x.grad, want)


def test_negative_views_are_taken_for_what_they_show(loss):
    """Such as x.conj().imag, whose memory holds the numbers with the other sign."""
    x, y = torch.randn(6, 4), loss.target(6, 4)
    negative = torch._neg_view(-x)
    assert negative.is_neg() and torch.equal(negative, x)
    torch.testing.assert_close(loss.function(negative, y), loss.theirs(x, y))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_negated_and_batched_gradients(loss, reduction):
    x, y = torch.randn(6, 4, requires_grad=True), loss.target(6, 4)
    value = loss.function(x, y, reduction=reduction)
    seeds = torch.randn(3, *value.shape)
    wanted = [torch.autograd.grad(value, x, seed, retain_graph=True)[0] for seed in seeds]
    (negated,) = torch.autograd.grad(value, x, torch._neg_view(-seeds[0]), retain_graph=True)
    torch.testing.assert_close(negated, wanted[0])
    (batched,) = torch.autograd.grad(value, x, seeds, retain_graph=True, is_grads_batched=True)
    torch.testing.assert_close(batched, torch.stack(wanted))
    torch.testing.assert_close(torch.autograd.grad(value, x, seeds[1])[0], wanted[1])
