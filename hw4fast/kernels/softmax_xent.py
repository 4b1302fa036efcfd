"""softmax_xent: softmax cross entropy and its gradient in one visit of the logits.

Contract
    logits  [n, classes]  float32, float64 or bfloat16, rows may be strided, classes contiguous
    target  [n]           int64, 0 … classes−1 or ignore_index
    weight  [classes]     of logits' dtype, or None
    →  loss  scalar, or [n] for reduction "none";  grad [n, classes] = ∂(Σ loss)/∂logits; both of logits' dtype

    bfloat16 is how numbers are stored: all arithmetic is in float32, and loss and gradient are rounded once.
    NumPy has no such dtype; arrays of ml_dtypes.bfloat16 are taken.

    z = scale·logits,  log p = z − logsumexp z
    loss_i = −(1−ε)·w_y·log p_y − ε/classes·Σ_j w_j·log p_j,  0 where target = ignore_index
    "mean" divides Σ loss_i by Σ w_y over the rows that count (NaN when there are none), as
    torch.nn.functional.cross_entropy does.

Source: the gradient p − onehot(y) is Bishop, "Pattern Recognition and Machine Learning" (2006), eq. 4.109;
label smoothing: Szegedy et al., "Rethinking the Inception Architecture" (2016), section 7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hw4fast.kernels import compiled, isas, threads_by_default
from hw4fast.kernels.numba_variants import compiled_by_numba, exponential, set_threads

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}
DTYPES = (np.float32, np.float64)
CODES = {"float32": 0, "float64": 1, "bfloat16": 2}  # enum class Dtype of csrc/softmax_xent.cpp


def reference(
    logits: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    scale: float = 1.0,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and gradient in float64, slow and obvious."""
    n, classes = logits.shape
    z = logits.astype(np.float64) * scale
    w = np.ones(classes) if weight is None else weight.astype(np.float64)
    losses, grad, divisor = np.zeros(n), np.zeros((n, classes)), 0.0
    for i in range(n):
        y = target[i]
        if y == ignore_index:
            continue
        d = z[i] - z[i].max()
        log_p = d - np.log(np.exp(d).sum())
        share = np.full(classes, label_smoothing / classes) * w  # how much of the loss each class carries
        share[y] += (1 - label_smoothing) * w[y]
        losses[i] = -(share * log_p)[share != 0].sum()
        grad[i] = scale * (share.sum() * np.exp(log_p) - share)
        divisor += w[y]
    if reduction == "none":
        return losses, grad
    if reduction == "sum":
        return losses.sum(), grad
    with np.errstate(invalid="ignore", divide="ignore"):
        return losses.sum() / np.float64(divisor), np.where(grad == 0, 0, grad / divisor)


def check(
    logits: Any, target: Any, weight: Any, label_smoothing: float, reduction: str, logits_are: str = "logits"
) -> None:
    """What every face checks, on anything with .shape and .ndim; logits_are: their name for the caller.

    Raises ValueError.
    """
    if logits.ndim != 2:
        raise ValueError(f"{logits_are} must be [n, classes], not {list(logits.shape)}")
    if target.ndim != 1 or target.shape[0] != logits.shape[0]:
        raise ValueError(f"target must be [{logits.shape[0]}] class indices, not {list(target.shape)}")
    if weight is not None and (weight.ndim != 1 or weight.shape[0] != logits.shape[1]):
        raise ValueError(f"weight must be [{logits.shape[1]}], not {list(weight.shape)}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must lie in 0…1, not {label_smoothing}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {list(REDUCTIONS)}, not {reduction!r}")


def softmax_xent(
    logits: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    scale: float = 1.0,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    reduction: str = "mean",
    isa: str = "",
    threads: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and gradient of NumPy arrays on our kernel; inputs are not modified.

    isa: an instruction set of `hw4fast.kernels.isas()`; empty for HW4FAST_ISA or the best.
    threads: 0 for HW4FAST_THREADS or all cores; the result does not depend on it.
    Raises TypeError for a wrong dtype, ValueError for a wrong shape, value or `isa`, IndexError for a target
    that is neither a class nor ignore_index, UserError for a bad HW4FAST_THREADS.
    """
    check(logits, target, weight, label_smoothing, reduction)
    if logits.dtype.name not in CODES or not logits.dtype.isnative:
        raise TypeError(f"logits must be float32, float64 or bfloat16, not {logits.dtype}")
    if target.dtype != np.int64:
        raise TypeError(f"target must be int64, not {target.dtype}")
    if weight is not None and weight.dtype != logits.dtype:
        raise TypeError(f"weight must be {logits.dtype} like logits, not {weight.dtype}")
    n, classes = logits.shape
    item = logits.itemsize
    if not logits.flags.aligned or (classes > 1 and logits.strides[1] != item) or logits.strides[0] % item:
        logits = logits.copy(order="C")
    target = np.require(target, np.int64, ["C", "A"])
    weight = None if weight is None else np.require(weight, logits.dtype, ["C", "A"])
    loss = np.empty(n if reduction == "none" else (), logits.dtype)
    grad = np.empty((n, classes), logits.dtype)
    compiled().softmax_xent(
        CODES[logits.dtype.name],
        logits.ctypes.data,
        target.ctypes.data,
        0 if weight is None else weight.ctypes.data,
        loss.ctypes.data,
        grad.ctypes.data,
        n,
        classes,
        logits.strides[0] // item,
        scale,
        label_smoothing,
        ignore_index,
        REDUCTIONS[reduction],
        isa,
        threads or threads_by_default() or 0,
    )
    return loss, grad


def softmax_xent_numba(logits: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean loss and its gradient of float32 logits without options: what twenty lines of Python reach.

    Raises as softmax_xent does.
    """
    check(logits, target, None, 0.0, "mean")
    if logits.dtype != np.float32 or target.dtype != np.int64:
        raise TypeError(f"the numba variant takes float32 and int64, not {logits.dtype} and {target.dtype}")
    n, classes = logits.shape
    if n > 0 and classes == 0:
        raise ValueError("logits must have a class, not be [n, 0]")
    wrong = np.flatnonzero((target < 0) | (target >= classes))
    if len(wrong):  # compiled code would read there
        raise IndexError(f"target[{wrong[0]}] is {target[wrong[0]]}: the numba variant takes 0…{classes - 1}")
    grad, losses = np.empty(logits.shape, np.float32), np.empty(len(logits))
    set_threads()
    compiled_by_numba(_rows)(logits, target, grad, losses)
    return np.asarray(losses.mean(), np.float32), grad


def variants() -> dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]]:
    """Every compiled way to compute it here, fastest first: name → function of (logits, target, **options)."""

    def on(isa: str) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        return lambda logits, target, **options: softmax_xent(logits, target, isa=isa, **options)

    return {f"cpp-{isa}": on(isa) for isa in isas()}


@dataclass(frozen=True)
class Case:
    """One input: `make(dtype)` gives (logits, target, options) of softmax_xent."""

    name: str
    shape: tuple[int, int]
    offset: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    weighted: bool = False
    ignored: bool = False

    def make(self, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        n, classes = self.shape
        rng = np.random.Generator(np.random.PCG64([n, classes]))
        logits = (rng.standard_normal((n, classes)) * 3 + self.offset).astype(dtype)
        target = rng.integers(0, classes, n)
        if self.ignored:
            target[::3] = self.options.get("ignore_index", -100)
        options = dict(self.options)
        if self.weighted:
            options["weight"] = rng.uniform(0.1, 2.0, classes).astype(dtype)
        return logits, target, options


BENCHMARK_SHAPES = ((100, 10), (4096, 10), (512, 1000), (4096, 1000), (512, 32000))


def cases() -> Iterator[Case]:
    """Sizes around every vector width and block, offsets, and each option alone and together."""
    for classes in (1, 2, 3, 4, 5, 7, 8, 9, 10, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257, 1000):
        for n in (1, 15, 16, 17, 37):
            yield Case(f"{n}x{classes}", (n, classes))
    yield Case("empty", (0, 10), options={"reduction": "sum"})
    yield Case("threads", (4099, 101))
    yield Case("long", (3, 32003))
    yield Case("long-smooth", (3, 32003), options={"label_smoothing": 1.0})
    yield Case("long-smooth-weighted", (4, 50257), options={"label_smoothing": 0.1}, weighted=True)
    for classes in (10, 1000):
        shape = (19, classes)
        for offset in (1e4, 1e6, 1e8, -1e8):
            yield Case(f"offset{offset:g}-{classes}", shape, offset=offset)
        for scale in (0.25, -1.5, 4.0):
            yield Case(f"scale{scale}-{classes}", shape, options={"scale": scale})
        for reduction in ("none", "sum"):
            yield Case(f"{reduction}-{classes}", shape, options={"reduction": reduction})
        yield Case(f"smooth-{classes}", shape, options={"label_smoothing": 0.1})
        yield Case(f"weighted-{classes}", shape, weighted=True)
        yield Case(f"ignored-{classes}", shape, ignored=True)
        yield Case(f"ignored0-{classes}", shape, ignored=True, options={"ignore_index": 0})
        yield Case(
            f"all-{classes}",
            shape,
            weighted=True,
            ignored=True,
            options={"label_smoothing": 0.2, "scale": 0.5, "reduction": "sum"},
        )


def cost(n: int, classes: int, itemsize: int = 4) -> tuple[int, int]:
    """(bytes, flops) that loss and gradient can't do without: each logit read once, each gradient written once;
    an exponential counts as 14 operations."""
    return n * (2 * classes * itemsize + 8 + itemsize), n * classes * (14 + 4)


def _rows(prange: Any) -> Callable[..., None]:
    exp = compiled_by_numba(exponential, parallel=False)

    def rows(logits: Any, target: Any, grad: Any, losses: Any) -> None:
        n, classes = logits.shape
        for i in prange(n):
            x, g, y = logits[i], grad[i], target[i]
            p = q = r = largest = x[0]  # four maxima: LLVM takes one number after the other, each waiting for the last
            for j in range(0, classes - 3, 4):
                p, q, r = max(p, x[j]), max(q, x[j + 1]), max(r, x[j + 2])
                largest = max(largest, x[j + 3])
            for j in range(classes // 4 * 4, classes):
                p = max(p, x[j])
            largest = max(p, q, r, largest)
            s = np.float32(0)
            for j in range(classes):
                g[j] = exp(x[j] - largest)
                s += g[j]
            losses[i] = np.log(s) + (np.float64(largest) - np.float64(x[y]))  # wide: "reassoc" ignores the brackets
            share = np.float32(1 / (s * n))
            for j in range(classes):
                g[j] *= share
            g[y] -= np.float32(1 / n)

    return rows
