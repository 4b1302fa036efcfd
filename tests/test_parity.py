"""benchmarks/parity.py: what it refuses to call equal, and what it records."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms._presets import ImageClassification

from hw4fast import record
from hw4fast.data import Preprocessing
from hw4fast.inference.card import Card
from tests.conftest import write_linear_onnx

SIDE = 8
USUAL = Preprocessing("RGB", (SIDE, SIDE), (0.5,) * 3, (0.25,) * 3, resize="shorter-side", resize_size=10)


@pytest.fixture
def parity(monkeypatch, tmp_path):
    """The module, with two folders of three photographs."""
    spec = importlib.util.spec_from_file_location("parity", Path(__file__).parents[1] / "benchmarks" / "parity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("a", "b"):
        folder = tmp_path / "data" / "photos" / name
        folder.mkdir(parents=True)
        lines = ["file,label"]
        for number in range(3):
            pixels = np.random.Generator(np.random.PCG64(number)).integers(0, 256, (30, 40, 3), np.uint8)
            exif = Image.Exif()
            exif[274] = 6 if number else 1
            Image.fromarray(pixels).save(folder / f"{number}.jpg", exif=exif)
            lines.append(f"{number}.jpg,{number % 2}")
        (folder / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setenv("HW4FAST_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(module, "RESULTS", tmp_path / "parity.jsonl")
    return module


@pytest.fixture
def net(tmp_path) -> tuple[Path, np.ndarray]:
    """A file of two classes, and its weights [pixels, 2]."""
    weights = np.random.Generator(np.random.PCG64(0)).standard_normal((3 * SIDE * SIDE, 2)).astype(np.float32)
    path = tmp_path / "net.onnx"
    card = Card(USUAL, ("0", "1"), {}, {}, 17).to_json_text()
    write_linear_onnx(path, weights.T, np.zeros(2, np.float32), card, ("n", 3, SIDE, SIDE))
    return path, weights


def reference(**changes) -> ImageClassification:
    return ImageClassification(
        **{"crop_size": SIDE, "resize_size": 10, "mean": (0.5,) * 3, "std": (0.25,) * 3} | changes
    )


def test_all_photographs_are_compared(parity, net):
    path, weights = net
    found = parity.on_photographs(path, reference(), lambda x: x.flatten(1).numpy() @ weights, "torch")
    assert found["photos"] == found["inputs_equal_to_torchvision"] == 6 and found["answers_compared_with"] == "torch"
    assert [(each["folder"], each["n"], each["same_answers"]) for each in found["answers"]] == [
        ("a", 3, 3),
        ("b", 3, 3),
    ]
    assert "answers" not in parity.on_photographs(path, reference(), None, "torch")


@pytest.mark.parametrize("change", [{"resize_size": 11}, {"mean": (0.5, 0.5, 0.51)}])
def test_inputs_that_differ_are_no_parity(change, parity, net):
    with pytest.raises(AssertionError, match="6 of 6 inputs differ"):
        parity.on_photographs(net[0], reference(**change), None, "torch")


def test_answers_that_differ_are_no_parity(parity, net):
    path, weights = net
    with pytest.raises(AssertionError, match=r"other answers than those of torch to \['0.jpg', '1.jpg', '2.jpg'\]"):
        parity.on_photographs(path, reference(), lambda x: -x.flatten(1).numpy() @ weights, "torch")


def test_each_net_is_recorded_when_it_is_done(parity, monkeypatch):
    asked = []

    def row(name, *_):
        asked.append(name)
        if name == "vit_b_16":
            raise KeyboardInterrupt
        return {"subject": name}

    monkeypatch.setattr(parity, "of_net", row)
    monkeypatch.setattr(parity, "of_file", row)

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["parity.py", "resnet18", "vit_b_16", "resnet50", "x.onnx", *arguments])
        parity.main()

    with pytest.raises(KeyboardInterrupt):
        main("--record")
    monkeypatch.setattr(parity, "of_net", lambda name, *_: asked.append(name) or {"subject": name})
    main("--record", "--resume")
    assert asked == ["resnet18", "vit_b_16", "vit_b_16", "resnet50", "x.onnx"]
    entries = record.read(parity.RESULTS)
    assert [entry["results"]["subject"] for entry in entries] == ["resnet18", "vit_b_16", "resnet50", "x.onnx"]
    main()
    assert len(record.read(parity.RESULTS)) == 4
