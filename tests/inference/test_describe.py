"""`card`: what a model says about itself, and foreign files that learn to say it."""

from __future__ import annotations

import json
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw4fast.cli import main
from hw4fast.data import load
from hw4fast.data.preprocessing import COLOUR_MODES, RESAMPLING
from hw4fast.errors import UsageError, UserError
from hw4fast.inference.card import KEY, Input, Output
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.describe import SETTABLE, _labels, describe
from tests.conftest import write_linear_onnx
from tests.documented import documented

onnx = pytest.importorskip("onnx")


@pytest.fixture(autouse=True)
def no_trial(monkeypatch) -> None:
    """These files are ours: a process of its own for each of them, several times, would take most of the time."""
    monkeypatch.setattr("hw4fast.inference.session.insist_harmless", lambda *_: None)


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


def test_who_says_all_of_the_preprocessing_needs_no_preset(foreign, values):
    given = values | {"interpolation": "bicubic", "divisor": "255"}
    with pytest.raises(UserError, match=r"as a starting point; --set changes parts of it, or --set divisor=, too$"):
        describe(foreign, {key: value for key, value in given.items() if key != "divisor"})
    assert describe(foreign, given).preprocessing.interpolation == "bicubic"


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
        (
            {"crop": "27"},
            "stretch",
            UserError,
            r"a card of 27×27 pixels and 10 labels doesn't fit: .*the card says input",
        ),
        ({"crop": "many"}, "stretch", UsageError, "crop must be HEIGHT,WIDTH in pixels, not 'many'"),
        ({"crop": "28,1,28"}, "stretch", UsageError, "crop must be HEIGHT,WIDTH in pixels, not '28,1,28'"),
        ({"mean": "half"}, "stretch", UsageError, "mean must be numbers, not 'half'"),
        ({"std": "nan"}, "stretch", UsageError, "mean and std must be finite"),
        ({"std": "1e-300"}, "stretch", UserError, "with what is no number: are mean, std and divisor right"),
        ({"resize_size": "9" * 5000}, "stretch", UsageError, "resize_size must be a whole number of pixels, not '9999"),
        ({"mode": None}, "stretch", UserError, r"takes 1 channels .*, but mode RGB has 3: --set mode=, mean= and std="),
        (
            {"kind": "probabilities"},
            "stretch",
            UserError,
            r"logits gives from -.*: no probabilities; say --set kind=logits",
        ),
        ({"layout": "CHW"}, "stretch", UsageError, "layout must be one of NCHW, NHWC, not 'CHW'"),
        ({"licence": "\udcff"}, "stretch", UserError, "the card can't be written: there is half of a surrogate pair"),
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
    if change == {"mode": None}:
        values = {key: value for key, value in values.items() if key not in ("mean", "std")}
    given = {key: value for key, value in (values | change).items() if value is not None}
    with pytest.raises(kind, match=message) as caught:
        describe(foreign, given, preprocess)
    assert "hw4fast-part" not in str(caught.value)
    assert foreign.read_bytes() == before and list(foreign.parent.iterdir()) == [foreign]


# -- what an old card said ---------------------------------------------------------------------------------------


@pytest.fixture
def proven(foreign, values) -> Path:
    """A file whose card tells how it was made, and a proof of that."""
    told = describe(foreign, values, "stretch")
    model = onnx.load(foreign)
    told = replace(told, provenance={"model": "means"}, parity={"images": 64})
    onnx.helper.set_model_props(model, {KEY: told.to_json_text()})
    onnx.save(model, foreign)
    return foreign


@pytest.mark.parametrize(
    ("change", "edited"),
    [
        ({"mean": "0.5"}, ["preprocessing"]),
        ({"labels": "a,b,c,d,e,f,g,h,i,j"}, ["labels"]),
        ({"std": "0.5", "labels": "a,b,c,d,e,f,g,h,i,j"}, ["preprocessing", "labels"]),
    ],
)
def test_a_proof_is_taken_out_when_it_is_no_longer_true(proven, change, edited):
    for key, value in change.items():
        told = describe(proven, {key: value})
    assert told.parity == {} and sorted(told.provenance["edited"]) == sorted(edited)
    assert told.provenance["model"] == "means" and told.provenance.keys() - {"model"} <= documented("provenance")
    assert Classifier(proven).card == told


@pytest.mark.parametrize("change", [{"licence": "MIT"}, {"source": "me"}, {"divisor": "255"}, {"kind": "logits"}])
def test_a_proof_stays_when_nothing_of_it_changed(proven, change):
    told = describe(proven, change)
    assert (told.parity, told.provenance) == ({"images": 64}, {"model": "means"})


@pytest.fixture
def two_outputs(foreign) -> Path:
    """The model with softmax as its second output."""
    model = onnx.load(foreign)
    model.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["p"], axis=1))
    model.graph.output.append(onnx.helper.make_tensor_value_info("p", onnx.TensorProto.FLOAT, ("n", 10)))
    onnx.save(model, foreign)
    return foreign


def test_another_output_is_of_its_own_kind_and_the_old_one_needn_t_be_named_again(two_outputs, values):
    describe(two_outputs, values | {"output": "logits"}, "stretch")
    told = describe(two_outputs, {"licence": "MIT"})
    assert (told.output, told.licence, told.provenance) == (Output("logits"), "MIT", {"file": "foreign.onnx"})
    told = describe(two_outputs, {"output": "p"})
    assert told.output == Output("p", "probabilities") and told.provenance["edited"] == ["output"]
    from onnx.reference import ReferenceEvaluator

    classifier, pictures = Classifier(two_outputs), load("digits").test.images[:3]
    (right,) = ReferenceEvaluator(str(two_outputs)).run(["p"], {"input": classifier.tensor(pictures)})
    assert np.allclose(classifier.probabilities(pictures), right, atol=1e-6)
    assert describe(two_outputs, {"output": "logits"}).output == Output("logits", "logits")


def test_probabilities_of_eight_bits_stay_some(foreign, values):
    """Their sum is so far from 1 that nobody would take them for such; who knows it may say so."""
    model = onnx.load(foreign)
    nodes = [
        onnx.helper.make_node("Softmax", ["logits"], ["p"], axis=1),
        onnx.helper.make_node("Mul", ["p", "most"], ["q"]),
    ]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.98), "most"))
    model.graph.output[0].name = "q"
    onnx.save(model, foreign)
    assert describe(foreign, values, "stretch").output.kind == "logits"
    assert describe(foreign, {"kind": "probabilities"}).output.kind == "probabilities"
    assert describe(foreign, {"licence": "MIT"}).output.kind == "probabilities"


def test_labels_are_counted_where_the_graph_doesn_t_say_how_many_it_needs(foreign, values):
    model, helper = onnx.load(foreign), onnx.helper
    nodes = [
        helper.make_node("NonZero", ["bias"], ["places"]),  # none of them is 0, which only a run can tell
        helper.make_node("Squeeze", ["places", "first"], ["place"]),
        helper.make_node("Gather", ["logits", "place"], ["picked"], axis=1),
    ]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "first"))
    model.graph.input.append(helper.make_tensor_value_info("bias", onnx.TensorProto.FLOAT, ["k"]))
    model.graph.output[0].name = "picked"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "k"
    onnx.save(model, foreign)
    before = foreign.read_bytes()
    with pytest.raises(
        UserError, match=r"and 2 labels doesn't fit: '.*foreign.onnx' answered \[1, 10\] to 1 pictures$"
    ):
        describe(foreign, values | {"labels": "a,b", "kind": "logits"}, "stretch")
    assert foreign.read_bytes() == before
    describe(foreign, values, "stretch")
    with pytest.raises(UserError, match="and 2 labels doesn't fit"):
        describe(foreign, {"labels": "a,b"})


def test_an_output_that_is_no_float(foreign, values):
    model = onnx.load(foreign)
    model.graph.node.append(onnx.helper.make_node("Cast", ["logits"], ["d"], to=onnx.TensorProto.DOUBLE))
    model.graph.output[0].name = "d"
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    onnx.save(model, foreign)
    with pytest.raises(UserError, match=r"the output d is tensor\(double\); a card is for floats of 32 or 16 bits"):
        describe(foreign, values, "stretch")


def test_a_graph_that_names_no_axis_keeps_the_layout_that_it_was_told(tmp_path):
    path = write_linear_onnx(tmp_path / "m.onnx", np.ones((2, 3 * 8 * 8)), np.zeros(2), None, ("n", "a", "b", "c"))
    told = describe(path, {"labels": "a,b", "crop": "8", "layout": "NHWC"}, "stretch")
    assert told.input == Input("input", "NHWC", "float32")
    assert describe(path, {"licence": "MIT"}).input == told.input


def test_stretch_needs_no_size_of_the_shorter_side(foreign, values):
    describe(foreign, {key: value for key, value in values.items() if key != "resize_size"}, "imagenet")
    assert describe(foreign).preprocessing.resize_size is None


def test_a_card_that_can_not_be_read_is_replaced_by_a_whole_one(foreign, values, capsys):
    model = onnx.load(foreign)
    onnx.helper.set_model_props(model, {KEY: "{broken"})
    onnx.save(model, foreign)
    for given, preprocess in (({"licence": "MIT"}, None), (values, None), ({"mode": "L"}, "stretch")):
        with pytest.raises(
            UserError, match=r"can't be read: .*; or give it a new card: --set labels=FILE --preprocess"
        ):
            describe(foreign, given, preprocess)
    assert capsys.readouterr().err == ""
    assert describe(foreign, values, "stretch").provenance == {"file": "foreign.onnx"}
    said = capsys.readouterr().err
    assert (
        said.startswith("hw4fast: the old card is left out: the card (hw4fast.card) can't be read")
        and "\n" not in said[:-1]
    )
    assert Classifier(foreign).card.labels == tuple("0123456789")


def test_labels_that_are_no_text(foreign, values, tmp_path):
    (tmp_path / "l.json").write_text(r'["0", "\ud83d"]')
    before = foreign.read_bytes()
    with pytest.raises(UserError, match="the label of class 1 can't be so: there is half of a surrogate pair"):
        describe(foreign, values | {"labels": str(tmp_path / "l.json")}, "stretch")
    assert foreign.read_bytes() == before


# -- where it is written -----------------------------------------------------------------------------------------


def test_a_file_of_the_model_folder_begins_with_the_card_that_is_known_of_it(foreign, tmp_path, monkeypatch):
    models = tmp_path / "data" / "models"
    models.mkdir(parents=True)
    known = foreign.rename(models / "squeezenet1_1.onnx")
    write_linear_onnx(known, np.zeros((2, 3 * 224 * 224)), np.zeros(2), None, ("n", 3, 224, 224))
    (tmp_path / "data" / "imagenet_classes.csv").write_text("index,wnid,name\n0,n0,tench\n1,n1,crane\n")
    monkeypatch.setenv("HW4FAST_DATA", str(tmp_path / "data"))
    shown = describe(known)
    assert describe(known, {"source": "me"}, out=tmp_path / "mine.onnx") == replace(shown, source="me")
    known.chmod(0o444)
    with pytest.raises(UserError, match=r"squeezenet1_1.onnx' is read-only; write a file of your own with --out FILE"):
        describe("squeezenet1_1", {"source": "me"})
    known.chmod(0o600)
    assert describe("squeezenet1_1", {"licence": "MIT"}) == describe(known) == replace(shown, licence="MIT")
    assert stat.S_IMODE(known.stat().st_mode) == 0o600


def test_a_run_folder_is_its_model(foreign, values):
    foreign.rename(foreign.with_name("model.onnx"))
    told = describe(foreign.parent, values, "stretch")
    assert describe(foreign.with_name("model.onnx")) == told


def test_a_folder_that_can_not_be_written(foreign, values, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied", "a temporary file")

    monkeypatch.setattr("hw4fast.files.os.open", refused)
    with pytest.raises(
        UserError, match=r"foreign.onnx' can't be written: Permission denied; write it elsewhere with --out"
    ):
        describe(foreign, values, "stretch")


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
    assert capsys.readouterr().out.startswith(f"file           {foreign}\nlabels         10: 0 | 1 | 2 | 3 | 4 | …\n")
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
    known = (*SETTABLE, *COLOUR_MODES, *RESAMPLING, "shorter-side", "stretch", "HEIGHT,WIDTH")
    assert [key for key in known if key not in text] == []


def test_a_linear_model_of_any_size(tmp_path):
    path = write_linear_onnx(tmp_path / "m.onnx", np.zeros((2, 3 * 8 * 9)), np.zeros(2), None, ("n", 3, 8, 9))
    assert describe(path, {"labels": "cat,dog"}, "stretch").preprocessing.crop == (8, 9)
