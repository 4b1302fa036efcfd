"""Rows of a summary made by hand."""

from __future__ import annotations

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
