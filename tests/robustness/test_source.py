from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hw4fast.cli import main
from hw4fast.data import DATASETS, load
from hw4fast.data.pictures import Pictures
from hw4fast.errors import UsageError, UserError
from hw4fast.inference.classifier import Classifier
from hw4fast.robustness import output
from hw4fast.robustness.metrics import NO_LABEL
from hw4fast.robustness.source import choose, match_labels, open_source
from tests.conftest import write_linear_onnx

DIGITS = tuple("0123456789")


def put(path, grey=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 3), grey).save(path)


def test_a_data_set_is_its_test_split():
    source = open_source("digits")
    split = load("digits").test
    assert len(source.names) == len(split)
    assert np.array_equal(source.labels_for(DIGITS), split.labels)
    assert np.array_equal(source.read(7), split.images[7])
    assert source.names[7] == "test/7"


def test_a_data_set_of_pictures_is_read_from_its_files(tmp_path, monkeypatch):
    """Unfitted: the model's card says how, whatever the model was trained with."""
    files = tuple(tmp_path / name for name in ("a.png", "b.png", "c.png", "d.png"))
    for number, file in enumerate(files):
        put(file, 50 * number)
    splits = ("train", "test", "val", "test")
    monkeypatch.setattr(Pictures, "__post_init__", lambda self: None)  # too few to train on
    found = Pictures("zoo", files, np.array([0, 1, 1, 0]), splits, ("cat", "dog"), "a test")
    monkeypatch.setitem(DATASETS._entries, "zoo", lambda: found)
    monkeypatch.setattr("hw4fast.data.PICTURE_SETS", {"zoo"})
    source = open_source("zoo")
    assert list(source.names) == ["test/b.png", "test/d.png"] and list(source.labels_for(("dog", "cat"))) == [0, 1]
    assert source.read(1).shape == (3, 4, 1) and source.read(1).max() == 150


def test_of_a_folder_that_is_split_the_test_pictures_are_studied(tmp_path):
    for split in ("train", "val", "test"):
        put(tmp_path / split / "cat" / f"{split}.png")
    (tmp_path / ".cache").mkdir()
    source = open_source(tmp_path)
    assert source.names == ["cat/test.png"] and source.name == tmp_path.name
    assert source.folder == tmp_path and source.held_out  # so that no study is written beside the parts
    assert open_source(tmp_path / "train").names == ["cat/train.png"]
    put(tmp_path / "dog" / "a.png")  # a class then, as the others
    assert len(open_source(tmp_path).names) == 4


def test_a_data_sets_labels_are_matched_by_name():
    source = open_source("digits")
    assert np.array_equal(source.labels_for(DIGITS[::-1]), 9 - load("digits").test.labels)


def test_sub_folders_are_matched_by_name(tmp_path):
    put(tmp_path / "Great_Dane" / "a.png", grey=7)
    put(tmp_path / "cat" / "b.png")
    source = open_source(tmp_path)
    assert source.names == ["Great_Dane/a.png", "cat/b.png"]
    assert source.labels_for(("dog", "cat", "great dane")).tolist() == [2, 1]
    assert source.read(0).shape[:2] == (3, 4)
    assert (source.read(0) == 7).all()
    assert source.name == tmp_path.name


def test_an_unmatched_class_lists_the_nearest(tmp_path):
    put(tmp_path / "catt" / "a.png")
    with pytest.raises(UserError, match="the class 'catt', which is not among the model's 2 labels; nearest: cat"):
        open_source(tmp_path).labels_for(("dog", "cat"))


def test_folders_that_name_no_class(tmp_path):
    for year in ("2019", "2020", "2021"):
        put(tmp_path / year / "a.png")
    with pytest.raises(
        UserError, match=r"'2019', .* 2 labels \(nor are 2 more\); which begin with dog, cat\. .*--labels none"
    ):
        open_source(tmp_path).labels_for(("dog", "cat"))
    source = open_source(tmp_path, "none")
    assert len(source.names) == 3 and (source.labels_for(("dog", "cat")) == NO_LABEL).all()


def test_an_exact_name_comes_before_a_similar_one():
    assert match_labels(["Cat", "cat", "CAT"], ["cat", "Cat"], "x").tolist() == [1, 0, 0]


def test_labels_csv_indexes_the_models_classes(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,2\n")
    assert open_source(tmp_path).labels_for(DIGITS).tolist() == [2, NO_LABEL]
    with pytest.raises(UserError, match="go up to 2, but the model knows the classes 0 … 1"):
        open_source(tmp_path).labels_for(("x", "y"))


def test_a_folder_that_is_named_like_a_data_set_is_reached_by_its_path(tmp_path, monkeypatch):
    put(tmp_path / "digits" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert len(open_source("digits").names) == 360
    assert open_source("./digits").names == ["a.png"]
    assert open_source("./digits").name == "digits"


def test_neither_data_set_nor_folder():
    with pytest.raises(UsageError, match="'digts' is neither a data set nor a folder of pictures; did you mean digits"):
        open_source("digts")


def test_the_choice_is_fixed_by_the_seed():
    assert choose(10, None, 0).tolist() == list(range(10))
    some = choose(1000, 40, 3)
    assert len(set(some.tolist())) == 40
    assert np.array_equal(some, np.sort(some))
    assert np.array_equal(some, choose(1000, 40, 3))
    assert not np.array_equal(some, choose(1000, 40, 4))
    assert set(some.tolist()) < set(choose(1000, 80, 3).tolist())  # a longer study contains the shorter
    assert choose(10, 99, 0).tolist() == list(range(10))
    with pytest.raises(UsageError, match="at least 1, not 0"):
        choose(10, 0, 0)


def test_labels_come_from_a_file_of_classes(tmp_path):
    """As ImageNet's copies are labelled: by a sub-folder or by how a file's name begins."""
    put(tmp_path / "p" / "n01_a.png")
    put(tmp_path / "p" / "n02" / "b.png")
    put(tmp_path / "p" / "other" / "c.png")
    (tmp_path / "classes.csv").write_text("index,wnid,name\n3,n01,cat\n1,n02,dog\n", encoding="utf-8")
    (tmp_path / "classes.json").write_text('{"3": ["n01", "cat"], "1": ["n02", "dog"]}', encoding="utf-8")
    (tmp_path / "mine.csv").write_text("file,label\nn02/b.png,2\n", encoding="utf-8")
    (tmp_path / "p" / "labels.csv").write_text("file,label\nn02/b.png,7\n", encoding="utf-8")
    labels = {name: open_source(tmp_path / "p", tmp_path / name).labels_for(DIGITS).tolist() for name in
              ("classes.csv", "classes.json", "mine.csv")}  # fmt: skip
    assert open_source(tmp_path / "p").names == ["n01_a.png", "n02/b.png", "other/c.png"]
    assert labels["classes.csv"] == labels["classes.json"] == [3, 1, NO_LABEL]
    assert labels["mine.csv"] == [NO_LABEL, 2, NO_LABEL]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "a,b\n1,2\n", "needs the columns file,label or class,index"),
        ("x.csv", "wnid,index\nn9,1\n", "no picture of .* has a label"),
        (
            "x.csv",
            "wnid,index\nn01,1\nn02,2\nn01,3\n",
            "x.csv, line 4: the class 'n01' has index 1 further up and 3 here",
        ),
        ("x.json", '{"-3": ["n01", "cat"]}', r"x.json: a label is a class index \(0, 1, 2, …\) or empty, not '-3'$"),
        ("x.json", '{"1_0": ["n01", "cat"]}', "not '1_0'$"),
        ("x.json", '{"3\\n": ["n01"], "4\\n5": ["n02"]}', "not '4 5'$"),
        ("x.json", '{"": ["n01", "cat"]}', "read as JSON like .*: this is not: "),
        ("x.json", '{"3": "n01", "4": "n02"}', 'this is not: {"3": "n01"}$'),
        ("x.json", '{"3": ["n01", "cat"], "4": ["n01", "cat"]}', "the class 'n01' has index 3 further up and 4 here"),
        ("x.csv", "wnid,index\nn9,one\n", "x.csv, line 2: a label is a class index"),
        ("x.json", "{", "can't be read as JSON like"),
        ("x.json", "[1]", "can't be read as JSON like"),
        ("gone.csv", None, "gone.csv' can't be read"),
    ],
)
def test_a_file_of_labels_that_is_none(tmp_path, name, text, message):
    put(tmp_path / "p" / "a.png")
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "p", tmp_path / name)


def test_a_data_set_has_labels_of_its_own(tmp_path):
    with pytest.raises(UsageError, match="digits has labels of its own"):
        open_source("digits", tmp_path / "x.csv")


@pytest.mark.usefixtures("undrawn")
def test_a_folder_that_the_model_was_trained_on_is_told(centroid_onnx, tmp_path, capsys):
    card = replace(Classifier(centroid_onnx).card, provenance={"settings": {"dataset": "few"}})
    for other in ({"settings": "few"}, {"settings": ["dataset"]}, {"settings": None}, {"settings": {"dataset": {}}}):
        assert output._trained_on(replace(card, provenance=other)) != "few"  # a stranger's file holds anything
    model = write_linear_onnx(tmp_path / "net.onnx", np.zeros((10, 784)), np.zeros(10), card.to_json_text())
    for name in ("few", "others"):
        (tmp_path / name).mkdir()
        Image.new("L", (28, 28)).save(tmp_path / name / "a.png")
        options = ["--transforms", "blur", "--breaking", "0", "--out", str(tmp_path / f"s-{name}")]
        assert main(["study", str(tmp_path / name), "--model", str(model), *options]) == 0
        notes = json.loads((tmp_path / f"s-{name}" / "study.json").read_text(encoding="utf-8"))["notes"]
        told = "was trained on a folder named 'few': where it is this one, most of these pictures were learnt by heart"
        assert (told in capsys.readouterr().err) == (told in "".join(notes)) == (name == "few")
        page = (tmp_path / f"s-{name}" / "report.html").read_text(encoding="utf-8")
        assert ("learnt by heart" in page) == (name == "few")
