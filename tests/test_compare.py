"""benchmarks/compare.py: what it writes and refuses; its timing is hw4fast.timing's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from hw4fast import record

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Its main with arguments, without any timing; returns the files that it wrote."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("compare", FOLDER / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "compare", lambda *_: {"case": "100x10"})
    monkeypatch.setattr(module, "RESULTS", tmp_path)

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["compare.py", *arguments])
        module.main()
        return sorted(tmp_path.iterdir())

    return main


def test_only_record_writes_a_record(run, tmp_path):
    assert run("softmax_xent", "--case", "100x10", "--threads", "1") == []
    (file,) = run("softmax_xent", "--case", "100x10", "--threads", "1", "--record")
    assert file == tmp_path / "softmax_xent.jsonl"
    assert [entry["results"]["cases"] for entry in record.read(file)] == [[{"case": "100x10"}]]


@pytest.mark.parametrize("threads", ["0", "-1", "100000"])
def test_threads_that_can_not_be_had_are_a_usage_error(run, capsys, threads):
    with pytest.raises(SystemExit) as stopped:
        run("softmax_xent", "--threads", threads)
    assert stopped.value.code == 2 and "--threads must lie in 1" in capsys.readouterr().err
