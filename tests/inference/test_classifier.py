"""The classifier against NumPy, and every way in which a file may not fit its card."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from hw4fast.data import Preprocessing, load
from hw4fast.errors import UsageError, UserError
from hw4fast.inference.card import KEY, Card
from hw4fast.inference.classifier import Classifier
from tests.conftest import write_linear_onnx
from tests.inference.models import write_one_picture_onnx

GREY = Preprocessing(mode="L", crop=(28, 28), mean=(0.3,), std=(0.35,))


def card_text(preprocessing: Preprocessing = GREY, classes: int = 3) -> str:
    return Card(preprocessing, tuple("abcdefgh"[:classes]), {}, {}, 17).to_json_text()


def write(path: Path, card: str | None, shape: tuple = ("n", 1, 28, 28), classes: int = 3) -> Path:
    features = int(np.prod([28 if isinstance(axis, str) else axis for axis in shape[1:]]))
    weight = np.random.default_rng(0).normal(size=(classes, features)) / 28
    return write_linear_onnx(path, weight, np.arange(classes), card, shape)


@pytest.fixture
def classifier(centroid_onnx) -> Classifier:
    return Classifier(centroid_onnx)


def test_what_it_says_about_itself(classifier, centroid_onnx):
    assert classifier.path == centroid_onnx
    assert classifier.provider == "cpu"
    assert classifier.card.labels == tuple("0123456789")
    assert classifier.card.preprocessing == load("digits").preprocessing
    assert classifier.sha256 == hashlib.sha256(centroid_onnx.read_bytes()).hexdigest()


def test_accuracy_on_the_digits(classifier):
    """The nearest mean is right on about nine of ten test digits: far from chance, so the path is sound."""
    test = load("digits").test
    predictions = classifier.logits(test.images).argmax(1)
    assert (predictions == test.labels).mean() > 0.88


def test_logits_are_the_formula(classifier):
    digits = load("digits")
    batch = digits.test.images[:7]
    (mean,), (std,) = digits.preprocessing.mean, digits.preprocessing.std
    train = (digits.train.images.astype(np.float64) / 255 - mean) / std
    x = ((batch.astype(np.float64) / 255 - mean) / std).reshape(7, -1)
    means = np.stack([train[digits.train.labels == digit].mean(0).ravel() for digit in range(10)])
    distances = ((x[:, None] - means) ** 2).sum(2)
    expected = -0.02 * (distances - (x**2).sum(1, keepdims=True))
    assert np.abs(classifier.logits(batch) - expected).max() < 1e-4


@pytest.mark.parametrize("n", [0, 1, 2, 7, 360])
def test_any_batch(classifier, n):
    batch = load("digits").test.images[:n]
    logits, probabilities = classifier.logits(batch), classifier.probabilities(batch)
    for result in (logits, probabilities):
        assert result.shape == (n, 10) and result.dtype == np.float32
    assert np.allclose(probabilities.sum(1), 1, atol=1e-6)
    odds = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True, initial=-1e9))
    assert np.allclose(probabilities, odds / odds.sum(1, keepdims=True), atol=1e-6)


def test_softmax_of_large_logits_is_stable(tmp_path):
    path = write_linear_onnx(tmp_path / "m.onnx", np.zeros((3, 784)), np.array([1e30, 1e30, -1e30]), card_text())
    assert Classifier(path).probabilities(np.zeros((1, 28, 28, 1), np.uint8)).tolist() == [[0.5, 0.5, 0.0]]


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 28, 28, 3), np.uint8),
        np.zeros((2, 28, 27, 1), np.uint8),
        np.zeros((28, 28, 1), np.uint8),
        np.zeros((2, 28, 28, 1), np.float32),
    ],
)
def test_wrong_batches(classifier, bad):
    with pytest.raises(ValueError, match="the batch must be uint8"):
        classifier.logits(bad)


def test_fit_is_the_cards_preprocessing(classifier):
    picture = np.random.default_rng(0).integers(0, 256, (50, 31, 3), dtype=np.uint8)
    assert np.array_equal(classifier.fit(picture), load("digits").preprocessing.fit(picture))


def test_a_thread_of_a_picture_does_not_fill_the_memory(tmp_path):
    shorter = Preprocessing(mode="L", crop=(28, 28), mean=(0.3,), std=(0.35,), resize="shorter-side", resize_size=256)
    classifier = Classifier(write(tmp_path / "m.onnx", card_text(shorter)))
    with pytest.raises(UserError, match="100000×1 pixels are too long and thin"):
        classifier.fit(np.zeros((1, 100_000, 1), np.uint8))
    assert classifier.fit(np.zeros((10, 1000, 1), np.uint8)).shape == (28, 28, 1)


def test_a_run_folder(centroid_onnx, tmp_path):
    shutil.copy(centroid_onnx, tmp_path / "model.onnx")
    assert Classifier(tmp_path).path == tmp_path / "model.onnx"


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        Classifier(path)
    text = str(caught.value)
    assert path.name in text and "\n" not in text
    for part in parts:
        assert part in text


def test_a_file_without_card(tmp_path):
    refused(write(tmp_path / "foreign.onnx", None), "has no card", KEY, "hw4fast export")


def test_a_junk_card(tmp_path):
    refused(write(tmp_path / "junk.onnx", "hello"), "the card (hw4fast.card) can't be read")


def test_a_card_of_the_future(tmp_path):
    newer = card_text().replace('"schema":1', '"schema":9')
    refused(write(tmp_path / "new.onnx", newer), "schema 9", "upgrade hw4fast")


def test_too_few_labels(tmp_path):
    refused(write(tmp_path / "m.onnx", card_text(classes=2)), "the card has 2 labels", "['n', 3]")


def test_a_fixed_batch(tmp_path):
    refused(write(tmp_path / "m.onnx", card_text(), (1, 1, 28, 28)), "exactly 1 picture", "dynamic batch")


def test_another_size_than_the_cards(tmp_path):
    refused(write(tmp_path / "m.onnx", card_text(), ("n", 1, 32, 28)), "[None, 1, 28, 28]", "32")


def test_another_number_of_channels(tmp_path):
    refused(write(tmp_path / "m.onnx", card_text(), ("n", 3, 28, 28)), "the card says input")


def test_dynamic_height_and_width_are_fine(tmp_path):
    classifier = Classifier(write(tmp_path / "m.onnx", card_text(), ("n", 1, "h", "w")))
    assert classifier.logits(np.zeros((2, 28, 28, 1), np.uint8)).shape == (2, 3)


def test_other_tensor_names(centroid_onnx, tmp_path):
    path = tmp_path / "named.onnx"
    path.write_bytes(centroid_onnx.read_bytes().replace(b"logits", b"scores"))
    refused(path, "input → scores", "expected input → logits")


def test_another_dtype(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(write(tmp_path / "m.onnx", card_text()))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for tensor in model.graph.initializer:
        half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, tensor.name))
    onnx.save(model, tmp_path / "half.onnx")
    refused(tmp_path / "half.onnx", "must be float32")


def test_unknown_provider(centroid_onnx):
    with pytest.raises(UsageError, match="unknown provider"):
        Classifier(centroid_onnx, provider="abacus")


def test_real_foreign_models_are_refused_as_such():
    root = os.environ.get("HW4FAST_DATA")
    files = sorted(Path(root, "models").glob("*.onnx")) if root else []
    if not files:
        pytest.skip("HW4FAST_DATA names no folder with models/*.onnx")
    for path in files:
        refused(path, "has no card", "hw4fast export")


def test_a_failure_while_it_runs_is_one_line(tmp_path):
    """The file says that it takes any batch, but its inside takes one picture at a time."""
    classifier = Classifier(write_one_picture_onnx(tmp_path / "m.onnx"))
    assert classifier.logits(np.zeros((1, 28, 28, 1), np.uint8)).shape == (1, 3)
    with pytest.raises(UserError, match=r"^'.*m\.onnx' failed on a batch of 2: .*reshape.*; export it again$"):
        classifier.logits(np.zeros((2, 28, 28, 1), np.uint8))


@pytest.mark.parametrize("bias", [(0, np.nan, 0), (0, np.inf, 0), (-np.inf, -np.inf, -np.inf)])
def test_what_is_no_number_is_no_answer(bias, tmp_path):
    path = write_linear_onnx(tmp_path / "m.onnx", np.zeros((3, 784)), np.array(bias), card_text())
    with pytest.raises(UserError, match=r"m\.onnx' gave an answer that is no number .* in a batch of 2; "):
        Classifier(path).probabilities(np.zeros((2, 28, 28, 1), np.uint8))


def test_a_class_that_the_model_rules_out_has_no_probability(tmp_path):
    path = write_linear_onnx(tmp_path / "m.onnx", np.zeros((3, 784)), np.array([1, 1, -np.inf]), card_text())
    assert Classifier(path).probabilities(np.zeros((1, 28, 28, 1), np.uint8)).tolist() == [[0.5, 0.5, 0.0]]


def test_a_card_that_would_fill_the_memory(tmp_path):
    huge = card_text().replace("[28,28]", "[150000,150000]")
    refused(write(tmp_path / "m.onnx", huge, ("n", 1, "h", "w")), "crop (150000, 150000) must have at most 3125000")
