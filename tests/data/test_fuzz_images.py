"""Hostile and damaged pictures: pixels or one clear line; no crash, no hang, no unbounded memory."""

from __future__ import annotations

import os

import pytest

from tests.data.hostile_pictures import HOSTILE, corpus, damaged_picture
from tests.watched import BAD, Watched

NUMBER = int(os.environ.get("HW4FAST_FUZZ", "300"))
SECONDS, MEMORY = 20, 3000  # a picture of MAX_PIXELS with transparency takes 6 s and 2.5 GB


@pytest.fixture(scope="module")
def watched():
    with Watched("picture", SECONDS, MEMORY) as watched:
        yield watched


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name, watched, tmp_path):
    make, text = HOSTILE[name]
    path = tmp_path / "hostile.picture"
    path.write_bytes(make())
    outcome = watched.judge(path)
    assert outcome.kind == ("refused" if text else "answered"), outcome
    assert text in outcome.text


def test_every_kind_is_answered_before_it_is_damaged(watched, tmp_path):
    path = tmp_path / "sound.picture"
    for name, data in corpus().items():
        path.write_bytes(data)
        assert watched.judge(path).kind == "answered", name


def test_damaged(watched, tmp_path):
    """The first 300 of the numbered pictures; HW4FAST_FUZZ=2000 for more."""
    path, kinds = tmp_path / "damaged.picture", []
    for number in range(NUMBER):
        name, data = damaged_picture(number)
        path.write_bytes(data)
        outcome = watched.judge(path)
        assert outcome.kind not in BAD, (number, name, outcome)
        kinds.append(outcome.kind)
    assert min(kinds.count("answered"), kinds.count("refused")) > NUMBER / 10


def test_the_same_number_is_the_same_picture():
    assert [damaged_picture(7), damaged_picture(8)] == [damaged_picture(7), damaged_picture(8)]
    assert damaged_picture(7) != damaged_picture(8)
