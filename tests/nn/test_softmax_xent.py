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
