"""Models damaged by chance: an answer or one clear line; no crash, no hang, no unbounded memory."""

from __future__ import annotations

import os

import pytest

from tests.inference.damaged_models import corpus, damaged_model
from tests.watched import BAD, Watched

NUMBER = int(os.environ.get("HW4FAST_FUZZ", "80"))
LIMITS = {"HW4FAST_TRIAL_SECONDS": "4", "HW4FAST_TRIAL_MB": "1024"}


@pytest.fixture(scope="module")
def watched():
    with Watched("model", seconds=12, memory=1500, environment=LIMITS) as watched:
        yield watched


def test_every_model_is_answered_before_it_is_damaged(watched, tmp_path):
    path = tmp_path / "sound.onnx"
    for name, data in corpus().items():
        path.write_bytes(data)
        outcome = watched.judge(path)
        assert outcome.kind == "answered", (name, outcome)


def test_damaged(watched, tmp_path):
    """The first 80 of the numbered models; HW4FAST_FUZZ=2000 for more."""
    path, kinds = tmp_path / "damaged.onnx", []
    for number in range(NUMBER):
        name, data = damaged_model(number)
        path.write_bytes(data)
        outcome = watched.judge(path)
        assert outcome.kind not in BAD, (number, name, outcome)
        kinds.append(outcome.kind)
    assert min(kinds.count("answered"), kinds.count("refused")) > NUMBER / 20


def test_the_same_number_is_the_same_model():
    assert [damaged_model(n) for n in range(30)] == [damaged_model(n) for n in range(30)]
    assert len({damaged_model(n) for n in range(30)}) > 25
