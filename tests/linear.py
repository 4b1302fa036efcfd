"""Nets of one layer, for photographs."""

from __future__ import annotations

import numpy as np

from hw4fast.data.preprocessing import Preprocessing
from hw4fast.inference.card import Card
from tests.conftest import write_linear_onnx


def net(path, seed, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), scale=0.05, **reading):
    """A random linear net of ten classes for colour pictures of 32²."""
    preprocessing = Preprocessing("RGB", (32, 32), mean, std, **reading)
    labels = tuple("abcdefghij")
    text = Card(preprocessing=preprocessing, labels=labels, provenance={}, parity={}, opset=17).to_json_text()
    weights = np.random.default_rng(seed).standard_normal((10, 3 * 32 * 32)) * scale
    return write_linear_onnx(path, weights, np.zeros(10), text, ("n", 3, 32, 32))
