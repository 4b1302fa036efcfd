"""onnxruntime's CUDA provider: the CPU's answers, CUDA graphs, threads, and tensors that are read where they lie.

squeezenet1_1 comes from HW4FAST_DATA (models/squeezenet1_1.onnx and imagenet_classes.csv), where that is set.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from hw4fast.data.preprocessing import PRESETS
from hw4fast.errors import UserError
from hw4fast.exporter.precision import half
from hw4fast.inference.binding import SHAPES
from hw4fast.inference.card import KEY, Card
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.known import model_folders
from hw4fast.inference.session import PROVIDERS, explain_provider
from hw4fast.nn import fit
from tests.inference.nets import Net

AWAY = {"float32": 1e-3, "float16": 1e-2}  # of the largest logit: how far from the CPU's float32
AGAIN = 1e-4  # on the GPU once more: sums may come in another order
SIDE, CLASSES = 48, 12


@pytest.fixture(scope="module", autouse=True)
def provider():
    if reason := explain_provider("cuda"):
        pytest.skip(f"onnxruntime runs on no GPU here: {reason}")


def small(path: Path) -> Path:
    """Convolutions with and without groups, pools, a concatenation, a Gemm: `x` [n, 3, 48, 48] → `logits` [n, 12]."""
    net = Net(SIDE)
    x = net.add("Relu", net.conv("x", 3, 16, 3, strides=[2, 2]))
    x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.add("Concat", net.conv(x, 16, 16, 3, group=16), net.add("Relu", net.conv(x, 16, 24)), axis=1)
    x = net.add("Flatten", net.add("GlobalAveragePool", net.add("Relu", net.conv(x, 40, 32, 3))))
    weights = net.rng.standard_normal((32, CLASSES)).astype(np.float32)
    x = net.add("Gemm", x, net.constant(weights), net.constant(np.zeros(CLASSES, np.float32)))
    model = onnx.load(net.write(path, x, batch="n"))
    kind = onnx.helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, ["n", CLASSES])
    model.graph.output[0].CopyFrom(kind)
    way = replace(PRESETS["stretch"], crop=(SIDE, SIDE))
    card = Card(way, tuple(map(str, range(CLASSES))), {}, {}, 17)
    card = replace(card, input=replace(card.input, name="x"), output=replace(card.output, name=x))
    return written(model, card, path)


def written(model: onnx.ModelProto, card: Card, path: Path) -> Path:
    onnx.helper.set_model_props(model, {KEY: card.to_json_text()})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module", params=["small", "squeezenet1_1"])
def files(request, tmp_path_factory) -> dict[str, Path]:
    """{precision: file} of a net."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "small":
        file = small(folder / "float32.onnx")
    else:
        places = (place / f"{request.param}.onnx" for place in model_folders())
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            pytest.skip(f"HW4FAST_DATA has no models/{request.param}.onnx")
    card = Classifier(file).card
    return {"float32": file, "float16": written(half(onnx.load(file)), card, folder / "float16.onnx")}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return small(tmp_path_factory.mktemp("one") / "small.onnx")


def photos(n: int, height: int = 150, width: int = 200) -> np.ndarray:
    """uint8 [n, h, w, 3]: patches of colour, no two the same."""
    rows = np.random.default_rng(n).integers(0, 256, (n, height // 10, width // 10, 3), np.uint8)
    return rows.repeat(10, 1).repeat(10, 2)


def pictures(classifier: Classifier, n: int) -> np.ndarray:
    return np.stack([classifier.fit(photo) for photo in photos(n)])


def agree(found: np.ndarray, right: np.ndarray, away: float) -> None:
    """As close as that, and the same classes where the two best aren't as close to each other."""
    assert found.dtype == np.float32 and found.shape == right.shape
    allowed = away * np.abs(right).max()
    assert np.abs(found - right).max() <= allowed
    best = np.sort(right, axis=1)
    clear = best[:, -1] - best[:, -2] > 2 * allowed
    assert np.array_equal(found.argmax(1)[clear], right.argmax(1)[clear])


@pytest.mark.parametrize("precision", AWAY)
@pytest.mark.parametrize("n", [1, 2, 7, 32])
def test_the_cpus_answers(files, precision, n):
    here, there = Classifier(files["float32"]), Classifier(files[precision], "cuda")
    assert there.provider == "cuda" and there._session.get_providers()[0] == PROVIDERS["cuda"]
    batch = pictures(here, n)
    agree(there.logits(batch), here.logits(batch), AWAY[precision])


@pytest.mark.parametrize("precision", AWAY)
def test_photographs_on_the_gpu(files, precision):
    here, there = Classifier(files["float32"]), Classifier(files[precision], "cuda")
    for n in (1, 9):
        fitted = fit(torch.from_numpy(photos(n)).cuda(), there.card.preprocessing)
        agree(there.logits(fitted), here.logits(pictures(here, n)), AWAY[precision])
    several = [photos(1, *size)[0] for size in ((150, 200), (90, 300), (400, 110))]
    fitted = fit([torch.from_numpy(photo).cuda() for photo in several], there.card.preprocessing)
    agree(there.logits(fitted), here.logits(np.stack([here.fit(one) for one in several])), AWAY[precision])


def test_neither_tf32_nor_a_search_unless_told(model):
    asked = {"use_tf32": "1", "cudnn_conv_algo_search": "EXHAUSTIVE"}
    for options, tf32, search in ((None, "0", "HEURISTIC"), (asked, "1", "EXHAUSTIVE")):
        found = Classifier(model, "cuda", options=options)._session.get_provider_options()[PROVIDERS["cuda"]]
        assert (found["use_tf32"], found["cudnn_conv_algo_search"]) == (tf32, search)


def test_answers_are_the_callers(model):
    there = Classifier(model, "cuda")
    batch = pictures(there, 5)
    first = there.logits(batch)
    kept = first.copy()
    again = there.logits(255 - batch)
    assert np.array_equal(first, kept) and not np.array_equal(again, first)


def test_several_threads(model):
    here, there = Classifier(model), Classifier(model, "cuda")
    batches = [pictures(here, 1 + n % 6) for n in range(48)]
    right = [here.logits(batch) for batch in batches]

    def tensor(batch):
        return there.logits(torch.from_numpy(here.tensor(batch)).cuda())

    for ask in (there.logits, tensor):
        with ThreadPoolExecutor(6) as pool:
            for found, expected in zip(pool.map(ask, batches), right, strict=True):
                agree(found, expected, AWAY["float32"])


def test_what_torch_has_only_begun_is_waited_for(model):
    there = Classifier(model, "cuda")
    wanted = torch.rand(8, 3, SIDE, SIDE, device="cuda")
    right = there.logits(wanted)
    work = torch.rand(4096, 4096, device="cuda")
    for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            late = torch.zeros_like(wanted)
            for _ in range(20):
                work @ work
            late.copy_(wanted)
            found = there.logits(late)
        agree(found, right, AGAIN)


@pytest.mark.parametrize("precision", AWAY)
def test_cuda_graphs(files, precision):
    here = Classifier(files["float32"])
    there = Classifier(files[precision], "cuda", options={"enable_cuda_graph": "1"})
    for turn in range(3):
        for n in (1, 4, 7):
            batch = pictures(here, n) // (1 + turn)
            agree(there.logits(batch), here.logits(batch), AWAY[precision])
            on_gpu = torch.from_numpy(here.tensor(batch)).cuda()
            agree(there.logits(on_gpu), here.logits(batch), AWAY[precision])
    assert len(there._bound._graphs) == SHAPES
    right = here.logits(pictures(here, 4))
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(there.logits, [pictures(here, 4)] * 16):
            agree(found, right, AWAY[precision])


def test_tensors_that_lie_or_are_otherwise(model):
    here, there = Classifier(model), Classifier(model, "cuda")
    tensor = torch.rand(4, 3, SIDE, SIDE)
    with pytest.raises(ValueError, match="the tensor is on cpu, but the model runs on cuda:0; move it there"):
        there.logits(tensor)
    with pytest.raises(ValueError, match="the model runs on cpu and takes NumPy arrays"):
        here.logits(tensor.cuda())
    for wrong in (tensor.half(), tensor[:, :2], tensor[0], tensor.permute(0, 2, 3, 1)):
        with pytest.raises(ValueError, match=r"the tensor must be float32 \[n, 3, 48, 48\], not"):
            there.logits(wrong.cuda())
    turned = tensor.cuda().to(memory_format=torch.channels_last)
    agree(there.logits(turned), there.logits(tensor.numpy()), AGAIN)
    assert there.logits(turned[:0]).shape == (0, CLASSES)


def test_too_many_pictures(model):
    there = Classifier(model, "cuda", options={"gpu_mem_limit": str(2**29)})
    assert there.logits(np.zeros((1, SIDE, SIDE, 3), np.uint8)).shape == (1, CLASSES)
    # 737 MB after the first convolution
    with pytest.raises(UserError, match=r"failed on a batch of 19999: .*; give it fewer pictures at a time"):
        there.logits(np.zeros((19999, SIDE, SIDE, 3), np.uint8))
