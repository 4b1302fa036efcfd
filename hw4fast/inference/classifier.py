"""A model that answers: an exported ONNX file read through its card, and nothing else."""

from __future__ import annotations

import hashlib
import mmap
import shlex
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hw4fast.data.images import as_picture
from hw4fast.data.preprocessing import MAX_CROP
from hw4fast.errors import UserError
from hw4fast.files import sha256
from hw4fast.inference.binding import DEVICES, Bound
from hw4fast.inference.card import KEY, Card
from hw4fast.inference.checked import OUT_OF_MEMORY, weight_files
from hw4fast.inference.known import find_model, known_card
from hw4fast.inference.session import PROVIDERS, explain_provider, open_session, said
from hw4fast.kernels import rest
from hw4fast.paths import one_line

Guess = tuple[int, str, float]  # class index, its label, how probable the model holds it (0…1)
BATCH = 32  # pictures that go through the net at once
TYPES = {"float32": "tensor(float)", "float16": "tensor(float16)", "uint8": "tensor(uint8)"}  # onnxruntime's names


class Classifier:
    """path: the .onnx file; card: what it says about itself; provider: the key of PROVIDERS that really runs; at_once:
    how many pictures the graph takes, no more and no less, None for any number.

    `Classifier(model)` takes an .onnx file, a run folder that holds model.onnx, or an architecture's name (see
    known.find_model). providers: one key of PROVIDERS or several, of which the first that runs is taken.
    threads: of one operator; onnxruntime's choice if None. kernels, trusted, spin, batch, options: see
    open_session.
    Raises UserError when the file is missing or corrupt, has no card, has one that doesn't fit its input and output,
    or when no provider of those runs here; UsageError for an unknown provider.
    """

    def __init__(
        self,
        model: str | Path,
        providers: str | Sequence[str] = "cpu",
        threads: int | None = None,
        kernels: bool = True,
        trusted: bool = False,
        spin: bool | None = None,
        batch: int | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self._spin, self._own = find_model(model), spin, threading.local()
        self._session = open_session(self.path, providers, threads, kernels, trusted, spin, batch, options)
        running = self._session.get_providers()[0]
        self.provider = next(name for name, long_name in PROVIDERS.items() if long_name == running)
        text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        try:
            card = known_card(self.path) if text is None else Card.from_json_text(text)
            if card is None:
                file = shlex.quote(one_line(self.path, 4096))
                raise UserError(
                    f"it has no card (metadata '{KEY}': preprocessing and labels), so its answers can't be read; if you"
                    f" know what it takes: hw4fast card {file} --set labels=LABELS.txt --preprocess imagenet"
                )
            self.card = card
            device = DEVICES.get(self.provider)
            self._bound = Bound(self._session, device, card.input.name, card.output.name) if device else None
            self.at_once = self._check_shapes()
        except UserError as error:
            raise UserError(f"'{self.path}': {error}") from None

    def __repr__(self) -> str:
        p = self.card.preprocessing
        size = "×".join(map(str, (*p.crop, p.channels)))
        return f"Classifier('{one_line(self.path)}', {size} → {len(self.card.labels)} classes, on {self.provider})"

    @cached_property
    def sha256(self) -> str:
        """Of the model file; of it and of the files that its weights lie in, where they lie in others."""
        others = [path for path in weight_files(self.path) if path.is_file()]
        digests = [sha256(path) for path in (self.path, *others)]
        return digests[0] if not others else hashlib.sha256("".join(digests).encode()).hexdigest()

    @cached_property
    def mixes_batch(self) -> bool:
        """Whether an answer would depend on what else is in its batch, and pictures are asked one by one: a net that is
        quantised as it runs, with one scale for all that it is given."""
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(b"DynamicQuantize") >= 0  # operators of that name, and no harm where it is another's

    def fit(self, picture: np.ndarray) -> np.ndarray:
        """uint8 [h, w, 1 or 3] of any size → uint8 [height, width, channels] as the model reads it.

        Raises UserError for a picture that Preprocessing.fit refuses.
        """
        try:
            return self.card.preprocessing.fit(picture)
        except ValueError as error:
            raise UserError(str(error)) from None

    def logits(self, batch: Any) -> np.ndarray:
        """uint8 [n, h, w, c] of fitted pictures, or the floats that the graph takes (`tensor` of them), n ≥ 0
        → float32 [n, classes]; ValueError for another shape or dtype.

        batch: a NumPy array; on a GPU a torch tensor of what the graph takes, too, such as hw4fast.nn.fit gives, which
        is read where it lies. ValueError for a tensor elsewhere.
        Raises UserError when the model fails while it runs, or answers in another shape.
        """
        if not isinstance(batch, np.ndarray):
            return self._logits_there(batch)
        floats = batch.dtype != np.uint8 and batch.dtype == self.card.input.dtype
        ready = floats and _agree(list(batch.shape), _input_shape(self.card))
        if not ready:
            shape = (*self.card.preprocessing.crop, self.card.preprocessing.channels)
            if batch.dtype != np.uint8 or batch.shape[1:] != shape:
                raise ValueError(f"the batch must be uint8 [n, {shape}], not {batch.dtype} {list(batch.shape)}")
        n, at_once = len(batch), self.at_once
        if n == 0:
            return np.zeros((0, len(self.card.labels)), np.float32)
        if n > 1 and self.mixes_batch:
            return np.concatenate([self.logits(batch[i : i + 1]) for i in range(n)])
        tensor = batch if ready else self.tensor(batch, self._scratch(batch))
        if at_once is None:
            return self._run(tensor)
        # the file takes so many at a time: the last ones are filled up
        filled = np.concatenate([tensor, np.repeat(tensor[-1:], -n % at_once, axis=0)])
        return np.concatenate([self._run(filled[i : i + at_once]) for i in range(0, n, at_once)])[:n]

    def _logits_there(self, tensor: Any) -> np.ndarray:
        """Of a torch tensor on the device."""
        if self._bound is None:
            raise ValueError(f"the model runs on {self.provider} and takes NumPy arrays, not {type(tensor).__name__}")
        self._bound.check_place(tensor)
        dtype, shape, expected = str(tensor.dtype).removeprefix("torch."), list(tensor.shape), _input_shape(self.card)
        if dtype != self.card.input.dtype or not _agree(shape, [self.at_once, *expected[1:]]):
            count = self.at_once or "n"
            raise ValueError(
                f"the tensor must be {self.card.input.dtype} [{count}, {str(expected[1:])[1:-1]}], not {dtype} {shape}"
            )
        if len(tensor) == 0:
            return np.zeros((0, len(self.card.labels)), np.float32)
        if self.mixes_batch and self.at_once is None:
            return np.concatenate([self._run(tensor[i : i + 1].contiguous()) for i in range(len(tensor))])
        return self._run(tensor.contiguous())

    def _scratch(self, batch: np.ndarray) -> np.ndarray:
        """float32 [n, c, h, w], this thread's own: the system's fresh pages take longer than to fill them."""
        n, height, width, channels = batch.shape
        shape = (n, channels, height, width)
        held = getattr(self._own, "tensor", None)
        if held is None or held.shape != shape:
            held = self._own.tensor = np.empty(shape, np.float32)
        return held

    def _run(self, tensor: Any) -> np.ndarray:
        card = self.card
        if "torch" in sys.modules and self._spin is None:
            rest()
        try:
            if self._bound is None:
                (result,) = self._session.run([card.output.name], {card.input.name: tensor})
            else:
                result = self._bound.run(tensor)
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            reason = said(error)
            raise UserError(
                f"'{one_line(self.path)}' failed on a batch of {len(tensor)}: {reason}; {self._advice(reason)}"
            ) from None
        if result.shape != (len(tensor), len(card.labels)):
            raise UserError(f"'{self.path}' answered {list(result.shape)} to {len(tensor)} pictures; export it again")
        result = result.astype(np.float32, copy=False)
        if card.output.kind == "probabilities":
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.log(result)
        return result

    def _advice(self, reason: str) -> str:
        """What to do when the model failed."""
        if self._bound is None:
            return "export it again"
        if OUT_OF_MEMORY.search(reason):
            return "give it fewer pictures at a time"
        return explain_provider(self.provider) or "export it again"

    @np.errstate(over="ignore")  # of float16: the answer is refused
    def tensor(self, batch: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """uint8 [n, h, w, c] of fitted pictures → what the graph takes, as the card says. out: float32 [n, c, h, w]
        that it may use for that."""
        expected = self.card.input
        if expected.dtype == "uint8":
            batch = batch[..., ::-1] if self.card.preprocessing.mode == "BGR" else batch
            return np.ascontiguousarray(batch if expected.layout == "NHWC" else batch.transpose(0, 3, 1, 2))
        tensor = self.card.preprocessing.normalise(batch, out).astype(expected.dtype, copy=False)
        return tensor if expected.layout == "NCHW" else np.ascontiguousarray(tensor.transpose(0, 2, 3, 1))

    def probabilities(self, batch: Any) -> np.ndarray:
        """As `logits`, then softmax: float32 [n, classes], rows that sum to 1. Raises UserError as `answers` does."""
        return self.answers(batch)[0]

    def answers(self, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities and logits, both float32 [n, classes].

        Raises UserError, too, when a row of logits has no softmax: NaN or +∞ in it, or nothing but −∞.
        """
        logits = self.logits(batch)
        if not np.isfinite(logits.max(axis=1)).all():
            raise UserError(
                f"'{one_line(self.path)}' gave an answer that is no number (NaN or infinite) in a batch of "
                f"{len(batch)}; its weights are broken: train or export it again"
            )
        odds = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        return odds / odds.sum(axis=1, keepdims=True), logits

    def classify(self, images: Any, top: int = 5) -> list[tuple[Guess, ...]]:
        """The `top` most probable classes of each picture, best first; of a single picture, a list of one.

        images: one picture or several, each a path, a file's bytes, a Pillow image or an array (see images.as_picture).
        Raises UserError for a picture that can't be read, ValueError for an array that is none and for top < 1.
        """
        if top < 1:
            raise ValueError(f"top must be 1 or more, not {top}")
        single = isinstance(images, str | bytes | Path | Image.Image) or (
            isinstance(images, np.ndarray) and images.ndim < 4
        )
        pictures, found = [images] if single else list(images), []
        for i in range(0, len(pictures), BATCH):
            batch = np.stack([self.fit(as_picture(picture)) for picture in pictures[i : i + BATCH]])
            found += [best(row, self.card.labels, top) for row in self.probabilities(batch)]
        return found

    def _check_shapes(self) -> int | None:
        """UserError unless the file takes and gives what the card says; how many pictures it takes at once, None for
        any number."""
        card = self.card
        inputs = {entry.name: entry for entry in self._session.get_inputs()}
        outputs = {entry.name: entry for entry in self._session.get_outputs()}
        if list(inputs) != [card.input.name] or card.output.name not in outputs:
            names = f"{', '.join(inputs)} → {', '.join(outputs)}"
            raise UserError(
                f"the model's tensors are {one_line(names)}, the card says {one_line(card.input.name)} →"
                f" {one_line(card.output.name)}; export it again"
            )
        taken, given = inputs[card.input.name], outputs[card.output.name]
        if taken.type != TYPES[card.input.dtype] or given.type not in (TYPES["float32"], TYPES["float16"]):
            raise UserError(
                f"the model takes {taken.type} and gives {given.type}, where the card says {card.input.dtype} and a"
                " float; export it again"
            )
        expected = _input_shape(card)
        if not _agree(taken.shape, expected):
            raise UserError(f"the card says input {expected}, but the model takes {taken.shape}; export it again")
        if not _agree(given.shape, [None, len(card.labels)]):
            raise UserError(
                f"the card has {len(card.labels)} labels, but the model's output is {given.shape}; export it again"
            )
        return _pictures_at_once(taken.shape[0], card)


def _pictures_at_once(count: int | str | None, card: Card) -> int | None:
    """How many pictures the graph insists on, None for any number; UserError when they can't be given."""
    if not isinstance(count, int):
        return None
    rows, columns = card.preprocessing.crop
    if not 1 <= count <= BATCH * MAX_CROP // (rows * columns):
        raise UserError(
            f"the model takes {count} pictures at a time, no more and no less; export it with another batch"
        )
    return count


def best(probabilities: np.ndarray, labels: tuple[str, ...], top: int) -> tuple[Guess, ...]:
    """The `top` largest of float32 [classes]; the lower index first among equals."""
    least = np.partition(probabilities, -top)[-top] if top < len(probabilities) else -np.inf
    candidates = np.flatnonzero(probabilities >= least)
    order = candidates[np.argsort(-probabilities[candidates], kind="stable")][:top]
    return tuple((int(index), labels[index], float(probabilities[index])) for index in order)


def _input_shape(card: Card) -> list[int | None]:
    sides, channels = card.preprocessing.crop, card.preprocessing.channels
    return [None, *sides, channels] if card.input.layout == "NHWC" else [None, channels, *sides]


def _agree(found: list[int | str | None], expected: list[int | None]) -> bool:
    """Same number of axes, and the same length wherever both state one (onnxruntime names dynamic axes)."""
    return len(found) == len(expected) and all(
        length is None or not isinstance(axis, int) or axis == length
        for axis, length in zip(found, expected, strict=True)
    )
