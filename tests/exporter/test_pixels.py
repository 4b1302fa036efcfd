"""`export --input uint8`: the graph normalises, to the borders and in every colour order, as the float32 card says."""

from __future__ import annotations

import json
from copy import deepcopy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from hw4fast import exporter
from hw4fast.cli import main
from hw4fast.data import Preprocessing, load
from hw4fast.errors import UserError
from hw4fast.exporter import export, pixels
from hw4fast.exporter.pixels import PREFIX, can_fold, take_pixels
from hw4fast.exporter.source import Source
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.describe import describe

MODES = {
    "grey": Preprocessing(mode="L", crop=(9, 7), mean=(0.3,), std=(0.35,)),
    "rgb": Preprocessing(
        "RGB", (9, 7), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), resize="shorter-side", resize_size=12
    ),
    "bgr": Preprocessing(mode="BGR", crop=(9, 7), mean=(104.0, 117.0, 123.0), std=(1.0, 2.0, 3.0), divisor=1),
}
WAYS = {True: "division folded into the first convolution", False: "nodes of its own"}


def random(*shape: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(shape)).standard_normal(shape).astype(np.float32)


def conv_model(channels: int, group: int = 1, second_reader: bool = False, constant: bool = True) -> onnx.ModelProto:
    """input [n, channels, 9, 7] → Conv, padded by 2 → y (plus the input's mean)."""
    weight = random(4 * channels, channels // group, 5, 5)
    nodes = [helper.make_node("Conv", ["input", "weight"], ["convolved"], group=group, pads=[2] * 4)]
    if second_reader:
        nodes.append(helper.make_node("ReduceMean", ["input"], ["mean"]))
        nodes.append(helper.make_node("Add", ["convolved", "mean"], ["y"]))
    else:
        nodes[0].output[0] = "y"
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", channels, 9, 7])]
    if not constant:
        nodes.insert(0, helper.make_node("Identity", ["stored"], ["weight"]))
    stored = [numpy_helper.from_array(weight, "weight" if constant else "stored")]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", None, 9, 7])
    graph = helper.make_graph(nodes, "conv", inputs, [output], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def answer(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x})[0]


def some_pictures(channels: int) -> np.ndarray:
    """Noise, black and white."""
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (3, 9, 7, channels), np.uint8)
    return np.concatenate([noise, np.zeros_like(noise[:1]), np.full_like(noise[:1], 255)])


def as_read(pictures: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    return np.ascontiguousarray(pictures[..., ::-1]) if preprocessing.mode == "BGR" else pictures


# -- the graph ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", WAYS)
@pytest.mark.parametrize("mode", MODES)
def test_the_same_numbers_up_to_the_borders(mode, fold):
    preprocessing = MODES[mode]
    pictures, model = some_pictures(preprocessing.channels), conv_model(preprocessing.channels)
    before = answer(model, preprocessing.normalise(pictures))
    assert can_fold(model)
    take_pixels(model, preprocessing, fold)
    onnx.checker.check_model(model, full_check=True)
    assert (f"{PREFIX}Div" in {entry.name for entry in model.graph.initializer}) is not fold
    after = answer(model, as_read(pictures, preprocessing))
    error = np.abs(after - before)
    assert error.max() <= 3e-6 * np.abs(before).max()
    edge = np.ones(before.shape[2:], bool)
    edge[2:-2, 2:-2] = False
    assert error[..., edge].max() <= 3e-6 * np.abs(before[..., edge]).max()


@pytest.mark.parametrize("mode", MODES)
def test_a_mean_in_the_bias_would_be_seen_at_the_borders(mode):
    """What the tests above guard against: (x − m) ∗ w = x ∗ w − m·Σw holds inside only."""
    preprocessing = MODES[mode]
    pictures, model = some_pictures(preprocessing.channels), conv_model(preprocessing.channels)
    right = answer(model, preprocessing.normalise(pictures))
    weight = numpy_helper.to_array(model.graph.initializer[0])
    scaled = preprocessing.normalise(pictures) + (np.array(preprocessing.mean) / preprocessing.std).reshape(-1, 1, 1)
    bias = (weight.sum((2, 3)) @ (np.array(preprocessing.mean) / preprocessing.std)).reshape(-1, 1, 1)
    wrong = answer(model, scaled.astype(np.float32)) - bias
    inside, largest = (..., slice(2, -2), slice(2, -2)), np.abs(right).max()
    assert np.abs(wrong - right)[inside].max() <= 3e-6 * np.abs(scaled).max() * np.abs(weight).sum((1, 2, 3)).max()
    assert np.abs(wrong - right).max() > 0.01 * largest


def test_it_takes_pictures_of_any_number():
    model = conv_model(3)
    take_pixels(model, MODES["rgb"], True)
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    shape = [axis.dim_param or axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    assert (model.graph.input[0].name, shape) == ("input", ["n", 9, 7, 3])
    for n in (1, 2, 7):
        assert answer(model, np.zeros((n, 9, 7, 3), np.uint8)).shape == (n, 12, 9, 7)


@pytest.mark.parametrize("case", [{"group": 3}, {"second_reader": True}, {"constant": False}], ids=str)
def test_what_cant_be_folded(case):
    model, pictures, preprocessing = conv_model(3, **case), some_pictures(3), MODES["rgb"]
    before = answer(model, preprocessing.normalise(pictures))
    assert not can_fold(model)
    take_pixels(model, preprocessing, False)
    after = answer(model, pictures)
    assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max()


def test_weights_that_another_node_reads_arent_folded():
    model = conv_model(3)
    model.graph.node.append(helper.make_node("ReduceMean", ["weight"], ["unused"]))
    assert not can_fold(model)


def test_a_net_without_convolution_isnt_folded(centroid_onnx):
    model = onnx.load(centroid_onnx)
    assert not can_fold(model)
    preprocessing = load("digits").preprocessing
    pictures = load("digits").test.images[:20]
    before = answer(model, preprocessing.normalise(pictures))
    take_pixels(model, preprocessing, False)
    assert np.abs(answer(model, pictures) - before).max() <= 1e-5 * np.abs(before).max()


# -- the file ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_graph")
@pytest.mark.parametrize("fused", [False, True])
def test_a_file_that_takes_pictures(fused, small_run, model_file, tmp_path):
    card = export(small_run, tmp_path / "pixels.onnx", fused=fused, input="uint8").card
    assert (card.input.name, card.input.layout, card.input.dtype) == ("input", "NHWC", "uint8")
    assert card.provenance["normalisation"] == WAYS[True] and card.provenance["precision"] == "float32"
    assert card.provenance.get("fused", False) is fused
    assert card.parity["tolerance"] == exporter.TOLERANCE and card.parity["same_answers"] == 64
    test = load("digits").test.images
    plain = Classifier(model_file).logits(test)
    for kernels in (True, False):
        classifier = Classifier(tmp_path / "pixels.onnx", kernels=kernels)
        assert classifier.card == card
        for n in (1, 2, 7, len(test)):
            assert np.abs(classifier.logits(test[:n]) - plain[:n]).max() <= 1e-5 * np.abs(plain).max()


@pytest.mark.usefixtures("quick_graph")
def test_onnxs_evaluator_takes_it(small_run, model_file, tmp_path):
    from onnx.reference import ReferenceEvaluator

    export(small_run, tmp_path / "pixels.onnx", input="uint8")
    pictures = load("digits").test.images[:3]
    (logits,) = ReferenceEvaluator(str(tmp_path / "pixels.onnx")).run(["logits"], {"input": pictures})
    plain = Classifier(model_file).logits(pictures)
    assert np.abs(logits - plain).max() <= 1e-5 * np.abs(plain).max()


@pytest.mark.usefixtures("quick_graph")
def test_where_folding_is_not_exact_enough_it_is_left(small_run, tmp_path, monkeypatch):
    fold = pixels._fold
    monkeypatch.setattr(pixels, "_fold", lambda graph, spread: fold(graph, spread * (1 + 1e-4)))
    card = export(small_run, tmp_path / "pixels.onnx", input="uint8").card
    assert card.provenance["normalisation"] == WAYS[False] and card.parity["max_error_to_float64"] < 1e-4
    names = {entry.name for entry in onnx.load(tmp_path / "pixels.onnx").graph.initializer}
    assert {f"{PREFIX}Sub", f"{PREFIX}Div"} <= names


@pytest.mark.usefixtures("quick_graph")
def test_when_neither_way_is_near_enough_there_is_no_file(small_run, tmp_path):
    with pytest.raises(UserError, match="differs from torch"):
        export(small_run, tmp_path / "pixels.onnx", 1e-12, input="uint8")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode, kind", [*((mode, {}) for mode in MODES), ("bgr", {"fp16": True})], ids=str)
def test_each_colour_order_from_the_file_to_the_answer(mode, kind, tmp_path, monkeypatch):
    """A net of each mode, exported both ways: the same pictures of another size get the same probabilities."""
    torch.manual_seed(0)
    preprocessing = MODES[mode]
    layers = [torch.nn.Conv2d(preprocessing.channels, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(8 * 63, 5)).eval()
    pictures = some_pictures(preprocessing.channels)
    source = Source(model, preprocessing, tuple("abcde"), {"exported": "now"}, pictures)
    monkeypatch.setattr(exporter, "_source", lambda *_: (source, tmp_path / "net.onnx"))
    traced = exporter.to_onnx(source)  # once: it takes seconds
    monkeypatch.setattr(exporter, "to_onnx", lambda _: deepcopy(traced))
    picture = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (40, 31, 3), np.uint8)
    found = []
    for taken in exporter.INPUTS:
        export("net", input=taken, **kind)
        found.append(Classifier(tmp_path / "net.onnx").classify(picture)[0])
    (first, second), error = found, 1e-2 if kind else 1e-5
    assert [guess[:2] for guess in first] == [guess[:2] for guess in second]
    assert np.allclose([guess[2] for guess in first], [guess[2] for guess in second], atol=error)


@pytest.mark.usefixtures("quick_graph")
def test_the_command_says_so(small_run, tmp_path, capsys):
    path = tmp_path / "pixels.onnx"
    assert main(["export", str(small_run), "--onnx", str(path), "--input", "uint8"]) == 0
    said = capsys.readouterr().out
    assert f"takes uint8 pictures (normalised inside: {WAYS[True]})" in said
    assert main(["export", str(small_run), "--onnx", str(path), "--input", "int7"]) == 2
    assert "unknown input 'int7'; known: float32, uint8" in capsys.readouterr().err
    Image.fromarray(load("digits").test.images[5][..., 0]).save(tmp_path / "digit.png")
    answers = []
    for model in (path, small_run):
        assert main(["classify", str(tmp_path / "digit.png"), "--model", str(model), "--json"]) == 0
        answers.append([guess["label"] for guess in json.loads(capsys.readouterr().out)["clean"]["top"]])
    assert answers[0] == answers[1]


# -- real weights ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x1_0"])
@pytest.mark.usefixtures("few_photographs")
def test_real_nets(name, tmp_path):
    card = export(name, tmp_path / "net.onnx", input="uint8").card
    assert card.provenance["normalisation"] == WAYS[True]
    assert card.parity["same_answers"] == card.parity["images"] and "inputs_equal_to_torchvision" in card.parity
    assert card.parity["max_error_to_float64"] <= 1e-5 * card.parity["largest_logit"]


@pytest.mark.usefixtures("quick_graph")
@pytest.mark.parametrize("changed", [{"mean": "0.1"}, {"std": "1"}, {"divisor": "1"}])
def test_what_the_graph_normalises_with_can_not_be_set(changed, small_run, tmp_path):
    path = export(small_run, tmp_path / "pixels.onnx", input="uint8").path
    before = path.read_bytes()
    with pytest.raises(UserError, match=rf"normalises inside its graph, so {next(iter(changed))} can't be set"):
        describe(path, changed)
    assert path.read_bytes() == before
    assert describe(path, {"licence": "MIT"}).parity
