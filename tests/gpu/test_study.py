"""A study's transforms on a GPU: the cores' bytes, and a whole measurement."""

import numpy as np
import pytest
import torch

from hw4fast import kernels
from hw4fast.batched import FORMS, TorchBatches
from hw4fast.batched.batches import ready
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.session import explain_provider
from hw4fast.robustness.points import points_of
from hw4fast.transforms.randomness import picture_key
from tests.batched.engine import SOME, measured, write_photos
from tests.batched.test_forms import WAYS, photographs
from tests.linear import net

POINTS = points_of(list(FORMS))[1:]


def on_both(point, pictures, decoded=(), preprocessing=None):
    keys = [picture_key(picture) for picture in pictures]
    batches = TorchBatches("cuda")
    there = [[batches.put(picture) for picture in some] for some in (pictures, decoded)]
    found = batches.apply(point.chain, there[0], keys, 3, there[1], preprocessing)
    given = decoded or [None] * len(pictures)
    wanted = [
        point.chain(picture, seed=3, key=key, decoded=one, preprocessing=preprocessing)
        for picture, key, one in zip(pictures, keys, given, strict=True)
    ]
    assert found.is_cuda
    return found.cpu().numpy(), np.stack(wanted)


@pytest.mark.parametrize("point", [p for p in POINTS if not p.reads], ids=lambda point: point.spec)
def test_the_bytes_are_the_cores(point):
    if kernels.chosen_isa() == "baseline" and point.chain.links[0].transform.name in ("elastic", "spatter"):
        pytest.skip("float_blur's bits are those of AVX2 or AVX-512")
    for shape in ((224, 224, 3), (500, 375, 3), (33, 50, 3), (28, 28, 1), (1, 1, 3)):
        found, wanted = on_both(point, photographs(5, shape))
        differs = (found != wanted).sum()
        assert differs == 0, f"{differs} of {found.size} bytes at {shape}"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("point", [p for p in POINTS if p.reads], ids=lambda point: point.spec)
def test_mistakes_of_reading(point, way):
    sizes = [(375, 500, 3), (64, 47, 3), (375, 500, 3), (31, 200, 1), (280, 300, 3)]
    decoded = [photographs(1, size, seed)[0] for seed, size in enumerate(sizes)]
    fitted = np.stack([WAYS[way].fit(picture) for picture in decoded])
    found, wanted = on_both(point, fitted, decoded, WAYS[way])
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("way", WAYS)
def test_what_the_graph_takes(way, tmp_path):
    pytest.importorskip("onnx")
    classifier = Classifier(net(tmp_path / "net.onnx", 1))
    shape = (*WAYS[way].crop, WAYS[way].channels)
    batch = np.random.default_rng(0).integers(0, 256, (6, *shape), np.uint8)
    card = classifier.card.__class__(
        preprocessing=WAYS[way], labels=classifier.card.labels, provenance={}, parity={}, opset=17
    )
    classifier.card = card
    assert np.array_equal(ready(torch.from_numpy(batch).cuda(), card).cpu().numpy(), classifier.tensor(batch))


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_a_whole_measurement(provider, tmp_path):
    """With the net on the CPU all is the cores', breaking points, too; with the net on the GPU but for its sums."""
    for package in ("onnx", "pyarrow", "tqdm"):
        pytest.importorskip(package)
    if reason := explain_provider(provider):
        pytest.skip(f"provider {provider}: {reason}")
    (tmp_path / "photos").mkdir()
    photos = write_photos(tmp_path / "photos")
    models = [
        net(tmp_path / "one.onnx", 1, scale=0.01),
        net(tmp_path / "two.onnx", 2, scale=0.01, resize="shorter-side", resize_size=40),
    ]
    transforms = None if provider == "cpu" else SOME
    found = measured(photos, models, tmp_path / "gpu", TorchBatches("cuda", size=8), 4, provider, transforms)
    wanted = measured(photos, models, tmp_path / "cores", None, 4, "cpu", transforms)
    if provider == "cpu":
        assert found == wanted
    for (answers, confidence, *_), (right, sure, *_) in zip(found, wanted, strict=True):
        # another order of sums may exchange two classes that are nearly as probable
        assert np.abs(np.subtract(confidence, sure)).max() < 0.02
        assert np.mean(np.equal(answers, right)) > 0.97
