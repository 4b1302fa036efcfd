"""What gaussian_blur is compared with: torchvision (the whole kernel at once), and OpenCV where it can be imported
(`pip install opencv-python-headless`; hw4fast doesn't need it)."""

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
NAMES = (OURS, "torchvision", *((OPENCV,) if OPENCV else ()))
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
        elif not is_hwc and name in (OPENCV, "numba"):
            wanted = reference.transpose(1, 2, 0)
        error = np.abs(result - (np.rint(wanted) if result.dtype == np.uint8 else wanted)).max()
        levels = 2 if name == OPENCV else 1
        if not error <= (levels if result.dtype == np.uint8 else 1e-5):
            raise AssertionError(f"{name} is wrong by {error:.3g}; nothing was timed")
