"""What is compared: for each kernel and shape, functions that do the same work, ours and the field's.

Used by bench_*.py (pytest-benchmark's tables) and compare.py (alternating runs and the committed records), so that
both time the same thing, and only after every candidate gave the right answer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from hw4fast import kernels
from hw4fast.kernels import softmax_xent as card
from hw4fast.nn import softmax_cross_entropy

Candidates = dict[str, Callable[[], object]]
OURS = "hw4fast"


def softmax_xent(shape: tuple[int, int], everything: bool = False) -> Candidates:
    """Mean loss and gradient of float32 logits through autograd: forward, then backward into `logits.grad`.

    "torch" is F.cross_entropy, "torch.compile" the same compiled. With `everything` also the bare kernel per
    instruction set and the numba variant, from NumPy arrays and without autograd.
    """
    logits, target, _ = card.Case("benchmark", shape).make()
    x, y = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(target)

    def through_autograd(loss_of: Callable[..., torch.Tensor]) -> Callable[[], object]:
        def step() -> torch.Tensor | None:
            x.grad = None
            loss_of(x, y).backward()
            return x.grad

        return step

    found: Candidates = {
        OURS: through_autograd(softmax_cross_entropy),
        "torch": through_autograd(F.cross_entropy),
        "torch.compile": through_autograd(torch.compile(F.cross_entropy, dynamic=False)),
    }
    if everything:
        for isa in kernels.isas():
            found[f"kernel {isa}"] = lambda isa=isa: card.softmax_xent(logits, target, isa=isa)[1]
        found["numba"] = lambda: card.softmax_xent_numba(logits, target)[1]
    _same_gradient(found, card.reference(logits, target)[1])
    return found


def copy(nbytes: int) -> Candidates:
    """torch's copy of `nbytes` / 2 read and as many written: the bandwidth that a memory-bound kernel can have."""
    source = torch.rand(nbytes // 8)
    goal = torch.empty_like(source)
    return {"copy": lambda: goal.copy_(source)}


def _same_gradient(candidates: Candidates, reference: np.ndarray) -> None:
    for name, step in candidates.items():
        error = np.abs(np.asarray(step(), dtype=np.float64) - reference).max()
        if not error <= 1e-5 * np.abs(reference).max() + 1e-9:
            raise AssertionError(f"{name} is wrong by {error:.3g}; nothing was timed")


KERNELS: dict[str, tuple[Callable[..., Candidates], tuple[tuple[int, ...], ...]]] = {
    "softmax_xent": (softmax_xent, card.BENCHMARK_SHAPES),
}
