"""Pictures that can't be read for reasons that may be gone soon, with the same file."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from hw4fast.data.images import read_picture
from hw4fast.errors import PassingError, UserError


@pytest.fixture
def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 1)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("where", ["open", "load"])
@pytest.mark.parametrize(
    ("error", "passing", "words"),
    [
        (MemoryError(), True, "doesn't fit into memory"),
        (OSError(5, "Input/output error"), True, "can't be read: Input/output error"),
        (OSError(22, "Invalid argument"), False, "Invalid argument"),  # a place in the file that can't be
        (OSError("image file is truncated"), False, "image file is truncated"),
    ],
)
def test_what_is_not_the_files_fault_may_pass(error, passing, words, where, picture, monkeypatch):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(*((Image, "open") if where == "open" else (PngImageFile, "load")), fails)
    with pytest.raises(UserError, match=words) as caught:
        read_picture(picture)
    assert isinstance(caught.value, PassingError) == passing


def test_no_permission_may_pass(picture, tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    path.write_bytes(picture)

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(PassingError, match=r"picture.png' can't be read: Permission denied"):
        read_picture(path)
