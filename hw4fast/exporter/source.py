"""What is exported: the net of a run, or one of torchvision's, with the pictures on which the file is checked."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from hw4fast import record
from hw4fast.data import Dataset, Preprocessing
from hw4fast.data.images import read_picture
from hw4fast.data.preprocessing import preset
from hw4fast.files import data_folder
from hw4fast.training import runs
from hw4fast.training.models.pretrained import find_weights, labels, pretrained, torchvisions_preprocessing
from hw4fast.training.settings import Settings

SAMPLES = 64


@dataclass(frozen=True)
class Source:
    """What is exported. model: in evaluation mode; pictures: uint8, fitted, on which it is checked; photographs: the
    files' bytes that they were made of, where there are such; dataset: what a run was trained on."""

    model: nn.Module
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    provenance: dict[str, Any]
    pictures: np.ndarray
    photographs: tuple[bytes, ...] = ()
    source: str = ""
    dataset: Dataset | None = None


def of_run(run: Path) -> Source:
    entry = runs.load_record(run)
    settings, dataset = Settings.from_json(entry["settings"]), runs.load_data(entry)
    kept = ("settings", "data", "result", "commit", "sessions")
    provenance = {key: entry[key] for key in kept if key in entry} | _now()
    paths = {name: Path(value).name for name in ("dataset", "init", "weights") if (value := getattr(settings, name))}
    provenance["settings"] = entry["settings"] | paths  # no folder of this machine goes into the file
    pictures = np.stack([dataset.preprocessing.fit(image) for image in dataset.test.images[:SAMPLES]])
    model = runs.load_model(run, dataset)
    return Source(model, dataset.preprocessing, dataset.class_names, provenance, pictures, dataset=dataset)


def of_architecture(name: str, weights: str | Path | None, preprocess: str | None) -> Source:
    model, source = pretrained(name, weights)
    if preprocess is None and find_weights(name, weights) is None:
        preprocess, preprocessing = "torchvision", torchvisions_preprocessing(name)
    else:
        preprocess = preprocess or "imagenet"
        preprocessing = preset(preprocess)
    provenance = {"architecture": name, "weights": source, "preset": preprocess} | _now()
    files = photographs()
    pictures = np.stack([preprocessing.fit(read_picture(file)) for file in files])
    return Source(model, preprocessing, labels(name), provenance, pictures, files, source=source)


def _now() -> dict[str, Any]:
    return {"exported": record.now(), "versions": record.versions()}


def photographs() -> tuple[bytes, ...]:
    """Real pictures to try a net on, as the bytes of JPEG files: the two photographs that scikit-learn carries, whole
    and in quarters, and the first of HW4FAST_DATA/photos, where there are some."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    files = []
    for photo in load_sample_images().images:
        top, left = photo.shape[0] // 2, photo.shape[1] // 2
        for part in (photo, photo[:top, :left], photo[:top, left:], photo[top:, :left], photo[top:, left:]):
            file = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(part)).save(file, "JPEG", quality=95)
            files.append(file.getvalue())
    data = data_folder()
    found = sorted((data / "photos").glob("*/*.[jJ][pP]*[gG]")) if data else []
    return (*files, *(path.read_bytes() for path in found[:: max(1, len(found) // (SAMPLES - len(files)))]))[:SAMPLES]
