"""Rows of a summary made by hand."""

from __future__ import annotations

import numpy as np

from hw4fast.robustness.measure import Measured
from hw4fast.robustness.metrics import Row
from hw4fast.robustness.points import CLEAN, Point
from hw4fast.transforms import at_severity, parse


def row(series: str, severity: int | None, n: int, flips: int, correct: int | None) -> Row:
    """correct: None for pictures without labels; severity: None for a specification that states its level."""
    if series == "clean":
        point = CLEAN
    else:
        point = Point(series, severity, parse(series) if severity is None else at_severity(series, severity))
    labelled = 0 if correct is None else n
    return Row(point, n, flips, labelled, correct or 0, mean_confidence=0.5)


def measured_of(points, columns, labels, names=None, failures=()) -> Measured:
    """columns: per picture its answer at each point; the model is 0.5 sure of each."""
    answers, labels = np.array(columns, np.int32).T, np.array(labels)
    ranks = np.where(labels == -1, -1, np.where(answers == labels, 0, 7)).astype(np.int32)
    names = names or [f"{number}.png" for number in range(len(labels))]
    confidence = np.full(answers.shape, 0.5, np.float32)
    return Measured(tuple(points), names, list(range(len(labels))), labels, answers, confidence, ranks, tuple(failures))
