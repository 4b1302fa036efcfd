"""export: the file answers as torch does on every runtime, tells all about itself and nothing about this machine."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import hw4fast.data as datasets
from hw4fast import exporter
from hw4fast.cli import main
from hw4fast.data import Preprocessing, load
from hw4fast.errors import UsageError, UserError
from hw4fast.exporter import export
from hw4fast.exporter.parity import BATCHES, compare
from hw4fast.exporter.source import Source
from hw4fast.inference.card import KEY, Card
from hw4fast.inference.classifier import Classifier
from hw4fast.stats import percent
from hw4fast.training.runs import load_model, load_record
from tests.conftest import write_linear_onnx
from tests.training.conftest import other_data

ROOT = Path(__file__).resolve().parents[2]


def torch_logits(small_run, pictures: np.ndarray) -> np.ndarray:
    digits = load("digits")
    with torch.inference_mode():
        return load_model(small_run, digits)(torch.from_numpy(digits.preprocessing.normalise(pictures))).numpy()


# -- what the file answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 33])
def test_it_answers_as_torch_does(n, small_run, model_file):
    pictures = load("digits").test.images[100 : 100 + n]
    ours, torchs = Classifier(model_file).logits(pictures), torch_logits(small_run, pictures)
    assert ours.shape == (n, 10) and ours.dtype == np.float32
    assert np.abs(ours - torchs).max() <= 1e-5 * np.abs(torchs).max()


def test_it_is_as_good_on_the_whole_test_set(small_run, model_file):
    test = load("digits").test
    correct = int((Classifier(model_file).logits(test.images).argmax(1) == test.labels).sum())
    assert abs(correct - load_record(small_run)["result"]["test_correct"]) <= 1, percent(correct, len(test))


def test_onnxs_own_evaluator_gives_the_same_logits(model_file):
    from onnx.reference import ReferenceEvaluator

    digits = load("digits")
    pictures = digits.test.images[:3]
    (logits,) = ReferenceEvaluator(str(model_file)).run(["logits"], {"input": digits.preprocessing.normalise(pictures)})
    ours = Classifier(model_file).logits(pictures)
    assert np.abs(logits - ours).max() <= 1e-5 * np.abs(ours).max()


def test_shapes_and_operators_are_the_standards(model_file):
    model = onnx.load(model_file)
    onnx.checker.check_model(model, full_check=True)
    (taken,), (given,) = model.graph.input, model.graph.output
    shape = [axis.dim_param or axis.dim_value for axis in taken.type.tensor_type.shape.dim]
    assert (taken.name, shape) == ("input", ["n", 1, 28, 28])
    shape = [axis.dim_param or axis.dim_value for axis in given.type.tensor_type.shape.dim]
    assert (given.name, shape) == ("logits", ["n", 10])
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", exporter.OPSET)]
    assert not any(initializer.external_data for initializer in model.graph.initializer)


# -- what the file tells -----------------------------------------------------------------------------------------


def test_the_card_tells_all(small_run, model_file):
    card, entry, digits = Classifier(model_file).card, load_record(small_run), load("digits")
    assert card.preprocessing == digits.preprocessing and card.labels == digits.class_names
    assert card.opset == exporter.OPSET
    assert card.provenance["settings"] == entry["settings"] and card.provenance["result"] == entry["result"]
    assert card.provenance["data"]["fingerprint"] == digits.fingerprint
    assert card.provenance["versions"]["torch"] == torch.__version__.split("+")[0]


def test_the_card_tells_whose_weights_those_are(small_run, model_file):
    card, entry = Classifier(model_file).card, load_record(small_run)
    digest = hashlib.sha256((small_run / "weights.safetensors").read_bytes()).hexdigest()
    assert card.provenance["weights_sha256"] == digest and card.licence == ""
    assert card.source.startswith("seed_cnn trained by hw4fast") and card.source.endswith(entry["data"]["source"])


@pytest.mark.usefixtures("quick_graph")
def test_a_licence_in_the_users_words(run, tmp_path):
    assert main(["export", str(run), "--onnx", str(tmp_path / "net.onnx"), "--licence", "MIT, but for – ½"]) == 0
    assert Classifier(tmp_path / "net.onnx").card.licence == "MIT, but for – ½"


def test_the_parity_is_measured(small_run, model_file):
    parity = Classifier(model_file).card.parity
    assert parity["images"] == parity["same_answers"] == 64 and parity["batches"] == [64, 1, 2, 7]
    assert parity["provider"] == "cpu" and parity["tolerance"] == exporter.TOLERANCE
    pictures = load("digits").test.images[:64]
    single, ours = torch_logits(small_run, pictures), Classifier(model_file).logits(pictures)
    assert parity["largest_logit"] == pytest.approx(np.abs(single).max(), rel=1e-5)
    again = 1e-6 * parity["largest_logit"]  # torch's sums, which it splits by the threads that are free
    assert parity["max_error_to_torch"] + again >= np.abs(ours - single).max()
    for name in ("max_error_to_torch", "max_error_to_float64", "torch_max_error_to_float64"):
        assert 0 < parity[name] <= exporter.TOLERANCE * parity["largest_logit"], name
    assert parity["max_error_to_torch"] <= parity["max_error_to_float64"] + parity["torch_max_error_to_float64"] + 1e-12


@pytest.mark.parametrize("size", [64, *BATCHES])
@pytest.mark.parametrize("damage", [lambda logits: logits + 1, lambda logits: np.full_like(logits, np.nan)])
def test_a_file_that_is_wrong_at_one_batch_size_is_not_written(
    size, damage, small_run, tmp_path, monkeypatch, quick_graph
):
    right = Classifier.logits

    def wrong(self, batch):
        return damage(right(self, batch)) if len(batch) == size else right(self, batch)

    monkeypatch.setattr(Classifier, "logits", wrong)
    with pytest.raises(UserError, match="no file was written"):
        export(small_run, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_nothing_of_this_machine_is_in_it(small_run, model_file):
    content = model_file.read_bytes()
    for secret in (ROOT, sys.prefix, Path.home(), small_run, "site-packages", "hw4fast/training"):
        assert str(secret).encode() not in content, secret
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", Classifier(model_file).card.to_json_text())
    assert b".py" not in content
    entry = json.loads((small_run / "run.json").read_text(encoding="utf-8"))
    assert str(ROOT) not in json.dumps(entry)


# -- where it is written -----------------------------------------------------------------------------------------


def test_a_file_of_that_name_is_replaced_and_stands_alone(run, tmp_path):
    path = tmp_path / "new" / "net.onnx"
    path.parent.mkdir()
    path.touch()
    result = export(run, path)
    assert result.path == path and result.size == path.stat().st_size and list(path.parent.iterdir()) == [path]
    assert Classifier(path).card == result.card and result.card.parity["same_answers"] == 64
    assert not (run / "model.onnx").exists()


@pytest.mark.usefixtures("quick_graph")
@pytest.mark.parametrize("tolerance", [1e-30, 1e-12])
def test_over_tolerance_there_is_no_file(tolerance, run, tmp_path, model_file):
    before = {path.name for path in run.iterdir()}
    with pytest.raises(UserError, match=r"differs from torch: .* no file was written"):
        export(run, tolerance=tolerance)
    assert {path.name for path in run.iterdir()} == before
    shutil.copy(model_file, tmp_path / "old.onnx")
    with pytest.raises(UserError, match="no file was written"):
        export(run, tmp_path / "old.onnx", tolerance)
    assert (tmp_path / "old.onnx").read_bytes() == model_file.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.onnx", "run"]


def test_ctrl_c_that_torch_takes_for_its_own_error(run, monkeypatch):
    def swallow(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("create an issue in the PyTorch repository") from None

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(torch.onnx, "export", swallow)
    with pytest.raises(KeyboardInterrupt):
        export(run)
    assert signal.getsignal(signal.SIGINT) is before and not (run / "model.onnx").exists()


@pytest.mark.usefixtures("quick_graph")
def test_what_is_replaced_is_told(run, tmp_path, model_file, capsys):
    path = tmp_path / "net.onnx"
    shutil.copy(model_file, path)
    assert main(["export", str(run), "--onnx", str(path), "--fp16"]) == 0
    said = capsys.readouterr()
    assert said.err == "hw4fast: replaces the float32 file that was there\n"
    assert "(0 are near ties)" not in said.out
    assert export(run, path).replaced == "float16"
    shutil.copy(path, run / "model.onnx")
    assert export(run).replaced == "float32"


@pytest.mark.parametrize("kind", ["text", "foreign", "by hand"])
def test_what_export_did_not_write_stays(kind, small_run, tmp_path, model_file):
    path = tmp_path / "net.onnx"
    path.write_text("mine")
    if kind != "text":
        model = onnx.load(model_file)
        card = replace(Classifier(model_file).card, provenance={"file": "net.onnx"})
        onnx.helper.set_model_props(model, {KEY: card.to_json_text()} if kind == "by hand" else {"author": "me"})
        onnx.save(model, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="is there and is no file that hw4fast exported; name another one"):
        export(small_run, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["new/", "old", "old/"])
def test_a_folder_is_no_name_of_a_file(name, small_run, tmp_path):
    (tmp_path / "old").mkdir()
    with pytest.raises(UsageError, match=rf"is a folder; name a file in it: .*/{name.strip('/')}/model\.onnx"):
        export(small_run, f"{tmp_path}/{name}")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan"), float("inf")])
def test_a_tolerance_that_is_none_is_wrong_usage(tolerance, run):
    with pytest.raises(UsageError, match="tolerance must be positive"):
        export(run, tolerance=tolerance)


@pytest.mark.usefixtures("quick_graph")
def test_a_net_that_answers_otherwise_is_refused(run, monkeypatch):
    graph = exporter.to_onnx

    def spoilt(source):
        proto = graph(source)
        bias = next(tensor for tensor in proto.graph.initializer if list(tensor.dims) == [10])
        values = onnx.numpy_helper.to_array(bias) + np.eye(10, dtype=np.float32)[3] * 50
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        return proto

    monkeypatch.setattr(exporter, "to_onnx", spoilt)
    with pytest.raises(UserError, match=r"\d of 64 answers the same"):
        export(run)
    with pytest.raises(UserError, match=r"\d of 64 answers the same"):
        export(run, tolerance=1e9)  # a wrong answer is wrong whatever the tolerance
    assert not (run / "model.onnx").exists()


def test_a_folder_of_a_nets_name_without_a_run_is_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet18").mkdir()
    monkeypatch.setattr(exporter, "of_architecture", lambda name, *_: name)
    assert exporter._source("resnet18", "x.onnx", None, None) == ("resnet18", Path("x.onnx"))
    (tmp_path / "resnet18" / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"run.json"):
        exporter._source("resnet18", "x.onnx", None, None)
    (tmp_path / "resnet_18").mkdir()
    with pytest.raises(UsageError, match=r"resnet_18 is no run folder, and an unknown architecture .* did you mean"):
        exporter._source("resnet_18", None, None, None)


def test_a_net_of_one_class(tmp_path):
    """It has no second answer to be near to."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 1)).eval()
    pictures = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (3, 2, 2, 3), np.uint8)
    source = Source(net, Preprocessing("RGB", (2, 2), (0.5,) * 3, (0.5,) * 3), ("a",), {}, pictures)
    weight, bias = (tensor.detach().numpy() for tensor in net[1].parameters())
    card = Card(source.preprocessing, source.labels, {}, {}, exporter.OPSET)
    file = write_linear_onnx(tmp_path / "net.onnx", weight, bias, card.to_json_text(), ("n", 3, 2, 2))
    parity = compare(source, file, exporter.TOLERANCE)
    assert (parity["same_answers"], parity["near_ties"]) == (3, 0)


# -- what can't be exported --------------------------------------------------------------------------------------


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="is no run folder"):
        export(tmp_path)


def test_a_run_without_weights(run):
    (run / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"is not finished; go on with: hw4fast train digits --resume"):
        export(run)


def test_a_run_that_goes_on(run):
    entry = load_record(run) | {"status": "running"}
    (run / "run.json").write_text(json.dumps(entry), encoding="utf-8")
    with pytest.raises(UserError, match="is not finished"):
        export(run)
    assert not (run / "model.onnx").exists()


def test_weights_of_another_net(run):
    entry = load_record(run)
    entry["settings"]["channels"] = [4, 8]
    (run / "run.json").write_text(json.dumps(entry), encoding="utf-8")
    with pytest.raises(UserError, match=r"weights\.safetensors is damaged \(RuntimeError: .* size mismatch") as caught:
        export(run)
    assert "\n" not in str(caught.value)


def test_other_data_than_it_was_trained_on(run, monkeypatch):
    changed = other_data(load("digits"))
    monkeypatch.setattr(datasets, "load", lambda *_: changed)
    with pytest.raises(UserError, match="the data set digits is no longer what"):
        export(run)


@pytest.mark.parametrize(("name", "size"), [("vit_h_14", "2.36"), ("regnet_y_128gf", "2.40")])
def test_a_net_that_no_file_holds_is_refused_before_its_weights_are_fetched(name, size, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("they were fetched"))
    words = rf"{name} has {size} GiB of weights in float32, and an ONNX file holds less than 2 GiB .* a smaller net"
    for flags in ({}, {"fp16": True}):
        with pytest.raises(UserError, match=words):
            export(name, tmp_path / "net.onnx", **flags)
    assert not list(tmp_path.iterdir())


def test_a_run_that_no_file_holds_is_refused_before_the_export(run, monkeypatch):
    monkeypatch.setattr(exporter, "to_onnx", lambda _: pytest.fail("it was exported"))
    monkeypatch.setattr("hw4fast.exporter.source.MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"the net of '.*' has 0\.00 GiB of weights"):
        export(run)


OF_TORCH_ONNX = """Failed to convert the exported program to an ONNX model. \x1b[96mThis is step 3/3\x1b[0m of \
exporting the model to ONNX. Next steps:
- If there is a missing ONNX function, implement it and register it to the registry.

## Exception summary

<class 'torch.onnx._internal.exporter._errors.DispatchError'>: No ONNX function found for <OpOverload(op='aten.eig')>
⬆️
(Refer to the full stack trace above for more information.)"""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError(OF_TORCH_ONNX), r"Failed to convert .* ONNX model\. No ONNX function found for <Op[^>⬆]*>"),
        (MemoryError(), r"MemoryError\(\)"),
        (RuntimeError("\x1b[96mno\x1b[0m way\nmore"), "no way"),
        (ValueError("first\n## Exception summary"), "first"),
    ],
)
def test_whatever_torch_raises_is_one_line(error, words, run, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(UserError, match=f"^torch can't export the net: {words}$"):
        export(run)
    assert not (run / "model.onnx").exists()


@pytest.mark.usefixtures("quick_graph")
def test_pictures_are_fitted_before_they_are_compared(run, monkeypatch):
    """A data set whose pictures are larger than the net's input goes through the card's preprocessing."""
    digits = load("digits")
    large = digits.test.images.repeat(2, axis=1).repeat(2, axis=2)
    bigger = replace(digits, test=replace(digits.test, images=large))
    entry = load_record(run)
    entry["data"]["fingerprint"] = bigger.fingerprint
    (run / "run.json").write_text(json.dumps(entry), encoding="utf-8")
    monkeypatch.setattr(datasets, "load", lambda *_: bigger)
    assert export(run).card.parity["same_answers"] == 64
