from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hw4fast.data.folder import read_folder
from hw4fast.errors import UserError


def put(folder: Path, *names: str) -> None:
    """Files that look like pictures by name; read_folder opens none of them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_pictures_without_labels_are_sorted_and_counted_by_extension(tmp_path):
    names = ["b.JPG", "a.jpeg", "c.png", "d.GIF", "e.bmp", "f.webp", "g.tif", "h.Tiff", "i.ppm", "j.pgm"]
    put(tmp_path, *names, "notes.txt", ".hidden.png", ".git/x.png", "__MACOSX/y.png", "noextension")
    folder = read_folder(str(tmp_path))
    assert [folder.name(i) for i in range(len(folder.files))] == sorted(names)
    assert folder.labels is None
    assert folder.class_names is None


def test_sub_folders_name_the_classes(tmp_path):
    put(tmp_path, "dog/2.png", "dog/1.png", "cat/deep/inside.png", "readme.txt")
    folder = read_folder(tmp_path)
    assert folder.class_names == ("cat", "dog")
    assert [folder.name(i) for i in range(3)] == ["cat/deep/inside.png", "dog/1.png", "dog/2.png"]
    assert folder.labels == (0, 1, 1)


def test_pictures_beside_sub_folders_of_pictures_are_refused(tmp_path):
    put(tmp_path, "a.png", "cat/b.png", "cat/c.png")
    with pytest.raises(UserError, match=r"1 pictures beside sub-folders with 2 more"):
        read_folder(tmp_path)


def test_labels_csv_wins_ignores_other_columns_and_leaves_the_rest_unlabelled(tmp_path):
    put(tmp_path, "a.png", "b.png", "sub/c.png", "d.png")
    (tmp_path / "labels.csv").write_text(
        '\ufefffile,name,label\na.png,"x, y",3\nsub/c.png,,0\nd.png,unknown,\n', encoding="utf-8"
    )
    folder = read_folder(tmp_path)
    assert [folder.name(i) for i in range(4)] == ["a.png", "b.png", "d.png", "sub/c.png"]
    assert folder.labels == (3, None, None, 0)
    assert folder.class_names is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,0\ngone.png,1\n../a.png,1\n", r"lists 2 pictures that are not in the folder: gone.png, "),
        ("file,klass\na.png,0\n", r"needs the columns file,label .* it has file, klass"),
        ("", r"needs the columns file,label .* it has none"),
        ("file,label\na.png,cat\n", r"line 2: a label is a class index .* not 'cat'"),
        ("file,label\na.png,-1\n", r"line 2: .* not '-1'"),
        ("file,label\na.png,99999999999999999999\n", r"line 2: .* not '9999"),
        ("file,label\na.png,1\na.png,2\n", r"line 3: 'a.png' has label 1 further up and 2 here"),
    ],
)
def test_a_wrong_labels_csv_says_what_is_wrong(tmp_path, text, message):
    put(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_folder(tmp_path)


def test_a_labels_csv_that_is_no_text_is_the_users_error(tmp_path):
    put(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_bytes(b"file,label\n\xff\xfe,1\n")
    with pytest.raises(UserError, match="can't be read as a UTF-8 table"):
        read_folder(tmp_path)


def test_what_is_no_folder_of_pictures_is_refused(tmp_path):
    put(tmp_path, "only.txt")
    with pytest.raises(UserError, match="holds no picture"):
        read_folder(tmp_path)
    with pytest.raises(UserError, match="there is a file by that name"):
        read_folder(tmp_path / "only.txt")
    with pytest.raises(UserError, match="there is nothing by that name"):
        read_folder(tmp_path / "nowhere")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes only on Linux")
def test_a_name_that_is_not_utf8_can_still_be_written_down(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9t\xe9.png")).write_bytes(b"")
    folder = read_folder(tmp_path)
    assert folder.name(0) == "\ufffdt\ufffd.png"
    assert folder.name(0).encode("utf-8")
