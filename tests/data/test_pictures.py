"""Folders of labelled pictures as a data set: which picture is for what, what is decoded once, what is refused."""

from __future__ import annotations

import os
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from hw4fast import data
from hw4fast.data import pictures
from hw4fast.data.images import read_picture
from hw4fast.data.preprocessing import PRESETS
from hw4fast.errors import PassingError, UsageError, UserError
from hw4fast.files import PART


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HW4FAST_CACHE", str(tmp_path / "cache"))


def make(folder, classes, n=10):
    rng = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for place in range(n):
            colour = np.full((40, 50, 3), 60 * number, np.uint8) + rng.integers(0, 30, (40, 50, 3), np.uint8)
            Image.fromarray(colour).save(folder / name / f"{place}.png")
    return folder


def test_each_class_is_split_the_same_way_everywhere(tmp_path):
    one = pictures.from_folder(make(tmp_path / "a", ["x", "y", "z"]))
    other = pictures.from_folder(make(tmp_path / "elsewhere" / "a", ["z", "y", "x"]))
    assert one.class_names == other.class_names == ("x", "y", "z")
    assert one.splits == other.splits and [f.name for f in one.files] == [f.name for f in other.files]
    for label in range(3):
        of_class = Counter(s for s, own in zip(one.splits, one.labels, strict=True) if own == label)
        assert of_class == {"train": 6, "val": 2, "test": 2}


def test_stated_splits_are_kept(tmp_path):
    for split, n in (("train", 4), ("val", 2), ("test", 3)):
        make(tmp_path / "p" / split, ["a", "b"], n)
    found = pictures.from_folder(tmp_path / "p")
    assert Counter(found.splits) == {"train": 8, "val": 4, "test": 6} and found.class_names == ("a", "b")
    assert all(split in file.parts for file, split in zip(found.files, found.splits, strict=True))


def test_a_table_says_file_label_split_and_name(tmp_path):
    folder = make(tmp_path / "p", ["a", "b"], 3)
    lines = ["file,label,split,name"]
    for label, name in enumerate("ab"):
        lines += [f"{name}/{n}.png,{label},{split},class {name}" for n, split in enumerate(("test", "train", "val"))]
    (folder / "labels.csv").write_text("\n".join(lines))
    found = pictures.from_folder(folder)
    assert found.class_names == ("class a", "class b") and list(found.labels) == [0, 0, 0, 1, 1, 1]
    for text, words in (
        ("file,label\na/0.png,0", "has no column split"),
        ("file,label,split\na/0.png,0,dev", "has the split 'dev'; known: train, val, test"),
        ("file,label,split\na/0.png,x,train", "can't be read as a table"),
        ("file,label,split\n", "lists no picture"),
    ):
        (folder / "labels.csv").write_text(text)
        with pytest.raises(UserError, match=words):
            pictures.from_folder(folder)


def test_pictures_are_fitted_as_the_preset_says_and_only_once(tmp_path, monkeypatch):
    folder = make(tmp_path / "p", ["a", "b"])
    found = data.load(str(folder), "stretch")
    assert found.train.images.shape == (12, 224, 224, 3) and found.val is not None and len(found.val) == 4
    files = pictures.from_folder(folder)
    first = next(file for file, split in zip(files.files, files.splits, strict=True) if split == "train")
    assert np.array_equal(found.train.images[0], PRESETS["stretch"].fit(read_picture(first)))

    def refuse(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(pictures, "read_picture", refuse)
    again = data.load(str(folder), "stretch")
    assert again.fingerprint == found.fingerprint
    with pytest.raises(AssertionError, match="decoded again"):
        data.load(str(folder), "imagenet")


def test_unreadable_pictures_are_left_out_and_named(tmp_path):
    folder = make(tmp_path / "p", ["a", "b"])
    (folder / "a" / "broken.png").write_bytes(b"\x89PNG no picture")
    found = data.load(str(folder))
    assert len(found.train) + len(found.val) + len(found.test) == 20
    assert len(found.left_out) == 1 and "broken.png" in found.left_out[0]
    assert not any(image.max() == 0 for image in found.train.images)


@pytest.mark.parametrize("kind", ["one", "empty", "flat", "unreadable", "nothing"])
def test_what_can_not_be_trained_on(kind, tmp_path):
    folder = make(tmp_path / "p", ["a"] if kind == "one" else ["a", "b"])
    words = {
        "one": "has one class only",
        "empty": r"the class folder '.*c' holds no picture",
        "flat": "beside sub-folders",
        "unreadable": "no training picture of the class b",
        "nothing": "no picture of .* can be read",
    }[kind]
    if kind == "empty":
        (folder / "c").mkdir()
    if kind == "flat":
        Image.new("RGB", (9, 9)).save(folder / "beside.png")
    if kind in ("unreadable", "nothing"):
        for file in folder.rglob("*.png"):
            if kind == "nothing" or file.parent.name == "b":
                file.write_bytes(b"broken")
    with pytest.raises(UserError, match=words):
        data.load(str(folder))


def test_arrays_have_their_own_preprocessing():
    with pytest.raises(UsageError, match="digits has its own preprocessing"):
        data.load("digits", "stretch")


def test_flowers_that_are_not_there_say_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.delenv("HW4FAST_DATA", raising=False)
    with pytest.raises(UserError, match=r"Oxford 102 Flowers can't be had: .*Flowers102\("):
        data.load("flowers")
    assert data.of_pictures("flowers") and data.of_pictures(str(tmp_path)) and not data.of_pictures("digits")


# -- the cache ---------------------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the pictures that were decoded, as they come."""
    names, read = [], read_picture
    monkeypatch.setattr(pictures, "read_picture", lambda file: names.append(file.name) or read(file))
    return names


def kept(tmp_path) -> list[str]:
    return sorted(path.suffix for path in (tmp_path / "cache" / "pictures").iterdir())


@pytest.mark.parametrize("error", [PassingError("no permission"), MemoryError()])
def test_what_fails_only_now_is_read_again(error, tmp_path, monkeypatch):
    folder = make(tmp_path / "p", ["a", "b"])

    def fails(file):
        if file == folder / "a" / "0.png":
            raise error
        return read_picture(file)

    monkeypatch.setattr(pictures, "read_picture", fails)
    found = data.load(str(folder))
    assert len(found.left_out) == 1 and len(found.train) + len(found.val) + len(found.test) == 19
    assert found.train.images.max() > 0 and kept(tmp_path) == []
    monkeypatch.setattr(pictures, "read_picture", read_picture)
    assert not data.load(str(folder)).left_out and kept(tmp_path) == [".json", ".npy"]


def test_a_broken_picture_is_noted(tmp_path, decoded):
    folder = make(tmp_path / "p", ["a", "b"])
    (folder / "a" / "broken.png").write_bytes(b"\x89PNG no picture")
    assert data.load(str(folder)).left_out == data.load(str(folder)).left_out
    assert len(decoded) == 21 and kept(tmp_path) == [".json", ".npy"]


def test_other_pictures_under_the_same_name_are_read(tmp_path, monkeypatch):
    """Of the same size and time, in another folder and in the same one."""
    seen = []
    for place, colour in (("one", 10), ("two", 200), ("two", 90)):
        for file in make(tmp_path / place / "p", ["a", "b"]).rglob("*.png"):
            file.with_suffix(".ppm").write_bytes(b"P6 2 2 255\n" + bytes([colour]) * 12)
            file.unlink()
            os.utime(file.with_suffix(".ppm"), (0, 0))
        monkeypatch.chdir(tmp_path / place)
        seen.append(int(data.load("p").train.images.max()))
    assert seen == [10, 200, 90]


def test_where_the_same_pictures_are_named_from_does_not_matter(tmp_path, monkeypatch, decoded):
    folder = make(tmp_path / "p", ["a", "b"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("p")
    for name in ("p", str(folder), "link"):
        data.load(name)
    assert len(decoded) == 20


@pytest.mark.parametrize("spoil", [lambda file: file.write_bytes(b"broken"), lambda file: file.write_bytes(b"")])
@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_spoilt_entry_is_made_anew(suffix, spoil, tmp_path, decoded):
    folder = make(tmp_path / "p", ["a", "b"])
    found = data.load(str(folder))
    before = found.fingerprint
    del found
    (file,) = (tmp_path / "cache" / "pictures").glob(f"*{suffix}")
    spoil(file)
    assert data.load(str(folder)).fingerprint == before and len(decoded) == 40
    data.load(str(folder))
    assert len(decoded) == 40 and kept(tmp_path) == [".json", ".npy"]


def test_the_oldest_make_room(tmp_path, monkeypatch, decoded):
    folders = [str(make(tmp_path / name, ["a", "b"], 5)) for name in "pqrs"]
    cache = tmp_path / "cache" / "pictures"
    for age, folder in zip((50, 40, 30), folders, strict=False):
        data.load(folder)
        (new,) = (note for note in cache.glob("*.json") if note.stat().st_mtime > time.time() - 20)
        os.utime(new, (0, time.time() - age))
    data.load(folders[0])  # is used: now the second is the oldest
    being_written = cache / f".w.0123abcd.{PART}.npy"
    being_written.touch()
    size = next(cache.glob("[0-9a-f]*.npy")).stat().st_size
    monkeypatch.setattr(pictures, "MOST", int(2.5 * size))
    data.load(folders[3])
    decoded.clear()
    assert being_written.exists() and kept(tmp_path) == [".json", ".json", ".npy", ".npy", ".npy"]
    for folder in (folders[3], folders[0]):
        data.load(folder)
    assert not decoded
    monkeypatch.setattr(pictures, "MOST", 1)
    data.load(folders[1])
    data.load(folders[1])  # the newest stays, however large
    assert len(decoded) == 10 and len(list(cache.glob("*.json"))) == 1
