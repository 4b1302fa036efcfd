"""Convolution blocks of an ONNX graph as functions that hw4fast's kernels can take over.

A Conv with the Relu and the 2×2 MaxPool behind it becomes one node of the domain `hw4fast`. The file carries what the
node means as a function (FunctionProto) of standard operators, so that every runtime can run it; an onnxruntime with
`hw4fast.ort_library()` registered runs csrc/ort_ops.cpp instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

DOMAIN, VERSION = "hw4fast", 1
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)
LEAST = 8  # channels in and out, csrc/conv_ways.h
POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}
ATTRIBUTES = {"strides": [1, 1], "pads": [0, 0, 0, 0], "group": 1}  # of a Conv that the kernels know, and its defaults


@dataclass
class _Block:
    """The nodes that become one: a Conv, and what may follow it."""

    conv: NodeProto
    followers: list[NodeProto] = field(default_factory=list)

    @property
    def name(self) -> str:
        return "_".join(["conv_block", *({"Relu": "relu", "MaxPool": "pool"}[node.op_type] for node in self.followers)])


def fuse(model: ModelProto) -> int:
    """Rewrites the graph in place → the number of blocks.

    Taken are the convolutions that the kernels do faster than onnxruntime's, because they take fewer products: stride
    1, 3×3 or 5×5, one group, and 8 or more channels in and out (by Winograd's algorithm or Fourier transforms). On
    others the kernels lose: on filters of one channel, on squeezenet1_1's first layer (a fifth of the whole net's
    time), on mobilenet_v2's filters per channel (half). The weights are float32 or float64 constants, undilated, with
    the same padding on both sides. A Conv without a bias gets zeros.
    What is read elsewhere, in a branch or a loop, too, stays. So does a MaxPool of a picture that is one pixel wide or
    high, where the graph says so: onnxruntime lets it be, the kernels refuse. In a graph for pictures of any size that
    isn't known, and their error is what such a one gets.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    blocks = list(_blocks(model, constants))
    for block in blocks:
        conv, attributes = block.conv, _attributes(block.conv)
        filters = constants[conv.input[1]]
        if len(conv.input) < 3 or not conv.input[2]:
            zeros = np.zeros(filters.dims[0], helper.tensor_dtype_to_np_dtype(filters.data_type))
            graph.initializer.append(numpy_helper.from_array(zeros, f"{conv.output[0]}.no_bias"))
            del conv.input[2:]
            conv.input.append(f"{conv.output[0]}.no_bias")
        conv.output[0] = (block.followers or [conv])[-1].output[0]
        for node in block.followers:
            graph.node.remove(node)
        conv.domain, conv.op_type = DOMAIN, block.name
        del conv.attribute[:]
        conv.attribute.extend(
            helper.make_attribute(key, attributes.get(key, default)) for key, default in ATTRIBUTES.items()
        )
    if blocks:
        opset = next(entry.version for entry in model.opset_import if not entry.domain)
        model.functions.extend(_function(name, opset) for name in sorted({block.name for block in blocks}))
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
        _forget_shapes(model)
    return len(blocks)


def _blocks(model: ModelProto, constants: dict[str, TensorProto]) -> Iterator[_Block]:
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output} | set(_read_inside(model.graph))
    thin = _thin(model)
    for node in model.graph.node:
        if not _is_ours(node, constants):
            continue
        block, last = _Block(node), node
        for follows in (_is_relu, _is_pool):
            then = readers.get(last.output[0], [])
            if last.output[0] not in outputs and len(then) == 1 and follows(then[0]):
                if follows is _is_pool and last.output[0] in thin:
                    continue
                block.followers.append(then[0])
                last = then[0]
        yield block


def _read_inside(graph: GraphProto) -> Iterator[str]:
    """Names that nodes of the graphs in its nodes (branches, bodies of loops) read or give out, at any depth."""
    for node in graph.node:
        for entry in node.attribute:
            for inner in [*([entry.g] if entry.HasField("g") else []), *entry.graphs]:
                yield from (name for below in inner.node for name in below.input)
                yield from (value.name for value in inner.output)
                yield from _read_inside(inner)


def _thin(model: ModelProto) -> set[str]:
    """Names of pictures, [n, c, h, w], of which the graph says that they are one pixel wide or high, or less."""
    if not any(_is_pool(node) for node in model.graph.node):
        return set()
    graph = onnx.shape_inference.infer_shapes(model).graph
    sizes = {value.name: value.type.tensor_type.shape.dim[2:] for value in (*graph.input, *graph.value_info)}
    return {
        name
        for name, sides in sizes.items()
        if any(side.HasField("dim_value") and side.dim_value < 2 for side in sides)
    }


def _is_ours(node: NodeProto, constants: dict[str, TensorProto]) -> bool:
    if node.op_type != "Conv" or node.domain not in ("", "ai.onnx") or node.input[1] not in constants:
        return False
    filters, has = constants[node.input[1]], _attributes(node)
    pads = has.get("pads", ATTRIBUTES["pads"])
    sizes = list(filters.dims)
    return (
        filters.data_type in FLOATS
        and sizes[2:] in ([3, 3], [5, 5])
        and min(sizes[:2]) >= LEAST
        and has.get("group", 1) == 1
        and has.get("strides", ATTRIBUTES["strides"]) == ATTRIBUTES["strides"]
        and pads[:2] == pads[2:]
        and set(has.get("dilations", [1])) == {1}
        and has.get("auto_pad", b"NOTSET") == b"NOTSET"
    )


def _is_relu(node: NodeProto) -> bool:
    return node.op_type == "Relu" and node.domain in ("", "ai.onnx")


def _is_pool(node: NodeProto) -> bool:
    has = _attributes(node)
    others = {"pads": [0] * 4, "dilations": [1, 1], "auto_pad": b"NOTSET", "ceil_mode": 0, "storage_order": 0}
    return (
        node.op_type == "MaxPool"
        and node.domain in ("", "ai.onnx")
        and len(node.output) == 1
        and all(has.get(key) == value for key, value in POOL.items())
        and all(has.get(key, value) == value for key, value in others.items())
    )


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _function(name: str, opset: int) -> FunctionProto:
    """The meaning of a block: (x, weight, bias) → y."""
    conv = helper.make_node("Conv", ["x", "weight", "bias"], ["y"])
    types = {"strides": AttributeProto.INTS, "pads": AttributeProto.INTS, "group": AttributeProto.INT}
    conv.attribute.extend(AttributeProto(name=key, ref_attr_name=key, type=kind) for key, kind in types.items())
    nodes = [conv]
    for part in name.split("_")[2:]:
        nodes[-1].output[0] = f"before_{part}"
        node = helper.make_node({"relu": "Relu", "pool": "MaxPool"}[part], nodes[-1].output, ["y"])
        if part == "pool":
            node.attribute.extend(helper.make_attribute(key, value) for key, value in POOL.items())
        nodes.append(node)
    return helper.make_function(
        DOMAIN, name, ["x", "weight", "bias"], ["y"], nodes, [helper.make_opsetid("", opset)], list(types)
    )


def _forget_shapes(model: ModelProto) -> None:
    """Of tensors that are gone."""
    there = {name for node in model.graph.node for name in node.output}
    kept = [value for value in model.graph.value_info if value.name in there]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
