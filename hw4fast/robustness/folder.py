"""The folder of a study: begun before the first answer, gone on with after a kill, and never another one's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hw4fast.errors import UsageError, UserError
from hw4fast.files import free_sibling, write_json
from hw4fast.paths import one_line

RECORD = "study.json"


def begin(wanted: Path, source: str, seed: int, arguments: dict[str, Any], resume: bool) -> Path:
    """The folder to write: `wanted` where a study of the same source and seed stands or nothing does, else its next
    free sibling. Raises UsageError where an interrupted study stands and it isn't said to resume, or where there is
    none to resume; UserError where nothing can be written."""
    found = _record(wanted)
    same = found is not None and (found.get("source"), found.get("seed")) == (source, seed)
    if resume and not same:
        raise UsageError(f"there is no study of this source with this seed in '{wanted}' to resume; leave out --resume")
    if same and found is not None and found.get("status") == "unfinished" and not resume:
        raise UsageError(
            f"an interrupted study of the same source stands in '{wanted}': add --resume to go on with it, or name"
            " another --out"
        )
    folder = wanted if same or _is_free(wanted) else free_sibling(wanted)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not same:
            write_json(folder / RECORD, unfinished(source, seed, arguments))
    except OSError as error:
        raise UserError(f"the study can't be written to '{wanted}': {error.strerror}; name another folder") from None
    return folder


def unfinished(source: str, seed: int, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"status": "unfinished", "source": source, "seed": seed, "arguments": arguments}


def forget(folder: Path, parents: Sequence[Path] = ()) -> bool:
    """Removes a folder in which a study was begun that has not one answer, and `parents`, the inmost first, which were
    made for it; whether it did."""
    if sorted(path.name for path in folder.iterdir()) != [RECORD]:
        return False
    with suppress(OSError):
        shutil.rmtree(folder)
        for parent in parents:
            parent.rmdir()
    return True


def _is_free(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _record(folder: Path) -> dict[str, Any] | None:
    """`study.json` of the folder; None where there is no study. Raises UserError when it is damaged."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' is damaged ({one_line(str(error))}); name another --out") from None
    return value if isinstance(value, dict) else None
