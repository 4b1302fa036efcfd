from __future__ import annotations

import numpy as np

from hw4fast.robustness.album import EXAMPLES, FLIPS_PER_SERIES, examples_of, flips_of, make_album
from hw4fast.robustness.metrics import NO_LABEL
from hw4fast.robustness.points import points_of
from tests.robustness.rows import measured_of

POINTS = points_of(["blur", "noise:std=0.1"])  # clean, five of blur, one fixed


def test_the_smallest_severity_comes_first_and_pictures_that_were_wrong_stay_out():
    same = [[1, 1, 1, 1, 1, 1, 2], [1, 1, 1, 1, 1, 1, 1]]
    columns = [[1, 1, 1, 2, 1, 1, 1], [1, 1, 2, 2, 2, 2, 1], [1, 1, 2, 2, 2, 2, 1], *same]
    flips = flips_of(measured_of(POINTS, columns, [1, 2, 1, 1, 1]))
    assert [(flip.number, flip.at) for flip in flips] == [(2, 2), (0, 3), (3, 6)]  # 1 is wrong when clean


def test_the_surest_of_its_new_answer_comes_first():
    found = measured_of(POINTS, [[1, 2, 2, 2, 2, 2, 1]] * 3, [1, 1, 1])
    found.confidence[1] = [0.3, 0.9, 0.6]
    assert [flip.number for flip in flips_of(found)] == [1, 2, 0]


def test_examples_are_known_pictures_of_different_classes():
    found = measured_of(POINTS, [[k] * 7 for k in (5, 5, 3, 2, 5, 7, 8, 9)], [5, 5, 0, 2, 5, 7, 8, 9])
    assert examples_of(found) == [0, 3, 5, 6]  # 1 is a second 5, 2 is wrong, 7 comes too late
    assert flips_of(found) == []


def test_with_too_few_known_pictures_the_first_ones_fill_up():
    assert examples_of(measured_of(POINTS, [[1] * 7, [1] * 7], [NO_LABEL, NO_LABEL])) == [0, 1]


def test_it_reads_few_pictures_of_many_and_each_once():
    read = []

    def picture(number):
        read.append(number)
        return np.full((2, 2, 1), number % 256, np.uint8), {}

    album = make_album(measured_of(POINTS, [[1, 2, 2, 2, 2, 2, 3]] * 320, [1] * 320), picture)
    assert len(album.flips) == len({flip.number for flip in album.flips}) == 2 * FLIPS_PER_SERIES
    assert len(read) == len(set(read)) <= 2 * FLIPS_PER_SERIES + EXAMPLES
    assert all((pixels == number % 256).all() for number, (pixels, _) in album.pictures.items())
