"""The README's first table: those rows of benchmarks/README.md that say most, lost ones too; readme.py fills it in."""

from __future__ import annotations

import re
from typing import Any

import readme_gpu
from readme_corruptions import short
from readme_serving import RESULTS, fastest_torch, markdown

from hw4fast import record

HEAD = ("", "hw4fast", "beside it", "times as fast")

KERNELS = (
    ("a training step of the homework's net, batch 100", "train_step", "100", ("torch", "torch.compile")),
    ("softmax cross entropy and its gradient, 4,096 × 1,000", "softmax_xent", "4096x1000", ("torch", "torch.compile")),
    ("the same, 100 × 10", "softmax_xent", "100x10", ("torch", "torch.compile")),
    (
        "convolution of 5×5, bias, ReLU, pool, 16 channels of 14² to 32, batch 100",
        "conv_block",
        "16x14-32-5x5",
        ("torch channels-last", "torch.compile"),
    ),
    ("Gaussian blur of 51 pixels, a picture of 224²", "gaussian_blur", "51-224-hwc", ("torchvision", "cv2")),
    ("a photograph of 375 × 500 made to fit a net", "resize", "imagenet-375x500", ("Pillow", "torchvision")),
)
ON_A_GPU = (
    "softmax_xent, (100, 10), float32",
    "softmax_xent, (8,192, 1,024), bfloat16",
    "softmax_xent, (8,192, 131,072), float32",
    "conv_block 16x14² to 32, batch 100, float32 as tf32, forward + backward",
    "conv_block 16x14² to 32, batch 1000, bfloat16, forward + backward",
    "3×3 convolution 128 → 128 on 28², batch 64, bfloat16",
    "gaussian_blur 51, 256 pictures of 3×224², uint8",
    "seed_cnn, an epoch at batch 100, float32",
)


def side_by_side() -> str:
    """Medians alone: benchmarks/README.md has what they spread."""
    processors: dict[str, None] = {}  # in the order of the rows

    def newest(name: str) -> dict[str, Any]:
        entry = record.read(RESULTS / f"{name}.jsonl")[-1]
        processors[entry["machine"]["processor"]] = None
        assert entry["machine"]["cores"] == 2
        return entry["results"]

    rows = [kernel(what, newest(name), case, rivals) for what, name, case, rivals in KERNELS]
    rows += [corruptions(newest("corruptions")), files(newest("bench-shufflenet")), *served(newest("serving"))]
    entry = record.read(RESULTS / "gpu.jsonl")[-1]
    measured = readme_gpu.rows(entry["results"])
    gpu = [[f"GPU: {row[0]}", *map(medians, row[1:4])] for row in measured if row[0] in ON_A_GPU]
    assert len({row[0] for row in gpu}) == len(ON_A_GPU)
    return "\n".join(markdown(HEAD, rows + gpu)) + (
        f"\n\nMedians; float32 where nothing else is said. Two cores of {' or '.join(processors)}; the GPU is"
        f" {entry['results']['gpus'][0]['name']}."
    )


def kernel(what: str, found: dict[str, Any], case: str, rivals: tuple[str, ...]) -> list[str]:
    (row,) = (row for row in found["cases"] if row["case"] == case)
    them = [(name, row["candidates"][name]) for name in rivals]
    beside = [(name, time(other["median_us"])) for name, other in them]
    return line(what, time(row["candidates"]["hw4fast"]["median_us"]), beside, [o["ratio_to_ours"] for _, o in them])


def corruptions(found: dict[str, Any]) -> list[str]:
    (total,) = found["time"]["totals"]
    what = f"{total['corruptions']} corruptions of ImageNet-C, one picture of {found['side']}², one thread"
    theirs = [("imagecorruptions", time(1e3 * total["theirs_ms"]))]
    return line(what, time(1e3 * total["ours_ms"]), theirs, [total["ratio"]["median"]])


def files(found: dict[str, Any]) -> list[str]:
    (ours,) = (row for row in found["files"] if row["way"] == "hw4fast classify")
    theirs = fastest_torch(found["files"])
    beside = [("torchvision and torch", f"{theirs['images_per_s']:.0f}/s")]
    what = f"photographs from JPEG files to answers, {found['model']}"
    return line(what, f"{ours['images_per_s']:.0f}/s", beside, [theirs["ratio_to_ours"]])


def served(found: dict[str, Any]) -> list[list[str]]:
    corn, fused = found["processes"], found["fused"]["100"]
    whole = [("torch and torchvision", time(1e6 * corn["torch and torchvision"]["median_s"]))]
    bare = [("onnxruntime's own kernels", time(1e6 * fused["onnxruntime"]["median_s"]))]
    ours = [time(1e6 * row["hw4fast" if row is fused else "hw4fast classify"]["median_s"]) for row in (corn, fused)]
    return [
        line("`hw4fast classify corn.jpg`, the whole process", ours[0], whole, [corn["ratio"]["median"]]),
        line("the homework's net in onnxruntime, `--fused`, batch 100", ours[1], bare, [fused["ratio"]["median"]]),
    ]


def line(what: str, ours: str, beside: list[tuple[str, str]], ratios: list[float]) -> list[str]:
    return [what, ours, "; ".join(map(" ".join, beside)), "; ".join(f"{short(ratio)}×" for ratio in ratios)]


def time(us: float) -> str:
    value, unit = (us, "µs") if us < 1e3 else (us / 1e3, "ms") if us < 1e6 else (us / 1e6, "s")
    return f"{short(value)} {unit}"


def medians(cell: str) -> str:
    """Without the spread in brackets, and what the kernel takes alone."""
    return re.sub(r" \([^)]*\)|, the kernel alone .*", "", cell)
