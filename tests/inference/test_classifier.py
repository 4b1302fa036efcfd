"""The classifier against NumPy, and every way in which a file may not fit its card."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hw4fast.data import Preprocessing, load
from hw4fast.errors import UsageError, UserError
from hw4fast.inference.card import DTYPES, KEY, LAYOUTS, Card, Input, Output
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.known import KNOWN
from hw4fast.inference.session import explain_provider
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


def test_classify_takes_pictures_of_every_kind(classifier, tmp_path):
    digits = load("digits").test
    picture = digits.images[3]
    Image.fromarray(picture[:, :, 0]).save(tmp_path / "digit.png")
    kinds = [
        tmp_path / "digit.png",
        str(tmp_path / "digit.png"),
        (tmp_path / "digit.png").read_bytes(),
        Image.open(tmp_path / "digit.png"),
        Image.fromarray(picture[:, :, 0]).convert("RGB"),
        picture,
        picture[:, :, 0],
    ]
    probabilities = classifier.probabilities(picture[None])[0]
    order = np.argsort(-probabilities, kind="stable")[:3]
    wanted = tuple((int(i), str(i), float(probabilities[i])) for i in order)
    for kind in kinds:
        assert classifier.classify(kind, top=3) == [wanted]
    assert classifier.classify(kinds, top=3) == [wanted] * len(kinds)
    assert classifier.classify([]) == []
    many = classifier.classify(digits.images[:70], top=1)
    assert [guess[0][0] for guess in many] == classifier.logits(digits.images[:70]).argmax(1).tolist()


@pytest.mark.parametrize(
    ("images", "kind", "message"),
    [
        (np.zeros((28, 28), np.float32), ValueError, "a picture is uint8"),
        (np.zeros((28, 28, 4), np.uint8), ValueError, "a picture is uint8"),
        (np.zeros(28, np.uint8), ValueError, "a picture is uint8"),
        ("nowhere.png", UserError, "there is no picture file 'nowhere.png'"),
        (b"no picture", UserError, "is no picture that can be read"),
    ],
)
def test_classify_refuses_what_is_no_picture(classifier, images, kind, message):
    with pytest.raises(kind, match=message):
        classifier.classify(images)
    with pytest.raises(ValueError, match="top must be 1 or more"):
        classifier.classify([], top=0)


def test_a_run_folder(centroid_onnx, tmp_path):
    shutil.copy(centroid_onnx, tmp_path / "model.onnx")
    assert Classifier(tmp_path).path == tmp_path / "model.onnx"


def test_what_it_is_is_told(centroid_onnx):
    assert repr(Classifier(centroid_onnx)) == f"Classifier('{centroid_onnx}', 28×28×1 → 10 classes, on cpu)"


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        Classifier(path)
    text = str(caught.value)
    assert path.name in text and "\n" not in text
    for part in parts:
        assert part in text


def test_a_file_without_card(tmp_path):
    refused(write(tmp_path / "foreign.onnx", None), "has no card", KEY, f"hw4fast card {tmp_path}/foreign.onnx")


def test_a_junk_card(tmp_path):
    refused(write(tmp_path / "junk.onnx", "hello"), "the card (hw4fast.card) can't be read")


def test_a_card_of_the_future(tmp_path):
    newer = card_text().replace('"schema":2', '"schema":9')
    refused(write(tmp_path / "new.onnx", newer), "schema 9", "upgrade hw4fast")


def test_too_few_labels(tmp_path):
    refused(write(tmp_path / "m.onnx", card_text(classes=2)), "the card has 2 labels", "['n', 3]")


@pytest.mark.parametrize("fixed", [1, 3])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 7])
def test_a_fixed_batch_takes_any_number(tmp_path, fixed, n):
    free, bound = (write(tmp_path / f"{axis}.onnx", card_text(), (axis, 1, 28, 28)) for axis in ("n", fixed))
    batch = np.random.default_rng(0).integers(0, 256, (n, 28, 28, 1), np.uint8)
    np.testing.assert_allclose(Classifier(bound).logits(batch), Classifier(free).logits(batch), atol=1e-4)


def test_another_size_than_the_cards(tmp_path):
    refused(write(tmp_path / "m.onnx", card_text(), ("n", 1, 32, 28)), "[None, 1, 28, 28]", "32")


def test_another_number_of_channels(tmp_path):
    refused(write(tmp_path / "m.onnx", card_text(), ("n", 3, 28, 28)), "the card says input")


def test_dynamic_height_and_width_are_fine(tmp_path):
    classifier = Classifier(write(tmp_path / "m.onnx", card_text(), ("n", 1, "h", "w")))
    assert classifier.logits(np.zeros((2, 28, 28, 1), np.uint8)).shape == (2, 3)


def test_other_tensor_names(centroid_onnx, tmp_path):
    """They are the card's to say: a card that doesn't is refused."""
    onnx, path = pytest.importorskip("onnx"), tmp_path / "named.onnx"
    model = onnx.load(centroid_onnx)
    model.graph.output[0].name = model.graph.node[-1].output[0] = "scores"
    onnx.save(model, path)
    refused(path, "input → scores", "the card says input → logits")
    card = replace(Classifier(centroid_onnx).card, output=Output("scores"))
    onnx.helper.set_model_props(model, {KEY: card.to_json_text()})
    onnx.save(model, path)
    batch = load("digits").test.images[:5]
    assert np.array_equal(Classifier(path).logits(batch), Classifier(centroid_onnx).logits(batch))


def test_another_dtype(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(write(tmp_path / "m.onnx", card_text()))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for tensor in model.graph.initializer:
        half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, tensor.name))
    onnx.save(model, tmp_path / "half.onnx")
    refused(tmp_path / "half.onnx", "takes tensor(float16)", "the card says float32")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["RGB", "BGR"])
def test_every_layout_dtype_and_order_of_channels(tmp_path, layout, dtype, mode):
    """A graph that adds up each channel tells whether it got what the card says."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, {"float32": 1, "float16": 10, "uint8": 2}
    sides = ("n", 4, 5, 3) if layout == "NHWC" else ("n", 3, 4, 5)
    axes = onnx.numpy_helper.from_array(np.array([1, 2] if layout == "NHWC" else [2, 3]), "axes")
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=1),
        helper.make_node("ReduceSum", ["wide", "axes"], ["sums"], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("x", kinds[dtype], sides)]
    outputs = [helper.make_tensor_value_info("sums", 1, ("n", 3))]
    graph = helper.make_graph(nodes, "sums", inputs, outputs, [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    reading = Preprocessing(mode=mode, crop=(4, 5), mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0), divisor=1)
    card = Card(reading, ("a", "b", "c"), {}, {}, 17, Input("x", layout, dtype), Output("sums"))
    helper.set_model_props(model, {KEY: card.to_json_text()})
    onnx.save(model, tmp_path / "m.onnx")
    batch = np.random.default_rng(0).integers(0, 20, (2, 4, 5, 3), np.uint8)
    read = batch[..., ::-1].astype(np.float64) if mode == "BGR" else batch.astype(np.float64)
    expected = (read - (0 if dtype == "uint8" else [1, 2, 3])) / (1 if dtype == "uint8" else [1, 2, 4])
    np.testing.assert_allclose(Classifier(tmp_path / "m.onnx").logits(batch), expected.sum((1, 2)), rtol=1e-3)


def test_probabilities_become_logits_that_give_them_back(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(write(tmp_path / "m.onnx", None))
    model.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["p"], axis=1))
    model.graph.output[0].name = "p"
    card = Card(GREY, tuple("abc"), {}, {}, 17, output=Output("p", "probabilities"))
    onnx.helper.set_model_props(model, {KEY: card.to_json_text()})
    onnx.save(model, tmp_path / "p.onnx")
    plain = Classifier(write(tmp_path / "m.onnx", card_text()))
    batch = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    np.testing.assert_allclose(
        Classifier(tmp_path / "p.onnx").probabilities(batch), plain.probabilities(batch), atol=1e-6
    )


def test_unknown_provider(centroid_onnx):
    with pytest.raises(UsageError, match="unknown provider"):
        Classifier(centroid_onnx, providers="abacus")
    with pytest.raises(UsageError, match="no provider was named"):
        Classifier(centroid_onnx, providers=())


def test_the_first_provider_that_runs_is_taken(centroid_onnx):
    assert Classifier(centroid_onnx, providers=("cpu",)).provider == "cpu"
    if explain_provider("cuda"):
        assert Classifier(centroid_onnx, providers=("cuda", "cpu")).provider == "cpu"
        with pytest.raises(UserError, match=r"'cuda' doesn't run here: .*'tensorrt'"):
            Classifier(centroid_onnx, providers=("cuda", "tensorrt"))


def test_real_foreign_models_are_refused_but_for_the_known_ones(tmp_path):
    root = os.environ.get("HW4FAST_DATA")
    files = sorted(Path(root, "models").glob("*.onnx")) if root else []
    if not files:
        pytest.skip("HW4FAST_DATA names no folder with models/*.onnx")
    for path in files:
        if path.stem in KNOWN:
            card = Classifier(path.stem).card
            assert Classifier(path).card == card and card.labels[987] == "corn" and len(card.labels) == 1000
        copy = tmp_path / path.name
        shutil.copy(path, copy)  # elsewhere nobody knows it
        refused(copy, "has no card", f"hw4fast card {copy} --set labels=")


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
