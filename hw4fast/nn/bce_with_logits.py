"""bce_with_logits as a torch operator, a function and a module: schema, CPU kernel and fake kernel together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hw4fast.kernels import bce_with_logits as card
from hw4fast.kernels import compiled
from hw4fast.nn import cuda
from hw4fast.nn.losses import Loss, gradient_of
from hw4fast.nn.operators import DTYPES, cast_up, check_tensors, no_tensors, threads

_C = compiled()


def _bce_with_logits_cpu(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: int,
    want_grad: bool = True,
) -> tuple[Tensor, Tensor]:
    logits, target = logits.contiguous(), target.contiguous()
    weight = None if weight is None else weight.contiguous()
    pos_weight = None if pos_weight is None else pos_weight.contiguous()
    loss = logits.new_empty(logits.shape if reduction == 0 else ())
    grad = gradient_of(logits) if want_grad else logits.new_empty((0,))
    _C.bce_with_logits(
        logits.dtype is torch.float64,
        logits.data_ptr(),
        target.data_ptr(),
        0 if weight is None else weight.data_ptr(),
        0 if weight is None else weight.numel(),
        0 if pos_weight is None else pos_weight.data_ptr(),
        0 if pos_weight is None else pos_weight.numel(),
        loss.data_ptr(),
        grad.data_ptr() if want_grad else 0,
        logits.numel(),
        reduction,
        "",  # positional: pybind11 takes a microsecond for keywords
        threads(),
    )
    return loss, grad


def _bce_with_logits_cuda(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: int,
    want_grad: bool = True,
) -> tuple[Tensor, Tensor]:
    logits, target = logits.contiguous(), target.contiguous()
    weight = None if weight is None else weight.contiguous()
    pos_weight = None if pos_weight is None else pos_weight.contiguous()
    loss = logits.new_empty(logits.shape if reduction == 0 else ())
    grad = torch.empty_like(logits) if want_grad else logits.new_empty((0,))
    _cuda = cuda.module()
    scratch = cuda.scratch(logits, _cuda.bce_with_logits_scratch)
    cuda.launch(
        _cuda.bce_with_logits,
        logits,
        cuda.CODES[logits.dtype],
        logits.data_ptr(),
        target.data_ptr(),
        cuda.address(weight),
        0 if weight is None else weight.numel(),
        cuda.address(pos_weight),
        0 if pos_weight is None else pos_weight.numel(),
        loss.data_ptr(),
        grad.data_ptr() if want_grad else 0,
        scratch.data_ptr(),
        logits.numel(),
        reduction,
    )
    return loss, grad


def _check(input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, reduction: str) -> None:
    """Shapes, values, dtypes and gradients: for the function, and for the operator, which anyone can call."""
    card.check(input, target, weight, pos_weight, reduction, "input")
    if input.dtype not in DTYPES:
        raise TypeError(f"input must be float32 or float64, not {input.dtype}")
    for name, given in (("target", target), ("weight", weight), ("pos_weight", pos_weight)):
        if given is None:
            continue
        if given.dtype != input.dtype:
            raise TypeError(f"{name} must be {input.dtype} like input, not {given.dtype}")
        if given.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{name} must not require a gradient; there is none for it: take {name}.detach()")


def _bce_with_logits_op(
    compute: Callable[..., tuple[Tensor, Tensor]],
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: int = 1,
    want_grad: bool = True,
) -> tuple[Tensor, Tensor]:
    names = {number: name for name, number in card.REDUCTIONS.items()}
    _check(logits, target, weight, pos_weight, names.get(reduction, str(reduction)))
    check_tensors("bce_with_logits", logits, target, weight, pos_weight, cuda=True)
    return compute(logits, target, weight, pos_weight, reduction, want_grad)


def _bce_with_logits_fake(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: int = 1,
    want_grad: bool = True,
) -> tuple[Tensor, Tensor]:
    if any(given is not None and given.device != logits.device for given in (target, weight, pos_weight)):
        raise RuntimeError("bce_with_logits needs all its tensors on one device")  # one of them is on "meta"
    loss = logits.new_empty(tuple(logits.shape) if reduction == 0 else ())
    return loss, logits.new_empty(tuple(logits.shape) if want_grad else (0,))


_bce_with_logits = Loss(
    "bce_with_logits",
    "binary_cross_entropy_with_logits",
    "F.binary_cross_entropy_with_logits",
    _bce_with_logits_cpu,
    _bce_with_logits_cuda,
)
_bce_with_logits.define(
    "Tensor logits, Tensor target, Tensor? weight=None, Tensor? pos_weight=None, int reduction=1, bool want_grad=True",
    _bce_with_logits_op,
    _bce_with_logits_fake,
)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """torch.nn.functional.binary_cross_entropy_with_logits, loss and gradient in one pass over the logits.

    input: logits of any shape, float32 or float64; target: 0 … 1, of input's shape and dtype;
    weight, pos_weight: of input's dtype and the shape of its last dimensions (all, [classes], one number);
    reduction: "mean", "sum" or "none". Returns a scalar, or input's shape for "none".
    Under torch.autocast bfloat16 and float16 are cast up: as torch's, the loss is computed in float32.
    Raises ValueError for a wrong shape or reduction, for tensors on several devices and for a target or weight that
    requires a gradient, TypeError for a wrong type or dtype, NotImplementedError for a device other than the CPU and
    NVIDIA's GPUs.
    See hw4fast.kernels.bce_with_logits for the formula, its sources and the float64 reference.
    """
    if not (
        isinstance(input, Tensor)
        and isinstance(target, Tensor)
        and (weight is None or isinstance(weight, Tensor))
        and (pos_weight is None or isinstance(pos_weight, Tensor))
    ):
        raise no_tensors({"input": input, "target": target}, weight=weight, pos_weight=pos_weight)
    dtype = input.dtype
    if (
        dtype not in DTYPES
        or target.dtype is not dtype
        or (weight is not None and weight.dtype is not dtype)
        or (pos_weight is not None and pos_weight.dtype is not dtype)
    ):
        input, target, weight, pos_weight = cast_up(input, target, weight, pos_weight)
    _check(input, target, weight, pos_weight, reduction)
    return _bce_with_logits((input, target, weight, pos_weight), (card.REDUCTIONS[reduction],))


class BinaryCrossEntropyWithLogits(nn.Module):
    """`binary_cross_entropy_with_logits` with its options kept, as torch.nn.BCEWithLogitsLoss keeps them."""

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean", pos_weight: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(input, target, self.weight, self.reduction, self.pos_weight)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
