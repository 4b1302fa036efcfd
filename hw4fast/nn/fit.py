"""Photographs to what a net reads, where they lie: hw4fast.data.Preprocessing, on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hw4fast.data.preprocessing import Preprocessing
from hw4fast.kernels.resize import FILTERS
from hw4fast.nn.operators import no_tensors
from hw4fast.nn.resize import resize


def fit(
    pictures: Tensor | Sequence[Tensor], preprocessing: Preprocessing, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Pictures resized, cropped and normalised as `preprocessing` says: the numbers of its `fit` and `normalise`.

    pictures: uint8 [n, h, w, c] with the c channels that the net reads, or a list of [h, w, c] whose sides may differ;
    preprocessing: of a card, `Classifier(…).card.preprocessing`. → `dtype` [n, c, height, width] on the pictures'
    device: what `Classifier.logits` takes, without a copy, when both are on the GPU.
    Raises TypeError for what is no tensor, ValueError for an interpolation or a divisor that the kernel doesn't know
    (nearest; other than 255), for another number of channels, and for what Preprocessing.places refuses; what
    hw4fast.nn.resize raises, too.
    """
    p = preprocessing
    if p.interpolation not in FILTERS or p.divisor != 255:
        raise ValueError(
            f"the kernel knows {', '.join(FILTERS)} and divides by 255, not {p.interpolation} and {p.divisor:g}; "
            "use Classifier.fit and Classifier.tensor"
        )
    given = [pictures] if isinstance(pictures, Tensor) else list(pictures)
    if not given:
        raise ValueError("there must be a picture")
    if wrong := [picture for picture in given if not isinstance(picture, Tensor)]:
        raise no_tensors({"picture": wrong[0]})
    sides = 4 if isinstance(pictures, Tensor) else 3
    if wrong := [picture for picture in given if picture.dim() != sides or picture.shape[-1] != p.channels]:
        raise ValueError(
            f"the net reads pictures of {p.channels} channels, one tensor [n, h, w, {p.channels}] or a list of"
            f" [h, w, {p.channels}], not {list(wrong[0].shape)}"
        )
    batches = given if sides == 4 else [picture[None] for picture in given]
    turned = p.mode == "BGR"  # mean and std are in the net's order, pictures are RGB
    mean, std = (p.mean[::-1], p.std[::-1]) if turned else (p.mean, p.std)
    fitted = [resize(batch, *p.places(*batch.shape[1:3]), p.interpolation, mean, std, dtype) for batch in batches]
    joined = fitted[0] if len(fitted) == 1 else torch.cat(fitted)
    return joined.flip(1) if turned else joined
