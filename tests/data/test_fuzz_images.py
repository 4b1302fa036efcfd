"""Hostile and damaged pictures: pixels or one clear line; no crash, no hang, no unbounded memory."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from hw4fast.data.images import read_picture
from hw4fast.errors import UserError
from tests.data.hostile_pictures import HOSTILE, corpus, damaged_picture
from tests.data.test_images import encoded, refused
from tests.watched import BAD, Watched

NUMBER = int(os.environ.get("HW4FAST_FUZZ", "300"))
SECONDS, MEMORY = 20, 3000  # a picture of MAX_PIXELS with transparency takes 6 s and 2.5 GB


@pytest.fixture(scope="module")
def watched():
    with Watched("picture", SECONDS, MEMORY) as watched:
        yield watched


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name, watched, tmp_path):
    make, text = HOSTILE[name]
    path = tmp_path / "hostile.picture"
    path.write_bytes(make())
    outcome = watched.judge(path)
    assert outcome.kind == ("refused" if text else "answered"), outcome
    assert text in outcome.text


def test_every_kind_is_answered_before_it_is_damaged(watched, tmp_path):
    path = tmp_path / "sound.picture"
    for name, data in corpus().items():
        path.write_bytes(data)
        assert watched.judge(path).kind == "answered", name


def test_damaged(watched, tmp_path):
    """The first 300 of the numbered pictures; HW4FAST_FUZZ=2000 for more."""
    path, kinds = tmp_path / "damaged.picture", []
    for number in range(NUMBER):
        name, data = damaged_picture(number)
        path.write_bytes(data)
        outcome = watched.judge(path)
        assert outcome.kind not in BAD, (number, name, outcome)
        kinds.append(outcome.kind)
    assert min(kinds.count("answered"), kinds.count("refused")) > NUMBER / 10


def test_the_same_number_is_the_same_picture():
    assert [damaged_picture(7), damaged_picture(8)] == [damaged_picture(7), damaged_picture(8)]
    assert damaged_picture(7) != damaged_picture(8)


def test_a_png_with_one_wrong_bit():
    picture = np.arange(40 * 56, dtype=np.uint8).reshape(40, 56) * 3
    whole = encoded(Image.fromarray(picture), "PNG")
    for at in range(8, len(whole) - 12):  # all but IEND
        broken = bytearray(whole)
        broken[at] ^= 4
        with pytest.raises(UserError):
            read_picture(bytes(broken))
    at = whole.index(b"IDAT") + 40
    refused(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], "broken or truncated PNG", "checksum in b'IDAT'")
    refused(whole[:-12], "truncated PNG file")
