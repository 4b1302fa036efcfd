"""Graphs that onnxruntime has optimised once, in the cache: the next start maps them into memory.

resnet50 opens in 8 ms instead of 82. What is kept belongs to the file's bytes, this onnxruntime, this processor with
its instructions (weights lie in blocks as wide as its vectors), the kernels that may run in it and what shuffles.py
does (FORMAT counts that); with any of them changed it is made anew. A graph that can't be written (full disk, cache
that may not be written) or read again is none: the file itself is opened then.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hw4fast import record
from hw4fast.files import PART, cache_folder, sha256, sync, without_room

GRAPH, WEIGHTS, NOTE = "model.onnx", "model.onnx.data", "note.json"  # in an entry's folder
FORMAT = 5  # of an entry, and of what shuffles.py makes
LEAST = 2**20  # bytes of a file that is worth it: smaller ones open in a few milliseconds
MOST = 4 * 2**30  # bytes of all entries; those that were used longest ago go first
SETTLED_S = 2  # a file that was changed so lately may be changed again within the clock's step
STATUS = ("dev", "ino", "size", "mtime_ns", "ctime_ns")
ELSEWHERE = b"\x0a\x08location\x12"  # a tensor whose numbers lie in another file, as protobuf writes it


@dataclass(frozen=True)
class Entry:
    """folder: what is kept of one file, there or not; identity: what the system said of the file before it was read."""

    folder: Path
    file: Path
    identity: tuple[object, ...]

    @property
    def graph(self) -> Path:
        return self.folder / GRAPH

    def whole(self) -> bool:
        """Whether it is there, each file as long as it was written. It counts as used now."""
        try:
            sizes = json.loads((self.folder / NOTE).read_text(encoding="utf-8"))
            os.utime(self.folder / NOTE)
            return sizes == _sizes(self.folder)
        except (OSError, ValueError):
            return False

    def forget(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def draft(self) -> Path | None:
        """A new folder beside it to write to, None where none can be made."""
        folder = self.folder.with_name(f".{secrets.token_hex(8)}")
        try:
            folder.mkdir(parents=True)
        except OSError:
            return None
        return folder

    def settle(self, draft: Path) -> None:
        """Gives what was written its name, unless another process was faster or the file is another by now, and makes
        room."""
        try:
            if draft.joinpath(GRAPH).is_file() and _identity(self.file) == self.identity:
                draft.joinpath(NOTE).write_text(json.dumps(_sizes(draft)), encoding="utf-8")
                for path in draft.iterdir():
                    sync(path)
                if not self.whole():
                    self.forget()
                draft.rename(self.folder)
        except OSError:  # the disk is full, or the name is taken
            pass
        discard(draft)
        _make_room(self.folder)


def entry(path: Path, *belongs: object) -> Entry | None:
    """Where the optimised graph of `path` lies or would lie; None for a small file, for one that is only being written
    (see files.writing), and for one whose weights lie in other files. belongs: what else it depends on, besides the
    processor."""
    try:
        if path.stat().st_size < LEAST or PART in path.name:
            return None
        identity, digest = _identity(path), fingerprint(path)
    except OSError:
        return None
    if digest is None:
        return None
    parts = [FORMAT, digest, record.processor(), record.instructions(), *belongs]
    return Entry(_folder() / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32], path, identity)


def discard(draft: Path) -> None:
    shutil.rmtree(draft, ignore_errors=True)


def _folder() -> Path:
    return cache_folder() / "optimised"


def fingerprint(path: Path) -> str | None:
    """SHA-256 of the file, None when it refers to other files. 100 MB take 0.1 s, so it is noted under all that the
    system says of the file (its time of change can't be set by hand)."""
    changed, identity = path.stat().st_ctime, _identity(path)
    note = _folder() / "hashes" / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    with suppress(OSError):
        found = note.read_text(encoding="ascii")
        if len(found) == 64 and found.isalnum():
            return found
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(ELSEWHERE) >= 0:
            return None
    digest = sha256(path)
    with suppress(OSError):
        if time.time() - changed > SETTLED_S and _identity(path) == identity:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(digest, encoding="ascii")
    return digest


def _identity(path: Path) -> tuple[object, ...]:
    """What differs once a file is written to or replaced."""
    status = path.stat()
    return str(path.resolve()), *(getattr(status, f"st_{key}") for key in STATUS)


def _sizes(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in (GRAPH, WEIGHTS) if (folder / name).exists()}


def _make_room(newest: Path) -> None:
    """Removes entries until the rest takes no more than MOST, the ones used longest ago first; drafts that a process
    left when it was killed, too."""
    entries = []
    for folder in _folder().glob("[!h]*"):
        with suppress(OSError):
            if folder.name.startswith("."):
                if folder.stat().st_mtime < time.time() - 3600:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            used = math.inf if folder == newest else (folder / NOTE).stat().st_mtime
            entries.append((used, sum(_sizes(folder).values()), folder))
    for folder in without_room(entries, MOST):
        shutil.rmtree(folder, ignore_errors=True)
