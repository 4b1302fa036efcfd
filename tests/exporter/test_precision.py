"""`export --fp16` and `--int8`: what they cost is measured and said, and nothing is left behind when they fail."""

from __future__ import annotations

import json
import logging
import re
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from PIL import Image

from hw4fast import exporter
from hw4fast.cli import main
from hw4fast.data import load
from hw4fast.data.preprocessing import preset
from hw4fast.errors import UsageError, UserError
from hw4fast.exporter import TOLERANCES, export, merits, precision, samples
from hw4fast.exporter.source import Source
from hw4fast.inference import optimised
from hw4fast.inference.classifier import Classifier
from hw4fast.stats import percent, wilson

FLAGS = {"float16": {"fp16": True}, "int8": {"int8": True}}


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory, monkeypatch) -> Path:
    """Where temporary folders are made: a test looks whether any are left."""
    folder = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv(
        "TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("torch"))
    )  # it makes one, else, and stays
    monkeypatch.setattr(merits, "SECONDS", 0.05)
    return folder


@pytest.fixture(scope="module")
def files(small_run, tmp_path_factory) -> dict[str, Path]:
    """Every kind of file of the run."""
    folder, seconds, graph = tmp_path_factory.mktemp("files"), merits.SECONDS, exporter.to_onnx
    merits.SECONDS, exporter.to_onnx = 0.05, lambda _: plain_graph(small_run)
    try:
        for taken in exporter.INPUTS:
            for name, flags in FLAGS.items():
                export(small_run, folder / f"{name}-{taken}.onnx", input=taken, **flags)
    finally:
        merits.SECONDS, exporter.to_onnx = seconds, graph
    return {path.stem: path for path in folder.iterdir()}


def plain_graph(run: Path) -> onnx.ModelProto:
    proto = onnx.load(run / "model.onnx")
    del proto.metadata_props[:]
    return proto


KINDS = [f"{name}-{taken}" for name in FLAGS for taken in exporter.INPUTS]


def picture_folder(folder: Path, pictures: np.ndarray) -> Path:
    folder.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture[..., 0]).save(folder / f"{number:03}.png")
    return folder


# -- what is written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_says_what_it_is(kind, files, model_file):
    classifier, (name, taken) = Classifier(files[kind]), kind.split("-")
    card, before = classifier.card, Classifier(model_file).card
    assert card.parity["precision"] == card.provenance["precision"] == name
    assert (card.input.dtype, card.input.layout) == (taken, "NHWC" if taken == "uint8" else "NCHW")
    assert card.provenance["settings"] == before.provenance["settings"] and card.labels == before.labels
    assert card.parity["tolerance"] == TOLERANCES[name]
    limit = TOLERANCES[name] * card.parity["largest_logit"]
    assert 1e-5 < card.parity["max_error_to_float64"] <= limit
    assert card.parity["images"] - card.parity["same_answers"] <= card.parity["near_ties"]
    model = onnx.load(files[kind])
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", exporter.OPSET)]
    assert b"/tmp" not in files[kind].read_bytes() and str(Path.home()).encode() not in files[kind].read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_what_anybody_measures(kind, files, model_file):
    pictures = load("digits").test.images[:64]
    classifier = Classifier(files[kind])
    plain = Classifier(model_file).logits(pictures)
    parity = classifier.card.parity
    worst = max(
        np.abs(np.concatenate([classifier.logits(pictures[i : i + n]) for i in range(0, 64, n)]) - plain).max()
        for n in (1, 2, 7, 64)
    )
    assert parity["max_error_to_torch"] == pytest.approx(float(worst), abs=2e-5 * float(np.abs(plain).max()))


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_float32s_but_for_near_ties(kind, files, model_file):
    test = load("digits").test.images
    plain, ours = (Classifier(file).logits(test) for file in (model_file, files[kind]))
    second, first = np.sort(plain, axis=1)[:, -2:].T
    differ = plain.argmax(1) != ours.argmax(1)
    assert differ.mean() <= 0.02
    assert not (differ & (first - second > 2 * np.abs(ours - plain).max())).any()


@pytest.mark.parametrize("kind", KINDS)
def test_classify_gives_the_answer_of_float32(kind, files, small_run, tmp_path, capsys):
    folder = picture_folder(tmp_path / "digits", load("digits").test.images[:8])
    answers = []
    for model in (files[kind], small_run):
        assert main(["classify", *map(str, sorted(folder.iterdir())), "--model", str(model), "--json"]) == 0
        lines = capsys.readouterr().out.splitlines()
        answers.append([json.loads(line)["clean"]["top"][0]["label"] for line in lines])
    assert answers[0] == answers[1] and len(answers[0]) == 8


@pytest.mark.parametrize("taken", exporter.INPUTS)
def test_float16_is_half_as_large(taken, files, model_file):
    """Of the graph: cards are cards."""
    sizes = []
    for path in (files[f"float16-{taken}"], model_file):
        model = onnx.load(path)
        del model.metadata_props[:]
        sizes.append(model.ByteSize())
    assert 0.45 <= sizes[0] / sizes[1] <= 0.6
    kinds = {t.data_type for t in onnx.load(files[f"float16-{taken}"]).graph.initializer if np.prod(t.dims) > 3}
    assert TensorProto.FLOAT not in kinds and TensorProto.FLOAT16 in kinds


@pytest.mark.parametrize("taken", exporter.INPUTS)
def test_int8_weights_have_seven_bits_and_a_scale_per_channel(taken, files):
    graph = onnx.load(files[f"int8-{taken}"]).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in tensors]
    weights = [node for node in readers if tensors[node.input[0]].ndim == 4]
    assert len(weights) == 2
    for node in weights:
        values = tensors[node.input[0]]
        assert values.dtype == np.int8 and 32 < np.abs(values.astype(int)).max() <= 64
        assert tensors[node.input[1]].shape == (len(values),)
    assert not any(values.ndim == 4 and values.dtype == np.float32 for values in tensors.values())


@pytest.mark.parametrize("taken", exporter.INPUTS)
def test_what_int8_costs_is_told(taken, files, model_file):
    card, test = Classifier(files[f"int8-{taken}"]).card, load("digits").test
    how = card.provenance["calibration"]
    assert how == {"method": "percentile", "pictures": samples.MOST, "origin": "training pictures"}
    told, n = card.parity["judged"]["test"], len(test)
    plain, ours = (Classifier(file).logits(test.images) for file in (model_file, files[f"int8-{taken}"]))
    assert list(card.parity["judged"]) == ["test"] and told["pictures"] == n
    assert abs(told["same_answers"] - (plain.argmax(1) == ours.argmax(1)).sum()) <= 1
    assert abs(told["correct_float32"] - (plain.argmax(1) == test.labels).sum()) <= 1
    assert told["correct_int8"] == (ours.argmax(1) == test.labels).sum()
    assert told["accuracy_int8_95"] == list(wilson(told["correct_int8"], n))
    speed = card.parity["speed"]
    assert set(speed) == {"processor", "cores", "batches"} and set(speed["batches"]) == {"1", "32"}
    for batch in speed["batches"].values():
        assert 0 < batch["low"] <= batch["median"] <= batch["high"] and batch["n"] >= 7
        assert batch["float32_ms"] > 0 and batch["int8_ms"] > 0
    assert card.parity["float32"]["max_error_to_float64"] <= 1e-5 * card.parity["largest_logit"]


# -- what the command says ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_graph")
@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.4, 0.5, "INT8 IS SLOWER"), (1.4, 1.5, "int8 is faster"), (0.9, 1.1, "no faster, no slower")],
)
def test_the_command_says_it_all(low, high, words, small_run, tmp_path, capfd, monkeypatch, scratch):
    def race(*_):
        told = {"median": (low + high) / 2, "low": low, "high": high, "n": 9, "float32_ms": 1.0, "int8_ms": 2.0}
        return {"processor": "p", "cores": 2, "batches": {"1": told, "32": told}}

    monkeypatch.setattr(merits, "race", race)
    handlers = list(logging.getLogger().handlers)
    path = tmp_path / "int8.onnx"
    assert main(["export", str(small_run), "--onnx", str(path), "--int8"]) == 0
    said = capfd.readouterr()
    assert said.err == "" and logging.getLogger().handlers == handlers and logging.root.manager.disable == 0
    told = Classifier(path).card.parity["judged"]["test"]
    assert f"accuracy in int8    {percent(told['correct_int8'], told['pictures'])}" in said.out
    assert f"accuracy in float32 {percent(told['correct_float32'], told['pictures'])}" in said.out
    assert re.search(rf"batch 1: {words} on this CPU, {(low + high) / 2:.2f}× float32's speed \(median of", said.out)
    assert " ms" not in said.out
    assert "calibrated on 256 pictures (training pictures)" in said.out
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"] and not list(scratch.iterdir())


@pytest.mark.usefixtures("quick_graph")
@pytest.mark.parametrize("kind", ["plain", "fp16", "int8"])
def test_no_optimised_graph_of_a_temporary_file_is_kept(kind, small_run, tmp_path, monkeypatch):
    monkeypatch.setenv("HW4FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(optimised, "LEAST", 0)
    monkeypatch.setattr(merits, "BATCHES", (1,))
    path = tmp_path / "net.onnx"
    export(small_run, path, **({} if kind == "plain" else {kind: True}))
    folder = tmp_path / "cache" / "optimised"
    assert not list(folder.glob("[!h]*"))
    Classifier(path)
    assert len(list(folder.glob("[!h]*"))) == 1  # it would be seen


@pytest.mark.usefixtures("quick_graph")
@pytest.mark.parametrize("flag", ["--fp16", "--int8"])
def test_json_is_one_value(flag, small_run, tmp_path, capfd):
    path = tmp_path / "net.onnx"
    assert main(["export", str(small_run), "--onnx", str(path), flag, "--json"]) == 0
    said = capfd.readouterr()
    assert said.err == "" and json.loads(said.out)["parity"] == Classifier(path).card.parity


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"fp16": True, "int8": True}, "float16 or in int8, not both"),
        ({"fused": True, "fp16": True}, "kernels know float32 and no float16; say --fused or --fp16"),
        ({"fused": True, "int8": True}, "kernels know float32 and no int8; say --fused or --int8"),
        ({"calibrate": "photos"}, "go with --int8"),
        ({"fp16": True, "calibrate": "photos"}, "go with --int8"),
        ({"input": "float64"}, "unknown input 'float64'; known: float32, uint8"),
        ({"int8": True, "tolerance": 0.0}, "tolerance must be positive"),
    ],
)
def test_wrong_usage(asked, words, small_run, tmp_path):
    with pytest.raises(UsageError, match=words):
        export(small_run, tmp_path / "net.onnx", **asked)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("quick_graph")
@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_over_tolerance_there_is_no_file(flags, small_run, tmp_path, scratch):
    with pytest.raises(UserError, match=r"differs from torch: .* no file was written"):
        export(small_run, tmp_path / "net.onnx", 1e-6, **flags)
    assert not list(tmp_path.iterdir()) and not list(scratch.iterdir())


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_weights_that_are_no_numbers_or_too_large(flags, value, small_run, tmp_path, scratch, monkeypatch):
    proto = plain_graph(small_run)
    bias = next(tensor for tensor in proto.graph.initializer if list(tensor.dims) == [10])
    bias.CopyFrom(numpy_helper.from_array(np.full(10, value, np.float32), bias.name))
    monkeypatch.setattr(exporter, "to_onnx", lambda _: proto)
    with pytest.raises(UserError, match="no file was written"):
        export(small_run, tmp_path / "net.onnx", **flags)
    assert not list(tmp_path.iterdir()) and not list(scratch.iterdir())


@pytest.mark.usefixtures("quick_graph")
def test_int8_that_answers_nonsense_elsewhere_is_refused(small_run, tmp_path, scratch, monkeypatch):
    right = Classifier.logits

    def wrong(self, batch):
        broken = self.card.provenance["precision"] == "int8" and not self.card.parity and len(batch) == merits.BATCH
        return np.full_like(right(self, batch), np.nan) if broken else right(self, batch)

    monkeypatch.setattr(Classifier, "logits", wrong)
    with pytest.raises(UserError, match="no number on test; no file was written"):
        export(small_run, tmp_path / "net.onnx", int8=True)
    assert not list(tmp_path.iterdir()) and not list(scratch.iterdir())


# -- what it is calibrated on ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_graph")
def test_a_folder_to_calibrate_on(small_run, tmp_path):
    """Some of its pictures are of the test split: on those it isn't judged."""
    test = load("digits").test.images
    folder = picture_folder(tmp_path / "mine", test[:40])
    same = len({picture.tobytes() for picture in test[:40]})
    result = export(small_run, tmp_path / "net.onnx", int8=True, calibrate=folder)
    how = result.card.provenance["calibration"]
    assert (how["pictures"], how["origin"]) == (40, "the folder mine") and result.left_out == ()
    assert str(tmp_path) not in result.card.to_json_text()
    assert len(test) - result.card.parity["judged"]["test"]["pictures"] >= same


@pytest.mark.usefixtures("quick_graph")
def test_of_many_pictures_some_at_even_distances(small_run, tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "MOST", 10)
    assert samples._spread(range(100)) == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    folder = picture_folder(tmp_path / "mine", load("digits").train.images[:40])
    result = export(small_run, tmp_path / "net.onnx", int8=True, calibrate=folder)
    assert result.card.provenance["calibration"]["pictures"] == 10


@pytest.mark.usefixtures("quick_graph")
def test_unreadable_pictures_are_left_out_and_named(small_run, tmp_path, capsys):
    folder = picture_folder(tmp_path / "mine", load("digits").train.images[:20])
    (folder / "007.png").write_bytes(b"no picture")
    command = ["export", str(small_run), "--onnx", str(tmp_path / "net.onnx"), "--int8", "--calibrate", str(folder)]
    assert main(command) == 3
    assert re.search(r"left out: '.*007\.png' is no picture", capsys.readouterr().err)
    assert Classifier(tmp_path / "net.onnx").card.provenance["calibration"]["pictures"] == 19


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "holds no picture"),
        ({"a.png": b"no picture", "b.jpg": b""}, "no picture of the folder '.*' can be read"),
        (None, "should be a folder of pictures; there is nothing by that name"),
    ],
)
def test_a_folder_without_pictures(content, words, small_run, tmp_path, scratch):
    folder = tmp_path / "mine"
    for name, value in (content or {}).items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(value)
    if content == {}:
        folder.mkdir()
    with pytest.raises(UserError, match=words) as caught:
        export(small_run, tmp_path / "net.onnx", int8=True, calibrate=folder)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "net.onnx").exists() and not list(scratch.iterdir())


def test_a_picture_that_can_not_be_fitted_is_named(tmp_path):
    Image.new("RGB", (6000, 3)).save(tmp_path / "thin.png")
    Image.new("RGB", (60, 30)).save(tmp_path / "usual.png")
    source = Source(None, preset("imagenet"), ("a",), {}, np.zeros((1, 224, 224, 3), np.uint8))
    found = samples.calibration(source, tmp_path)
    assert len(found.pictures) == 1
    assert re.fullmatch(r"'.*thin\.png': 6000×3 pixels are too long and thin; crop the picture", found.left_out[0])


@pytest.mark.usefixtures("quick_graph")
def test_ctrl_c_while_calibrating(run, model_file, scratch, monkeypatch):
    reader, asked = precision._reader, []

    def interrupted(name, batches, said):
        def pressed(n):
            asked.append(n)
            if len(asked) == 3:
                signal.raise_signal(signal.SIGINT)
            return said(n)

        return reader(name, batches, pressed)

    monkeypatch.setattr(precision, "_reader", interrupted)
    shutil.copy(model_file, run / "model.onnx")
    before = sorted(path.name for path in run.iterdir())
    with pytest.raises(KeyboardInterrupt):
        export(run, int8=True)
    assert asked == [precision.BATCH] * 3
    assert (
        sorted(path.name for path in run.iterdir()) == before
        and (run / "model.onnx").read_bytes() == model_file.read_bytes()
    )
    assert not list(scratch.iterdir()) and logging.root.manager.disable == 0


# -- real weights ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_a_real_net(flags, few_photographs, tmp_path, scratch):
    card = export("squeezenet1_1", tmp_path / "net.onnx", **flags).card
    size = (few_photographs / "models" / "squeezenet1_1.pth").stat().st_size
    assert (tmp_path / "net.onnx").stat().st_size < (0.55 if "fp16" in flags else 0.3) * size
    assert not list(scratch.iterdir())
    if "int8" in flags:
        told = card.parity["judged"]["nips2017"]
        assert told["pictures"] == 30  # of 40, ten of which it was calibrated on
        assert told["same_answers"] >= 0.85 * told["pictures"]
        assert abs(told["correct_float32"] - told["correct_int8"]) <= 0.1 * told["pictures"]


def test_without_photographs_nothing_is_claimed(monkeypatch):
    """Of an architecture without HW4FAST_DATA only the ten photographs of scikit-learn are here."""
    monkeypatch.delenv("HW4FAST_DATA", raising=False)
    source = Source(None, preset("imagenet"), ("a", "b"), {}, np.zeros((10, 224, 224, 3), np.uint8))
    assert len(samples.calibration(source, None).pictures) == 10
    assert list(samples.judged(source, source.pictures)) == []
