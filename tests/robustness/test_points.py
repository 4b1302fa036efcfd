from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw4fast.errors import UsageError
from hw4fast.robustness.points import CLEAN, Point, points_of
from hw4fast.transforms import TRANSFORMS, Chain, at_severity, parse


def test_every_transform_at_every_severity_after_clean():
    points = points_of(None)
    assert points[0] == CLEAN
    wanted = []
    for name in TRANSFORMS:
        fixed = TRANSFORMS.get(name).fixed
        wanted += [(parse(name).name, None)] if fixed else [(name, severity) for severity in range(1, 6)]
    assert [(p.series, p.severity) for p in points[1:]] == wanted
    assert [p.spec for p in points if p.series == "blur"] == [at_severity("blur", s).name for s in range(1, 6)]


def test_a_specification_with_a_level_is_one_point_and_one_without_is_five():
    points = points_of(["blur51", "rotate:fill=black", "blur+noise", "noise:std=0.1+rotate10"])
    assert [(p.series, p.severity) for p in points] == [
        ("clean", 0),
        ("blur51", None),
        *[("rotate:fill=black", s) for s in range(1, 6)],
        *[("blur+gaussian_noise", s) for s in range(1, 6)],
        (parse("noise:std=0.1+rotate10").name, None),
    ]
    assert points[1].label == "as given"
    assert points[2].level == ("degrees", "5")
    assert points[7].level is None  # two transforms: no one number


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["blurr"], "unknown transform 'blurr'; did you mean blur"),
        (["blur", "noise", "blur"], "'blur' is asked for twice"),
        (["noise", "gaussian_noise"], "'gaussian_noise' is asked for twice; once"),
        (["blur51", "blur:size=51"], r"'blur:size=51' is asked for twice \('blur51' is the same\)"),
        (["rotate", "rotate:fill=edge"], r"'rotate:fill=edge' is asked for twice \('rotate' is the same\)"),
        ([], "no transform to study; name one or more of: "),
        (["blur4"], "must be odd"),
    ],
)
def test_what_can_not_be_studied(names, message):
    with pytest.raises(UsageError, match=message):
        points_of(names)


def test_an_answer_is_stored_under_the_spec_and_the_code_of_a_users_own():
    plain, own = parse("blur5"), parse("blur5+rotate10")
    marked = replace(own.links[1].transform, fingerprint="abc")
    chain = Chain((own.links[0], replace(own.links[1], transform=marked)))
    assert [Point("x", None, c).key for c in (None, plain, chain)] == ["clean", "blur5", "blur5+rotate10 abc"]


def test_a_transform_without_a_level_of_its_own_has_none_to_show():
    points = points_of(["snow"])
    assert [point.level for point in points] == [None] * 6
    assert points[3].heading == "3"


def test_chance_depends_on_seed_picture_and_spec_only():
    picture = np.full((8, 8, 1), 100, np.uint8)
    weak, strong = points_of(["noise"])[2:4]
    assert np.array_equal(weak.apply(picture, 0), weak.apply(picture.copy(), 0))
    assert not np.array_equal(weak.apply(picture, 0), weak.apply(picture, 1))
    assert not np.array_equal(weak.apply(picture, 0), strong.apply(picture, 0))
    assert np.array_equal(weak.apply(picture, 3), parse(weak.spec)(picture, seed=3))  # as `classify` draws it
    assert np.array_equal(CLEAN.apply(picture, 0), picture)
