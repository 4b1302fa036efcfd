"""What stands around the net in a training step on a GPU, in a kernel each: a batch, and the account of the step."""

from __future__ import annotations

import torch
from torch import Tensor

from hw4fast.nn import cuda


def gather_batch(
    pictures: Tensor, labels: Tensor, order: Tensor, at: Tensor, size: int, stride: int, mean: Tensor, std: Tensor
) -> tuple[Tensor, Tensor]:
    """Batch number `at` of an epoch: inputs float32 [size, channels, h, w], channels-last in memory, and labels.

    pictures: uint8 [n, h, w, channels], channels up to 4; labels: int64 [n]; order: int64 [n], rows of pictures, of
    which each batch but the last has `stride`; at: int64 [1]; mean, std: float32 [channels], on the CPU.
    (picture / 255 − mean) / std is rounded as torch rounds it, so the bits are those of three operations.
    """
    _, h, w, channels = pictures.shape
    x = torch.empty((size, h, w, channels), dtype=torch.float32, device=pictures.device)
    y = torch.empty(size, dtype=torch.int64, device=pictures.device)
    fill = [0.0] * (4 - channels)
    cuda.launch(
        cuda.module().gather_batch,
        pictures,
        tuple(t.data_ptr() for t in (pictures, labels, order, at, x, y)),
        size,
        stride,
        h * w * channels,
        [*mean.tolist(), *fill],
        [*std.tolist(), *fill],
        channels,
    )
    return x.permute(0, 3, 1, 2), y


def tally_step(
    logits: Tensor,
    y: Tensor,
    loss: Tensor,
    rates: Tensor,
    rate: Tensor | None,
    at: Tensor,
    cost: Tensor,
    right: Tensor,
    last_right: Tensor,
    bad: Tensor,
) -> None:
    """Accounts for a step, in place: cost (float64) += loss·size; right and last_right: answers that are; bad: 1 + the
    first step whose loss isn't finite, else 0; at += 1; rate: rates[at] for the next step. int64 but where said."""
    logits, loss = logits.contiguous(), loss.float()
    accounts = (logits, y, loss, rates, rate, at, cost, right, last_right, bad)
    size, classes = logits.shape
    cuda.launch(
        cuda.module().tally_step,
        logits,
        cuda.CODES[logits.dtype],
        tuple(cuda.address(t) for t in accounts),
        size,
        classes,
        len(rates),
    )
