"""I/O binding, on the CPU's memory where there is no other: the same answers, its buffers kept and bounded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hw4fast.errors import UserError
from hw4fast.inference import classifier as classifier_module
from hw4fast.inference.binding import SHAPES, Bound
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.session import open_session
from tests.inference.models import write_one_picture_onnx


def batches(count: int) -> list[np.ndarray]:
    rng = np.random.Generator(np.random.PCG64(0))
    return [rng.standard_normal((1 + i % (2 * SHAPES), 1, 28, 28)).astype(np.float32) for i in range(count)]


@pytest.fixture
def session(centroid_onnx):
    return open_session(centroid_onnx)


def test_the_same_answers_from_several_threads(session):
    bound = Bound(session, "cpu", "input", "logits")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(bound.run, batches(100)))
    for answer, batch in zip(answers, batches(100), strict=True):
        assert np.array_equal(answer, session.run(["logits"], {"input": batch})[0])


def test_answers_stay_as_they_were_given(session):
    """The next batch lies where the last one lay; its answer doesn't."""
    bound = Bound(session, "cpu", "input", "logits")
    first = bound.run(np.zeros((2, 1, 28, 28), np.float32))
    kept = first.copy()
    bound.run(np.ones((2, 1, 28, 28), np.float32))
    assert np.array_equal(first, kept)


def test_buffers_are_kept_and_bounded(session):
    bound, (batch, *others) = Bound(session, "cpu", "input", "logits"), batches(2 * SHAPES)
    bound.run(batch)
    (value,) = bound._own.buffers.values()
    bound.run(batch + 1)
    assert next(iter(bound._own.buffers.values())) is value
    for other in others:
        bound.run(other)
    assert len(bound._own.buffers) == SHAPES


def test_strides_are_no_matter(session):
    batch = batches(4)[-1]
    turned = np.asfortranarray(batch)
    bound = Bound(session, "cpu", "input", "logits")
    assert np.array_equal(bound.run(turned), bound.run(batch))


def test_a_classifier_on_a_device(centroid_onnx, tmp_path, monkeypatch):
    """As on a GPU, but that the device is the CPU."""
    pictures = np.zeros((3, 28, 28, 1), np.uint8)
    right = Classifier(centroid_onnx).logits(pictures)
    monkeypatch.setattr(classifier_module, "DEVICES", {"cpu": "cpu"})
    assert np.array_equal(Classifier(centroid_onnx).logits(pictures), right)
    with pytest.raises(UserError, match="failed on a batch of 3"):
        Classifier(write_one_picture_onnx(tmp_path / "one.onnx")).logits(pictures)
