"""The losses that a run can minimise, on our kernels or torch's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hw4fast.nn import softmax_cross_entropy

# whose kernels → softmax cross entropy of them
CROSS_ENTROPIES: dict[str, Callable[..., Tensor]] = {
    "hw4fast": softmax_cross_entropy,
    "torch": nn.functional.cross_entropy,
}


def cross_entropy(logits: Tensor, target: Tensor, kernels: str, label_smoothing: float = 0.0) -> Tensor:
    """mean −ln p_y in nats, p = softmax(logits). logits: [n, classes]; target: int64 [n].

    label_smoothing: the share of each target that is spread over all classes.
    """
    if not label_smoothing:
        return CROSS_ENTROPIES[kernels](logits, target)
    return CROSS_ENTROPIES[kernels](logits, target, label_smoothing=label_smoothing)


def seed(logits: Tensor, target: Tensor, kernels: str, label_smoothing: float = 0.0) -> Tensor:
    """mean −p_y, between −1 and 0: the homework's, which gave probabilities to a loss that expects their logarithms.

    Its gradient is p_y times cross entropy's, p_y·(p − y): a picture that the net gets thoroughly wrong (p_y near 0)
    teaches it nothing. Computed as −exp(−cross entropy).
    """
    return -torch.exp(-CROSS_ENTROPIES[kernels](logits, target, reduction="none")).mean()


LOSSES: dict[str, Callable[..., Tensor]] = {"cross-entropy": cross_entropy, "seed": seed}
