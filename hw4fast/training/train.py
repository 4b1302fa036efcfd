"""A run from its settings to its folder: what it needs is found, the epochs run, the results written."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from hw4fast import data as datasets
from hw4fast import kernels, record
from hw4fast.data import Dataset
from hw4fast.errors import Interrupted, UsageError, UserError
from hw4fast.files import alone
from hw4fast.training import loop, pictures, runs
from hw4fast.training.models import MODELS
from hw4fast.training.optimizers import OPTIMIZERS
from hw4fast.training.recipes import RECIPES
from hw4fast.training.runs import State
from hw4fast.training.settings import Settings, check

BACKBONE = "shufflenet_v2_x1_0"  # small and good


@dataclass(frozen=True)
class Result:
    """A finished run. correct of n test images; cost: the run's mean loss on them; seconds: of the epochs, tests
    included, and kernels: {kernel: {instruction set: calls}}, of all epochs whatever the session; left_out: a line for
    each picture that can't be read."""

    folder: Path
    settings: Settings
    correct: int
    n: int
    cost: float
    seconds: float
    kernels: dict[str, dict[str, int]]
    left_out: tuple[str, ...] = ()


def train(
    settings: Settings | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Result:
    """Trains as `settings` say into the folder `out` (default runs/DATASET) and returns what came of it.

    settings: all of them, or the values of those that are not to be as usual: the recipe's, else the defaults, or with
    `resume` what the run was begun with. A resumed run may be given more `epochs` and other `threads`, and nothing else
    that it wasn't begun with. An existing folder is never overwritten: without `resume` a numbered sibling is used.
    Raises UsageError for a bad setting, UserError when the data or the device can't be had, loop.Diverged when the
    loss stops being finite (the last good checkpoint stays), Interrupted on Ctrl-C: everything up to
    the last whole epoch is kept.
    """
    given = _located(asdict(settings) if isinstance(settings, Settings) else dict(settings or {}))
    folder = Path(out) if out else _usual_folder(given)
    settings = _settings_to_resume(folder, given) if resume else _settings(given)
    check(settings)
    _check_start(settings)
    settings = replace(settings, lr=settings.lr or OPTIMIZERS[settings.optimizer][1])
    start = time.perf_counter()
    data = datasets.load(settings.dataset, settings.preprocess, progress)
    _check_data(settings, data)
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads or threads)
    try:
        model = runs.build_model(settings, data)  # before anything is written: it may be too large
        if settings.init and not (resume and runs.load_state(folder)):
            runs.initialise(model, Path(settings.init))
        folder, entry = _begin(folder, settings, data, resume, progress)
        with alone(folder, "training"):
            try:
                state = loop.run(settings, data, folder, model, progress)
            except loop.Diverged as error:
                where = {"epoch": error.epoch, "step": error.step, "loss": str(error.loss)}
                runs.save_record(folder, entry | {"status": "diverged", "diverged": where})
                error.kept = _keep_the_last_good_weights(folder)
                raise
            entry["sessions"][-1]["wall_seconds"] = time.perf_counter() - start
            return _finish(folder, settings, data, model, state, entry)
    except KeyboardInterrupt:
        again = runs.how_to_resume(settings, folder)
        raise Interrupted(f"interrupted; whole epochs are kept, go on with: {again}") from None
    except SafetensorError as error:
        raise UserError(f"{folder} can't be written: {error}; the last whole checkpoint stays") from None
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        raise UserError("there is not enough memory for this net and batch; lower --channels or --batch-size") from None
    finally:
        torch.set_num_threads(threads)


def _located(given: dict[str, Any]) -> dict[str, Any]:
    """The same with the paths of pictures and weights made absolute: --resume and export may be called elsewhere."""
    for name in ("dataset", "weights", "init"):
        value = given.get(name)
        if value and (name != "dataset" or value not in datasets.DATASETS) and Path(value).exists():
            given[name] = str(Path(value).resolve())
    return given


def _settings(given: Mapping[str, Any]) -> Settings:
    """What was said, then the recipe's, then the defaults. Pictures are for a pretrained net unless another is named,
    and that is for the recipe finetune."""
    values = dict(given)
    if "model" not in values and datasets.of_pictures(values.get("dataset", Settings.dataset)):
        values["model"] = BACKBONE
    if values.get("recipe") is None and values.get("model", Settings.model) not in MODELS:
        values["recipe"] = "finetune"
    recipe = RECIPES.get(values["recipe"]).settings if values.get("recipe") else {}
    return Settings(**{**recipe, **values})


def _usual_folder(given: Mapping[str, Any]) -> Path:
    names = [Path(given.get("dataset", Settings.dataset)).name, given.get("recipe")]
    return Path("runs") / "-".join(name for name in names if name)


def _check_start(settings: Settings) -> None:
    """Raises UsageError when the recipe starts from another run's weights and none is named."""
    start = RECIPES.get(settings.recipe).start if settings.recipe else None
    if start and not settings.init:
        first = f"hw4fast train {settings.dataset} --recipe {start}"
        raise UsageError(
            f"the recipe {settings.recipe} starts from the weights of a run of {start}: `{first}`, then add --init"
            f" {_usual_folder({'dataset': settings.dataset, 'recipe': start})}"
        )


def _keep_the_last_good_weights(folder: Path) -> str:
    """Writes those of the last whole epoch, so that the run can be exported, studied or started from; says so."""
    state = runs.load_state(folder)
    if state is None:
        return ""
    runs.save_weights(folder, state.weights)
    last = state.history[-1]
    stage = f" of the stage {last.stage}" if last.stage != "all" else ""
    return f"; the weights of epoch {last.epoch}{stage} are kept in {folder}, which can be exported like any run"


def _check_data(settings: Settings, data: Dataset) -> None:
    """Raises UsageError for what doesn't go with these pictures."""
    if settings.patience and data.val is None:
        raise UsageError(
            f"patience goes by the cost on a validation split, and {data.name} has none: the test split must not decide"
            " when to stop; leave --patience, --backbone and --recipe finetune out"
        )
    if settings.model not in MODELS and data.preprocessing.channels != 3:
        raise UsageError(f"{settings.model} takes colour pictures; those of {data.name} are grey")


def _settings_to_resume(folder: Path, given: Mapping[str, Any]) -> Settings:
    """What the run in `folder` was begun with, and the epochs and threads that are asked for now."""
    begun = Settings.from_json(runs.load_record(folder)["settings"])
    for name, value in given.items():
        if name not in ("epochs", "threads") and value != getattr(begun, name) and (name, value) != ("lr", None):
            raise UsageError(f"{folder} was begun with {name} = {getattr(begun, name)}, not {value}")
    epochs = given.get("epochs", begun.epochs)
    state = runs.load_state(folder)
    stages = [row.stage for row in state.history] if state else []
    done = max((stages.count(stage) for stage in stages), default=0)
    if epochs < done:
        raise UsageError(f"{folder} has done {done} epochs already, more than the {epochs} asked for")
    if epochs != begun.epochs and begun.schedule == "one-cycle":
        raise UsageError(f"the schedule one-cycle is made for {begun.epochs} epochs; begin a run for {epochs}")
    return replace(begun, epochs=epochs, threads=given.get("threads", begun.threads))


def _begin(
    folder: Path, settings: Settings, data: Dataset, resume: bool, progress: bool
) -> tuple[Path, dict[str, Any]]:
    """Writes run.json as the run begins; a resumed one must find the data that it began with. Returns the folder, a
    sibling if it was taken, and the record."""
    session = {
        "begun": record.now(),
        "machine": record.machine(gpu=settings.device == "cuda"),
        "versions": record.versions(),
        "threads": torch.get_num_threads(),
        "isa": kernels.chosen_isa() if settings.kernels == "hw4fast" else None,
    }
    if resume:
        entry = runs.load_record(folder)
        if entry["data"]["fingerprint"] != data.fingerprint:
            raise UserError(f"the data set {data.name} is no longer what {folder} was begun with")
        _tell_differences(entry["sessions"][-1], session, progress)
        entry["sessions"].append(session)
    else:
        entry = {"commit": record.commit(), "sessions": [session]}
    entry |= {
        "settings": asdict(settings),
        "status": "running",
        "data": {
            "name": data.name,
            "source": data.source,
            "fingerprint": data.fingerprint,
            "left_out": len(data.left_out),
        },
    }
    if resume:
        runs.save_record(folder, entry)
        return folder, entry
    made = runs.new_folder(folder, entry)
    if made != folder and progress:
        print(f"hw4fast: {folder} is there already; this run goes to {made}", file=sys.stderr)
    return made, entry


def _tell_differences(before: dict[str, Any], now: dict[str, Any], progress: bool) -> None:
    """A notice on stderr where the resumed run may not give the bits that an uninterrupted one gives."""
    changed = [key for key in ("threads", "isa", "versions", "machine") if before.get(key) != now[key]]
    if changed and progress:
        print(
            f"hw4fast: {', '.join(changed)} changed since this run's last session, so the last bits of its weights may"
            " differ from an uninterrupted run's",
            file=sys.stderr,
        )


def _finish(
    folder: Path, settings: Settings, data: Dataset, model: nn.Module, state: State, entry: dict[str, Any]
) -> Result:
    """Writes the weights, the pictures and the result of a run whose epochs are over."""
    runs.save_weights(folder, model.state_dict())
    title = f"{data.name}, {settings.model}"
    pictures.curves(state.history, folder / "curves.png", title, settings.model in MODELS and settings.dropout > 0)
    last, seconds = state.history[-1], sum(epoch.seconds for epoch in state.history)
    if data.val is None:
        pictures.contact_sheet(data.test, data.class_names, folder / "contact_sheet.png")
        names = ("test_correct", "test_images", "test_cost", "test_last_correct", "test_last_images")
        found = {name: getattr(last, name) for name in names}
    else:
        pictures.class_sheet(data.train, data.class_names, folder / "contact_sheet.png")
        test = loop.Pictures(data, data.test, torch.device(settings.device))
        cost, logits = loop.evaluate(model, test, settings.loss)
        answers = torch.softmax(logits, 1).cpu().numpy()
        pictures.confusion(data.test.labels, answers, data.class_names, folder / "confusion.png", title)
        pictures.mistakes(data.test, answers, data.class_names, folder / "mistakes.png", title)
        best = min(state.history, key=lambda row: row.held_out[1])
        found = {
            "test_correct": int((answers.argmax(1) == data.test.labels).sum()),
            "test_images": len(data.test),
            "test_cost": cost,
            "best_epoch": {"stage": best.stage, "epoch": best.epoch},
            "val_correct": best.val_correct,
            "val_images": best.val_images,
            "val_cost": best.val_cost,
        }
    pictures.samples(data.test, data.class_names, folder / "samples")
    entry |= {
        "status": "finished",
        "finished": record.now(),
        "kernels_that_ran": state.kernels,
        "batch_norm_unfolded": state.unfolded,
        "result": found,
        "seconds": seconds,
    }
    runs.save_record(folder, entry)
    correct, n, cost = (found[name] for name in ("test_correct", "test_images", "test_cost"))
    return Result(folder, settings, correct, n, cost, seconds, state.kernels, data.left_out)
