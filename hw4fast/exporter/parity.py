"""How far the file is from torch: its inputs to the bit, its answers in float32 and float64."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hw4fast.data import Preprocessing
from hw4fast.errors import UserError
from hw4fast.exporter.source import Source
from hw4fast.inference.classifier import Classifier

BATCHES = (1, 2, 7)


def compare_inputs(source: Source) -> dict[str, Any]:
    """From JPEG bytes to the net's input by torchvision's own transforms: the same tensors to the last bit, or
    UserError."""
    if not source.photographs:
        return {}
    from PIL import Image

    theirs = torchvisions_transforms(source.preprocessing)
    ours = torch.from_numpy(source.preprocessing.normalise(source.pictures))
    for mine, file in zip(ours, source.photographs, strict=True):
        wanted = theirs(Image.open(io.BytesIO(file)).convert("RGB"))
        if not torch.equal(mine, wanted):
            worst = float((mine - wanted).abs().max())
            raise UserError(f"our input differs from torchvision's by {worst:.3g}; no file was written")
    return {"inputs_equal_to_torchvision": len(source.photographs)}


def torchvisions_transforms(p: Preprocessing) -> Any:
    """The same by torchvision: a Pillow image with the right channels → float32 [c, h, w]."""
    from torchvision import transforms

    mode = transforms.InterpolationMode(p.interpolation)
    if p.resize == "stretch":
        fit = [transforms.Resize(list(p.crop), mode)]
    else:
        fit = [transforms.Resize(p.resize_size, mode), transforms.CenterCrop(list(p.crop))]
    # as the presets of its weights do it; its newer ToDtype multiplies by 1/255 instead, which rounds another way
    end = [transforms.PILToTensor(), transforms.ConvertImageDtype(torch.float32), transforms.Normalize(p.mean, p.std)]
    return transforms.Compose([*fit, *end])


class Differs(UserError):
    """The file is too far from torch."""


def compare(
    source: Source, path: Path, tolerance: float, fused: bool = False, precision: str = "float32"
) -> dict[str, Any]:
    """Runs the file as `classify` would and measures how far it is from torch, in float32 and float64; of a fused one
    hw4fast's kernels, and what the file says that they mean.

    In float32 every answer must be torch's. In another precision those may differ where float64's first and second
    logit are no further apart than twice the error, and nowhere else can they: `near_ties` says how many those are.
    Raises Differs.
    """
    pictures, model = source.pictures, source.model
    with torch.inference_mode():
        inputs = torch.from_numpy(source.preprocessing.normalise(pictures))
        single = model(inputs).numpy()
        double = model.double()(inputs.double()).numpy()
        model.float()
    sizes = (len(pictures), *BATCHES)
    classifiers = [Classifier(path, kernels=kernels, trusted=True) for kernels in ((True, False) if fused else (True,))]
    ours = np.stack(  # [runs, n, classes]; the worst of them counts, and a NaN makes the maximum a NaN
        [
            np.concatenate([classifier.logits(pictures[i : i + size]) for i in range(0, len(pictures), size)])
            for classifier in classifiers
            for size in sizes
        ]
    )
    largest, error = float(np.abs(double).max()), float(np.abs(ours - double).max())
    second, first = np.sort(double, axis=1)[:, -2:].T
    parity: dict[str, Any] = {
        "precision": precision,
        "images": len(pictures),
        "batches": list(sizes),
        "provider": classifiers[0].provider,
        "largest_logit": largest,
        "max_error_to_torch": float(np.abs(ours - single).max()),
        "max_error_to_float64": error,
        "torch_max_error_to_float64": float(np.abs(single - double).max()),
        "same_answers": int((ours.argmax(2) == single.argmax(1)).all(0).sum()),
        "near_ties": int((first - second <= 2 * error).sum()),
        "tolerance": tolerance,
    }
    same = parity["same_answers"] == len(pictures)
    if not error <= tolerance * largest or (precision == "float32" and not same):
        raise Differs(
            f"the exported net differs from torch: {error:.3g} at most where {tolerance:g} × {largest:.3g} is allowed,"
            f" {parity['same_answers']} of {len(pictures)} answers the same; no file was written"
        )
    return parity
