"""A whole study through batches, on the CPU in place of a GPU: what each core finds for itself, byte for byte."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import torch

from hw4fast import kernels
from hw4fast.batched import TorchBatches
from hw4fast.batched import batches as batches_module
from hw4fast.batched.batches import ready
from hw4fast.cli import main, studying
from hw4fast.errors import UsageError, UserError
from hw4fast.inference import classifier as classifier_module
from hw4fast.inference.classifier import Classifier
from hw4fast.robustness import together
from hw4fast.robustness.study import study
from tests.batched.engine import SOME, measured, write_photos
from tests.linear import net

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    one = net(folder / "one.onnx", 1, scale=0.02)
    two = net(folder / "two.onnx", 2, mean=(0.1, 0.2, 0.9), std=(0.1, 1, 0.3), scale=0.01)
    return [one, two, net(folder / "three.onnx", 3, resize="shorter-side", resize_size=40, scale=0.02)]


def quietly(source, models, out, transforms=SOME, **options):
    return study(source, models, transforms, out, progress=False, **{"breaking": 4} | options)


def tables(result):
    """Every table, and the answers without what they depend on."""
    texts = {path.name: path.read_bytes() for path in result.out.glob("*.csv")}
    answers = pq.read_table(result.out / "answers.parquet").replace_schema_metadata()
    return texts | {"answers": answers.to_pydict()}


@pytest.fixture(scope="module")
def by_cores(photos, models, tmp_path_factory):
    return quietly(photos, models, tmp_path_factory.mktemp("s") / "cores")


class Watched(TorchBatches):
    """Notes what it is given, and lacks a form, as of a transform of the user's."""

    def __init__(self, size):
        super().__init__("cpu", size)
        self.name = "a device"
        self.made = []

    def knows(self, chain):
        return super().knows(chain) and all(link.transform.name != "snow" for link in chain.links)

    def apply(self, chain, pictures, *rest):
        self.made.append((chain.name if chain else "", len(pictures)))
        return super().apply(chain, pictures, *rest)


def test_the_tables_are_those_of_the_cores(photos, models, by_cores, tmp_path):
    batches = Watched(size=8)
    found = quietly(photos, models, tmp_path / "s", batches=batches)
    assert found.failures == by_cores.failures and len(found.failures) == 1
    assert tables(found) == tables(by_cores)
    assert json.loads((found.out / "study.json").read_text())["transforms_on"] == "a device"
    names = {name.rstrip("0123456789.") for name, _ in batches.made}
    assert {"", "rotate", "framing:kind=stretch", "thumbnail", "blur5+jpeg"} <= names and "snow" not in names
    assert max(n for _, n in batches.made) == 10


@pytest.mark.parametrize(
    ("group", "at_once", "ahead", "workers"), [(3, 1 << 24, 2, 1), (32, 2 * 64 * 104 * 3, 0, 2), (1, 1, 5, 3)]
)
def test_neither_groups_nor_parts_nor_workers_tell(
    photos, models, tmp_path, monkeypatch, group, at_once, ahead, workers
):
    monkeypatch.setattr(together, "TOGETHER", group)
    monkeypatch.setattr(together, "AHEAD", ahead)
    monkeypatch.setattr(batches_module, "AT_ONCE", at_once)
    batches = Watched(size=8)
    found = measured(photos, models, tmp_path / "a", batches, workers)
    assert found == measured(photos, models, tmp_path / "b", None)
    assert max(n for _, n in batches.made) == min(group, 10)


def test_other_batches_are_other_answers_and_the_same_are_found_again(photos, models, by_cores, tmp_path):
    large = quietly(photos, models[:1], tmp_path / "s", ("rotate", "snow"), batches=TorchBatches("cpu"))
    again = quietly(photos, models[:1], tmp_path / "s", ("rotate", "snow"), batches=TorchBatches("cpu"))
    assert large.reused == 0 and again.reused == again.predictions
    assert quietly(photos, models[:1], tmp_path / "s", ("rotate", "snow")).reused == 0
    with (large.out / "predictions.csv").open() as one, (by_cores.out / "predictions.csv").open() as all_:
        answers = [(r["image"], r["spec"], r["answer"]) for r in csv.DictReader(one)]
        wanted = {(r["image"], r["spec"], r["answer"]) for r in csv.DictReader(all_) if r["model"].endswith("one.onnx")}
    assert set(answers) <= wanted and len(answers) == 10 * 11


def test_a_net_that_fails_names_the_point(photos, tmp_path):
    bad = net(tmp_path / "bad.onnx", 1, scale=np.nan)
    with pytest.raises(UserError, match=r"clean pictures: .* \(NaN"):
        quietly(photos, [bad], tmp_path / "s", ("flip",), batches=TorchBatches("cpu"))
    assert not (tmp_path / "s").exists()


def test_a_full_memory_is_told(photos, models, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("hw4fast.batched.forms.apply", full)
    with pytest.raises(UserError, match="the GPU's memory is full"):
        quietly(photos, models, tmp_path / "s", ("flip",), batches=TorchBatches("cpu"))


@pytest.mark.parametrize("size", [8, 5])
def test_tensors_are_handed_over_where_they_lie(photos, models, tmp_path, monkeypatch, size):
    """The CPU as a device with memory of its own; one net takes no other number than eight at once."""
    fixed = tmp_path / "fixed.onnx"
    model = onnx.load(models[0])
    for entry in (model.graph.input[0], model.graph.output[0]):
        entry.type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(model, fixed)
    paths = [models[2], fixed]
    wanted = measured(photos, paths, tmp_path / "a", TorchBatches("cpu", size=size), transforms=("flip", "snow"))
    for module in (batches_module, classifier_module):
        monkeypatch.setattr(module, "DEVICES", {"cpu": "cpu"})
    given, answers = [], Classifier.answers

    def watched(self, batch):
        given.append((self.path.name, type(batch)))
        return answers(self, batch)

    monkeypatch.setattr(Classifier, "answers", watched)
    found = measured(photos, paths, tmp_path / "b", TorchBatches("cpu", size=size), transforms=("flip", "snow"))
    assert found == wanted
    there = torch.Tensor if size == 8 else np.ndarray
    assert set(given) == {("three.onnx", torch.Tensor), ("fixed.onnx", there)}


@pytest.mark.parametrize("mode", ["RGB", "BGR"])
@pytest.mark.parametrize("divisor", [255.0, 1.0])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_what_the_graph_takes(models, mode, divisor, layout, dtype):
    classifier = Classifier(models[1])
    card = classifier.card
    classifier.card = replace(
        card,
        preprocessing=replace(card.preprocessing, mode=mode, divisor=divisor),
        input=replace(card.input, dtype=dtype, layout=layout),
    )
    batch = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    wanted, found = classifier.tensor(batch), ready(torch.from_numpy(batch), classifier.card).numpy()
    assert found.dtype == wanted.dtype and np.array_equal(found, wanted)


def test_without_a_gpu_the_reason_is_told(monkeypatch):
    with pytest.raises(UsageError, match="unknown device 'cdua'; take cuda or cpu"):
        TorchBatches("cdua")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="torch finds no GPU"):
        TorchBatches("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(kernels, "cuda_error", lambda: "the driver is too old")
    with pytest.raises(UserError, match="the driver is too old"):
        TorchBatches("cuda")
    monkeypatch.setattr(kernels, "cuda_error", lambda: None)
    with pytest.raises(UserError, match="there is no GPU 7; torch finds 1"):
        TorchBatches("cuda:7")
    assert TorchBatches("cuda:0").name == "cuda:0"


@pytest.mark.parametrize("reason", ["", "no GPU can be used"])
def test_where_the_transforms_of_a_study_ran(reason, centroid_onnx, tmp_path, capsys, monkeypatch):
    """`cpu` stands in for `cuda`."""
    made = TorchBatches("cpu", size=8)
    used = []
    monkeypatch.setattr(studying, "ON_A_GPU", ("cpu",))

    def there(device):
        assert device == "cuda"
        if reason:
            raise UserError(reason)
        return made

    monkeypatch.setattr("hw4fast.batched.TorchBatches", there)
    monkeypatch.setattr(made, "put", lambda picture: used.append(picture) or TorchBatches.put(made, picture))
    words = ["--transforms", "flip", "--limit", "3", "--breaking", "0", "--out", str(tmp_path / "s")]
    assert main(["study", "digits", "--model", str(centroid_onnx), *words]) == 0
    assert len(used) == (0 if reason else 3)
    assert (f"transforms ran on the CPU's cores: {reason}" in capsys.readouterr().err) == bool(reason)
