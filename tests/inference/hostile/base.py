"""A small linear net, and how it is made hostile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

from hw4fast.data import Preprocessing
from hw4fast.inference.card import KEY, Card

F, I64 = TensorProto.FLOAT, TensorProto.INT64
GREY = Preprocessing(mode="L", crop=(28, 28), mean=(0.3,), std=(0.35,))
CARD = Card(GREY, ("0", "1", "2"), {}, {}, 17).to_json_text()
MODELS: dict[str, Callable[[Path], Path]] = {}
HUGE = 2**40


def node(kind: str, inputs: str, output: str = "h", domain: str = "", **attributes: Any) -> NodeProto:
    """inputs and output: names with spaces between them, "-" for none."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(kind, names, output.split(), domain=domain, **attributes)


def const(name: str, value: Any, dtype: Any = np.int64) -> TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def linear(
    nodes: Iterable[NodeProto] = (),
    constants: Iterable[TensorProto] = (),
    shape: tuple[Any, ...] = ("n", 1, 28, 28),
    card: str | None = CARD,
    opset: int = 17,
    domains: tuple[str, ...] = ("ai.onnx.ml", "com.microsoft", "hw4fast", "mine"),
) -> ModelProto:
    """A linear net whose logits are shifted by the sum of the tensor `h` that `nodes` make. They may read `input`, and
    `zero`, an int64 [1] that is 0 but only known at run time."""
    nodes = list(nodes)
    shifted = [node("Cast", "h", "h32", to=F), node("ReduceSum", "h32", "shift", keepdims=0)] if nodes else []
    graph = helper.make_graph(
        [
            node("ReduceMax", "input", "most", keepdims=0),
            node("Mul", "most nought", "nothing"),
            node("Cast", "nothing", "nothing64", to=I64),
            node("Reshape", "nothing64 one", "zero"),
            *nodes,
            node("Flatten", "input", "flat"),
            node("Gemm", "flat weight bias", "plain" if nodes else "logits", transB=1),
            *shifted,
            *([node("Add", "plain shift", "logits")] if nodes else []),
        ],
        "hostile",
        [helper.make_tensor_value_info("input", F, shape)],
        [helper.make_tensor_value_info("logits", F, [shape[0] if shape else "n", 3])],
        [
            const("weight", np.random.Generator(np.random.PCG64(0)).normal(size=(3, 784)), np.float32),
            const("bias", [0, 0, 0], np.float32),
            const("nought", 0, np.float32),
            const("one", [1]),
            *constants,
        ],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    if card is not None:
        helper.set_model_props(model, {KEY: card})
    return model


def save(model: ModelProto, folder: Path) -> Path:
    path = folder / "hostile.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def add(name: str, make: Callable[[], ModelProto]) -> None:
    assert name not in MODELS, name
    MODELS[name] = lambda folder: save(make(), folder)


def writes(name: str) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    def kept(function: Callable[[Path], Path]) -> Callable[[Path], Path]:
        assert name not in MODELS, name
        MODELS[name] = function
        return function

    return kept


def changed(name: str, *nodes: NodeProto, constants: Iterable[TensorProto] = (), **options: Any) -> None:
    add(name, lambda: linear(nodes, constants, **options))
