"""A run folder: what was asked (run.json), where it stands (checkpoint), what came out (weights, metrics)."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import secrets
import shlex
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hw4fast import data as datasets
from hw4fast.data import Dataset
from hw4fast.errors import UserError
from hw4fast.files import RUN_MODEL, RUN_RECORD, free_sibling, settle, write_json, write_text, writing
from hw4fast.training.models import MODELS, build
from hw4fast.training.models.backbone import backbone, bare
from hw4fast.training.settings import Settings

CHECKPOINT, WEIGHTS, METRICS = "checkpoint.safetensors", "weights.safetensors", "metrics.csv"


@dataclass
class Epoch:
    """One row of metrics.csv. stage: what was trained, "all" layers or the "head".

    train_*: means over the epoch as it ran (weights moving, dropout on); cost is the run's loss alone, without
    penalties. val_*: the validation split after the epoch, where there is one; else test_*: the whole test set.
    *_last_*: the last batch alone, which is what the homework called its accuracy (of the test set, the last images in
    the order of the files).
    """

    epoch: int
    stage: str
    train_cost: float
    train_accuracy: float
    train_last_accuracy: float
    seconds: float
    val_cost: float | None = None
    val_correct: int | None = None
    val_images: int | None = None
    test_cost: float | None = None
    test_correct: int | None = None
    test_images: int | None = None
    test_last_correct: int | None = None
    test_last_images: int | None = None

    @property
    def held_out(self) -> tuple[str, float, int, int]:
        """(split, cost, correct, images) of the split that was looked at after the epoch."""
        split = "test" if self.val_images is None else "val"
        cost, correct, images = (getattr(self, f"{split}_{name}") for name in ("cost", "correct", "images"))
        return split, cost, correct, images


@dataclass
class State:
    """What a run needs to go on: finished epochs, weights, optimiser tensors, the weights of the epoch with the lowest
    validation cost (empty without a validation split), the calls that the epochs took
    (`{kernel: {instruction set: calls}}`), and whether a folded batch normalisation was undone."""

    history: list[Epoch] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    kernels: dict[str, dict[str, int]] = field(default_factory=dict)
    unfolded: bool = False


def build_model(settings: Settings, data: Dataset) -> nn.Module:
    """The run's net, initialised from its seed; an architecture of torchvision's with its trained weights and a new
    last layer."""
    torch.manual_seed(settings.seed)
    if settings.model not in MODELS:
        return backbone(settings.model, len(data.class_names), settings.weights)[0]
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
    tensors |= {f"best/{name}": tensor.detach().contiguous() for name, tensor in state.best.items()}
    history = [asdict(epoch) for epoch in state.history]
    words = {"history": history, "kernels": state.kernels, "unfolded": state.unfolded}
    with writing(folder / CHECKPOINT) as temporary:
        save_file(tensors, temporary, {name: json.dumps(value) for name, value in words.items()})


class Checkpoints:
    """`save_state` after each epoch, but in at most a tenth of the time: an epoch that is over sooner is held in memory
    until a later one is written, or until the `with` block ends, be it by Ctrl-C. A kill loses these few epochs."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._due = folder, 0.0
        self._held: State | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._held is None:
            return
        try:
            save_state(self._folder, self._held)
        except (SafetensorError, OSError):
            if error is None:  # else that one is told
                raise

    def keep(self, state: State) -> None:
        begun = time.perf_counter()
        if begun < self._due:
            weights, optimizer = ({k: v.clone() for k, v in part.items()} for part in (state.weights, state.optimizer))
            self._held = replace(state, history=list(state.history), weights=weights, optimizer=optimizer)
            return
        self._held = state  # should Ctrl-C come while it is written
        save_state(self._folder, state)
        self._held = None
        now = time.perf_counter()
        self._due = now + 9 * (now - begun)


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
            state.unfolded = json.loads(file.metadata().get("unfolded", "false"))
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


def load_data(record: dict[str, Any]) -> Dataset:
    """The data set of a run's record. Raises UserError when it can't be had or is no longer what it was."""
    settings = Settings.from_json(record["settings"])
    data = datasets.load(settings.dataset, settings.preprocess)
    if data.fingerprint != record["data"]["fingerprint"]:
        raise UserError(f"the data set {data.name} is no longer what the run was begun with")
    return data


def how_to_resume(settings: Settings, folder: Path) -> str:
    """The command, fit to be copied into a shell."""
    return f"hw4fast train {shlex.quote(settings.dataset)} --resume --out {shlex.quote(str(folder))}"


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
    settings = replace(Settings.from_json(record["settings"]), kernels="torch")
    with torch.random.fork_rng(devices=[]):  # the caller's own random numbers go on as they were
        model = build_model(settings, data) if settings.model in MODELS else bare(settings.model, len(data.class_names))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise damaged(folder / WEIGHTS, error) from None
    return model.eval()


def _finished_weights(folder: Path, record: dict[str, Any]) -> dict[str, Tensor]:
    """{name: tensor} of a run that is finished, or diverged after whole epochs."""
    path, status = folder / WEIGHTS, record.get("status")
    if status == "diverged" and not path.is_file():
        raise UserError(f"{folder} diverged in its first epoch and has no weights; begin a run with a smaller --lr")
    if status not in ("finished", "diverged") or not path.is_file():
        settings = Settings.from_json(record["settings"])
        raise UserError(f"{folder} is not finished; go on with: {how_to_resume(settings, folder)}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from None
