"""Small nets with cards, and damage to them by chance: to their bytes, and to what the bytes mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from hw4fast.exporter.fuse import fuse
from tests.damage import NUMBERS, Rng, damaged
from tests.inference.hostile.base import CARD, I64, KEY, F, const, linear, node

OPERATORS = (
    *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "Gemm", "MatMul", "Einsum"),
    *("Add", "Sub", "Mul", "Div", "Mod", "Pow", "BitShift", "Relu", "Clip", "Softmax", "LRN", "BatchNormalization"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile", "Pad", "Slice", "Split", "Concat", "Transpose"),
    *("Resize", "Upsample", "DepthToSpace", "SpaceToDepth", "Gather", "GatherND", "GatherElements", "ScatterND"),
    *("ScatterElements", "OneHot", "Range", "ConstantOfShape", "EyeLike", "RandomNormal", "Loop", "Scan", "If"),
    *("CumSum", "TopK", "NonZero", "Where", "Cast", "Shape", "Size", "Identity", "QuantizeLinear", "ReduceSum"),
    *("DequantizeLinear", "LSTM", "GRU", "RoiAlign", "NonMaxSuppression", "GridSample", "MaxUnpool", "Trilu", "DFT"),
)
ATTRIBUTES = ("axis", "axes", "group", "strides", "pads", "kernel_shape", "dilations", "to", "mode", "keepdims", "size")


def conv_net() -> ModelProto:
    """Convolutions, pools, normalisation and the operators of shapes between them."""
    rng = np.random.Generator(np.random.PCG64(1))

    def weights(name: str, *shape: int) -> TensorProto:
        return const(name, rng.normal(size=shape) / 4, np.float32)

    nodes = [
        node("Conv", "input w1 b1", "c1", pads=[1] * 4, kernel_shape=[3, 3]),
        node("Relu", "c1", "r1"),
        node("MaxPool", "r1", "p1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p1 w2 b2", "c2", pads=[1] * 4, kernel_shape=[3, 3]),
        node("BatchNormalization", "c2 scale b2 mean var", "n2"),
        node("Relu", "n2", "r2"),
        node("Concat", "r2 p1", "joined", axis=1),
        node("Pad", "joined padding", "padded"),
        node("Resize", "padded - scales", "resized", mode="linear"),
        node("Slice", "resized starts ends axes", "sliced"),
        node("Transpose", "sliced", "turned", perm=[0, 1, 3, 2]),
        node("GlobalAveragePool", "turned", "pooled"),
        node("Reshape", "pooled shape", "flat1"),
        node("Gemm", "flat1 w3 b3", "flat2", transB=1),
        node("ReduceSum", "flat2 axis", "h", keepdims=0),
    ]
    constants = [
        *(weights("w1", 8, 1, 3, 3), weights("b1", 8), weights("w2", 8, 8, 3, 3), weights("b2", 8)),
        *(const("scale", np.ones(8), np.float32), const("mean", np.zeros(8), np.float32)),
        *(const("var", np.ones(8), np.float32), const("padding", [0, 0, 1, 1, 0, 0, 1, 1])),
        *(const("scales", [1, 1, 2, 2], np.float32), const("starts", [0, 1]), const("ends", [9, 9])),
        *(
            const("axes", [2, 3]),
            const("shape", [-1, 16]),
            weights("w3", 4, 16),
            weights("b3", 4),
            const("axis", [0, 1]),
        ),
    ]
    return linear(nodes, constants)


def fused_net() -> ModelProto:
    model = conv_net()
    assert fuse(model) == 1
    return model


def quantised_net() -> ModelProto:
    scales = [const("s", 0.02, np.float32), const("z", 128, np.uint8), const("k", np.ones((2, 1, 3, 3)), np.int8)]
    scales += [const("zk", 0, np.int8)]
    nodes = [
        *(node("QuantizeLinear", "input s z", "q"), node("DequantizeLinear", "q s z", "d")),
        *(node("DequantizeLinear", "k s zk", "dk"), node("Conv", "d dk", "c")),
        *(node("QuantizeLinear", "c s z", "qc"), node("DequantizeLinear", "qc s z", "h")),
    ]
    return linear(nodes, scales)


def controlled_net() -> ModelProto:
    """A branch and a loop of three rounds."""
    value = helper.make_tensor_value_info
    branch = [
        helper.make_graph([node(kind, "zero one", out)], out, [], [value(out, I64, None)])
        for kind, out in (("Add", "t"), ("Mul", "e"))
    ]
    inputs = [value("i", I64, []), value("go", TensorProto.BOOL, []), value("x", I64, None)]
    outputs = [value("on", TensorProto.BOOL, None), value("y", I64, None)]
    body = helper.make_graph([node("Identity", "go", "on"), node("Add", "x one", "y")], "body", inputs, outputs)
    nodes = [
        node("If", "yes", "b", then_branch=branch[0], else_branch=branch[1]),
        node("Loop", "three yes b", body=body),
    ]
    return linear(nodes, [const("yes", True, np.bool_), const("three", 3)])


@cache
def corpus() -> dict[str, bytes]:
    """Name → file."""
    makers: tuple[Callable[[], ModelProto], ...] = (linear, conv_net, fused_net, quantised_net, controlled_net)
    return {make.__name__: make().SerializeToString() for make in makers}


def damaged_model(number: int, more: tuple[bytes, ...] = ()) -> tuple[str, bytes]:
    """The model of that number: what it was, and its bytes. more: other files that may be damaged, too."""
    rng = np.random.Generator(np.random.PCG64([number, 2]))
    files = [*corpus().values(), *more]
    which = int(rng.integers(len(files)))
    name = [*corpus(), *("exported",) * len(more)][which]
    if rng.random() < 0.3:
        return f"{name}, bytes", damaged(files[which], files, rng, head=len(files[which]))
    model = ModelProto.FromString(files[which])
    for _ in range(int(rng.choice([1, 1, 1, 2, 2, 4]))):
        change = MEANINGS[int(rng.integers(len(MEANINGS)))]
        change(model, rng)
        name = f"{name}, {change.__name__}"
    return name, model.SerializeToString()


# -- what the bytes mean -----------------------------------------------------------------------------------------


def _one(entries, rng: Rng):
    return entries[int(rng.integers(len(entries)))]


def _nodes(model: ModelProto) -> list[NodeProto]:
    """Those of functions and of branches, too."""
    found = [*model.graph.node, *(entry for function in model.functions for entry in function.node)]
    inner = [entry for outer in found for part in outer.attribute if part.HasField("g") for entry in part.g.node]
    return found + inner or [model.graph.node.add()]


def _number(rng: Rng) -> int:
    return int(rng.choice(NUMBERS)) * int(rng.choice([1, 1, 1, -1]))


def operator(model: ModelProto, rng: Rng) -> None:
    _one(_nodes(model), rng).op_type = _one(OPERATORS, rng)


def attribute(model: ModelProto, rng: Rng) -> None:
    chosen = _one(_nodes(model), rng)
    if chosen.attribute and rng.random() < 0.6:
        found = _one(chosen.attribute, rng)
        if found.ints:
            found.ints[int(rng.integers(len(found.ints)))] = _number(rng)
        else:
            found.i = _number(rng)
    else:
        values = [_number(rng) for _ in range(int(rng.integers(1, 5)))]
        chosen.attribute.append(helper.make_attribute(_one(ATTRIBUTES, rng), _one([values, values[0]], rng)))


def wire(model: ModelProto, rng: Rng) -> None:
    """Another tensor goes into a node, or comes out of it."""
    chosen = _one(_nodes(model), rng)
    names = [name for entry in _nodes(model) for name in (*entry.input, *entry.output)] or ["input"]
    names = _one([chosen.input, chosen.input, chosen.output], rng) or names
    names[int(rng.integers(len(names)))] = _one([n for entry in _nodes(model) for n in entry.output] or ["input"], rng)


def drop(model: ModelProto, rng: Rng) -> None:
    entries = _one([model.graph.node, model.graph.initializer, model.graph.input, model.opset_import], rng)
    if entries:
        del entries[int(rng.integers(len(entries)))]


def again(model: ModelProto, rng: Rng) -> None:
    entries = _one([model.graph.node, model.graph.initializer, model.graph.output, model.functions], rng)
    if entries:
        entries.append(_one(entries, rng))


def insert(model: ModelProto, rng: Rng) -> None:
    """A new operator of tensors that are there, whose result takes the place of another's."""
    target = _one(_nodes(model), rng)
    known = [tensor.name for tensor in model.graph.initializer] + [
        n for entry in model.graph.node for n in entry.output
    ]
    if not target.input or not known:
        return
    place = int(rng.integers(len(target.input)))
    inputs = [target.input[place], *(_one(known, rng) for _ in range(int(rng.integers(4))))]
    new = helper.make_node(_one(OPERATORS, rng), inputs, [f"new{int(rng.integers(10**6))}"])
    target.input[place] = new.output[0]
    model.graph.node.append(new)
    model.graph.node.sort(key=lambda entry: entry is not new and entry.output[:1] != new.output)


def dims(model: ModelProto, rng: Rng) -> None:
    if model.graph.initializer:
        tensor = _one(model.graph.initializer, rng)
        if tensor.dims and rng.random() < 0.8:
            tensor.dims[int(rng.integers(len(tensor.dims)))] = _number(rng)
        else:
            tensor.dims.append(_number(rng))


def numbers(model: ModelProto, rng: Rng) -> None:
    """What shapes, sizes and axes are computed from."""
    whole = [tensor for tensor in model.graph.initializer if tensor.data_type == I64 and tensor.raw_data]
    if whole:
        tensor = _one(whole, rng)
        values = np.frombuffer(tensor.raw_data, np.int64).copy()
        values[int(rng.integers(len(values)))] = _number(rng)
        tensor.raw_data = values.tobytes()


def dtype(model: ModelProto, rng: Rng) -> None:
    if model.graph.initializer:
        _one(model.graph.initializer, rng).data_type = int(rng.integers(0, 26))


def shape(model: ModelProto, rng: Rng) -> None:
    entries = [*model.graph.input, *model.graph.output]
    sides = [side for entry in entries for side in entry.type.tensor_type.shape.dim]
    if sides:
        _one(sides, rng).dim_value = _number(rng)


def version(model: ModelProto, rng: Rng) -> None:
    if rng.random() < 0.3:
        model.ir_version = _number(rng)
    elif model.opset_import:
        _one(model.opset_import, rng).version = _one([*range(1, 30), _number(rng)], rng)


def elsewhere(model: ModelProto, rng: Rng) -> None:
    if model.graph.initializer:
        tensor = _one(model.graph.initializer, rng)
        tensor.data_location = TensorProto.EXTERNAL
        places = ("../../../../etc/passwd", "/dev/zero", "/etc/passwd", "damaged.onnx", "", "*/_ORT_MEM_ADDR_/*", ".")
        for key, value in (("location", _one(places, rng)), ("offset", str(_number(rng)))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value


def card(model: ModelProto, rng: Rng) -> None:
    """Its text is damaged, or one of its values is another's."""
    entry = next((entry for entry in model.metadata_props if entry.key == KEY), None)
    if entry is None:
        return
    if rng.random() < 0.4:
        text = damaged(entry.value.encode(), [CARD.encode()], rng, head=len(entry.value))
        entry.value = text.decode(errors="replace")
        return
    try:
        value = json.loads(entry.value)
        place = value if rng.random() < 0.3 else value["preprocessing"]
        place[_one(list(place), rng)] = _one(
            [None, _number(rng), -1.5, 1e300, "x", [], {}, [1] * 9, [28, 28], True], rng
        )
        entry.value = json.dumps(value)
    except (ValueError, KeyError, TypeError):  # it was damaged before
        pass


def recursion(model: ModelProto, rng: Rng) -> None:
    """A function that calls itself, or another that does."""
    chosen = _one(_nodes(model), rng)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    inner = helper.make_node(_one(["f", "g"], rng), ["a"], ["b"], domain="mine")
    model.functions.append(helper.make_function("mine", "f", ["a"], ["b"], [inner], opsets))
    chosen.op_type, chosen.domain = "f", "mine"


def sparse(model: ModelProto, rng: Rng) -> None:
    if model.graph.initializer:
        tensor = _one(model.graph.initializer, rng)
        entry = model.graph.sparse_initializer.add()
        entry.values.CopyFrom(const(tensor.name, [1, 2], np.float32))
        entry.indices.CopyFrom(const("", [_number(rng), _number(rng)]))
        entry.dims.extend(tensor.dims)
        model.graph.initializer.remove(tensor)


def outputs(model: ModelProto, rng: Rng) -> None:
    name = _one([n for entry in model.graph.node for n in entry.output] or ["logits"], rng)
    model.graph.output.append(helper.make_tensor_value_info(name, F, None))


MEANINGS: tuple[Callable[[ModelProto, Rng], None], ...] = (
    *(operator, attribute, attribute, wire, drop, again, insert, insert, dims, numbers, numbers, dtype, shape),
    *(version, elsewhere, card, card, recursion, sparse, outputs),
)
