"""gaussian_blur on one GPU beside torchvision's: python benchmarks/gpu_blur.py [--json FILE]

Medians of calls timed by CUDA events, warm, in turns; no timing counts before equality passed.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms import functional

from hw4fast.nn import gaussian_blur

CASES = [(256, 224, 51, "uint8"), (256, 224, 51, "float32"), (256, 224, 5, "uint8"), (64, 224, 151, "uint8")]


def seconds(call: Callable[[], Any], times: int) -> list[float]:
    found = []
    for _ in range(times + 1):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end) / 1e3)
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = []
    for n, side, size, dtype in CASES:
        x = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, device="cuda").to(getattr(torch, dtype))
        ours, theirs = gaussian_blur(x, size), functional.gaussian_blur(x, [size, size])
        differs = (ours.float() - theirs.float()).abs()
        if dtype == "uint8":
            assert differs.max() <= 1 and (differs > 0).float().mean() < 1e-3
        else:
            assert differs.max() < 1e-2
        turns = 3
        our_times, their_times = [], []
        for _ in range(turns):
            our_times.append(statistics.median(seconds(lambda x=x, size=size: gaussian_blur(x, size), 20)))
            their_times.append(
                statistics.median(seconds(lambda x=x, size=size: functional.gaussian_blur(x, [size, size]), 2))
            )
        ratios = sorted(t / o for t, o in zip(their_times, our_times, strict=True))
        entry = {
            "pictures": n, "side": side, "size": size, "dtype": dtype, "ms": 1e3 * statistics.median(our_times),
            "torchvision_ms": 1e3 * statistics.median(their_times), "ratio": statistics.median(ratios),
            "ratio_least": ratios[0], "ratio_most": ratios[-1],
        }  # fmt: skip
        results.append(entry)
        print(
            f"blur {size} of {n} {dtype} pictures of 3×{side}²: {entry['ms']:.3f} ms, torchvision"
            f" {entry['torchvision_ms']:.2f} ms: {entry['ratio']:.1f} × ({ratios[0]:.1f} … {ratios[-1]:.1f})",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"blur": results}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
