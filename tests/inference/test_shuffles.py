"""Graphs with channel shuffles: what onnxruntime is given answers as the file does, and is another graph."""

from __future__ import annotations

import os
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from hw4fast.inference import optimised, shuffles
from hw4fast.inference.session import open_session
from hw4fast.inference.shuffles import has_shuffles, quicken

DATA = Path(os.environ.get("HW4FAST_DATA", "nowhere"))
needs_data = pytest.mark.skipif(not (DATA / "models").is_dir(), reason="HW4FAST_DATA names no folder with models")


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

    def shuffle(self, x: str, channels: int, side: int, groups: int = 2, perm=shuffles.SWAP, batch: int = -1) -> str:
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


def small(path: Path, by: str = "Slice", pool: bool = True) -> Path:
    """The beginning of a ShuffleNet: 6 channels, a pool, 2·5 channels in a first unit, two units, an average."""
    net = Net(24)
    x = net.add("Clip", net.conv("x", 3, 6, 3, strides=[2, 2]))
    x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]) if pool else x
    side = 6 if pool else 12
    one = net.conv(net.conv(x, 6, 6, 3, group=6, bias=False), 6, 5)
    other = net.conv(net.conv(net.add("Relu", net.conv(x, 6, 5)), 5, 5, 3, group=5), 5, 5)
    x = net.shuffle(net.add("Concat", one, other, axis=1), 10, side)
    for _ in range(2):
        x = net.unit(x, 10, side, by)
    x = net.conv(x, 10, 7)
    return net.write(path, net.add("GlobalAveragePool", x))


def answers(path: Path, side: int) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.random.Generator(np.random.PCG64(7)).standard_normal((1, 3, side, side)).astype(np.float32)
    return session.run(None, {"x": x})


def kinds(path: Path) -> Counter:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def channels(path: Path) -> list[int]:
    """Of each convolution's result."""
    model = onnx.load(path)
    dims = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer}
    return [dims[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("by", ["Slice", "Split"])
def test_a_small_shufflenet_answers_the_same(by, block, tmp_path):
    path = small(tmp_path / "net.onnx", by)
    before, old = answers(path, 24), kinds(path)
    assert has_shuffles(path) and old["Transpose"] == 3
    assert quicken(path, block) == 3 + 4  # the shuffles; the stem, and the first convolution of each unit
    onnx.checker.check_model(onnx.load(path), full_check=True)
    now = kinds(path)
    assert now == {
        **{kind: n for kind, n in old.items() if kind in ("Conv", "Relu", "Clip", "MaxPool", "Concat")},
        "Gather": 5,
        "GlobalAveragePool": 1,
    }
    assert channels(path) == [block, block, 5, block, block, 5, *[block, block, 5] * 2, 7]
    (mine,), (theirs,) = answers(path, 24), before
    assert mine.shape == theirs.shape and np.abs(mine - theirs).max() < 1e-5
    assert not has_shuffles(path)


# -- shuffles ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 3, 4])
def test_any_number_of_groups(groups, tmp_path):
    net = Net()
    path = net.write(tmp_path / "net.onnx", net.shuffle(net.conv("x", 3, 12), 12, 12, groups))
    (before,) = answers(path, 12)
    assert quicken(path, 16) == 1 and kinds(path) == {"Conv": 1, "Gather": 1}
    assert np.array_equal(answers(path, 12)[0], before)


@pytest.mark.parametrize("batch", [-1, 1, 0])
def test_the_graph_gives_out_the_shuffled_tensor_and_halves_of_it(batch, tmp_path):
    net = Net()
    x = net.shuffle(net.conv("x", 3, 8), 8, 12, batch=batch)
    first, second = net.halves(x, 8, "Slice")
    path = net.write(tmp_path / "net.onnx", x, first, net.add("Relu", second))
    before = answers(path, 12)
    assert quicken(path, 16) == 1 and kinds(path) == {"Conv": 1, "Gather": 1, "Slice": 2, "Relu": 1}
    assert all(np.array_equal(mine, other) for mine, other in zip(answers(path, 12), before, strict=True))


@pytest.mark.parametrize("start, end, axis, step", [(0, 8, 1, 2), (-8, 3, 1, 1), (1, 6, 2, 1), (7, 1, 1, -1)])
def test_what_is_no_plain_cut_of_channels_stays(start, end, axis, step, tmp_path):
    net = Net()
    x = net.shuffle(net.conv("x", 3, 8), 8, 12)
    numbers = (net.constant(np.array([value])) for value in (start, end, axis, step))
    path = net.write(tmp_path / "net.onnx", net.add("Slice", x, *numbers))
    (before,) = answers(path, 12)
    assert quicken(path, 16) == 1 and kinds(path) == {"Conv": 1, "Gather": 1, "Slice": 1}
    assert np.array_equal(answers(path, 12)[0], before)


def test_parts_that_overlap_or_leave_channels_out(tmp_path):
    net = Net()
    x = net.shuffle(net.conv("x", 3, 8), 8, 12)
    axis = net.constant(np.array([1]))
    cuts = [[net.constant(np.array([end])) for end in ends] for ends in ((0, 3), (2, 5), (6, 99))]
    path = net.write(tmp_path / "net.onnx", *(net.add("Slice", x, *ends, axis) for ends in cuts))
    before = answers(path, 12)
    assert [part.shape[1] for part in before] == [3, 3, 2]
    assert quicken(path, 16) == 1 and kinds(path) == {"Conv": 1, "Gather": 3}
    assert all(np.array_equal(mine, other) for mine, other in zip(answers(path, 12), before, strict=True))


def test_the_tensor_in_groups_is_read_elsewhere(tmp_path):
    net = Net()
    apart = net.add("Reshape", net.conv("x", 3, 8), net.constant(np.array([1, 2, 4, 12, 12])))
    x = net.add("Reshape", net.add("Transpose", apart, perm=shuffles.SWAP), net.constant(np.array([1, 8, 12, 12])))
    y = net.add("ReduceMax", apart, axes=[2], keepdims=0)
    path = net.write(tmp_path / "net.onnx", x, y)
    before = answers(path, 12)
    assert quicken(path, 16) == 1 and kinds(path) == {"Conv": 1, "Reshape": 1, "Gather": 1, "ReduceMax": 1}
    assert all(np.array_equal(mine, other) for mine, other in zip(answers(path, 12), before, strict=True))


def swaps_otherwise(net: Net, x: str) -> str:
    return net.shuffle(x, 8, 12, perm=(0, 1, 2, 4, 3))


def mixes_rows(net: Net, x: str) -> str:
    """Groups of rows, not of channels."""
    apart = net.add("Reshape", x, net.constant(np.array([1, 8, 2, 6, 12])))
    return net.add("Reshape", net.add("Transpose", apart, perm=shuffles.SWAP), net.constant(np.array([1, 8, 12, 12])))


def comes_back_in_another_shape(net: Net, x: str) -> str:
    apart = net.add("Reshape", x, net.constant(np.array([1, 2, 4, 12, 12])))
    return net.add("Reshape", net.add("Transpose", apart, perm=shuffles.SWAP), net.constant(np.array([1, 8, 6, 24])))


def turns_pictures_into_groups(net: Net, x: str) -> str:
    apart = net.add("Reshape", x, net.constant(np.array([2, 2, 2, 12, 12])))
    return net.add("Reshape", net.add("Transpose", apart, perm=shuffles.SWAP), net.constant(np.array([1, 8, 12, 12])))


def is_read_before_it_is_whole(net: Net, x: str) -> str:
    swapped = net.add("Transpose", net.add("Reshape", x, net.constant(np.array([1, 2, 4, 12, 12]))), perm=shuffles.SWAP)
    whole = net.add("Reshape", swapped, net.constant(np.array([1, 8, 12, 12])))
    return net.add("Mul", whole, net.add("ReduceMax", swapped, axes=[1, 2], keepdims=0))


@pytest.mark.parametrize(
    "make",
    [swaps_otherwise, mixes_rows, comes_back_in_another_shape, turns_pictures_into_groups, is_read_before_it_is_whole],
)
def test_what_is_no_shuffle_of_channels_stays(make, tmp_path):
    net = Net()
    path = net.write(tmp_path / "net.onnx", make(net, net.conv("x", 3, 8)))
    before = path.read_bytes()
    assert quicken(path, 16) == 0 and path.read_bytes() == before


# -- channels ----------------------------------------------------------------------------------------------------


def by_channel(net: Net, x: str = "x", channels: int = 5, **rest) -> str:
    return net.conv(net.add("Relu", net.conv(x, 3, channels)), channels, channels, 3, group=channels, **rest)


def test_channels_are_added_once_to_shared_weights(tmp_path):
    """Two convolutions share filters; only one of them may have more channels."""
    net = Net()
    one = net.conv(by_channel(net), 5, 4)
    net.nodes.append(helper.make_node("Conv", ["x", *net.nodes[0].input[1:]], ["plain"], kernel_shape=[1, 1]))
    path = net.write(tmp_path / "net.onnx", one, "plain")
    before = answers(path, 12)
    assert quicken(path, 8) == 1 and channels(path) == [8, 8, 4, 5]
    assert all(np.abs(mine - other).max() < 1e-5 for mine, other in zip(answers(path, 12), before, strict=True))


def test_names_that_are_taken(tmp_path):
    net = Net()
    y = net.conv(by_channel(net), 5, 4)
    model = onnx.load(net.write(tmp_path / "net.onnx", y))
    taken = f"{model.graph.initializer[0].name}.wide"
    model.graph.node[1].output[0] = model.graph.node[2].input[0] = taken
    onnx.save(model, tmp_path / "net.onnx")
    (before,) = answers(tmp_path / "net.onnx", 12)
    assert quicken(tmp_path / "net.onnx", 8) == 1
    assert np.abs(answers(tmp_path / "net.onnx", 12)[0] - before).max() < 1e-5


@pytest.mark.parametrize(
    "case", ["aligned", "blocked", "given out", "added to", "weights", "average", "groups", "multiplied", "branch"]
)
def test_channels_that_can_not_be_more_or_need_not_stay(case, tmp_path):
    net, outputs = Net(), []
    if case == "aligned":  # a multiple of four, without a pool
        y = net.conv(by_channel(net, channels=12), 12, 4)
    elif case == "blocked":
        y = net.conv(by_channel(net, channels=16), 16, 4)
    elif case == "given out":
        seen = by_channel(net)
        outputs, y = [seen], net.conv(seen, 5, 4)
    elif case == "added to":
        seen = by_channel(net)
        outputs, y = [net.add("Add", seen, seen)], net.conv(seen, 5, 4)
    elif case == "weights":  # that a node computes
        y = net.conv(by_channel(net), 5, 4)
        last = net.nodes.pop()
        last.input[1] = net.add("Identity", last.input[1])
        net.nodes.append(last)
    elif case == "average":
        y = net.conv(net.add("GlobalAveragePool", by_channel(net)), 5, 4)
    elif case == "groups":
        y = net.conv(by_channel(net, channels=6), 6, 4, group=2)
    elif case == "multiplied":  # two filters for each channel
        y = net.conv(net.conv(net.conv("x", 3, 5), 5, 10, 3, group=5), 10, 4)
    else:  # a branch reads what it wants
        y = net.conv(by_channel(net), 5, 4)
        inner = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
        branches = [
            helper.make_graph([helper.make_node(kind, [net.nodes[2].output[0]], ["inner"])], kind, [], [inner])
            for kind in ("Relu", "Neg")
        ]
        outputs = [net.add("If", net.constant(np.array([True])), then_branch=branches[0], else_branch=branches[1])]
    path = net.write(tmp_path / "net.onnx", y, *outputs)
    before = path.read_bytes()
    assert quicken(path, 16) == 0 and path.read_bytes() == before
    answers(path, 12)  # onnxruntime takes it


# -- when a model is opened --------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HW4FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(optimised, "LEAST", 1)
    return tmp_path / "cache" / "optimised"


X = {"x": np.random.Generator(np.random.PCG64(7)).standard_normal((1, 3, 24, 24)).astype(np.float32)}


def test_the_graph_in_the_cache_is_the_quick_one(cache, tmp_path):
    path = small(tmp_path / "net.onnx")
    (theirs,) = answers(path, 24)
    (first,), (second,) = open_session(path).run(None, X), open_session(path).run(None, X)
    assert np.abs(first - theirs).max() < 1e-5 and np.array_equal(first, second)
    (entry,) = (folder for folder in cache.iterdir() if folder.name != "hashes")
    assert sorted(file.name for file in entry.iterdir()) == [optimised.GRAPH, optimised.WEIGHTS, optimised.NOTE]
    assert kinds(entry / optimised.GRAPH)["Transpose"] == 0 and kinds(entry / optimised.GRAPH)["Gather"] == 5


def test_what_fails_leaves_the_file_as_it_is(cache, tmp_path, monkeypatch):
    path = small(tmp_path / "net.onnx")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shuffles, "quicken", full)
    assert np.array_equal(open_session(path).run(None, X)[0], answers(path, 24)[0])
    assert [folder for folder in cache.iterdir() if folder.name != "hashes"] == []


def test_whether_a_file_has_shuffles_shows_without_onnx(tmp_path):
    net = Net()
    path = net.write(tmp_path / "net.onnx", net.conv("x", 3, 4))
    assert not has_shuffles(path)
    small(path)
    assert has_shuffles(path)


@needs_data
@pytest.mark.parametrize("batch", [None, 1])
def test_shufflenet(batch, cache, tmp_path):
    """The file of the model folder, whose weights are int8: as onnxruntime runs it by itself, within rounding."""
    path = DATA / "models" / "shufflenet_v2_x1_0.onnx"
    x = np.random.Generator(np.random.PCG64(3)).standard_normal((4, 3, 224, 224)).astype(np.float32)
    name = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    theirs = name.run(None, {name.get_inputs()[0].name: x})[0]
    for _ in range(2):
        session = open_session(path, batch=batch)
        mine = [session.run(None, {session.get_inputs()[0].name: x[i : i + 1]})[0][0] for i in range(4)]
        assert np.abs(np.stack(mine) - theirs).max() < 1e-4 * np.abs(theirs).max()
    (entry,) = (folder for folder in cache.iterdir() if folder.name != "hashes")
    found = kinds(entry / optimised.GRAPH)
    assert (found["Transpose"], found["Gather"]) == ((0, 29) if batch else (16, found["Gather"]))
