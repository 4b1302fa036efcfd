"""What is exported: the net of a run, or one of torchvision's, with the pictures on which the file is checked."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from hw4fast import record
from hw4fast.data import Dataset, Preprocessing, carried
from hw4fast.data.images import read_picture
from hw4fast.data.preprocessing import preset
from hw4fast.errors import UserError
from hw4fast.exporter.origin import Transforms, origin, sha256, transforms
from hw4fast.files import data_folder
from hw4fast.paths import one_line
from hw4fast.training import runs
from hw4fast.training.models.pretrained import downloaded_file, find_weights, labels, parameters, pretrained
from hw4fast.training.settings import Settings

SAMPLES = 64
MOST_BYTES = 2**31 - 2**25  # of weights: protobuf reads no file of 2 GiB, and the rest is for the graph and the card


@dataclass(frozen=True)
class Photograph:
    """name: of its file; content: that file's bytes."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Source:
    """What is exported. model: in evaluation mode; pictures: uint8, fitted, on which it is checked; photographs: the
    files that they were made of, where there are such, and left_out: a line for each that can't be taken; dataset: what
    a run was trained on; transforms: what its inputs are compared with, of an architecture; source, licence: of the
    weights, in words."""

    model: nn.Module
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    provenance: dict[str, Any]
    pictures: np.ndarray
    photographs: tuple[Photograph, ...] = ()
    source: str = ""
    dataset: Dataset | None = None
    transforms: Transforms | None = None
    licence: str = ""
    left_out: tuple[str, ...] = ()


def of_run(run: Path) -> Source:
    entry = runs.load_record(run)
    settings, dataset = Settings.from_json(entry["settings"]), runs.load_data(entry)
    kept = ("settings", "data", "result", "commit", "sessions")
    provenance = {key: entry[key] for key in kept if key in entry} | _now()
    paths = {name: Path(value).name for name in ("dataset", "init", "weights") if (value := getattr(settings, name))}
    provenance["settings"] = entry["settings"] | paths  # no folder of this machine goes into the file
    pictures = np.stack([dataset.preprocessing.fit(image) for image in dataset.test.images[:SAMPLES]])
    model = runs.load_model(run, dataset)
    _check_size(f"the net of '{run}'", sum(tensor.nbytes for tensor in model.state_dict().values()))
    provenance["weights_sha256"] = sha256(run / runs.WEIGHTS)
    return Source(
        model,
        dataset.preprocessing,
        dataset.class_names,
        provenance,
        pictures,
        source=_told_of(entry),
        dataset=dataset,
    )


def _told_of(entry: dict[str, Any]) -> str:
    """Where a run's weights come from, by its record."""
    by = f"hw4fast {entry['commit']}" if entry.get("commit") else "hw4fast"
    return f"{entry['settings']['model']} trained by {by} on {entry['data']['name']}: {entry['data']['source']}"


def of_architecture(name: str, weights: str | Path | None, preprocess: str | None) -> Source:
    _check_size(name, 4 * parameters(name))  # before they are fetched
    model, file = pretrained(name, weights)
    whose = origin(name, find_weights(name, weights) or downloaded_file(name))
    chosen = transforms(name, whose, preprocess)
    provenance = {
        "architecture": name,
        "weights": file,
        "weights_sha256": whose.sha256,
        "preset": chosen.preset,
    } | _now()
    fitted, left_out = _photographs(chosen.preprocessing)
    pictures = np.stack(list(fitted.values()))
    return Source(
        model,
        chosen.preprocessing,
        labels(name),
        provenance,
        pictures,
        tuple(fitted),
        whose.source,
        transforms=chosen,
        licence=whose.licence,
        left_out=left_out,
    )


def _check_size(what: str, size: int) -> None:
    """UserError when weights of so many bytes, in float32, don't fit into one ONNX file."""
    if size > MOST_BYTES:
        raise UserError(
            f"{what} has {size / 2**30:.2f} GiB of weights in float32, and an ONNX file holds less than 2 GiB (float16"
            " and int8 are made from it, too); export a smaller net"
        )


def _now() -> dict[str, Any]:
    return {"exported": record.now(), "versions": record.versions()}


def photographs() -> tuple[bytes, ...]:
    """Real pictures to try a net on, as the bytes of JPEG files: the two photographs that scikit-learn carries, whole
    and in quarters, and where there are some, photographs of HW4FAST_DATA/photos at even distances; up to SAMPLES.
    Those that can't be read, or fitted as most nets want it, are left out."""
    return tuple(photograph.content for photograph in _photographs(preset("imagenet"))[0])


def _photographs(preprocessing: Preprocessing) -> tuple[dict[Photograph, np.ndarray], tuple[str, ...]]:
    """{photograph: fitted, uint8 [h, w, c]}, and a line for each that can't be read or fitted."""
    fitted = {each: preprocessing.fit(read_picture(each.content)) for each in _of_scikit_learn()}
    data, left_out = data_folder(), []
    found = sorted((data / "photos").glob("*/*.[jJ][pP]*[gG]")) if data else []
    places = min(len(found), SAMPLES - len(fitted))
    for path in (found[i * len(found) // places] for i in range(places)):
        try:
            picture = read_picture(path)
            fitted[Photograph(path.name, path.read_bytes())] = preprocessing.fit(picture)
        except UserError as error:  # it names the file
            left_out.append(str(error))
        except ValueError as error:
            left_out.append(f"'{one_line(path)}': {error}")
    return fitted, tuple(left_out)


def _of_scikit_learn() -> Iterator[Photograph]:
    from PIL import Image

    for name in carried.PHOTOGRAPHS:
        photo = carried.photograph(name)
        top, left = photo.shape[0] // 2, photo.shape[1] // 2
        for part in (photo, photo[:top, :left], photo[:top, left:], photo[top:, :left], photo[top:, left:]):
            file = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(part)).save(file, "JPEG", quality=95)
            yield Photograph(f"{name} of scikit-learn", file.getvalue())
