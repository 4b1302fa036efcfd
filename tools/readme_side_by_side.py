"""The README's first tables: rows of benchmarks/README.md that say most, lost ones too; readme.py fills them in."""

from __future__ import annotations

import re
from typing import Any

import readme_gpu
from readme_corruptions import short
from readme_serving import BOUNDS, OLD, RESULTS, OldRecordError, fastest_torch, markdown

from hw4fast import record

KERNELS = (  # in words, the record, its case
    ("a training step of the homework's net, 100 pictures", "train_step", "100"),
    ("softmax cross entropy and its gradient, 4,096 rows of 1,000", "softmax_xent", "4096x1000"),
    ("the same, 100 rows of 10", "softmax_xent", "100x10"),
    ("5×5 convolution, bias, ReLU and pool, 100 × 16 × 14² to 32 channels, forward", "conv_block", "16x14-32-5x5"),
    ("the same, forward and backward", "conv_block_backward", "16x14-32-5x5"),
    ("Gaussian blur of 51 pixels, a picture of 224², uint8", "gaussian_blur", "51-224-hwc"),
    ("the same, float32", "gaussian_blur", "51-224-chw-float32"),
    ("a photograph of 375 × 500 made to fit a net, uint8", "resize", "imagenet-375x500"),
)
ON_A_GPU = {  # what readme_gpu calls it, in words
    "softmax_xent, (8,192, 131,072), float32": "softmax cross entropy and its gradient, 8,192 rows of 131,072",
    "softmax_xent, (8,192, 1,024), bfloat16": "the same, 8,192 rows of 1,024, bfloat16",
    "softmax_xent, (100, 10), float32": "the same, 100 rows of 10",
    "conv_block 16x14² to 32, batch 100, float32 as tf32, forward + backward": (
        "5×5 convolution, bias, ReLU and pool, 100 × 16 × 14² to 32 channels, tf32, forward and backward"
    ),
    "conv_block 16x14² to 32, batch 1000, bfloat16, forward + backward": "the same, 1,000 pictures, bfloat16",
    "3×3 convolution 128 → 128 on 28², batch 64, bfloat16": (
        "3×3 convolution, 64 × 128 × 28² to 128 channels, bfloat16, forward"
    ),
    "3×3 convolution 128 → 128 on 28², backward, batch 64, bfloat16": "the same, backward",
    "gaussian_blur 51, 256 pictures of 3×224², uint8": "Gaussian blur of 51 pixels, 256 pictures of 224², uint8",
    "squeezenet1_1 through onnxruntime, float16, 256 at a time, on the GPU": (
        "SqueezeNet through onnxruntime, float16, 256 pictures at a time"
    ),
    "seed_cnn, an epoch at batch 100, float32": "an epoch of the homework's net on MNIST",
}


def side_by_side() -> str:
    """Medians alone: benchmarks/README.md has what they spread."""
    machines: dict[str, None] = {}  # in the order of the rows
    cores: dict[str, None] = {}
    torchs: dict[str, None] = {}

    def newest(name: str) -> dict[str, Any]:
        entry = record.read(RESULTS / f"{name}.jsonl")[-1]
        machines[entry["machine"]["processor"]] = None
        cores[str(entry["machine"]["cores"])] = None
        torchs[entry["versions"]["torch"]] = None
        return entry["results"]

    rows = [kernel(what, newest(name), case) for what, name, case in KERNELS]
    rows += [corruptions(newest("corruptions")), files(newest("bench-shufflenet")), *served(newest("serving"))]
    entry = record.read(RESULTS / "gpu.jsonl")[-1]
    gpu = on_a_gpu(readme_gpu.rows(entry["results"]))
    lines = markdown(("on a CPU", "hw4fast", "how many times as long others take"), rows)
    lines += ["", *markdown(("on a GPU", "hw4fast", "how many times as long others take"), gpu)]
    return "\n".join(lines) + (
        "\n\nMedians; of ratios mostly the median of pairs, so that times need not divide to them. float32 where"
        f" nothing else is said. CPU: {' or '.join(machines)} (the page of all numbers says which),"
        f" {' or '.join(cores)} cores, torch {' and '.join(torchs)}. GPU: {entry['results']['gpus'][0]['name']}, torch"
        f" {entry['versions']['torch']}."
    )


def kernel(what: str, found: dict[str, Any], case: str) -> list[str]:
    """With all that stands beside it in the record, the nearest first."""
    (row,) = (row for row in found["cases"] if row["case"] == case)
    ratios = {
        name: other["ratio_to_ours"]
        for name, other in row["candidates"].items()
        if name != "hw4fast" and name not in BOUNDS
    }
    return line(what, time(row["candidates"]["hw4fast"]["median_us"]), ratios)


def corruptions(found: dict[str, Any]) -> list[str]:
    (total,) = found["time"]["totals"]
    what = (
        f"{total['corruptions']} of ImageNet-C's corruptions (frost made otherwise), {found['side']}², uint8, 1 thread"
    )
    return line(what, time(1e3 * total["ours_ms"]), {"imagecorruptions": total["ratio"]["median"]})


def files(found: dict[str, Any]) -> list[str]:
    (ours,) = (row for row in found["files"] if row["way"] == "hw4fast classify")
    what = f"photographs from JPEG files to answers of {found['model']}"
    return line(
        what, f"{ours['images_per_s']:.0f}/s", {"torchvision and torch": fastest_torch(found["files"])["ratio_to_ours"]}
    )


def served(found: dict[str, Any]) -> list[list[str]]:
    corn, fused = found["processes"], found["fused"]["100"]
    ours = [time(1e6 * found["median_s"]) for found in (corn["hw4fast classify"], fused["hw4fast"])]
    script = {"the shortest script with torch and torchvision": corn["ratio"]["median"]}
    return [
        line("`hw4fast classify corn.jpg`, the whole process", ours[0], script),
        line(
            "the homework's net in onnxruntime, exported with `--fused`, 100 pictures",
            ours[1],
            {"onnxruntime's own kernels": fused["ratio"]["median"]},
        ),
    ]


def on_a_gpu(measured: list[list[str]]) -> list[list[str]]:
    """Rows of readme_gpu in words; those of one name in one."""
    ours: dict[str, str] = {}
    rivals: dict[str, dict[str, float]] = {}
    for name, took, beside, ratios, _ in measured:
        if name not in ON_A_GPU:
            continue
        ours[name] = took.partition(", the kernel alone")[0]
        for other, ratio in zip(beside.split("; "), ratios.split("; "), strict=True):
            if (who := re.sub(r" [\d.,]+(/s| [µm]?s)$", "", other)) != "copy":
                rivals.setdefault(name, {})[who] = float(ratio.partition("×")[0])
    if missing := ON_A_GPU.keys() - ours.keys():
        raise OldRecordError(f"{OLD} `bash tools/gpu_check.sh` (gpu.jsonl lacks {', '.join(sorted(missing))})")
    return [line(what, ours[name], rivals[name]) for name, what in ON_A_GPU.items()]


def line(what: str, ours: str, ratios: dict[str, float]) -> list[str]:
    others = sorted(ratios.items(), key=lambda pair: pair[1])
    return [what, ours, ", ".join(f"{plus(name)} {times(ratio)}" for name, ratio in others)]


def times(ratio: float) -> str:
    return f"{ratio:.2f}×" if ratio < 10 else f"{short(ratio)}×"


def plus(name: str) -> str:
    """Names stand in a list, so that none has a comma of its own."""
    return name.replace(", ", " + ")


def time(us: float) -> str:
    value, unit = (us, "µs") if us < 1e3 else (us / 1e3, "ms") if us < 1e6 else (us / 1e6, "s")
    return f"{short(value)} {unit}"
