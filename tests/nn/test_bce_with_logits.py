"""binary_cross_entropy_with_logits as torch sees it: gradients, operator checks, errors; the rest is in
test_losses.py."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import hw4fast.nn as hn
from hw4fast.kernels import bce_with_logits as card

NAMES = (
    "one",
    "17",
    "17-soft-weighted",
    "empty",
    "all-19x10",
    "all-3x4x5x7",
    "none-19x10",
    "pos1x10-19x10",
    "sum-19x10",
)
CASES = [case for case in card.cases() if case.name in NAMES]
operator = torch.ops.hw4fast.bce_with_logits.default


def tensors(case, dtype=np.float32):
    """logits, target, then what the function takes by name."""
    logits, target, options = case.make(dtype)
    for name in ("weight", "pos_weight"):
        options[name] = torch.from_numpy(options[name]) if name in options else None
    return torch.from_numpy(logits).requires_grad_(), torch.from_numpy(target), options


def operator_arguments(options):
    """The operator's positional arguments after logits and target."""
    return options["weight"], options["pos_weight"], card.REDUCTIONS[options.get("reduction", "mean")]


def test_the_cases_are_there():
    assert len(CASES) == len(NAMES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loss_and_gradient_are_those_of_torch(case):
    x, y, options = tensors(case)
    before = x.detach().clone()
    ours = hn.binary_cross_entropy_with_logits(x, y, **options)
    seed = torch.rand_like(ours) + 0.5
    (grad,) = torch.autograd.grad(ours, x, seed)
    theirs = F.binary_cross_entropy_with_logits(x, y, **options)
    (grad_torch,) = torch.autograd.grad(theirs, x, seed)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad, grad_torch, rtol=1e-5, atol=1e-6)
    assert torch.equal(x.detach(), before)
    module = hn.BinaryCrossEntropyWithLogits(**options)
    assert torch.equal(module(x, y), ours)
    given = {name for name in ("weight", "pos_weight") if options[name] is not None}
    assert module.state_dict().keys() == torch.nn.BCEWithLogitsLoss(**options).state_dict().keys() == given


@pytest.mark.parametrize("case", [case for case in CASES if case.name != "empty"], ids=lambda case: case.name)
def test_gradcheck_in_float64(case):
    x, y, options = tensors(case, np.float64)
    assert torch.autograd.gradcheck(lambda x: hn.binary_cross_entropy_with_logits(x, y, **options), (x,))
    arguments = operator_arguments(options)
    assert torch.autograd.gradcheck(lambda x: operator(x, y, *arguments)[0], (x,))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_opcheck(case):
    x, y, options = tensors(case)
    arguments = operator_arguments(options)
    torch.library.opcheck(operator, (x, y, *arguments))
    torch.library.opcheck(operator, (x.detach(), y, *arguments, False))


@pytest.mark.parametrize("form", ["function", "module"])
def test_compile_with_weights_and_no_reduction(form):
    x, y, weight = torch.randn(3, 4, 5, requires_grad=True), torch.rand(3, 4, 5), torch.rand(4, 5)
    options = {"weight": weight[0], "pos_weight": weight, "reduction": "none"}
    if form == "module":
        loss_of = hn.BinaryCrossEntropyWithLogits(**options)
    else:

        def loss_of(x, y):
            return hn.binary_cross_entropy_with_logits(x, y, **options)

    loss = torch.compile(loss_of, fullgraph=True)(x, y)
    want = F.binary_cross_entropy_with_logits(x, y, **options)
    torch.testing.assert_close(loss, want)
    seed = torch.rand_like(loss)
    torch.testing.assert_close(torch.autograd.grad(loss, x, seed), torch.autograd.grad(want, x, seed))


def test_strided_logits_targets_and_weights():
    base, weight = torch.rand(20, 40), torch.rand(26)[::2] + 0.1
    y = base[10:, 13:26]
    for x in (base[::2, 3:16], base[:10, ::3][:, :13], base[:13, :10].t(), base[:1, :13].expand(10, 13)):
        for weights in ((weight, weight), (y, None), (None, weight[:1]), (weight.expand(10, 13), weight[0])):
            options = dict(zip(("weight", "pos_weight"), weights, strict=True))
            got = hn.binary_cross_entropy_with_logits(x, y, **options)
            torch.testing.assert_close(got, F.binary_cross_entropy_with_logits(x, y, **options))


BAD = [
    ({"input": torch.zeros(3)}, ValueError, "target must be"),
    ({"input": torch.zeros(2, 3, dtype=torch.bfloat16)}, TypeError, "float32 or float64"),
    ({"input": torch.zeros(2, 3, device="meta")}, NotImplementedError, "kernels? only.*meta"),
    ({"target": torch.zeros(2)}, ValueError, "target must be"),
    ({"target": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "target must be torch.float32"),
    ({"target": torch.zeros(2, 3, device="meta")}, NotImplementedError, "kernels? only.*meta"),
    ({"target": torch.zeros(2, 3, requires_grad=True)}, ValueError, "target must not require a gradient"),
    ({"weight": torch.ones(3, requires_grad=True)}, ValueError, "weight must not require a gradient"),
    ({"weight": torch.ones(2, 1)}, ValueError, r"weight must have the shape of the last.*not be \[2, 1\]: expand"),
    ({"weight": torch.ones(3, dtype=torch.float64)}, TypeError, "weight must be"),
    ({"pos_weight": torch.ones(2)}, ValueError, "pos_weight must have"),
    ({"pos_weight": torch.ones(3, device="meta")}, NotImplementedError, "kernels? only.*meta"),
    ({"input": torch.zeros(2, 3).to_sparse()}, NotImplementedError, "no torch.sparse_coo tensors.*to_dense"),
    ({"reduction": "median"}, ValueError, "reduction"),
]


@pytest.mark.parametrize(("change", "kind", "message"), BAD)
def test_bad_input_raises(change, kind, message):
    with pytest.raises(kind, match=message):
        hn.binary_cross_entropy_with_logits(**{"input": torch.zeros(2, 3), "target": torch.zeros(2, 3), **change})


def test_a_target_that_requires_a_gradient_is_welcome_where_none_is_taken():
    x, y = torch.randn(2, 3), torch.rand(2, 3, requires_grad=True)
    with torch.no_grad():
        torch.testing.assert_close(hn.binary_cross_entropy_with_logits(x, y), F.binary_cross_entropy_with_logits(x, y))


@pytest.mark.parametrize(("change", "kind"), [(change, kind) for change, kind, _ in BAD if "input" not in change])
def test_the_operator_itself_refuses_what_would_crash(change, kind):
    if "reduction" in change:
        change = {"reduction": 7}
    with pytest.raises(RuntimeError if kind is NotImplementedError else kind):
        operator(**{"logits": torch.zeros(2, 3), "target": torch.zeros(2, 3), **change})
    with pytest.raises(TypeError):
        operator(torch.zeros(2, 3, dtype=torch.float16), torch.zeros(2, 3, dtype=torch.float16))
