"""A model that another program wrote, and what its card should say."""

from __future__ import annotations

from pathlib import Path

import pytest

from hw4fast.data import load


@pytest.fixture
def foreign(centroid_onnx, tmp_path) -> Path:
    """The centroid model without its card."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(centroid_onnx)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {"author": "somebody else"})
    onnx.save(model, tmp_path / "foreign.onnx")
    return tmp_path / "foreign.onnx"


@pytest.fixture
def values() -> dict[str, str]:
    digits = load("digits").preprocessing
    return {
        "labels": ",".join("0123456789"),
        "mode": "L",
        "resize": "stretch",
        "resize_size": "none",
        "mean": str(digits.mean[0]),
        "std": str(digits.std[0]),
    }
