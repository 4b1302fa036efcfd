"""A finished run that a test may export, and its graph without torch's seconds."""

from __future__ import annotations

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
