"""What can be set on a run, and what can't."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any

import torch

from hw4fast import kernels
from hw4fast.errors import UsageError, UserError
from hw4fast.training.losses import CROSS_ENTROPIES, LOSSES
from hw4fast.training.models import MODELS
from hw4fast.training.models.pretrained import architectures
from hw4fast.training.optimizers import OPTIMIZERS

PRECISIONS = ("float32", "bfloat16")  # of a step's net and loss; weights and the optimiser stay float32
MAX_CHANNELS = 4096
AUXILIARY = ("googlenet", "inception_v3")  # of torchvision's nets: their losses are sums over several outputs
MAX_SEED = 2**32 - 1  # (seed << 20) + epoch must fit into torch's 64 bits


def _one_cycle(done: float, epochs: int) -> float:
    """Straight up from 1/25 to 1 in the first tenth of the steps, then straight down to 1/1000.

    Source: L. N. Smith, N. Topin, "Super-Convergence" (2018), with a shorter rise.
    """
    t, peak = done / epochs, 0.1
    return 1 / 25 + 24 / 25 * t / peak if t < peak else max(1e-3, (1 - t) / (1 - peak))


# tune → its stages, one after the other, each from the best weights of the one before
STAGES: dict[str, tuple[str, ...]] = {"all": ("all",), "head": ("head",), "head-then-all": ("head", "all")}
# name → factor of the learning rate, given how many epochs are done (a fraction on the way) of how many
SCHEDULES: dict[str, Callable[[float, int], float]] = {
    "constant": lambda done, epochs: 1.0,
    "one-cycle": _one_cycle,
    "stairs": lambda done, epochs: 0.7 ** int(done),  # the PyTorch example's StepLR(gamma=0.7)
}


@dataclass(frozen=True)
class Settings:
    """Every argument that a run's weights depend on.

    recipe: the name of the recipe that the others come from, None for none; it changes nothing by itself.
    lr None: the optimiser's default (see OPTIMIZERS). init: a finished run folder whose weights this one starts from.
    Of an architecture of torchvision's: weights (a file, see models.pretrained), preprocess (a preset's name) and tune:
    "all" layers, the "head" alone, or "head-then-all". patience: epochs without a lower validation cost after which a
    stage ends, None: never.
    """

    dataset: str = "digits"
    recipe: str | None = None
    model: str = "seed_cnn"
    epochs: int = 10
    batch_size: int = 100
    loss: str = "cross-entropy"
    label_smoothing: float = 0.0
    lr: float | None = None
    schedule: str = "constant"
    optimizer: str = "sgd"
    momentum: float = 0.0
    beta2: float = 0.999
    l1: float = 0.0
    l2: float = 1e-4
    dropout: float = 0.4
    batch_norm: bool = False
    channels: tuple[int, int] = (16, 32)
    seed: int = 0
    init: str | None = None
    weights: str | None = None
    preprocess: str | None = None
    tune: str = "all"
    patience: int | None = None
    threads: int | None = None
    device: str = "cpu"
    precision: str = "float32"
    kernels: str = "hw4fast"

    def __post_init__(self) -> None:
        if isinstance(self.device, torch.device):  # the first GPU has no number here
            name = str(self.device) if self.device.index else self.device.type
            object.__setattr__(self, "device", name)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Settings:
        """From a record. Raises TypeError or AttributeError for what `asdict` can't have written."""
        known = {field.name for field in fields(cls)}
        chosen: dict[str, Any] = {key: value[key] for key in known & value.keys()}
        if "channels" in chosen:
            chosen["channels"] = tuple(operator.index(width) for width in chosen["channels"])
        for key, given in chosen.items():
            kind = type(getattr(cls, key))
            words = ("recipe", "init", "weights", "preprocess")
            optional = (str, NoneType) if key in words else (int, float, NoneType)
            if type(given) not in {NoneType: optional, float: (int, float)}.get(kind, (kind,)):
                raise TypeError(f"{key} can't be {given!r}")
        return cls(**chosen)


def check(settings: Settings) -> None:
    """Raises UsageError for an unknown name or a value out of range, UserError for a device that can't be had."""
    s = settings
    _check_model(s)
    for name, known in (
        ("tune", STAGES),
        ("loss", LOSSES),
        ("optimizer", OPTIMIZERS),
        ("schedule", SCHEDULES),
        ("kernels", CROSS_ENTROPIES),
    ):
        if getattr(s, name) not in known:
            raise UsageError(f"unknown {name} '{getattr(s, name)}'; known: {', '.join(known)}")
    if s.momentum and not OPTIMIZERS[s.optimizer][2]:
        raise UsageError(f"momentum goes with sgd, not with {s.optimizer}")
    if s.beta2 != Settings.beta2 and s.optimizer != "adam":
        raise UsageError(f"beta2 goes with adam, not with {s.optimizer}")
    if s.label_smoothing and s.loss != "cross-entropy":
        raise UsageError(f"label_smoothing goes with cross-entropy, not with the loss {s.loss}")
    _check_numbers(s)
    _check_device(s)


def _check_model(s: Settings) -> None:
    """What goes with a net of ours, and what with an architecture of torchvision's."""
    if s.model in MODELS:
        own: tuple[str, ...] = ("weights", "preprocess", "tune")
    elif s.model in (known := architectures()):
        own = ("channels", "dropout", "batch_norm")
        if s.model in AUXILIARY:
            raise UsageError(f"{s.model} has more than one output in training; take another backbone")
    else:
        near = difflib.get_close_matches(s.model, [*MODELS, *known], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(MODELS)}, torchvision's"
        raise UsageError(f"unknown model '{s.model}'; {hint}")
    for name in own:
        if getattr(s, name) != getattr(Settings, name):
            raise UsageError(f"{name} doesn't go with the model {s.model}")


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
    for name in ("dropout", "label_smoothing", "beta2"):
        if not 0 <= getattr(s, name) < 1:
            raise UsageError(f"{name} must lie in 0 … 1 (below 1), not be {getattr(s, name)}")
    if not math.isfinite(s.momentum):
        raise UsageError(f"momentum must be finite, not {s.momentum}")
    if s.lr is not None and not 0 < s.lr < math.inf:
        raise UsageError(f"lr must be positive, not {s.lr}")
    if s.patience is not None and not 1 <= s.patience < math.inf:
        raise UsageError(f"patience must be 1 or more, not {s.patience}")
    if s.threads is not None:
        kernels.check_threads(s.threads)
    if len(s.channels) != 2 or min(s.channels) < 1 or max(s.channels) > MAX_CHANNELS:
        raise UsageError(f"channels must be two numbers in 1 … {MAX_CHANNELS}, not {s.channels}")


def _check_device(s: Settings) -> None:
    if s.device not in ("cpu", "cuda"):
        raise UsageError(f"device must be cpu or cuda, not {s.device!r}")
    if s.precision not in PRECISIONS:
        raise UsageError(f"precision must be {' or '.join(PRECISIONS)}, not '{s.precision}'")
    if s.precision != "float32" and s.device != "cuda":
        raise UsageError(f"the precision {s.precision} goes with device cuda")
    if s.device == "cuda":
        if not torch.cuda.is_available():
            raise UserError("device cuda: torch finds no GPU here (`hw4fast info` says more); use --device cpu")
        if s.kernels == "hw4fast" and (why := kernels.cuda_error()):
            raise UserError(f"device cuda: {why}; or add --kernels torch")
    if s.kernels == "hw4fast":
        try:
            kernels.chosen_isa()
        except ValueError as error:  # HW4FAST_ISA names what is not there
            raise UsageError(f"kernels hw4fast: {error}") from None
