"""Pictures in, answers out: clean and transformed side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hw4fast.data.images import read_picture
from hw4fast.errors import UsageError, UserError
from hw4fast.files import writing
from hw4fast.inference.classifier import Classifier, Guess, best
from hw4fast.inference.known import DEFAULT
from hw4fast.transforms import Chain, parse

CLEAN = "clean"


@dataclass(frozen=True)
class Answer:
    """transform: "clean" or the canonical spec; top: the most probable classes, best first; saved: the file
    that shows what the model saw."""

    transform: str
    top: tuple[Guess, ...]
    saved: Path | None = None

    def to_json(self) -> dict[str, Any]:
        keys = ("index", "label", "probability")
        value = {"transform": self.transform, "top": [dict(zip(keys, guess, strict=True)) for guess in self.top]}
        return value if self.saved is None else {**value, "saved": str(self.saved)}


@dataclass(frozen=True)
class Result:
    """The answers to one picture; transformed: in the order of the transforms asked for."""

    file: str
    clean: Answer
    transformed: tuple[Answer, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "clean": self.clean.to_json(),
            "transformed": [answer.to_json() for answer in self.transformed],
        }


@dataclass(frozen=True)
class Failure:
    """A picture that has no answer, and why."""

    file: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"file": self.file, "error": self.reason}


def classify(
    paths: Sequence[str | Path] | str | Path,
    model: str | Path = DEFAULT,
    transforms: Sequence[str] | str = (),
    top: int = 5,
    save_transformed: str | Path | None = None,
    seed: int = 0,
    providers: str | Sequence[str] = "cpu",
    threads: int | None = None,
) -> Iterator[Result | Failure]:
    """The model's `top` classes for each picture, as it is and under each transform, one picture at a time.

    model: an .onnx file with a card, a run folder that holds model.onnx, or an architecture's name.
    transforms: specs, see hw4fast.transforms. save_transformed: a folder for what the model saw, `STEM-SPEC.png`
    (`STEM-clean.png` without transforms) at the model's size with unusual signs as _; a file that stands there with
    other pixels is never overwritten: the new one gets a number, `STEM-SPEC-2.png`.
    seed: of random transforms, whose draws belong to the picture's pixels.
    Raises UserError and UsageError for the model, the transforms, `top` and the folder before the first picture;
    a picture that can't be read yields a Failure, and the rest goes on. UserError when the model fails while it runs
    or answers NaN, and when a picture can't be saved.
    """
    if top < 1:
        raise UsageError(f"top must be 1 or more, not {top}")
    chains = [parse(spec) for spec in ([transforms] if isinstance(transforms, str) else transforms)]
    classifier = Classifier(model, providers, threads)
    folder = None if save_transformed is None else _made_folder(Path(save_transformed))
    files = [paths] if isinstance(paths, str | Path) else paths
    return (_one(str(file), classifier, chains, top, folder, seed) for file in files)


def _one(
    file: str, classifier: Classifier, chains: list[Chain], top: int, folder: Path | None, seed: int
) -> Result | Failure:
    try:
        picture = classifier.fit(read_picture(file))
    except UserError as error:
        return Failure(file, str(error))
    spoilt = [chain(picture, seed=seed) for chain in chains]
    rows = classifier.probabilities(np.stack([picture, *spoilt]))
    answers = []
    names = [CLEAN, *(chain.name for chain in chains)]
    for name, seen, row in zip(names, [picture, *spoilt], rows, strict=True):
        wanted = name != CLEAN or not chains
        saved = _saved(seen, folder, Path(file).stem, name) if folder and wanted else None
        answers.append(Answer(name, best(row, classifier.card.labels, top), saved))
    return Result(file, answers[0], tuple(answers[1:]))


def _made_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder '{folder}' can't be made: {error.strerror}; name another one") from None
    return folder


def _saved(picture: np.ndarray, folder: Path, stem: str, spec: str) -> Path:
    """The file in `folder` that holds `picture`: written now, or there already with the same pixels."""
    name = re.sub(r"[^\w.+=-]", "_", f"{stem[:100]}-{spec}")
    path, number = folder / f"{name}.png", 2
    while path.exists():
        if _holds(path, picture):
            return path
        path, number = folder / f"{name}-{number}.png", number + 1
    image = Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture)
    try:
        with writing(path) as temporary:
            image.save(temporary, format="PNG")
    except OSError as error:  # the disk is full, the folder is gone
        raise UserError(f"'{path}' can't be written: {error.strerror or error}") from None
    return path


def _holds(path: Path, picture: np.ndarray) -> bool:
    try:
        return np.array_equal(read_picture(path), picture)
    except UserError:
        return False
