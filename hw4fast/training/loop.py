"""The epochs of a run: batches, steps, the test after each, a checkpoint after each.

Order and dropout of an epoch depend on (seed, epoch) alone, so a run that goes on from its last whole epoch comes to
the same weights as one that was never interrupted.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hw4fast import kernels
from hw4fast.data import Dataset, Split
from hw4fast.errors import UserError
from hw4fast.training import runs
from hw4fast.training.losses import LOSSES
from hw4fast.training.progress import Bar
from hw4fast.training.runs import Epoch, State
from hw4fast.training.settings import OPTIMIZERS, SCHEDULES, Settings


class Diverged(UserError):
    """The loss stopped being finite. epoch, step: where, both from 1; loss: what it was."""

    def __init__(self, settings: Settings, folder: Path, epoch: int, step: int, loss: float) -> None:
        self.epoch, self.step, self.loss = epoch, step, loss
        kept = f"; the weights of epoch {epoch - 1} are kept in {folder}" if epoch > 1 else ""
        way = f"lr {settings.lr:g}" + (f", momentum {settings.momentum:g}" if settings.momentum else "")
        super().__init__(
            f"the loss is no longer finite ({loss}) in epoch {epoch}, step {step} ({way}){kept}; begin a run with a"
            " smaller --lr" + (" or --momentum" if abs(settings.momentum) >= 1 else "")
        )


class Pictures:
    """A split on the run's device: [rows] gives float32 [n, channels, height, width], normalised, and int64 [n]."""

    def __init__(self, data: Dataset, split: Split, device: torch.device) -> None:
        p, images = data.preprocessing, split.images
        if images.shape[1:] != (*p.crop, p.channels):
            images = np.stack([p.fit(image) for image in images])
        self.images = torch.from_numpy(np.require(images, requirements="W")).to(device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self._mean, self._std = (torch.tensor(v, dtype=torch.float32, device=device) for v in (p.mean, p.std))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """The same bits as `Preprocessing.normalise`, which divides in this order; more than one channel comes
        channels-last."""
        x = self.images[rows].to(torch.float32).div_(255).sub_(self._mean).div_(self._std)
        return x.permute(0, 3, 1, 2), self.labels[rows]


def run(settings: Settings, data: Dataset, folder: Path, model: nn.Module, progress: bool) -> State:
    """All epochs that are not done yet. Raises Diverged when the loss stops being finite; the last checkpoint stays."""
    device = torch.device(settings.device)
    model = model.to(device)
    optimizer = _optimizer(settings, model)
    state = _restored(folder, model, optimizer)
    history, earlier, before = state.history, state.kernels, kernels.calls()
    train, test = (Pictures(data, split, device) for split in (data.train, data.test))
    with Bar(len(train), settings.epochs, len(history), progress) as bar:
        for number in range(len(history) + 1, settings.epochs + 1):
            start = time.perf_counter()
            cost, accuracy, last = _epoch(settings, model, optimizer, train, number, folder, bar)
            test_cost, right = evaluate(model, test, settings.loss)
            steps = math.ceil(len(train) / settings.batch_size)
            if not math.isfinite(test_cost):
                raise Diverged(settings, folder, number, steps, test_cost)
            last_right = right[-_last_batch(len(test), settings.batch_size) :]
            row = Epoch(
                epoch=number,
                train_cost=cost,
                train_accuracy=accuracy,
                train_last_accuracy=last,
                test_cost=test_cost,
                test_correct=int(right.sum()),
                test_images=len(test),
                test_last_correct=int(last_right.sum()),
                test_last_images=len(last_right),
                seconds=time.perf_counter() - start,
            )
            history.append(row)
            state = State(history, model.state_dict(), _optimizer_tensors(optimizer), _ran(earlier, before))
            runs.save_state(folder, state)
            bar.say(row)
    return state


def _last_batch(n: int, size: int) -> int:
    """How many images the last batch of n holds."""
    return (n - 1) % size + 1


def _optimizer(settings: Settings, model: nn.Module) -> torch.optim.Optimizer:
    make, _, takes_momentum = OPTIMIZERS[settings.optimizer]
    optimizer = make(model.parameters(), lr=settings.lr)
    if takes_momentum:
        for group in optimizer.param_groups:  # torch refuses a negative one at the door; the formula doesn't
            group["momentum"] = settings.momentum
    return optimizer


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
    train: Pictures,
    number: int,
    folder: Path,
    bar: Bar,
) -> tuple[float, float, float]:
    """One pass over the training images; the mean cost and accuracy as they were on the way, and the last batch's."""
    loss_of, factor_at = LOSSES[settings.loss], SCHEDULES[settings.schedule]
    rate = settings.lr or OPTIMIZERS[settings.optimizer][1]
    penalised = [parameter for parameter in model.parameters() if parameter.dim() > 1]  # weights, not biases
    model.train()
    torch.manual_seed((settings.seed << 20) + number)
    total_cost, total_correct, correct = 0.0, 0, 0
    batches = _batches(len(train), settings.batch_size, settings.seed, number)
    for step, chosen in enumerate(batches, 1):
        x, y = train[chosen]
        logits = model(x)
        loss = loss_of(logits, y, settings.kernels)
        optimizer.zero_grad()
        loss.backward()
        _penalise(penalised, settings.l1, settings.l2)
        for group in optimizer.param_groups:
            group["lr"] = rate * factor_at(number - 1 + (step - 1) / len(batches), settings.epochs)
        optimizer.step()
        cost = loss.item()
        if not math.isfinite(cost):
            raise Diverged(settings, folder, number, step, cost)
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


def evaluate(model: nn.Module, pictures: Pictures, loss: str, batch: int = 1000) -> tuple[float, Tensor]:
    """Mean loss of a net in evaluation mode, and which answers are right, bool [n]."""
    model.eval()
    cost, right = 0.0, []
    with torch.inference_mode():
        for start in range(0, len(pictures), batch):
            x, y = pictures[start : start + batch]
            logits = model(x)
            cost += float(LOSSES[loss](logits, y, "torch")) * len(y)
            right.append(logits.argmax(1) == y)
    return cost / len(pictures), torch.cat(right)


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
