from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hw4fast.data import DATASETS, load
from hw4fast.data.pictures import Pictures
from hw4fast.errors import UsageError, UserError
from hw4fast.robustness.metrics import NO_LABEL
from hw4fast.robustness.source import choose, match_labels, open_source

DIGITS = tuple("0123456789")


def put(path, grey=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 3), grey).save(path)


def test_a_data_set_is_its_test_split():
    source = open_source("digits", DIGITS)
    split = load("digits").test
    assert len(source.names) == len(split)
    assert np.array_equal(source.labels, split.labels)
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
    source = open_source("zoo", ("dog", "cat"))
    assert list(source.names) == ["test/b.png", "test/d.png"] and list(source.labels) == [0, 1]
    assert source.read(1).shape == (3, 4, 1) and source.read(1).max() == 150


def test_a_data_sets_labels_are_matched_by_name():
    source = open_source("digits", DIGITS[::-1])
    assert np.array_equal(source.labels, 9 - load("digits").test.labels)


def test_sub_folders_are_matched_by_name(tmp_path):
    put(tmp_path / "Great_Dane" / "a.png", grey=7)
    put(tmp_path / "cat" / "b.png")
    source = open_source(tmp_path, ("dog", "cat", "great dane"))
    assert source.names == ["Great_Dane/a.png", "cat/b.png"]
    assert source.labels.tolist() == [2, 1]
    assert source.read(0).shape[:2] == (3, 4)
    assert (source.read(0) == 7).all()
    assert source.name == tmp_path.name


def test_an_unmatched_class_lists_the_nearest(tmp_path):
    put(tmp_path / "catt" / "a.png")
    with pytest.raises(UserError, match="the class 'catt', which is not among the model's 2 labels; nearest: cat"):
        open_source(tmp_path, ("dog", "cat"))


def test_an_exact_name_comes_before_a_similar_one():
    assert match_labels(["Cat", "cat", "CAT"], ["cat", "Cat"], "x").tolist() == [1, 0, 0]


def test_labels_csv_indexes_the_models_classes(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,2\n")
    assert open_source(tmp_path, DIGITS).labels.tolist() == [2, NO_LABEL]
    with pytest.raises(UserError, match="go up to 2, but the model knows the classes 0 … 1"):
        open_source(tmp_path, ("x", "y"))


def test_a_folder_that_is_named_like_a_data_set_is_reached_by_its_path(tmp_path, monkeypatch):
    put(tmp_path / "digits" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert len(open_source("digits", DIGITS).names) == 360
    assert open_source("./digits", DIGITS).names == ["a.png"]
    assert open_source("./digits", DIGITS).name == "digits"


def test_neither_data_set_nor_folder():
    with pytest.raises(UsageError, match="'digts' is neither a data set nor a folder of pictures; did you mean digits"):
        open_source("digts", DIGITS)


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
