"""softmax_cross_entropy as torch sees it: gradients, operator checks, errors; the rest is in test_losses.py."""

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


def as_bfloat16(case):
    """The case's tensors in bfloat16, and in float64 for the reference: the same numbers."""
    x, y, options = tensors(case)
    x, weight = x.detach().bfloat16(), options.pop("weight")
    stored = {**options, "weight": None if weight is None else weight.bfloat16()}
    exact = {**options, "weight": None if weight is None else weight.bfloat16().double()}
    return (x.clone().requires_grad_(), y, stored), (x.double().requires_grad_(), y, exact)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bfloat16_is_as_exact_as_torchs_and_of_its_dtypes(case):
    (x, y, options), (exact_x, _, exact_options) = as_bfloat16(case)
    ours, theirs, exact = (
        hn.softmax_cross_entropy(x, y, **options),
        torch_loss(x, y, options),
        torch_loss(exact_x, y, exact_options),
    )
    gradients = [torch.autograd.grad(value.sum(), at)[0] for value, at in ((ours, x), (theirs, x), (exact, exact_x))]
    for mine, other, value in ((ours, theirs, exact), gradients):
        assert mine.dtype is other.dtype is torch.bfloat16 and mine.shape == other.shape
        allowed = 2 * (other - value).abs().amax() if value.numel() else 0
        largest = value.abs().amax() if value.numel() else 0
        assert not value.numel() or (mine - value).abs().amax() <= allowed + 2**-7 * largest
        torch.testing.assert_close(mine.double(), value, rtol=2**-8 + 1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_opcheck_of_bfloat16(case):
    (x, y, options), _ = as_bfloat16(case)
    torch.library.opcheck(torch.ops.hw4fast.softmax_xent.default, (x, y, *operator_arguments(options)))


def test_compile_of_bfloat16_and_a_scaled_loss():
    layer = torch.nn.Linear(5, 300, dtype=torch.bfloat16)
    x, y = torch.randn(600, 5, dtype=torch.bfloat16), torch.arange(600) % 300
    weight = (torch.rand(300) + 0.1).bfloat16()

    def step(x):
        return hn.softmax_cross_entropy(layer(x), y, weight) * 3

    value, want = torch.compile(step, fullgraph=True)(x), step(x)
    assert value.dtype is torch.bfloat16
    torch.testing.assert_close(value, want)
    found = [
        torch.autograd.grad(loss, layer.weight)[0] for loss in (value, want, 3 * F.cross_entropy(layer(x), y, weight))
    ]
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2], rtol=0.05, atol=0.05 * found[2].abs().max().item())


def test_a_large_bfloat16_gradient_owns_its_memory():
    """It is a view of memory that is used again once nobody holds it."""
    x, y = torch.randn(300, 1000).bfloat16().requires_grad_(), torch.arange(300)
    gradients = [torch.autograd.grad(hn.softmax_cross_entropy(k * x, y), x)[0] for k in (1, 2)]
    (want,) = torch.autograd.grad(F.cross_entropy(x.float(), y), x)
    torch.testing.assert_close(gradients[0], want, rtol=2**-7, atol=1e-7)
    assert gradients[0].data_ptr() != gradients[1].data_ptr()


def test_numbers_of_any_kind_are_numbers():
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    options = {"scale": np.float32(2), "label_smoothing": 1, "ignore_index": np.int64(1)}
    torch.testing.assert_close(
        hn.softmax_cross_entropy(x, y, **options), F.cross_entropy(2 * x, y, ignore_index=1, label_smoothing=1.0)
    )


def test_strided_logits_targets_and_weights():
    base, y = torch.randn(20, 40), torch.randint(0, 13, (20,))
    weight = torch.rand(26)[::2] + 0.1
    for x in (base[::2, 3:16], base[:10, ::3][:, :13], base[:13, :10].t(), base[:1, :13].expand(10, 13)):
        got = hn.softmax_cross_entropy(x, y[::2], weight)
        torch.testing.assert_close(got, F.cross_entropy(x, y[::2], weight))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"input": torch.zeros(3)}, ValueError, "input must be"),
        ({"input": torch.zeros(2, 3, 4)}, ValueError, "input must be"),
        ({"input": torch.zeros(2, 3, dtype=torch.float16)}, TypeError, "float32, float64 or bfloat16"),
        ({"input": torch.zeros(2, 3, device="meta")}, NotImplementedError, "kernels? only.*meta"),
        ({"target": torch.zeros(3, dtype=torch.int64)}, ValueError, "target must be"),
        ({"target": torch.zeros(2)}, TypeError, "int64 class indices"),
        ({"target": torch.zeros(2, dtype=torch.int64, device="meta")}, NotImplementedError, "kernels? only.*meta"),
        ({"target": torch.tensor([0, 3])}, IndexError, r"target\[1\] is 3"),
        ({"scale": torch.tensor(2.0)}, TypeError, "scale and label_smoothing"),
        ({"label_smoothing": torch.tensor(0.1)}, TypeError, "scale and label_smoothing"),
        ({"weight": torch.ones(3, requires_grad=True)}, ValueError, "must not require a gradient"),
        ({"weight": torch.ones(2)}, ValueError, "weight must be"),
        ({"weight": torch.ones(3, dtype=torch.float64)}, TypeError, "weight must be"),
        ({"input": torch.zeros(2, 3).bfloat16(), "weight": torch.ones(3)}, TypeError, "weight must be torch.bfloat16"),
        ({"scale": None}, TypeError, "must be numbers, not None"),
        ({"label_smoothing": "0.1"}, TypeError, "must be numbers"),
        ({"ignore_index": None}, TypeError, "ignore_index must be a whole number"),
        ({"ignore_index": 1.0}, TypeError, "ignore_index must be a whole number"),
        ({"ignore_index": 2**70}, ValueError, "ignore_index must be an int64"),
        ({"label_smoothing": -0.1}, ValueError, "label_smoothing"),
        ({"reduction": "median"}, ValueError, "reduction"),
    ],
)
def test_bad_input_raises(change, kind, message):
    arguments = {"input": torch.zeros(2, 3), "target": torch.zeros(2, dtype=torch.int64), **change}
    with pytest.raises(kind, match=message):
        hn.softmax_cross_entropy(**arguments)


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
