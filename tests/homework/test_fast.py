"""The fast part, on digits: every seed reads the data anew, and what was interrupted has no time of its own."""

from __future__ import annotations

import csv
from functools import cache

import pytest

from hw4fast import data
from hw4fast.errors import Interrupted
from hw4fast.homework import fast
from hw4fast.homework.parts import Options
from hw4fast.homework.reproduce import reproduce
from hw4fast.training.runs import load_record

OPTIONS = Options(seeds=2, dataset="digits", epochs=1, threads=1, progress=False)


@pytest.fixture
def quiet(monkeypatch):
    for name in ("curves", "contact_sheet", "samples"):
        monkeypatch.setattr(f"hw4fast.training.pictures.{name}", lambda *_: None)


def test_each_seed_and_both_kernels(quiet, tmp_path, monkeypatch):
    read, kept = [], data._kept.__wrapped__

    def noted(*arguments):
        read.append(arguments[0])
        return kept(*arguments)

    monkeypatch.setattr(data, "_kept", cache(noted))
    result = reproduce(["fast"], tmp_path, OPTIONS)
    found = result.results["fast"]
    assert read == ["digits"] * 4  # once for each run: the clock starts before the data is read
    assert [entry["seed"] for entry in found["fast"]] == [0, 1]
    assert [entry["kernels"] for entry in found["examples"]] == ["hw4fast", "torch"]
    settings = load_record(tmp_path / "fast" / "runs" / "fast-1")["settings"]
    assert (settings["model"], settings["schedule"], settings["beta2"]) == ("fast_cnn", "one-cycle", 0.99)
    for entry in found["fast"]:
        assert entry["seconds"] > entry["epochs"][0]["seconds"] > 0
    one, other = (entry["epochs"][0]["accuracy"] for entry in found["examples"])
    assert abs(one - other) < 0.05
    with (tmp_path / "fast" / "fast.csv").open(encoding="utf-8", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["fast-0", "fast-1", "example-hw4fast", "example-torch"]
    page = result.report.read_text(encoding="utf-8")
    assert "mean of 2 seeds" in page and "not in 1 epochs" in page and page.count("<svg") == 1


def test_a_seed_that_was_interrupted_counts_its_accuracy_and_not_its_time(quiet, tmp_path, ctrl_c_in_step):
    with ctrl_c_in_step(1), pytest.raises(Interrupted, match="the same command goes on"):
        reproduce(["fast"], tmp_path, OPTIONS)
    found = reproduce(["fast"], tmp_path, OPTIONS).results["fast"]
    accuracies, seconds = fast._of_ours(found)
    assert len(accuracies) == 2 and len(seconds) == 1


def results(accuracy, seconds, sessions=1):
    run = {"accuracy": accuracy, "seconds": seconds, "sessions": 1, "seed": 0}
    epochs = [{"accuracy": 0.98, "seconds": 20.0}, {"accuracy": 0.991, "seconds": 20.0}]
    example = {"kernels": "torch", "accuracy": 0.991, "seconds": 41.0, "seconds_to_goal": 41.0, "epochs": epochs}
    example |= {"epochs_to_goal": 2, "sessions": sessions}
    return {"dataset": "mnist", "goal": 0.99, "fast": [run, run], "examples": [example]}


def test_what_is_said():
    assert fast.finding(results(0.9912, 2.04)) == (
        "99.12 % on mnist (mean of 2 seeds) in 2.0 s (median) from before the data is read"
    )
    lines = fast.table(results(0.9912, 2.04))
    assert "99.120 %" in lines[1] and "41.0 (2 epochs)" in lines[2] and "0.76 s" in lines[-1]
    lines = fast.table(results(0.9912, 2.04, sessions=2))
    assert "interrupted (2 epochs)" in lines[2] and "41.0" not in lines[2]
