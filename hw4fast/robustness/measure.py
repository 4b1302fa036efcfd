"""The measurement of a study: every picture at every point, by every model; each picture decoded once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np

from hw4fast.errors import UserError
from hw4fast.inference.workers import in_order
from hw4fast.paths import printable
from hw4fast.robustness.asking import Asked, Done, Plan, ask_about
from hw4fast.robustness.breaking import Broken, swept
from hw4fast.robustness.metrics import Row, summarise
from hw4fast.robustness.points import Point
from hw4fast.robustness.source import Source
from hw4fast.robustness.store import Store
from hw4fast.robustness.together import Batches, ask_together
from hw4fast.transforms import Transform


@dataclass(frozen=True)
class Measured:
    """What a model answered. P points, n pictures that could be read.

    names: n names; numbers: theirs in the source; labels: int64 [n]; answers: int32 [P, n]; confidence: float32 [P, n],
    the probability of the answer; ranks: int32 [P, n], how many classes come before the label (−1 without one);
    failures: (name, reason) of each picture that could not be read; swept: transforms whose breaking points were
    sought; broken: those of the pictures `sought` (which of the n), [sought, swept];
    reused: how many answers of all models were in the store; classes: of the model, 0 where it isn't known.
    """

    points: tuple[Point, ...]
    names: list[str]
    numbers: list[int]
    labels: np.ndarray
    answers: np.ndarray
    confidence: np.ndarray
    ranks: np.ndarray
    failures: tuple[tuple[str, str], ...]
    swept: tuple[Transform, ...] = ()
    sought: tuple[int, ...] = ()
    broken: tuple[tuple[Broken, ...], ...] = ()
    reused: int = 0
    classes: int = 0

    def rows(self) -> list[Row]:
        """One row per point, clean first."""
        return [
            summarise(point, answers, confidence, self.answers[0], self.labels, ranks, self.classes)
            for point, answers, confidence, ranks in zip(
                self.points, self.answers, self.confidence, self.ranks, strict=True
            )
        ]


def measure(
    source: Source,
    chosen: np.ndarray,
    models: Sequence[Asked],
    points: Sequence[Point],
    store: Store,
    *,
    seed: int,
    workers: int,
    progress: bool,
    breaking: int = 0,
    batches: Batches | None = None,
) -> list[Measured]:
    """What each of `models` answers to the pictures numbered `chosen` at each of `points` (the first is clean). What
    `store` knows isn't asked again, what is new is added to it, also when this is interrupted. breaking: of how many of
    the pictures, evenly among them, breaking points are sought. batches: the device that changes pictures and asks the
    models in batches; each core by itself if None.

    Pictures that can't be read are skipped and listed; UserError when none can be read, or when a model fails or
    answers NaN. Memory grows with the number of answers (12 bytes each), not of pictures.
    """
    sought = _sought(chosen, breaking)
    plan = Plan(tuple(models), tuple(points), seed, tuple(swept(points)) if sought else (), sought)
    kinds = (np.int32, np.float32, np.int32)
    arrays = [tuple(np.empty((len(points), len(chosen)), kind) for kind in kinds) for _ in models]
    numbers: list[int] = []
    broken: list[tuple[tuple[Broken, ...], ...]] = []
    failures: list[tuple[str, str]] = []
    reused = 0
    with _bar(len(chosen), source.name, progress) as bar:
        for done in _answered(source, chosen, plan, store, workers, batches):
            bar.update()
            if done.failure is not None:
                failures.append((source.names[done.number], done.failure))
                continue
            _note(done, arrays, len(numbers))
            numbers.append(done.number)
            reused += done.reused
            broken += [done.broken] if done.broken else []
            for key, pixels, answers in done.new:
                store.add(key, pixels, seed, answers)
    if not numbers:
        raise UserError(f"none of {source.what} could be read; the first: {failures[0][0]}: {failures[0][1]}")
    n = len(numbers)
    return [
        Measured(
            points=plan.points,
            names=[source.names[number] for number in numbers],
            numbers=numbers,
            labels=model.labels[numbers],
            answers=answers[:, :n],
            confidence=confidence[:, :n],
            ranks=ranks[:, :n],
            failures=tuple(failures),
            swept=plan.swept,
            sought=tuple(at for at, number in enumerate(numbers) if number in sought),
            broken=tuple(of_all[place] for of_all in broken),
            reused=reused,
            classes=len(model.classifier.card.labels),
        )
        for place, (model, (answers, confidence, ranks)) in enumerate(zip(models, arrays, strict=True))
    ]


def _sought(chosen: np.ndarray, breaking: int) -> frozenset[int]:
    """The pictures, evenly among the chosen ones, whose breaking points are sought."""
    some = np.linspace(0, len(chosen), min(breaking, len(chosen)), endpoint=False).astype(int)
    return frozenset(map(int, chosen[some]))


def _note(done: Done, arrays: Sequence[tuple[np.ndarray, ...]], column: int) -> None:
    for (answers, confidence, ranks), found in zip(arrays, done.answers, strict=True):
        answers[:, column] = [a.answer for a in found]
        confidence[:, column] = [a.confidence for a in found]
        ranks[:, column] = [a.rank for a in found]


def _answered(
    source: Source, chosen: np.ndarray, plan: Plan, store: Store, workers: int, batches: Batches | None
) -> Iterator[Done]:
    """One Done per picture, in their order; whatever ends it, what was taken is in the store."""
    stop, numbers = Event(), map(int, chosen)
    try:
        if batches is None:
            yield from in_order(lambda n: ask_about(n, source, plan, store, stop), numbers, workers, stop)
        else:
            yield from ask_together(numbers, source, plan, store, batches, workers)
    except BaseException:
        with suppress(OSError):  # a full disk may be what ended it
            store.flush()
        raise
    store.flush()


def _bar(total: int, name: str, progress: bool) -> Any:
    """Progress on stderr: none where stderr is no terminal."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=f"study {printable(name)}",
        unit=" images",
        disable=None if progress else True,
        file=sys.stderr,
    )
