"""A folder of pictures, with labels where there are any: what a study measures besides the data sets."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hw4fast.errors import UserError
from hw4fast.paths import one_line

EXTENSIONS = frozenset([".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"])
LABELS_FILE = "labels.csv"


@dataclass(frozen=True)
class Folder:
    """Pictures below `path`, sorted by name; none of them has been opened yet.

    labels: one per file, None for a picture without label; None as a whole when the folder has no labels.
    class_names: what the labels index, when sub-folders name the classes; None when the labels are the
    model's own class indices.
    """

    path: Path
    files: tuple[Path, ...]
    labels: tuple[int | None, ...] | None = None
    class_names: tuple[str, ...] | None = None

    def name(self, index: int) -> str:
        """Where file `index` lies in the folder, as `labels.csv` writes it: `sub/picture.png`."""
        return _printable(self.files[index].relative_to(self.path))


def read_folder(path: str | Path) -> Folder:
    """The pictures in `path` and below, hidden ones left out, labelled by the first of these that there is:

    - `labels.csv`, with columns `file` (relative to the folder) and `label` (the model's class index from 0;
      empty = unlabelled); other columns are ignored, a picture that it doesn't list is unlabelled;
    - one sub-folder per class, named like the class, when no picture lies beside the sub-folders;
    - nothing: then `labels` is None.

    Raises UserError for what is no folder, holds no picture, mixes pictures with sub-folders of pictures
    without saying their labels, or has a `labels.csv` that is malformed or lists a file that isn't there.
    """
    path = Path(path)
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise UserError(f"'{path}' should be a folder of pictures; there is {found} by that name")
    files = tuple(sorted(pictures_below(path)))
    if not files:
        known = " ".join(sorted(extension[1:] for extension in EXTENSIONS))
        raise UserError(f"the folder '{path}' holds no picture; files that end in one of these count: {known}")
    if (path / LABELS_FILE).exists():
        return Folder(path, files, _read_labels(path, files, path / LABELS_FILE))
    inside = [file for file in files if file.parent != path]
    if not inside:
        return Folder(path, files)
    if len(inside) < len(files):
        raise UserError(
            f"'{path}' holds {len(files) - len(inside)} pictures beside sub-folders with {len(inside)} more; give each "
            f"class its own sub-folder, or put all pictures side by side, or add a {LABELS_FILE} (file,label)"
        )
    classes = [_printable(Path(file.relative_to(path).parts[0])) for file in files]
    class_names = tuple(sorted(set(classes)))
    return Folder(path, files, tuple(class_names.index(name) for name in classes), class_names)


def pictures_below(path: Path) -> Iterator[Path]:
    """Every file below `path` with a picture's extension; hidden files and folders are left out."""

    def refuse(error: OSError) -> None:
        raise UserError(f"a folder below '{path}' can't be listed: {error}") from None

    for folder, inner, names in os.walk(path, onerror=refuse):
        inner[:] = [name for name in inner if not name.startswith((".", "__"))]
        yield from (
            Path(folder, name) for name in names if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS
        )


def _read_labels(path: Path, files: tuple[Path, ...], table: Path) -> tuple[int | None, ...]:
    """One label per file from a table like `labels.csv`; UserError naming the line that is wrong."""
    known = {file.relative_to(path).as_posix() for file in files}
    labels: dict[str, int | None] = {}
    missing: list[str] = []
    for line, row in _rows(table):
        name = Path(row["file"] or "").as_posix()
        label = _label(row["label"], f"{table}, line {line}")
        if name not in known:
            missing.append(row["file"] or "(empty)")
        elif labels.setdefault(name, label) != label:
            raise UserError(f"{table}, line {line}: '{name}' has label {labels[name]} further up and {label} here")
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise UserError(
            f"{table} lists {len(missing)} pictures that are not in the folder: {', '.join(missing[:5])}{more}; "
            "take the lines out or put the files back"
        )
    return tuple(labels.get(file.relative_to(path).as_posix()) for file in files)


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Line number and row, for each row of a CSV file with columns `file` and `label`."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            lacking = {"file", "label"} - set(reader.fieldnames or ())
            if lacking:
                raise UserError(
                    f"{table} needs the columns file,label in its first line; "
                    f"it has {', '.join(reader.fieldnames or ()) or 'none'}"
                )
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} can't be read as a UTF-8 table of file,label: {error}") from None


def _label(text: str | None, where: str) -> int | None:
    text = (text or "").strip()
    if text and not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UserError(f"{where}: a label is a class index (0, 1, 2, …) or empty, not '{one_line(text)}'")
    return int(text) if text else None


def _printable(path: Path) -> str:
    """The path with `/`, any byte that is not UTF-8 replaced: it must fit into tables and pages."""
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")


def relabelled(folder: Folder, path: Path) -> Folder:
    """The folder with labels from a file, whatever it says of itself:

    - CSV with columns `file` and `label`: as `labels.csv` within the folder;
    - CSV with a column `wnid` or `class` and a column `index` or `label`: what a picture's class is called → the
      model's class index; the class is the sub-folder that the picture lies in, or how its name begins, before `_`;
    - JSON as ImageNet's class index has it: {"0": ["n01440764", "tench"], …}, read likewise.

    Raises UserError for a file that can't be read as one of these, or by which no picture has a label.
    """
    if path.suffix.lower() == ".json":
        known = _class_index(path)
    else:
        columns = _columns(path)
        if {"file", "label"} <= columns:
            return replace(folder, labels=_read_labels(folder.path, folder.files, path), class_names=None)
        known = _mapping(path, columns)
    labels = tuple(_class_of(file.relative_to(folder.path), known) for file in folder.files)
    if all(label is None for label in labels):
        raise UserError(
            f"by '{path}' no picture of '{folder.path}' has a label: neither its sub-folder nor its name's beginning is"
            f" one of {len(known)} classes ({', '.join(list(known)[:3])}, …)"
        )
    return replace(folder, labels=labels, class_names=None)


def _class_of(file: Path, known: dict[str, int]) -> int | None:
    names = [*(folder for folder in file.parts[:-1]), file.stem, file.stem.partition("_")[0]]
    return next((known[name] for name in names if name in known), None)


def _columns(path: Path) -> set[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return set(csv.DictReader(lines).fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the labels '{path}' can't be read as a UTF-8 table: {error}") from None


def _mapping(path: Path, columns: set[str]) -> dict[str, int]:
    names, numbers = ([key for key in keys if key in columns] for keys in (("wnid", "class"), ("index", "label")))
    if not names or not numbers:
        found = ", ".join(sorted(columns)) or "none"
        raise UserError(f"'{path}' needs the columns file,label or class,index (or wnid,index); it has {found}")
    known: dict[str, int] = {}
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        for row in reader:
            label = _label(row[numbers[0]], f"{path}, line {reader.line_num}")
            if label is not None:
                _note(known, row[names[0]] or "", label, f"{path}, line {reader.line_num}")
    return known


def _note(known: dict[str, int], name: str, label: int, where: str) -> None:
    """Enters a class; UserError where it has another label already."""
    name = name.strip()
    if name and known.setdefault(name, label) != label:
        raise UserError(f"{where}: the class '{one_line(name)}' has index {known[name]} further up and {label} here")


def _class_index(path: Path) -> dict[str, int]:
    known: dict[str, int] = {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        for index, names in value.items():
            label = _label(index, str(path))
            if label is None or not isinstance(names, list):
                raise ValueError(f"this is not: {one_line(json.dumps({index: names})[:99])}")
            _note(known, str(names[0]), label, str(path))
    except (OSError, ValueError, AttributeError, TypeError, IndexError, KeyError) as error:
        raise UserError(
            f'the labels \'{path}\' can\'t be read as JSON like {{"0": ["n01440764", "tench"], …}}: {error}'
        ) from None
    return known
