"""The flowers part, on a folder of a few pictures and a small net: every run, its page, its reasons."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from hw4fast.homework import flowers
from hw4fast.homework.parts import Options
from hw4fast.homework.reproduce import reproduce
from hw4fast.training.runs import Epoch

NET = "mobilenet_v3_small"


@pytest.fixture
def garden(tmp_path, monkeypatch):
    """A folder of two classes, weights for NET in the data folder, caches of their own."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("rose", "tulip")):
        (tmp_path / "garden" / name).mkdir(parents=True)
        for place in range(7):
            picture = rng.integers(0, 120, (32, 32, 3), np.uint8)
            picture[..., number] += 130
            Image.fromarray(picture).save(tmp_path / "garden" / name / f"{place}.png")
    (tmp_path / "data" / "models").mkdir(parents=True)
    torch.manual_seed(0)
    net = torchvision.models.get_model(NET, weights=None)
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.bias, -0.5, 0.5)  # with means 0 and variances 1: as if folded
    state = net.state_dict()
    torch.save(state, tmp_path / "data" / "models" / f"{NET}.pth")
    monkeypatch.setenv("HW4FAST_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HW4FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(flowers, "BACKBONE", NET)
    return Options(pictures=str(tmp_path / "garden"), epochs=2, threads=1, progress=False)


def test_every_run_is_there_and_shown(garden, tmp_path, monkeypatch):
    result = reproduce(["flowers"], tmp_path / "out", garden)
    found = result.results["flowers"]
    assert [entry["name"] for entry in found["runs"]] == list(flowers.RUNS)
    assert [entry["epochs"] for entry in found["runs"]] == [2, 2, 2, 4, 2]
    assert found["runs"][0]["seconds"].keys() == {"head"} and found["runs"][3]["seconds"].keys() == {"head", "all"}
    with (tmp_path / "out" / "flowers" / "flowers.csv").open(encoding="utf-8", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(flowers.RUNS)
    page = result.report.read_text(encoding="utf-8")
    assert page.count("data:image/png") == len(flowers.RUNS) + 2 and "A frozen epoch takes" in page
    assert "taken anew" in page and [entry["batch_norm_unfolded"] for entry in found["runs"]] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert len(flowers.table(found)) == len(flowers.RUNS) + 2

    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr("hw4fast.homework.finished.train", refuse)
    assert reproduce(["flowers"], tmp_path / "out", garden).results["flowers"]["runs"] == found["runs"]


def test_the_curve_of_thousands_of_epochs_is_short_and_ends_where_the_run_did():
    history = [Epoch(n, "head", 1, 1, 1, 0.5, val_cost=1 / n, val_correct=n, val_images=5000) for n in range(1, 4703)]
    curve = flowers._curve(history)
    assert len(curve) <= flowers.POINTS + 1
    assert curve[0] == {"seconds": 0.5, "cost": 1.0, "accuracy": 1 / 5000}
    assert curve[-1] == {"seconds": 2351.0, "cost": 1 / 4702, "accuracy": 4702 / 5000}
    assert flowers._curve(history[:3])[1]["seconds"] == 1.0 and len(flowers._curve(history[:3])) == 3


def test_the_curve_of_two_stages_shows_every_epoch_of_the_short_one_and_each_ones_best():
    costs = [abs(n - 4000) + 1.0 for n in range(4702)] + [0.5, 0.25, 0.75]
    stages = ["head"] * 4702 + ["all"] * 3
    history = [
        Epoch(n, stage, 1, 1, 1, 0.5, val_cost=cost, val_correct=1, val_images=2)
        for n, (stage, cost) in enumerate(zip(stages, costs, strict=True), 1)
    ]
    drawn = [point["cost"] for point in flowers._curve(history)]
    assert drawn[-3:] == [0.5, 0.25, 0.75] and 1.0 in drawn and len(drawn) <= flowers.POINTS + 5


def entry(name, correct, stage, seconds):
    return {
        "name": name, "test_correct": correct, "test_images": 600, "val_correct": 1, "val_images": 408,
        "seconds": {stage: seconds}, "curve": [], "train_images": 1020, "classes": 102, "left_out": 0,
        "batch_norm_unfolded": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("whole", "words", "why"),
    [
        (560, "better than the 83.3 %", "A frozen epoch takes 0.100 s, 300 times less"),
        (
            510,
            "no different from the 83.3 %",
            "less than the ±4.1 that 600 test pictures leave to chance: with 10",
        ),
        (440, "worse than the 83.3 %", "4 to stop by, all layers can learn the training pictures by heart"),
    ],
)
def test_reasons_follow_from_the_numbers(whole, words, why):
    runs = [entry("frozen, patience 10", 500, "head", 0.1), entry("unfrozen, patience 10", whole, "all", 30.0)]
    runs.append(entry("frozen, then unfrozen", 560, "head", 0.1) | {"epochs": 112, "head_epochs": 100})
    results = {"backbone": NET, "dataset": "flowers", "runs": runs}
    assert words in flowers.finding(results) and why in flowers.reason(results)
    ending = "is 10.0 points ahead of frozen alone (±3.6 are chance) after 12 epochs of all layers."
    assert flowers.reason(results).endswith(ending)
    side = "ahead" if whole > 500 else "behind"
    assert f"Unfrozen is {abs(whole - 500) / 6:.1f} points {side}" in flowers.reason(results)
