"""What int8 costs and what it brings, measured: answers and accuracy on pictures that it was not calibrated on, and
its speed beside float32's on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast import record, timing
from hw4fast.errors import UserError
from hw4fast.exporter.samples import Judged
from hw4fast.inference.classifier import BATCH, Classifier
from hw4fast.stats import wilson

BATCHES = (1, BATCH)
SECONDS = 4.0  # of timing each batch size
SLOW_S = 0.2  # a call that long doesn't notice its neighbours' threads, and isn't repeated so often
BURST = 5  # calls per turn, see timing.alternate


def judge(plain: Path, int8: Path, sets: Iterable[tuple[str, Judged]]) -> dict[str, Any]:
    """For each set of pictures: how many answers of the int8 file are the float32 file's, how many of either are
    right (with 95 % intervals of the share), and the largest difference of their logits.

    Raises UserError when int8 answers with what is no number.
    """
    from tqdm import tqdm

    classifiers, found = [Classifier(file, trusted=True) for file in (plain, int8)], {}
    for name, told in sets:
        logits: list[list[np.ndarray]] = [[], []]
        with tqdm(total=len(told.pictures), desc=f"comparing on {name}", unit="img", disable=None, leave=False) as bar:
            for start in range(0, len(told.pictures), BATCH):
                batch = told.pictures[start : start + BATCH]
                for of_one, classifier in zip(logits, classifiers, strict=True):
                    of_one.append(classifier.logits(batch))
                bar.update(len(batch))
        before, after = map(np.concatenate, logits)
        if not np.isfinite(after).all():
            raise UserError(f"in int8 the net answers with what is no number on {name}; no file was written")
        found[name] = _compared(before, after, told.labels)
    return found


def _compared(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Logits [n, classes] in float32 and in int8, labels [n]."""
    answers, n = [each.argmax(1) for each in (before, after)], len(labels)
    right = [int((each == labels).sum()) for each in answers]
    return {
        "pictures": n,
        "same_answers": int((answers[0] == answers[1]).sum()),
        "correct_float32": right[0],
        "correct_int8": right[1],
        "accuracy_float32_95": list(wilson(right[0], n)),
        "accuracy_int8_95": list(wilson(right[1], n)),
        "largest_logit": float(np.abs(before).max()),
        "max_error_to_float32": float(np.abs(after - before).max()),
    }


def race(plain: Path, int8: Path, pictures: np.ndarray) -> dict[str, Any]:
    """Both files on the same fitted pictures, by turns: {batch: how many times faster int8 is, with its 95 % interval
    over n rounds, and the medians of both in ms}, and the machine that it holds for."""
    files = {"float32": Classifier(plain, trusted=True), "int8": Classifier(int8, trusted=True)}
    times_faster = {}
    for size in BATCHES:
        batch = pictures[np.arange(size) % len(pictures)]
        calls: dict[str, Callable[[], object]] = {
            name: partial(classifier.logits, batch) for name, classifier in files.items()
        }
        begun = time.perf_counter()
        calls["float32"]()
        slow = time.perf_counter() - begun > SLOW_S
        burst, warmup = (1, 1) if slow else (BURST, 3)
        took = timing.alternate(calls, SECONDS, warmup, at_least=7, burst=burst, pause=timing.POOLS_REST_S)
        medians = {f"{name}_ms": float(np.median(each) * 1e3) for name, each in took.items()}
        times_faster[str(size)] = asdict(timing.ratio(took["float32"], took["int8"])) | medians
    return {"processor": record.processor(), "cores": record.cores(), "batches": times_faster}
