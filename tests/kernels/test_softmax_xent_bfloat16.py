"""softmax_xent of bfloat16 logits through the NumPy face, on every instruction set that this machine has."""

import numpy as np
import pytest
import torch
from ml_dtypes import bfloat16  # onnx brings it

from hw4fast import kernels
from hw4fast.kernels import softmax_xent as card
from tests.kernels.comparing import error

CASES = list(card.cases())
ISAS = kernels.isas()
HALF_UNIT = 2.0**-8  # the largest relative error of one rounding to eight bits
EPS = 2.0**-7


def torch_result(logits, target, options):
    """torch's own loss and gradient from bfloat16 to bfloat16, as float64."""
    options = dict(options)
    scale = options.pop("scale", 1.0)
    weight = options.pop("weight", None)
    if weight is not None:
        weight = torch.from_numpy(weight.astype(np.float32)).bfloat16()
    x = torch.from_numpy(logits.astype(np.float32)).bfloat16().requires_grad_()
    loss = torch.nn.functional.cross_entropy(x * scale, torch.from_numpy(target), weight, **options)
    loss.sum().backward()
    return loss.detach().double().numpy(), x.grad.double().numpy()


def largest(values):
    return float(np.max(np.abs(values), initial=0.0))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_computed_in_float32_and_rounded_once(case, isa):
    logits, target, options = case.make(bfloat16)
    before = logits.copy()
    loss_ref, grad_ref = card.reference(logits, target, **options)
    loss, grad = card.softmax_xent(logits, target, isa=isa, **options)
    assert loss.dtype == grad.dtype == bfloat16
    assert np.array_equal(logits, before)
    for mine, reference, other in zip(
        (loss, grad), (loss_ref, grad_ref), torch_result(logits, target, options), strict=True
    ):
        assert error(mine, reference) <= 2 * error(other, reference) + EPS * largest(reference)
        float32 = 2e-6 * max(largest(reference), 1.0 if mine is loss else 0.0)  # before that rounding
        np.testing.assert_array_less(
            np.abs(mine.astype(np.float64) - reference), HALF_UNIT * np.abs(reference) + float32 + 1e-300
        )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("classes", [3, 10, 40, 1000])
def test_infinities_and_nan_like_torch(classes, isa):
    logits = np.random.default_rng(0).standard_normal((6, classes)).astype(bfloat16)
    logits[0, 1] = np.nan
    logits[1, 2] = np.inf
    logits[2, 0] = -np.inf
    logits[3, :] = -np.inf
    logits.view(np.uint16)[4, 0] = 0x7FFF  # the NaN whose bits a carry would turn into −0
    logits.view(np.uint16)[5, 1] = 0x7F81  # and one that has only a low bit
    target = np.array([0, 2, 0, 1, 1, 1])
    loss, grad = card.softmax_xent(logits, target, isa=isa, reduction="none")
    loss_torch, grad_torch = torch_result(logits, target, {"reduction": "none"})
    np.testing.assert_allclose(loss.astype(np.float64), loss_torch, rtol=2 * EPS)
    np.testing.assert_allclose(grad.astype(np.float64), grad_torch, rtol=4 * EPS, atol=EPS)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("classes", [10, 33, 1000])
def test_ties_go_to_the_even_neighbour(classes, isa):
    """A gradient of exactly `scale`: the row's whole probability sits on a class that is not the target."""
    logits = np.full((1, classes), -1e4, bfloat16)
    logits[0, 1] = 0
    for value in (
        1 + 2.0**-8,
        1 + 3 * 2.0**-8,
        1 + 2.0**-8 + 2.0**-20,
        1 + 2.0**-8 - 2.0**-20,
        255.5,
        256.5,
    ):
        _, grad = card.softmax_xent(logits, np.zeros(1, np.int64), scale=value, isa=isa)
        assert grad[0, 1] == np.float32(value).astype(bfloat16), value
        assert grad[0, 0] == -grad[0, 1] and not grad[0, 2:].any()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("classes", [10, 100])
def test_strided_misaligned_and_transposed_inputs(classes, isa):
    base = np.random.default_rng(0).standard_normal((20, 240)).astype(bfloat16)
    target = np.random.default_rng(1).integers(0, classes, 10)
    raw = np.frombuffer(b"\0" + base[:10, :classes].tobytes(), np.uint8)[1:]
    views = {
        "rows": base[::2, 5 : 5 + classes],
        "columns": base[:10, 1 : 1 + 2 * classes : 2],
        "transposed": np.asfortranarray(base[:10, :classes]),
        "misaligned": raw.view(bfloat16).reshape(10, classes),
        "backwards": base[9::-1, :classes],
        "broadcast": np.broadcast_to(base[0, :classes], (10, classes)),
    }
    for name, view in views.items():
        want = card.softmax_xent(np.ascontiguousarray(view), target, isa=isa)
        got = card.softmax_xent(view, target, isa=isa)
        assert np.array_equal(want[0], got[0]), name
        assert np.array_equal(want[1], got[1]), name


@pytest.mark.parametrize("shape", [(4099, 101), (3000, 10), (7, 32003)])
def test_the_result_does_not_depend_on_the_number_of_threads(shape):
    logits, target, _ = card.Case("threads", shape).make(bfloat16)
    one = card.softmax_xent(logits, target, threads=1)
    for threads in (2, 3, 7):
        many = card.softmax_xent(logits, target, threads=threads)
        assert np.array_equal(one[0], many[0])
        assert np.array_equal(one[1], many[1])


def test_weights_of_another_dtype_raise():
    logits, target, _ = card.Case("any", (5, 10)).make(bfloat16)
    with pytest.raises(TypeError, match="weight must be bfloat16"):
        card.softmax_xent(logits, target, np.ones(10, np.float32))
