"""A run folder: what was asked (run.json), where it stands (checkpoint), what came out (weights, metrics)."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hw4fast.data import Dataset
from hw4fast.errors import UserError
from hw4fast.files import write_json, write_text, writing
from hw4fast.training.models import build

CHECKPOINT, WEIGHTS, RECORD, METRICS = "checkpoint.safetensors", "weights.safetensors", "run.json", "metrics.csv"


@dataclass(frozen=True)
class Settings:
    """Every argument that a run's weights depend on. lr None: the optimiser's default (see train.OPTIMIZERS)."""

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
        known = {field.name for field in fields(cls)}
        chosen: dict[str, Any] = {key: value[key] for key in known & value.keys()}
        if "channels" in chosen:
            chosen["channels"] = tuple(chosen["channels"])
        return cls(**chosen)


@dataclass
class Epoch:
    """One row of metrics.csv. train_*: means over the epoch as it ran (weights moving, dropout on); cost is the
    cross-entropy alone, without penalties; test_*: the whole test set after the epoch."""

    epoch: int
    train_cost: float
    train_accuracy: float
    test_cost: float
    test_correct: int
    test_images: int
    seconds: float

    @property
    def test_accuracy(self) -> float:
        return self.test_correct / self.test_images


@dataclass
class State:
    """What a run needs to go on: finished epochs, weights, optimiser tensors."""

    history: list[Epoch]
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def build_model(settings: Settings, data: Dataset) -> nn.Module:
    """The run's net, initialised from its seed."""
    torch.manual_seed(settings.seed)
    options = {"dropout": settings.dropout, "batch_norm": settings.batch_norm, "channels": settings.channels}
    shape = (data.preprocessing.channels, *data.preprocessing.crop)
    return build(settings.model, shape, len(data.class_names), options)


def save_state(folder: Path, state: State) -> None:
    """Writes the checkpoint, whole or not at all, and metrics.csv."""
    tensors = {f"weights/{name}": tensor.detach().contiguous() for name, tensor in state.weights.items()}
    tensors |= {f"optimizer/{name}": tensor.detach().contiguous() for name, tensor in state.optimizer.items()}
    with writing(folder / CHECKPOINT) as temporary:
        save_file(tensors, temporary, {"history": json.dumps([asdict(epoch) for epoch in state.history])})
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    names = [field.name for field in fields(Epoch)]
    writer.writerow(names)
    writer.writerows([getattr(epoch, name) for name in names] for epoch in state.history)
    write_text(folder / METRICS, table.getvalue())


def load_state(folder: Path) -> State | None:
    """The last checkpoint; None when the run has not finished an epoch. Raises UserError when it is damaged."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    state = State([], {}, {})
    try:
        with safe_open(path, "pt") as file:
            state.history = [Epoch(**row) for row in json.loads(file.metadata()["history"])]
            for key in file.keys():  # noqa: SIM118  safe_open is no mapping
                kind, name = key.split("/", 1)
                getattr(state, kind)[name] = file.get_tensor(key)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); start the run again") from None
    return state


def save_record(folder: Path, record: dict[str, Any]) -> None:
    write_json(folder / RECORD, record)


def load_record(folder: Path) -> dict[str, Any]:
    """run.json as it stands. Raises UserError when `folder` is no run."""
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        Settings.from_json(record["settings"])
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} is no run folder (it has no {RECORD}); `hw4fast train` makes one") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r})") from None
    return record


def load_model(folder: Path, data: Dataset) -> nn.Module:
    """The trained net of a finished run, in evaluation mode. Raises UserError when it has no weights yet."""
    record = load_record(folder)
    settings = Settings.from_json(record["settings"])
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(
            f"{folder} is not finished; go on with `hw4fast train {settings.dataset} --resume --out {folder}`"
        )
    model = build_model(settings, data)
    try:
        with safe_open(path, "pt") as file:
            model.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(f"{path} does not fit the run's net: {error}") from None
    return model.eval()
