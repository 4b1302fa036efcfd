"""Progress over all epochs of a run, on stderr."""

from __future__ import annotations

import sys
import time

from hw4fast.training.runs import Epoch


class Bar:
    """One bar for all epochs, without a terminal none, and a line that ends each epoch: of hundreds of them one a
    second, and the last."""

    MANY = 100

    def __init__(self, images: int, epochs: int, done: int, show: bool, stage: str = "") -> None:
        from tqdm import tqdm

        self._epochs, self._show, self._steps = epochs, show, 0
        self._unsaid, self._due = "", 0.0
        self._stage = f"{stage}, " if stage else ""
        self._bar = tqdm(
            total=images * epochs,
            initial=images * done,
            unit="img",
            unit_scale=True,
            disable=None if show else True,
            desc=f"{self._stage}epoch {done + 1}/{epochs}",
            dynamic_ncols=True,
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()
        self._bar.close()

    def _write(self) -> None:
        if self._unsaid and self._show:
            self._bar.write(self._unsaid, file=sys.stderr)
        self._unsaid, self._due = "", time.monotonic() + 1

    def step(self, images: int, cost: float, accuracy: float) -> None:
        self._steps += 1
        if self._steps % 10 == 1:
            self._bar.set_postfix_str(f"loss {cost:.3f}, accuracy {100 * accuracy:.0f} %", refresh=False)
        self._bar.update(images)

    def advance(self, images: int) -> None:
        """As `step`, where nobody knows the loss yet."""
        self._bar.update(images)

    def say(self, row: Epoch) -> None:
        split, cost, correct, images = row.held_out
        self._unsaid = (
            f"{self._stage}epoch {row.epoch}/{self._epochs}: train cost {row.train_cost:.4f}, accuracy"
            f" {100 * row.train_accuracy:.2f} %; {split} cost {cost:.4f}, accuracy"
            f" {100 * correct / images:.2f} %; {row.seconds:.1f} s"
        )
        if self._epochs <= self.MANY or time.monotonic() >= self._due:
            self._write()
        after = min(row.epoch + 1, self._epochs)
        self._bar.set_description(f"{self._stage}epoch {after}/{self._epochs}", refresh=False)
