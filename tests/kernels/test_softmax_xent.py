"""The NumPy face of softmax_xent, on every instruction set that this machine has."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16  # onnx brings it

from hw4fast import kernels
from hw4fast.errors import UsageError
from hw4fast.kernels import softmax_xent as card
from tests.kernels.arrays import misaligned
from tests.kernels.comparing import calls_during, error

CASES = list(card.cases())
ISAS = kernels.isas()


def torch_result(logits, target, options):
    """torch's own loss and gradient, in the dtype of `logits`."""
    options = dict(options)
    scale = options.pop("scale", 1.0)
    weight = options.pop("weight", None)
    x = torch.from_numpy(logits.copy()).requires_grad_()
    loss = torch.nn.functional.cross_entropy(
        x * scale, torch.from_numpy(target), None if weight is None else torch.from_numpy(weight), **options
    )
    loss.sum().backward()
    return loss.detach().numpy(), x.grad.numpy()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_float32_error_is_within_twice_torchs(case, isa):
    logits, target, options = case.make(np.float32)
    before = logits.copy()
    loss_ref, grad_ref = card.reference(logits, target, **options)
    loss, grad = card.softmax_xent(logits, target, isa=isa, **options)
    loss_torch, grad_torch = torch_result(logits, target, options)
    eps = np.finfo(np.float32).eps
    assert error(loss, loss_ref) <= 2 * error(loss_torch, loss_ref) + eps * max(
        1.0, float(np.max(np.abs(loss_ref), initial=0.0))
    )
    assert error(grad, grad_ref) <= 2 * error(grad_torch, grad_ref) + eps * float(np.max(np.abs(grad_ref), initial=0.0))
    assert np.array_equal(logits, before)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_float64_matches_the_reference(case, isa):
    logits, target, options = case.make(np.float64)
    loss_ref, grad_ref = card.reference(logits, target, **options)
    loss, grad = card.softmax_xent(logits, target, isa=isa, **options)
    np.testing.assert_allclose(loss, loss_ref, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(grad, grad_ref, rtol=1e-12, atol=1e-14)


def test_the_reference_agrees_with_torch_in_float64():
    for case in CASES:
        logits, target, options = case.make(np.float64)
        loss, grad = torch_result(logits, target, options)
        loss_ref, grad_ref = card.reference(logits, target, **options)
        np.testing.assert_allclose(loss_ref, loss, rtol=1e-11, atol=1e-13, err_msg=case.name)
        np.testing.assert_allclose(grad_ref, grad, rtol=1e-10, atol=1e-13, err_msg=case.name)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("shape", [(1, 1), (37, 65), (4096, 10), (100, 1000), (3, 32003)], ids=str)
def test_the_numba_variant_matches_the_reference(shape, offset):
    logits, target, _ = card.Case("numba", shape, offset).make()
    loss_ref, grad_ref = card.reference(logits, target)
    loss, grad = card.softmax_xent_numba(logits, target)
    assert loss.dtype == grad.dtype == np.float32
    np.testing.assert_allclose(loss, loss_ref, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(grad, grad_ref, rtol=1e-5, atol=1e-6 * np.abs(grad_ref).max())


@pytest.mark.parametrize(
    ("logits", "target", "kind", "message"),
    [
        (np.zeros((2, 3), np.float32), np.array([0, 3]), IndexError, r"target\[1\] is 3"),
        (np.zeros((2, 3), np.float32), np.array([-100, 0]), IndexError, r"target\[0\] is -100"),
        (np.zeros((2, 3), np.float32), np.array([0]), ValueError, "target must be"),
        (np.zeros((2, 0), np.float32), np.array([0, 0]), ValueError, "must have a class"),
        (np.zeros(3, np.float32), np.array([0]), ValueError, "logits must be"),
        (np.zeros((2, 3)), np.array([0, 0]), TypeError, "float32 and int64"),
    ],
)
def test_the_numba_variant_refuses_what_would_lead_out_of_an_array(logits, target, kind, message):
    with pytest.raises(kind, match=message):
        card.softmax_xent_numba(logits, target)


@pytest.mark.parametrize("isa", ISAS)
def test_the_forced_variant_is_the_one_that_ran(isa):
    logits, target, _ = card.Case("any", (5, 10)).make()
    ran = calls_during("softmax_xent", lambda: card.variants()[f"cpp-{isa}"](logits, target))
    assert ran == {name: int(name == isa) for name in ran}


def test_an_unknown_instruction_set_raises():
    logits, target, _ = card.Case("any", (5, 10)).make()
    with pytest.raises(ValueError, match="'sse9' is not to be had here"):
        card.softmax_xent(logits, target, isa="sse9")


@pytest.mark.parametrize("isa", [*ISAS, "sse9"])
def test_hw4fast_isa_is_honoured_or_refused(isa):
    code = (
        "import numpy as np; from hw4fast import kernels; from hw4fast.kernels import softmax_xent as c;"
        "c.softmax_xent(np.zeros((2, 3), np.float32), np.zeros(2, np.int64));"
        "print([n for n, k in kernels.calls()['softmax_xent'].items() if k])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "HW4FAST_ISA": isa}, capture_output=True, text=True
    )
    if isa in ISAS:
        assert result.stdout.strip() == str([isa])
    else:
        assert result.returncode != 0
        assert "HW4FAST_ISA 'sse9' is not to be had here" in result.stderr


@pytest.mark.parametrize("shape", [(4099, 101), (3000, 10), (7, 32003)])
def test_the_result_does_not_depend_on_the_number_of_threads(shape):
    logits, target, _ = card.Case("threads", shape).make()
    one = card.softmax_xent(logits, target, threads=1)
    for threads in (2, 3, 7):
        many = card.softmax_xent(logits, target, threads=threads)
        assert np.array_equal(one[0], many[0])
        assert np.array_equal(one[1], many[1])


def test_threads_of_its_own_without_torch():
    """In a process without an OpenMP runtime the kernel starts plain threads; the bits are the same."""
    code = (
        "import sys, hashlib, numpy as np; from hw4fast.kernels import compiled, softmax_xent as c;"
        "x, t, _ = c.Case('threads', (4099, 101)).make(); l, g = c.softmax_xent(x, t, threads=2);"
        "assert 'torch' not in sys.modules;"
        "print(compiled().shares_openmp(), hashlib.sha256(g.tobytes()).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shares, digest = run.stdout.split()
    logits, target, _ = card.Case("threads", (4099, 101)).make()
    assert shares == "False"
    assert digest == hashlib.sha256(card.softmax_xent(logits, target)[1].tobytes()).hexdigest()
    assert kernels.compiled().shares_openmp()  # here torch is loaded


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("classes", [3, 10, 40, 1000])
def test_infinities_and_nan_like_torch(classes, isa):
    logits = np.random.default_rng(0).standard_normal((6, classes)).astype(np.float32)
    logits[0, 1] = np.nan
    logits[1, 2] = np.inf
    logits[2, 0] = -np.inf
    logits[3, :] = -np.inf
    logits[4, :] = np.nan
    logits.view(np.int32)[4, 0] = 0x7FC00123  # a NaN with a payload
    target = np.array([0, 2, 0, 1, 1, 1])
    loss, grad = card.softmax_xent(logits, target, isa=isa, reduction="none")
    loss_torch, grad_torch = torch_result(logits, target, {"reduction": "none"})
    np.testing.assert_allclose(loss, loss_torch, rtol=1e-5)
    np.testing.assert_allclose(grad, grad_torch, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("isa", ISAS)
def test_strided_misaligned_and_transposed_inputs(isa):
    base = np.random.default_rng(0).standard_normal((20, 80)).astype(np.float32)
    target = np.random.default_rng(1).integers(0, 33, 10)
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
        want = card.softmax_xent(np.ascontiguousarray(view, np.float32), target, isa=isa)
        got = card.softmax_xent(view, target, isa=isa)
        assert np.array_equal(want[0], got[0]), name
        assert np.array_equal(want[1], got[1]), name


def test_rows_that_do_not_count_give_nothing_even_when_they_are_nan():
    for classes in (10, 1000):
        logits = np.full((4, classes), np.nan, np.float32)
        logits[1] = 0
        target = np.array([-100, 3, -100, -100])
        loss, grad = card.softmax_xent(logits, target)
        assert loss == pytest.approx(np.log(classes), rel=1e-6)
        assert not grad[[0, 2, 3]].any()
        loss, grad = card.softmax_xent(logits, np.full(4, -100))
        assert np.isnan(loss)
        assert not grad.any()


def test_index_arithmetic_beyond_two_to_the_31():
    """66,000 strided rows whose last one begins 2.16·10⁹ elements after the first (in untouched, so free, memory)."""
    stride, n = 32_768, 66_000
    backing = np.empty(stride * n, np.float32)  # pages that nobody writes take no memory
    logits = np.lib.stride_tricks.as_strided(backing, (n, 8), (stride * 4, 4))
    assert (n - 1) * stride > 2**31
    logits[[0, n - 1]] = [[1, 2, 3, 4, 5, 6, 7, 8], [8, 7, 6, 5, 4, 3, 2, 1]]
    target = np.full(n, -100)
    target[[0, n - 1]] = 0
    loss, grad = card.softmax_xent(logits, target, reduction="none")
    want, _ = card.reference(logits[[0, n - 1]], target[[0, n - 1]], reduction="none")
    np.testing.assert_allclose(loss[[0, n - 1]], want, rtol=1e-6)
    assert not loss[1:-1].any()
    assert not grad[1:-1].any()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"logits": np.zeros(3, np.float32)}, ValueError, "logits must be"),
        ({"logits": np.zeros((2, 3, 4), np.float32)}, ValueError, "logits must be"),
        ({"logits": np.zeros((2, 0), np.float32)}, ValueError, "at least one class"),
        ({"logits": np.zeros((2, 3), np.float16)}, TypeError, "float32, float64 or bfloat16"),
        ({"logits": np.zeros((2, 3), ">f4")}, TypeError, "float32, float64 or bfloat16"),
        ({"logits": np.zeros((2, 3), np.int64)}, TypeError, "float32, float64 or bfloat16"),
        ({"target": np.zeros(3, np.int64)}, ValueError, "target must be"),
        ({"target": np.zeros((2, 1), np.int64)}, ValueError, "target must be"),
        ({"target": np.zeros(2, np.int32)}, TypeError, "target must be int64"),
        ({"target": np.array([0, 3])}, IndexError, r"target\[1\] is 3"),
        ({"target": np.array([-1, 0])}, IndexError, r"target\[0\] is -1"),
        ({"target": np.array([0, 2**62])}, IndexError, r"target\[1\]"),
        ({"weight": np.ones(2, np.float32)}, ValueError, "weight must be"),
        ({"weight": np.ones(3, np.float64)}, TypeError, "weight must be float32"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing"),
        ({"label_smoothing": float("nan")}, ValueError, "label_smoothing"),
        ({"reduction": "median"}, ValueError, "reduction"),
    ],
)
def test_bad_input_raises(change, kind, message):
    arguments = {"logits": np.zeros((2, 3), np.float32), "target": np.zeros(2, np.int64), **change}
    with pytest.raises(kind, match=message):
        card.softmax_xent(**arguments)


def test_bad_thread_counts_in_the_environment_raise(monkeypatch):
    logits, target, _ = card.Case("any", (5, 10)).make()
    for text in ("0", "two", "99999"):
        monkeypatch.setenv("HW4FAST_THREADS", text)
        with pytest.raises(UsageError, match="HW4FAST_THREADS"):
            card.softmax_xent(logits, target)


def as_view(array, view):
    """The same numbers, lying in memory as `view` says."""
    if view == "strided":
        wide = np.repeat(array, 2, axis=0)
        return np.concatenate([wide, wide], axis=1)[::2, : array.shape[1]]
    return {
        "whole": lambda: array,
        "backwards": lambda: np.ascontiguousarray(array[::-1])[::-1],
        "transposed": lambda: np.asfortranarray(array),
        "misaligned": lambda: misaligned(array),
    }[view]()


@settings(max_examples=500, deadline=None)
@given(
    n=st.integers(0, 40),
    classes=st.integers(1, 150),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4]),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    weighted=st.booleans(),
    ignored=st.booleans(),
    scale=st.sampled_from([1.0, -0.5, 3.0]),
    reduction=st.sampled_from(["none", "mean", "sum"]),
    view=st.sampled_from(["whole", "strided", "backwards", "transposed", "misaligned"]),
    dtype=st.sampled_from([np.float32, np.float64, bfloat16]),
    isa=st.sampled_from(ISAS),
)
def test_random_shapes_and_options(
    n, classes, seed, size, smoothing, weighted, ignored, scale, reduction, view, dtype, isa
):
    rng = np.random.default_rng(seed)
    logits = as_view((rng.standard_normal((n, classes)) * size).astype(dtype), view)
    target = rng.integers(0, classes, n)
    target[rng.random(n) < 0.3 * ignored] = -100
    options = {"label_smoothing": smoothing, "scale": scale, "reduction": reduction}
    if weighted:
        options["weight"] = rng.uniform(0.1, 2, classes).astype(dtype)
    loss, grad = card.softmax_xent(logits, target, isa=isa, **options)
    loss_ref, grad_ref = card.reference(logits, target, **options)
    # scale·x is rounded to float32, so each z is off by up to half a unit of the largest, and p by as much of itself
    eps = float(np.finfo(np.float64 if dtype is np.float64 else np.float32).eps)
    rounding = 16 * eps + 4 * eps * float(np.abs(logits).max(initial=0)) * abs(scale)
    stored = 2.0**-8 if dtype is bfloat16 else 0.0  # the one rounding to eight bits
    np.testing.assert_allclose(loss.astype(np.float64), loss_ref, rtol=16 * eps + stored, atol=rounding)
    np.testing.assert_allclose(grad.astype(np.float64), grad_ref, rtol=80 * eps + stored, atol=rounding * abs(scale))
