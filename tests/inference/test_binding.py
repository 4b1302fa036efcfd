"""I/O binding, on the CPU's memory where there is no other: the same answers, a graph's buffers kept and bounded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from hw4fast.errors import UserError
from hw4fast.inference import classifier as classifier_module
from hw4fast.inference.binding import SHAPES, Bound
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.session import open_session
from hw4fast.nn import fit
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
    bound = Bound(session, "cpu", "input", "logits")
    first = bound.run(np.zeros((2, 1, 28, 28), np.float32))
    kept = first.copy()
    bound.run(np.ones((2, 1, 28, 28), np.float32))
    assert np.array_equal(first, kept)


def test_strides_are_no_matter(session):
    batch = batches(4)[-1]
    turned = np.asfortranarray(batch)
    bound = Bound(session, "cpu", "input", "logits")
    assert np.array_equal(bound.run(turned), bound.run(batch))


def test_a_tensor_is_read_where_it_lies(session):
    bound = Bound(session, "cpu", "input", "logits")
    for batch in batches(5):
        tensor = torch.from_numpy(batch)
        assert np.array_equal(bound.run(tensor), bound.run(batch))
    with pytest.raises(ValueError, match="the tensor is on meta, but the model runs on cpu"):
        bound.run(tensor.to("meta"))
    with pytest.raises(ValueError, match="the tensor is on cpu, but the model runs on cuda:0; move it there"):
        Bound(session, "cuda", "input", "logits").run(tensor)


@pytest.fixture
def recording(session, monkeypatch):
    """Bound as where CUDA graphs are recorded: the CPU knows none, but is told of each; the buffers are the same."""
    monkeypatch.setattr(
        session, "get_provider_options", lambda: {session.get_providers()[0]: {"enable_cuda_graph": "1"}}
    )
    numbers, run = [], session.run_with_iobinding

    def noted(binding, options=None):
        numbers.append(options.get_run_config_entry("gpu_graph_id"))
        run(binding, options)

    monkeypatch.setattr(session, "run_with_iobinding", noted)
    return Bound(session, "cpu", "input", "logits"), numbers


def test_each_shape_has_its_graph(session, recording):
    (bound, numbers), many = recording, batches(2 * SHAPES)
    for batch in (*many, *many):
        assert np.array_equal(bound.run(batch), session.run(["logits"], {"input": batch})[0])
    graphs = [str(number) for number in range(1, SHAPES + 1)]
    assert numbers == ["-1"] * 2 * SHAPES + graphs + ["-1"] * SHAPES
    first = bound.run(many[0])
    kept = first.copy()
    bound.run(many[0] + 1)
    assert np.array_equal(first, kept)


def test_graphs_of_tensors_and_from_several_threads(session, recording):
    (bound, numbers), (one, two) = recording, batches(2)
    for batch in (one, one + 1, two, one - 1, two + 1):
        for given in (torch.from_numpy(batch), batch):
            assert np.array_equal(bound.run(given), session.run(["logits"], {"input": batch})[0])
    assert {"1", "2", "3", "4"} <= set(numbers)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(bound.run, batches(100)))
    for answer, batch in zip(answers, batches(100), strict=True):
        assert np.array_equal(answer, session.run(["logits"], {"input": batch})[0])


def test_a_classifier_takes_tensors_on_its_device(centroid_onnx, monkeypatch):
    pictures = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    plain = Classifier(centroid_onnx)
    with pytest.raises(ValueError, match="the model runs on cpu and takes NumPy arrays, not Tensor"):
        plain.logits(torch.zeros(1, 1, 28, 28))
    monkeypatch.setattr(classifier_module, "DEVICES", {"cpu": "cpu"})
    classifier = Classifier(centroid_onnx)
    fitted = fit(torch.from_numpy(pictures), classifier.card.preprocessing)
    assert np.array_equal(classifier.logits(fitted), plain.logits(pictures))
    assert np.array_equal(classifier.probabilities(fitted[::2]), plain.probabilities(pictures[::2]))
    assert classifier.logits(fitted[:0]).shape == (0, len(classifier.card.labels))
    for wrong in (fitted.half(), fitted[:, :, 1:], fitted[0], torch.zeros(1, 28, 28, 1, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"the tensor must be float32 \[n, 1, 28, 28\], not"):
            classifier.logits(wrong)


def test_what_failed_on_a_device_says_what_to_do(centroid_onnx, monkeypatch):
    monkeypatch.setattr(classifier_module, "DEVICES", {"cpu": "cpu"})
    classifier = Classifier(centroid_onnx)

    def fail(tensor):
        raise RuntimeError(reason)

    monkeypatch.setattr(classifier._bound, "run", fail)
    reason = "Failed to allocate memory for requested buffer of size 616562688"
    with pytest.raises(UserError, match="616562688; give it fewer pictures at a time"):
        classifier.logits(np.zeros((1, 28, 28, 1), np.uint8))
    reason = "cuDNN is required for this operator"
    monkeypatch.setattr(classifier_module, "explain_provider", lambda name: "pip install nvidia-cudnn-cu13")
    with pytest.raises(UserError, match="required for this operator; pip install nvidia-cudnn-cu13"):
        classifier.logits(np.zeros((1, 28, 28, 1), np.uint8))


def test_a_classifier_on_a_device(centroid_onnx, tmp_path, monkeypatch):
    """As on a GPU, but that the device is the CPU."""
    pictures = np.zeros((3, 28, 28, 1), np.uint8)
    right = Classifier(centroid_onnx).logits(pictures)
    monkeypatch.setattr(classifier_module, "DEVICES", {"cpu": "cpu"})
    assert np.array_equal(Classifier(centroid_onnx).logits(pictures), right)
    with pytest.raises(UserError, match="failed on a batch of 3"):
        Classifier(write_one_picture_onnx(tmp_path / "one.onnx")).logits(pictures)
