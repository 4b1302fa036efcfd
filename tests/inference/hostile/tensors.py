"""Weights that are not what they say, or lie elsewhere; indices out of range."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from tests.inference.hostile.base import (
    HUGE,
    F,
    add,
    changed,
    const,
    linear,
    node,
    save,
    writes,
)

# -- tensors -----------------------------------------------------------------------------------------------------


def weight(model: ModelProto) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == "weight")


def reweighed(name: str, raw: bytes | None = None, **fields: Any) -> None:
    """The net with other fields in its weight tensor."""

    def make() -> ModelProto:
        model = linear()
        tensor = weight(model)
        if raw is not None:
            tensor.raw_data = raw
        for key, value in fields.items():
            if key == "segment":
                tensor.segment.CopyFrom(value)
            elif isinstance(value, list):
                del getattr(tensor, key)[:]
                getattr(tensor, key).extend(value)
            else:
                setattr(tensor, key, value)
        return model

    add(name, make)


for label, dims in {
    "terabytes": [3, HUGE],
    "an overflow": [2**32, 2**32],
    "an overflow of bytes": [2**62],
    "−1": [-1, 784],
    "two −1": [-3, -784],
    "the least": [-(2**63)],
    "0 times huge": [0, 2**62, 2**62],
    "nothing": [],
    "1000 axes": [1] * 1000,
    "10⁵ axes": [1] * 10**5,
}.items():
    reweighed(f"weights with dims of {label}", dims=dims)
    reweighed(f"no weights with dims of {label}", raw=b"", dims=dims)
for dtype in (*range(-1, 30), 2**31 - 1):
    reweighed(f"weights of type {dtype}", data_type=dtype)
    reweighed(f"weights of type {dtype} without bytes", raw=b"", data_type=dtype)
reweighed("weights too short", raw=b"\0" * 17)
reweighed("weights too long", raw=b"\0" * (3 * 784 * 4 + 64))
reweighed("weights in two places", float_data=[1.0, 2.0])
reweighed("weights that are a segment", segment=TensorProto.Segment(begin=0, end=2**62))


def external(name: str, location: str, offset: str | None = None, length: str | None = None, data: int = 1) -> None:
    """The net whose weights lie in another file; `beside.bin` in its folder is good."""

    @writes(f"weights in {name}")
    def make(folder: Path) -> Path:
        (folder / "beside.bin").write_bytes(bytes(3 * 784 * 4))
        (folder / "short.bin").write_bytes(bytes(100))
        for link, to in {"link.bin": "/etc/passwd", "zero.bin": "/dev/zero", "loop.bin": "loop.bin"}.items():
            if not (folder / link).is_symlink():
                (folder / link).symlink_to(to)
        if not (folder / "pipe.bin").exists():
            os.mkfifo(folder / "pipe.bin")
        (folder / "inner.bin").mkdir(exist_ok=True)
        model = linear()
        tensor = weight(model)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": offset, "length": length}.items():
            if value is not None:
                entry = tensor.external_data.add()
                entry.key, entry.value = key, value
        return save(model, folder)


for label, where in {
    "a good file beside it": "beside.bin",
    "a file that is missing": "missing.bin",
    "a file that is too short": "short.bin",
    "/etc/passwd by ..": "../../../../../../../../etc/passwd",
    "/etc/passwd": "/etc/passwd",
    "/dev/zero": "/dev/zero",
    "/dev/zero by ..": "../../../../../../../../dev/zero",
    "a link to /etc/passwd": "link.bin",
    "a link to /dev/zero": "zero.bin",
    "a link to itself": "loop.bin",
    "a pipe": "pipe.bin",
    "a folder": "inner.bin",
    "no file": "",
    "the net itself": "hostile.onnx",
    "a URL": "http://127.0.0.1:9/weights",
    "memory": "*/_ORT_MEM_ADDR_/*",
    "a name of a million signs": "x" * 10**6,
    "a name with a zero byte": "beside.bin\0.bin",
}.items():
    external(label, where)
for offset, length in (
    ("-1", None),
    ("9" * 30, None),
    ("x", None),
    (str(2**62), "9408"),
    ("0", str(2**62)),
    ("0", "-5"),
    ("8", "9408"),
    ("-9408", "9408"),
):
    external(f"beside.bin from {offset[:12]}, long {length}", "beside.bin", offset, length)
external("memory at an address", "*/_ORT_MEM_ADDR_/*", "4096", "9408")


def sparse(name: str, indices: Any, dims: list[int], values: Any = (1.0, 2.0)) -> None:
    def make() -> ModelProto:
        model = linear()
        model.graph.initializer.remove(weight(model))
        entry = model.graph.sparse_initializer.add()
        entry.values.CopyFrom(const("weight", values, np.float32))
        entry.indices.CopyFrom(const("", indices))
        entry.dims.extend(dims)
        return model

    add(f"sparse weights {name}", make)


sparse("that are good", [0, 5], [3, 784])
sparse("beyond the end", [0, 10**9], [3, 784])
sparse("before the start", [-(10**9), 5], [3, 784])
sparse("of terabytes", [0, 5], [3, HUGE])
sparse("of 8 GB", [0, 5], [2, 10**9])
sparse("of overflow", [0, 5], [2**32, 2**32])
sparse("of −1", [0, 5], [-1, 784])
sparse("with too few indices", [0], [3, 784])
sparse("with pairs beyond the end", [[0, 0], [5, 10**9]], [3, 784])
sparse("with three axes of indices", [[[0]]], [3, 784])

STRINGS = helper.make_tensor("text", TensorProto.STRING, [3], [b"a", b"\xff\xfe", b""])
changed("text cast to numbers", node("Cast", "text", "h", to=F), constants=[STRINGS])
changed("text that is added", node("Add", "text text", "h"), constants=[STRINGS])
changed("a Constant of nothing", node("Constant", ""))
changed("Gather beyond the end", node("Gather", "bias far"), constants=[const("far", [10**12, -(10**12)])])
changed("GatherND beyond the end", node("GatherND", "bias far"), constants=[const("far", [[10**12]])])
changed("GatherElements beyond the end", node("GatherElements", "bias far"), constants=[const("far", [10**12])])
changed(
    "ScatterND beyond the end",
    node("ScatterND", "bias far new"),
    constants=[const("far", [[10**12]]), const("new", [1], np.float32)],
)
changed(
    "ScatterElements beyond the end",
    node("ScatterElements", "bias far new"),
    constants=[const("far", [-(10**12)]), const("new", [1], np.float32)],
)
changed(
    "Slice in steps of nothing",
    node("Slice", "bias b e a s"),
    constants=[const(k, [v]) for k, v in zip("beas", (0, 3, 0, 0), strict=True)],
)
changed(
    "Slice in the longest steps",
    node("Slice", "bias b e a s"),
    constants=[const(k, [v]) for k, v in zip("beas", (2**63 - 1, -(2**63), 0, -(2**63)), strict=True)],
)
changed(
    "Split in a million",
    node("Split", "bias", " ".join(["h", *(f"o{i}" for i in range(5000))]), num_outputs=5001),
    opset=18,
)
changed("Transpose of an axis twice", node("Transpose", "input", perm=[0, 0, 1, 1]))
changed("Transpose of an axis far away", node("Transpose", "input", perm=[0, 1, 2, 2**40]))
changed("Unsqueeze of an axis far away", node("Unsqueeze", "input far"), constants=[const("far", [2**62])])
changed("Flatten of an axis far away", node("Flatten", "input", axis=2**62))
changed("Softmax of an axis far away", node("Softmax", "input", axis=-(2**62)))
changed("ReduceSum of an axis far away", node("ReduceSum", "input far"), constants=[const("far", [2**62])])
changed("CumSum of an axis far away", node("CumSum", "input far"), constants=[const("far", 2**40)])
changed("Mod by nothing", node("Mod", "one none"), constants=[const("none", [0])])
changed("Div by nothing", node("Div", "one none"), constants=[const("none", [0])])
changed("Div by nothing at run", node("Div", "one zero"))
changed("Mod by nothing at run", node("Mod", "one zero"))
changed(
    "Div of the least by −1", node("Div", "least minus"), constants=[const("least", [-(2**63)]), const("minus", [-1])]
)
changed(
    "Div of the least by −1 at run",
    node("Add", "zero minus0", "minus"),
    node("Div", "least minus"),
    constants=[const("least", [-(2**63)]), const("minus0", [-1])],
)
changed(
    "Mod of the least by −1 at run",
    node("Add", "zero minus0", "minus"),
    node("Mod", "least minus"),
    constants=[const("least", [-(2**63)]), const("minus0", [-1])],
)
changed(
    "BitShift by 200",
    node("BitShift", "u s", direction="LEFT"),
    constants=[const("u", [1], np.uint64), const("s", [200], np.uint64)],
)
changed("Einsum of nonsense", node("Einsum", "bias", equation="...i,->,,->->" * 50))
changed("LRN of a huge size", node("LRN", "input", size=2**41 + 1))
changed("LRN of size 0", node("LRN", "input", size=0))
changed("DepthToSpace of 0", node("DepthToSpace", "input", blocksize=0))
changed("DepthToSpace of huge", node("DepthToSpace", "input", blocksize=HUGE))
changed("SpaceToDepth of 0", node("SpaceToDepth", "input", blocksize=0))
changed("SpaceToDepth of −1", node("SpaceToDepth", "input", blocksize=-1))
changed("Gelu of contrib", node("Gelu", "input", domain="com.microsoft"))
changed("QAttention of nonsense", node("Attention", "input weight bias", domain="com.microsoft", num_heads=0))
changed(
    "FusedConv of nonsense",
    node("FusedConv", "input k", domain="com.microsoft", activation="x" * 100, activation_params=[1.0] * 99),
    constants=[const("k", np.ones((1, 1, 3, 3)), np.float32)],
)
for gru in ("LSTM", "GRU", "RNN"):
    tensors = [
        const("x", np.ones((2, 1, 3)), np.float32),
        const("w", np.ones((1, 4, 3)), np.float32),
        const("r", np.ones((1, 4, 7)), np.float32),
    ]
    for hidden in (0, -1, 1, HUGE):
        changed(f"{gru} with hidden_size {hidden}", node(gru, "x w r", hidden_size=hidden), constants=tensors)
tree: dict[str, Any] = {
    "n_targets": 1,
    "nodes_treeids": [0, 0],
    "nodes_nodeids": [0, 1],
    "nodes_featureids": [0, 0],
    "nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ"],
    "nodes_values": [0.5, 0.5],
    "nodes_truenodeids": [1, 0],
    "nodes_falsenodeids": [1, 0],
    "target_treeids": [0],
    "target_nodeids": [0],
    "target_ids": [0],
    "target_weights": [1.0],
}
changed(
    "a tree that is a ring",
    node("Flatten", "input", "flat2"),
    node("TreeEnsembleRegressor", "flat2", domain="ai.onnx.ml", **tree),
)
tree2 = {
    **tree,
    "nodes_modes": ["BRANCH_LEQ", "LEAF"],
    "nodes_featureids": [10**9, 0],
    "nodes_truenodeids": [1, 0],
    "nodes_falsenodeids": [1, 0],
    "target_nodeids": [1],
}
changed(
    "a tree of features far away",
    node("Flatten", "input", "flat2"),
    node("TreeEnsembleRegressor", "flat2", domain="ai.onnx.ml", **tree2),
)
changed(
    "a tree of targets far away",
    node("Flatten", "input", "flat2"),
    node(
        "TreeEnsembleRegressor",
        "flat2",
        domain="ai.onnx.ml",
        **{**tree2, "nodes_featureids": [0, 0], "target_ids": [10**9]},
    ),
)
changed(
    "an EPContext of nonsense",
    node("EPContext", "input", domain="com.microsoft", ep_cache_context="../../etc/passwd", embed_mode=0),
)
