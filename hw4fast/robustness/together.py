"""Many pictures at a time, where a device computes in batches: their requests are answered together.

The pictures of a group take their steps in turn with each other. At each step what they ask is sorted by point: a
point's pictures are changed by the device at once, where it knows how, else one by one on the cores, and all of them
go through the nets in batches of one size. What a picture gives depends on that picture alone, as in `ask_about`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hw4fast.errors import UserError
from hw4fast.inference.workers import in_order
from hw4fast.robustness.asking import Dialogue, Done, Plan, Request, Shown, answers_of, conversation
from hw4fast.robustness.points import Point
from hw4fast.robustness.source import Source
from hw4fast.robustness.store import Store

if TYPE_CHECKING:
    from hw4fast.data.preprocessing import Preprocessing
    from hw4fast.inference.classifier import Classifier
    from hw4fast.transforms import Chain

TOGETHER = 32  # pictures that take their steps in turn
AHEAD = 2  # batches that wait for a net or are in it while others are made


class Batches(Protocol):
    """A device that computes in batches. What it holds can be sliced and has a length: uint8 [n, h, w, c] of pictures.

    name: of the device; size: pictures that go through a net at once.
    """

    name: str
    size: int

    def knows(self, chain: Chain) -> bool:
        """Whether it can apply the chain."""

    def put(self, picture: np.ndarray) -> Any:
        """uint8 [h, w, c] → the same there."""

    def stack(self, pictures: Sequence[np.ndarray]) -> Any:
        """Pictures of one shape → a batch."""

    def join(self, batches: Sequence[Any]) -> Any:
        """Batches of pictures of one shape → one."""

    def apply(
        self,
        chain: Chain | None,
        pictures: Sequence[Any],
        keys: Sequence[bytes],
        seed: int,
        decoded: Sequence[Any] = (),
        preprocessing: Preprocessing | None = None,
    ) -> Any:
        """A batch of the pictures under a chain that it knows, the same bytes as the chain gives picture by picture.
        pictures: what `put` gave, of one shape; decoded, preprocessing: where the chain `reads`."""

    def answers(self, classifier: Classifier, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        """As Classifier.answers, of fitted pictures."""


@dataclass
class _Way:
    """A conversation, and what it waits for: a request, or nothing any more and it is done."""

    asking: Generator[Request, None, Done]
    request: Request | None = None
    done: Done | None = None

    def go_on(self) -> None:
        try:
            self.request = next(self.asking)
        except StopIteration as end:
            self.request, self.done = None, end.value


@dataclass
class _Job:
    """A point, and the pictures to make there, each with the dialogues that want it."""

    point: Point
    preprocessing: Preprocessing | None
    items: list[tuple[Shown, list[Dialogue]]] = field(default_factory=list)


def ask_together(
    numbers: Iterable[int], source: Source, plan: Plan, store: Store, batches: Batches, workers: int
) -> Iterator[Done]:
    """One Done per picture, in their order. workers: cores that read pictures and apply what the device doesn't know.
    Raises UserError when a model fails."""

    def begun(number: int) -> _Way:
        way = _Way(conversation(number, source, plan, store))
        way.go_on()
        return way

    with closing(in_order(begun, numbers, workers)) as begun_ways, ThreadPoolExecutor(1) as nets:
        while ways := list(islice(begun_ways, TOGETHER)):
            group = _Group(plan.seed, batches, workers, nets)
            while requests := [way.request for way in ways if way.request]:
                group.answer(requests)
                for way in ways:
                    if way.request:
                        way.go_on()
            yield from (way.done for way in ways if way.done)


class _Group:
    """The pictures of a group on the device, and what waits for the nets. nets: a thread that asks them, so that the
    next pictures are made meanwhile."""

    def __init__(self, seed: int, batches: Batches, workers: int, nets: ThreadPoolExecutor) -> None:
        self._seed, self._batches, self._workers, self._nets = seed, batches, workers, nets
        self._there: dict[Shown, tuple[Any, Any]] = {}  # fitted and decoded; a picture goes there once
        self._waiting: dict[str, list[tuple[Any, list[tuple[Dialogue, Point]]]]] = {}  # by the model's key
        self._asked: deque[tuple[list[tuple[Dialogue, Point]], Future[tuple[np.ndarray, np.ndarray]]]] = deque()

    def answer(self, requests: Sequence[Request]) -> None:
        """Every dialogue at every point that it hasn't answered yet; each point's picture is made once."""
        jobs: dict[tuple[str, Preprocessing | None], _Job] = {}
        for request in requests:
            for point in request.open():
                job = jobs.setdefault((point.key, request.preprocessing), _Job(point, request.preprocessing))
                job.items.append((request.shown, [talk for talk in request.talks if point.key not in talk.answers]))
        here = [job for job in jobs.values() if job.point.chain and not self._batches.knows(job.point.chain)]
        there = iter([job for job in jobs.values() if not job.point.chain or self._batches.knows(job.point.chain)])
        share = -(-len(jobs) // max(len(here), 1))  # the device works while the cores do
        tasks = [(job, shown) for job in here for shown, _ in job.items]
        with closing(in_order(self._made_here, tasks, self._workers)) as made:
            for job in here:
                for other in islice(there, share):
                    self._take(other, self._made_there(other))
                self._take(job, self._batches.stack(list(islice(made, len(job.items)))))
        for job in there:
            self._take(job, self._made_there(job))
        for key in list(self._waiting):
            self._ask(key, 1)
        while self._asked:
            self._note()

    def _made_here(self, task: tuple[_Job, Shown]) -> np.ndarray:
        job, shown = task
        return shown.at(job.point, self._seed, job.preprocessing)

    def _made_there(self, job: _Job) -> Any:
        fitted, decoded = zip(*(self._put(shown, job.point.reads) for shown, _ in job.items), strict=True)
        keys = [shown.key for shown, _ in job.items]
        return self._batches.apply(job.point.chain, fitted, keys, self._seed, decoded, job.preprocessing)

    def _put(self, shown: Shown, reads: bool) -> tuple[Any, Any]:
        fitted, decoded = self._there.get(shown, (None, None))
        fitted = self._batches.put(shown.fitted) if fitted is None else fitted
        decoded = self._batches.put(shown.decoded) if reads and decoded is None else decoded
        self._there[shown] = fitted, decoded
        return fitted, decoded

    def _take(self, job: _Job, pictures: Any) -> None:
        """Pictures, a row per item, for each model that wants some of them."""
        wanted: dict[str, list[tuple[int, Dialogue]]] = {}
        for row, (_, talks) in enumerate(job.items):
            for talk in talks:
                wanted.setdefault(talk.model.key, []).append((row, talk))
        for key, rows in wanted.items():
            some = pictures if len(rows) == len(job.items) else pictures[[row for row, _ in rows]]
            self._waiting.setdefault(key, []).append((some, [(talk, job.point) for _, talk in rows]))
            self._ask(key, self._batches.size)

    def _ask(self, key: str, least: int) -> None:
        """The net, as long as so many wait for it. A batch that isn't full is filled up with its last picture: a net
        may add up in another order for another batch size."""
        size, waiting = self._batches.size, self._waiting[key]
        while sum(len(some) for some, _ in waiting) >= least:
            pictures = self._batches.join([some for some, _ in waiting])
            asked = [pair for _, pairs in waiting for pair in pairs]
            full, now = pictures[:size], asked[:size]
            if len(full) < size:
                full = self._batches.join([full, *[full[-1:]] * (size - len(full))])
            self._asked.append((now, self._nets.submit(self._batches.answers, now[0][0].model.classifier, full)))
            waiting[:] = [(pictures[size:], asked[size:])] if len(asked) > size else []
            while len(self._asked) > AHEAD:
                self._note()

    def _note(self) -> None:
        """What the nets said to the batch that was asked first."""
        now, future = self._asked.popleft()
        try:
            probabilities, logits = future.result()
        except UserError as error:
            raise UserError(f"{now[0][1].spec or 'clean pictures'}: {error}") from None
        labels = np.array([talk.label for talk, _ in now])
        found = answers_of(probabilities[: len(now)], logits[: len(now)], labels)
        for (talk, point), answer in zip(now, found, strict=True):
            talk.note(point, answer)
