from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hw4fast.cli import main
from hw4fast.errors import UserError
from hw4fast.robustness.catalogue import catalogue, save_catalogue
from hw4fast.transforms import TRANSFORMS, parse


def test_every_transform_is_there_once_and_what_is_said_can_be_asked():
    entries = catalogue()
    assert sorted(entry.transform.name for entry in entries) == sorted(TRANSFORMS)
    families = [entry.transform.family for entry in entries]
    assert all(families) and families == sorted(families, key=families.index)
    for entry in entries:
        for spec in entry.specs:
            assert parse(spec).name == spec
        for alias in entry.aliases:
            assert parse(alias) == parse(entry.transform.name)
        assert entry.to_json()["severities"] == list(entry.specs)


def test_the_page_shows_a_picture_of_the_users_under_each(tmp_path):
    Image.fromarray(np.full((30, 40, 3), (200, 90, 30), np.uint8)).save(tmp_path / "mine.png")
    entries = catalogue()
    save_catalogue(tmp_path / "page.html", entries, tmp_path / "mine.png")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("<img ") == sum(1 + len(entry.specs) for entry in entries)
    assert "http" not in text and "Not comparable with ImageNet-C" in text
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(UserError, match=r"bad\.png"):
        save_catalogue(tmp_path / "page.html", entries, tmp_path / "bad.png")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == text


def test_the_command_lists_and_draws(tmp_path, capsys):
    assert main(["transforms"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name}" in text for name in TRANSFORMS)
    assert main(["transforms", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(list(TRANSFORMS))
    assert main(["transforms", "--picture", "x.png"]) == 2
    assert "name the page with --out" in capsys.readouterr().err
    assert main(["transforms", "--import", str(tmp_path / "gone.py")]) == 1
