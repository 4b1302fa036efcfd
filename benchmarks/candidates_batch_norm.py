"""What batch_norm_block is compared with: torch's three operators, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hw4fast import kernels
from hw4fast.kernels import batch_norm_block as card
from hw4fast.nn import batch_norm_block

OURS = "hw4fast"
CASES = {case.name: case for case in card.BENCHMARK_CASES}


def candidates(case: card.Case, everything: bool = False) -> dict[str, Callable[[], object]]:
    """Batch normalisation of a training step, ReLU and pool, forward and backward through autograd into all three
    gradients. With `everything` also the bare kernels per instruction set and the numba variants."""
    input, weight, bias, _ = case.make()
    arrays = (input, weight, bias)
    output, code, mean, var = card.reference(*arrays)
    grad = np.random.default_rng(0).standard_normal(output.shape).astype(np.float32)

    def theirs(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(F.batch_norm(x, None, None, w, b, True)), 2)

    def both(block: Callable[..., Tensor], last: bool) -> Callable[[], object]:
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        if last:
            tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)
        x, w, b = (tensor.requires_grad_() for tensor in tensors)
        outer = torch.from_numpy(grad).contiguous(
            memory_format=torch.channels_last if last else torch.contiguous_format
        )

        def run() -> Tensor | None:
            x.grad = w.grad = b.grad = None
            block(x, w, b).backward(outer)
            return x.grad

        return run

    found: dict[str, Callable[[], object]] = {
        OURS: both(lambda x, w, b: batch_norm_block(x, w, b)[0], True),
        "torch": both(theirs, False),
        "torch channels-last": both(theirs, True),
        "torch.compile": both(torch.compile(theirs, dynamic=False), True),
    }
    if everything:
        for isa in kernels.isas():
            found[f"kernel {isa}"] = partial(_bare_batch_norm, grad, arrays, isa)
        kept = (code, mean.astype(np.float32), var.astype(np.float32))
        found["numba"] = partial(_numba_batch_norm, grad, arrays, kept)
    reference = card.reference_backward(grad, code, input, weight, mean, var)[0]
    for name, run in found.items():  # as a whole: of two near-equals not everybody finds the same maximum
        error = np.linalg.norm(np.asarray(run(), np.float64) - reference) / np.linalg.norm(reference)
        if not error <= 1e-2:
            raise AssertionError(f"{name} is wrong by {error:.3g} of the gradient; nothing was timed")
    return found


def _bare_batch_norm(grad: np.ndarray, arrays: Any, isa: str) -> np.ndarray:
    _, *kept = card.batch_norm_block(*arrays, isa=isa)
    return card.batch_norm_block_backward(grad, kept[0], *arrays[:2], *kept[1:], isa=isa)[0]


def _numba_batch_norm(grad: np.ndarray, arrays: Any, kept: Any) -> np.ndarray:
    card.batch_norm_block_numba(*arrays)
    return card.batch_norm_block_backward_numba(grad, kept[0], *arrays[:2], *kept[1:])[0]


def cost(case: card.Case) -> tuple[int, int]:
    """(bytes, flops) of both passes in float32: the input four times, its gradient once, the output and its gradient;
    backward three operations per value for the sums and five for the gradient."""
    n, c, h, w = case.shape
    return 4 * (5 * n * c * h * w + n * c * h * w // 2), (7 + 8) * n * c * h * w
