"""What is compared: for each kernel and case, functions that do the same work, ours and the field's.

Used by bench_*.py (pytest-benchmark's tables) and compare.py (alternating runs and the committed records), so that
both time the same thing, and only after every candidate gave the right answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import candidates_batch_norm
import candidates_blur
import candidates_resize
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hw4fast import kernels
from hw4fast.kernels import bce_with_logits as bce_card
from hw4fast.kernels import conv_block as conv_card
from hw4fast.kernels import softmax_xent as softmax_card
from hw4fast.nn import binary_cross_entropy_with_logits, conv_block, softmax_cross_entropy
from hw4fast.training.models import build

Candidates = dict[str, Callable[[], object]]
OURS = "hw4fast"


# -- losses ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LossCase:
    n: int
    classes: int
    dtype: torch.dtype = torch.float32


def loss(
    card: ModuleType,
    ours: Callable[..., Tensor],
    theirs: Callable[..., Tensor],
    numba: Callable[..., Any],
    case: LossCase,
    everything: bool = False,
) -> Candidates:
    """Mean loss and gradient through autograd: forward, then backward into `logits.grad`.

    "torch" is `theirs`, F.cross_entropy or the like, "torch.compile" the same compiled. With `everything` and float32
    also the bare kernel per instruction set and the numba variant, from NumPy arrays and without autograd.
    """
    logits, target, _ = card.Case("benchmark", (case.n, case.classes)).make()
    x, y = torch.from_numpy(logits).to(case.dtype).requires_grad_(), torch.from_numpy(target)

    def through_autograd(loss_of: Callable[..., Tensor]) -> Callable[[], object]:
        def step() -> Tensor | None:
            x.grad = None
            loss_of(x, y).backward()
            return x.grad

        return step

    found: Candidates = {
        OURS: through_autograd(ours),
        "torch": through_autograd(theirs),
        "torch.compile": through_autograd(torch.compile(theirs, dynamic=False)),
    }
    if everything and case.dtype is torch.float32:
        for name, kernel in card.variants().items():
            found[name.replace("cpp-", "kernel ")] = lambda kernel=kernel: kernel(logits, target)[1]
        found["numba"] = lambda: numba(logits, target)[1]
    # torch computes the gradient of bfloat16 from log-probabilities in bfloat16
    tolerance = 1e-5 if case.dtype is torch.float32 else 4 * torch.finfo(case.dtype).eps
    _same(found, card.reference(x.detach().double().numpy(), target)[1], tolerance)
    return found


class _Nothing(torch.autograd.Function):
    """A node that computes nothing, forward and backward: its gradient is memory that no one has written."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        ctx.logits = logits.detach()
        return logits.new_empty(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Tensor:
        return torch.empty_like(ctx.logits)


def autograd_alone(case: LossCase) -> Candidates:
    """A node of autograd that computes nothing, forward and backward: no kernel behind `.backward()` takes less."""
    x = torch.rand((case.n, case.classes), dtype=case.dtype, requires_grad=True)

    def run() -> None:
        x.grad = None
        _Nothing.apply(x).backward()

    return {"autograd alone": run}


# -- conv_block --------------------------------------------------------------------------------------------------


def _torch_block(
    input: Tensor, weight: Tensor, bias: Tensor, stride: Any, padding: Any, relu: bool, pool: bool, groups: int
) -> Tensor:
    y = F.conv2d(input, weight, bias, stride, padding, groups=groups)
    y = F.relu(y) if relu else y
    return F.max_pool2d(y, 2) if pool else y


def _blocks(case: conv_card.Case) -> dict[str, tuple[Callable[..., Tensor], list[Tensor]]]:
    """name → (function of input, weight and bias, those as it likes them best)."""
    input, weight, bias, options = case.make()
    rivals = partial(_torch_block, **options)
    arrays = [torch.from_numpy(array) for array in (input, weight, bias)]
    last = [t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in arrays]
    return {
        OURS: (partial(conv_block, **options), last),
        "torch": (rivals, arrays),
        "torch channels-last": (rivals, last),
        "torch.compile": (torch.compile(rivals, dynamic=False), last),
    }


def conv_block_forward(case: conv_card.Case, everything: bool = False) -> Candidates:
    """Convolution, bias, ReLU and pool of float32 pictures without autograd. With `everything` also the bare kernel
    per instruction set and the numba variant."""

    def forward(block: Callable[..., Tensor], tensors: list[Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.no_grad():
                return block(*tensors)

        return run

    found: Candidates = {name: forward(*of) for name, of in _blocks(case).items()}
    *arrays, options = case.make()
    if everything:
        for isa in kernels.isas():
            found[f"kernel {isa}"] = lambda isa=isa: conv_card.conv_block(*arrays, **options, isa=isa)[0]
        if case.pool:
            found["numba"] = lambda: conv_card.conv_block_numba(*arrays)
    _same(found, conv_card.reference(*arrays, **options)[0])
    return found


def conv_block_backward(case: conv_card.Case, everything: bool = False) -> Candidates:
    """Forward and backward through autograd into the gradients of weight and bias, and of the input unless it is a
    picture (one channel), as it is in training. With `everything` also the bare kernels per instruction set and the
    numba variants, forward and all three gradients."""
    grad: Tensor | None = None
    wanted = (case.shape[1] > 1, True, True)

    def both(block: Callable[..., Tensor], tensors: list[Tensor]) -> Callable[[], Tensor]:
        inputs = [tensor.detach().requires_grad_(want) for tensor, want in zip(tensors, wanted, strict=True)]

        def run() -> Tensor:
            nonlocal grad
            for tensor in inputs:
                tensor.grad = None
            output = block(*inputs)
            if grad is None:
                grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
            output.backward(grad)
            assert inputs[1].grad is not None
            return inputs[1].grad

        return run

    found: Candidates = {name: both(*of) for name, of in _blocks(case).items()}
    found[OURS]()
    assert grad is not None
    *arrays, options = case.make()
    _, code = conv_card.reference(*arrays, **options)
    if everything:
        for isa in kernels.isas():
            found[f"kernel {isa}"] = partial(_bare_backward, grad.numpy(), arrays, {**options, "isa": isa})
        found["numba"] = partial(_numba_backward, grad.numpy(), code, arrays)
    del options["relu"]
    wanted_gradient = conv_card.reference_backward(grad.numpy(), code, *arrays[:2], **options)[1]
    for name, run in found.items():  # as a whole: of two near-equals not everybody finds the same maximum
        error = np.linalg.norm(np.asarray(run(), dtype=np.float64) - wanted_gradient) / np.linalg.norm(wanted_gradient)
        if not error <= 1e-2:
            raise AssertionError(f"{name} is wrong by {error:.3g} of the gradient; nothing was timed")
    return found


def _bare_backward(grad: np.ndarray, arrays: list[np.ndarray], options: dict[str, Any]) -> np.ndarray:
    _, code = conv_card.conv_block(*arrays, **options)
    return conv_card.conv_block_backward(grad, code, *arrays[:2], **options)[1]


def _numba_backward(grad: np.ndarray, code: np.ndarray, arrays: list[np.ndarray]) -> np.ndarray:
    conv_card.conv_block_numba(*arrays)
    return conv_card.conv_block_backward_numba(grad, code, *arrays[:2])[1]


# -- seed_cnn ----------------------------------------------------------------------------------------------------


def train_step(case: tuple[int, bool], everything: bool = False) -> Candidates:
    """Forward, loss, backward and SGD of seed_cnn on 28 × 28 pictures, dropout on. case: batch, with batch norm."""
    batch, batch_norm = case

    def step(kernels: str, prepare: Callable[[nn.Module], nn.Module], last: bool) -> Callable[[], float]:
        torch.manual_seed(0)
        net = build("seed_cnn", (1, 28, 28), 10, {"kernels": kernels, "batch_norm": batch_norm}).train()
        net = prepare(net.to(memory_format=torch.channels_last) if last else net)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        x = torch.rand(batch, 1, 28, 28, generator=torch.Generator().manual_seed(1))
        y = torch.randint(0, 10, (batch,), generator=torch.Generator().manual_seed(2))
        loss_of = softmax_cross_entropy if kernels == OURS else F.cross_entropy

        def run() -> float:
            optimizer.zero_grad()
            loss = loss_of(net(x), y)
            loss.backward()
            optimizer.step()
            return loss.item()

        torch.manual_seed(3)  # of dropout in the first step, whose loss is compared
        return run

    found: Candidates = {}
    losses = []
    for name, arguments in {
        OURS: (OURS, lambda net: net, False),
        "torch": ("torch", lambda net: net, False),
        "torch channels-last": ("torch", lambda net: net, True),
        "torch.compile": ("torch", torch.compile, True),
    }.items():
        found[name] = step(*arguments)
        losses.append(found[name]())
    if not np.ptp(losses[:3]) < 1e-4:  # torch.compile draws its dropout otherwise
        raise AssertionError(f"the first losses differ: {losses}; nothing was timed")
    return found


# -- all ---------------------------------------------------------------------------------------------------------


def _same(candidates: Candidates, reference: np.ndarray, tolerance: float = 1e-5) -> None:
    for name, step in candidates.items():
        found = step()
        values = found.double().numpy() if isinstance(found, Tensor) else np.asarray(found, np.float64)
        error = np.abs(values - reference).max()
        if not error <= tolerance * np.abs(reference).max() + 1e-9:
            raise AssertionError(f"{name} is wrong by {error:.3g}; nothing was timed")


def bounds(cost: tuple[int, int]) -> Candidates:
    """What bounds a kernel of so many (bytes, flops) on this machine: torch's copy of as many bytes, read and written
    together, and torch's product of two 1024 × 1024 matrices (SGEMM_FLOPS)."""
    source = torch.rand(max(1, cost[0] // 8))
    goal, a = torch.empty_like(source), torch.rand(1024, 1024)
    return {COPY: lambda: goal.copy_(source), SGEMM: lambda: a @ a}


COPY, SGEMM = "copy of as many bytes", "sgemm 1024"
SGEMM_FLOPS = 2 * 1024**3


@dataclass(frozen=True)
class Comparison:
    """make(case) gives the candidates `names`, and with everything=True those of `more`, too; cost(case) the bytes and
    flops that it can't do without; more_bounds(case) what else bounds it on this machine; cases: name → case."""

    make: Callable[..., Candidates]
    cases: dict[str, Any]
    names: tuple[str, ...]
    more: tuple[str, ...] = ()
    cost: Callable[[Any], tuple[int, int]] | None = None
    more_bounds: Callable[[Any], Candidates] = lambda _: {}
    bursts: bool = False  # some candidates have a pool of threads of their own: timing.alternate tells why

    def yardsticks(self, case: Any) -> Candidates:
        return (bounds(self.cost(case)) if self.cost else {}) | self.more_bounds(case)


_NAMES = (OURS, "torch", "torch channels-last", "torch.compile")
_VARIANTS = (*(f"kernel {isa}" for isa in kernels.isas()), "numba")
_BLOCKS = {case.name: case for case in conv_card.BENCHMARK_CASES}
_CONVOLUTIONS = {case.name: case for case in conv_card.PLAIN_BENCHMARK_CASES}


def _loss_comparison(card: ModuleType, *functions: Callable[..., Any], bfloat16: Any = ()) -> Comparison:
    cases = {f"{n}x{classes}": LossCase(n, classes) for n, classes in card.BENCHMARK_SHAPES}
    for n, classes in bfloat16:
        cases[f"{n}x{classes} bfloat16"] = LossCase(n, classes, torch.bfloat16)

    def cost(case: LossCase) -> tuple[int, int]:
        return card.cost(case.n, case.classes, case.dtype.itemsize)

    names = (OURS, "torch", "torch.compile")
    return Comparison(partial(loss, card, *functions), cases, names, _VARIANTS, cost, autograd_alone)


def _three_times(case: conv_card.Case) -> tuple[int, int]:
    """Forward, weight gradient and input gradient, the last only if it is wanted: as many products each."""
    transferred, flops = conv_card.cost(case)
    passes = 3 if case.shape[1] > 1 else 2
    return passes * transferred, passes * flops


COMPARISONS: dict[str, Comparison] = {
    "softmax_xent": _loss_comparison(
        softmax_card,
        softmax_cross_entropy,
        F.cross_entropy,
        softmax_card.softmax_xent_numba,
        bfloat16=((512, 1000), (4096, 1000)),
    ),
    "bce_with_logits": _loss_comparison(
        bce_card,
        binary_cross_entropy_with_logits,
        F.binary_cross_entropy_with_logits,
        bce_card.bce_with_logits_numba,
    ),
    "conv_block": Comparison(conv_block_forward, _BLOCKS, _NAMES, _VARIANTS, conv_card.cost),
    "conv_block_backward": Comparison(conv_block_backward, _BLOCKS, _NAMES, _VARIANTS, _three_times),
    "batch_norm_block": Comparison(
        candidates_batch_norm.candidates, candidates_batch_norm.CASES, _NAMES, _VARIANTS, candidates_batch_norm.cost
    ),
    "conv": Comparison(conv_block_forward, _CONVOLUTIONS, _NAMES, _VARIANTS, conv_card.cost),
    "gaussian_blur": Comparison(
        candidates_blur.candidates,
        candidates_blur.CASES,
        candidates_blur.NAMES,
        _VARIANTS,
        candidates_blur.card.cost,
        bursts=True,
    ),
    "resize": Comparison(
        candidates_resize.candidates,
        candidates_resize.CASES,
        candidates_resize.NAMES,
        _VARIANTS,
        candidates_resize.card.cost,
        bursts=True,
    ),
    "train_step": Comparison(train_step, {"100": (100, False), "100 with batch norm": (100, True)}, _NAMES),
}
