"""A graph that takes the pictures themselves: bytes in, divided, centred and scaled inside.

    uint8 [n, height, width, channels] → Transpose → Cast → Sub mean·divisor → Div divisor·std → what it took before

The Transpose comes first because bytes are a quarter of what floats are to move, and because the constants of a Sub
over [n, channels, height, width] then stand still over a whole plane.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hw4fast.data import Preprocessing

PREFIX = "pixels."  # of the names of what is added


def take_pixels(model: ModelProto, preprocessing: Preprocessing, fold: bool) -> None:
    """Rewrites the graph in place: its input keeps its name and is uint8 [n, height, width, channels], with the
    channels in the order of the preprocessing's mode, as mean and std are.

    fold: the division goes into the weights of the first convolution, which `can_fold` must allow. The subtraction
    never does: a convolution pads with zeros, and a padded zero is the mean, before and after.
    """
    graph, taken = model.graph, model.graph.input[0]
    name, shape = taken.name, [preprocessing.channels, 1, 1]
    divisor, mean, std = preprocessing.divisor, np.array(preprocessing.mean), np.array(preprocessing.std)
    steps: list[tuple[str, str, dict[str, Any]]] = [
        ("Transpose", "planes", {"perm": [0, 3, 1, 2]}),
        ("Cast", "numbers", {"to": TensorProto.FLOAT}),
    ]
    steps += [("Sub", "centred", {})] + ([] if fold else [("Div", "normalised", {})])
    constants = {"Sub": mean * divisor, "Div": std * divisor}
    nodes, last = [], name
    for kind, made, attributes in steps:
        inputs = [last]
        if kind in constants:
            inputs.append(f"{PREFIX}{kind}")
            values = constants[kind].astype(np.float32).reshape(shape)
            graph.initializer.append(numpy_helper.from_array(values, inputs[1]))
        last = f"{PREFIX}{made}"
        nodes.append(helper.make_node(kind, inputs, [last], f"{PREFIX}{made}", **attributes))
    if fold:
        _fold(graph, std * divisor)
    for node in graph.node:
        node.input[:] = [last if entry == name else entry for entry in node.input]
    for node in reversed(nodes):
        graph.node.insert(0, node)
    dimensions = ("n", *preprocessing.crop, preprocessing.channels)
    taken.CopyFrom(helper.make_tensor_value_info(name, TensorProto.UINT8, dimensions))


def can_fold(model: ModelProto) -> bool:
    """Whether the input is read by one convolution and nothing else, of one group, with constant float32 weights that
    nothing else reads."""
    graph = model.graph
    readers = [node for node in graph.node if graph.input[0].name in node.input]
    if len(readers) != 1 or readers[0].op_type != "Conv" or readers[0].domain not in ("", "ai.onnx"):
        return False
    filters = readers[0].input[1]
    return (
        readers[0].input[0] == graph.input[0].name
        and _groups(readers[0]) == 1
        and sum(list(node.input).count(filters) for node in graph.node) == 1
        and any(tensor.name == filters and tensor.data_type == TensorProto.FLOAT for tensor in graph.initializer)
    )


def _groups(conv: NodeProto) -> int:
    return next((entry.i for entry in conv.attribute if entry.name == "group"), 1)


def _fold(graph: GraphProto, spread: np.ndarray) -> None:
    """Divides the first convolution's weights, [out, channels, …], by float64 [channels]."""
    conv = next(node for node in graph.node if graph.input[0].name in node.input)
    filters = next(tensor for tensor in graph.initializer if tensor.name == conv.input[1])
    values = numpy_helper.to_array(filters)
    divided = values / spread.reshape(-1, *[1] * (values.ndim - 2))
    filters.CopyFrom(numpy_helper.from_array(divided.astype(np.float32), filters.name))
