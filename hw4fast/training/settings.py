"""What can be set on a run, and what can't."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn

from hw4fast import kernels
from hw4fast.errors import UsageError, UserError
from hw4fast.nn import softmax_cross_entropy
from hw4fast.training.models import MODELS

# name → (class, default learning rate, whether it takes momentum)
OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], float, bool]] = {
    "sgd": (torch.optim.SGD, 0.1, True),
    "adagrad": (torch.optim.Adagrad, 0.001, False),
    "adam": (torch.optim.Adam, 0.001, False),
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hw4fast": softmax_cross_entropy,
    "torch": nn.functional.cross_entropy,
}
MAX_CHANNELS = 4096
MAX_SEED = 2**32 - 1  # (seed << 20) + epoch must fit into torch's 64 bits


@dataclass(frozen=True)
class Settings:
    """Every argument that a run's weights depend on. lr None: the optimiser's default (see OPTIMIZERS)."""

    dataset: str = "digits"
    model: str = "seed_cnn"
    epochs: int = 10
    batch_size: int = 100
    lr: float | None = None
    optimizer: str = "sgd"
    momentum: float = 0.0
    l1: float = 0.0
    l2: float = 1e-4
    dropout: float = 0.4
    batch_norm: bool = False
    channels: tuple[int, int] = (16, 32)
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"
    kernels: str = "hw4fast"

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Settings:
        """From a record. Raises TypeError or AttributeError for what `asdict` can't have written."""
        known = {field.name for field in fields(cls)}
        chosen: dict[str, Any] = {key: value[key] for key in known & value.keys()}
        if "channels" in chosen:
            chosen["channels"] = tuple(operator.index(width) for width in chosen["channels"])
        for key, given in chosen.items():
            kind = type(getattr(cls, key))
            if type(given) not in {NoneType: (int, float, NoneType), float: (int, float)}.get(kind, (kind,)):
                raise TypeError(f"{key} can't be {given!r}")
        return cls(**chosen)


def check(settings: Settings) -> None:
    """Raises UsageError for an unknown name or a value out of range, UserError for a device that can't be had."""
    s = settings
    MODELS.get(s.model)
    if s.optimizer not in OPTIMIZERS:
        raise UsageError(f"unknown optimizer '{s.optimizer}'; known: {', '.join(OPTIMIZERS)}")
    if s.kernels not in LOSSES:
        raise UsageError(f"unknown kernels '{s.kernels}'; known: {', '.join(LOSSES)}")
    if s.momentum and not OPTIMIZERS[s.optimizer][2]:
        raise UsageError(f"momentum goes with sgd, not with {s.optimizer}")
    _check_numbers(s)
    _check_device(s)


def _check_numbers(s: Settings) -> None:
    for name, low, high in (
        ("epochs", 1, math.inf),
        ("batch_size", 1, math.inf),
        ("seed", 0, MAX_SEED),
        ("l1", 0, math.inf),
        ("l2", 0, math.inf),
    ):
        if not low <= getattr(s, name) <= high or getattr(s, name) == math.inf:
            raise UsageError(f"{name} must lie in {low} … {high}, not be {getattr(s, name)}")
    for name in ("dropout", "momentum"):
        if not 0 <= getattr(s, name) < 1:
            raise UsageError(f"{name} must lie in 0 … 1 (below 1), not be {getattr(s, name)}")
    if s.lr is not None and not 0 < s.lr < math.inf:
        raise UsageError(f"lr must be positive, not {s.lr}")
    if s.threads is not None:
        kernels.check_threads(s.threads)
    if len(s.channels) != 2 or min(s.channels) < 1 or max(s.channels) > MAX_CHANNELS:
        raise UsageError(f"channels must be two numbers in 1 … {MAX_CHANNELS}, not {s.channels}")


def _check_device(s: Settings) -> None:
    if s.device == "cuda":
        if not torch.cuda.is_available():
            raise UserError("device cuda: torch finds no GPU here (`hw4fast info` says more); use --device cpu")
        if s.kernels == "hw4fast":
            raise UserError("device cuda: hw4fast's kernels run on the CPU only; add --kernels torch")
    elif s.device != "cpu":
        raise UsageError(f"device must be cpu or cuda, not '{s.device}'")
    if s.kernels == "hw4fast":
        try:
            kernels.chosen_isa()
        except ValueError as error:  # HW4FAST_ISA names what is not there
            raise UsageError(f"kernels hw4fast: {error}") from None
