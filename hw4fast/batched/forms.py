"""The table of batched forms, and chains of them.

Integers, and floats that are rounded after each operation, are the same on every device. So a form gives its
transform's bytes, as long as it uses no operation that a device may round otherwise: no division by a number (torch
multiplies by its reciprocal on a GPU; division by a tensor is one), nothing fused, no sums but exact ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hw4fast.registry import Registry
from hw4fast.transforms import Chain
from hw4fast.transforms.randomness import generator

if TYPE_CHECKING:
    from hw4fast.data.preprocessing import Preprocessing

# f(pictures, **parameters) → pictures: uint8 [n, h, w, 1 or 3] in, a new tensor of that shape out, on the same device.
# Of a transform that is `random` it gets `rngs`, too, a generator per picture; where it `reads`, the first argument is
# a list of pictures as they were decoded, [h, w, 1 or 3] of any size, and `preprocessing` comes beside the parameters.
Form = Callable[..., Tensor]
FORMS: Registry[Form] = Registry("batched form")
# How many numbers the largest field has that the form of that name computes with, of a picture of that height and
# width; where none is given, as many as the picture.
FIELDS: dict[str, Callable[[tuple[int, int]], int]] = {}


def knows(chain: Chain) -> bool:
    """Whether every transform of the chain has a batched form."""
    return all(link.transform.name in FORMS and not link.transform.fingerprint for link in chain.links)


def apply(
    chain: Chain,
    pictures: Tensor,
    keys: Sequence[bytes],
    seed: int,
    decoded: Sequence[Tensor] = (),
    preprocessing: Preprocessing | None = None,
) -> Tensor:
    """uint8 [n, h, w, 1 or 3] → the same shape, each picture's bytes those of `chain(picture, seed=seed, key=key, …)`.

    keys: of each picture (see Chain). decoded, preprocessing: where the first link `reads`, the pictures before they
    were brought to their size, uint8 [h, w, 1 or 3] each, and how that was done.
    Raises UsageError for a transform without a batched form, TypeError for what is no chain, tensor or key, ValueError
    for pictures of another dtype or shape, another number of keys, and where the decoded ones are needed and missing.
    """
    if not isinstance(chain, Chain):
        raise TypeError(f"chain is what hw4fast.transforms.parse gives, not {type(chain).__name__}")
    if not isinstance(pictures, Tensor):
        raise TypeError(f"pictures are a tensor, not {type(pictures).__name__}")
    if pictures.dtype is not torch.uint8 or pictures.dim() != 4 or pictures.shape[3] not in (1, 3):
        raise ValueError(f"pictures are uint8 [n, h, w, 1 or 3], not {pictures.dtype} {list(pictures.shape)}")
    if 0 in pictures.shape[1:]:
        raise ValueError(f"pictures must have pixels: {list(pictures.shape)}")
    if len(keys) != len(pictures):
        raise ValueError(f"there must be a key per picture: {len(pictures)}, not {len(keys)}")
    if not all(isinstance(key, bytes) for key in keys):
        raise TypeError("a picture's key is bytes")
    if not len(pictures):
        return pictures.clone()
    result = pictures
    for position, link in enumerate(chain.links):
        given: dict[str, Any] = dict(link.parameters)
        form = FORMS.get(link.transform.name)
        if link.transform.random:
            name, draw = link.transform.name, link.draw
            given["rngs"] = [generator(seed, key, name, draw, position) for key in keys]
        if link.transform.reads:
            if preprocessing is None or len(decoded) != len(pictures):
                raise ValueError(f"{link.name} is about how a picture is read: it needs them as they were decoded")
            result = form(decoded, preprocessing=preprocessing, **given)
        else:
            result = form(result, **given)
    return result


def look_up(pictures: Tensor, table: Tensor) -> Tensor:
    """uint8 [n, h, w, c]. table: uint8 [256]; or [n, c, 256], one for each picture's channels."""
    if table.dim() == 1:
        return table[pictures.int()]
    n, channels = table.shape[:2]
    begin = torch.arange(0, 256 * n * channels, 256, dtype=torch.int32, device=pictures.device)
    return table.flatten()[pictures.int() + begin.view(n, 1, 1, channels)]


def sides(pictures: Tensor) -> tuple[int, int]:
    """Height and width of [n, h, w, c]."""
    return pictures.shape[1], pictures.shape[2]


def on(pictures: Tensor, values: np.ndarray) -> Tensor:
    """An array on the pictures' device."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(pictures.device)


def per_picture(pictures: Tensor, values: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
    """A number per picture, [n, 1, 1, 1]."""
    return torch.tensor(values, dtype=torch.float64).to(dtype).view(-1, 1, 1, 1).to(pictures.device)


def single(number: float | np.floating) -> float:
    """As float32 holds it: what a kernel of the CPU computes with."""
    return float(np.float32(number))


def nearest(values: Tensor) -> Tensor:
    """Float grey levels → uint8, halves to even, clipped."""
    return values.round().clamp(0, 255).to(torch.uint8)


def rounded_down(values: Tensor) -> Tensor:
    """Float grey levels → uint8, clipped."""
    return values.clamp(0, 255).to(torch.uint8)
