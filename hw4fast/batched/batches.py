"""A study's device: pictures lie there, are changed there in batches, and go from there to the nets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hw4fast import kernels
from hw4fast.batched import forms
from hw4fast.errors import UsageError, UserError
from hw4fast.inference.binding import DEVICES
from hw4fast.nn import resize
from hw4fast.transforms import Chain

if TYPE_CHECKING:
    from hw4fast.data.preprocessing import Preprocessing
    from hw4fast.inference.card import Card
    from hw4fast.inference.classifier import Classifier

SIZE = 64  # pictures that go through a net at once
AT_ONCE = 1 << 24  # values that a form is given at once: some need sixty bytes for each


class TorchBatches:
    """See robustness.together.Batches; what it holds are tensors.

    device: as torch calls it. size: pictures that go through a net at once. Raises UsageError for an unknown device,
    UserError for a GPU that torch or hw4fast can't use.
    """

    def __init__(self, device: str, size: int = SIZE) -> None:
        try:
            self.name, self.size, self._device = device, size, torch.device(device)
        except RuntimeError:
            raise UsageError(f"unknown device '{device}'; take cuda or cpu") from None
        if self._device.type == "cuda":
            if not torch.cuda.is_available():
                raise UserError("torch finds no GPU here (`hw4fast info` says more)")
            if (reason := kernels.cuda_error()) is not None:
                raise UserError(reason)
            if (self._device.index or 0) >= (count := torch.cuda.device_count()):
                raise UserError(f"there is no GPU {self._device.index}; torch finds {count}, counted from 0")

    def knows(self, chain: Chain) -> bool:
        return forms.knows(chain)

    def put(self, picture: np.ndarray) -> Tensor:
        """uint8 [h, w, c] → the same on the device."""
        with _enough_memory():
            return torch.from_numpy(np.require(picture, requirements=("C", "W"))).to(self._device)

    def stack(self, pictures: Sequence[np.ndarray]) -> Tensor:
        return self.put(np.stack(pictures))

    def join(self, batches: Sequence[Tensor]) -> Tensor:
        return batches[0] if len(batches) == 1 else torch.cat(list(batches))

    def apply(
        self,
        chain: Chain | None,
        pictures: Sequence[Tensor],
        keys: Sequence[bytes],
        seed: int,
        decoded: Sequence[Tensor] = (),
        preprocessing: Preprocessing | None = None,
    ) -> Tensor:
        """See forms.apply; of large pictures a few at a time. Raises UserError where the device's memory is full."""
        if chain is None:
            return torch.stack(list(pictures))
        reads = chain.links[0].transform.reads
        largest = max(picture.numel() for picture in (*pictures, *(decoded if reads else ())))
        fields = (forms.FIELDS.get(link.transform.name, lambda _: 0) for link in chain.links)
        size = pictures[0].shape[0], pictures[0].shape[1]
        largest = max(largest, *(field(size) for field in fields))
        few = max(1, AT_ONCE // largest)
        made = []
        for begin in range(0, len(pictures), few):
            some = slice(begin, begin + few)
            with _enough_memory():
                batch = torch.stack(list(pictures[some]))
                made.append(forms.apply(chain, batch, keys[some], seed, decoded[some] if reads else (), preprocessing))
        return self.join(made)

    def answers(self, classifier: Classifier, batch: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Classifier.answers of fitted pictures, uint8 [n, h, w, c]: made into what the graph takes on the device.
        Raises UserError as that does."""
        with _enough_memory():
            tensor = ready(batch, classifier.card)
        return handed_over(classifier, tensor)


@contextmanager
def _enough_memory() -> Iterator[None]:
    """UserError where the device's is full."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise UserError("the GPU's memory is full: end what else uses it, or take the provider 'cpu'") from None


def ready(pictures: Tensor, card: Card) -> Tensor:
    """Classifier.tensor on the device: uint8 [n, h, w, c] of fitted pictures → what the graph takes, as the card
    says."""
    preprocessing, wanted = card.preprocessing, card.input
    if preprocessing.mode == "BGR":
        pictures = pictures.flip(3)
    if wanted.dtype == "uint8":
        return pictures if wanted.layout == "NHWC" else pictures.permute(0, 3, 1, 2).contiguous()
    mean, std = preprocessing.mean, preprocessing.std
    if preprocessing.divisor == 255:
        height, width = pictures.shape[1:3]
        values = resize(pictures, (height, width), mean=mean, std=std)
    else:
        divisor, means, stds = (torch.tensor(x, device=pictures.device) for x in (preprocessing.divisor, mean, std))
        values = ((pictures.float() / divisor.float() - means) / stds).permute(0, 3, 1, 2)
    values = values.to(getattr(torch, wanted.dtype))
    return (values if wanted.layout == "NCHW" else values.permute(0, 2, 3, 1)).contiguous()


def handed_over(classifier: Classifier, tensor: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and logits, float32 [n, classes] each, of what the graph takes: read where it lies, if the net
    computes there and takes as many at once. Raises UserError as Classifier.answers does."""
    there = DEVICES.get(classifier.provider) == tensor.device.type
    if there and classifier.at_once in (None, len(tensor)):
        return classifier.answers(tensor)
    return classifier.answers(tensor.cpu().numpy())
