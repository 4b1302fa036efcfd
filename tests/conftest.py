"""What several tests need: tiny real models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHARPNESS = 0.02  # of the centroid model's softmax: right answers get about 0.9, not 1.0
# Files that take longest, first to begin: else the last of them keeps one worker busy while the others have ended.
LONGEST = (
    "emulated/test_conv_tensor.py",
    "homework/test_side_by_side.py",
    "homework/test_mnist.py",
    "training/test_finetune.py",
    "exporter/test_precision.py",
    "inference/test_hostile.py",
    "bench/test_bench.py",
    "test_cli.py",
    "homework/test_corn.py",
    "exporter/test_pixels.py",
    "nn/test_conv_block.py",
    "transforms/test_own.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A stable sort: every worker collects in the same order."""
    tests = Path(__file__).parent
    place = {tests / name: number for number, name in enumerate(LONGEST)}
    assert all(path.is_file() for path in place)
    items.sort(key=lambda item: place.get(item.path, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or fills the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("HW4FAST_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Studies of this process draw no plots, which takes most of a small one's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hw4fast.robustness.output._save_pictures", lambda *_: [])
        yield


@pytest.fixture(scope="session")
def centroid_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-describing ONNX file without torch: the nearest class mean on the digits' training split.

    −|x − μ|² = 2 μ·x − |μ|² up to what all classes share, so Flatten and Gemm are the whole model.
    """
    from hw4fast.data import load
    from hw4fast.inference.card import Card

    digits = load("digits")
    pictures = digits.preprocessing.normalise(digits.train.images).reshape(len(digits.train), -1)
    means = np.stack([pictures[digits.train.labels == digit].mean(0) for digit in range(10)])
    card = Card(
        preprocessing=digits.preprocessing,
        labels=digits.class_names,
        provenance={"model": "nearest class mean", "dataset": digits.name, "fingerprint": digits.fingerprint},
        parity={},
        opset=17,
    )
    path = tmp_path_factory.mktemp("model") / "centroid.onnx"
    write_linear_onnx(path, 2 * SHARPNESS * means, -SHARPNESS * (means**2).sum(1), card.to_json_text())
    return path


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished and exported run on digits; tests read it and never change it."""
    from hw4fast.exporter import export
    from hw4fast.training.settings import Settings
    from hw4fast.training.train import train

    settings = Settings(epochs=4, batch_size=50, batch_norm=True, threads=1)  # one: others may be busy here
    folder = train(settings, tmp_path_factory.mktemp("runs") / "digits", progress=False).folder
    export(folder)
    return folder


@pytest.fixture
def ctrl_c_in_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """`with ctrl_c_in_step(n):` a Ctrl-C comes in the n-th training step from here on."""
    from hw4fast.training import loop

    @contextmanager
    def within(step: int) -> Iterator[None]:
        steps, penalise = [], loop._penalise

        def ctrl_c(*arguments: Any) -> None:
            steps.append(1)
            if len(steps) == step:
                raise KeyboardInterrupt
            penalise(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(loop, "_penalise", ctrl_c)
            yield

    return within


def write_linear_onnx(
    path: Path, weight: np.ndarray, bias: np.ndarray, card: str | None, shape: tuple = ("n", 1, 28, 28)
) -> Path:
    """A model `input` float32 `shape` → Flatten → Gemm (weight [classes, features], bias) → `logits`.

    card: the text of the metadata, none if None.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["input"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
        ],
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], len(bias)])],
        [
            numpy_helper.from_array(np.asarray(weight, np.float32), "weight"),
            numpy_helper.from_array(np.asarray(bias, np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if card is not None:
        from hw4fast.inference.card import KEY

        helper.set_model_props(model, {KEY: card})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
