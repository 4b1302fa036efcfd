"""A model that answers: an exported ONNX file read through its card, and nothing else."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np

from hw4fast.data.preprocessing import Preprocessing
from hw4fast.errors import UserError
from hw4fast.inference.card import KEY, Card
from hw4fast.inference.session import PROVIDERS, open_session, said
from hw4fast.paths import model_file, one_line


class Classifier:
    """path: the .onnx file; card: what it says about itself; provider: the key of PROVIDERS that really runs.

    `Classifier(path)` takes an .onnx file or a run folder that holds model.onnx. Raises UserError when the
    file is missing or corrupt, has no card, has one that doesn't fit its input and output, takes a fixed
    number of pictures, or when the provider doesn't run here; UsageError for an unknown provider.
    """

    def __init__(self, path: str | Path, provider: str = "cpu", threads: int | None = None) -> None:
        self.path = model_file(path)
        self._session = open_session(self.path, provider, threads)
        running = self._session.get_providers()[0]
        self.provider = next(name for name, long_name in PROVIDERS.items() if long_name == running)
        text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            raise UserError(
                f"'{self.path}' has no card (metadata '{KEY}': preprocessing and labels), so its answers can't be "
                "read; `hw4fast export` writes files with one"
            )
        try:
            self.card = Card.from_json_text(text)
            self._check_shapes()
        except UserError as error:
            raise UserError(f"'{self.path}': {error}") from None

    @cached_property
    def sha256(self) -> str:
        """Of the model file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def fit(self, picture: np.ndarray) -> np.ndarray:
        """uint8 [h, w, 1 or 3] of any size → uint8 [height, width, channels] as the model reads it.

        Raises UserError for a picture that Preprocessing.fit refuses.
        """
        try:
            return self.card.preprocessing.fit(picture)
        except ValueError as error:
            raise UserError(str(error)) from None

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """uint8 [n, h, w, c] of fitted pictures, n ≥ 0 → float32 [n, classes]; ValueError for another shape.

        Raises UserError when the model fails while it runs, or answers in another shape.
        """
        shape = (*self.card.preprocessing.crop, self.card.preprocessing.channels)
        if batch.dtype != np.uint8 or batch.shape[1:] != shape:
            raise ValueError(f"the batch must be uint8 [n, {shape}], not {batch.dtype} {list(batch.shape)}")
        if len(batch) == 0:
            return np.zeros((0, len(self.card.labels)), np.float32)
        inputs = {"input": self.card.preprocessing.normalise(batch)}
        try:
            result = self._session.run(["logits"], inputs)[0]
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            raise UserError(
                f"'{one_line(self.path)}' failed on a batch of {len(batch)}: {said(error)}; export it again"
            ) from None
        if result.shape != (len(batch), len(self.card.labels)):
            raise UserError(f"'{self.path}' answered {list(result.shape)} to {len(batch)} pictures; export it again")
        return result

    def probabilities(self, batch: np.ndarray) -> np.ndarray:
        """As `logits`, then softmax: float32 [n, classes], rows that sum to 1.

        Raises UserError, too, when a row of logits has no softmax: NaN or +∞ in it, or nothing but −∞.
        """
        logits = self.logits(batch)
        if not np.isfinite(logits.max(axis=1)).all():
            raise UserError(
                f"'{one_line(self.path)}' gave an answer that is no number (NaN or infinite) in a batch of "
                f"{len(batch)}; its weights are broken: train or export it again"
            )
        odds = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        return odds / odds.sum(axis=1, keepdims=True)

    def _check_shapes(self) -> None:
        """UserError unless the file takes "input" float32 [any n, c, h, w] and gives "logits" [n, classes]."""
        inputs = {entry.name: entry for entry in self._session.get_inputs()}
        outputs = {entry.name: entry for entry in self._session.get_outputs()}
        if list(inputs) != ["input"] or "logits" not in outputs:
            names = f"{', '.join(inputs)} → {', '.join(outputs)}"
            raise UserError(f"the model's tensors are {names}, expected input → logits; export it again")
        if inputs["input"].type != "tensor(float)" or outputs["logits"].type != "tensor(float)":
            raise UserError("the model's input and logits must be float32; export it again")
        taken, given = inputs["input"].shape, outputs["logits"].shape
        if taken and isinstance(taken[0], int):
            raise UserError(f"the model takes exactly {taken[0]} picture(s) at a time; export it with a dynamic batch")
        expected = _input_shape(self.card.preprocessing)
        if not _agree(taken, expected):
            raise UserError(f"the card says input {expected}, but the model takes {taken}; export it again")
        if not _agree(given, [None, len(self.card.labels)]):
            raise UserError(
                f"the card has {len(self.card.labels)} labels, but the model's logits are {given}; export it again"
            )


def _input_shape(preprocessing: Preprocessing) -> list[int | None]:
    return [None, preprocessing.channels, *preprocessing.crop]


def _agree(found: list[int | str | None], expected: list[int | None]) -> bool:
    """Same number of axes, and the same length wherever both state one (onnxruntime names dynamic axes)."""
    return len(found) == len(expected) and all(
        length is None or not isinstance(axis, int) or axis == length
        for axis, length in zip(found, expected, strict=True)
    )
