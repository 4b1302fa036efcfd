"""Breaking points of models that are known: a threshold, a band, nothing."""

from __future__ import annotations

import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from hw4fast.inference.classifier import Classifier
from hw4fast.robustness.analysis import breaking_points
from hw4fast.robustness.breaking import GRID, ROUNDS, level_at, questions, swept
from hw4fast.robustness.measure import Measured
from hw4fast.robustness.points import points_of
from hw4fast.robustness.study import study
from hw4fast.transforms import TRANSFORMS, parse
from tests.robustness.rows import measured_of

ROTATE, SIGMA = TRANSFORMS.get("rotate"), TRANSFORMS.get("gaussian_blur")


def answers_by(changed):
    """An `ask` whose answer is 1 where changed(name, level) is true, else 0; it counts what it was asked."""
    asked = []

    def ask(points):
        asked.append(len(points))
        links = [point.chain.links[0] for point in points]
        return [int(changed(link.transform.name, link.parameters[link.transform.level])) for link in links]

    return ask, asked


def break_points(transforms, ask, clean):
    asking = questions(transforms, clean)
    points = next(asking)
    while True:
        try:
            points = asking.send(ask(points))
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("threshold", [0.3, 1.0, 22.6, 90.0, 179.0])
def test_a_threshold_is_found_to_a_256th_of_the_sweep(threshold):
    ask, asked = answers_by(lambda _, degrees: degrees >= threshold)
    (found,) = break_points([ROTATE], ask, clean=0)
    assert threshold <= found.value <= threshold + 180 / GRID / 2**ROUNDS + 1e-3
    assert found.share == pytest.approx(found.value / 180, abs=1e-4) and found.changes == 1
    assert asked == [GRID, *[1] * ROUNDS]


def test_a_logarithmic_sweep_is_halved_in_the_logarithm():
    ask, _ = answers_by(lambda _, sigma: sigma > 2.1)
    (found,) = break_points([SIGMA], ask, clean=0)
    ratio = (SIGMA.sweep.stop / SIGMA.sweep.start) ** (1 / GRID / 2**ROUNDS)
    assert 2.1 < found.value <= 2.1 * ratio * 1.001


def test_what_never_changes_has_no_breaking_point_and_what_changes_back_is_counted():
    ask, asked = answers_by(lambda name, level: name == "rotate" and 30 < level < 100)
    never, band = break_points([SIGMA, ROTATE], ask, clean=0)
    assert math.isnan(never.value) and math.isnan(never.share) and never.changes == 0
    assert 30 < band.value < 31 and band.changes == 2
    assert asked == [2 * GRID, *[1] * ROUNDS]


def test_only_transforms_that_are_named_by_themselves_are_swept():
    points = points_of(["rotate", "blur51", "gaussian_blur", "posterise", "rotate:fill=black", "flip", "snow"])
    assert [transform.name for transform in swept(points)] == ["rotate", "gaussian_blur", "snow"]


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if TRANSFORMS.get(name).sweep])
def test_every_sweep_stays_within_its_parameter_and_can_be_said(name):
    """What is asked can be asked again: its spec is read back as the same link."""
    transform = TRANSFORMS.get(name)
    levels = [level_at(transform, share) for share in np.linspace(0, 1, 33)]
    assert len(set(levels)) > 5
    assert levels == sorted(levels) or levels == sorted(levels, reverse=True)
    for share in (0.03, 0.5, 1.0):
        chain = points_at(transform, share).chain
        assert parse(chain.name) == chain


def points_at(transform, share):
    seen = []

    def ask(points):
        seen.extend(points)
        return [0] * len(points)

    break_points([transform], ask, clean=0)
    return seen[min(int(share * GRID), GRID - 1)]


def broken_of(values, never=0):
    """Measured breaking points under rotate."""
    from hw4fast.robustness.breaking import Broken

    points = points_of(["rotate"])
    found = measured_of(points, [[0] * 6] * (len(values) + never), [0] * (len(values) + never))
    broken = [(Broken(value / 180, value, 1),) for value in values] + [(Broken(math.nan, math.nan, 0),)] * never
    keys = ("points", "names", "numbers", "labels", "answers", "confidence", "ranks", "failures")
    rest = {key: getattr(found, key) for key in keys}
    return Measured(**rest, swept=(ROTATE,), sought=tuple(range(len(broken))), broken=tuple(broken))


def test_median_and_quartiles_are_those_of_the_sample_with_the_unbroken_at_the_end():
    (found,) = breaking_points(broken_of([40.0, 10.0, 20.0, 30.0], never=1))
    assert (found.n, found.never, found.median, found.quartiles) == (5, 1, 30.0, (20.0, 40.0))
    (found,) = breaking_points(broken_of([10.0, 20.0], never=4))
    assert (found.median, found.quartiles) == (None, (20.0, None))


def test_the_interval_of_the_median_covers_it_as_often_as_it_says():
    rng = np.random.Generator(np.random.PCG64(5))
    hits, rounds = 0, 400
    for _ in range(rounds):
        (found,) = breaking_points(broken_of(rng.uniform(0, 180, 60).tolist()))
        low, high = found.interval
        hits += low <= 90 <= high
    assert 0.93 <= hits / rounds <= 0.985  # 95.2 % by the binomial; order statistics can't be more exact


def test_a_study_finds_what_a_search_by_hand_finds(centroid_onnx, tmp_path):
    options = {"limit": 6, "progress": False, "breaking": 3}
    found = study("digits", centroid_onnx, ["rotate", "gaussian_noise"], tmp_path / "s", **options)
    lines = pq.read_table(found.out / "breaking.parquet").to_pylist()
    assert len(lines) == 3 * 2 and len({line["image"] for line in lines}) == 3
    from hw4fast.data import load

    split, classifier = load("digits").test, Classifier(centroid_onnx)
    for line in lines:
        picture = split.images[int(line["image"].removeprefix("test/"))]

        def answer(spec, picture=picture):
            return int(classifier.logits((parse(spec)(picture) if spec else picture)[None]).argmax())

        if line["level"] is None:
            assert answer(
                f"{line['transform']}:{line['parameter']}={TRANSFORMS.get(line['transform']).sweep.stop}"
            ) == (answer(""))
        else:  # the level that is told changes the answer, in `classify`, too
            assert answer(f"{line['transform']}:{line['parameter']}={line['level']:g}") != answer("")
    page = found.report.read_text(encoding="utf-8")
    assert 'id="breaking"' in page and "median: degrees" in page and "half change by" not in page  # of three
    again = study("digits", centroid_onnx, ["rotate", "gaussian_noise"], tmp_path / "t", threads=1, **options)
    for name in ("breaking.csv", "breaking.parquet", "answers.parquet", "transforms.csv"):
        assert (again.out / name).read_bytes() == (found.out / name).read_bytes()
