"""`card`: what a model says about itself, and foreign files that learn to say it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hw4fast.cli import main
from hw4fast.data import load
from hw4fast.errors import UsageError, UserError
from hw4fast.inference.card import KEY, Output
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.describe import SETTABLE, _labels, describe
from tests.conftest import write_linear_onnx

onnx = pytest.importorskip("onnx")


@pytest.fixture
def foreign(centroid_onnx, tmp_path) -> Path:
    """The centroid model without its card."""
    model = onnx.load(centroid_onnx)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {"author": "somebody else"})
    onnx.save(model, tmp_path / "foreign.onnx")
    return tmp_path / "foreign.onnx"


@pytest.fixture
def values() -> dict[str, str]:
    digits = load("digits").preprocessing
    return {
        "labels": ",".join("0123456789"),
        "mode": "L",
        "resize": "stretch",
        "resize_size": "none",
        "mean": str(digits.mean[0]),
        "std": str(digits.std[0]),
    }


def test_a_foreign_file_learns_to_say_it(foreign, values, centroid_onnx):
    told = describe(foreign, values | {"licence": "MIT", "source": "means of digits"}, "imagenet")
    ours, theirs = Classifier(foreign), Classifier(centroid_onnx)
    assert ours.card == told and ours.card.preprocessing == theirs.card.preprocessing
    assert (ours.card.licence, ours.card.source, ours.card.opset) == ("MIT", "means of digits", 17)
    pictures = load("digits").test.images[:20]
    assert np.array_equal(ours.logits(pictures), theirs.logits(pictures))
    props = {entry.key: entry.value for entry in onnx.load(foreign).metadata_props}
    assert props["author"] == "somebody else" and props.keys() == {"author", KEY}


def test_it_can_be_changed_later_and_written_elsewhere(foreign, values, tmp_path):
    describe(foreign, values, "stretch")
    before = foreign.read_bytes()
    changed = describe(foreign, {"licence": "MIT"}, out=tmp_path / "other.onnx")
    assert foreign.read_bytes() == before
    assert describe(tmp_path / "other.onnx") == changed and describe(foreign).licence == ""


def test_labels_from_a_file(foreign, values, tmp_path):
    for name, text in (("lines.txt", "\n".join("abcdefghij")), ("list.json", json.dumps(list("abcdefghij")))):
        (tmp_path / name).write_text(text, encoding="utf-8")
        card = describe(foreign, values | {"labels": str(tmp_path / name)}, "stretch")
        assert card.labels == tuple("abcdefghij")


LINES = "\n".join("abcdefghij")


@pytest.mark.parametrize("text", [LINES, json.dumps(list("abcdefghij"))])
@pytest.mark.parametrize(("begins", "ends"), [("\ufeff", ""), ("", "\n\n \n"), ("\ufeff", "\r\n\r\n")])
def test_what_editors_put_around_labels_is_no_label(text, begins, ends, tmp_path):
    (tmp_path / "labels").write_bytes((begins + text + ends).encode())
    assert _labels(str(tmp_path / "labels")) == tuple("abcdefghij")


@pytest.mark.parametrize(
    ("text", "labels"),
    [("a\n\nb\n", ("a", "", "b")), ("\na", ("", "a")), ("a\u2028b\x0c\x85c\n", ("a\u2028b\x0c\x85c",))],
)
def test_each_line_is_a_label(text, labels, tmp_path):
    (tmp_path / "labels").write_text(text, encoding="utf-8")
    assert _labels(str(tmp_path / "labels")) == labels


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff", "[]", "[" * 100_000, "[1]", "a\udcff"])
def test_files_without_labels(text, tmp_path):
    (tmp_path / "labels").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match="holds no labels"):
        _labels(str(tmp_path / "labels"))


def test_names_that_are_too_long_for_a_file():
    assert _labels(",".join(["a name"] * 1000)) == ("a name",) * 1000


def test_probabilities_are_found_out(foreign, values, tmp_path):
    model = onnx.load(foreign)
    model.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["p"], axis=1))
    model.graph.output.append(onnx.helper.make_tensor_value_info("p", onnx.TensorProto.FLOAT, ("n", 10)))
    onnx.save(model, foreign)
    with pytest.raises(UserError, match="the model's outputs are logits, p; name one of them with --set output=NAME"):
        describe(foreign, values, "stretch")
    assert describe(foreign, values | {"output": "p"}, "stretch").output == Output("p", "probabilities")
    assert describe(foreign, {"output": "logits", "kind": "logits"}).output == Output("logits", "logits")


@pytest.mark.parametrize(
    ("change", "preprocess", "kind", "message"),
    [
        ({}, None, UserError, "has no card yet; say how pictures are read: --preprocess imagenet or stretch"),
        ({"labels": None}, "stretch", UserError, "has no card yet; say what its classes are called"),
        ({"labels": "a,b"}, "stretch", UserError, "the card has 2 labels"),
        ({"labels": "nowhere.txt"}, "stretch", UserError, "there is no file of labels 'nowhere.txt'"),
        ({"crop": "27"}, "stretch", UserError, "the card says input|fails on a picture"),
        ({"crop": "many"}, "stretch", UsageError, "the preprocessing can't be so"),
        ({"mean": "0.1,0.2"}, "stretch", UsageError, "mean and std must have 1 values each"),
        ({"divisor": "0"}, "stretch", UsageError, "divisor must be positive"),
        ({"colour": "red"}, "stretch", UsageError, "unknown key 'colour'; known: labels, output"),
        ({"kind": "odds"}, "stretch", UsageError, "kind must be one of logits, probabilities"),
        ({"output": "scores"}, "stretch", UserError, "the model's outputs are logits"),
        ({}, "squash", UsageError, "unknown preprocessing 'squash'"),
    ],
)
def test_what_does_not_fit_leaves_the_file_alone(foreign, values, change, preprocess, kind, message):
    before = foreign.read_bytes()
    given = {key: value for key, value in (values | change).items() if value is not None}
    with pytest.raises(kind, match=message) as caught:
        describe(foreign, given, preprocess)
    assert "hw4fast-part" not in str(caught.value)
    assert foreign.read_bytes() == before and list(foreign.parent.iterdir()) == [foreign]


def test_two_inputs_have_no_card(foreign, values):
    model = onnx.load(foreign)
    model.graph.input.append(onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, ("n",)))
    onnx.save(model, foreign)
    with pytest.raises(UserError, match="models with one input; this one has 2: input, mask"):
        describe(foreign, values, "stretch")


def test_weights_beside_the_file_stay_beside_it(foreign, values, tmp_path):
    model = onnx.load(foreign)
    onnx.save(model, foreign, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(UserError, match="write the card into the same folder"):
        describe(foreign, values, "stretch", tmp_path / "elsewhere" / "m.onnx")
    describe(foreign, values, "stretch")
    assert Classifier(foreign).logits(load("digits").test.images[:2]).shape == (2, 10)


def test_nothing_to_write(foreign):
    with pytest.raises(UsageError, match="there is nothing to write"):
        describe(foreign, out="x.onnx")
    with pytest.raises(UserError, match="has no card"):
        describe(foreign)


# -- the command -------------------------------------------------------------------------------------------------


def test_the_command_shows_and_sets(foreign, values, capsys):
    given = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    assert main(["card", str(foreign), "--preprocess", "stretch", *given]) == 0
    assert "labels         10: 0, 1, 2, 3, 4, …" in capsys.readouterr().out
    assert main(["card", str(foreign), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == Classifier(foreign).card.to_json()
    shutil.copy(foreign, foreign.with_name("model.onnx"))
    assert main(["card", str(foreign.parent)]) == 0


def test_the_command_refuses_what_is_no_pair(foreign, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["card", str(foreign), "--set", "labels"])
    assert stopped.value.code == 2 and "'labels' is not KEY=VALUE" in capsys.readouterr().err


def test_its_help_names_every_key(capsys):
    with pytest.raises(SystemExit):
        main(["card", "--help"])
    text = capsys.readouterr().out
    assert [key for key in SETTABLE if key not in text] == []


def test_a_linear_model_of_any_size(tmp_path):
    path = write_linear_onnx(tmp_path / "m.onnx", np.zeros((2, 3 * 8 * 9)), np.zeros(2), None, ("n", 3, 8, 9))
    assert describe(path, {"labels": "cat,dog"}, "stretch").preprocessing.crop == (8, 9)
