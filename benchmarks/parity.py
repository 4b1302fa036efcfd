#!/usr/bin/env python
"""How far exported nets are from torch, and their accuracy on photographs beside torch's and torchvision's own.

    python benchmarks/parity.py
    python benchmarks/parity.py resnet18 vit_b_16 --record

Each architecture is exported, plainly and fused, from its weights in HW4FAST_DATA/models, else from random ones whose
batch normalisation has seen photographs; `export` itself refuses a file that isn't right at batch 1, 2, 7 and all.
Those with weights then answer every photograph of HW4FAST_DATA/photos, from JPEG bytes on: our pipeline, and
torchvision's transforms with torch must give the same answer to each. --record appends to the README's records.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image, ImageOps
from tqdm import tqdm

from hw4fast import export, record
from hw4fast.data.preprocessing import preset
from hw4fast.errors import UserError
from hw4fast.exporter.parity import torchvisions_transforms
from hw4fast.files import data_folder
from hw4fast.inference.classify import classify
from hw4fast.stats import percent
from hw4fast.training.models.pretrained import find_weights, pretrained

ARCHITECTURES = (
    "squeezenet1_1", "shufflenet_v2_x1_0", "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_large",
    "efficientnet_b0", "convnext_tiny", "vit_b_16",
)  # fmt: skip
BATCH = 32
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*", default=ARCHITECTURES)
    parser.add_argument("--record", action="store_true", help="append to the records that the README quotes")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.architectures:
            rows.append(row(name, Path(scratch)))
            print(name, *(f"{key} {value}" for key, value in rows[-1].items()), sep="\n  ")
    if arguments.record:
        record.append(RESULTS / "parity.jsonl", "parity", rows)


def row(name: str, scratch: Path) -> dict[str, Any]:
    known = find_weights(name, None)
    weights = known or random_weights(name, scratch / f"{name}.pth")
    plain = export(name, scratch / f"{name}.onnx", weights=weights, preprocess="imagenet")
    found: dict[str, Any] = {
        "architecture": name,
        "weights": weights.name if known else "random",
        "megabytes": plain.size / 1e6,
        **{key: plain.card.parity[key] for key in KEPT},
    }
    try:
        fused = export(name, scratch / f"{name}-fused.onnx", weights=weights, preprocess="imagenet", fused=True)
        found["fused_max_error_to_float64"] = fused.card.parity["max_error_to_float64"]
    except UserError as error:
        found["fused"] = str(error)
    if known:
        found["photos"] = [accuracy(name, plain.path, folder) for folder in photo_folders()]
    return found


KEPT = (
    "images", "batches", "inputs_equal_to_torchvision", "same_answers", "largest_logit", "max_error_to_torch",
    "max_error_to_float64", "torch_max_error_to_float64",
)  # fmt: skip


def random_weights(name: str, path: Path) -> Path:
    """Random weights of which no answer hangs on rounding: what torchvision sets to zero is random, too, and batch
    normalisation has statistics of photographs."""
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, weights=None)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the mean of all batches
                module.train()
        pictures = torch.from_numpy(preset("imagenet").normalise(np.stack(list(some_pictures()))))
        for part in pictures.split(16):
            net(part)
    torch.save(net.state_dict(), path)
    return path


def some_pictures() -> Iterator[np.ndarray]:
    from hw4fast.data.images import read_picture
    from hw4fast.exporter.source import photographs

    for file in photographs()[:32]:
        yield preset("imagenet").fit(read_picture(file))


def photo_folders() -> list[Path]:
    data = data_folder()
    return sorted(path.parent for path in (data / "photos").glob("*/labels.csv")) if data else []


def accuracy(name: str, file: Path, folder: Path) -> dict[str, Any]:
    """Right answers of both pipelines. AssertionError unless they agree on every picture."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as table:
        labels = {folder / line["file"]: int(line["label"]) for line in csv.DictReader(table)}
    ours = [answer.clean.top[0][0] for answer in classify(list(labels), file, top=1)]
    theirs = torchs_answers(name, list(labels))
    different = [path.name for path, mine, other in zip(labels, ours, theirs, strict=True) if mine != other]
    assert not different, f"{name}: other answers than torch's to {different}"
    right = sum(mine == label for mine, label in zip(ours, labels.values(), strict=True))
    print(f"{name}, {folder.name}: top-1 {percent(right, len(labels))}, torch and torchvision the same on each picture")
    return {"folder": folder.name, "right": right, "n": len(labels), "same_as_torch": len(labels) - len(different)}


def torchs_answers(name: str, files: list[Path]) -> list[int]:
    """Pictures are turned upright as EXIF says, which the shortest script with torchvision forgets: of the 957
    photographs one is stored lying."""
    net, _ = pretrained(name)
    transforms = torchvisions_transforms(preset("imagenet"))
    answers: list[int] = []
    with torch.inference_mode():
        for start in tqdm(range(0, len(files), BATCH), f"torch, {name}", disable=None):
            pictures = [ImageOps.exif_transpose(Image.open(file)) for file in files[start : start + BATCH]]
            batch = torch.stack([transforms(picture.convert("RGB")) for picture in pictures])
            answers += net(batch).argmax(1).tolist()
    return answers


if __name__ == "__main__":
    main()
