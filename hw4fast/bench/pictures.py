"""From picture files to answers: `classify` on all cores, and torchvision's transforms with torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast import timing
from hw4fast.bench.engines import ONNX, TORCH, Engines
from hw4fast.data.images import read_picture
from hw4fast.errors import UserError
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.classify import Failure, classify
from hw4fast.inference.workers import in_order

BATCH = 32  # of torch
ROUNDS = 5
OURS = "hw4fast classify"
OPENING, READING, NET = "opening the model alone", "reading and fitting alone", "the net alone"
THEIRS = ("torchvision + torch eager", "torchvision + torch eager, threads")
WHOLE = (OURS, NET, *THEIRS)  # these say answers
Way = Callable[[], Sequence[int]]  # → class indices, where it is one of WHOLE


@dataclass(frozen=True)
class FromFiles:
    """way: how; images_per_s: median of `rounds` passes over the same `files`, low and high the slowest and fastest;
    ratio_to_ours: how many times longer it took, median of paired ratios."""

    way: str
    images_per_s: float
    low: float
    high: float
    rounds: int
    files: int
    ratio_to_ours: float


def ways_of(found: Engines, threads: int) -> dict[str, Way]:
    """{name: a pass over the chosen files on `threads` cores}; none where OURS can't be had, which is left out then.

    OURS is hw4fast.inference.classify.classify with every default, from the model's file to its results; opening the
    model, reading and fitting, and the net alone bound it. Nothing is timed here, but each has run once. What fails is
    left out. Raises UserError when over one of a hundred answers is another than ours.
    """
    file = found.files.get(f"{ONNX} cpu")
    if file is None:
        found.left_out["picture files"] = f"{ONNX} cpu doesn't run the model"
        return {}
    ways = _our_ways(file, found, threads)
    if f"{TORCH} eager" in found.ready:
        ways |= _torchs_ways(found, threads)
    said = {}
    for name, way in list(ways.items()):
        try:
            said[name] = way()
        except Exception as error:  # of torch and onnxruntime, or a file is gone
            found.fail(name, error)
            del ways[name]
    if OURS not in ways:
        return {}
    for name in ways:
        if name in WHOLE:
            _insist_on_the_same(said[OURS], said[name], name, found.chosen.files)
    return ways


def _insist_on_the_same(ours: Sequence[int], theirs: Sequence[int], name: str, files: Sequence[Path]) -> None:
    wrong = [file for file, mine, other in zip(files, ours, theirs, strict=True) if mine != other]
    if 100 * len(wrong) > len(files):
        raise UserError(
            f"{name} answers {len(wrong)} of {len(files)} pictures otherwise than {OURS}, first '{wrong[0].name}';"
            " nothing was timed: name other --pictures, or measure without files (--no-whole)"
        )


def from_files(ways: dict[str, Way], files: int, rounds: int | None = None) -> list[FromFiles]:
    """Passes that take turns; files: how many each reads."""
    rounds = rounds or ROUNDS
    times = timing.alternate(ways, seconds=0, warmup=0, at_least=rounds, at_most=rounds)
    return [_summary(name, took, times[OURS], files) for name, took in times.items()]


def _our_ways(file: Path, found: Engines, threads: int) -> dict[str, Way]:
    files, classifier = found.chosen.files, Classifier(file, "cpu", 1, trusted=True, batch=1)

    def ours() -> list[int]:
        answers = []
        for result in classify(files, file, threads=threads):
            if isinstance(result, Failure):
                raise UserError(result.reason)
            answers.append(result.clean.top[0][0])
        return answers

    def answer(picture: np.ndarray) -> int:
        return int(classifier.logits(picture[None]).argmax())

    def read(picture: Path) -> int:
        return len(classifier.fit(read_picture(picture)))

    def opened() -> list[int]:
        Classifier(file, "cpu", 1, batch=1)
        return []

    return {
        OURS: ours,
        OPENING: opened,
        READING: lambda: list(in_order(read, files, threads)),
        NET: lambda: list(in_order(answer, found.chosen.fitted, threads)),
    }


def _torchs_ways(found: Engines, threads: int) -> dict[str, Way]:
    """The plain loop, and the same with pictures read on other threads meanwhile. They are turned upright as EXIF says,
    as ours are."""
    import torch
    from PIL import Image, ImageOps

    from hw4fast.exporter.parity import torchvisions_transforms

    transforms, files = torchvisions_transforms(found.card.preprocessing), found.chosen.files
    mode = "L" if found.card.preprocessing.channels == 1 else "RGB"

    def read(file: Path) -> Any:
        with Image.open(file) as image:
            return transforms(ImageOps.exif_transpose(image).convert(mode))

    def answers(tensors: Iterator[Any]) -> list[int]:
        torch.set_num_threads(threads)
        said: list[int] = []
        with torch.inference_mode():
            for batch in _batches(tensors):
                said += found.net(torch.stack(batch)).argmax(1).tolist()
        return said

    def on_threads() -> list[int]:
        with ThreadPoolExecutor(threads) as pool:
            return answers(pool.map(read, files))

    return {THEIRS[0]: lambda: answers(map(read, files)), THEIRS[1]: on_threads}


def _batches(tensors: Iterator[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for tensor in tensors:
        batch.append(tensor)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _summary(name: str, took: np.ndarray, ours: np.ndarray, files: int) -> FromFiles:
    rates = files / took
    ratio = float(np.median(took / ours))
    return FromFiles(name, float(np.median(rates)), float(rates.min()), float(rates.max()), len(took), files, ratio)
