"""Every engine's answers beside the first one's, at every batch size, before anything is timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hw4fast.bench.engines import AGREEMENT, Engine, Engines, first_line
from hw4fast.errors import UserError

# {batch: {engine: by how much its logits differ at most from the first engine's, in units of the largest}}
Differences = dict[int, dict[str, float]]


@dataclass(frozen=True)
class Answers:
    """same: on how many of n pictures the engine's largest logit is that of the class which the `other` says."""

    engine: str
    other: str
    same: int
    n: int


def agreeing(found: Engines, batches: Sequence[int]) -> tuple[Differences, list[Answers]]:
    """The differences, and the answers: to all pictures at the largest batch size, of an engine that doesn't take it to
    as many as the largest that it takes.

    What fails at a batch size is left out there; what fails at all of them, and a net in another precision that is too
    far from the first engine, is left out, of `ready` and `files`, too. Raises UserError when nothing runs, and when
    two engines of the same precision differ by more than AGREEMENT.
    """
    differences: Differences = {}
    answers: dict[str, Answers] = {}
    failures: dict[str, dict[int, str]] = {}
    for batch in sorted(set(batches)):
        said: dict[str, np.ndarray] = {}
        for name, engine in list(found.ready.items()):
            try:
                said[name] = _logits(engine, found.pictures, batch, every=batch == max(batches))
            except Exception as error:  # whatever an engine raises (no C++ compiler for torch.compile, say)
                failures.setdefault(name, {})[batch] = first_line(error)
        differences[batch] = _differences(found, said)
        answers |= {row.engine: row for row in _answers(said, len(found.pictures))}
    for name, reasons in failures.items():
        if len(reasons) < len(differences):
            found.left_out |= {f"{name}, batch {batch}": reason for batch, reason in reasons.items()}
        else:
            _leave_out(found, name, reasons[min(reasons)])
    if not found.ready:
        raise UserError(f"no engine can run the model: {listed(found.left_out)}")
    kept = {
        batch: {name: worst for name, worst in differences[batch].items() if name in found.ready}
        for batch in dict.fromkeys(batches)
    }
    return kept, [row for name, row in answers.items() if name in found.ready]


def _leave_out(found: Engines, name: str, reason: str) -> None:
    found.left_out[name] = reason
    del found.ready[name]
    found.files.pop(name, None)


def listed(left_out: dict[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in left_out.items())


def first(pictures: np.ndarray, batch: int) -> np.ndarray:
    """[batch, …] of [n, …], over again when they are too few."""
    return pictures[np.arange(batch) % len(pictures)]


def _logits(engine: Engine, pictures: np.ndarray, batch: int, every: bool) -> np.ndarray:
    """Of the `first` batch; every: of so many batches that each picture is in one, in their order."""
    many = first(pictures, -(-len(pictures) // batch) * batch if every else batch)
    return np.concatenate([engine(many[begin : begin + batch])() for begin in range(0, len(many), batch)])


def _differences(found: Engines, said: dict[str, np.ndarray]) -> dict[str, float]:
    differences = {}
    for name, logits in said.items():
        other, reference = next(iter(said.items()))
        worst = float(np.abs(logits - reference).max() / np.abs(reference).max())
        differences[name] = worst
        allowed = max(found.tolerances.get(one, AGREEMENT) for one in (name, other))
        if worst <= allowed:
            continue
        if name not in found.tolerances:
            raise UserError(f"{name} and {other} disagree by {worst:.2g} of the largest logit; nothing was timed")
        _leave_out(found, name, f"it differs from {other} by {worst:.2g} of the largest logit; {allowed} is allowed")
    return differences


def _answers(said: dict[str, np.ndarray], pictures: int) -> list[Answers]:
    rows = []
    for name, logits in said.items():
        other, reference = next(iter(said.items()))
        same = (logits.argmax(1) == reference.argmax(1))[:pictures]
        rows.append(Answers(name, other, int(same.sum()), len(same)))
    return rows
