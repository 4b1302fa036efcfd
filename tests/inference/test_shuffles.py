"""Graphs with channel shuffles: what onnxruntime is given answers as the file does, and is another graph."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from hw4fast.inference import optimised, shuffles
from hw4fast.inference.session import open_session
from hw4fast.inference.shuffles import has_shuffles, quicken
from tests.inference.nets import Net, answers, channels, kinds, picture, small, with_constants_as_inputs

DATA = Path(os.environ.get("HW4FAST_DATA", "nowhere"))
needs_data = pytest.mark.skipif(not (DATA / "models").is_dir(), reason="HW4FAST_DATA names no folder with models")


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("by", ["Slice", "Split"])
def test_a_small_shufflenet_answers_the_same(by, block, tmp_path):
    path = small(tmp_path / "net.onnx", by)
    before, old = answers(path, 24), kinds(path)
    assert has_shuffles(path) and old["Transpose"] == 3
    assert quicken(path, block) == 3 + (4 if block == 16 else 3)  # the shuffles, the stem, and in each unit one
    onnx.checker.check_model(onnx.load(path), full_check=True)
    now, stay = kinds(path), ("Conv", "Relu", "Clip", "MaxPool", "Concat", "GlobalAveragePool")
    assert now == {**{kind: old[kind] for kind in stay}, "Gather": 5}
    stem, unit = (32 if block == 16 else 24), [32 if block == 16 else 24] * 2 + [22]
    assert channels(path) == [stem, stem, 22, *unit, *unit, *unit, 7]
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


@pytest.mark.parametrize("kind", ["Shape", "ReduceMean"])
def test_readers_of_another_rank(kind, tmp_path):
    net = Net()
    x = net.shuffle(net.conv("x", 3, 8), 8, 12)
    rest = {"keepdims": 0} if kind == "ReduceMean" else {}
    y = net.add("Cast", net.add(kind, x, **rest), to=TensorProto.FLOAT)
    path = net.write(tmp_path / "net.onnx", net.add("Reshape", y, net.constant(np.array([1, 1, 1, -1]))))
    before = answers(path, 12)
    assert quicken(path, 16) == 1
    assert all(np.array_equal(mine, other) for mine, other in zip(answers(path, 12), before, strict=True))


def test_the_tensor_in_groups_is_given_out(tmp_path):
    net = Net()
    y = net.shuffle(net.conv("x", 3, 8), 8, 12, batch=1)
    apart = net.nodes[-2].input[0]
    graph = onnx.load(net.write(tmp_path / "net.onnx", y)).graph
    graph.output.append(helper.make_tensor_value_info(apart, TensorProto.FLOAT, [None] * 5))
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    before = answers(path, 12)
    assert quicken(path, 16) == 1
    assert all(np.array_equal(mine, other) for mine, other in zip(answers(path, 12), before, strict=True))


def test_operators_of_another_domain_that_bear_such_names(tmp_path):
    net = Net()
    y = net.conv(by_channel(net), 22, 4)
    model = onnx.load(net.write(tmp_path / "net.onnx", net.shuffle(y, 4, 12)))
    for node in model.graph.node:
        if node.op_type in ("Relu", "Transpose"):
            node.domain = "theirs"
    model.opset_import.append(helper.make_opsetid("theirs", 1))
    onnx.save(model, tmp_path / "net.onnx")
    assert has_shuffles(tmp_path / "net.onnx") and quicken(tmp_path / "net.onnx", 16) == 0


# -- channels ----------------------------------------------------------------------------------------------------


def by_channel(net: Net, x: str = "x", channels: int = 22, **rest) -> str:
    return net.conv(net.add("Relu", net.conv(x, 3, channels)), channels, channels, 3, group=channels, **rest)


def test_channels_are_added_once_to_shared_weights(tmp_path):
    """Two convolutions share filters; only one of them may have more channels."""
    net = Net()
    one = net.conv(by_channel(net), 22, 4)
    net.nodes.append(helper.make_node("Conv", ["x", *net.nodes[0].input[1:]], ["plain"], kernel_shape=[1, 1]))
    path = net.write(tmp_path / "net.onnx", one, "plain")
    before = answers(path, 12)
    assert quicken(path, 16) == 1 and channels(path) == [32, 32, 4, 22]
    assert all(np.abs(mine - other).max() < 1e-5 for mine, other in zip(answers(path, 12), before, strict=True))


def test_each_weight_grows_once(tmp_path):
    """However many convolutions share it: the file grows by a half at most for each end of it."""
    net = Net()
    wide = net.conv("x", 3, 22)
    answers_of = []
    for _ in range(20):  # from the same picture
        net.nodes.append(helper.make_node("Conv", ["x", *net.nodes[0].input[1:]], [f"again{len(net.nodes)}"]))
        pooled = net.add("MaxPool", net.nodes[-1].output[0], kernel_shape=[2, 2])
        answers_of.append(net.conv(pooled, 22, 4))
    path = net.write(tmp_path / "net.onnx", wide, *answers_of)
    before, constants = answers(path, 12), len(net.constants)
    assert quicken(path, 16) == 20
    assert len(onnx.load(path).graph.initializer) == constants + 2  # the shared weight and its bias, as they were, too
    assert all(np.abs(mine - other).max() < 1e-5 for mine, other in zip(answers(path, 12), before, strict=True))


def test_constants_that_are_inputs(tmp_path):
    """Nothing is done to them unless it is said that they are none."""
    path = with_constants_as_inputs(small(tmp_path / "net.onnx"), 3)
    before, wide, content = answers(path, 24)[0], channels(path), path.read_bytes()
    quicken(path, 16)
    assert channels(path) == wide and np.array_equal(answers(path, 24)[0], before)
    path.write_bytes(content)
    assert quicken(path, 16, ["x"]) == 7 and max(channels(path)) == 32
    assert [value.name for value in onnx.load(path).graph.input] == ["x"]
    assert np.abs(answers(path, 24)[0] - before).max() < 1e-5


def test_names_that_are_taken(tmp_path):
    net = Net()
    y = net.conv(by_channel(net), 22, 4)
    model = onnx.load(net.write(tmp_path / "net.onnx", y))
    taken = f"{model.graph.initializer[0].name}.wide"
    model.graph.node[1].output[0] = model.graph.node[2].input[0] = taken
    onnx.save(model, tmp_path / "net.onnx")
    (before,) = answers(tmp_path / "net.onnx", 12)
    assert quicken(tmp_path / "net.onnx", 16) == 1
    assert np.abs(answers(tmp_path / "net.onnx", 12)[0] - before).max() < 1e-5


@pytest.mark.parametrize(
    "case",
    ["aligned", "blocked", "given out", "added to", "weights", "average", "groups", "multiplied", "branch", "few"],
)
def test_channels_that_can_not_be_more_or_need_not_stay(case, tmp_path):
    net, outputs = Net(), []
    if case == "aligned":  # a multiple of four, without a pool
        y = net.conv(by_channel(net, channels=12), 12, 4)
    elif case == "blocked":
        y = net.conv(by_channel(net, channels=16), 16, 4)
    elif case == "given out":
        seen = by_channel(net)
        outputs, y = [seen], net.conv(seen, 22, 4)
    elif case == "added to":
        seen = by_channel(net)
        outputs, y = [net.add("Add", seen, seen)], net.conv(seen, 22, 4)
    elif case == "weights":  # that a node computes
        y = net.conv(by_channel(net), 22, 4)
        last = net.nodes.pop()
        last.input[1] = net.add("Identity", last.input[1])
        net.nodes.append(last)
    elif case == "average":
        y = net.conv(net.add("GlobalAveragePool", by_channel(net)), 22, 4)
    elif case == "groups":
        y = net.conv(by_channel(net), 22, 4, group=2)
    elif case == "multiplied":  # two filters for each channel
        y = net.conv(net.conv(net.conv("x", 3, 22), 22, 44, 3, group=22), 44, 4)
    elif case == "few":  # 17 to 32 costs more than it saves
        y = net.conv(by_channel(net, channels=17), 17, 4)
    else:  # a branch reads what it wants
        y = net.conv(by_channel(net), 22, 4)
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


X = picture(24)


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
    (entry,) = (folder for folder in cache.iterdir() if folder.name != "hashes")
    assert kinds(entry / optimised.GRAPH)["Transpose"] == 3 and not (entry / "rewritten.onnx").exists()


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


@pytest.mark.parametrize("ir_version", [3, 8])
def test_a_file_whose_constants_are_inputs_opens_each_time(ir_version, cache, tmp_path):
    path = small(tmp_path / "net.onnx")
    (theirs,) = answers(path, 24)
    with_constants_as_inputs(path, ir_version)
    for _ in range(3):
        session = open_session(path)
        assert [entry.name for entry in session.get_inputs()] == ["x"]
        assert np.abs(session.run(None, X)[0] - theirs).max() < 1e-5
    kept = [folder for folder in cache.iterdir() if folder.name != "hashes"]
    assert [kinds(entry / optimised.GRAPH)["Gather"] for entry in kept] == ([5] if ir_version == 3 else [])
    if ir_version == 8:  # a caller may replace them
        name = session.get_overridable_initializers()[0].name
        shape = session.get_overridable_initializers()[0].shape
        other = session.run(None, {**X, name: np.ones(shape, np.float32)})[0]
        assert np.abs(other - theirs).max() > 1e-3
