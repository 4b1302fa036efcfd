"""Which file a model's name means, and what is said when it means none."""

from __future__ import annotations

import os

import pytest

from hw4fast.errors import UserError
from hw4fast.paths import model_file, one_line, printable, readable_file


def test_a_file_is_itself(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"x")
    assert model_file(path) == path == model_file(str(path)) == readable_file(path, "model")


def test_a_run_folder_means_its_model(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "model.onnx").write_bytes(b"x")
    assert model_file(tmp_path) == tmp_path / "model.onnx"


def test_a_run_that_is_not_exported_names_the_command(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"hw4fast export .* --onnx"):
        model_file(tmp_path)


def test_another_folder(tmp_path):
    with pytest.raises(UserError, match=r"neither model\.onnx nor run\.json"):
        model_file(tmp_path)


def test_missing(tmp_path):
    with pytest.raises(UserError, match="there is no model file"):
        model_file(tmp_path / "net.onnx")


def test_empty(tmp_path):
    (tmp_path / "net.onnx").touch()
    with pytest.raises(UserError, match=r"is empty \(0 bytes\)"):
        model_file(tmp_path / "net.onnx")


def test_without_permission(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"x")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(UserError, match="can't be read: Permission denied"):
        model_file(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\nb\t c", "a b c"), ("\x1b[31mred", "[31mred"), ("é–…", "é–…"), ("x" * 400, "x" * 299 + "…")],
)
def test_one_line(text, expected):
    assert one_line(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a  b é–… 文 λ\u00a0%", "a  b é–… 文 λ\u00a0%"),
        ("\x1b[31mred\x07", "�[31mred�"),
        ("a\nb\rc\x85d\u2028e", "a�b�c�d�e"),
        ("gnp\u202e.jpg", "gnp�.jpg"),
        ("\udcff.png", "�.png"),
    ],
)
def test_printable(text, expected):
    assert printable(text) == expected
