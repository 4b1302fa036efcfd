"""The training loop. Interrupted anywhere, a run goes on from its last whole epoch to the same weights:
order and dropout of an epoch depend on (seed, epoch) alone, so nothing else needs to be remembered."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from hw4fast import data as datasets
from hw4fast import kernels, record
from hw4fast.data import Dataset, Split
from hw4fast.errors import UsageError, UserError
from hw4fast.training import pictures, runs
from hw4fast.training.runs import Epoch, State
from hw4fast.training.settings import LOSSES, OPTIMIZERS, Settings, check


@dataclass(frozen=True)
class Result:
    """A finished run. correct of n test images; cost: mean cross-entropy on them; seconds: training time, and
    kernels: {kernel: {instruction set: calls}}, of all epochs whatever the session."""

    folder: Path
    settings: Settings
    correct: int
    n: int
    cost: float
    seconds: float
    kernels: dict[str, dict[str, int]]


class Interrupted(UserError):
    """Ctrl-C: everything up to the last whole epoch is kept."""

    exit_code = 130


def train(
    settings: Settings | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Result:
    """Trains as `settings` say into the folder `out` (default runs/DATASET) and returns what came of it.

    settings: all of them, or the values of those that are not to be as usual: the defaults, or with `resume` what
    the run was begun with. A resumed run may be given more `epochs`, and nothing else that it wasn't begun with.
    An existing folder is never overwritten: without `resume` a numbered sibling is used.
    Raises UsageError for a bad setting, UserError when the data or the device can't be had, when the loss
    stops being finite (the last good checkpoint stays), Interrupted on Ctrl-C.
    """
    given = asdict(settings) if isinstance(settings, Settings) else dict(settings or {})
    folder = Path(out) if out else Path("runs") / given.get("dataset", Settings.dataset)
    settings = _settings_to_resume(folder, given) if resume else Settings(**given)
    check(settings)
    settings = replace(settings, lr=settings.lr or OPTIMIZERS[settings.optimizer][1])
    data = datasets.load(settings.dataset)
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads or threads)
    try:
        model = runs.build_model(settings, data)  # before anything is written: it may be too large
        folder, entry = _begin(folder, settings, data, resume, progress)
        with runs.alone(folder):
            state = _run(settings, data, folder, model, progress)
            return _finish(folder, settings, data, state, entry)
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


def _settings_to_resume(folder: Path, given: Mapping[str, Any]) -> Settings:
    """What the run in `folder` was begun with, and the epochs that are asked for now."""
    begun = Settings.from_json(runs.load_record(folder)["settings"])
    for name, value in given.items():
        if name != "epochs" and value != getattr(begun, name) and (name, value) != ("lr", None):
            raise UsageError(f"{folder} was begun with {name} = {getattr(begun, name)}, not {value}")
    epochs = given.get("epochs", begun.epochs)
    state = runs.load_state(folder)
    if state and epochs < len(state.history):
        raise UsageError(f"{folder} has done {len(state.history)} epochs already, more than the {epochs} asked for")
    return replace(begun, epochs=epochs)


def _begin(
    folder: Path, settings: Settings, data: Dataset, resume: bool, progress: bool
) -> tuple[Path, dict[str, Any]]:
    """Writes run.json as the run begins; a resumed one must find the data that it began with. Returns the folder, a
    sibling if it was taken, and the record."""
    session = {
        "begun": record.now(),
        "machine": record.machine(),
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
        "data": {"name": data.name, "source": data.source, "fingerprint": data.fingerprint},
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


def _run(settings: Settings, data: Dataset, folder: Path, model: nn.Module, progress: bool) -> State:
    """All epochs that are not done yet."""
    device = torch.device(settings.device)
    model = model.to(device)
    make, _, takes_momentum = OPTIMIZERS[settings.optimizer]
    options = {"momentum": settings.momentum} if takes_momentum else {}
    optimizer = make(model.parameters(), lr=settings.lr, **options)
    state = _restored(folder, model, optimizer)
    history, earlier, before = state.history, state.kernels, kernels.calls()
    train_x, train_y = _tensors(data, data.train, device)
    test_x, test_y = _tensors(data, data.test, device)
    with _Bar(len(train_y), settings.epochs, len(history), progress) as bar:
        for number in range(len(history) + 1, settings.epochs + 1):
            start = time.perf_counter()
            cost, accuracy = _epoch(settings, model, optimizer, train_x, train_y, number, bar)
            test_cost, correct = evaluate(model, test_x, test_y)
            row = Epoch(number, cost, accuracy, test_cost, correct, len(test_y), time.perf_counter() - start)
            if not math.isfinite(cost + test_cost):
                kept = f"; the weights of epoch {number - 1} are kept in {folder}" if history else ""
                raise UserError(
                    f"the loss is no longer finite in epoch {number} (lr {settings.lr:g}){kept}; begin a run with a"
                    " smaller --lr"
                )
            history.append(row)
            state = State(history, model.state_dict(), _optimizer_tensors(optimizer), _ran(earlier, before))
            runs.save_state(folder, state)
            bar.say(row)
    return state


def _restored(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """The last checkpoint, loaded into the net and the optimiser; an empty state when there is none yet."""
    state = runs.load_state(folder)
    if not state:
        return State()
    try:
        model.load_state_dict(state.weights)
        _load_optimizer(optimizer, state.optimizer)
    except (RuntimeError, ValueError, LookupError) as error:
        raise runs.damaged(folder / runs.CHECKPOINT, error) from None
    return state


def _ran(earlier: dict[str, dict[str, int]], before: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """{kernel: {instruction set: calls}} of `earlier` sessions and since `before` in this process; only what ran."""
    total: dict[str, dict[str, int]] = {}
    for name, counts in kernels.calls().items():
        for isa, n in counts.items():
            ran = n - before[name].get(isa, 0) + earlier.get(name, {}).get(isa, 0)
            if ran:
                total.setdefault(name, {})[isa] = ran
    return total


def _epoch(
    settings: Settings,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    number: int,
    bar: _Bar,
) -> tuple[float, float]:
    """One pass over the training images; returns the mean cost and accuracy as they were on the way."""
    loss_of = LOSSES[settings.kernels]
    penalised = [parameter for parameter in model.parameters() if parameter.dim() > 1]  # weights, not biases
    model.train()
    torch.manual_seed((settings.seed << 20) + number)
    total_cost, total_correct = 0.0, 0
    for chosen in _batches(len(labels), settings.batch_size, settings.seed, number):
        x, y = images[chosen], labels[chosen]
        logits = model(x)
        loss = loss_of(logits, y)
        optimizer.zero_grad()
        loss.backward()
        _penalise(penalised, settings.l1, settings.l2)
        optimizer.step()
        cost = loss.item()
        correct = int((logits.detach().argmax(1) == y).sum())
        total_cost += cost * len(y)
        total_correct += correct
        bar.step(len(y), cost, correct / len(y))
    return total_cost / len(labels), total_correct / len(labels)


@torch.no_grad()
def _penalise(weights: list[nn.Parameter], l1: float, l2: float) -> None:
    """Adds the gradient of l1·Σ|w| + l2/2·Σw² (0 at w = 0 for the first)."""
    for weight in weights:
        assert weight.grad is not None
        if l2:
            weight.grad.add_(weight, alpha=l2)
        if l1:
            weight.grad.add_(weight.sign(), alpha=l1)


def _batches(n: int, size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    order = torch.from_numpy(np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n))
    return iter(order.split(size))


def evaluate(model: nn.Module, images: Tensor, labels: Tensor, batch: int = 1000) -> tuple[float, int]:
    """Mean cross-entropy and number of right answers of a net in evaluation mode."""
    model.eval()
    cost, correct = 0.0, 0
    with torch.inference_mode():
        for x, y in zip(images.split(batch), labels.split(batch), strict=True):
            logits = model(x)
            cost += float(nn.functional.cross_entropy(logits, y, reduction="sum"))
            correct += int((logits.argmax(1) == y).sum())
    return cost / len(labels), correct


def _tensors(data: Dataset, split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    fitted = split.images
    if fitted.shape[1:] != (*data.preprocessing.crop, data.preprocessing.channels):
        fitted = np.stack([data.preprocessing.fit(image) for image in fitted])
    return torch.from_numpy(data.preprocessing.normalise(fitted)).to(device), torch.from_numpy(split.labels).to(device)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """{parameter number/name: tensor}: momentum buffers, moments, step counts."""
    return {
        f"{number}/{name}": torch.as_tensor(value)
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `_optimizer_tensors`. Raises ValueError, KeyError or IndexError for tensors that don't fit."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split("/")
        if tensor.dim() and tensor.shape != parameters[int(number)].shape:
            raise ValueError(f"optimizer/{key} has another shape than its parameter")
        state.setdefault(int(number), {})[name] = tensor
    if state and len(state) != len(parameters):
        raise ValueError(f"optimizer tensors of {len(state)} parameters, not {len(parameters)}")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _finish(folder: Path, settings: Settings, data: Dataset, state: State, entry: dict[str, Any]) -> Result:
    runs.save_weights(folder, state.weights)
    pictures.curves(state.history, folder / "curves.png", f"{settings.dataset}, {settings.model}")
    pictures.contact_sheet(data.test, data.class_names, folder / "contact_sheet.png")
    pictures.samples(data.test, data.class_names, folder / "samples")
    last, seconds = state.history[-1], sum(epoch.seconds for epoch in state.history)
    result = Result(folder, settings, last.test_correct, last.test_images, last.test_cost, seconds, state.kernels)
    entry |= {
        "status": "finished",
        "finished": record.now(),
        "kernels_that_ran": state.kernels,
        "result": {"test_correct": result.correct, "test_images": result.n, "test_cost": result.cost},
        "seconds": seconds,
    }
    runs.save_record(folder, entry)
    return result


class _Bar:
    """Progress over all epochs on stderr; without a terminal only the line that ends each epoch."""

    def __init__(self, images: int, epochs: int, done: int, show: bool) -> None:
        from tqdm import tqdm

        self._epochs, self._show, self._steps = epochs, show, 0
        self._bar = tqdm(
            total=images * epochs,
            initial=images * done,
            unit="img",
            unit_scale=True,
            disable=None if show else True,
            desc=f"epoch {done + 1}/{epochs}",
            dynamic_ncols=True,
        )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def step(self, images: int, cost: float, accuracy: float) -> None:
        self._steps += 1
        if self._steps % 10 == 1:
            self._bar.set_postfix_str(f"loss {cost:.3f}, accuracy {100 * accuracy:.0f} %", refresh=False)
        self._bar.update(images)

    def say(self, row: Epoch) -> None:
        if self._show:
            self._bar.write(
                f"epoch {row.epoch}/{self._epochs}: train cost {row.train_cost:.4f}, accuracy"
                f" {100 * row.train_accuracy:.2f} %; test cost {row.test_cost:.4f}, accuracy"
                f" {100 * row.test_accuracy:.2f} %; {row.seconds:.1f} s",
                file=sys.stderr,
            )
        self._bar.set_description(f"epoch {min(row.epoch + 1, self._epochs)}/{self._epochs}", refresh=False)
