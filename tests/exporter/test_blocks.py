"""Which nodes `fuse` makes one of, and which stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hw4fast.exporter.fuse import fuse
from tests.exporter.test_fuse import block_model, numbers, session_of

LEFT = {
    "stride": ((8, 8, 3, 3), {"strides": [2, 2]}),
    "pointwise": ((8, 8, 1, 1), {}),
    "three-channels": ((8, 3, 3, 3), {}),
    "dilated": ((8, 8, 3, 3), {"dilations": [2, 2]}),
    "lopsided": ((8, 8, 3, 3), {"pads": [0, 0, 1, 1]}),
    "auto": ((8, 8, 3, 3), {"auto_pad": "SAME_UPPER"}),
    "large": ((8, 8, 7, 7), {}),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_the_kernels_do_no_faster_stays(case):
    shape, attributes = LEFT[case]
    model = block_model(numbers(*shape), numbers(shape[0]), True, True, **attributes)
    before = model.SerializeToString()
    assert fuse(model) == 0 and model.SerializeToString() == before


def test_filters_per_channel_stay():
    model = block_model(numbers(8, 1, 3, 3), numbers(8), True, False, group=8)
    assert fuse(model) == 0


def test_what_others_read_is_not_swallowed():
    """The convolution's output goes to Relu and out of the graph: only the Conv becomes a block."""
    model = block_model(numbers(8, 8, 3, 3), numbers(8), True, False)
    model.graph.output.append(helper.make_tensor_value_info("convolved", TensorProto.FLOAT, ["n", 8, None, None]))
    assert fuse(model) == 1
    assert [node.op_type for node in model.graph.node] == ["conv_block", "Relu"]
    x = numbers(2, 8, 6, 6)
    rectified, convolved = session_of(model, True).run(None, {"x": x})
    assert np.array_equal(rectified, np.maximum(convolved, 0)) and convolved.min() < 0


def with_branch(model: onnx.ModelProto, name: str, deep: bool) -> onnx.ModelProto:
    """A second output z: `name` or its negative, read in the branches of an If (in an If of the first, if `deep`)."""
    value = helper.make_tensor_value_info

    def branch(node: onnx.NodeProto, made: str) -> onnx.GraphProto:
        return helper.make_graph([node], made, [], [value(made, TensorProto.FLOAT, None)])

    then, other = (branch(helper.make_node(op, [name], [op]), op) for op in ("Identity", "Neg"))
    if deep:
        inner = [branch(helper.make_node(op, [name], [f"{op}2"]), f"{op}2") for op in ("Identity", "Neg")]
        then = branch(helper.make_node("If", ["c"], ["i"], then_branch=inner[0], else_branch=inner[1]), "i")
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=then, else_branch=other))
    model.graph.output.append(value("z", TensorProto.FLOAT, ["n", 8, None, None]))
    return model


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("name", "kinds"),
    [("convolved", ["conv_block", "Relu", "MaxPool", "If"]), ("rectified", ["conv_block_relu", "MaxPool", "If"])],
)
def test_what_branches_read_is_not_swallowed(name, kinds, deep):
    model = with_branch(block_model(numbers(8, 8, 3, 3), numbers(8), True, True), name, deep)
    x = numbers(2, 8, 6, 6)
    plain = session_of(model, False).run(None, {"x": x})
    assert fuse(model) == 1 and [node.op_type for node in model.graph.node] == kinds
    for ours, wanted in zip(session_of(model, True).run(None, {"x": x}), plain, strict=True):
        assert np.abs(ours - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_a_branch_that_gives_out_what_it_does_not_compute():
    """Its output is the outer graph's tensor itself."""
    model = with_branch(block_model(numbers(8, 8, 3, 3), numbers(8), True, False), "convolved", False)
    branch = model.graph.node[-1].attribute[0].g
    del branch.node[:]
    branch.output[0].name = "convolved"
    assert fuse(model) == 1 and [node.op_type for node in model.graph.node] == ["conv_block", "Relu", "If"]


@pytest.mark.parametrize(
    ("sides", "kind"),
    [((3, 3), "conv_block_relu"), ((9, 3), "conv_block_relu"), ((4, 4), "conv_block_relu_pool")],
)
@pytest.mark.parametrize("relu", [True, False])
def test_a_pool_of_one_pixel_stays(sides, kind, relu):
    """3×3 pixels, not padded, become one: the kernels refuse to pool it, onnxruntime lets it be."""
    model = block_model(numbers(8, 8, 3, 3), numbers(8), relu, True)
    for dimension, side in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], sides, strict=True):
        dimension.dim_value = side
    x = numbers(2, 8, *sides)
    plain = session_of(model, False).run(None, {"x": x})[0]
    assert fuse(model) == 1 and model.graph.node[0].op_type == kind.replace("_relu", "" if not relu else "_relu")
    assert [node.op_type for node in model.graph.node[1:]] == ([] if kind.endswith("pool") else ["MaxPool"])
    ours = session_of(model, True).run(None, {"x": x})[0]
    assert ours.shape == plain.shape and np.abs(ours - plain).max() <= 1e-5 * np.abs(plain).max()
