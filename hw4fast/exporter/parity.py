"""How far the file is from torch: its inputs to the bit, its answers in float32 and float64."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hw4fast.data import Preprocessing
from hw4fast.errors import UserError
from hw4fast.exporter.source import Source
from hw4fast.inference.checked import CrashError
from hw4fast.inference.classifier import Classifier
from hw4fast.kernels import ort_calls
from hw4fast.paths import one_line

BATCHES = (1, 2, 7)


def compare_inputs(source: Source) -> dict[str, Any]:
    """From JPEG bytes to the net's input by torchvision's own transforms (see origin.transforms), which know nothing of
    ours: the same tensors to the last bit, or UserError that names the photograph."""
    if source.transforms is None:
        return {}
    ours = torch.from_numpy(source.preprocessing.normalise(source.pictures))
    for mine, file in zip(ours, source.photographs, strict=True):
        wanted = source.transforms.reference(upright(file.content))
        if torch.equal(mine, wanted):
            continue
        if mine.shape == wanted.shape:
            how = f"differs by up to {(mine - wanted).abs().max():.3g} from that of"
        else:
            how = f"is {list(mine.shape)}, not {list(wanted.shape)} as that of"
        raise UserError(
            f"our input of '{one_line(file.name)}' {how} {source.transforms.compared_with}; no file was written"
        )
    return {
        "preset": source.transforms.preset,
        "preset_because": source.transforms.because,
        "inputs_compared_with": source.transforms.compared_with,
        "inputs_equal_to_torchvision": len(source.photographs),
    }


def upright(content: bytes) -> Any:
    """The file's picture as an RGB image of Pillow's, turned as EXIF says, which torchvision's transforms don't do."""
    from PIL import Image, ImageOps

    image: Image.Image = Image.open(io.BytesIO(content))
    with contextlib.suppress(Exception):  # EXIF that can't be read says nothing
        image = ImageOps.exif_transpose(image)
    return image.convert("RGB")


def torchvisions_transforms(p: Preprocessing) -> Any:
    """What torchvision's steps make of a Pillow image with the right channels, with our numbers: float32 [c, h, w]. To
    time it; as proof of our numbers it is none."""
    from torchvision import transforms

    mode = transforms.InterpolationMode(p.interpolation)
    if p.resize == "stretch":
        fit = [transforms.Resize(list(p.crop), mode)]
    else:
        fit = [transforms.Resize(p.resize_size, mode), transforms.CenterCrop(list(p.crop))]
    # as the presets of its weights do it; its newer ToDtype multiplies by 1/255 instead, which rounds another way
    end = [transforms.PILToTensor(), transforms.ConvertImageDtype(torch.float32), transforms.Normalize(p.mean, p.std)]
    return transforms.Compose([*fit, *end])


def _opened(path: Path, precision: str) -> Classifier:
    """onnxruntime 1.31 crashes on some nets in float16 (vit_b_16, in its NchwcTransformer), so they are tried first."""
    try:
        return Classifier(path, trusted=precision == "float32")
    except CrashError as error:
        raise UserError(
            f"onnxruntime crashes on the net in {precision} ({error.signal}), so it can't be checked, and no file was"
            " written; export it in float32"
        ) from None


class Differs(UserError):
    """The file is too far from torch."""


def compare(
    source: Source, path: Path, tolerance: float, fused: bool = False, precision: str = "float32"
) -> dict[str, Any]:
    """Runs the file as `classify` would and measures how far it is from torch, in float32 and float64; of a fused one
    hw4fast's kernels, and what the file says that they mean. Raises UserError when it isn't those that ran.

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
    classifier = _opened(path, precision)
    runs, ran = _runs(classifier, pictures, sizes)
    if fused:
        if not ran:
            raise UserError(
                "hw4fast's kernels didn't run in the fused file, so they can't be checked; no file was written"
            )
        bodies, others = _runs(Classifier(path, kernels=False, trusted=True), pictures, sizes)
        assert not others, "the kernels ran where they were switched off"
        runs += bodies
    ours = np.stack(runs)  # the worst of them counts, and a NaN makes the maximum a NaN
    largest, error = float(np.abs(double).max()), float(np.abs(ours - double).max())
    leads = np.diff(np.sort(double, axis=1)[:, -2:])  # of the first logit over the second; of one class there is none
    parity: dict[str, Any] = {
        "precision": precision,
        "images": len(pictures),
        "batches": list(sizes),
        "provider": classifier.provider,
        "largest_logit": largest,
        "max_error_to_torch": float(np.abs(ours - single).max()),
        "max_error_to_float64": error,
        "torch_max_error_to_float64": float(np.abs(single - double).max()),
        "same_answers": int((ours.argmax(2) == single.argmax(1)).all(0).sum()),
        "near_ties": int((leads <= 2 * error).sum()),
        "tolerance": tolerance,
    }
    if fused:
        parity["kernels"] = ran
    same = parity["same_answers"] == len(pictures)
    if not error <= tolerance * largest or (precision == "float32" and not same):
        raise Differs(
            f"the exported net differs from torch: {error:.3g} at most where {tolerance:g} × {largest:.3g} is allowed,"
            f" {parity['same_answers']} of {len(pictures)} answers the same; no file was written"
        )
    return parity


def _runs(
    classifier: Classifier, pictures: np.ndarray, sizes: Sequence[int]
) -> tuple[list[np.ndarray], dict[str, int]]:
    """The logits [n, classes] in batches of each size, and the calls of hw4fast's kernels by instruction set."""
    before = ort_calls()
    runs = [
        np.concatenate([classifier.logits(pictures[i : i + size]) for i in range(0, len(pictures), size)])
        for size in sizes
    ]
    return runs, {isa: calls - before[isa] for isa, calls in ort_calls().items() if calls > before[isa]}
