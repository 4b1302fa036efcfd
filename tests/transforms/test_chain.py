"""What holds for every transform: shape and input kept, the same bytes whatever came before."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw4fast import kernels
from hw4fast.transforms import TRANSFORMS, Chain, Link, Parameter, Transform, at_level, at_severity, generator, parse

NAMES = [name for name in TRANSFORMS if not TRANSFORMS.get(name).reads]  # those have a test of their own
STRONG = [name for name in NAMES if not TRANSFORMS.get(name).fixed]
UNEVEN = ("saturate", "glass_blur", "snow", "frost", "fog", "spatter")  # as published, not stronger at every step
RANDOM = [name for name in NAMES if TRANSFORMS.get(name).random]


def gradient(height: int, width: int, channels: int) -> np.ndarray:
    """A picture whose every pixel differs from its neighbours."""
    values = np.arange(height * width * channels) * 7 % 251
    return values.astype(np.uint8).reshape(height, width, channels)


def at(name: str, severity: int) -> Chain:
    return parse(name) if TRANSFORMS.get(name).fixed else at_severity(name, severity)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    severity=st.integers(1, 5),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])),
    seed=st.integers(-(2**70), 2**70),
)
def test_shape_and_input_are_kept(name, severity, shape, seed):
    picture = gradient(*shape)
    before = picture.copy()
    picture.setflags(write=False)
    chain = at(name, severity)
    result = chain(picture, seed=seed)
    assert result.dtype == np.uint8 and result.shape == before.shape
    assert np.array_equal(picture, before)
    assert not np.shares_memory(result, picture)
    assert np.array_equal(result, chain(picture, seed=seed))


@pytest.mark.parametrize("name", NAMES)
def test_memory_layout_does_not_matter(name):
    picture = gradient(12, 16, 3)
    strided = np.repeat(picture, 2, axis=1)[:, ::2]
    assert not strided.flags.c_contiguous
    for view in (strided, np.asfortranarray(picture), picture[::-1].copy()[::-1]):
        assert np.array_equal(at(name, 4)(view), at(name, 4)(picture))
    one = gradient(9, 7, 3)[..., 1:2]
    assert np.array_equal(at(name, 4)(one), at(name, 4)(one.copy()))


def scene(size: int) -> np.ndarray:
    """Smooth, with a bright shape, in colours."""
    y, x = np.mgrid[0:size, 0:size] / size
    grey = np.minimum(60 * y + 40 * x + 190 * (np.hypot(x - 0.4, y - 0.45) < 0.2), 255)
    return np.stack([grey, grey * 0.8, grey * 0.6], -1).astype(np.uint8)


@pytest.mark.parametrize("name", STRONG)
@pytest.mark.parametrize("size", [96, 224])
def test_higher_severity_is_farther_from_the_picture(name, size):
    """Averaged over seeds for the random ones."""
    picture = scene(size)

    def distance(severity: int) -> float:
        chain = at_severity(name, severity)
        seeds = range(16 if TRANSFORMS.get(name).random else 1)
        return np.mean([np.abs(chain(picture, seed=seed) - picture.astype(float)) for seed in seeds])

    distances = [distance(severity) for severity in range(1, 6)]
    assert distances[0] > 0
    steps = [(distances[0], distances[4])] if name in UNEVEN else pairwise(distances)
    assert all(weak < strong for weak, strong in steps), distances


@pytest.mark.parametrize("name", RANDOM)
def test_random_draws_belong_to_seed_image_and_severity(name):
    picture = scene(48)
    results = [
        at_severity(name, 3)(picture),
        at_severity(name, 3)(picture, seed=1),
        at_severity(name, 2)(picture),
        at_severity(name, 3)(picture, key=b"another image"),
    ]
    for index, one in enumerate(results):
        assert all(not np.array_equal(one, other) for other in results[index + 1 :])
    assert np.array_equal(at_severity(name, 3)(picture), results[0])
    assert np.array_equal(parse(f"{name}:severity=3")(picture), results[0])


@pytest.mark.parametrize("name", RANDOM)
def test_what_is_drawn_at_a_severity_is_not_what_is_drawn_at_its_level(name):
    """The parameters of severity 3 are the same, the draws are another's."""
    transform, drawn = TRANSFORMS.get(name), []

    def apply(picture, *, rng, **parameters):
        drawn.append(rng.integers(0, 2**63))
        return picture.copy()

    links = [at_severity(name, severity).links[0] for severity in range(1, 6)]
    if transform.level in transform.parameters:
        links.append(at_level(transform, links[2].parameters[transform.level]).links[0])
    for link in links:
        spy = Transform(**{**vars(transform), "apply": apply})
        Chain((Link(link.name, spy, link.parameters, link.draw),))(gradient(4, 4, 3), key=b"one")
    assert len(set(drawn)) == len(links)


def test_the_draws_of_levels_do_not_depend_on_the_level():
    """Fog and frost grow from one severity to the next out of the same draws. (Snow's flakes change their size, and so
    are others.)"""
    picture = scene(96)
    for name in ("fog", "frost"):
        transform = TRANSFORMS.get(name)
        results = [at_level(transform, level)(picture).astype(float) for level in (2.25, 2.5, 2.75)]
        steps = [np.abs(b - a).mean() for a, b in pairwise(results)]
        fresh = np.abs(results[0] - at_level(transform, 2.5)(picture, seed=1)).mean()
        assert max(steps) < 0.6 * fresh, (name, steps, fresh)


def test_different_images_get_different_noise():
    """Two flat greys one level apart: the noise on them must not be the same field."""
    chain = parse("gaussian_noise:std=0.1")
    first = chain(np.full((16, 16, 1), 120, np.uint8)).astype(int) - 120
    second = chain(np.full((16, 16, 1), 121, np.uint8)).astype(int) - 121
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.3


def test_a_shape_is_part_of_the_image():
    chain = parse("gaussian_noise:std=0.1")
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
    chain = parse("noise0.2+jitter+snow")
    forward = [chain(picture) for picture in pictures]
    np.random.seed(0)  # a global state that must play no part
    parse("noise")(pictures[0])
    backward = [chain(picture) for picture in reversed(pictures)][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert np.array_equal(one, other)


HASHES = """
import hashlib, numpy as np
from hw4fast.transforms import TRANSFORMS, at_severity, parse
picture = (np.arange(65 * 67 * 3) * 7 % 251).astype(np.uint8).reshape(65, 67, 3)
for name in TRANSFORMS:
    if TRANSFORMS.get(name).reads:
        continue
    chain = parse(name) if TRANSFORMS.get(name).fixed else at_severity(name, 3)
    both = chain(picture, seed=3).tobytes() + chain(picture[..., :1], seed=3).tobytes()
    print(name, hashlib.sha256(both).hexdigest())
"""


@pytest.fixture(scope="module")
def hashes_here() -> dict[str, str]:
    return hashes()


def hashes(**environment: str) -> dict[str, str]:
    """Transform → hash of what it makes in another process."""
    run = subprocess.run(
        [sys.executable, "-c", HASHES], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return dict(line.split() for line in run.stdout.splitlines())


@pytest.mark.parametrize("isa", kernels.isas())
def test_another_instruction_set_gives_the_same_bytes(isa, hashes_here):
    assert hashes(HW4FAST_ISA=isa) == hashes_here
    assert list(hashes_here) == NAMES


def test_another_hash_seed_and_number_of_threads_give_the_same_bytes(hashes_here):
    assert hashes(PYTHONHASHSEED="12345", HW4FAST_THREADS="3") == hashes_here


def test_another_process_gives_the_same_bytes():
    code = (
        "import numpy as np; from hw4fast.transforms import parse\n"
        "picture = (np.arange(300) * 7 % 251).astype(np.uint8).reshape(10, 10, 3)\n"
        "print(parse('noise0.2+jitter+blur5')(picture, seed=3).tobytes().hex())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = parse("noise0.2+jitter+blur5")(gradient(10, 10, 3), seed=3)
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


def test_a_generator_is_philox_with_the_hash_as_its_key():
    digest = hashlib.blake2b(digest_size=16)
    for part in (b"7", b"a picture", b"snow", b"3", b"0"):
        digest.update(len(part).to_bytes(8, "little") + part)
    wanted = np.random.Generator(np.random.Philox(key=int.from_bytes(digest.digest(), "little")))
    found = generator(7, b"a picture", "snow", 3)
    assert found.integers(0, 2**64, 5, np.uint64).tolist() == wanted.integers(0, 2**64, 5, np.uint64).tolist()
    assert found.normal(size=3).tolist() == wanted.normal(size=3).tolist()
    with pytest.raises(TypeError, match="spawn"):  # children would be others each time
        found.spawn(1)


def test_chance_is_imported_when_it_is_asked_for():
    """numpy.random takes 12 ms, which a start without random transforms needn't wait for."""
    code = "import sys, hw4fast.transforms; print('numpy.random' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


# -- what can't be done ------------------------------------------------------------------------------------------


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
    for call in (parse("blur3"), TRANSFORMS.get("blur")):
        with pytest.raises(ValueError, match="a picture is uint8"):
            call(bad)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (np.zeros((7, 8, 3), np.uint8), r"made uint8 \[7, 8, 3\] of uint8 \[8, 8, 3\]"),
        (np.zeros((8, 8, 3), np.float32), "made float32"),
        (None, "gave NoneType, not a NumPy array"),
        ([1, 2], "gave list"),
    ],
)
def test_a_result_that_is_no_picture_is_caught(result, message):
    spoilt = Transform("crop", lambda picture, by: result, {"by": Parameter(0, 9)}, "by", (1, 2, 3, 4, 5), "Crop.")
    with pytest.raises(TypeError, match=f"crop2 {message}"):
        Chain((Link("crop2", spoilt, {"by": 2}),))(gradient(8, 8, 3))
    with pytest.raises(TypeError, match=f"crop {message}"):
        spoilt(gradient(8, 8, 3), by=2)


def test_a_transform_by_itself():
    picture, blur = gradient(20, 30, 3), TRANSFORMS.get("blur")
    assert np.array_equal(blur(picture, size=51.0), parse("blur51")(picture))  # whole, if not an int
    assert np.array_equal(blur(picture), parse("blur")(picture))
    assert np.array_equal(blur(picture, 5, sigma=2), parse("blur51:sigma=2")(picture))
    noise = TRANSFORMS.get("gaussian_noise")
    assert np.array_equal(noise(picture), noise(picture))
    assert not np.array_equal(noise(picture), noise(picture, rng=np.random.default_rng(1)))
    for change, message in (
        ({"q": 1}, "blur has no parameter 'q'; it knows size, sigma"),
        ({"size": 4}, "blur: size must be odd, not 4"),
        ({"size": "51"}, "blur: size must be a number"),
        ({"size": float("nan")}, "blur: size must be a number"),
        ({"size": float("inf")}, "blur: size must be a number"),
        ({"severity": 6}, "must lie in 1 … 5"),
        ({"severity": 2.5}, "must be a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            blur(picture, **change)
    with pytest.raises(ValueError, match="reencode is about how a picture is read: it can't be called by itself"):
        TRANSFORMS.get("reencode")(picture)
    with pytest.raises(ValueError, match="flip has no severities"):
        TRANSFORMS.get("flip")(picture, 3)
    with pytest.raises(ValueError, match="kind must be one of water, mud, not 'oil'"):
        TRANSFORMS.get("spatter")(picture, 1, kind="oil")
