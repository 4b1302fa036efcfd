"""The measurement of a study: every picture at every point, each picture decoded once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hw4fast.errors import UserError
from hw4fast.paths import printable
from hw4fast.robustness.album import Album
from hw4fast.robustness.metrics import Row, summarise
from hw4fast.robustness.points import Point
from hw4fast.robustness.source import Source

if TYPE_CHECKING:
    from hw4fast.inference.classifier import Classifier

BATCH = 32


@dataclass(frozen=True)
class Measured:
    """What was answered. P points, n pictures that could be read.

    names: n names; labels: int64 [n]; answers: int32 [P, n]; confidence: float32 [P, n], the probability of the
    answer; failures: (name, reason) of each picture that could not be read; album: the pictures to show.
    """

    points: tuple[Point, ...]
    names: list[str]
    labels: np.ndarray
    answers: np.ndarray
    confidence: np.ndarray
    failures: tuple[tuple[str, str], ...]
    album: Album

    def rows(self) -> list[Row]:
        """One row per point, clean first."""
        return [
            summarise(point, self.answers[at], self.confidence[at], self.answers[0], self.labels)
            for at, point in enumerate(self.points)
        ]


def measure(
    source: Source,
    chosen: np.ndarray,
    classifier: Classifier,
    points: Sequence[Point],
    *,
    seed: int,
    progress: bool,
) -> Measured:
    """The answers to the pictures numbered `chosen` at each of `points` (the first is clean).

    Pictures that can't be read are skipped and listed; UserError when none can be read, or when the model fails or
    answers NaN. Memory grows with the number of predictions, not of pictures.
    """
    failures: list[tuple[str, str]] = []
    album = Album(points)
    numbers: list[int] = []
    answers, confidence = [], []
    with _bar(len(chosen) * len(points), source.name, progress) as bar:
        for batch in _batches(source, chosen, classifier, failures):
            pictures = [picture for _, picture in batch]
            parts = [_ask(classifier, point, pictures, seed, bar) for point in points]
            answers.append(np.stack([part[0] for part in parts]))
            confidence.append(np.stack([part[1] for part in parts]))
            album.see(len(numbers), pictures, answers[-1], confidence[-1], source.labels[[n for n, _ in batch]])
            numbers += [number for number, _ in batch]
        bar.update(bar.total - bar.n)
    if not numbers:
        raise UserError(f"none of {source.what} could be read; the first: {failures[0][0]}: {failures[0][1]}")
    return Measured(
        points=tuple(points),
        names=[source.names[number] for number in numbers],
        labels=source.labels[numbers],
        answers=np.concatenate(answers, axis=1),
        confidence=np.concatenate(confidence, axis=1),
        failures=tuple(failures),
        album=album,
    )


def _batches(
    source: Source, chosen: np.ndarray, classifier: Classifier, failures: list[tuple[str, str]]
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Up to BATCH (number, picture at the network's size) at a time; what can't be read goes to `failures`."""
    batch: list[tuple[int, np.ndarray]] = []
    for number in map(int, chosen):
        try:
            batch.append((number, classifier.fit(source.read(number))))
        except UserError as error:
            failures.append((source.names[number], str(error)))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _ask(
    classifier: Classifier, point: Point, pictures: list[np.ndarray], seed: int, bar: Any
) -> tuple[np.ndarray, np.ndarray]:
    """int32 [b] answers and float32 [b] confidences.

    A batch that isn't full is filled up with its last picture: onnxruntime may add up in another order for another
    batch size, and an answer must not depend on how many pictures the study has.
    """
    changed = [point.apply(picture, seed) for picture in pictures]
    full = np.stack(changed + changed[-1:] * (BATCH - len(changed)))
    try:
        probabilities = classifier.probabilities(full)[: len(changed)]
    except UserError as error:
        raise UserError(f"{point.spec or 'clean pictures'}: {error}") from None
    bar.update(len(changed))
    return probabilities.argmax(axis=1).astype(np.int32), probabilities.max(axis=1)


def _bar(total: int, name: str, progress: bool) -> Any:
    """Progress on stderr: none where stderr is no terminal."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=f"study {printable(name)}",
        unit=" images",
        unit_scale=True,
        disable=None if progress else True,
        file=sys.stderr,
    )
