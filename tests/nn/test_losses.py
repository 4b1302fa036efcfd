"""What every loss with a kernel promises torch: autograd, torch.compile, memory, transforms."""

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
