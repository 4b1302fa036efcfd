"""Pictures in, answers out: clean and transformed side by side."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from PIL import Image

from hw4fast import record
from hw4fast.data.folder import pictures_below
from hw4fast.data.images import read_picture
from hw4fast.errors import UsageError, UserError
from hw4fast.files import writing
from hw4fast.inference.classifier import BATCH, Classifier, Guess, best
from hw4fast.inference.known import DEFAULT
from hw4fast.inference.workers import in_order
from hw4fast.kernels import check_threads, chosen_isa
from hw4fast.paths import is_folder, one_line
from hw4fast.transforms import Chain, parse

CLEAN = "clean"
MANY = 8  # pictures from which on each thread has its own
IN_A_ROW = 8  # views that a thread makes before it runs the net on them: code and tables are in the caches again


@dataclass(frozen=True)
class Answer:
    """transform: "clean" or the canonical spec; top: the most probable classes, best first; saved: the file
    that shows what the model saw."""

    transform: str
    top: tuple[Guess, ...]
    saved: Path | None = None

    def to_json(self) -> dict[str, Any]:
        keys = ("index", "label", "probability")
        value = {"transform": self.transform, "top": [dict(zip(keys, guess, strict=True)) for guess in self.top]}
        return value if self.saved is None else {**value, "saved": str(self.saved)}


@dataclass(frozen=True)
class Result:
    """The answers to one picture; transformed: in the order of the transforms asked for."""

    file: str
    clean: Answer
    transformed: tuple[Answer, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "clean": self.clean.to_json(),
            "transformed": [answer.to_json() for answer in self.transformed],
        }


@dataclass(frozen=True)
class Failure:
    """A picture that has no answer, and why."""

    file: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"file": self.file, "error": self.reason}


def classify(
    paths: Sequence[str | Path] | str | Path,
    model: str | Path = DEFAULT,
    transforms: Sequence[str] | str = (),
    top: int = 5,
    save_transformed: str | Path | None = None,
    seed: int = 0,
    providers: str | Sequence[str] = "cpu",
    threads: int | None = None,
    progress: bool = False,
) -> Iterator[Result | Failure]:
    """The model's `top` classes for each picture, as it is and under each transform, in the order of the pictures.

    paths: picture files, or folders, which stand for all pictures below them in the order of their names.
    model: an .onnx file with a card, a run folder that holds model.onnx, or an architecture's name.
    transforms: specs, see hw4fast.transforms. save_transformed: a folder for what the model saw, `STEM-SPEC.png`
    (`STEM-clean.png` without transforms) at the model's size with unusual signs as _; a file that stands there with
    other pixels is never overwritten: the new one gets a number, `STEM-SPEC-2.png`.
    seed: of random transforms, whose draws belong to the picture's pixels.
    threads: default all cores. Few pictures are taken one after the other, each by all threads; from MANY on
    each thread takes pictures of its own the whole way. progress: a bar on stderr for many, if it is a terminal.
    Raises UserError and UsageError for the model, the transforms, `top` and the folder before the first picture;
    a picture that can't be read yields a Failure, and the rest goes on. UserError when the model fails while it runs
    or answers NaN, and when a picture can't be saved.
    """
    if top < 1:
        raise UsageError(f"top must be 1 or more, not {top}")
    if threads is not None:
        check_threads(threads)
    try:
        chosen_isa()
    except ValueError as error:  # HW4FAST_ISA names none: no picture's fault
        raise UsageError(str(error)) from None
    chains = [parse(spec) for spec in ([transforms] if isinstance(transforms, str) else transforms)]
    files = _files([paths] if isinstance(paths, str | Path) else paths)
    many = len(files) >= MANY
    classifier = Classifier(model, providers, 1 if many else threads, batch=1 if _on_cpu(providers) else None)
    saver = None if save_transformed is None else _Saver(_made_folder(Path(save_transformed)))
    views, stop = 1 + len(chains), Event()
    at_once, workers = _at_once(classifier, views), threads or record.cores()
    look = partial(_look, classifier=classifier, chains=chains, seed=seed, at_once=at_once, stop=stop)
    parts = _parts(files, at_once, IN_A_ROW // views if many else 1, workers)
    looks = in_order(look, parts, workers, stop) if many else (look(part) for part in parts)
    names = [CLEAN, *(chain.name for chain in chains)]
    results = (_result(seen, names, classifier, top, saver) for seen in _in_turn(looks))
    return _with_bar(results, len(files)) if many and progress else results


def _on_cpu(providers: str | Sequence[str]) -> bool:
    return providers == "cpu" or list(providers) == ["cpu"]


def _at_once(classifier: Classifier, views: int) -> int:
    """Pictures, of so many views each, in a batch: what the graph insists on, else one, whose numbers stay in the
    caches, but for a GPU, which needs several to be busy."""
    if classifier.at_once:
        return max(1, classifier.at_once // views)
    return 1 if classifier.provider == "cpu" else BATCH


def _parts(files: list[str | Failure], at_once: int, in_a_row: int, workers: int) -> Iterator[list[str | Failure]]:
    """What a worker takes at a time, in whole batches: one at first, for the first answers to come soon, up to
    `in_a_row` pictures, and fewer towards the end, so that all workers end at the same time."""
    start = 0
    while start < len(files):
        turns = workers * at_once
        batches = min(in_a_row // at_once, start // turns, (len(files) - start) // (2 * turns))
        end = start + at_once * max(1, batches)
        yield files[start:end]
        start = end


def _files(paths: Sequence[str | Path]) -> list[str | Failure]:
    """The files, and those of the folders; a folder without pictures fails as a picture would."""
    found: list[str | Failure] = []
    for path in paths:
        if not is_folder(path):
            found.append(str(path))
            continue
        try:
            inside = sorted(pictures_below(Path(path)))
        except UserError as error:
            found.append(Failure(str(path), str(error)))
            continue
        found += map(str, inside)
        if not inside:
            found.append(Failure(str(path), f"the folder '{one_line(path)}' holds no picture"))
    return found


@dataclass(frozen=True)
class _Seen:
    """What the net saw of a file, clean first: uint8 [views, h, w, c], and said: float32 [views, classes]."""

    file: str
    views: np.ndarray
    probabilities: np.ndarray


def _look(
    files: list[str | Failure], classifier: Classifier, chains: list[Chain], seed: int, at_once: int, stop: Event
) -> tuple[list[_Seen | Failure], UserError | None]:
    """Reads all, then answers `at_once` at a time. An error of the net keeps what was answered before it. stop: set
    when nobody waits for the rest."""
    seen = [_views(file, classifier, chains, seed) for file in files]
    found: list[_Seen | Failure] = []
    for i in range(0, len(files), at_once):
        if stop.is_set():
            break
        try:
            found += _answered(files[i : i + at_once], seen[i : i + at_once], classifier)
        except UserError as error:
            return found, error
    return found, None


def _answered(
    files: list[str | Failure], seen_of: list[np.ndarray | Failure], classifier: Classifier
) -> list[_Seen | Failure]:
    """The views of all go through the net together."""
    views = [view for view in seen_of if not isinstance(view, Failure)]
    said = np.split(classifier.probabilities(np.concatenate(views)), len(views)) if views else []
    seen = iter(zip(views, said, strict=True))
    return [
        view if isinstance(view, Failure) else _Seen(str(file), *next(seen))
        for file, view in zip(files, seen_of, strict=True)
    ]


def _in_turn(
    looks: Generator[tuple[list[_Seen | Failure], UserError | None], None, None],
) -> Iterator[_Seen | Failure]:
    with closing(looks):
        for found, error in looks:
            yield from found
            if error:
                raise error


def _views(file: str | Failure, classifier: Classifier, chains: list[Chain], seed: int) -> np.ndarray | Failure:
    """uint8 [1 + chains, h, w, c]: the picture as the net reads it, then under each chain."""
    if isinstance(file, Failure):
        return file
    read: dict[str, Any] = {"preprocessing": classifier.card.preprocessing}
    try:
        read["decoded"] = read_picture(file)
        picture = classifier.fit(read["decoded"])
        return np.stack([picture, *(chain(picture, seed=seed, **read) for chain in chains)])
    except UserError as error:
        return Failure(file, str(error))


def _result(
    seen: _Seen | Failure, names: list[str], classifier: Classifier, top: int, saver: _Saver | None
) -> Result | Failure:
    if isinstance(seen, Failure):
        return seen
    answers = []
    for name, view, row in zip(names, seen.views, seen.probabilities, strict=True):
        wanted = name != CLEAN or len(names) == 1
        saved = saver.save(view, Path(seen.file).stem, name) if saver and wanted else None
        answers.append(Answer(name, best(row, classifier.card.labels, top), saved))
    return Result(seen.file, answers[0], tuple(answers[1:]))


def _with_bar(results: Iterator[Result | Failure], total: int) -> Iterator[Result | Failure]:
    from tqdm import tqdm

    with tqdm(results, "classify", total, unit="img", disable=None) as bar:
        yield from bar


def _made_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder '{folder}' can't be made: {error.strerror}; name another one") from None
    return folder


class _Saver:
    """Writes pictures to `folder`, for one call of classify. What it wrote or looked at it knows again by a hash: to
    open all earlier files of a name for each new picture takes a time that grows with the square of their number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[tuple[str, bytes], Path] = {}  # a file's name without its number, the hash of its pixels
        self._places: dict[str, Iterator[Path]] = {}  # where nobody looked yet, by the same name

    def save(self, picture: np.ndarray, stem: str, spec: str) -> Path:
        """The file that holds `picture`: written now, or there already with the same pixels."""
        # in bytes, because file systems take 255
        name = re.sub(r"[^\w.+=-]", "_", f"{stem[:100]}-{spec}").encode()[:200].decode(errors="ignore")
        key = name, _hash(picture)
        if key not in self._seen or not self._seen[key].exists():
            self._seen[key] = self._place(picture, *key)
        return self._seen[key]

    def _place(self, picture: np.ndarray, name: str, pixels: bytes) -> Path:
        places = self._places.setdefault(name, (self._folder / f"{name}{end}.png" for end in _ends()))
        while True:
            path = next(places)
            try:
                if not path.exists():
                    _write(picture, path)
                    return path
            except OSError as error:  # the disk is full, the folder is gone
                raise UserError(f"'{path}' can't be written: {error.strerror or error}") from None
            found = _hash_of(path)
            if found == pixels:
                return path
            self._seen.setdefault((name, found), path)


def _ends() -> Iterator[str]:
    yield ""
    yield from (f"-{number}" for number in count(2))


def _write(picture: np.ndarray, path: Path) -> None:
    image = Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture)
    with writing(path) as temporary:
        image.save(temporary, format="PNG")


def _hash(picture: np.ndarray) -> bytes:
    return hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).digest()


def _hash_of(path: Path) -> bytes:
    """Of the picture in a file; nothing if there is none."""
    try:
        return _hash(read_picture(path))
    except UserError:
        return b""
