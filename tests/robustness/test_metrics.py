from __future__ import annotations

import numpy as np
import pytest

from hw4fast.robustness.metrics import NO_LABEL, breaks, harm, loss_bound, summarise
from hw4fast.robustness.points import CLEAN
from tests.robustness.rows import row

CLEAN_ANSWERS = np.array([1, 2, 3, 4, 5])
ANSWERS = np.array([1, 2, 0, 0, 5])
CONFIDENCE = np.array([0.5, 0.25, 1.0, 0.75, 0.5], np.float32)


def test_counts_by_hand():
    labels = np.array([1, 0, 3, 4, NO_LABEL])  # right; wrong; right → wrong; right → wrong; unlabelled
    found = summarise(CLEAN, ANSWERS, CONFIDENCE, CLEAN_ANSWERS, labels)
    assert (found.n, found.flips, found.labelled, found.correct) == (5, 2, 4, 1)
    assert found.accuracy == 0.25
    assert found.flip_rate == 0.4
    assert found.mean_confidence == 0.6
    # Wilson, by hand with z = 1.96: 1 of 4 → 0.0456 … 0.6994; 2 of 5 → 0.1176 … 0.7693
    assert found.accuracy_interval == pytest.approx((0.0456, 0.6994), abs=1e-4)
    assert found.flip_interval == pytest.approx((0.1176, 0.7693), abs=1e-4)


def test_without_labels_there_is_no_accuracy():
    found = summarise(CLEAN, ANSWERS, CONFIDENCE, CLEAN_ANSWERS, np.full(5, NO_LABEL))
    assert found.accuracy is None
    assert found.accuracy_interval is None
    assert found.flips == 2
    assert harm(found) == found.flip_rate


def test_an_answer_that_equals_the_mark_of_no_label_is_not_right():
    answers = np.full(2, NO_LABEL)
    assert summarise(CLEAN, answers, np.ones(2), answers, np.full(2, NO_LABEL)).correct == 0


def test_nothing_to_count_is_refused():
    empty = np.array([], int)
    with pytest.raises(ValueError, match="at least 1"):
        summarise(CLEAN, empty, empty, empty, empty)


def test_it_breaks_when_a_tenth_is_lost_and_the_intervals_lie_apart():
    clean = row("clean", 0, 360, flips=0, correct=350)
    assert not breaks(row("blur", 1, 360, flips=30, correct=320), clean)  # 8 points: certain, yet too little
    assert breaks(row("blur", 2, 360, flips=60, correct=300), clean)  # 14 points, intervals apart
    few = row("clean", 0, 10, flips=0, correct=9)
    assert not breaks(row("blur", 2, 10, flips=3, correct=7), few)  # 20 points of ten pictures: chance


def test_the_loss_that_few_pictures_leave_open():
    clean = row("clean", 0, 10, flips=0, correct=10)
    # by hand: Wilson of 9 of 10 is 0.5958 … 0.9821; 0.1 + √(0² + 0.3042²)
    assert loss_bound(row("blur", 1, 10, flips=9, correct=9), clean) == pytest.approx(0.4042, abs=1e-4)
    # no answer changed: no more than 0.2775 of all answers change, Wilson of 0 of 10
    assert loss_bound(row("blur", 1, 10, flips=0, correct=10), clean) == pytest.approx(0.2775, abs=1e-4)
    unlabelled = row("blur", 1, 10, flips=0, correct=None)
    assert loss_bound(unlabelled, row("clean", 0, 10, flips=0, correct=None)) == pytest.approx(0.2775, abs=1e-4)
    half = row("clean", 0, 100, flips=0, correct=50)
    assert loss_bound(row("blur", 1, 100, flips=0, correct=50), half) < 0.04


def test_a_tenth_to_the_picture_is_a_tenth():
    """1 − 0.9 is a little less than 0.1 in floats."""
    assert breaks(row("blur", 1, 1000, 100, 900), row("clean", 0, 1000, 0, 1000))
    assert not breaks(row("blur", 1, 1000, 99, 901), row("clean", 0, 1000, 0, 1000))


def test_without_labels_flips_are_what_breaks():
    clean = row("clean", 0, 360, flips=0, correct=None)
    assert not breaks(row("blur", 1, 360, flips=35, correct=None), clean)
    assert breaks(row("blur", 1, 360, flips=36, correct=None), clean)
    assert not breaks(row("blur", 1, 3, flips=1, correct=None), row("clean", 0, 3, flips=0, correct=None))


def test_top_five_has_an_interval_where_there_are_more_classes():
    labels, ranks = np.array([1, 0, 3, 4, NO_LABEL]), np.array([0, 4, 5, 1, -1])
    found = summarise(CLEAN, ANSWERS, CONFIDENCE, CLEAN_ANSWERS, labels, ranks, classes=10)
    assert (found.correct_top5, found.top5) == (3, 0.75)
    # Wilson, by hand with z = 1.96: 3 of 4 → 0.3006 … 0.9544
    assert found.top5_interval == pytest.approx((0.3006, 0.9544), abs=1e-4)
    line = found.to_json()
    assert [line[f"accuracy_top5{end}"] for end in ("", "_low", "_high")] == [0.75, *found.top5_interval]
    few = summarise(CLEAN, ANSWERS, CONFIDENCE, CLEAN_ANSWERS, labels, ranks, classes=5)
    assert few.top5 is few.top5_interval is few.to_json()["accuracy_top5"] is None
