"""The optimisers: torch's functions for their steps, and what they remember of each weight.

torch.optim's classes call these very functions. But a class's first step imports torch._dynamo, for the sake of
torch.compile: as long as torch itself takes to start, of every run, and several times the work of a short one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.adadelta import adadelta
from torch.optim.adagrad import adagrad
from torch.optim.adam import adam
from torch.optim.sgd import sgd

if TYPE_CHECKING:
    from hw4fast.training.settings import Settings

Step = Callable[["Optimizer", list[Tensor], list[Tensor], list[dict[str, Tensor]]], None]


class Optimizer:
    """Of those weights that are trained, as `settings` say.

    rate: the learning rate; a float, or a tensor, which a captured step reads anew. state: {number of a weight: {name:
    tensor}}, named as in torch.optim and made in the first step: momentum buffers, moments, counts of steps.
    """

    def __init__(self, settings: Settings, weights: Iterable[torch.nn.Parameter]) -> None:
        self.settings, self.weights = settings, [weight for weight in weights if weight.requires_grad]
        self.rate: float | Tensor = settings.lr or OPTIMIZERS[settings.optimizer][1]
        self.state: dict[int, dict[str, Tensor]] = {}
        self.on_gpu = settings.device == "cuda"
        self._step = OPTIMIZERS[settings.optimizer][0]

    def zero_grad(self) -> None:
        for weight in self.weights:
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Changes every weight that has a gradient."""
        numbers = [number for number, weight in enumerate(self.weights) if weight.grad is not None]
        weights = [self.weights[number] for number in numbers]
        states = [self.state.setdefault(number, {}) for number in numbers]
        self._step(self, [*weights], [weight.grad for weight in weights if weight.grad is not None], states)

    def tensors(self) -> dict[str, Tensor]:
        """{number of a weight/name: tensor}."""
        return {f"{number}/{name}": value for number, state in self.state.items() for name, value in state.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `tensors`. Raises ValueError and IndexError for tensors that don't fit."""
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            number, _, name = key.partition("/")
            weight = self.weights[int(number)]
            if name not in KEPT[self.settings.optimizer]:
                raise ValueError(f"optimizer/{key} is not of {self.settings.optimizer}")
            if tensor.shape != (() if name == "step" else weight.shape):
                raise ValueError(f"optimizer/{key} has another shape than its parameter")
            dtype = torch.float32 if name == "step" else weight.dtype
            state.setdefault(int(number), {})[name] = tensor.to(self._place(name, weight), dtype)
        if state and len(state) != len(self.weights):
            raise ValueError(f"optimizer tensors of {len(state)} parameters, not {len(self.weights)}")
        if any(kept.keys() != set(KEPT[self.settings.optimizer]) for kept in state.values()):
            raise ValueError("optimizer tensors of some parameters are missing")
        self.state = state

    def _place(self, name: str, weight: Tensor) -> torch.device:
        """torch's Adagrad on a GPU counts its steps on the host."""
        return torch.device("cpu") if name == "step" and self.settings.optimizer == "adagrad" else weight.device

    @property
    def common(self) -> dict[str, Any]:
        """What all of torch's functions ask for."""
        return {"lr": self.rate, "weight_decay": 0.0, "maximize": False}

    def columns(self, weights: Sequence[Tensor], states: Sequence[dict[str, Tensor]]) -> list[list[Tensor]]:
        """A list for each of KEPT, as long as the weights; zeros where there were none."""
        names = KEPT[self.settings.optimizer]
        for weight, state in zip(weights, states, strict=True):
            for name in names:
                if name not in state:
                    place = self._place(name, weight)
                    state[name] = torch.tensor(0.0).to(place) if name == "step" else torch.zeros_like(weight)
        return [[state[name] for state in states] for name in names]


# optimiser → what it keeps of a weight: as large as that, but for `step`, a number
KEPT: dict[str, tuple[str, ...]] = {
    "sgd": ("momentum_buffer",),
    "adagrad": ("step", "sum"),
    "adam": ("step", "exp_avg", "exp_avg_sq"),
    "adadelta": ("step", "square_avg", "acc_delta"),
}


def _sgd(o: Optimizer, weights: list[Tensor], grads: list[Tensor], states: list[dict[str, Tensor]]) -> None:
    momentum = o.settings.momentum
    buffers = [state.get("momentum_buffer") for state in states] if momentum else []  # none before the first step
    sgd(weights, grads, buffers, fused=True, momentum=momentum, dampening=0.0, nesterov=False, **o.common)
    for state, buffer in zip(states, buffers, strict=bool(momentum)):
        assert buffer is not None
        state["momentum_buffer"] = buffer


def _adagrad(o: Optimizer, weights: list[Tensor], grads: list[Tensor], states: list[dict[str, Tensor]]) -> None:
    steps, sums = o.columns(weights, states)
    how: dict[str, Any] = {"foreach": True} if o.on_gpu else {"fused": True}  # a fused one is the CPU's alone
    adagrad(weights, grads, sums, steps, lr_decay=0.0, eps=1e-10, **how, **o.common)


def _adam(o: Optimizer, weights: list[Tensor], grads: list[Tensor], states: list[dict[str, Tensor]]) -> None:
    steps, means, squares = o.columns(weights, states)
    how: dict[str, Any] = {"fused": True, "capturable": o.on_gpu, "amsgrad": False}
    how |= {"beta1": 0.9, "beta2": o.settings.beta2, "eps": 1e-8}
    adam(weights, grads, means, squares, [], steps, **how, **o.common)


def _adadelta(o: Optimizer, weights: list[Tensor], grads: list[Tensor], states: list[dict[str, Tensor]]) -> None:
    steps, squares, deltas = o.columns(weights, states)
    how: dict[str, Any] = {"foreach": o.on_gpu, "capturable": o.on_gpu}  # torch has no fused one
    adadelta(weights, grads, squares, deltas, steps, rho=0.9, eps=1e-6, **how, **o.common)


# name → (its step, default learning rate, whether it takes momentum)
OPTIMIZERS: dict[str, tuple[Step, float, bool]] = {
    "sgd": (_sgd, 0.1, True),
    "adagrad": (_adagrad, 0.001, False),
    "adam": (_adam, 0.001, False),
    "adadelta": (_adadelta, 1.0, False),
}
