"""A finished run that a test may export, and its graph without torch's seconds."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import onnx
import pytest

from hw4fast import exporter


@pytest.fixture(scope="session")
def model_file(small_run) -> Path:
    return small_run / "model.onnx"


@pytest.fixture
def run(small_run, tmp_path) -> Path:
    """A copy of the run that a test may spoil, not exported."""
    shutil.copytree(small_run, tmp_path / "run", ignore=shutil.ignore_patterns("model.onnx"))
    return tmp_path / "run"


@pytest.fixture
def quick_graph(model_file, monkeypatch):
    """torch.onnx takes seconds: for tests of what comes after it, its graph is read from the finished file."""

    def graph(_source):
        proto = onnx.load(model_file)
        del proto.metadata_props[:]
        return proto

    monkeypatch.setattr(exporter, "to_onnx", graph)


@pytest.fixture
def few_photographs(tmp_path, monkeypatch) -> Path:
    """HW4FAST_DATA with its models and 40 photographs: the whole takes a minute a net."""
    data = os.environ.get("HW4FAST_DATA")
    if not data or not (Path(data) / "models" / "squeezenet1_1.pth").is_file():
        pytest.skip("needs models/squeezenet1_1.pth in HW4FAST_DATA")
    whole, few = Path(data) / "photos" / "nips2017", tmp_path / "data" / "photos" / "nips2017"
    few.mkdir(parents=True)
    (tmp_path / "data" / "models").symlink_to(Path(data) / "models")
    with (whole / "labels.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))[:40]
    with (few / "labels.csv").open("w", encoding="utf-8", newline="") as table:
        writer = csv.DictWriter(table, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        (few / row["file"]).symlink_to(whole / row["file"])
    monkeypatch.setenv("HW4FAST_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("hw4fast.exporter.source.SAMPLES", 20)
    return tmp_path / "data"
