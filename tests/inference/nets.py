"""Nets that tests build node by node, and what is in their files."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from hw4fast.inference.shuffles import SWAP


class Net:
    """A graph that is built node by node; names of tensors stand for them. Input `x` [1, 3, side, side]."""

    def __init__(self, side: int = 12, seed: int = 0):
        self.nodes, self.constants, self.side = [], [], side
        self.rng = np.random.Generator(np.random.PCG64(seed))

    def constant(self, value) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes):
        names = [f"{kind}{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names if outputs > 1 else names[0]

    def conv(
        self, x: str, channels: int, filters: int, size: int = 1, group: int = 1, bias: bool = True, **rest
    ) -> str:
        shape = filters, channels // group, size, size
        weight = self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        given = [self.constant(weight.astype(np.float32))]
        if bias:
            given.append(self.constant(self.rng.standard_normal(filters).astype(np.float32)))
        return self.add("Conv", x, *given, group=group, pads=[size // 2] * 4, kernel_shape=[size, size], **rest)

    def shuffle(self, x: str, channels: int, side: int, groups: int = 2, perm=SWAP, batch: int = -1) -> str:
        apart = self.add("Reshape", x, self.constant(np.array([batch, groups, channels // groups, side, side])))
        swapped = self.add("Transpose", apart, perm=list(perm))
        return self.add("Reshape", swapped, self.constant(np.array([batch, channels, side, side])))

    def halves(self, x: str, channels: int, by: str) -> list[str]:
        half = channels // 2
        if by == "Split":
            return self.add("Split", x, self.constant(np.array([half, channels - half])), outputs=2, axis=1)
        ends = [self.constant(np.array([value])) for value in (0, half, channels)]
        axis = self.constant(np.array([1]))
        return [self.add("Slice", x, first, last, axis) for first, last in pairwise(ends)]

    def unit(self, x: str, channels: int, side: int, by: str) -> str:
        """Of ShuffleNet v2 (Ma et al. 2018), with stride 1."""
        kept, x = self.halves(x, channels, by)
        half = channels // 2
        x = self.add("Relu", self.conv(x, half, half))
        x = self.conv(x, half, half, 3, group=half)
        x = self.add("Relu", self.conv(x, half, half))
        return self.shuffle(self.add("Concat", kept, x, axis=1), channels, side)

    def write(self, path: Path, *outputs: str, batch: int | str = 1) -> Path:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, self.side, self.side])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in outputs],
            self.constants,
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path


def small(path: Path, by: str = "Slice") -> Path:
    """The beginning of a ShuffleNet: a stem of 24 channels and a pool, a first unit of 2·22 channels, two more."""
    net = Net(24)
    x = net.add("Clip", net.conv("x", 3, 24, 3, strides=[2, 2]))
    x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    one = net.conv(net.conv(x, 24, 24, 3, group=24, bias=False), 24, 22)
    other = net.conv(net.conv(net.add("Relu", net.conv(x, 24, 22)), 22, 22, 3, group=22), 22, 22)
    x = net.shuffle(net.add("Concat", one, other, axis=1), 44, 6)
    for _ in range(2):
        x = net.unit(x, 44, 6, by)
    return net.write(path, net.add("GlobalAveragePool", net.conv(x, 44, 7)))


def picture(side: int) -> dict[str, np.ndarray]:
    return {"x": np.random.Generator(np.random.PCG64(7)).standard_normal((1, 3, side, side)).astype(np.float32)}


def answers(path: Path, side: int) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, picture(side))


def kinds(path: Path) -> Counter:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def channels(path: Path) -> list[int]:
    """Of each convolution's result."""
    model = onnx.load(path)
    dims = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer}
    return [dims[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]


def with_constants_as_inputs(path: Path, ir_version: int) -> Path:
    """As files of IR version 3 have them, and newer ones whose constants a caller may replace."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    model.ir_version = ir_version
    onnx.save(model, path)
    return path
