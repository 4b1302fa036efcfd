"""A run folder: what was asked (run.json), where it stands (checkpoint), what came out (weights, metrics)."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hw4fast.data import Dataset
from hw4fast.errors import UserError
from hw4fast.files import RUN_MODEL, RUN_RECORD, free_sibling, settle, write_json, write_text, writing
from hw4fast.training.models import build
from hw4fast.training.settings import Settings

CHECKPOINT, WEIGHTS, METRICS = "checkpoint.safetensors", "weights.safetensors", "metrics.csv"


@dataclass
class Epoch:
    """One row of metrics.csv. train_*: means over the epoch as it ran (weights moving, dropout on); cost is the run's
    loss alone, without penalties; test_*: the whole test set after the epoch. *_last_*: the last batch alone, which is
    what the homework called its accuracy (of the test set, the last images in the order of the files)."""

    epoch: int
    train_cost: float
    train_accuracy: float
    train_last_accuracy: float
    test_cost: float
    test_correct: int
    test_images: int
    test_last_correct: int
    test_last_images: int
    seconds: float

    @property
    def test_accuracy(self) -> float:
        return self.test_correct / self.test_images


@dataclass
class State:
    """What a run needs to go on: finished epochs, weights, optimiser tensors, and the calls that the epochs took
    (`{kernel: {instruction set: calls}}`)."""

    history: list[Epoch] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    kernels: dict[str, dict[str, int]] = field(default_factory=dict)


def build_model(settings: Settings, data: Dataset) -> nn.Module:
    """The run's net, initialised from its seed."""
    torch.manual_seed(settings.seed)
    names = ("dropout", "batch_norm", "channels", "kernels")
    options = {name: getattr(settings, name) for name in names}
    shape = (data.preprocessing.channels, *data.preprocessing.crop)
    return build(settings.model, shape, len(data.class_names), options)


def save_state(folder: Path, state: State) -> None:
    """Writes metrics.csv, then the checkpoint, each whole or not at all. In this order a kill between them leaves
    a row too many, which the epoch's repetition replaces, and never one too few."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    names = [field.name for field in fields(Epoch)]
    writer.writerow(names)
    writer.writerows([getattr(epoch, name) for name in names] for epoch in state.history)
    write_text(folder / METRICS, table.getvalue())
    tensors = {f"weights/{name}": tensor.detach().contiguous() for name, tensor in state.weights.items()}
    tensors |= {f"optimizer/{name}": tensor.detach().contiguous() for name, tensor in state.optimizer.items()}
    history = [asdict(epoch) for epoch in state.history]
    with writing(folder / CHECKPOINT) as temporary:
        save_file(tensors, temporary, {"history": json.dumps(history), "kernels": json.dumps(state.kernels)})


def save_weights(folder: Path, weights: dict[str, Tensor]) -> None:
    """Writes the final weights. An exported model of others is removed: `classify` would take it for this run's."""
    path, before = folder / WEIGHTS, b""
    with contextlib.suppress(FileNotFoundError):
        before = path.read_bytes()
    with writing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary)
    if path.read_bytes() != before:
        (folder / RUN_MODEL).unlink(missing_ok=True)


def new_folder(wanted: Path, record: dict[str, Any]) -> Path:
    """Makes `wanted`, or its next free sibling, with the record in it: no kill leaves a folder without one, and of
    two runs that begin at once each gets its own."""
    free_sibling(wanted)  # refuses a name that is none before anything is made
    draft = wanted.parent / f".{wanted.name}-{secrets.token_hex(8)}"
    draft.mkdir(parents=True)
    save_record(draft, record)
    return settle(draft, wanted)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the run's lock, which ends with the process. Raises UserError when another process trains it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"another process is training {folder}; wait for it, or take another folder") from None
    finally:
        os.close(handle)


def load_state(folder: Path) -> State | None:
    """The last checkpoint; None when the run has not finished an epoch. Raises UserError when it is damaged."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    state = State()
    try:
        with safe_open(path, "pt") as file:
            state.history = [Epoch(**row) for row in json.loads(file.metadata()["history"])]
            state.kernels = json.loads(file.metadata()["kernels"])
            for key in file.keys():  # noqa: SIM118  safe_open is no mapping
                kind, name = key.split("/", 1)
                getattr(state, kind)[name] = file.get_tensor(key)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise damaged(path, error) from None
    return state


def damaged(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(f"{path} is damaged ({type(error).__name__}: {reason}); start the run again")


def save_record(folder: Path, record: dict[str, Any]) -> None:
    write_json(folder / RUN_RECORD, record)


def load_record(folder: Path) -> dict[str, Any]:
    """run.json as it stands. Raises UserError when `folder` is no run."""
    path = folder / RUN_RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        Settings.from_json(record["settings"])
        if not all(isinstance(record["data"][key], str) for key in ("name", "fingerprint")):
            raise TypeError("data")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} is no run folder (it has no {RUN_RECORD}); `hw4fast train` makes one") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from None
    return record


def how_to_resume(settings: Settings, folder: Path) -> str:
    """The command, fit to be copied into a shell."""
    return f"hw4fast train {settings.dataset} --resume --out {shlex.quote(str(folder))}"


def initialise(model: nn.Module, run: Path) -> None:
    """Gives `model` the weights of the finished run in the folder `run`. Raises UserError when they don't fit it."""
    weights = _finished_weights(run, load_record(run))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the weights of {run} don't fit this net: {reason}") from None


def load_model(folder: Path, data: Dataset) -> nn.Module:
    """The trained net of a finished run in torch's own modules, in evaluation mode. Raises UserError when it isn't
    finished."""
    record = load_record(folder)
    weights = _finished_weights(folder, record)
    with torch.random.fork_rng(devices=[]):  # the caller's own random numbers go on as they were
        model = build_model(replace(Settings.from_json(record["settings"]), kernels="torch"), data)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise damaged(folder / WEIGHTS, error) from None
    return model.eval()


def _finished_weights(folder: Path, record: dict[str, Any]) -> dict[str, Tensor]:
    """{name: tensor} of a run that is finished."""
    path = folder / WEIGHTS
    if record.get("status") != "finished" or not path.is_file():
        settings = Settings.from_json(record["settings"])
        raise UserError(f"{folder} is not finished; go on with: {how_to_resume(settings, folder)}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from None
