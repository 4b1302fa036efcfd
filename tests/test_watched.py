"""The watch over hostile files notices what it is there for."""

from __future__ import annotations

import pytest

from tests.watched import Watched

WORDS = {
    "crash": "crashed",
    "hang": "hung",
    "grow": "over memory",
    "grow for a moment": "over memory",
    "grow in a child": "over memory",
    "print": "printed",
    "fail": "traceback",
    "refuse": "refused",
    "refuse in two lines": "bad refusal",
    "refuse at length": "bad refusal",
    "refuse with a bell": "bad refusal",
    "answer": "answered",
}


@pytest.fixture(scope="module")
def watched():
    with Watched("itself", seconds=2, memory=500) as watched:
        yield watched


@pytest.mark.parametrize(("word", "kind"), WORDS.items())
def test_what_it_notices(word, kind, watched, tmp_path):
    path = tmp_path / "word"
    for told, expected in ((word, kind), ("answer", "answered")):  # and it goes on
        path.write_text(told)
        outcome = watched.judge(path)
        assert outcome.kind == expected, outcome
    assert outcome.peak < 300 and outcome.text == "answer"


def test_what_it_says(watched, tmp_path):
    path = tmp_path / "word"
    path.write_text("crash")
    assert watched.judge(path).text == "SIGSEGV"
    path.write_text("print")
    assert "noise" in watched.judge(path).text
