"""The NumPy face of bce_with_logits, on every instruction set that this machine has."""

import hashlib
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hw4fast import kernels
from hw4fast.errors import UsageError
from hw4fast.kernels import bce_with_logits as card
from tests.kernels.comparing import calls_during, error

CASES = list(card.cases())
ISAS = kernels.isas()
EPS = float(np.finfo(np.float32).eps)


def torch_result(logits, target, options):
    """torch's own loss and gradient, in the dtype of `logits`."""
    weights = {name: torch.from_numpy(options[name]) for name in ("weight", "pos_weight") if name in options}
    x = torch.from_numpy(logits.copy()).requires_grad_()
    reduction = options.get("reduction", "mean")
    loss = F.binary_cross_entropy_with_logits(x, torch.from_numpy(target), **weights, reduction=reduction)
    loss.sum().backward()
    return loss.detach().numpy(), x.grad.numpy()


def largest(values):
    return float(np.max(np.abs(values), initial=0.0))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_float32_error_is_within_twice_torchs(case, isa):
    logits, target, options = case.make(np.float32)
    before = [array.copy() for array in (logits, target)]
    loss_ref, grad_ref = card.reference(logits, target, **options)
    loss, grad = card.bce_with_logits(logits, target, isa=isa, **options)
    loss_torch, grad_torch = torch_result(logits, target, options)
    assert loss.shape == loss_torch.shape and grad.shape == logits.shape and loss.dtype == grad.dtype == np.float32
    assert error(loss, loss_ref) <= 2 * error(loss_torch, loss_ref) + EPS * max(1.0, largest(loss_ref))
    assert error(grad, grad_ref) <= 2 * error(grad_torch, grad_ref) + EPS * largest(grad_ref)
    assert all(np.array_equal(array, copy) for array, copy in zip((logits, target), before, strict=True))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_float64_matches_the_reference(case, isa):
    logits, target, options = case.make(np.float64)
    loss_ref, grad_ref = card.reference(logits, target, **options)
    loss, grad = card.bce_with_logits(logits, target, isa=isa, **options)
    np.testing.assert_allclose(loss, loss_ref, rtol=1e-14, atol=1e-300)
    np.testing.assert_allclose(grad, grad_ref, rtol=1e-13, atol=1e-15 * largest(grad_ref))


def test_the_reference_agrees_with_torch_in_float64():
    for case in CASES:
        logits, target, options = case.make(np.float64)
        loss, grad = torch_result(logits, target, options)
        loss_ref, grad_ref = card.reference(logits, target, **options)
        np.testing.assert_allclose(loss_ref, loss, rtol=1e-12, atol=1e-13, err_msg=case.name)
        np.testing.assert_allclose(grad_ref, grad, rtol=1e-12, atol=1e-14, err_msg=case.name)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("dtype", "least", "units"), [(np.float32, -80.0, 40), (np.float64, -700.0, 4)])
def test_small_losses_keep_their_digits(dtype, least, units, isa):
    """The loss of a confident and right logit is about e^−|x|, and so is the gradient; torch's are 0 or rounded to
    units of 1. In units of the type's last digit; e^x itself is as exact as x·log₂e, which is off by |x|/2 of them."""
    x = np.linspace(least, 0, 10_007).astype(dtype)
    wide = x.astype(np.longdouble)
    for y, logits in ((0, x), (1, -x)):
        target = np.full_like(x, y)
        loss, grad = card.bce_with_logits(logits, target, reduction="none", isa=isa)
        np.testing.assert_allclose(loss, np.log1p(np.exp(wide)), rtol=units * float(np.finfo(dtype).eps))
        sigma = np.exp(wide) / (1 + np.exp(wide))
        np.testing.assert_allclose(grad, sigma if y == 0 else -sigma, rtol=units * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (33,), (37, 65), (3, 4, 5), (100, 1000)], ids=str)
def test_the_numba_variant_matches_the_reference(shape, soft):
    for size in (1.0, 30.0):
        logits, target, _ = card.Case("numba", shape, size=size, soft=soft).make()
        loss_ref, grad_ref = card.reference(logits, target)
        loss, grad = card.bce_with_logits_numba(logits, target)
        np.testing.assert_allclose(loss, loss_ref, rtol=2e-6, atol=1e-7 * max(1.0, largest(logits)))
        np.testing.assert_allclose(grad, grad_ref, rtol=1e-5, atol=4e-7 * max(largest(grad_ref), 1 / logits.size))


def test_the_numba_variant_refuses_what_would_lead_out_of_an_array():
    logits = np.zeros((2, 3), np.float32)
    for arguments, kind, message in (
        ((logits, logits[:1]), ValueError, "target must be"),
        ((logits[:0], logits[:0]), ValueError, "needs a logit"),
        ((logits, logits.astype(np.float64)), TypeError, "float32"),
    ):
        with pytest.raises(kind, match=message):
            card.bce_with_logits_numba(*arguments)


@pytest.mark.parametrize("isa", ISAS)
def test_the_forced_variant_is_the_one_that_ran(isa):
    logits, target, _ = card.Case("any", (5, 10)).make()
    ran = calls_during("bce_with_logits", lambda: card.variants()[f"cpp-{isa}"](logits, target))
    assert ran == {name: int(name == isa) for name in ran}


def test_an_unknown_instruction_set_raises():
    logits, target, _ = card.Case("any", (5, 10)).make()
    with pytest.raises(ValueError, match="'sse9' is not to be had here"):
        card.bce_with_logits(logits, target, isa="sse9")


THREADS = card.Case("threads", (1031, 101), weighted=(1031, 101), pos_weighted=(101,))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_result_does_not_depend_on_the_number_of_threads(reduction):
    logits, target, options = THREADS.make()
    one = card.bce_with_logits(logits, target, **options, reduction=reduction, threads=1)
    for threads in (2, 3, 7):
        many = card.bce_with_logits(logits, target, **options, reduction=reduction, threads=threads)
        assert np.array_equal(one[0], many[0])
        assert np.array_equal(one[1], many[1])


def test_threads_of_its_own_without_torch():
    """In a process without an OpenMP runtime the kernel starts plain threads; the bits are the same."""
    code = (
        "import sys, hashlib; from hw4fast.kernels import bce_with_logits as c;"
        "x, t, o = c.Case('threads', (1031, 101), weighted=(1031, 101), pos_weighted=(101,)).make();"
        "l, g = c.bce_with_logits(x, t, **o, threads=2); assert 'torch' not in sys.modules;"
        "print(hashlib.sha256(l.tobytes() + g.tobytes()).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    logits, target, options = THREADS.make()
    loss, grad = card.bce_with_logits(logits, target, **options)
    assert run.stdout.strip() == hashlib.sha256(loss.tobytes() + grad.tobytes()).hexdigest()


def test_a_long_sum_is_as_exact_as_a_short_one():
    """A million losses of 0.7: added one by one in float32 they would be off by thousandths."""
    logits, target, _ = card.Case("long", (1_000_003,), size=0.1).make()
    wanted, _ = card.reference(logits, target, reduction="sum")
    for isa in ISAS:
        np.testing.assert_allclose(card.bce_with_logits(logits, target, reduction="sum", isa=isa)[0], wanted, rtol=EPS)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pos_weight", [None, 2.0])
@pytest.mark.parametrize("repeats", [1, 7])
def test_infinities_and_nan_like_torch(repeats, pos_weight, dtype, isa):
    values = [np.inf, -np.inf, np.nan, 0.0, -0.0, 1e30, -1e30, 200.0, -200.0]
    grid = np.array([(x, y) for x in values for y in (0.0, 0.5, 1.0, np.nan)] * repeats, dtype)
    logits, target = np.ascontiguousarray(grid.T)
    logits.view(np.int32 if dtype == np.float32 else np.int64)[np.isnan(logits)] |= 0x123  # NaNs with a payload
    options = {"reduction": "none"}
    if pos_weight is not None:
        options["pos_weight"] = np.full(1, pos_weight, dtype)
    loss, grad = card.bce_with_logits(logits, target, isa=isa, **options)
    loss_torch, grad_torch = torch_result(logits, target, options)
    ours = np.isneginf(logits) & (target > 0)  # torch adds −∞·(1−y) and ∞
    assert np.isnan(loss_torch[ours]).all() and np.isposinf(loss[ours]).all()
    np.testing.assert_allclose(loss[~ours], loss_torch[~ours], rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(grad, grad_torch, rtol=1e-6, atol=1e-30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of 0·∞
        loss_ref, _ = card.reference(logits, target, **options)
    np.testing.assert_allclose(loss, loss_ref, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("isa", ISAS)
def test_strided_misaligned_and_transposed_inputs(isa):
    base = np.random.default_rng(0).uniform(size=(20, 80)).astype(np.float32)
    target = np.ascontiguousarray(base[10:, 40:73])
    raw = np.frombuffer(b"\0" + base[:10, :33].tobytes(), np.uint8)[1:]
    views = {
        "rows": base[::2, 5:38],
        "columns": base[:10, 1:67:2],
        "transposed": np.asfortranarray(base[:10, :33]),
        "misaligned": raw.view(np.float32).reshape(10, 33),
        "backwards": base[9::-1, :33],
        "broadcast": np.broadcast_to(base[0, :33], (10, 33)),
    }
    for name, view in views.items():
        plain = np.array(view, np.float32, order="C")
        for arguments, same in (
            ((view, target), (plain, target)),
            ((target, view), (target, plain)),
            ((target, target, view, view[3]), (target, target, plain, plain[3])),
        ):
            got, want = (card.bce_with_logits(*given, isa=isa) for given in (arguments, same))
            assert np.array_equal(want[0], got[0]), name
            assert np.array_equal(want[1], got[1]), name


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"logits": np.zeros((2, 3), np.float16)}, TypeError, "logits must be float32 or float64"),
        ({"logits": np.zeros((2, 3), ">f4")}, TypeError, "logits must be float32 or float64"),
        ({"logits": np.zeros((2, 3), np.int64)}, TypeError, "logits must be float32 or float64"),
        ({"logits": np.zeros((2, 4), np.float32)}, ValueError, r"target must be \[2, 4\]"),
        ({"target": np.zeros(3, np.float32)}, ValueError, "target must be"),
        ({"target": np.zeros((2, 1), np.float32)}, ValueError, "target must be"),
        ({"target": np.zeros((2, 3), np.int64)}, TypeError, "target must be float32"),
        ({"weight": np.ones(2, np.float32)}, ValueError, "weight must have the shape of the last"),
        ({"weight": np.ones((2, 1), np.float32)}, ValueError, r"not be \[2, 1\]: expand it"),
        ({"weight": np.ones(0, np.float32)}, ValueError, "weight must have"),
        ({"weight": np.ones((1, 2, 3), np.float32)}, ValueError, "weight must have"),
        ({"weight": np.ones(3, np.float64)}, TypeError, "weight must be float32"),
        ({"pos_weight": np.ones(6, np.float32)}, ValueError, "pos_weight must have"),
        ({"pos_weight": np.ones(3, np.int32)}, TypeError, "pos_weight must be float32"),
        ({"reduction": "median"}, ValueError, "reduction"),
    ],
)
def test_bad_input_raises(change, kind, message):
    arguments = {"logits": np.zeros((2, 3), np.float32), "target": np.zeros((2, 3), np.float32), **change}
    with pytest.raises(kind, match=message):
        card.bce_with_logits(**arguments)


def test_no_logits_have_no_mean():
    empty = np.zeros((0, 3), np.float32)
    loss, grad = card.bce_with_logits(empty, empty, pos_weight=np.ones(3, np.float32))
    assert np.isnan(loss) and grad.shape == (0, 3)
    assert card.bce_with_logits(empty, empty, empty, reduction="sum")[0] == 0


def test_the_compiled_function_refuses_what_would_crash():
    compiled, x = kernels.compiled().bce_with_logits, np.zeros(4, np.float32)
    at = x.ctypes.data
    for arguments in (
        (False, 0, at, 0, 0, 0, 0, at, at, 4, 1),
        (False, at, at, 0, 0, 0, 0, 0, at, 4, 1),
        (False, at, at, at, 0, 0, 0, at, at, 4, 1),
        (False, at, at, 0, 0, at, -1, at, at, 4, 1),
        (False, at, at, 0, 0, 0, 0, at, at, -1, 1),
    ):
        with pytest.raises(ValueError, match="was given"):
            compiled(*arguments)


def test_bad_thread_counts_in_the_environment_raise(monkeypatch):
    logits, target, _ = card.Case("any", (5, 10)).make()
    monkeypatch.setenv("HW4FAST_THREADS", "0")
    with pytest.raises(UsageError, match="HW4FAST_THREADS"):
        card.bce_with_logits(logits, target)


@settings(max_examples=500, deadline=None)
@given(
    shape=st.lists(st.integers(0, 40), max_size=3),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4]),
    offset=st.sampled_from([0.0, -30.0, 1e4]),
    soft=st.booleans(),
    weighted=st.integers(-1, 3),
    pos_weighted=st.integers(-1, 3),
    reduction=st.sampled_from(["none", "mean", "sum"]),
    dtype=st.sampled_from([np.float32, np.float64]),
    isa=st.sampled_from(ISAS),
)
def test_random_shapes_and_options(shape, seed, size, offset, soft, weighted, pos_weighted, reduction, dtype, isa):
    rng = np.random.default_rng(seed)
    logits = np.asarray(rng.standard_normal(shape) * size + offset, dtype)
    target = np.asarray(rng.random(shape) if soft else rng.integers(0, 2, shape), dtype)
    options = {"reduction": reduction}
    for name, dimensions in (("weight", weighted), ("pos_weight", pos_weighted)):
        if dimensions >= 0:
            options[name] = np.asarray(rng.uniform(0.1, 9, shape[max(len(shape) - dimensions, 0) :]), dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing
        loss_ref, grad_ref = card.reference(logits, target, **options)
    loss, grad = card.bce_with_logits(logits, target, isa=isa, **options)
    eps = float(np.finfo(dtype).eps)
    tiny = float(np.finfo(dtype).tiny)  # below it e^−|x| is 0
    np.testing.assert_allclose(loss, loss_ref, rtol=64 * eps, atol=100 * tiny * max(1, logits.size))
    # 1 − y, t·e and their difference are rounded: by as much of the weights as of the gradient
    # (1 − y) and pos_weight·y·e^−x may cancel: what is left is as exact as they are
    terms = options.get("weight", 1.0) * (1 - target + target * options.get("pos_weight", 1.0)).astype(np.float64)
    terms /= max(logits.size, 1) if reduction == "mean" else 1
    np.testing.assert_allclose(grad, grad_ref, rtol=64 * eps, atol=2 * eps * largest(terms) + 100 * tiny)
