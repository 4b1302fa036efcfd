"""resize on one GPU beside torchvision's, and a copy of as many bytes: python benchmarks/gpu_resize.py [--json FILE]

Photographs' way to a net: the shorter side to 256, the middle 224², normalised. Medians of calls timed by CUDA events,
warm, in turns; no timing counts before equality passed: within a grey level and a bit of torchvision, which doesn't
round to bytes between its passes.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from gpu_blur import seconds
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from hw4fast.data.preprocessing import PRESETS
from hw4fast.kernels import resize as card
from hw4fast.nn import resize

USUAL = PRESETS["imagenet"]
MEAN, STD = USUAL.mean, USUAL.std
CASES = [
    (1, 375, 500, "bilinear", "float32"),
    (64, 375, 500, "bilinear", "float32"),
    (64, 375, 500, "bilinear", "bfloat16"),
    (64, 375, 500, "bicubic", "float32"),
    (8, 3000, 4000, "bilinear", "float32"),
]
SIZE, BOX = (256, 341), (16, 58, 224, 224)
TURNS = 5


def theirs(pictures: Tensor, interpolation: str, dtype: torch.dtype) -> Tensor:
    """pictures: uint8 [n, 3, h, w], the layout that torchvision reads."""
    mode = InterpolationMode(interpolation)
    resized = tv.center_crop(tv.resize(pictures, list(SIZE), interpolation=mode, antialias=True), [224, 224])
    return tv.normalize(resized.float() / 255, MEAN, STD).to(dtype)


def of_case(n: int, h: int, w: int, interpolation: str, dtype_name: str) -> dict[str, Any]:
    dtype = getattr(torch, dtype_name)
    rows = torch.randint(0, 256, (n, h // 8, w // 8, 3), dtype=torch.uint8, device="cuda")
    pictures = rows.repeat_interleave(8, 1).repeat_interleave(8, 2).contiguous()
    h, w = pictures.shape[1:3]
    planar = pictures.permute(0, 3, 1, 2).contiguous()

    def ours() -> Tensor:
        return resize(pictures, SIZE, BOX, interpolation, MEAN, STD, dtype)

    differs = (ours().float() - theirs(planar, interpolation, dtype).float()).abs() * 255 * min(STD)
    if interpolation == "bicubic":  # what overshoots Pillow cuts off between the passes, torchvision at the end
        assert differs.mean() < 1, f"{differs.mean()} grey levels beside torchvision, on average"
    else:
        assert differs.max() < 2.5, f"{differs.max()} grey levels beside torchvision"
    read, _ = card.cost(card.Case("", (h, w, 3), SIZE, BOX, interpolation))
    moved = n * (read + 3 * 224 * 224 * (dtype.itemsize - 1))  # `read` counts a byte for each output
    source = torch.empty(moved // 2, dtype=torch.uint8, device="cuda")
    copied = torch.empty_like(source)
    calls = {
        "hw4fast": (ours, 30),
        "torchvision": (lambda: theirs(planar, interpolation, dtype), 10),
        "copy": (lambda: copied.copy_(source), 30),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(TURNS):
        for name, (call, repeats) in calls.items():
            times[name].append(statistics.median(seconds(call, repeats)))
    ratios = sorted(t / o for t, o in zip(times["torchvision"], times["hw4fast"], strict=True))
    return {
        "pictures": n,
        "shape": [h, w],
        "interpolation": interpolation,
        "dtype": dtype_name,
        "us": 1e6 * statistics.median(times["hw4fast"]),
        "torchvision_us": 1e6 * statistics.median(times["torchvision"]),
        "copy_us": 1e6 * statistics.median(times["copy"]),
        "ratio": statistics.median(ratios),
        "ratio_least": ratios[0],
        "ratio_most": ratios[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    for case in CASES:
        entry = of_case(*case)
        results.append(entry)
        print(
            f"resize {entry['pictures']} × {entry['shape']} {entry['interpolation']} to {entry['dtype']}:"
            f" {entry['us']:.1f} µs, torchvision {entry['torchvision_us']:.1f} µs, a copy {entry['copy_us']:.1f} µs:"
            f" {entry['ratio']:.2f} × ({entry['ratio_least']:.2f} … {entry['ratio_most']:.2f})",
            flush=True,
        )
        if not arguments.json:
            continue
        arguments.json.write_text(json.dumps({"resize": results}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
