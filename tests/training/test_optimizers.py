"""The optimisers are torch.optim's classes, bit for bit, without what these import."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from hw4fast.training.optimizers import KEPT, OPTIMIZERS, Optimizer
from hw4fast.training.settings import Settings

CASES = {
    "sgd": (torch.optim.SGD, {}, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}, {"momentum": 0.9}),
    "adagrad": (torch.optim.Adagrad, {"optimizer": "adagrad"}, {}),
    "adam": (torch.optim.Adam, {"optimizer": "adam", "beta2": 0.99}, {"betas": (0.9, 0.99)}),
    "adadelta": (torch.optim.Adadelta, {"optimizer": "adadelta"}, {}),
}


def weights() -> list[torch.nn.Parameter]:
    """The second is never trained, the third has no gradient in the second step."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((7, 3), (5,), (4,), (2, 2, 3, 3))]
    made[1].requires_grad_(False)
    made[3].data = made[3].data.contiguous(memory_format=torch.channels_last)
    return made


def give_gradients(some: list[torch.nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for number, weight in enumerate(some):
        grad = torch.randn(weight.shape, generator=generator)
        if number != 1 and (number, step) != (2, 2):
            weight.grad = grad


def made(case: str, rate: float = 0.05) -> tuple[Optimizer, torch.optim.Optimizer]:
    kind, settings, options = CASES[case]
    fused = {} if case == "adadelta" else {"fused": True}
    ours, theirs = weights(), weights()
    optimizer = Optimizer(Settings(**{"lr": rate, **settings}), ours)
    return optimizer, kind([w for w in theirs if w.requires_grad], lr=rate, **fused, **options)


@pytest.mark.parametrize("case", CASES)
def test_each_is_torchs_class(case):
    ours, theirs = made(case)
    own, their = ours.weights, theirs.param_groups[0]["params"]
    assert len(own) == len(their) == 3
    for step in range(1, 7):
        ours.zero_grad()
        theirs.zero_grad()
        assert all(weight.grad is None for weight in own)
        for some in (own, their):
            give_gradients([some[0], torch.nn.Parameter(torch.zeros(5)), *some[1:]], step)
        ours.rate = theirs.param_groups[0]["lr"] = 0.1 / step
        ours.step()
        theirs.step()
        assert all(torch.equal(one, other) for one, other in zip(own, their, strict=True))
    kept = {f"{n}/{key}": value for n, state in theirs.state_dict()["state"].items() for key, value in state.items()}
    found = ours.tensors()
    assert found.keys() == {key for key, value in kept.items() if value is not None}
    assert all(torch.equal(tensor, kept[key]) for key, tensor in found.items())
    assert {key.partition("/")[2] for key in found} == (set() if case == "sgd" else set(KEPT[ours.settings.optimizer]))


@pytest.mark.parametrize("case", CASES)
def test_loaded_it_goes_on(case):
    ours, _ = made(case)
    other, _ = made(case)
    for step in (1, 2):
        give_gradients([ours.weights[0], torch.nn.Parameter(torch.zeros(5)), *ours.weights[1:]], step)
        ours.step()
    other.load({key: tensor.double() for key, tensor in ours.tensors().items()})  # of another dtype, and copies
    for one, two in zip(ours.weights, other.weights, strict=True):
        two.data.copy_(one.data)
    for optimizer in (ours, other):
        optimizer.zero_grad()
        give_gradients([optimizer.weights[0], torch.nn.Parameter(torch.zeros(5)), *optimizer.weights[1:]], 3)
        optimizer.step()
    assert all(torch.equal(one, two) for one, two in zip(ours.weights, other.weights, strict=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda kept: kept.update({"0/exp_avg": torch.zeros(3, 7)}), "another shape"),
        (lambda kept: kept.update({"0/sum": torch.zeros(7, 3)}), "not of adam"),
        (lambda kept: kept.pop("1/step"), "missing"),
        (lambda kept: [kept.pop(key) for key in list(kept) if key.startswith("2/")], "of 2 parameters, not 3"),
        (lambda kept: kept.update({"3/step": torch.tensor(1.0)}), "index out of range"),
        (lambda kept: kept.update({"first/step": torch.tensor(1.0)}), "invalid literal"),
        (lambda kept: kept.update({"0/step": torch.zeros(2)}), "another shape"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change, words):
    ours, _ = made("adam")
    give_gradients([ours.weights[0], torch.nn.Parameter(torch.zeros(5)), *ours.weights[1:]], 1)
    ours.step()
    before, kept = ours.state, ours.tensors()
    change(kept)
    with pytest.raises((ValueError, IndexError), match=words):
        ours.load(kept)
    assert ours.state is before


def test_the_usual_rate_is_the_optimisers():
    for name, (_, rate, _) in OPTIMIZERS.items():
        assert Optimizer(Settings(optimizer=name, lr=None), weights()).rate == rate


SCRIPT = """
import sys
from hw4fast import Settings, train
train(Settings(dataset="digits", epochs=1, optimizer="{optimizer}", channels=(2, 2)), out=r"{out}", progress=False)
print([name for name in ("torch._dynamo", "sympy", "sklearn", "scipy", "pandas") if name in sys.modules])
"""


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_run_imports_no_compiler(optimizer, tmp_path):
    """Seconds of every run's start."""
    script = SCRIPT.format(optimizer=optimizer, out=tmp_path / "run")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
