"""What holds for every transform: shape and input kept, the same bytes whatever came before."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw4fast.transforms import TRANSFORMS, Chain, Parameter, Transform, at_severity, generator, parse
from hw4fast.transforms.spec import Link

RANDOM = ("noise", "jitter")


def gradient(height: int, width: int, channels: int) -> np.ndarray:
    """A picture whose every pixel differs from its neighbours."""
    values = np.arange(height * width * channels) * 7 % 251
    return values.astype(np.uint8).reshape(height, width, channels)


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(list(TRANSFORMS)),
    severity=st.integers(1, 5),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])),
    seed=st.integers(-(2**70), 2**70),
)
def test_shape_and_input_are_kept(name, severity, shape, seed):
    picture = gradient(*shape)
    before = picture.copy()
    picture.setflags(write=False)
    chain = at_severity(name, severity)
    result = chain(picture, seed=seed, severity=severity)
    assert result.dtype == np.uint8 and result.shape == before.shape
    assert np.array_equal(picture, before)
    assert not np.shares_memory(result, picture)
    assert np.array_equal(result, chain(picture, seed=seed, severity=severity))


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_memory_layout_does_not_matter(name):
    picture = gradient(12, 16, 3)
    strided = np.repeat(picture, 2, axis=1)[:, ::2]
    assert not strided.flags.c_contiguous
    assert np.array_equal(at_severity(name, 4)(strided), at_severity(name, 4)(picture))


@pytest.mark.parametrize("name", list(TRANSFORMS))
@pytest.mark.parametrize("size", [28, 96])
def test_higher_severity_is_farther_from_the_picture(name, size):
    """On a smooth scene with a bright shape, averaged over seeds for the random ones."""
    y, x = np.mgrid[0:size, 0:size] / size
    scene = 60 * y + 40 * x + 140 * (np.hypot(x - 0.4, y - 0.45) < 0.2)
    picture = np.stack([scene, scene * 0.8, scene * 0.6], -1).astype(np.uint8)

    def distance(severity: int) -> float:
        chain = at_severity(name, severity)
        return np.mean([np.abs(chain(picture, seed=seed) - picture.astype(float)) for seed in range(20)])

    distances = [distance(severity) for severity in range(1, 6)]
    assert distances[0] > 0
    assert all(weak < strong for weak, strong in pairwise(distances)), distances


@pytest.mark.parametrize("name", RANDOM)
def test_random_draws_belong_to_seed_image_and_severity(name):
    chain = parse(name)
    grey = np.full((8, 8, 3), 128, np.uint8)
    grey[0, 0] = (10, 200, 90)
    results = [
        chain(grey),
        chain(grey, seed=1),
        chain(grey, severity=1),
        chain(grey, key=b"another image"),
    ]
    for index, one in enumerate(results):
        assert all(not np.array_equal(one, other) for other in results[index + 1 :])


def test_different_images_get_different_noise():
    """Two flat greys one level apart: the noise on them must not be the same field."""
    chain = parse("noise:std=0.1")
    first = chain(np.full((16, 16, 1), 120, np.uint8)).astype(int) - 120
    second = chain(np.full((16, 16, 1), 121, np.uint8)).astype(int) - 121
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.3


def test_a_shape_is_part_of_the_image():
    chain = parse("noise:std=0.1")
    wide, tall = np.full((4, 9, 1), 120, np.uint8), np.full((9, 4, 1), 120, np.uint8)
    assert not np.array_equal(chain(wide).ravel(), chain(tall).ravel())


def test_links_of_a_chain_draw_from_their_own_streams():
    picture = np.full((32, 32, 1), 128, np.uint8)
    once = parse("noise:std=0.05")(picture).astype(int) - 128
    twice = parse("noise:std=0.05+noise:std=0.05")(picture).astype(int) - 128
    assert abs(np.corrcoef(once.ravel(), (twice - once).ravel())[0, 1]) < 0.2  # the same draws would give 1


def test_the_first_link_draws_as_it_does_alone():
    picture = gradient(8, 8, 1)
    alone, chained = parse("noise0.1")(picture), parse("noise0.1+blur1")(picture)
    assert np.array_equal(alone, chained)


def test_order_and_neighbours_do_not_matter():
    pictures = [gradient(6, 6 + k, 3) for k in range(4)]
    chain = parse("noise0.2+jitter")
    forward = [chain(picture) for picture in pictures]
    np.random.seed(0)  # a global state that must play no part
    parse("noise")(pictures[0])
    backward = [chain(picture) for picture in reversed(pictures)][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert np.array_equal(one, other)


def test_another_process_gives_the_same_bytes():
    code = (
        "import numpy as np; from hw4fast.transforms import parse\n"
        "picture = (np.arange(300) * 7 % 251).astype(np.uint8).reshape(10, 10, 3)\n"
        "print(parse('noise0.2+jitter+blur5')(picture, seed=3, severity=2).tobytes().hex())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = parse("noise0.2+jitter+blur5")(gradient(10, 10, 3), seed=3, severity=2)
    assert there.strip() == here.tobytes().hex()


def test_generator_parts_are_framed():
    """("1", "2…") and ("12", "…") must not collide, nor any part be ignored."""
    base = {"seed": 1, "key": b"23", "name": "noise", "severity": 4, "position": 5}
    others = [
        {**base, "seed": 12, "key": b"3"},
        {**base, "name": "noise4", "severity": 5},
        {**base, "position": 6},
        {**base, "severity": 45},
    ]
    first = generator(**base).integers(0, 2**63, 4).tolist()
    assert first == generator(**base).integers(0, 2**63, 4).tolist()
    for other in others:
        assert generator(**other).integers(0, 2**63, 4).tolist() != first


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(ValueError, match="a picture is uint8"):
        parse("blur3")(bad)


def test_a_transform_that_changes_the_shape_is_caught():
    def shorten(picture, *, rng, by):
        return picture[by:]

    crop = Transform("crop", shorten, {"by": Parameter(0, 9, whole=True)}, "by", (1, 2, 3, 4, 5), "Crop.")
    with pytest.raises(TypeError, match="crop2 made"):
        Chain((Link("crop2", crop, {"by": 2}),))(gradient(8, 8, 3))
