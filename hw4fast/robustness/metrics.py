"""What a study counts: how often a model is right, how often it changes its mind, how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from typing import Any

import numpy as np

from hw4fast.robustness.points import Point
from hw4fast.stats import wilson

NO_LABEL = -1
LOST = 0.10  # a transform "breaks" a model once it costs at least this share of the answers


@dataclass(frozen=True)
class Row:
    """All pictures at one point (a transform at one severity).

    n: pictures; flips: how many of them are answered otherwise than clean; labelled: how many have a label;
    correct: how many of those are answered right; correct_top5: among the five best; mean_confidence: of the
    probability of the answer, over n; classes: of the model, 0 where it isn't known.
    """

    point: Point
    n: int
    flips: int
    labelled: int
    correct: int
    mean_confidence: float
    correct_top5: int = 0
    classes: int = 0

    @property
    def accuracy(self) -> float | None:
        return self.correct / self.labelled if self.labelled else None

    @property
    def accuracy_interval(self) -> tuple[float, float] | None:
        """95 % Wilson interval; None without labels."""
        return wilson(self.correct, self.labelled) if self.labelled else None

    @property
    def top5(self) -> float | None:
        """Top-5 accuracy; None without labels, and of five classes or fewer, which are all among the best five."""
        return self.correct_top5 / self.labelled if self.labelled and self.classes > 5 else None

    @property
    def top5_interval(self) -> tuple[float, float] | None:
        """95 % Wilson interval; None where `top5` is."""
        return None if self.top5 is None else wilson(self.correct_top5, self.labelled)

    @property
    def flip_rate(self) -> float:
        return self.flips / self.n

    @property
    def flip_interval(self) -> tuple[float, float]:
        """95 % Wilson interval."""
        return wilson(self.flips, self.n)

    def to_json(self) -> dict[str, Any]:
        """A line of `summary.csv`: shares as fractions of 1; None for what there is not."""
        right, flipped = self.accuracy_interval or (None, None), self.flip_interval
        top5 = self.top5_interval or (None, None)
        return {
            "transform": self.point.series,
            "severity": self.point.severity,
            "spec": self.point.spec,
            "n": self.n,
            "labelled": self.labelled,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "accuracy_low": right[0],
            "accuracy_high": right[1],
            "correct_top5": self.correct_top5 if self.labelled else None,
            "accuracy_top5": self.top5,
            "accuracy_top5_low": top5[0],
            "accuracy_top5_high": top5[1],
            "flips": self.flips,
            "flip_rate": self.flip_rate,
            "flip_low": flipped[0],
            "flip_high": flipped[1],
            "mean_confidence": self.mean_confidence,
        }


def summarise(
    point: Point,
    answers: np.ndarray,
    confidence: np.ndarray,
    clean: np.ndarray,
    labels: np.ndarray,
    ranks: np.ndarray | None = None,
    classes: int = 0,
) -> Row:
    """One Row from one prediction per picture. ranks: int [n], how many classes come before the label; if None, no
    answer but the first counts; classes: of the model.

    answers, clean: int [n], the answers at `point` and without any transform; confidence: float [n];
    labels: int [n], NO_LABEL where there is none. Raises ValueError for n = 0.
    """
    if not len(answers) == len(confidence) == len(clean) == len(labels) > 0:
        raise ValueError("answers, confidence, clean and labels must have the same length, at least 1")
    return Row(
        point=point,
        n=len(answers),
        flips=int(np.count_nonzero(answers != clean)),
        labelled=int(np.count_nonzero(labels != NO_LABEL)),
        correct=int(np.count_nonzero((answers == labels) & (labels != NO_LABEL))),
        mean_confidence=float(np.mean(confidence, dtype=np.float64)),
        correct_top5=int(np.count_nonzero((labels != NO_LABEL) & (answers == labels if ranks is None else ranks < 5))),
        classes=classes,
    )


def breaks(row: Row, clean: Row) -> bool:
    """Whether `row` is clearly worse than `clean`: it costs at least LOST, and the 95 % intervals lie apart.

    What is compared is accuracy; the flip rate where no picture has a label.
    """
    if row.accuracy is None or clean.accuracy is None:
        return row.flip_rate >= LOST and row.flip_interval[0] > clean.flip_interval[1]
    assert row.accuracy_interval is not None and clean.accuracy_interval is not None
    return round(clean.accuracy - row.accuracy, 9) >= LOST and row.accuracy_interval[1] < clean.accuracy_interval[0]


def loss_bound(row: Row, clean: Row) -> float:
    """The greatest loss of accuracy from `clean` to `row` that the pictures don't exclude (95 %), as a share; of
    changed answers where no picture has a label.

    Source: R. G. Newcombe, "Interval estimation for the difference between independent proportions", Statistics in
    Medicine 17 (1998), method 10. As the same pictures stand on both sides, it errs on the wide side; no more can be
    lost than is answered otherwise, which is the tighter bound where hardly an answer changed.
    """
    if row.accuracy is None or clean.accuracy is None:
        return row.flip_interval[1]
    assert row.accuracy_interval is not None and clean.accuracy_interval is not None
    up, down = clean.accuracy_interval[1] - clean.accuracy, row.accuracy - row.accuracy_interval[0]
    bound = clean.accuracy - row.accuracy + hypot(up, down)
    return min(bound, row.flip_interval[1]) if row.labelled == row.n else bound


def harm(row: Row) -> float:
    """The share of answers that are wrong; of answers that changed where no picture has a label."""
    return row.flip_rate if row.accuracy is None else 1 - row.accuracy
