"""Photographs to what a net reads, where they lie: hw4fast.data.Preprocessing, on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hw4fast.data.preprocessing import Preprocessing
from hw4fast.kernels.resize import FILTERS
from hw4fast.nn.resize import resize


def fit(
    pictures: Tensor | Sequence[Tensor], preprocessing: Preprocessing, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Pictures resized, cropped and normalised as `preprocessing` says: the numbers of its `fit` and `normalise`.

    pictures: uint8 [n, h, w, c] with the c channels that the net reads, or a list of [h, w, c] whose sides may differ;
    preprocessing: of a card, `Classifier(…).card.preprocessing`. → `dtype` [n, c, height, width] on the pictures'
    device: what `Classifier.logits` takes, without a copy, when both are on the GPU.
    Raises ValueError for an interpolation or a divisor that the kernel doesn't know (nearest; other than 255), for
    another number of channels, and for what Preprocessing.places refuses; what hw4fast.nn.resize raises, too.
    """
    p = preprocessing
    if p.interpolation not in FILTERS or p.divisor != 255:
        raise ValueError(
            f"the kernel knows {', '.join(FILTERS)} and divides by 255, not {p.interpolation} and {p.divisor:g}; "
            "use Classifier.fit and Classifier.tensor"
        )
    batches = [pictures] if isinstance(pictures, Tensor) else [picture[None] for picture in pictures]
    if not batches:
        raise ValueError("there must be a picture")
    if any(batch.dim() != 4 or batch.shape[3] != p.channels for batch in batches):
        raise ValueError(f"the net reads pictures of {p.channels} channels, [h, w, {p.channels}]")
    turned = p.mode == "BGR"  # mean and std are in the net's order, pictures are RGB
    mean, std = (p.mean[::-1], p.std[::-1]) if turned else (p.mean, p.std)
    fitted = [resize(batch, *p.places(*batch.shape[1:3]), p.interpolation, mean, std, dtype) for batch in batches]
    joined = fitted[0] if len(fitted) == 1 else torch.cat(fitted)
    return joined.flip(1) if turned else joined
