"""Before anything is timed: who is too far from the first engine, who fails where, and who answers what."""

from __future__ import annotations

import numpy as np
import pytest

from hw4fast.bench.agreement import Answers, agreeing
from hw4fast.bench.choosing import Chosen
from hw4fast.bench.engines import Engines
from hw4fast.errors import UserError

PICTURES = np.arange(1, 6, dtype=np.uint8)[:, None, None, None]  # five of one pixel


def says(logits):
    """An engine of three classes: logits(x) of float64 [n, 1]."""
    return lambda pictures: lambda: logits(pictures.reshape(-1, 1).astype(float))


def exact(x):
    return np.concatenate([x, x + 1, 0.99 * x], axis=1)  # the second class, always


def found(**engines):
    """Named as keywords; `int8` is one in another precision."""
    files = dict.fromkeys(engines, "its file")
    return Engines(None, Chosen((), PICTURES, ()), dict(engines), {"int8": 0.25}, files)


def test_the_answers_to_all_pictures_are_counted_beside_the_first_engines():
    engines = found(first=says(exact), int8=says(lambda x: exact(x) - [0, 1.5, 0] * (x > 3)))
    differences, answers = agreeing(engines, (2, 1))
    assert answers == [Answers("first", "first", 5, 5), Answers("int8", "first", 3, 5)]
    assert list(differences) == [2, 1] and differences[1] == {"first": 0, "int8": 0}  # of one picture
    assert differences[2] == {"first": 0, "int8": pytest.approx(1.5 / 6)}
    assert not engines.left_out


def test_another_precision_that_is_too_far_is_left_out_at_every_batch_size():
    engines = found(first=says(exact), int8=says(lambda x: exact(x) - 2 * (x > 3)))
    differences, answers = agreeing(engines, (1, 2))
    assert differences == {1: {"first": 0}, 2: {"first": 0}} and [row.engine for row in answers] == ["first"]
    assert engines.left_out == {"int8": "it differs from first by 0.33 of the largest logit; 0.25 is allowed"}
    assert list(engines.ready) == list(engines.files) == ["first"]


@pytest.mark.parametrize("spoil", [lambda y: y + 0.01, lambda y: y * np.nan], ids=["off", "nan"])
def test_the_same_precision_too_far_is_refused(spoil):
    with pytest.raises(UserError, match=r"other and first disagree by .* of the largest logit; nothing was timed"):
        agreeing(found(first=says(exact), other=says(lambda x: spoil(exact(x)))), (1,))


def up_to(most, logits=exact):
    def call(x):
        if len(x) > most:
            raise RuntimeError(f"no memory for {len(x)}\nor some such")
        return logits(x)

    return says(call)


def test_who_fails_at_a_batch_size_is_timed_at_the_others():
    engines = found(first=up_to(3), other=says(exact))
    differences, answers = agreeing(engines, (1, 3, 4))
    assert {batch: list(rows) for batch, rows in differences.items()} == {
        1: ["first", "other"],
        3: ["first", "other"],
        4: ["other"],
    }
    assert engines.left_out == {"first, batch 4": "no memory for 4"} and "first" in engines.files
    assert answers == [Answers("first", "first", 3, 3), Answers("other", "other", 5, 5)]


def test_who_fails_everywhere_is_left_out_and_nobody_is_an_error():
    engines = found(first=up_to(0), other=says(exact))
    assert agreeing(engines, (1, 4))[0] == {1: {"other": 0}, 4: {"other": 0}}
    assert engines.left_out == {"first": "no memory for 1"} and list(engines.files) == ["other"]
    with pytest.raises(UserError, match=r"no engine can run the model: first: no memory for 2"):
        agreeing(found(first=up_to(0)), (2,))
