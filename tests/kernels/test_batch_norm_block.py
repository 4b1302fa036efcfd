"""The NumPy face of batch_norm_block and its gradients, on every instruction set that this machine has."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hw4fast import kernels
from hw4fast.kernels import batch_norm_block as card
from tests.kernels.arrays import misaligned
from tests.kernels.comparing import error

CASES = list(card.cases())
ISAS = kernels.isas()
GRADIENTS = ("input", "weight", "bias")


def torch_result(arrays, options, grad):
    """torch's output and gradients, in the dtype of the input."""
    input, weight, bias = (torch.from_numpy(array.copy()).requires_grad_() for array in arrays)
    mean, var = (torch.from_numpy(options[name]) if name in options else None for name in ("mean", "var"))
    y = F.batch_norm(input, mean, var, weight, bias, mean is None, eps=options["eps"])
    y = F.relu(y) if options["relu"] else y
    y = F.max_pool2d(y, 2) if options["pool"] else y
    y.backward(torch.from_numpy(grad.astype(y.detach().numpy().dtype)))
    return y.detach().numpy(), (input.grad.numpy(), weight.grad.numpy(), bias.grad.numpy())


def forward_and_backward(arrays, options, isa="", threads=0):
    output, code, mean, var = card.batch_norm_block(*arrays, **options, isa=isa, threads=threads)
    grad = grad_like(output)
    rest = ("mean" not in options, options["eps"], options["pool"])
    gradients = card.batch_norm_block_backward(grad, code, *arrays[:2], mean, var, *rest, isa=isa, threads=threads)
    wanted = card.reference_backward(grad, code, *arrays[:2], mean, var, *rest)
    return output, code, mean, var, grad, gradients, wanted


def grad_like(output):
    return np.random.default_rng(1).standard_normal(output.shape).astype(output.dtype)


def assert_close(mine, theirs, reference, what):
    """Error at most twice torch's own, and two units in the last place (2·eps) of the largest value more."""
    largest = float(np.max(np.abs(reference), initial=0.0))
    assert error(mine, reference) <= 2 * error(theirs, reference) + 2 * np.finfo(np.float32).eps * largest, what


def clear(arrays, options):
    """[n, c, rows, cols]: where float32 can't mistake another of the four for the maximum, nor the sign before ReLU."""
    whole, *_ = card.reference(*arrays, **{**options, "relu": False, "pool": False})
    doubt = 1e-4 * (1 + np.abs(whole).max(initial=0))
    if not options["pool"]:
        return np.abs(whole) > doubt
    n, c, h, w = whole.shape
    four = whole[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2)
    four = np.sort(four.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4), axis=-1)
    return (four[..., 3] - four[..., 2] > doubt) & (np.abs(four[..., 3]) > doubt)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_float32_error_is_within_twice_torchs(case, isa):
    """Nothing of the reference comes from our kernel. Gradients that another maximum would send elsewhere are 0."""
    *arrays, options = case.make()
    before = [array.copy() for array in (*arrays, *(options[name] for name in ("mean", "var") if case.given))]
    reference, true_code, *statistics = card.reference(*arrays, **options)
    sure = clear(arrays, options)
    assert sure.size == 0 or sure.mean() > 0.9
    grad = np.where(sure, grad_like(reference), 0).astype(np.float32)
    output, code, mean, var = card.batch_norm_block(*arrays, **options, isa=isa)
    assert np.array_equal(code.transpose(0, 3, 1, 2)[sure], true_code.transpose(0, 3, 1, 2)[sure])
    theirs, their_gradients = torch_result(arrays, options, grad)
    assert_close(output, theirs, reference, "output")
    for mine, exact in zip((mean, var), statistics, strict=True):
        np.testing.assert_allclose(mine, exact, rtol=2e-7, atol=1e-9)
    rest = ("mean" not in options, options["eps"], options["pool"])
    gradients = card.batch_norm_block_backward(grad, code, *arrays[:2], mean, var, *rest, isa=isa)
    wanted = card.reference_backward(grad, true_code, *arrays[:2], *statistics, *rest)
    for name, mine, other, value in zip(GRADIENTS, gradients, their_gradients, wanted, strict=True):
        assert_close(mine, other, value, name)
    after = (*arrays, *(options[name] for name in ("mean", "var") if case.given))
    assert all(np.array_equal(array, copy) for array, copy in zip(after, before, strict=True))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_float64_matches_the_reference(case, isa):
    *arrays, options = case.make(np.float64)
    output, code, mean, var, _, gradients, wanted = forward_and_backward(arrays, options, isa)
    reference, code_reference, *statistics = card.reference(*arrays, **options)
    loose = 1 + abs(case.offset)  # the reference itself subtracts two large numbers
    np.testing.assert_allclose(output, reference, rtol=1e-11 * loose, atol=1e-12 * loose)
    np.testing.assert_array_equal(code, code_reference)
    np.testing.assert_allclose((mean, var), statistics, rtol=1e-11 * loose, atol=1e-13)
    for name, mine, value in zip(GRADIENTS, gradients, wanted, strict=True):
        np.testing.assert_allclose(mine, value, rtol=1e-10 * loose, atol=1e-12 * loose, err_msg=name)


def test_the_references_agree_with_torch_in_float64():
    for case in CASES:
        *arrays, options = case.make(np.float64)
        reference, code, mean, var = card.reference(*arrays, **options)
        grad, loose = grad_like(reference), 1 + abs(case.offset)
        output, gradients = torch_result(arrays, options, grad)
        np.testing.assert_allclose(reference, output, rtol=1e-10 * loose, atol=1e-11 * loose, err_msg=case.name)
        rest = ("mean" not in options, options["eps"], options["pool"])
        wanted = card.reference_backward(grad, code, *arrays[:2], mean, var, *rest)
        for mine, value in zip(gradients, wanted, strict=True):
            np.testing.assert_allclose(mine, value, rtol=1e-9 * loose, atol=1e-10 * loose, err_msg=case.name)


@pytest.mark.parametrize("shape", [(3, 5, 8, 10), (2, 1, 28, 28), (4, 16, 7, 5), (1, 3, 2, 2)], ids=str)
def test_the_numba_variants_match_the_references(shape):
    *arrays, _ = card.Case("numba", shape, offset=100.0).make()
    reference, code, mean, var = card.reference(*arrays)
    np.testing.assert_allclose(card.batch_norm_block_numba(*arrays), reference, atol=2e-5)
    grad, mean, var = grad_like(reference).astype(np.float32), mean.astype(np.float32), var.astype(np.float32)
    wanted = card.reference_backward(grad, code, *arrays[:2], mean, var)
    gradients = card.batch_norm_block_backward_numba(grad, code, *arrays[:2], mean, var)
    for name, mine, value in zip(GRADIENTS, gradients, wanted, strict=True):
        np.testing.assert_allclose(mine, value, rtol=0, atol=2e-5 * max(1, np.abs(value).max()), err_msg=name)


def test_the_numba_variants_refuse_what_would_lead_out_of_an_array():
    *arrays, _ = card.Case("numba", (2, 3, 6, 6)).make()
    output, code, mean, var = card.batch_norm_block(*arrays)
    with pytest.raises(ValueError, match="weight must be"):
        card.batch_norm_block_numba(arrays[0], arrays[1][:2], arrays[2])
    with pytest.raises(TypeError, match="float32"):
        card.batch_norm_block_numba(*(array.astype(np.float64) for array in arrays))
    for grad, codes, kind in (
        (output[:1], code, ValueError),
        (output, code[:1], ValueError),
        (output, code + 0.0, TypeError),
    ):
        with pytest.raises(kind):
            card.batch_norm_block_backward_numba(grad, codes, *arrays[:2], mean, var)


@pytest.mark.parametrize("isa", ISAS)
def test_the_forced_variant_is_the_one_that_ran(isa):
    *arrays, options = CASES[0].make()
    before = kernels.calls()
    _, code, mean, var = card.variants()[f"cpp-{isa}"](*arrays, **options)
    card.batch_norm_block_backward(
        grad_like(code.transpose(0, 3, 1, 2) + np.float32(0)), code, *arrays[:2], mean, var, isa=isa
    )
    after = kernels.calls()
    for name in ("batch_norm_block", "batch_norm_block_backward"):
        assert {i: after[name][i] - before[name][i] for i in ISAS} == {i: int(i == isa) for i in ISAS}


@pytest.mark.parametrize("name", ["threads", "threads-given", "threads-plain", "threads-wide"])
def test_the_result_does_not_depend_on_the_number_of_threads(name):
    (case,) = [case for case in CASES if case.name == name]
    *arrays, options = case.make()

    def run(threads):
        *forward, gradients, _ = forward_and_backward(arrays, options, threads=threads)
        return *forward, *gradients

    one = run(1)
    for threads in (2, 3, 7):
        assert all(np.array_equal(a, b) for a, b in zip(one, run(threads), strict=True))


@pytest.mark.parametrize("isa", ISAS)
def test_any_strides_are_read_where_they_lie(isa):
    *arrays, options = card.Case("whole", (4, 18, 9, 7), channels_last=False).make()
    input = arrays[0]
    wanted = forward_and_backward(arrays, options, isa)
    grad = wanted[4]
    for name, view in {
        "channels-last": np.ascontiguousarray(input.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "reversed": np.ascontiguousarray(input[::-1, :, ::-1])[::-1, :, ::-1],
        "every second": np.repeat(np.repeat(input, 2, axis=1), 2, axis=3)[:, ::2, :, ::2],
        "misaligned": misaligned(input),
    }.items():
        found = forward_and_backward([view, *arrays[1:]], options, isa)
        for mine, value in zip((*found[:4], *found[5]), (*wanted[:4], *wanted[5]), strict=True):
            assert np.array_equal(mine, value), name
    turned = np.ascontiguousarray(grad.transpose(2, 3, 0, 1)).transpose(2, 3, 0, 1)
    again = card.batch_norm_block_backward(turned, wanted[1], input, arrays[1], *wanted[2:4], isa=isa)
    assert all(np.array_equal(a, b) for a, b in zip(again, wanted[5], strict=True))


@pytest.mark.parametrize("isa", ISAS)
def test_not_a_number_stays_where_torch_has_it(isa):
    for has_mean in (False, True):
        *arrays, options = card.Case("nan", (2, 3, 6, 6), given=has_mean).make()
        arrays[0][0, 1, 2, 3] = np.nan
        arrays[0][1, 2, 4, 4] = np.inf
        output = card.batch_norm_block(*arrays, **options, isa=isa)[0]
        theirs, _ = torch_result(arrays, options, np.zeros(output.shape, np.float32))
        np.testing.assert_array_equal(np.isnan(output), np.isnan(theirs))
        np.testing.assert_array_equal(np.isinf(output), np.isinf(theirs))
        assert np.isnan(output).any()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"input": np.zeros((3, 8, 8), np.float32)}, ValueError, "input must be"),
        ({"input": np.zeros((2, 0, 8, 8), np.float32)}, ValueError, "input must be"),
        ({"input": np.zeros((2, 3, 8, 8), np.float16)}, TypeError, "float32 or float64"),
        ({"input": np.zeros((2, 3, 8, 8), ">f4")}, TypeError, "float32 or float64"),
        ({"input": np.zeros((2, 3, 1, 8), np.float32)}, ValueError, "too small for the pool"),
        ({"input": np.zeros((1, 3, 1, 1), np.float32), "pool": False}, ValueError, "no two values"),
        ({"input": np.zeros((0, 3, 4, 4), np.float32)}, ValueError, "no two values"),
        ({"weight": np.zeros(4, np.float32)}, ValueError, r"weight must be \[3\]"),
        ({"weight": np.zeros(3, np.float64)}, TypeError, "weight must be float32"),
        ({"bias": np.zeros((3, 1), np.float32)}, ValueError, "bias must be"),
        ({"mean": np.zeros(3, np.float32)}, ValueError, "mean and var go together"),
        ({"mean": np.zeros(3), "var": np.ones(3)}, TypeError, "mean must be float32"),
        ({"eps": -1e-5}, ValueError, "eps must be 0 or more"),
        ({"eps": float("nan")}, ValueError, "eps must be 0 or more"),
        ({"relu": 2}, ValueError, "relu must be True or False"),
        ({"pool": 3}, ValueError, "pool must be True or False"),
        ({"isa": "sse9"}, ValueError, "'sse9' is not to be had here"),
    ],
)
def test_bad_input_raises(change, kind, message):
    arguments = {
        "input": np.zeros((2, 3, 8, 8), np.float32),
        "weight": np.ones(3, np.float32),
        "bias": np.zeros(3, np.float32),
        **change,
    }
    with pytest.raises(kind, match=message):
        card.batch_norm_block(**arguments)


def test_a_gradient_or_code_that_does_not_fit_raises():
    *arrays, options = CASES[0].make()
    output, code, mean, var = card.batch_norm_block(*arrays, **options)
    for grad, codes, kind, message in (
        (output[:, :, :1], code, ValueError, "grad must be"),
        (output, code[:, :1], ValueError, "code must be"),
        (output.astype(np.float64), code, TypeError, "grad must be float32"),
        (output, code.astype(np.int32), TypeError, "code uint8"),
    ):
        with pytest.raises(kind, match=message):
            card.batch_norm_block_backward(grad, codes, *arrays[:2], mean, var)


@settings(max_examples=500, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 9), st.integers(1, 9)),
    relu=st.booleans(),
    pool=st.booleans(),
    has_mean=st.booleans(),
    channels_last=st.booleans(),
    isa=st.sampled_from(ISAS),
    double=st.booleans(),
)
def test_random_shapes_and_options(shape, relu, pool, has_mean, channels_last, isa, double):
    case = card.Case("random", shape, relu, pool, has_mean, channels_last)
    *arrays, options = case.make(np.float64 if double else np.float32)
    n, _, h, w = shape
    if (pool and min(h, w) < 2) or (not has_mean and n * h * w < 2):
        with pytest.raises(ValueError, match=r"too small|no two values"):
            card.batch_norm_block(*arrays, **options, isa=isa)
        return
    output, *_, gradients, wanted = forward_and_backward(arrays, options, isa)
    # of few values the variance may be next to nothing: what is divided by it is not compared further than that
    tolerance = (1e-11 if double else 2e-5) * max(
        1.0, (output.dtype.type(1e-5) + arrays[0].var((0, 2, 3))).min() ** -0.5
    )
    np.testing.assert_allclose(output, card.reference(*arrays, **options)[0], atol=tolerance * 10, rtol=tolerance)
    for name, mine, value in zip(GRADIENTS, gradients, wanted, strict=True):
        np.testing.assert_allclose(
            mine, value, atol=tolerance * max(1, np.abs(value).max(initial=0)) * 10, rtol=0, err_msg=name
        )
