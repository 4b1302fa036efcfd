"""`export --fused`: blocks become functions that every runtime can run, and that our library runs by csrc's kernels."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from hw4fast import kernels
from hw4fast.exporter.fuse import DOMAIN, fuse
from hw4fast.kernels import conv_block

LEVELS = {
    name: getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{name}")
    for name in ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL")
}
TYPES = {np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE}


def block_model(
    weight: np.ndarray, bias: np.ndarray | None, relu: bool, pool: bool, constant: bool = True, **attributes
) -> onnx.ModelProto:
    """x [n, c, h, w] of any n, h, w → Conv, Relu?, MaxPool? → y; weight and bias are inputs unless `constant`."""
    kind = TYPES[weight.dtype.type]
    names = ["x", "weight"] + ["bias"] * (bias is not None)
    nodes = [helper.make_node("Conv", names, ["convolved"], **attributes)]
    if relu:
        nodes.append(helper.make_node("Relu", ["convolved"], ["rectified"]))
    if pool:
        nodes.append(helper.make_node("MaxPool", nodes[-1].output, ["pooled"], kernel_shape=[2, 2], strides=[2, 2]))
    nodes[-1].output[0] = "y"
    tensors = {"weight": weight} | ({} if bias is None else {"bias": bias})
    inputs = [helper.make_tensor_value_info("x", kind, ["n", weight.shape[1], "h", "w"])]
    stored = []
    for name, value in tensors.items():
        if constant:
            stored.append(numpy_helper.from_array(value, name))
        else:
            inputs.append(helper.make_tensor_value_info(name, kind, value.shape))
    output = helper.make_tensor_value_info("y", kind, ["n", weight.shape[0], None, None])
    graph = helper.make_graph(nodes, "block", inputs, [output], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def numbers(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(shape)).standard_normal(shape).astype(dtype)


def session_of(model: onnx.ModelProto, library: bool, level: str = "ENABLE_ALL", threads: int = 2):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = threads
    if library:
        options.register_custom_ops_library(str(kernels.ort_library()))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def in_double(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """What onnx's own evaluator computes of a model without functions."""
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run(None, {"x": x})[0]


CASES = {  # shape of x, of the weight, relu, pool, padding
    "winograd-3": ((3, 16, 12, 12), (24, 16, 3, 3), True, True, 1),
    "winograd-5": ((2, 16, 4, 4), (32, 16, 5, 5), True, True, 2),
    "fft-5": ((2, 16, 14, 14), (32, 16, 5, 5), True, True, 2),
    "fft-3": ((1, 32, 28, 28), (64, 32, 3, 3), True, False, 1),
    "fft-tiles": ((9, 8, 40, 29), (17, 8, 5, 5), True, True, 2),
    "winograd-odd": ((2, 9, 13, 11), (17, 9, 3, 3), True, False, 1),
    "no-padding": ((2, 8, 9, 9), (8, 8, 3, 3), False, False, 0),
    "pool-without-relu": ((2, 8, 9, 9), (8, 8, 3, 3), False, True, 1),
    "one-channel": ((5, 1, 28, 28), (16, 1, 5, 5), True, True, 2),
    "many-pictures": ((40, 1, 10, 10), (8, 1, 3, 3), True, True, 1),
    "one-picture": ((1, 32, 30, 30), (64, 32, 3, 3), True, False, 1),
    "no-picture": ((0, 8, 9, 9), (8, 8, 3, 3), True, False, 1),
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", CASES)
def test_blocks_agree_with_their_bodies(case, dtype, monkeypatch):
    """float64, too, which onnxruntime's own convolutions don't take: there the body is onnx's evaluator's. One channel
    is not worth it, but a file may name it."""
    monkeypatch.setattr(sys.modules[fuse.__module__], "LEAST", 1)
    x_shape, w_shape, relu, pool, padding = CASES[case]
    x, weight, bias = (numbers(*shape, dtype=dtype) for shape in (x_shape, w_shape, w_shape[:1]))
    model = block_model(weight, bias, relu, pool, pads=[padding] * 4)
    of_onnxruntime = dtype is np.float32
    plain = session_of(model, False).run(None, {"x": x})[0] if of_onnxruntime else None
    assert fuse(model) == 1
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.node[0].domain == DOMAIN
    before = kernels.ort_calls()
    ours = session_of(model, True).run(None, {"x": x})[0]
    ran = {isa: n - before[isa] for isa, n in kernels.ort_calls().items() if n > before[isa]}
    assert ran == ({kernels.chosen_isa(): 1} if x.size else {})
    if x.size == 0:
        assert ours.shape == (0, 8, 9, 9)
        return
    body = session_of(model, False).run(None, {"x": x})[0] if of_onnxruntime else in_double(model, x)
    assert plain is None or np.array_equal(plain, body)
    assert ours.dtype == dtype and ours.shape == body.shape
    wide = (value.astype(np.float64) for value in (x, weight, bias))
    double, _ = conv_block.reference(*wide, padding=(padding, padding), relu=relu, pool=pool)
    largest, eps = np.abs(double).max(), np.finfo(dtype).eps
    assert np.abs(ours - double).max() <= 2 * np.abs(body - double).max() + 2 * eps * max(1, largest)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", ["fft-5", "winograd-3"])
def test_at_every_optimisation_level(case, level):
    x_shape, w_shape, relu, pool, padding = CASES[case]
    x, weight, bias = numbers(*x_shape), numbers(*w_shape), numbers(w_shape[0])
    model = block_model(weight, bias, relu, pool, pads=[padding] * 4)
    fuse(model)
    before = sum(kernels.ort_calls().values())
    body = session_of(model, False, level).run(None, {"x": x})[0]
    assert sum(kernels.ort_calls().values()) == before
    ours = session_of(model, True, level).run(None, {"x": x})[0]
    assert sum(kernels.ort_calls().values()) == before + 1
    assert np.abs(ours - body).max() <= 1e-5 * np.abs(body).max()


def test_onnxs_evaluator_runs_the_functions():
    x, weight, bias = numbers(1, 8, 6, 6), numbers(8, 8, 3, 3), numbers(8)
    model = block_model(weight, bias, True, True, pads=[1] * 4)
    plain = in_double(model, x)
    fuse(model)
    assert [node.op_type for node in model.graph.node] == ["conv_block_relu_pool"]
    assert np.array_equal(in_double(model, x), plain)
    ours = session_of(model, True).run(None, {"x": x})[0]
    assert np.abs(ours - plain).max() <= 1e-5 * np.abs(plain).max()


def test_a_convolution_without_a_bias():
    x, weight = numbers(2, 8, 6, 6), numbers(8, 8, 3, 3)
    model = block_model(weight, None, True, False)
    plain = session_of(model, False).run(None, {"x": x})[0]
    assert fuse(model) == 1
    assert np.abs(session_of(model, True).run(None, {"x": x})[0] - plain).max() <= 1e-5 * np.abs(plain).max()


def test_weights_that_come_with_each_call():
    """As the operator allows; `fuse` takes constants only."""
    x, weight, bias = numbers(2, 8, 6, 6), numbers(8, 8, 3, 3), numbers(8)
    model = block_model(weight, bias, True, False, constant=False)
    plain = session_of(model, False).run(None, {"x": x, "weight": weight, "bias": bias})[0]
    assert fuse(model) == 0
    constant = block_model(weight, bias, True, False)
    fuse(constant)
    del constant.graph.initializer[:]
    constant.graph.input.extend(model.graph.input[1:])
    ours = session_of(constant, True)
    for scale in (1, 2):
        given = {"x": x, "weight": scale * weight, "bias": scale * bias}
        assert np.abs(ours.run(None, given)[0] - scale * plain).max() <= 1e-5 * np.abs(scale * plain).max()


def test_bad_nodes_are_errors():
    """A file that says something else than it holds: an exception, at loading or at the call."""
    x, weight, bias = numbers(2, 8, 6, 6), numbers(8, 8, 3, 3), numbers(8)
    changes = {
        "padding must be the same": lambda node, _: set_ints(node, "pads", [0, 0, 1, 1]),
        "another length": lambda node, _: set_ints(node, "strides", [1]),
        "bad stride": lambda node, _: set_ints(node, "strides", [0, 1]),
        "groups are 1": lambda node, _: set_int(node, "group", 2),
        "bias must have": lambda _, graph: graph.initializer[1].CopyFrom(numpy_helper.from_array(bias[:7], "bias")),
        "kernel sizes are": lambda _, graph: graph.initializer[0].CopyFrom(
            numpy_helper.from_array(numbers(8, 8, 9, 3), "weight")
        ),
    }
    for message, change in changes.items():
        model = block_model(weight, bias, True, False)
        fuse(model)
        change(model.graph.node[0], model.graph)
        with pytest.raises(Exception, match=message):
            session_of(model, True).run(None, {"x": x})
    model = block_model(weight, bias, True, False)
    fuse(model)
    session = session_of(model, True)
    for wrong in (numbers(2, 7, 6, 6), numbers(2, 8, 2, 2), numbers(2, 8, 6)):
        with pytest.raises(Exception, match=r"hw4fast: conv_block|rank|dimension"):
            session.run(None, {"x": wrong})


def set_ints(node: onnx.NodeProto, name: str, values: list[int]) -> None:
    (entry,) = (entry for entry in node.attribute if entry.name == name)
    entry.CopyFrom(helper.make_attribute(name, values))


def set_int(node: onnx.NodeProto, name: str, value: int) -> None:
    (entry,) = (entry for entry in node.attribute if entry.name == name)
    entry.CopyFrom(helper.make_attribute(name, value))


def test_one_session_in_many_threads():
    x, weight, bias = numbers(4, 16, 14, 14), numbers(32, 16, 5, 5), numbers(32)
    model = block_model(weight, bias, True, True, pads=[2] * 4)
    fuse(model)
    session = session_of(model, True)
    wanted = [session.run(None, {"x": k * x})[0] for k in range(1, 5)]
    wrong: list[int] = []

    def call(k: int) -> None:
        for _ in range(20):
            if not np.array_equal(session.run(None, {"x": (k + 1) * x})[0], wanted[k]):
                wrong.append(k)

    threads = [threading.Thread(target=call, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("n", [1, 3, 40])
def test_any_number_of_threads_gives_the_same_bits(n):
    x, weight, bias = numbers(n, 16, 14, 14), numbers(32, 16, 5, 5), numbers(32)
    model = block_model(weight, bias, True, True, pads=[2] * 4)
    fuse(model)
    results = [session_of(model, True, threads=threads).run(None, {"x": x})[0] for threads in (1, 2, 3)]
    assert all(np.array_equal(result, results[0]) for result in results)


def test_isa_that_is_not_to_be_had_is_an_error(monkeypatch):
    model = block_model(numbers(8, 8, 3, 3), numbers(8), True, False)
    fuse(model)
    monkeypatch.setenv("HW4FAST_ISA", "sse9")
    with pytest.raises(Exception, match="HW4FAST_ISA 'sse9' is not to be had here"):
        session_of(model, True)


@pytest.mark.parametrize("isa", kernels.isas())
def test_every_instruction_set(isa, monkeypatch):
    x, weight, bias = numbers(3, 16, 14, 14), numbers(32, 16, 5, 5), numbers(32)
    model = block_model(weight, bias, True, True, pads=[2] * 4)
    body = session_of(model, False).run(None, {"x": x})[0]
    fuse(model)
    monkeypatch.setenv("HW4FAST_ISA", isa)
    before = kernels.ort_calls()
    ours = session_of(model, True).run(None, {"x": x})[0]
    assert kernels.ort_calls()[isa] == before[isa] + 1
    assert np.abs(ours - body).max() <= 1e-5 * np.abs(body).max()


# -- the library -------------------------------------------------------------------------------------------------


def test_the_library_needs_no_python_and_no_onnxruntime():
    text = subprocess.run(["ldd", str(kernels.ort_library())], capture_output=True, text=True).stdout
    assert "libstdc++" in text and "python" not in text.replace(str(kernels.ort_library()), "")
    assert "onnxruntime" not in text


def test_instruction_sets_are_counted_under_the_right_names():
    assert tuple(isa for isa in kernels.ISAS if isa in kernels.isas()) == tuple(kernels.isas())
    assert set(kernels.ort_calls()) == set(kernels.ISAS)
