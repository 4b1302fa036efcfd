"""What gaussian_blur is compared with: torchvision (the whole kernel at once), OpenCV where it can be imported, and
the sums in NumPy that transforms/blur.py did before there was a kernel."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from torchvision.transforms.v2 import functional as torchvision

from hw4fast import kernels
from hw4fast.kernels import gaussian_blur as card
from hw4fast.nn import gaussian_blur

OURS = "hw4fast"
OPENCV = "cv2" if find_spec("cv2") else None
NAMES = (OURS, "torchvision", "numpy", *((OPENCV,) if OPENCV else ()))
CASES = {case.name: case for case in card.BENCHMARK_CASES}


def candidates(case: card.Case, everything: bool = False) -> dict[str, Callable[[], object]]:
    """One picture, in the memory of the case's layout; a rival that wants the other layout has it. With `everything`
    also the bare kernel per instruction set and the numba variant."""
    image, options = case.make()
    size, is_hwc = case.kernel_size, case.layout == "HWC"
    hwc = image if is_hwc else np.ascontiguousarray(image.transpose(1, 2, 0))
    chw = torch.from_numpy(image).permute(2, 0, 1) if is_hwc else torch.from_numpy(image)
    theirs = chw.contiguous()
    found: dict[str, Callable[[], object]] = {
        OURS: lambda: gaussian_blur(chw, size),
        "torchvision": lambda: torchvision.gaussian_blur(theirs, [size, size]),
        "numpy": lambda: _numpy(hwc, size),
    }
    if OPENCV:
        import cv2

        cv2.setNumThreads(torch.get_num_threads())
        sigma = card.default_sigma(size)  # said aloud: for 0 it has kernels of its own up to 7
        found[OPENCV] = lambda: cv2.GaussianBlur(hwc, (size, size), sigma)
    if everything:
        for isa in kernels.isas():
            found[f"kernel {isa}"] = lambda isa=isa: card.gaussian_blur(image, **options, isa=isa)
        found["numba"] = lambda: card.gaussian_blur_numba(hwc, size)
    _check(found, card.reference(image, **options), is_hwc)
    return found


def _check(found: dict[str, Callable[[], object]], reference: np.ndarray, is_hwc: bool) -> None:
    """Every candidate within 1 grey level (OpenCV, whose weights have 8 bits: 2) or 1e-5 of the float64 reference."""
    for name, run in found.items():
        result = np.asarray(run())
        wanted = reference
        if is_hwc and name in (OURS, "torchvision"):
            wanted = reference.transpose(2, 0, 1)
        elif not is_hwc and name in ("numpy", OPENCV, "numba"):
            wanted = reference.transpose(1, 2, 0)
        error = np.abs(result - (np.rint(wanted) if result.dtype == np.uint8 else wanted)).max()
        levels = 2 if name == OPENCV else 1
        if not error <= (levels if result.dtype == np.uint8 else 1e-5):
            raise AssertionError(f"{name} is wrong by {error:.3g}; nothing was timed")


def _numpy(image: np.ndarray, size: int) -> np.ndarray:
    """[h, w, c]: two taps share a product, plain sums in a fixed order."""
    weights = card.gaussian_weights(size, card.default_sigma(size)).astype(np.float32)
    result = image.astype(np.float32)
    radius = size // 2
    for axis in (0, 1):
        length = image.shape[axis]
        padded = result.take(card.reflected(radius, length), axis)
        parts = [padded[k : k + length] if axis == 0 else padded[:, k : k + length] for k in range(size)]
        result = parts[radius] * weights[radius]
        pair = np.empty_like(result)
        for offset in range(1, radius + 1):
            np.add(parts[radius - offset], parts[radius + offset], out=pair)
            pair *= weights[radius + offset]
            result += pair
    return np.clip(np.rint(result), 0, 255).astype(np.uint8) if image.dtype == np.uint8 else result
