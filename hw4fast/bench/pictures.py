"""From picture files to answers: our way on all cores, and torchvision's with torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast import timing
from hw4fast.bench.engines import ONNX, TORCH, Engines
from hw4fast.data.folder import pictures_below
from hw4fast.data.images import read_picture
from hw4fast.errors import UserError
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.workers import in_order

FILES = 128
BATCH = 32  # of torch
ROUNDS = 5


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


OURS = "hw4fast classify"


def from_files(found: Engines, folder: Path, threads: int, rounds: int = ROUNDS) -> list[FromFiles]:
    """`threads` cores on up to FILES picture files below `folder`. Timed beside the whole ways are reading and fitting
    alone and the net alone, which bound them. Raises UserError when over one of a hundred of torch's answers is another
    than ours."""
    files = sorted(pictures_below(folder))[:FILES]
    if not files:
        raise UserError(f"'{folder}' holds no picture to read")
    ways = _ways(found, files, threads)
    answers = {name: way() for name, way in ways.items() if name in (OURS, *THEIRS)}
    ours = answers.pop(OURS)
    for name, theirs in answers.items():
        wrong = sum(mine != other for mine, other in zip(ours, theirs, strict=True))
        if 100 * wrong > len(files):
            raise UserError(f"{name} answers {wrong} of {len(files)} pictures otherwise; nothing was timed")
    times = timing.alternate(ways, seconds=0, warmup=0, at_least=rounds, at_most=rounds)
    return [_summary(name, took, times[OURS], len(files)) for name, took in times.items()]


THEIRS = ("torchvision + torch eager", "torchvision + torch eager, threads")


def _ways(found: Engines, files: Sequence[Path], threads: int) -> dict[str, Callable[[], list[int]]]:
    classifier = Classifier(found.files[f"{ONNX} cpu"], "cpu", 1, trusted=True)
    fitted = [classifier.fit(read_picture(file)) for file in files]

    def answer(picture: np.ndarray) -> int:
        return int(classifier.logits(picture[None]).argmax())

    def fit(file: Path) -> np.ndarray:
        return classifier.fit(read_picture(file))

    ways: dict[str, Callable[[], list[int]]] = {
        OURS: lambda: list(in_order(lambda file: answer(fit(file)), files, threads)),
        "reading and fitting alone": lambda: [len(picture) for picture in in_order(fit, files, threads)],
        "the net alone": lambda: list(in_order(answer, fitted, threads)),
    }
    if f"{TORCH} eager" in found.ready:
        ways |= _torchs_ways(found, files, threads)
    return ways


def _torchs_ways(found: Engines, files: Sequence[Path], threads: int) -> dict[str, Callable[[], list[int]]]:
    """The plain loop, and the same with pictures read on other threads meanwhile."""
    import torch
    from PIL import Image

    from hw4fast.exporter.parity import torchvisions_transforms

    transforms = torchvisions_transforms(found.card.preprocessing)
    mode = "L" if found.card.preprocessing.channels == 1 else "RGB"

    def read(file: Path) -> Any:
        with Image.open(file) as image:
            return transforms(image.convert(mode))

    def answers(tensors: Iterator[Any]) -> list[int]:
        torch.set_num_threads(threads)
        found_: list[int] = []
        with torch.inference_mode():
            for batch in _batches(tensors):
                found_ += found.net(torch.stack(batch)).argmax(1).tolist()
        return found_

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


def some_files(model: str | Path, folder: Path) -> Path:
    """Writes FILES pictures to the new `folder`: of a run the test pictures of its data set as PNG, else photographs as
    JPEG (see exporter.source)."""
    from PIL import Image

    from hw4fast.exporter.source import photographs
    from hw4fast.training import runs

    folder.mkdir()
    if Path(model).is_dir():
        images = runs.load_data(runs.load_record(Path(model))).test.images
        for number in range(FILES):
            image = images[number % len(images)]
            Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(folder / f"{number:03}.png")
        return folder
    contents = photographs()
    for number in range(FILES):
        (folder / f"{number:03}.jpg").write_bytes(contents[number % len(contents)])
    return folder
