"""Progress over all epochs of a run, on stderr."""

from __future__ import annotations

import sys

from hw4fast.training.runs import Epoch


class Bar:
    """One bar for all epochs; without a terminal only the line that ends each epoch."""

    def __init__(self, images: int, epochs: int, done: int, show: bool, stage: str = "") -> None:
        from tqdm import tqdm

        self._epochs, self._show, self._steps = epochs, show, 0
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
        self._bar.close()

    def step(self, images: int, cost: float, accuracy: float) -> None:
        self._steps += 1
        if self._steps % 10 == 1:
            self._bar.set_postfix_str(f"loss {cost:.3f}, accuracy {100 * accuracy:.0f} %", refresh=False)
        self._bar.update(images)

    def say(self, row: Epoch) -> None:
        if self._show:
            split, cost, correct, images = row.held_out
            self._bar.write(
                f"{self._stage}epoch {row.epoch}/{self._epochs}: train cost {row.train_cost:.4f}, accuracy"
                f" {100 * row.train_accuracy:.2f} %; {split} cost {cost:.4f}, accuracy"
                f" {100 * correct / images:.2f} %; {row.seconds:.1f} s",
                file=sys.stderr,
            )
        after = min(row.epoch + 1, self._epochs)
        self._bar.set_description(f"{self._stage}epoch {after}/{self._epochs}", refresh=False)
