"""Answers on the disk: appended while a study runs, so that a kill loses seconds; found again by what was asked.

An answer belongs to the pixels that the model was shown before any transform, the transform's spec, the seed and the
model: whatever the files are called and in whatever order they come. `answers.parquet` holds all that was ever asked in
a folder, sorted; `answers/00000.parquet`, … are what has been added since.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast.errors import UserError
from hw4fast.files import writing
from hw4fast.paths import one_line

WHOLE, PARTS = "answers.parquet", "answers"
SECONDS = 3.0  # between two parts: what a kill may cost
ROWS = 1 << 17  # read and written at once
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
        self._columns, self._places = {}, None  # what was read before isn't needed beside it
        self._columns = c = self._read()
        if len(c["answer"]):
            order = np.lexsort((c["spec"], c["seed"], c["pixels"], c["model"]))
            for name in c:
                c[name] = c[name][order]
            last = np.ones(len(order), bool)  # of answers to the same, the newest: a label may have changed
            last[:-1] = _changes(c, KEYS)
            if not last.all():
                for name in c:
                    c[name] = c[name][last]
            self._write(self.folder / WHOLE, c, {"model": self._models, "spec": self._specs})
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)

    def _parts(self) -> list[Path]:
        return sorted(path for path in (self.folder / PARTS).glob("*.parquet") if path.stem.isdecimal())

    def _files(self) -> Iterator[Path]:
        if (self.folder / WHOLE).exists():
            yield self.folder / WHOLE
        yield from self._parts()

    def _read(self) -> dict[str, np.ndarray]:
        """Every column; model and spec as numbers of self._models and self._specs, which are sorted."""
        import pyarrow.parquet as pq

        rows = {path: self._rows(path) for path in self._files()}
        types = {"model": np.int32, "spec": np.int32} | NUMBERS
        found = {name: np.empty(sum(rows.values()), kind) for name, kind in types.items()}
        models: dict[str, int] = {}
        specs: dict[str, int] = {}
        known, end = {"model": models, "spec": specs}, 0
        for path in (path for path, n in rows.items() if n):
            with _damaged(path), pq.ParquetFile(path, read_dictionary=list(known)) as file:
                for batch in file.iter_batches(ROWS):  # all at once would take as much once more
                    begin, end = end, end + len(batch)
                    for name, column in found.items():
                        cells = batch.column(name)
                        column[begin:end] = _codes(cells, known[name]) if name in known else cells.to_numpy()
        self._models, found["model"] = _in_order(list(models), found["model"])
        self._specs, found["spec"] = _in_order(list(specs), found["spec"])
        return found

    def _rows(self, path: Path) -> int:
        """How many answers of this setting a file holds."""
        import pyarrow.parquet as pq

        with _damaged(path):
            about = pq.read_metadata(path)
            setting = about.metadata or {}
            of_this = all(setting.get(key.encode()) == value.encode() for key, value in self._setting.items())
            return about.num_rows if of_this else 0

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
            pq.write_table(pa.table(text | numbers, metadata=self._setting), temporary, row_group_size=ROWS)

    def _index(self) -> dict[tuple[str, int, int], np.ndarray]:
        c = self._columns
        order = np.lexsort((c["spec"], c["seed"], c["pixels"], c["model"])).astype(np.int32)
        found = {name: c[name][order] for name in ("model", "pixels", "seed")}
        starts = np.flatnonzero(_changes(found, tuple(found))) + 1
        groups = np.split(order, starts) if len(order) else []
        return {
            (self._models[c["model"][rows[0]]], int(c["pixels"][rows[0]]), int(c["seed"][rows[0]])): rows
            for rows in groups
        }


def _changes(columns: Mapping[str, np.ndarray], keys: Sequence[str]) -> np.ndarray:
    """bool [n − 1]: whether a row differs from the one before in one of the keys."""
    found = np.zeros(max(len(columns[keys[0]]) - 1, 0), bool)
    for key in keys:
        found |= columns[key][1:] != columns[key][:-1]
    return found


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """UserError for what is wrong with that file."""
    try:
        yield
    except Exception as error:  # pyarrow's have no common base but Exception
        raise UserError(
            f"'{path}' is damaged ({one_line(str(error))}): delete it, its answers are asked for again"
        ) from None


def _codes(column: Any, known: dict[str, int]) -> np.ndarray:
    """int32 numbers of the words of an Arrow DictionaryArray in `known`, which grows."""
    words: Sequence[str] = column.dictionary.to_pylist()
    numbers = np.array([known.setdefault(word, len(known)) for word in words], np.int32)
    return numbers[column.indices.to_numpy()]


def _in_order(words: Sequence[str], codes: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The words that rows have, sorted, and which one each row has: the same however the rows came together."""
    there = np.bincount(codes, minlength=len(words)) > 0
    found = sorted(word for word, is_there in zip(words, there, strict=True) if is_there)
    places = {word: place for place, word in enumerate(found)}
    return found, np.array([places.get(word, 0) for word in words], np.int32)[codes]
