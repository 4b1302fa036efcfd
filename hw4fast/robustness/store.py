"""Answers on the disk: appended while a study runs, so that a kill loses seconds; found again by what was asked.

An answer belongs to the pixels that the model was shown before any transform, the transform's spec, the seed and the
model: whatever the files are called and in whatever order they come. `answers.parquet` holds all that was ever asked in
a folder, sorted; `answers/00000.parquet`, … are what has been added since.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast.errors import UserError
from hw4fast.files import writing
from hw4fast.paths import one_line

WHOLE, PARTS = "answers.parquet", "answers"
SECONDS = 3.0  # between two parts: what a kill may cost
KEYS = ("model", "pixels", "spec", "seed")
NUMBERS = {
    "pixels": np.uint64,
    "seed": np.int64,
    "label": np.int32,
    "answer": np.int32,
    "confidence": np.float32,
    "rank": np.int32,
}


@dataclass(frozen=True)
class Answer:
    """answer: the class; confidence: its probability; rank: how many classes come before the label (0: it is the
    answer), −1 without a label; label: the class index, −1 for none."""

    answer: int
    confidence: float
    rank: int
    label: int


class Store:
    """The answers of a folder. setting: what else they depend on (versions, provider): those of another one are left
    aside, and gone once `finish` has written its own.

    Raises UserError for a file that is damaged.
    """

    def __init__(self, folder: Path, setting: Mapping[str, str]) -> None:
        self.folder, self._setting = folder, dict(setting)
        self._new: list[tuple[Any, ...]] = []
        self._due = time.monotonic() + SECONDS
        self._columns = self._read()
        self._places: dict[tuple[str, int, int], np.ndarray] | None = self._index()

    def __len__(self) -> int:
        return len(self._columns["answer"])

    def find(self, model: str, pixels: int, seed: int) -> dict[str, Answer]:
        """What that model answered to these pixels: spec → Answer."""
        if self._places is None:
            self._places = self._index()
        rows = self._places.get((model, pixels, seed), range(0))
        c = self._columns
        return {
            self._specs[c["spec"][row]]: Answer(
                int(c["answer"][row]), float(c["confidence"][row]), int(c["rank"][row]), int(c["label"][row])
            )
            for row in rows
        }

    def add(self, model: str, pixels: int, seed: int, answers: Mapping[str, Answer]) -> None:
        """Takes them, and writes a part now and then. Raises OSError when the disk is full."""
        self._new += [
            (model, pixels, spec, seed, a.label, a.answer, a.confidence, a.rank) for spec, a in answers.items()
        ]
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Writes what isn't written yet."""
        if self._new:
            names = ("model", "pixels", "spec", "seed", "label", "answer", "confidence", "rank")
            columns = dict(zip(names, zip(*self._new, strict=True), strict=True))
            numbers = [int(path.stem) for path in self._parts()]
            self._write(self.folder / PARTS / f"{max(numbers, default=-1) + 1:05d}.parquet", columns)
            self._new = []
        self._due = time.monotonic() + SECONDS

    def finish(self) -> None:
        """All in one sorted file; the parts go."""
        self.flush()
        self._columns = c = {}  # what was read before isn't needed beside it
        c.update(self._read())
        for name, words in (("model", self._models), ("spec", self._specs)):  # numbered as they are sorted
            places = {word: place for place, word in enumerate(sorted(words))}
            c[name] = np.array([places[word] for word in words], np.int32)[c[name]]
            words.sort()
        if len(c["answer"]):
            order = np.lexsort((c["spec"], c["seed"], c["pixels"], c["model"]))
            for name in c:
                c[name] = c[name][order]
            last = np.ones(len(order), bool)  # of answers to the same, the newest: a label may have changed
            last[:-1] = np.any([c[name][1:] != c[name][:-1] for name in KEYS], axis=0)
            if not last.all():
                for name in c:
                    c[name] = c[name][last]
            self._write(self.folder / WHOLE, c, {"model": self._models, "spec": self._specs})
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)
        self._places = None

    def _parts(self) -> list[Path]:
        return sorted(path for path in (self.folder / PARTS).glob("*.parquet") if path.stem.isdecimal())

    def _files(self) -> Iterator[Path]:
        if (self.folder / WHOLE).exists():
            yield self.folder / WHOLE
        yield from self._parts()

    def _read(self) -> dict[str, np.ndarray]:
        """Every column; model and spec as numbers of self._models and self._specs."""
        self._models: list[str] = []
        self._specs: list[str] = []
        known: dict[str, dict[str, int]] = {"model": {}, "spec": {}}
        found: dict[str, list[np.ndarray]] = {name: [] for name in ("model", "spec", *NUMBERS)}
        for path in self._files():
            for name, column in self._table(path).items():
                found[name].append(_codes(column, known[name]) if name in known else column)
        self._models, self._specs = list(known["model"]), list(known["spec"])
        types = {"model": np.int32, "spec": np.int32} | NUMBERS
        return {name: np.concatenate([np.zeros(0, types[name]), *parts]) for name, parts in found.items()}

    def _table(self, path: Path) -> dict[str, Any]:
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
            setting = table.schema.metadata or {}
            if any(setting.get(key.encode()) != value.encode() for key, value in self._setting.items()):
                table = table.slice(0, 0)
            columns = {name: table.column(name).to_numpy().astype(kind) for name, kind in NUMBERS.items()}
            return columns | {name: table.column(name) for name in ("model", "spec")}
        except Exception as error:  # pyarrow's have no common base but Exception
            raise UserError(
                f"'{path}' is damaged ({one_line(str(error))}): delete it, its answers are asked for again"
            ) from None

    def _write(self, path: Path, columns: Mapping[str, Any], words: Mapping[str, Sequence[str]] | None = None) -> None:
        """words: what the numbers in the columns model and spec mean, if these aren't words themselves."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        numbers = {name: pa.array(np.asarray(columns[name], kind)) for name, kind in NUMBERS.items()}
        text = {
            name: pa.DictionaryArray.from_arrays(pa.array(columns[name]), pa.array(words[name], pa.string()))
            if words
            else pa.array(columns[name], pa.string())
            for name in ("model", "spec")
        }
        with writing(path) as temporary:
            pq.write_table(pa.table(text | numbers, metadata=self._setting), temporary)

    def _index(self) -> dict[tuple[str, int, int], np.ndarray]:
        c = self._columns
        order = np.lexsort((c["spec"], c["seed"], c["pixels"], c["model"]))
        keys = np.stack([c[name][order].astype(np.uint64) for name in ("model", "pixels", "seed")])
        starts = np.flatnonzero(np.any(keys[:, 1:] != keys[:, :-1], axis=0)) + 1
        groups = np.split(order, starts) if len(order) else []
        return {
            (self._models[c["model"][rows[0]]], int(c["pixels"][rows[0]]), int(c["seed"][rows[0]])): rows
            for rows in groups
        }


def _codes(column: Any, known: dict[str, int]) -> np.ndarray:
    """int32 numbers of the words of an Arrow column in `known`, which grows."""
    words = column.combine_chunks().dictionary_encode()
    own: Sequence[str] = words.dictionary.to_pylist()
    numbers = np.array([known.setdefault(word, len(known)) for word in own], np.int32)
    codes = words.indices.to_numpy(zero_copy_only=False)
    return numbers[codes] if len(own) else np.zeros(0, np.int32)
