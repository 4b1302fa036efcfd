"""bce_with_logits: binary cross entropy of logits and its gradient in one visit of the logits.

Contract
    logits      […, classes]  float32 or float64, of any number of dimensions
    target      like logits, in shape and dtype: 0 … 1, soft ones welcome (others follow the formula)
    weight      of logits' dtype and of the shape of its last dimensions (all, [classes], one number), or None
    pos_weight  the same
    →  loss  scalar, or like logits for reduction "none";  grad like logits = ∂(Σ loss)/∂logits

    loss_i = −w_i·(pos_weight_i·y_i·log σ(x_i) + (1 − y_i)·log σ(−x_i))
    "mean" divides Σ loss_i by the number of logits (NaN when there are none), as
    torch.nn.functional.binary_cross_entropy_with_logits does.

    Infinite logits give torch's gradient, and NaN as their loss where torch gives NaN because 0·∞ is (x = ∞ at
    y = 1, x = −∞ at y = 0). At x = −∞ and y > 0 the loss is ∞, where torch has NaN.

Source: the loss and its gradient σ(x) − y are Bishop, "Pattern Recognition and Machine Learning" (2006), eq. 4.90 f.;
|x| in the exponent: Mächler, "Accurately computing log(1 − exp(−|a|))" (2012), section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from hw4fast.kernels import compiled, isas, threads_by_default
from hw4fast.kernels.numba_variants import compiled_by_numba, exponential, set_threads
from hw4fast.kernels.softmax_xent import DTYPES, REDUCTIONS


def reference(
    logits: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    pos_weight: np.ndarray | None = None,
    reduction: str = "mean",
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and gradient in float64, slow and obvious."""
    x, y = logits.astype(np.float64), target.astype(np.float64)
    w = 1.0 if weight is None else weight.astype(np.float64)
    positive = y if pos_weight is None else y * pos_weight.astype(np.float64)
    softplus, softplus_of_minus = np.logaddexp(0, x), np.logaddexp(0, -x)  # −log σ(−x), −log σ(x)
    losses = w * (positive * softplus_of_minus + (1 - y) * softplus)
    grad = w * ((1 - y) * np.exp(-softplus_of_minus) - positive * np.exp(-softplus))
    if reduction == "none":
        return losses, grad
    if reduction == "sum":
        return losses.sum(), grad
    with np.errstate(invalid="ignore"):
        return losses.sum() / np.float64(x.size), grad / max(x.size, 1)


def check(logits: Any, target: Any, weight: Any, pos_weight: Any, reduction: str, logits_are: str = "logits") -> None:
    """What every face checks, on anything with .shape; logits_are: their name for the caller. Raises ValueError."""
    shape = logits.shape
    if target.shape != shape:
        raise ValueError(f"target must be {list(shape)} like {logits_are}, not {list(target.shape)}")
    for name, given in (("weight", weight), ("pos_weight", pos_weight)):
        if given is None:
            continue
        own = given.shape
        while own and own[0] == 1:
            own = own[1:]
        if len(given.shape) > len(shape) or own != shape[len(shape) - len(own) :]:
            raise ValueError(
                f"{name} must have the shape of the last dimensions of {logits_are} {list(shape)} or hold one number,"
                f" not be {list(given.shape)}: expand it to the shape of {logits_are}"
            )
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {list(REDUCTIONS)}, not {reduction!r}")


def bce_with_logits(
    logits: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    pos_weight: np.ndarray | None = None,
    reduction: str = "mean",
    isa: str = "",
    threads: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and gradient of NumPy arrays on our kernel; inputs are not modified, strided ones are copied.

    isa: an instruction set of `hw4fast.kernels.isas()`; empty for HW4FAST_ISA or the best.
    threads: 0 for HW4FAST_THREADS or all cores; the result does not depend on it.
    Raises TypeError for a wrong dtype, ValueError for a wrong shape, reduction or `isa`, UserError for a bad
    HW4FAST_THREADS.
    """
    check(logits, target, weight, pos_weight, reduction)
    dtype = logits.dtype
    if dtype not in DTYPES:
        raise TypeError(f"logits must be float32 or float64, not {dtype}")
    for name, given in (("target", target), ("weight", weight), ("pos_weight", pos_weight)):
        if given is not None and given.dtype != dtype:
            raise TypeError(f"{name} must be {dtype} like logits, not {given.dtype}")
    arrays = [None if a is None else np.require(a, dtype, ["C", "A"]) for a in (logits, target, weight, pos_weight)]
    addresses = [0 if a is None else a.ctypes.data for a in arrays]
    loss = np.empty(logits.shape if reduction == "none" else (), dtype)
    grad = np.empty(logits.shape, dtype)
    compiled().bce_with_logits(
        dtype.itemsize == 8,
        *addresses[:3],
        0 if weight is None else weight.size,
        addresses[3],
        0 if pos_weight is None else pos_weight.size,
        loss.ctypes.data,
        grad.ctypes.data,
        logits.size,
        REDUCTIONS[reduction],
        isa,
        threads or threads_by_default() or 0,
    )
    return loss, grad


def bce_with_logits_numba(logits: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean loss and its gradient of float32 logits without weights: what twenty lines of Python reach.

    Raises ValueError for a wrong shape, for no logits, too, and TypeError for a wrong dtype.
    """
    check(logits, target, None, None, "mean")
    if logits.dtype != np.float32 or target.dtype != np.float32:
        raise TypeError(f"the numba variant takes float32, not {logits.dtype} and {target.dtype}")
    if logits.size == 0:
        raise ValueError(f"the numba variant needs a logit, not {list(logits.shape)}")
    rows = (-1, logits.shape[-1] if logits.ndim else 1)
    x, y, grad = logits.reshape(rows), target.reshape(rows), np.empty(logits.shape, np.float32)
    losses = np.empty(len(x))
    set_threads()
    compiled_by_numba(_rows)(x, y, grad.reshape(rows), losses)
    return np.asarray(losses.sum() / logits.size, np.float32), grad


def variants() -> dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]]:
    """Every compiled way to compute it here, fastest first: name → function of (logits, target, **options)."""

    def on(isa: str) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        return lambda logits, target, **options: bce_with_logits(logits, target, isa=isa, **options)

    return {f"cpp-{isa}": on(isa) for isa in isas()}


@dataclass(frozen=True)
class Case:
    """One input: `make(dtype)` gives (logits, target, options) of bce_with_logits. weighted, pos_weighted: the shape
    of weight and pos_weight."""

    name: str
    shape: tuple[int, ...]
    offset: float = 0.0
    size: float = 3.0
    soft: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    weighted: tuple[int, ...] | None = None
    pos_weighted: tuple[int, ...] | None = None

    def make(self, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        rng = np.random.Generator(np.random.PCG64([prod(self.shape), len(self.shape)]))
        logits = np.asarray(rng.standard_normal(self.shape) * self.size + self.offset, dtype)
        chance = rng.uniform(0, 1, self.shape)
        target = np.asarray(chance if self.soft else np.round(chance), dtype)
        options = dict(self.options)
        if self.weighted is not None:
            options["weight"] = np.asarray(rng.uniform(0.1, 2.0, self.weighted), dtype)
        if self.pos_weighted is not None:
            options["pos_weight"] = np.asarray(rng.uniform(0.1, 20.0, self.pos_weighted), dtype)
        return logits, target, options


BENCHMARK_SHAPES = ((100, 10), (4096, 10), (512, 1000), (4096, 1000))


def cases() -> Iterator[Case]:
    """Sizes around every vector width and block, offsets, and each option alone and together."""
    for n in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129, 1023, 1024, 1025, 1031, 2049):
        yield Case(f"{n}", (n,))
        yield Case(f"{n}-soft-weighted", (n,), soft=True, weighted=(n,), pos_weighted=(1,))
    yield Case("one", ())
    yield Case("empty", (0, 10), options={"reduction": "sum"}, weighted=(10,))
    yield Case("threads", (1031, 101), pos_weighted=(101,))
    for offset in (1e4, 1e6, 1e8, -1e8):
        yield Case(f"offset{offset:g}", (19, 10), offset=offset)
    for size in (1e-3, 30.0, 1e3):
        yield Case(f"size{size:g}", (19, 10), size=size, soft=True)
    for shape in ((19, 10), (3, 4, 5, 7), (5, 1000), (3, 1025)):
        name = "x".join(map(str, shape))
        for reduction in ("none", "sum"):
            yield Case(f"{reduction}-{name}", shape, options={"reduction": reduction})
        yield Case(f"soft-{name}", shape, soft=True)
        for suffix in ((), (1,), (1, *shape[-1:]), shape[-2:], shape):
            text = "x".join(map(str, suffix)) or "scalar"
            yield Case(f"weight{text}-{name}", shape, weighted=suffix)
            yield Case(f"pos{text}-{name}", shape, pos_weighted=suffix, options={"reduction": "none"})
        yield Case(f"all-{name}", shape, soft=True, weighted=shape, pos_weighted=shape[-1:])


def cost(n: int, classes: int, itemsize: int = 4) -> tuple[int, int]:
    """(bytes, flops) that loss and gradient can't do without: each logit and target read once, each gradient written
    once; an exponential counts as 14 operations, a logarithm as 20."""
    return n * classes * 3 * itemsize, n * classes * (14 + 20 + 14)


def _rows(prange: Any) -> Callable[..., None]:
    exp = compiled_by_numba(exponential, parallel=False)
    one, zero = np.float32(1), np.float32(0)  # literals would make double of float
    a, b, c, d = np.float32(-3.318403e-3), np.float32(2.0204292e-2), np.float32(-5.76639398e-2), np.float32(1.068051e-1)
    f, g, h = np.float32(-1.53553736e-1), np.float32(1.96953945e-1), np.float32(-2.49585867e-1)
    k, m = np.float32(3.33305113e-1), np.float32(-4.99999328e-1)

    def rows(logits: Any, target: Any, grad: Any, losses: Any) -> None:
        share = np.float32(1 / logits.size)
        for i in prange(len(logits)):
            total = zero
            for j in range(logits.shape[1]):
                x, y = logits[i, j], target[i, j]
                e = exp(-abs(x))
                # log(1 + e) as log1p_upto1 of csrc/vector.inl has it: np.log1p is a call per number
                log = e + e * e * ((((((((a * e + b) * e + c) * e + d) * e + f) * e + g) * e + h) * e + k) * e + m)
                total += max(x, zero) - x * y + log
                grad[i, j] = ((one if x > zero else e) / (one + e) - y) * share
            losses[i] = total

    return rows
