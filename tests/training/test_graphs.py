"""The steps that a GPU captures, run one after the other on the CPU: they are those of the ordinary loop."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from hw4fast.data import load
from hw4fast.training import loop
from hw4fast.training.graphs import can_capture
from hw4fast.training.models import MODELS
from hw4fast.training.optimizers import OPTIMIZERS, Optimizer
from hw4fast.training.progress import Bar
from hw4fast.training.settings import Settings


def nets(settings):
    data = load(settings.dataset)
    torch.manual_seed(settings.seed)
    p = data.preprocessing
    net = MODELS.get(settings.model)((p.channels, *p.crop), len(data.class_names), kernels=settings.kernels)
    return loop.Pictures(data, data.train, torch.device("cpu")), net, copy.deepcopy(net)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_they_are_the_loops(optimizer, schedule):
    lr = OPTIMIZERS[optimizer][1]
    momentum = 0.1 if optimizer == "sgd" else 0.0
    settings = Settings(
        optimizer=optimizer, schedule=schedule, lr=lr, momentum=momentum, epochs=2, l1=1e-4, batch_size=64
    )
    if optimizer == "adagrad" and schedule != "constant":
        pytest.skip("such steps are never captured")
    train, ours, theirs = nets(settings)
    steps = loop.graphed_steps(settings, ours, Optimizer(settings, ours.parameters()), train, capture=False)
    optimizer_of_theirs = Optimizer(settings, theirs.parameters())
    with Bar(len(train), 2, 0, False) as bar:
        for number in (1, 2):
            found = loop._graphed_epoch(settings, ours, steps, number, bar)
            expected = loop._epoch(settings, theirs, optimizer_of_theirs, train, number, bar)
            # the rate is a float32, and Adam makes a tenfold difference of roundings by its second epoch
            far = 10 if optimizer == "adam" and number == 2 else 1
            assert found == pytest.approx(expected, rel=1e-4 * far)
            for name, weight in ours.state_dict().items():
                other = theirs.state_dict()[name]
                assert (weight - other).norm() <= 2e-3 * far * other.norm()


def test_a_loss_that_is_not_finite_names_its_step():
    settings = Settings(lr=1e30, epochs=1, l2=0.0)
    train, ours, theirs = nets(settings)
    steps = loop.graphed_steps(settings, ours, Optimizer(settings, ours.parameters()), train, capture=False)
    with Bar(len(train), 1, 0, False) as bar:
        with pytest.raises(loop.Diverged) as found:
            loop._graphed_epoch(settings, ours, steps, 1, bar)
        with pytest.raises(loop.Diverged) as expected:
            loop._epoch(settings, theirs, Optimizer(settings, theirs.parameters()), train, 1, bar)
    assert found.value.step == expected.value.step
    assert math.isnan(found.value.loss)


def test_what_can_be_captured():
    assert not can_capture(Settings())
    assert can_capture(Settings(device="cuda"))
    assert can_capture(Settings(device="cuda", optimizer="adagrad"))
    assert not can_capture(Settings(device="cuda", optimizer="adagrad", schedule="one-cycle"))


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam"])  # Adadelta's capturable steps want a GPU
def test_a_step_asks_the_device_nothing(optimizer):
    """What a capture would refuse: tensors without numbers raise where one is wanted."""
    settings = Settings(optimizer=optimizer, lr=0.1, l1=1e-3, batch_size=100)
    with FakeTensorMode():
        net = MODELS.get("seed_cnn")((1, 28, 28), 10, kernels="hw4fast")
        images, labels = torch.zeros(250, 28, 28, 1, dtype=torch.uint8), torch.zeros(250, dtype=torch.int64)
        train = loop.Pictures.__new__(loop.Pictures)
        train.images, train.labels = images, labels
        train._mean, train._std = torch.zeros(1), torch.ones(1)
        steps = loop.graphed_steps(
            settings, net, Optimizer(replace(settings, device="cuda"), net.parameters()), train, False
        )
        for size in (100, 100, 50):
            steps._step(size)
        with pytest.raises(DataDependentOutputException):
            steps.at.item()
