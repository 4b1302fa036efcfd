"""The NumPy face of conv_block and its gradients, on every instruction set that this machine has."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hw4fast import kernels
from hw4fast.kernels import conv_block as card
from tests.kernels.arrays import misaligned
from tests.kernels.comparing import error

CASES = list(card.cases())
NAMED = {case.name: case for case in CASES}
ISAS = kernels.isas()
GRADIENTS = ("input", "weight", "bias")


def torch_result(arrays, options, grad):
    """torch's output and gradients, in the dtype of the input."""
    input, weight, bias = (None if a is None else torch.from_numpy(a.copy()).requires_grad_() for a in arrays)
    y = F.conv2d(input, weight, bias, options["stride"], options["padding"], groups=options["groups"])
    y = F.relu(y) if options["relu"] else y
    y = F.max_pool2d(y, 2) if options["pool"] else y
    y.backward(torch.from_numpy(grad.astype(y.detach().numpy().dtype)))
    bias_grad = grad.sum((0, 2, 3)) if bias is None else bias.grad.numpy()
    return y.detach().numpy(), (input.grad.numpy(), weight.grad.numpy(), bias_grad)


def grad_for(case, dtype=np.float32):
    input, weight, _, options = case.make(dtype)
    shape = card.output_shape(input.shape, weight.shape, options["stride"], options["padding"], options["pool"])
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def backward_options(options):
    return {name: value for name, value in options.items() if name != "relu"}


@lru_cache(1)  # a case's instruction sets follow each other
def reference_of(name, dtype):
    *arrays, options = NAMED[name].make(dtype)
    return card.reference(*arrays, **options)


@lru_cache(1)
def gradients_of(name, dtype, code):
    """code: bytes of our own: where two of the four differ by a rounding, either may be the maximum."""
    input, weight, _, options = NAMED[name].make(dtype)
    grad = grad_for(NAMED[name], dtype)
    n, o, rows, columns = grad.shape
    codes = np.frombuffer(code, np.uint8).reshape(n, rows, columns, o)
    return card.reference_backward(grad, codes, input, weight, **backward_options(options))


def assert_close(mine, theirs, reference, what):
    """Error at most twice torch's own, and two units in the last place (2·eps) of the largest value more."""
    largest = float(np.max(np.abs(reference), initial=0.0))
    assert error(mine, reference) <= 2 * error(theirs, reference) + 2 * np.finfo(np.float32).eps * largest, what


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_float32_error_is_within_twice_torchs(case, isa):
    *arrays, options = case.make()
    before = [None if array is None else array.copy() for array in arrays]
    grad = grad_for(case)
    output, code = card.conv_block(*arrays, **options, isa=isa)
    gradients = card.conv_block_backward(grad, code, *arrays[:2], **options, isa=isa)
    reference, _ = reference_of(case.name, np.float32)
    theirs, their_gradients = torch_result(arrays, options, grad)
    assert_close(output, theirs, reference, "output")
    wanted = gradients_of(case.name, np.float32, code.tobytes())
    for name, mine, other, value in zip(GRADIENTS, gradients, their_gradients, wanted, strict=True):
        assert_close(mine, other, value, name)
    for array, copy in zip(arrays, before, strict=True):
        assert array is None or np.array_equal(array, copy)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_float64_matches_the_reference(case, isa):
    *arrays, options = case.make(np.float64)
    grad = grad_for(case, np.float64)
    output, code = card.conv_block(*arrays, **options, isa=isa)
    gradients = card.conv_block_backward(grad, code, *arrays[:2], **options, isa=isa)
    reference, code_reference = reference_of(case.name, np.float64)
    np.testing.assert_allclose(output, reference, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(code, code_reference)
    wanted = gradients_of(case.name, np.float64, code.tobytes())
    for name, mine, value in zip(GRADIENTS, gradients, wanted, strict=True):
        np.testing.assert_allclose(mine, value, rtol=1e-11, atol=1e-12, err_msg=name)


def test_the_references_agree_with_torch_in_float64():
    for case in CASES:
        *arrays, options = case.make(np.float64)
        grad = grad_for(case, np.float64)
        output, gradients = torch_result(arrays, options, grad)
        reference, code = card.reference(*arrays, **options)
        np.testing.assert_allclose(reference, output, rtol=1e-11, atol=1e-12, err_msg=case.name)
        wanted = card.reference_backward(grad, code, *arrays[:2], **backward_options(options))
        if arrays[2] is None:
            gradients, wanted = gradients[:2], wanted[:2]
        for mine, value in zip(gradients, wanted, strict=True):
            np.testing.assert_allclose(mine, value, rtol=1e-10, atol=1e-12, err_msg=case.name)


@pytest.mark.parametrize(
    ("shape", "filters"),
    [
        ((3, 2, 8, 10), (5, 5, 5)),
        ((2, 1, 28, 28), (16, 5, 5)),
        ((4, 16, 14, 14), (32, 3, 3)),
        ((2, 3, 9, 7), (4, 3, 5)),
        ((1, 5, 2, 2), (1, 1, 1)),
    ],
    ids=str,
)
def test_the_numba_variants_match_the_references(shape, filters):
    case = card.Case("numba", shape, filters, padding=(filters[1] // 2, filters[2] // 2))
    input, weight, bias, options = case.make()
    reference, code = card.reference(input, weight, bias, **options)
    np.testing.assert_allclose(card.conv_block_numba(input, weight, bias), reference, atol=1e-5)
    grad = grad_for(case)
    wanted = card.reference_backward(grad, code, input, weight, **backward_options(options))
    gradients = card.conv_block_backward_numba(grad, code, input, weight)
    for name, mine, value in zip(GRADIENTS, gradients, wanted, strict=True):
        np.testing.assert_allclose(mine, value, rtol=0, atol=1e-5 * max(1, np.abs(value).max()), err_msg=name)


def test_the_numba_variants_refuse_what_would_lead_out_of_an_array():
    input, weight, bias, _ = card.Case("numba", (2, 3, 8, 8), (4, 3, 3)).make()
    grad, code = np.zeros((2, 4, 4, 4), np.float32), np.zeros((2, 4, 4, 4), np.uint8)
    for arguments, kind, message in (
        ((input, weight, None), ValueError, "needs a bias"),
        ((input, weight, bias[:3]), ValueError, "bias must be"),
        ((input, weight[:, :2], bias), ValueError, "weight must be"),
        ((input[0], weight, bias), ValueError, "input must be"),
        ((input, weight[:, :, :, :2], bias), ValueError, "odd kernel sizes"),
        ((input, weight, bias.astype(np.float64)), TypeError, "bias must be"),
    ):
        with pytest.raises(kind, match=message):
            card.conv_block_numba(*arguments)
    for arguments, kind, message in (
        ((grad[:1], code, input, weight), ValueError, "grad must be"),
        ((grad, code[:, :3], input, weight), ValueError, "code must be"),
        ((grad, code.astype(np.int8), input, weight), TypeError, "code uint8"),
        ((grad, code, input, weight[:, :2]), ValueError, "weight must be"),
    ):
        with pytest.raises(kind, match=message):
            card.conv_block_backward_numba(*arguments)


@pytest.mark.parametrize("isa", ISAS)
def test_the_forced_variant_is_the_one_that_ran(isa):
    *arrays, options = CASES[0].make()
    before = kernels.calls()
    _, code = card.variants()[f"cpp-{isa}"](*arrays, **options)
    card.conv_block_backward(grad_for(CASES[0]), code, *arrays[:2], **options, isa=isa)
    after = kernels.calls()
    for name in ("conv_block", "conv_block_backward"):
        assert {i: after[name][i] - before[name][i] for i in ISAS} == {i: int(i == isa) for i in ISAS}


def test_an_unknown_instruction_set_raises():
    *arrays, options = CASES[0].make()
    with pytest.raises(ValueError, match="'sse9' is not to be had here"):
        card.conv_block(*arrays, **options, isa="sse9")


@pytest.mark.parametrize(
    "name",
    ["relu-pool-channels_last-bias", "tall", "stride(2, 2)-pool", "c33-o48-k5", "depthwise-c33", "depthwise-k4"],
)
def test_the_result_does_not_depend_on_the_number_of_threads(name):
    (case,) = [case for case in CASES if case.name == name]
    *arrays, options = case.make()
    grad = grad_for(case)

    def run(threads):
        output, code = card.conv_block(*arrays, **options, threads=threads)
        return output, code, *card.conv_block_backward(grad, code, *arrays[:2], **options, threads=threads)

    one = run(1)
    for threads in (2, 3, 7):
        assert all(np.array_equal(a, b) for a, b in zip(one, run(threads), strict=True))


@pytest.mark.parametrize("isa", ISAS)
def test_any_strides_are_read_where_they_lie(isa):
    *arrays, options = card.Case("whole", (4, 6, 9, 20), (5, 3, 3), padding=(1, 1)).make()
    input, weight, bias = arrays
    views = {
        "reversed": np.ascontiguousarray(input[::-1, :, ::-1])[::-1, :, ::-1],
        "every second": np.repeat(np.repeat(input, 2, axis=1), 2, axis=3)[:, ::2, :, ::2],
        "width first": np.ascontiguousarray(input.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0),
        "misaligned": misaligned(input),
    }
    grad = grad_for(card.Case("whole", (4, 6, 9, 20), (5, 3, 3), padding=(1, 1)))
    output, code = card.conv_block(*arrays, **options, isa=isa)
    gradients = card.conv_block_backward(grad, code, input, weight, **options, isa=isa)
    for name, view in views.items():
        assert np.array_equal(view, input)
        again, code_again = card.conv_block(view, weight, bias, **options, isa=isa)
        assert np.array_equal(output, again) and np.array_equal(code, code_again), name
        turned = np.ascontiguousarray(grad.transpose(2, 3, 0, 1)).transpose(2, 3, 0, 1)
        for a, b in zip(
            gradients, card.conv_block_backward(turned, code, view, weight, **options, isa=isa), strict=True
        ):
            assert np.array_equal(a, b), name


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("pool", [False, True])
def test_not_a_number_stays_where_it_can_be_seen(pool, isa):
    """In the output exactly where torch has one; a NaN of the gradient stays within its own patch."""
    *arrays, options = card.Case("nan", (2, 3, 12, 12), (5, 3, 3), padding=(1, 1), pool=pool).make()
    arrays[0][0, 1, 4, 5] = np.nan
    arrays[0][1, 2, 8, 8] = np.inf
    output, code = card.conv_block(*arrays, **options, isa=isa)
    theirs, _ = torch_result(arrays, options, np.zeros(output.shape, np.float32))
    np.testing.assert_array_equal(np.isnan(output), np.isnan(theirs))
    np.testing.assert_array_equal(np.isinf(output), np.isinf(theirs))
    assert np.isnan(output).any() and not np.isnan(output).all()
    grad = np.ones(output.shape, np.float32)
    grad[0, 2, 1, 1] = np.nan
    code[0, 1, 1, 2] = 0
    input = np.nan_to_num(arrays[0], posinf=0)
    found = np.argwhere(np.isnan(card.conv_block_backward(grad, code, input, arrays[1], **options, isa=isa)[0]))
    side = 2 if pool else 1
    assert len(found) and set(found[:, 0]) == {0}
    assert (found[:, 2:] >= side - 1).all() and (found[:, 2:] <= side + 1).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", [case for case in card.cases() if case.name.startswith("fft-")], ids=lambda c: c.name)
def test_fourier_transforms_err_less_than_torch(case, isa):
    """Winograd's algorithm doesn't: these are the cases that go their way."""
    *arrays, options = case.make()
    output, _ = card.conv_block(*arrays, **options, isa=isa)
    theirs, _ = torch_result(arrays, options, np.zeros(output.shape, np.float32))
    reference, _ = card.reference(*(None if a is None else a.astype(np.float64) for a in arrays), **options)
    assert error(output, reference) <= 0.8 * error(theirs, reference)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("pool", [False, True])
def test_what_is_not_finite_is_where_torch_has_it_by_fourier_transforms(pool, isa):
    """A spectrum spreads it over a whole tile, and so it does what overflows on the way: such pictures are done again,
    the others are what they were."""
    *arrays, options = card.Case("nan", (20, 8, 14, 14), (9, 5, 5), padding=(2, 2), relu=False, pool=pool).make()
    clean, _ = card.conv_block(*arrays, **options, isa=isa)
    for picture, value in ((3, np.nan), (4, np.inf), (5, -np.inf)):
        arrays[0][picture, 2, 6, 7] = value
    arrays[0][17, 2] = 3e38  # their sum, which a spectrum begins with, overflows
    output, _ = card.conv_block(*arrays, **options, isa=isa)
    theirs, _ = torch_result(arrays, options, np.zeros(output.shape, np.float32))
    for same in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(same(output), same(theirs))
    assert np.isfinite(output[17]).all() and not np.isfinite(output[3:6]).all()
    assert np.abs(output[17] - theirs[17]).max() <= 1e-5 * np.abs(theirs[17]).max()
    others = [i for i in range(20) if i not in (3, 4, 5, 17)]
    assert np.array_equal(output[others], clean[others])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("k", [3, 5])
def test_not_a_number_reaches_its_own_tiles_only_in_winograds_algorithm(k, isa):
    case = card.Case("nan", (1, 8, 16, 16), (8, k, k), padding=(k // 2, k // 2), relu=False, pool=False)
    *arrays, options = case.make()
    clean = card.conv_block(*arrays, **options, isa=isa)[0]
    arrays[0][0, 3, 7, 8] = np.inf
    output = card.conv_block(*arrays, **options, isa=isa)[0]
    seen = np.zeros((16, 16), bool)
    seen[7 - k // 2 : 8 + k // 2, 8 - k // 2 : 9 + k // 2] = True
    tiles = seen.reshape(8, 2, 8, 2).any((1, 3)).repeat(2, 0).repeat(2, 1)
    assert not np.isfinite(output[:, :, seen]).any()
    assert np.array_equal(output[:, :, ~tiles], clean[:, :, ~tiles])


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"input": np.zeros((3, 8, 8), np.float32)}, ValueError, "input must be"),
        ({"groups": 2}, ValueError, "groups must be 1 or the 3 channels"),
        ({"groups": 0}, ValueError, "groups must be 1 or the 3 channels"),
        ({"groups": 3}, ValueError, r"weight must be \[3, 1, kh, kw\]"),
        ({"groups": 3, "weight": np.zeros((6, 1, 3, 3), np.float32)}, ValueError, "weight must be 3 filters"),
        ({"input": np.zeros((2, 4, 8, 8), np.float32)}, ValueError, "weight must be"),
        ({"input": np.zeros((2, 3, 8, 8), np.float16)}, TypeError, "float32 or float64"),
        ({"input": np.zeros((2, 3, 8, 8), ">f4")}, TypeError, "float32 or float64"),
        ({"input": np.zeros((2, 3, 1, 8), np.float32)}, ValueError, "too small"),
        ({"input": np.zeros((2, 3, 3, 8), np.float32)}, ValueError, "too small"),
        ({"weight": np.zeros((4, 3, 3), np.float32)}, ValueError, "weight must be"),
        ({"weight": np.zeros((4, 3, 8, 3), np.float32)}, ValueError, "kernel sizes"),
        ({"weight": np.zeros((4, 3, 3, 0), np.float32)}, ValueError, "kernel sizes"),
        ({"weight": np.zeros((0, 3, 3, 3), np.float32)}, ValueError, "weight must be"),
        ({"weight": np.zeros((4, 3, 3, 3), np.float64)}, TypeError, "weight must be float32"),
        ({"bias": np.zeros(3, np.float32)}, ValueError, "bias must be"),
        ({"bias": np.zeros(4, np.float64)}, TypeError, "must be float32"),
        ({"stride": (0, 1)}, ValueError, "stride"),
        ({"padding": (0, -1)}, ValueError, "padding"),
    ],
)
def test_bad_input_raises(change, kind, message):
    arguments = {
        "input": np.zeros((2, 3, 8, 8), np.float32),
        "weight": np.zeros((4, 3, 3, 3), np.float32),
        "bias": np.zeros(4, np.float32),
        **change,
    }
    with pytest.raises(kind, match=message):
        card.conv_block(**arguments)


def test_a_gradient_or_code_that_does_not_fit_raises():
    input, weight, _, options = CASES[0].make()
    _, code = card.conv_block(input, weight, None, **options)
    grad = grad_for(CASES[0])
    with pytest.raises(ValueError, match="grad must be"):
        card.conv_block_backward(grad[:, :, :1], code, input, weight, **options)
    with pytest.raises(ValueError, match="code must be"):
        card.conv_block_backward(grad, code[:, :1], input, weight, **options)
    with pytest.raises(TypeError, match="must be float32"):
        card.conv_block_backward(grad.astype(np.float64), code, input, weight, **options)


@pytest.mark.parametrize(("pool", "number"), [(True, 5), (True, 255), (False, 1), (False, 3), (False, 5)])
def test_a_code_that_no_forward_pass_writes_raises(pool, number):
    """It would lead out of the picture."""
    case = card.Case("code", (2, 3, 8, 8), (4, 3, 3), padding=(1, 1), pool=pool)
    input, weight, _, options = case.make()
    _, code = card.conv_block(input, weight, None, **options)
    code[-1, -1, -1, -1] = number
    with pytest.raises(ValueError, match="code holds numbers"):
        card.conv_block_backward(grad_for(case), code, input, weight, **options)


@settings(max_examples=500, deadline=None)
@given(
    n=st.integers(0, 4),
    c=st.integers(1, 20),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    o=st.integers(1, 40),
    kernel=st.sampled_from(((3, 3), (5, 5))) | st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.just((1, 1)) | st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    relu=st.booleans(),
    pool=st.booleans(),
    bias=st.booleans(),
    channels_last=st.booleans(),
    isa=st.sampled_from(ISAS),
    double=st.booleans(),
    depthwise=st.booleans(),
)
def test_random_shapes_and_options(
    n, c, height, width, o, kernel, stride, padding, relu, pool, bias, channels_last, isa, double, depthwise
):
    o, groups = (c, c) if depthwise else (o, 1)
    shape, filters = (n, c, height, width), (o, *kernel)
    case = card.Case("random", shape, filters, stride, padding, relu, pool, bias, channels_last, groups)
    dtype = np.float64 if double else np.float32
    *arrays, options = case.make(dtype)
    if min(card.output_shape(arrays[0].shape, arrays[1].shape, stride, padding, pool)[2:]) < 1:
        with pytest.raises(ValueError, match="too small"):
            card.conv_block(*arrays, **options, isa=isa)
        return
    grad = grad_for(case, dtype)
    output, code = card.conv_block(*arrays, **options, isa=isa)
    reference, _ = card.reference(*arrays, **options)
    tolerance = 1e-12 if double else 1e-5
    np.testing.assert_allclose(output, reference, atol=tolerance * max(1, np.abs(reference).max(initial=0)))
    wanted = card.reference_backward(grad, code, *arrays[:2], **backward_options(options))
    gradients = card.conv_block_backward(grad, code, *arrays[:2], **options, isa=isa)
    for name, mine, value in zip(GRADIENTS, gradients, wanted, strict=True):
        np.testing.assert_allclose(
            mine, value, atol=tolerance * max(1, np.abs(value).max(initial=0)), rtol=0, err_msg=name
        )
