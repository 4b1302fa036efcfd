"""softmax_cross_entropy as torch sees it: autograd, operator checks, torch.compile, errors."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import hw4fast.nn as hn
from hw4fast.kernels import softmax_xent as card

NAMES = ("16x10", "37x65", "empty", "all-10", "all-1000", "none-10", "ignored0-10")
CASES = [case for case in card.cases() if case.name in NAMES]
SMALL = [case for case in CASES if case.name not in ("all-1000", "37x65", "empty")]


def tensors(case, dtype=np.float32):
    logits, target, options = case.make(dtype)
    weight = options.pop("weight", None)
    options["weight"] = None if weight is None else torch.from_numpy(weight)
    return torch.from_numpy(logits).requires_grad_(), torch.from_numpy(target), options


def operator_arguments(options):
    """The operator's positional arguments after logits and target."""
    return (
        options["weight"],
        options.get("scale", 1.0),
        options.get("label_smoothing", 0.0),
        options.get("ignore_index", -100),
        card.REDUCTIONS[options.get("reduction", "mean")],
    )


def torch_loss(x, y, options):
    options = dict(options)
    return F.cross_entropy(x * options.pop("scale", 1.0), y, **options)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loss_and_gradient_are_those_of_torch(case):
    x, y, options = tensors(case)
    before = x.detach().clone()
    ours = hn.softmax_cross_entropy(x, y, **options)
    seed = torch.rand_like(ours) + 0.5
    (grad,) = torch.autograd.grad(ours, x, seed)
    theirs = torch_loss(x, y, options)
    (grad_torch,) = torch.autograd.grad(theirs, x, seed)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad, grad_torch, rtol=1e-5, atol=1e-6)
    assert torch.equal(x.detach(), before)
    module = hn.SoftmaxCrossEntropy(**options)
    assert torch.equal(module(x, y), ours)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_gradcheck_in_float64(case):
    x, y, options = tensors(case, np.float64)
    assert torch.autograd.gradcheck(lambda x: hn.softmax_cross_entropy(x, y, **options), (x,))
    arguments = operator_arguments(options)
    assert torch.autograd.gradcheck(lambda x: torch.ops.hw4fast.softmax_xent(x, y, *arguments)[0], (x,))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_opcheck(case):
    x, y, options = tensors(case)
    arguments = operator_arguments(options)
    torch.library.opcheck(torch.ops.hw4fast.softmax_xent.default, (x, y, *arguments))
    torch.library.opcheck(torch.ops.hw4fast.softmax_xent.default, (x.detach(), y, *arguments, False))


def test_compile_without_graph_breaks_even_when_the_batch_changes():
    layer = torch.nn.Linear(5, 10)

    def step(x, y):
        return hn.softmax_cross_entropy(layer(x), y, label_smoothing=0.1)

    compiled = torch.compile(step, fullgraph=True, dynamic=True)
    for n in (4, 7):
        x, y = torch.randn(n, 5), torch.randint(0, 10, (n,))
        loss = compiled(x, y)
        torch.testing.assert_close(loss, step(x, y))
        (grad,) = torch.autograd.grad(loss, layer.weight)
        (want,) = torch.autograd.grad(step(x, y), layer.weight)
        torch.testing.assert_close(grad, want)


def test_backward_twice_through_a_retained_graph():
    x, y = torch.randn(6, 4, requires_grad=True), torch.tensor([0, 1, 2, 3, 0, 1])
    loss = hn.softmax_cross_entropy(x, y)
    loss.backward(retain_graph=True)
    first = x.grad.clone()
    loss.backward(retain_graph=True)
    torch.testing.assert_close(x.grad, 2 * first)
    loss.backward()
    torch.testing.assert_close(x.grad, 3 * first)


@pytest.mark.parametrize(
    "loss_of", [hn.softmax_cross_entropy, lambda x, y: torch.ops.hw4fast.softmax_xent(x, y)[0]], ids=["function", "op"]
)
@pytest.mark.parametrize("kind", [lambda x: x.requires_grad_(), torch.nn.Parameter], ids=["tensor", "parameter"])
def test_second_derivatives_are_refused(kind, loss_of):
    x, y = kind(torch.randn(6, 4)), torch.zeros(6, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss_of(x, y), x, create_graph=True)


def test_without_requires_grad_nothing_is_kept():
    x, y = torch.randn(6, 4), torch.zeros(6, dtype=torch.int64)
    loss = hn.softmax_cross_entropy(x, y)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, F.cross_entropy(x, y))
    with torch.no_grad():
        assert not hn.softmax_cross_entropy(x.requires_grad_(), y).requires_grad


def test_strided_logits_targets_and_weights():
    base, y = torch.randn(20, 40), torch.randint(0, 13, (20,))
    weight = torch.rand(26)[::2] + 0.1
    for x in (base[::2, 3:16], base[:10, ::3][:, :13], base[:13, :10].t(), base[:1, :13].expand(10, 13)):
        got = hn.softmax_cross_entropy(x, y[::2], weight)
        torch.testing.assert_close(got, F.cross_entropy(x, y[::2], weight))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"input": torch.zeros(3)}, ValueError, "must be"),
        ({"input": torch.zeros(2, 3, 4)}, ValueError, "must be"),
        ({"input": torch.zeros(2, 3, dtype=torch.bfloat16)}, TypeError, "float32 or float64"),
        ({"input": torch.zeros(2, 3, device="meta")}, NotImplementedError, "CPU kernel only.*meta"),
        ({"target": torch.zeros(3, dtype=torch.int64)}, ValueError, "target must be"),
        ({"target": torch.zeros(2)}, TypeError, "int64 class indices"),
        ({"target": torch.zeros(2, dtype=torch.int64, device="meta")}, NotImplementedError, "CPU kernel only.*meta"),
        ({"target": torch.tensor([0, 3])}, IndexError, r"target\[1\] is 3"),
        ({"scale": torch.tensor(2.0)}, TypeError, "scale and label_smoothing"),
        ({"label_smoothing": torch.tensor(0.1)}, TypeError, "scale and label_smoothing"),
        ({"weight": torch.ones(3, requires_grad=True)}, ValueError, "must not require a gradient"),
        ({"weight": torch.ones(2)}, ValueError, "weight must be"),
        ({"weight": torch.ones(3, dtype=torch.float64)}, TypeError, "weight must be"),
        ({"label_smoothing": -0.1}, ValueError, "label_smoothing"),
        ({"reduction": "median"}, ValueError, "reduction"),
    ],
)
def test_bad_input_raises(change, kind, message):
    arguments = {"input": torch.zeros(2, 3), "target": torch.zeros(2, dtype=torch.int64), **change}
    with pytest.raises(kind, match=message):
        hn.softmax_cross_entropy(**arguments)


def test_a_want_grad_false_operator_says_so_in_backward():
    x, y = torch.randn(6, 4, requires_grad=True), torch.zeros(6, dtype=torch.int64)
    loss, _ = torch.ops.hw4fast.softmax_xent(x, y, want_grad=False)
    with pytest.raises(RuntimeError, match="want_grad=False"):
        loss.backward()


def large_gradient(seed):
    x = torch.randn(300, 1000, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    y = torch.zeros(300, dtype=torch.int64)
    hn.softmax_cross_entropy(x, y).backward()
    (want,) = torch.autograd.grad(F.cross_entropy(x, y), x)
    return x, want


def test_memory_of_a_large_gradient_is_used_again_only_when_nobody_holds_it():
    first, want_first = large_gradient(1)
    second, _ = large_gradient(2)
    assert first.grad.data_ptr() != second.grad.data_ptr()
    place = second.grad.data_ptr()
    second.grad = None
    third, want_third = large_gradient(3)
    assert third.grad.data_ptr() == place
    view = third.grad[5:6, 2:3].numpy()  # one element, as an array, is enough to keep it
    third.grad = None
    fourth, want_fourth = large_gradient(4)
    assert fourth.grad.data_ptr() != place
    for x, want in ((first, want_first), (fourth, want_fourth)):
        torch.testing.assert_close(x.grad, want)
    assert view.item() == pytest.approx(want_third[5, 2].item())


def test_large_gradients_in_many_threads_do_not_share_memory():
    def work(seed):
        for repeat in range(20):
            x, want = large_gradient(100 * seed + repeat)
            if not torch.allclose(x.grad, want, rtol=1e-4, atol=1e-7):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_transformed_and_watched_tensors_go_through_the_dispatcher():
    """Never raw addresses of tensors that have none: the right answer or an error, no crash and no garbage."""
    x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    want = F.cross_entropy(x, y)
    with pytest.raises(RuntimeError, match="functorch transforms"):  # torch's own limit on operators like ours
        torch.func.grad(lambda x: hn.softmax_cross_entropy(x, y))(x)
    torch.testing.assert_close(torch.func.functionalize(lambda x: hn.softmax_cross_entropy(x, y))(x), want)
    graph = torch.fx.experimental.proxy_tensor.make_fx(lambda x: hn.softmax_cross_entropy(x, y))(x)
    torch.testing.assert_close(graph(2 * x), F.cross_entropy(2 * x, y))
    with torch._subclasses.FakeTensorMode() as fake:
        assert hn.softmax_cross_entropy(fake.from_tensor(x), fake.from_tensor(y)).shape == ()
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        hn.softmax_cross_entropy(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)), y)


@pytest.mark.parametrize(
    ("logits", "target", "reduction", "kind"),
    [
        (torch.zeros(4, 3), torch.zeros(2, dtype=torch.int64), 1, ValueError),
        (torch.zeros(4, 3), torch.zeros(4), 1, TypeError),
        (torch.zeros(4, 3, dtype=torch.float16), torch.zeros(4, dtype=torch.int64), 1, TypeError),
        (torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), 7, ValueError),
    ],
)
def test_the_operator_itself_refuses_what_would_crash(logits, target, reduction, kind):
    with pytest.raises(kind):
        torch.ops.hw4fast.softmax_xent(logits, target, None, 1.0, 0.0, -100, reduction)
