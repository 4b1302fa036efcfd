"""Models that are broken in a way that their inputs and outputs don't show."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hw4fast.data import Preprocessing
from hw4fast.inference.card import KEY, Card


def write_one_picture_onnx(path: Path) -> Path:
    """`input` [n, 1, 28, 28] → `logits` [n, 3], and a Reshape to [1, 784] between them that only one picture fits."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["input", "shape"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
        ],
        "one",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ("pictures", 1, 28, 28))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("m", 3))],
        [
            numpy_helper.from_array(np.array([1, 784]), "shape"),
            numpy_helper.from_array(np.zeros((784, 3), np.float32), "weight"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    grey = Preprocessing(mode="L", crop=(28, 28), mean=(0.3,), std=(0.35,))
    helper.set_model_props(model, {KEY: Card(grey, ("0", "1", "2"), {}, {}, 17).to_json_text()})
    onnx.save(model, path)
    return path
