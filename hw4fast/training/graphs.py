"""The steps of an epoch on a GPU: captured once in a CUDA graph and replayed, so that the host does next to nothing.

All that changes from step to step lies on the device: the order of the pictures, the learning rates, the number of the
step, and the sums that the epoch's report is made of. The same code runs without a graph on any device, the CPU too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from hw4fast.nn.training_step import gather_batch, tally_step
from hw4fast.training.losses import LOSSES
from hw4fast.training.optimizers import Optimizer
from hw4fast.training.settings import Settings

WARM = 2  # steps without a graph before the capture: libraries and the optimiser set themselves up
UNROLLED = 8  # steps of a graph


def can_capture(settings: Settings) -> bool:
    """Whether the steps of these settings can be captured: torch's Adagrad takes its rate from the host."""
    return settings.device == "cuda" and (settings.optimizer != "adagrad" or settings.schedule == "constant")


class Steps:
    """The training steps of a net on pictures.

    pictures: [rows] gives inputs and labels, for rows int64 on the device; penalise: called between backward pass and
    step; rate: the optimiser's learning rate, a tensor that each step fills, or None: it stays as it is.
    """

    def __init__(
        self,
        settings: Settings,
        net: nn.Module,
        optimizer: Optimizer,
        pictures: Any,
        penalise: Callable[[], None],
        rate: Tensor | None,
        capture: bool,
    ) -> None:
        device = torch.device(settings.device)
        n, self.size = len(pictures), settings.batch_size
        self.whole = n // self.size  # batches; a last one may be smaller
        self.settings, self.net, self.optimizer, self.pictures = settings, net, optimizer, pictures
        self.penalise, self.rate, self.capture = penalise, rate, capture
        self.order = torch.zeros(n, dtype=torch.int64, device=device)
        self.rates = torch.zeros(math.ceil(n / self.size), device=device)
        self.at = torch.zeros(1, dtype=torch.int64, device=device)  # [1]: a number for an index would be asked for
        self.cost = torch.zeros((), dtype=torch.float64, device=device)
        self.right = torch.zeros((), dtype=torch.int64, device=device)
        self.last_right = torch.zeros((), dtype=torch.int64, device=device)
        self.bad = torch.zeros(1, dtype=torch.int64, device=device)  # 1 + the first step whose loss isn't finite
        self._places = torch.arange(self.size, device=device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._warm = 0
        self._fused = device.type == "cuda" and settings.kernels == "hw4fast" and pictures.images.shape[3] <= 4
        self._stream = torch.cuda.Stream() if capture else None

    def run(self, order: Tensor, rates: list[float], passed: Callable[[int], None]) -> tuple[float, float, float, int]:
        """An epoch: the mean cost and accuracy on the way, the last batch's accuracy, and the step (from 1) at which
        the loss stopped being finite, 0 for none. passed: is told how many more pictures are on their way."""
        self.order.copy_(order)
        self.rates.copy_(torch.tensor(rates))
        for tensor in (self.at, self.cost, self.right, self.last_right, self.bad):
            tensor.zero_()
        if self.rate is not None:
            self.rate.copy_(self.rates[0])
        with self._on_stream():
            step = 0
            while step < self.whole:
                step += (done := self._some(self.whole - step))
                passed(done * self.size)
            if rest := len(self.order) - self.whole * self.size:
                self._step(rest)
                passed(rest)
        n, last = len(self.order), (len(self.order) - 1) % self.size + 1
        return self.cost.item() / n, self.right.item() / n, self.last_right.item() / last, int(self.bad.item())

    def _on_stream(self) -> Any:
        if self._stream is None:
            return nullcontext()
        self._stream.wait_stream(torch.cuda.current_stream())
        return _Joined(self._stream)

    def _some(self, left: int) -> int:
        """Runs some of the steps that are left; how many."""
        if not self.capture or self._warm < WARM:
            self._warm += 1
            self._step(self.size)
            return 1
        count = UNROLLED if left >= UNROLLED else 1
        if count not in self._graphs:
            self.optimizer.zero_grad()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream):
                for _ in range(count):
                    self._step(self.size)
            self._graphs[count] = graph
        self._graphs[count].replay()
        return count

    def _step(self, size: int) -> None:
        s = self.settings
        x, y = self._batch(size)
        with torch.autocast("cuda", torch.bfloat16) if s.precision == "bfloat16" else nullcontext():
            logits = self.net(x)
            loss = LOSSES[s.loss](logits, y, s.kernels, s.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            self.penalise()
            self.optimizer.step()
            self._account(logits.detach(), y, loss.detach(), size)

    def _batch(self, size: int) -> tuple[Tensor, Tensor]:
        if self._fused:
            p = self.pictures
            return gather_batch(p.images, p.labels, self.order, self.at, size, self.size, *p.statistics)
        return self.pictures[self.order.index_select(0, self.at * self.size + self._places[:size])]

    def _account(self, logits: Tensor, y: Tensor, loss: Tensor, size: int) -> None:
        if self._fused:
            sums = (self.at, self.cost, self.right, self.last_right, self.bad)
            return tally_step(logits, y, loss, self.rates, self.rate, *sums)
        self.last_right.copy_((logits.argmax(1) == y).sum())
        self.right += self.last_right
        self.cost += loss * size
        self.at += 1
        self.bad.copy_(torch.where((self.bad == 0) & ~torch.isfinite(loss), self.at, self.bad))
        if self.rate is not None:
            self.rate.copy_(self.rates.index_select(0, self.at.clamp(max=len(self.rates) - 1))[0])


class _Joined:
    """A stream that works after what came before it on the current one, and before what follows."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream, self._inside = stream, torch.cuda.stream(stream)

    def __enter__(self) -> None:
        self._inside.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._inside.__exit__(*error)
        torch.cuda.current_stream().wait_stream(self._stream)
