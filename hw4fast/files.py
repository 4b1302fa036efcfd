"""Files are written whole or not at all; folders are found through the environment."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from hw4fast.errors import UsageError, UserError

RUN_RECORD, RUN_MODEL = "run.json", "model.onnx"  # in a run folder: training writes them, inference reads them
PART = "hw4fast-part"  # in the names of temporary files
STALE_S = 3600  # nothing is written for an hour


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced and renamed to `path`, else removed.

    A link is followed: the file that it leads to is the one that is written. Who may read and write a file that is
    replaced may do so afterwards, and nobody else at any moment; a new one's mode is the umask's. Raises UserError
    when `path` is there and is no regular file (a folder, a pipe, a device).
    """
    path, old = _target(Path(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.{PART}{path.suffix}")
    wanted = 0o666 if old is None else old | stat.S_IRUSR | stat.S_IWUSR  # the body must get at it
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, wanted)  # less the umask
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode) if old is None else old
        os.close(handle)
        yield temporary
        sync(temporary)
        temporary.chmod(mode)  # the body may have put a file of its own there
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


@contextmanager
def alone(folder: Path, doing: str) -> Iterator[None]:
    """Holds the folder's lock, which ends with the process. Raises UserError when another process is `doing` it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"another process is {doing} {folder}; wait for it, or take another folder") from None
    finally:
        os.close(handle)


def sync(path: Path) -> None:
    """Comes back when the file is on the disk: what is renamed before may be empty after a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sha256(path: Path) -> str:
    """Of the file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def memory_map(path: Path, dtype: Any, shape: tuple[int, ...]) -> Any:
    """A new .npy file as an array that is written to the disk. Its whole size is taken at once, so that a full disk is
    an OSError here and not the end of the process when a page is touched."""
    import numpy as np

    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        try:
            with path.open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path.parent)) from None
    return array


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


def without_room(entries: Iterable[tuple[float, int, Path]], most: int) -> list[Path]:
    """Which of (when it was used last, bytes, path) have to go so that the rest takes `most` bytes: the ones used
    longest ago, and never the one used last."""
    gone, total = [], 0
    for number, (_, size, path) in enumerate(sorted(entries, reverse=True)):
        total += size
        if number and total > most:
            gone.append(path)
    return gone


def settle(draft: Path, wanted: Path) -> Path:
    """Renames the folder `draft` to `wanted`, taking an empty folder's place, or to its next free sibling, and returns
    what it became. Whoever settles at the same time gets another one."""
    if wanted.is_dir() and not wanted.is_symlink() and not any(wanted.iterdir()):
        wanted.rmdir()
    while True:
        folder = free_sibling(wanted)
        try:
            return draft.rename(folder)
        except OSError:
            if not folder.exists():  # else it was taken between the look and the renaming
                raise


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


def _target(path: Path) -> tuple[Path, int | None]:
    """Where `path` leads to through links, and the permissions (0 … 0o777) of what is there, None of a new file."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return Path(os.path.realpath(path)), None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a device or the like"
        raise UserError(f"'{path}' is {kind}, no file that could be written anew; name another one")
    return Path(os.path.realpath(path)), mode & 0o777


@cache  # once per process: a folder may hold very many files
def _sweep(folder: Path) -> None:
    """Removes the temporary files that processes left in `folder` when they were killed, once they are STALE_S old."""
    for path in folder.glob(f".*.{PART}*"):
        if re.fullmatch(rf"\..*\.[0-9a-f]{{8}}\.{PART}(\.[^.]*)?", path.name, re.DOTALL):
            with suppress(OSError):  # another process was faster, or it isn't ours to remove
                if path.lstat().st_mtime < time.time() - STALE_S:
                    path.unlink()
