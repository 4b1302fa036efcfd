"""Files are written whole or not at all; folders are found through the environment."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hw4fast.errors import UsageError


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced and renamed to `path`, else removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def write_text(path: str | Path, text: str) -> None:
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def data_folder() -> Path | None:
    """`HW4FAST_DATA`: where real data sets and weights lie; None when it is unset."""
    value = os.environ.get("HW4FAST_DATA")
    return Path(value) if value else None


def cache_folder() -> Path:
    """`HW4FAST_CACHE`, else the user's cache folder: what was downloaded or derived, safe to delete."""
    value = os.environ.get("HW4FAST_CACHE")
    if value:
        return Path(value)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hw4fast"


def free_sibling(folder: str | Path) -> Path:
    """`folder` if nothing stands there, else the first free of `folder-2`, `folder-3`, …

    Raises UsageError for a folder without a name of its own (`.`, `..`, `/`).
    """
    folder = Path(folder)
    if folder.name in ("", ".."):
        raise UsageError(f"'{folder}' is no name for a new folder; name one")
    candidate, number = folder, 2
    while candidate.exists() or candidate.is_symlink():
        candidate = folder.with_name(f"{folder.name}-{number}")
        number += 1
    return candidate


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
