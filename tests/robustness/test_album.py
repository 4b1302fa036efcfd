from __future__ import annotations

import numpy as np

from hw4fast.robustness.album import CANDIDATES, EXAMPLES, FLIPS_PER_SERIES, Album
from hw4fast.robustness.metrics import NO_LABEL
from hw4fast.robustness.points import points_of

POINTS = points_of(["blur", "noise:std=0.1"])  # clean, five of blur, one fixed


def see(album, start, columns, labels):
    """columns: per picture its 7 answers; it is 0.5 sure of each."""
    answers = np.array(columns).T
    pictures = [np.full((2, 2, 1), (start + i) % 256, np.uint8) for i in range(len(columns))]
    album.see(start, pictures, answers, np.full(answers.shape, 0.5, np.float32), np.array(labels))


def test_the_smallest_severity_comes_first_and_pictures_that_were_wrong_stay_out():
    album = Album(POINTS)
    see(album, 0, [[1, 1, 1, 2, 1, 1, 1], [1, 1, 2, 2, 2, 2, 1], [1, 1, 2, 2, 2, 2, 1]], [1, 2, 1])
    see(album, 3, [[1, 1, 1, 1, 1, 1, 2], [1, 1, 1, 1, 1, 1, 1]], [1, 1])
    assert [(flip.number, flip.at) for flip in album.flips()] == [(2, 2), (0, 3), (3, 6)]  # 1 is wrong when clean
    assert all((album.pictures[number] == number).all() for number in album.pictures)


def test_examples_are_known_pictures_of_different_classes():
    album = Album(POINTS)
    see(album, 0, [[k] * 7 for k in (5, 5, 3, 2)], [5, 5, 0, 2])
    see(album, 4, [[k] * 7 for k in (5, 7, 8, 9)], [5, 7, 8, 9])
    assert album.examples() == [0, 3, 5, 6]  # 1 is a second 5, 2 is wrong, 7 comes too late
    assert album.flips() == []


def test_with_too_few_known_pictures_the_first_ones_fill_up():
    album = Album(POINTS)
    see(album, 0, [[1] * 7, [1] * 7], [NO_LABEL, NO_LABEL])
    assert album.examples() == [0, 1]


def test_it_keeps_few_pictures_of_many():
    album = Album(POINTS)
    for start in range(0, 320, 32):
        see(album, start, [[1, 2, 2, 2, 2, 2, 3]] * 32, [1] * 32)
    assert len(album.pictures) <= 2 * CANDIDATES + 2 * EXAMPLES
    assert len(album.flips()) == 2 * FLIPS_PER_SERIES
    assert len({flip.number for flip in album.flips()}) == 2 * FLIPS_PER_SERIES
