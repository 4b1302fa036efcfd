"""One picture and the models that are asked about it: at each point of a study, and for its breaking points.

A core takes a picture the whole way: from the file through the transforms and the nets, a batch of points at a time.
Nothing waits for another core, and what a picture gives depends on that picture alone: the same answers at any number
of workers, in any order, after a kill.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np

from hw4fast.errors import UserError
from hw4fast.robustness.breaking import Broken, questions
from hw4fast.robustness.metrics import NO_LABEL
from hw4fast.robustness.points import CLEAN, Point
from hw4fast.robustness.source import Source
from hw4fast.robustness.store import Answer, Store
from hw4fast.transforms import Transform
from hw4fast.transforms.randomness import picture_key

if TYPE_CHECKING:
    from hw4fast.data.preprocessing import Preprocessing
    from hw4fast.inference.classifier import Classifier

BATCH = 8  # points that go through a net at once: more gain nothing on one core


@dataclass(frozen=True)
class Asked:
    """A model under study. name: tells it from the others; labels: int64 [all pictures of the source], the class index
    that the model has for each, NO_LABEL where there is none."""

    name: str
    classifier: Classifier
    labels: np.ndarray

    @property
    def key(self) -> str:
        """What its answers are stored under."""
        return self.classifier.sha256[:16]


@dataclass(frozen=True)
class Plan:
    """What a study asks. points: the first is clean; sought: the pictures whose breaking points under `swept` are
    sought."""

    models: tuple[Asked, ...]
    points: tuple[Point, ...]
    seed: int
    swept: tuple[Transform, ...] = ()
    sought: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Done:
    """A picture's answers: per model the Answer at each point, and its breaking points, if they were sought; `new`:
    (model, pixels, answers) that weren't in the store, to be put there; reused: how many at the points were there.
    failure: why there are none."""

    number: int
    answers: tuple[tuple[Answer, ...], ...] = ()
    broken: tuple[tuple[Broken, ...], ...] = ()
    new: tuple[tuple[str, int, dict[str, Answer]], ...] = ()
    reused: int = 0
    failure: str | None = None


@dataclass
class Dialogue:
    """A model and a picture. answers: what is known, by the point's key; new: what of it wasn't at the beginning, that
    which hangs on the fitted pixels, and that which hangs on the decoded ones."""

    model: Asked
    label: int
    answers: dict[str, Answer]
    new: tuple[dict[str, Answer], dict[str, Answer]] = field(default_factory=lambda: ({}, {}))

    def answer(self, points: Sequence[Point], batch: np.ndarray) -> None:
        """Asks the net. A batch that isn't full is filled up with its last picture: a net may add up in another order
        for another batch size, and an answer must not depend on what else is asked."""
        full = np.concatenate([batch, np.repeat(batch[-1:], BATCH - len(batch), axis=0)])
        try:
            probabilities, logits = self.model.classifier.answers(full)
        except UserError as error:
            raise UserError(f"{points[0].spec or 'clean pictures'}: {error}") from None
        found = answers_of(probabilities, logits, np.full(BATCH, self.label))
        for answer, point in zip(found, points, strict=False):
            self.note(point, answer)

    def note(self, point: Point, answer: Answer) -> None:
        self.answers[point.key] = self.new[point.reads][point.key] = answer


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture as some models are shown it: uint8 [h, w, c] fitted to their nets and as it was decoded, and the
    `picture_key` of the fitted one."""

    fitted: np.ndarray
    decoded: np.ndarray
    key: bytes

    def at(self, point: Point, seed: int, preprocessing: Preprocessing | None) -> np.ndarray:
        """uint8, of the fitted one's shape."""
        return point.apply(self.fitted, seed, self.key, decoded=self.decoded, preprocessing=preprocessing)


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be asked: every dialogue of `talks` wants an answer at each of `points`. preprocessing: how the models
    read a picture, where the points are about that."""

    talks: tuple[Dialogue, ...]
    points: tuple[Point, ...]
    shown: Shown
    preprocessing: Preprocessing | None = None

    def open(self) -> list[Point]:
        """The points, each once, at which a dialogue lacks an answer yet."""
        return list({p.key: p for p in self.points if any(p.key not in talk.answers for talk in self.talks)}.values())


def answers_of(probabilities: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> list[Answer]:
    """Of a batch: float32 [n, classes] each, and int64 [n] with NO_LABEL where there is none."""
    answers, confidence = logits.argmax(1).tolist(), probabilities.max(1).tolist()
    ranks = np.where(labels == NO_LABEL, -1, _ranks(logits, labels.clip(0))).tolist()
    return [Answer(*row) for row in zip(answers, confidence, ranks, labels.tolist(), strict=True)]


def _ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[n]: how many classes come before the label: those with more, and of those with as much the ones of a lower
    index."""
    own, before = logits[np.arange(len(labels)), labels][:, None], np.arange(logits.shape[1]) < labels[:, None]
    return ((logits > own) | ((logits == own) & before)).sum(1)


def ask_about(number: int, source: Source, plan: Plan, store: Store, stop: Event) -> Done:
    """The whole way of one picture on one core. Raises UserError when a model fails."""
    asking = conversation(number, source, plan, store)
    while True:
        try:
            request = next(asking)
        except StopIteration as end:
            done: Done = end.value
            return done
        _ask(request, plan.seed, stop)


def conversation(number: int, source: Source, plan: Plan, store: Store) -> Generator[Request, None, Done]:
    """The way of one picture, whoever goes it: between two requests the dialogues of the first must be answered."""
    try:
        picture = source.read(number)
        groups = [(group, group[0].classifier.fit(picture)) for group in _groups(plan.models)]
    except UserError as error:
        return Done(number, failure=str(error))
    dialogues: dict[str, Dialogue] = {}
    broken: dict[str, tuple[Broken, ...]] = {}
    new, reused = [], 0
    reads = any(point.reads for point in plan.points)
    whole = _number(blake2b(b"decoded" + picture_key(picture)).digest()) if reads else 0  # and no fitted one's
    for models, fitted in groups:
        shown = Shown(fitted, picture, picture_key(fitted))
        pixels = _number(shown.key), whole
        talks = [_begun(model, int(model.labels[number]), store, pixels, plan.seed, reads) for model in models]
        reused += sum(point.key in talk.answers for talk in talks for point in plan.points)
        yield from _requests(talks, plan.points, shown)
        for talk in talks:
            dialogues[talk.model.name] = talk
            if number in plan.sought:
                broken[talk.model.name] = tuple((yield from _broken(plan.swept, talk, shown)))
            new += [(talk.model.key, where, some) for where, some in zip(pixels, talk.new, strict=True) if some]
    found = [dialogues[model.name].answers for model in plan.models]
    return Done(
        number,
        tuple(tuple(answers[point.key] for point in plan.points) for answers in found),
        tuple(broken[model.name] for model in plan.models if broken),
        tuple(new),
        reused,
    )


def _requests(talks: Sequence[Dialogue], points: Sequence[Point], shown: Shown) -> Iterator[Request]:
    """What isn't about how a picture is read is one for all models that are shown the same pixels."""
    yield Request(tuple(talks), tuple(point for point in points if not point.reads), shown)
    reading = tuple(point for point in points if point.reads)
    for preprocessing, some in _by_preprocessing(talks) if reading else ():
        yield Request(tuple(some), reading, shown, preprocessing)


def _broken(swept: Sequence[Transform], talk: Dialogue, shown: Shown) -> Generator[Request, None, list[Broken]]:
    asking = questions(swept, talk.answers[CLEAN.key].answer)
    points = next(asking)
    while True:
        yield from _requests([talk], points, shown)
        try:
            points = asking.send([talk.answers[point.key].answer for point in points])
        except StopIteration as end:
            found: list[Broken] = end.value
            return found


def _groups(models: Sequence[Asked]) -> list[list[Asked]]:
    """Models that are shown the same pixels, but for what hangs on how a picture is read."""
    groups: dict[Any, list[Asked]] = {}
    for model in models:
        groups.setdefault(model.classifier.card.preprocessing.fitting, []).append(model)
    return list(groups.values())


def _by_preprocessing(talks: Sequence[Dialogue]) -> list[tuple[Preprocessing, list[Dialogue]]]:
    groups: dict[Preprocessing, list[Dialogue]] = {}
    for talk in talks:
        groups.setdefault(talk.model.classifier.card.preprocessing, []).append(talk)
    return list(groups.items())


def _number(key: bytes) -> int:
    """What a picture's answers are stored under."""
    return int.from_bytes(key[:8], "little")


def _begun(model: Asked, label: int, store: Store, pixels: tuple[int, int], seed: int, reads: bool) -> Dialogue:
    """Known answers count where the picture's label is what it was then: their rank belongs to it. pixels: what answers
    are stored under that hang on the fitted picture, and those that hang on the decoded one."""
    known = store.find(model.key, pixels[0], seed)
    if reads:
        known |= store.find(model.key, pixels[1], seed)
    return Dialogue(model, label, {key: answer for key, answer in known.items() if answer.label == label})


def _ask(request: Request, seed: int, stop: Event) -> None:
    """Every model at every point that it hasn't answered yet; each point's picture is made once."""
    needed = request.open()
    for begin in range(0, len(needed), BATCH):
        if stop.is_set():
            raise UserError("stopped")  # nobody waits for it
        part = needed[begin : begin + BATCH]
        batch = np.stack([request.shown.at(point, seed, request.preprocessing) for point in part])
        for talk in request.talks:
            rows = [row for row, point in enumerate(part) if point.key not in talk.answers]
            if rows:
                talk.answer([part[row] for row in rows], batch[rows])
