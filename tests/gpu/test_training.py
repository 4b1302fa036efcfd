"""Training on a GPU: captured steps are the plain ones, a resumed run is an uninterrupted one."""

import copy
import json

import pytest
import torch

from hw4fast.cli import main
from hw4fast.data import load
from hw4fast.training import loop
from hw4fast.training.models import MODELS
from hw4fast.training.optimizers import OPTIMIZERS, Optimizer
from hw4fast.training.progress import Bar
from hw4fast.training.settings import Settings


def run(settings, net, train, capture, epochs):
    steps = loop.graphed_steps(settings, net, Optimizer(settings, net.parameters()), train, capture)
    with Bar(len(train), epochs, 0, False) as bar:
        return [loop._graphed_epoch(settings, net, steps, number, bar) for number in range(1, epochs + 1)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("whose", "batch_norm"), [("hw4fast", False), ("hw4fast", True), ("torch", False)], ids=str)
def test_captured_steps_are_the_plain_ones(optimizer, whose, batch_norm):
    momentum = 0.1 if optimizer == "sgd" else 0.0
    settings = Settings(
        device="cuda", optimizer=optimizer, lr=OPTIMIZERS[optimizer][1], momentum=momentum, dropout=0.0, kernels=whose
    )
    data = load("digits")
    train = loop.Pictures(data, data.train, torch.device("cuda"))
    torch.manual_seed(0)
    p = data.preprocessing
    options = {"dropout": 0.0, "kernels": whose, "batch_norm": batch_norm}
    net = MODELS.get("seed_cnn")((p.channels, *p.crop), len(data.class_names), **options).cuda()
    other = copy.deepcopy(net)
    found, expected = run(settings, net, train, True, 3), run(settings, other, train, False, 3)
    for one, two in zip(found, expected, strict=True):
        assert one == pytest.approx(two, rel=1e-3)
    assert found[-1][0] < found[0][0]


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "weights.safetensors")


@pytest.mark.parametrize(
    "options",
    [["--precision", "float32"], ["--precision", "bfloat16"], ["--kernels", "torch"], ["--batch-norm"]],
    ids=str,
)
def test_a_resumed_run_is_an_uninterrupted_one(tmp_path, options, capsys):
    common = ["train", "digits", "--device", "cuda", "--json", *options]
    assert main([*common, "--epochs", "3", "--out", str(tmp_path / "whole")]) == 0
    assert main([*common, "--epochs", "2", "--out", str(tmp_path / "part")]) == 0
    assert main([*common, "--epochs", "3", "--resume", "--out", str(tmp_path / "part")]) == 0
    whole, part = weights(tmp_path / "whole"), weights(tmp_path / "part")
    for name, weight in whole.items():
        torch.testing.assert_close(part[name], weight, rtol=1e-3, atol=1e-4)
    result = json.loads((tmp_path / "whole" / "run.json").read_text())["result"]
    assert result["test_correct"] / result["test_images"] > 0.3  # three epochs of few pictures: 40 … 95 % on a CPU


def test_a_diverging_run_says_so(tmp_path, capsys):
    assert main(["train", "digits", "--device", "cuda", "--lr", "1e30", "--out", str(tmp_path / "run")]) == 1
    assert "no longer finite" in capsys.readouterr().err
