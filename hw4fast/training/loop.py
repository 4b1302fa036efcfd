"""The epochs of a run: batches, steps, the test after each, a checkpoint after each.

Order and dropout of an epoch depend on (seed, epoch) alone, so a run that goes on from its last whole epoch comes to
the same weights as one that was never interrupted.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hw4fast import kernels
from hw4fast.data import Dataset, Split
from hw4fast.errors import UserError
from hw4fast.training import runs
from hw4fast.training.frozen import frozen
from hw4fast.training.graphs import Steps, can_capture
from hw4fast.training.losses import LOSSES
from hw4fast.training.models import MODELS
from hw4fast.training.models.backbone import state_of_the_rest
from hw4fast.training.models.folded import is_folded, unfold
from hw4fast.training.optimizers import OPTIMIZERS, Optimizer
from hw4fast.training.progress import Bar
from hw4fast.training.runs import Epoch, State
from hw4fast.training.settings import SCHEDULES, STAGES, Settings


class Diverged(UserError):
    """The loss stopped being finite. epoch, step: where, both from 1; loss: what it was; kept: what is left of the run,
    in words."""

    def __init__(self, settings: Settings, epoch: int, step: int, loss: float) -> None:
        self.epoch, self.step, self.loss, self.kept = epoch, step, loss, ""
        self.way = f"lr {settings.lr:g}" + (f", momentum {settings.momentum:g}" if settings.momentum else "")
        self.less = "a smaller --lr" + (" or --momentum" if abs(settings.momentum) >= 1 else "")
        super().__init__()

    def __str__(self) -> str:
        where = f"in epoch {self.epoch}, step {self.step} ({self.way})"
        return f"the loss is no longer finite ({self.loss}) {where}{self.kept}; begin a run with {self.less}"


class Batches(Protocol):
    """What is trained on: [rows] gives the net's input float32 [n, …] and labels int64 [n]."""

    labels: Tensor

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor | slice) -> tuple[Tensor, Tensor]: ...


class Pictures:
    """A split on the run's device: [rows] gives float32 [n, channels, height, width], normalised, and int64 [n]."""

    def __init__(self, data: Dataset, split: Split, device: torch.device) -> None:
        p, images = data.preprocessing, split.images
        if images.shape[1:] != (*p.crop, p.channels):
            images = np.stack([p.fit(image) for image in images])
        self.images = torch.from_numpy(np.require(images, requirements="W")).to(device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self.statistics = [torch.tensor(v, dtype=torch.float32) for v in (p.mean, p.std)]  # on the host
        self._mean, self._std = (v.to(device) for v in self.statistics)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """The same bits as `Preprocessing.normalise`, which divides in this order; more than one channel comes
        channels-last."""
        x = self.images[rows].to(torch.float32).div_(255).sub_(self._mean).div_(self._std)
        return x.permute(0, 3, 1, 2), self.labels[rows]


@dataclass(frozen=True)
class Stage:
    """One way through the data. name: of settings.STAGES; net: what is run on the batches, `model` or a part of it;
    held_out: the validation split, or the test split where there is none, as `split` says."""

    name: str
    net: nn.Module
    train: Batches
    held_out: Batches
    split: str


def run(settings: Settings, data: Dataset, folder: Path, model: nn.Module, progress: bool) -> State:
    """All epochs that are not done yet; afterwards `model` has the weights of the epoch with the lowest validation
    cost, where there is a validation split, else of the last epoch.

    Raises Diverged when the loss stops being finite; the last checkpoint stays.
    """
    device = torch.device(settings.device)
    model = model.to(device)
    state = runs.load_state(folder) or State()
    names = STAGES[settings.tune]
    for number, name in enumerate(names):
        done = [row for row in state.history if row.stage == name]
        followed = any(row.stage in names[number + 1 :] for row in state.history)
        if followed or _over(done, settings):
            continue
        if not done and state.best:
            _load(folder, model, state.best)
        stage = _stage(name, data, model, device, progress)
        if name == "all" and not done and settings.model not in MODELS and is_folded(model):
            _take_statistics(model, stage.train, progress)
            state.unfolded = True
        state = _run_stage(settings, stage, model, folder, state, progress)
    _load(folder, model, state.best or state.weights)
    return state


def _stage(name: str, data: Dataset, model: nn.Module, device: torch.device, progress: bool) -> Stage:
    held_out = data.val or data.test
    splits = [Pictures(data, split, device) for split in (data.train, held_out)]
    kind = "val" if data.val else "test"
    if name == "all":
        model.requires_grad_(True)
        return Stage(name, model, splits[0], splits[1], kind)
    tail, (train, held) = frozen(data, model, splits, progress)
    return Stage(name, tail, train, held, kind)


def _take_statistics(model: nn.Module, train: Batches, progress: bool) -> None:
    from tqdm import tqdm

    if progress:
        what = "the weights' batch normalisation is folded into the convolutions; its statistics are taken anew"
        print(f"hw4fast: {what} from the training pictures", file=sys.stderr)
    batches = (train[at : at + 32][0] for at in range(0, len(train), 32))
    total = math.ceil(len(train) / 32)
    unfold(model, tqdm(batches, "statistics", total, disable=None if progress else True))


def _over(done: list[Epoch], settings: Settings) -> bool:
    """Whether a stage has had its epochs, or `patience` of them since its lowest validation cost."""
    if len(done) >= settings.epochs:
        return True
    if settings.patience is None or not done:
        return False
    costs = [row.val_cost for row in done if row.val_cost is not None]  # patience comes with a validation split
    return len(costs) - 1 - costs.index(min(costs)) >= settings.patience


def _run_stage(settings: Settings, stage: Stage, model: nn.Module, folder: Path, state: State, progress: bool) -> State:
    history, best, earlier, before = state.history, state.best, state.kernels, kernels.calls()
    done = [row for row in history if row.stage == stage.name]
    optimizer = Optimizer(settings, stage.net.parameters())
    if done:
        _load(folder, model, state.weights)
        try:
            optimizer.load(state.optimizer)
        except (ValueError, LookupError) as error:
            raise runs.damaged(folder / runs.CHECKPOINT, error) from None
    rest = state_of_the_rest(model) if stage.name == "head" else {}
    label = stage.name if len(STAGES[settings.tune]) > 1 else ""
    least, size = min((row.val_cost for row in history if row.val_cost is not None), default=math.inf), len(stage.train)
    steps = _graphed(settings, stage, optimizer)
    with Bar(size, settings.epochs, len(done), progress, label) as bar, runs.Checkpoints(folder) as checkpoints:
        while not _over(done, settings):
            row = _one_epoch(settings, stage, optimizer, len(done) + 1, bar, steps)
            history.append(row)
            done.append(row)
            if row.val_cost is not None and row.val_cost <= least:
                least = row.val_cost
                best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            state = State(history, model.state_dict(), optimizer.tensors(), best, _ran(earlier, before), state.unfolded)
            checkpoints.keep(state)
            bar.say(row)
    now = model.state_dict()
    if any(not torch.equal(now[name], tensor) for name, tensor in rest.items()):
        raise RuntimeError("a frozen layer has changed")  # a fault of ours
    return state


def _one_epoch(
    settings: Settings,
    stage: Stage,
    optimizer: Optimizer,
    number: int,
    bar: Bar,
    steps: Steps | None = None,
) -> Epoch:
    start = time.perf_counter()
    if steps is None:
        cost, accuracy, last = _epoch(settings, stage.net, optimizer, stage.train, number, bar)
    else:
        cost, accuracy, last = _graphed_epoch(settings, stage.net, steps, number, bar)
    held_cost, logits = evaluate(stage.net, stage.held_out, settings.loss)
    right = logits.argmax(1) == stage.held_out.labels
    if not math.isfinite(held_cost):
        raise Diverged(settings, number, math.ceil(len(stage.train) / settings.batch_size), held_cost)
    n = len(stage.held_out)
    last_right = right[-_last_batch(n, settings.batch_size) :]
    held = {f"{stage.split}_cost": held_cost, f"{stage.split}_correct": int(right.sum()), f"{stage.split}_images": n}
    if stage.split == "test":
        held |= {"test_last_correct": int(last_right.sum()), "test_last_images": len(last_right)}
    return Epoch(
        epoch=number,
        stage=stage.name,
        train_cost=cost,
        train_accuracy=accuracy,
        train_last_accuracy=last,
        seconds=time.perf_counter() - start,
        **held,  # type: ignore[arg-type]
    )


def _graphed(settings: Settings, stage: Stage, optimizer: Optimizer) -> Steps | None:
    """The stage's steps as a CUDA graph; None where they can't be one, and are run one after the other."""
    if not can_capture(settings) or not isinstance(stage.train, Pictures) or settings.model not in MODELS:
        return None
    return graphed_steps(settings, stage.net, optimizer, stage.train)


def graphed_steps(
    settings: Settings, net: nn.Module, optimizer: Optimizer, train: Batches, capture: bool = True
) -> Steps:
    """capture: whether in a CUDA graph."""
    penalised = _penalised(net)
    rate = None
    if settings.optimizer != "adagrad":
        optimizer.rate = rate = torch.tensor(0.0, device=settings.device)
    net.train()

    def penalise() -> None:
        _penalise(penalised, settings.l1, settings.l2)

    return Steps(settings, net, optimizer, train, penalise, rate, capture)


def _graphed_epoch(
    settings: Settings, net: nn.Module, steps: Steps, number: int, bar: Bar
) -> tuple[float, float, float]:
    net.train()
    torch.manual_seed((settings.seed << 20) + number)
    batches = _batches(len(steps.order), settings.batch_size, settings.seed, number)
    rates = [_rate(settings, number, step, len(batches)) for step in range(len(batches))]
    cost, accuracy, last, bad = steps.run(torch.cat(batches), rates, bar.advance)
    if bad:
        raise Diverged(settings, number, bad, math.nan)
    return cost, accuracy, last


def _rate(settings: Settings, epoch: int, step: int, steps: int) -> float:
    """The learning rate of a step (from 0) of an epoch (from 1)."""
    rate = settings.lr or OPTIMIZERS[settings.optimizer][1]
    return rate * SCHEDULES[settings.schedule](epoch - 1 + step / steps, settings.epochs)


def _penalised(net: nn.Module) -> list[nn.Parameter]:
    return [w for w in net.parameters() if w.dim() > 1 and w.requires_grad]  # weights, not biases


def _last_batch(n: int, size: int) -> int:
    """How many images the last batch of n holds."""
    return (n - 1) % size + 1


def _load(folder: Path, model: nn.Module, weights: dict[str, Tensor]) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise runs.damaged(folder / runs.CHECKPOINT, error) from None


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
    optimizer: Optimizer,
    train: Batches,
    number: int,
    bar: Bar,
) -> tuple[float, float, float]:
    """One pass over the training images; the mean cost and accuracy as they were on the way, and the last batch's."""
    loss_of, penalised = LOSSES[settings.loss], _penalised(model)
    model.train()
    torch.manual_seed((settings.seed << 20) + number)
    total_cost, total_correct, correct = 0.0, 0, 0
    batches = _batches(len(train), settings.batch_size, settings.seed, number)
    for step, chosen in enumerate(batches, 1):
        x, y = train[chosen]
        logits = model(x)
        loss = loss_of(logits, y, settings.kernels, settings.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        _penalise(penalised, settings.l1, settings.l2)
        optimizer.rate = _rate(settings, number, step - 1, len(batches))
        optimizer.step()
        cost = loss.item()
        if not math.isfinite(cost):
            raise Diverged(settings, number, step, cost)
        correct = int((logits.detach().argmax(1) == y).sum())
        total_cost += cost * len(y)
        total_correct += correct
        bar.step(len(y), cost, correct / len(y))
    return total_cost / len(train), total_correct / len(train), correct / len(batches[-1])


@torch.no_grad()
def _penalise(weights: list[nn.Parameter], l1: float, l2: float) -> None:
    """Adds the gradient of l1·Σ|w| + l2/2·Σw² (0 at w = 0 for the first)."""
    for weight in weights:
        assert weight.grad is not None
        if l2:
            weight.grad.add_(weight, alpha=l2)
        if l1:
            weight.grad.add_(weight.sign(), alpha=l1)


def _batches(n: int, size: int, seed: int, epoch: int) -> tuple[Tensor, ...]:
    order = torch.from_numpy(np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n))
    return order.split(size)


def evaluate(model: nn.Module, batches: Batches, loss: str, batch: int | None = None) -> tuple[float, Tensor]:
    """Mean loss of a net in evaluation mode, and its logits, float32 [n, classes].

    batch: inputs at a time; None: as many as 2 million numbers, from 16 to 250; ten times as many on a GPU.
    """
    model.eval()
    n, cost, logits = len(batches), 0.0, []
    more = 10 if batches.labels.is_cuda else 1
    batch = batch or more * min(250, max(16, 2**21 // batches[:1][0].numel()))
    with torch.inference_mode():
        for start in range(0, n, batch):
            x, y = batches[start : start + batch]
            logits.append(model(x))
            cost += float(LOSSES[loss](logits[-1], y, "torch")) * len(y)
    return cost / n, torch.cat(logits)
