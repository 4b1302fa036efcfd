"""A model file is opened and run in a process of its own before onnxruntime sees it in ours.

Files come from strangers, and a graph is a program: one divides the least int64 by −1 (SIGFPE), one loops 2⁶² times,
one makes 8 GB out of 900 bytes; onnxruntime 1.31 stops none of them (tests/inference/hostile). A file that survives its
trial (trial.py) within limits of time and memory is noted in the cache by its hash and not tried again. A trial takes
0.2 s, a note 0.1 ms.

What a trial can't show: a graph that waits for a particular picture, or that grows out of proportion in larger batches.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from hw4fast.errors import UsageError, UserError
from hw4fast.files import cache_folder, sha256
from hw4fast.inference.optimised import ELSEWHERE, STATUS, fingerprint
from hw4fast.paths import one_line

SECONDS, MEGABYTES = "HW4FAST_TRIAL_SECONDS", "HW4FAST_TRIAL_MB"  # the limits, if they are too tight
DEFAULT_SECONDS = 30  # from the start of Python to the end
DEFAULT_MEGABYTES, TIMES = 4096, 8  # of memory, and times the size of the file
LARGEST = 2**31 - 1  # bytes that protobuf reads
FORMAT = 1  # of a note
MOST = 4096  # notes that are kept
OUT_OF_MEMORY = re.compile(
    r"bad_alloc|allocate memory|MemoryError|out of memory|length_error|Available memory of", re.IGNORECASE
)


class CrashError(UserError):
    """onnxruntime crashes; signal: which ended it."""

    def __init__(self, text: str, signal: str) -> None:
        super().__init__(text)
        self.signal = signal


def insist_harmless(path: Path, runtime: str, library: Path | None) -> None:
    """UserError when a trial of the model file crashes, takes too long or asks for too much memory.

    One that onnxruntime merely refuses passes: it says so again. runtime: onnxruntime's version. library: of
    operators, as in open_session.
    """
    if path.stat().st_size > LARGEST:
        raise UserError(
            f"'{one_line(path)}' has more than 2 GiB, which no ONNX file can have (weights that large lie in other "
            "files beside it); fetch or export it again"
        )
    note = _note(path, runtime, library is not None)
    if note is None or not note.exists():
        failed = _try(path, library)
        if note is not None and failed is None and note == _note(path, runtime, library is not None):
            _keep(note)  # the file is still the one that was tried


def _try(path: Path, library: Path | None) -> str | None:
    """None when all went well, else onnxruntime's words; UserError as above."""
    seconds = _limit(SECONDS, DEFAULT_SECONDS)
    megabytes = _limit(MEGABYTES, DEFAULT_MEGABYTES + TIMES * path.stat().st_size // 2**20)
    shown = f"'{one_line(path)}'"
    slow = UserError(
        f"{shown} isn't done with one picture after {seconds} s; if it is only slow, let it try for longer: "
        f"{SECONDS}={10 * seconds}"
    )
    large = UserError(
        f"{shown} asks for more than {megabytes} MiB of memory for one picture; if that is right, allow it more: "
        f"{MEGABYTES}={4 * megabytes}"
    )
    command = [sys.executable, "-P", str(Path(__file__).with_name("trial.py")), str(path)]
    command += [str(megabytes), str(seconds), *([str(library)] if library else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise slow from None
    except OSError as error:
        raise UserError(f"{shown} can't be tried, because no process can be started: {one_line(error)}") from None
    printed, complaints = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if done.returncode == 0:
        failed: str | None = json.loads(printed.splitlines()[-1])["failed"]
        if failed and OUT_OF_MEMORY.search(failed):
            raise large
        return failed
    died_of = _name(done.returncode)
    if died_of == "SIGXCPU":
        raise slow
    if died_of == "SIGKILL" or OUT_OF_MEMORY.search(complaints):  # the system was short of it
        raise large
    if died_of is None:
        raise UserError(f"{shown} can't be tried: {one_line((complaints.splitlines() or ['no reason is known'])[-1])}")
    reason = f"{shown} makes onnxruntime crash ({died_of}); don't use it, and fetch it from who made it"
    raise CrashError(reason, died_of)


def _name(code: int) -> str | None:
    """Of the signal, or of Windows' exception, that ended a process; None when it went by itself."""
    if 0 <= code < 256:
        return None
    try:
        return signal.Signals(-code).name
    except ValueError:
        return hex(code & 0xFFFFFFFF)


def _limit(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise UsageError(f"{name} must be a whole number from 1 up, not '{one_line(text, 40)}'")
    return int(text)


# -- notes -------------------------------------------------------------------------------------------------------


def _note(path: Path, *belongs: object) -> Path | None:
    """Where it is noted that these bytes are harmless; None when they can't be read."""
    try:
        content = fingerprint(path) or _with_others(path)
    except OSError:
        return None
    return _folder() / hashlib.sha256(json.dumps([FORMAT, content, *belongs]).encode()).hexdigest()[:32]


def _folder() -> Path:
    return cache_folder() / "checked"


def _keep(note: Path) -> None:
    """Writes the note, and forgets the oldest ones when there are many."""
    with suppress(OSError):  # then the next start tries again
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
        notes = list(note.parent.iterdir())
        if len(notes) > MOST:
            for old in sorted(notes, key=lambda entry: entry.stat().st_mtime)[: MOST // 4]:
                old.unlink(missing_ok=True)


def _with_others(path: Path) -> list[object]:
    """Of a file whose weights lie in others: its hash, and what the system says of each of them."""
    return [sha256(path), *(_status(other) for other in weight_files(path))]


def weight_files(path: Path) -> list[Path]:
    """The other files that an ONNX file says its weights lie in, sorted by name. Raises OSError."""
    if path.stat().st_size == 0:
        return []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        names, place = set(), 0
        while (place := content.find(ELSEWHERE, place)) >= 0:
            length, place = _varint(content, place + len(ELSEWHERE))
            names.add(content[place : place + min(length, 4096)])
    return [path.parent / os.fsdecode(name) for name in sorted(names)]


def _varint(content: mmap.mmap, place: int) -> tuple[int, int]:
    """A number in protobuf's way of writing, and where the next byte lies."""
    number = 0
    for shift in range(0, 70, 7):
        byte = content[place : place + 1] or b"\0"
        number, place = number | (byte[0] & 127) << shift, place + 1
        if byte[0] < 128:
            break
    return number, place


def _status(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return [getattr(status, f"st_{key}") for key in STATUS]
