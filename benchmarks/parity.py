#!/usr/bin/env python
"""How far exported nets are from torch, and their accuracy on photographs beside torch's and torchvision's own.

    python benchmarks/parity.py
    python benchmarks/parity.py resnet18 squeezenet1_1.onnx --record

Each architecture is exported, plainly and fused, from its weights in HW4FAST_DATA/models, else from random ones whose
batch normalisation has seen photographs; `export` itself refuses a file that isn't right at batch 1, 2, 7 and all.
NAME.onnx is a file of HW4FAST_DATA/models as it lies there. The inputs made of every photograph of HW4FAST_DATA/photos
must be those of torchvision's transforms to the bit; nets with trained weights then answer each, from JPEG bytes on,
and torchvision's transforms with torch must give the same answer. --record appends each net to the README's records
when it is done; --resume leaves out what this commit has recorded.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import torchvision
from tqdm import tqdm

from hw4fast import export, record
from hw4fast.data import Preprocessing
from hw4fast.data.images import read_picture
from hw4fast.data.preprocessing import preset
from hw4fast.errors import UserError
from hw4fast.exporter import TOLERANCE
from hw4fast.exporter.origin import origin, transforms
from hw4fast.exporter.parity import compare, upright
from hw4fast.exporter.source import of_architecture, photographs
from hw4fast.files import data_folder
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.classify import classify
from hw4fast.stats import percent
from hw4fast.training.models.pretrained import find_weights, pretrained

ARCHITECTURES = (
    "squeezenet1_1", "shufflenet_v2_x1_0", "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_large",
    "efficientnet_b0", "convnext_tiny", "vit_b_16",
)  # fmt: skip
FILES = ("squeezenet1_1.onnx", "shufflenet_v2_x1_0.onnx", "mobilenet_v2.onnx")
BATCH = 32
RESULTS = Path(__file__).parent / "results" / "parity.jsonl"
KEPT = (
    "images", "batches", "same_answers", "largest_logit", "max_error_to_torch", "max_error_to_float64",
    "torch_max_error_to_float64",
)  # fmt: skip
Answer = Callable[[torch.Tensor], np.ndarray]  # inputs, float32 [n, 3, h, w] → logits [n, classes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", default=[*ARCHITECTURES, *FILES], metavar="ARCHITECTURE|NAME.onnx")
    parser.add_argument("--record", action="store_true", help="append to the records that the README quotes")
    parser.add_argument("--resume", action="store_true", help="leave out what this commit has recorded")
    arguments = parser.parse_args()
    commit = (record.commit() or "").rstrip("+")
    entries = record.read(RESULTS) if arguments.resume else []
    done = {entry["results"]["subject"] for entry in entries if (entry["commit"] or "").rstrip("+") == commit}
    with tempfile.TemporaryDirectory() as scratch:
        for subject in [each for each in arguments.subjects if each not in done]:
            row = of_file(subject) if subject.endswith(".onnx") else of_net(subject, Path(scratch))
            print(subject, *(f"{key} {value}" for key, value in row.items()), sep="\n  ", flush=True)
            if arguments.record:
                record.append(RESULTS, "parity", row)


def of_net(name: str, scratch: Path) -> dict[str, Any]:
    known = find_weights(name, None)
    weights = known or random_weights(name, scratch / f"{name}.pth")
    plain = export(name, scratch / f"{name}.onnx", weights=weights)
    found: dict[str, Any] = {
        "subject": name,
        "weights": weights.name if known else "random",
        "preset": plain.card.parity["preset"],
        "megabytes": plain.size / 1e6,
        **{key: plain.card.parity[key] for key in KEPT},
    }
    try:
        fused = export(name, scratch / f"{name}-fused.onnx", weights=weights, fused=True).card.parity
        found["fused"] = {key: fused[key] for key in ("kernels", "same_answers", "max_error_to_float64")}
    except UserError as error:
        found["fused"] = str(error)
    reference = transforms(name, origin(name, weights), None).reference
    net = pretrained(name)[0] if known else None
    return found | on_photographs(plain.path, reference, net and (lambda inputs: net(inputs).numpy()), "torch")


def of_file(name: str) -> dict[str, Any]:
    """A file of the model folder. Where torch's weights of that net aren't there, the same file is the reference, on
    torchvision's inputs in a bare onnxruntime: that proves the inputs, and nothing of the net."""
    data = data_folder()
    assert data, "HW4FAST_DATA isn't set"
    path, net_name = data / "models" / name, name.removesuffix(".onnx")
    known = find_weights(net_name, None)
    found: dict[str, Any] = {
        "subject": name,
        "weights": name,
        "preset": "imagenet",
        "megabytes": path.stat().st_size / 1e6,
    }
    reference = torchvision.models.get_model_weights(net_name).IMAGENET1K_V1.transforms()
    if known:
        source = of_architecture(net_name, known, "imagenet")
        measured = compare(source, path, TOLERANCE)
        found |= {key: measured[key] for key in KEPT}
        net = source.model
        return found | on_photographs(path, reference, lambda inputs: net(inputs).numpy(), "torch")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def bare(inputs: torch.Tensor) -> np.ndarray:
        return session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]

    return found | on_photographs(path, reference, bare, "the same file in a bare onnxruntime")


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
        fit, normalise = preset("imagenet").fit, preset("imagenet").normalise
        pictures = torch.from_numpy(normalise(np.stack([fit(read_picture(file)) for file in photographs()[:32]])))
        for part in pictures.split(16):
            net(part)
    torch.save(net.state_dict(), path)
    return path


def on_photographs(path: Path, reference: Any, answer: Answer | None, by: str) -> dict[str, Any]:
    """Of all photographs: how many inputs are the reference's; and with its `answer`, by folder how many answers are
    the same and how many are right. AssertionError unless all inputs and answers are the same."""
    card, folders, equal, total = Classifier(path).card, [], 0, 0
    for folder in photo_folders():
        with (folder / "labels.csv").open(encoding="utf-8", newline="") as table:
            labels = {folder / line["file"]: int(line["label"]) for line in csv.DictReader(table)}
        theirs: list[int] = []
        with torch.inference_mode():
            for files, inputs in batches(list(labels), reference, f"{path.name}, {folder.name}"):
                equal += sum(map(torch.equal, ours(files, card.preprocessing), inputs))
                theirs += answer(inputs).argmax(1).tolist() if answer else []
        total += len(labels)
        if answer:
            mine = [found.clean.top[0][0] for found in classify(list(labels), path, top=1)]
            different = [file.name for file, a, b in zip(labels, mine, theirs, strict=True) if a != b]
            assert not different, f"{path.name}: other answers than those of {by} to {different}"
            right = sum(a == label for a, label in zip(mine, labels.values(), strict=True))
            folders.append({"folder": folder.name, "right": right, "n": len(labels), "same_answers": len(mine)})
            print(f"{path.name}, {folder.name}: top-1 {percent(right, len(labels))}, each as {by} says")
    assert equal == total, f"{path.name}: {total - equal} of {total} inputs differ from torchvision's"
    found = {"photos": total, "inputs_equal_to_torchvision": equal}
    return found | ({"answers": folders, "answers_compared_with": by} if answer else {})


def photo_folders() -> list[Path]:
    data = data_folder()
    return sorted(path.parent for path in (data / "photos").glob("*/labels.csv")) if data else []


def batches(files: list[Path], reference: Any, what: str) -> Iterator[tuple[list[Path], torch.Tensor]]:
    """Pictures are turned upright as EXIF says, which the shortest script with torchvision forgets: of the 957
    photographs one is stored lying."""
    for start in tqdm(range(0, len(files), BATCH), what, disable=None):
        part = files[start : start + BATCH]
        yield part, torch.stack([reference(upright(file.read_bytes())) for file in part])


def ours(files: list[Path], preprocessing: Preprocessing) -> torch.Tensor:
    return torch.from_numpy(
        preprocessing.normalise(np.stack([preprocessing.fit(read_picture(file)) for file in files]))
    )


if __name__ == "__main__":
    main()
