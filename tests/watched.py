"""Hostile files go through a process of their own that is watched: a crash, a hang and memory that grows are each told
apart from an answer and from a refusal.

`python -m tests.watched model|picture|itself` reads one path per line and writes one line of JSON for each.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOOK_S = 0.02  # how often the memory is looked at
LONGEST = 700  # signs of a refusal
REFUSALS = {
    "refuse": "no",
    "refuse in two lines": "no\nno",
    "refuse at length": "no" * 999,
    "refuse with a bell": "no\a",
}
BAD = ("crashed", "hung", "over memory", "traceback", "bad refusal", "printed")


@dataclass(frozen=True)
class Outcome:
    """kind: "answered", "refused", or one of BAD; text: the refusal, or what was found; seconds; peak: MiB that the
    process and its children held at most at one time."""

    kind: str
    text: str
    seconds: float
    peak: float


class Watched:
    """A process that opens files of one kind ("model", "picture", or "itself" for its own test), one after another.

    It is ended when a file takes longer than `seconds`, or when it and its children hold more than `memory` MiB; the
    next file gets a new one.
    """

    def __init__(self, kind: str, seconds: float, memory: float, environment: dict[str, str] | None = None) -> None:
        self.kind, self.seconds, self.memory = kind, seconds, memory
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def judge(self, path: Path) -> Outcome:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        start, peak = time.monotonic(), 0.0
        process.stdin.write(os.fsencode(path) + b"\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not selector.select(LOOK_S):
                peak = max(peak, _memory(process.pid))
                spent = time.monotonic() - start
                if peak > self.memory or spent > self.seconds:
                    self._end()
                    kind = "hung" if spent > self.seconds else "over memory"
                    return Outcome(kind, f"after {spent:.1f} s with {peak:.0f} MiB", spent, peak)
        line, spent = process.stdout.readline(), time.monotonic() - start
        if not line:
            code = process.wait()
            self._process = None
            name = signal.Signals(-code).name if code < 0 else f"exit {code}"
            return Outcome("crashed", name, spent, peak)
        said = json.loads(line)
        peak = max(peak, said["peak"])
        kind = "over memory" if peak > self.memory else said["kind"]
        return Outcome(kind, said["text"], spent, peak)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            command = [sys.executable, "-m", "tests.watched", self.kind]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self._process = subprocess.Popen(command, cwd=ROOT, env=self.environment, start_new_session=True, **pipes)
            assert self._process.stdout is not None
            self._process.stdout.readline()  # it says that it is ready
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # its children, too
            self._process.wait()
            self._process = None


def _memory(pid: int) -> float:
    """MiB that a process and its children hold now."""
    total = 0.0
    with suppress(OSError, ValueError):
        total = _line(pid, "VmRSS")
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(_memory(int(child)) for child in (task / "children").read_text().split())
    return total


def _line(pid: int | str, key: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    return 0.0


# -- inside the process ------------------------------------------------------------------------------------------


def _work(kind: str) -> None:
    answers = os.fdopen(os.dup(1), "w")  # what is printed otherwise is caught
    caught = os.memfd_create("printed")
    os.dup2(caught, 1)
    os.dup2(caught, 2)
    open_it = {"model": _open_model, "picture": _open_picture, "itself": _do_as_told}[kind]
    open_it(None)
    print("ready", file=answers, flush=True)
    for line in sys.stdin.buffer:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        said = _tried(open_it, Path(os.fsdecode(line[:-1])))
        if printed := os.pread(caught, 300, 0):
            os.ftruncate(caught, 0)
            os.lseek(caught, 0, os.SEEK_SET)
            said = {"kind": "printed", "text": repr(printed)}
        print(json.dumps({**said, "peak": _line("self", "VmHWM")}), file=answers, flush=True)


def _tried(open_it: Callable[[Path], str], path: Path) -> dict[str, str]:
    from hw4fast.errors import UserError

    try:
        return {"kind": "answered", "text": open_it(path)}
    except UserError as error:
        text = str(error)
        good = text and text.isprintable() and len(text) < LONGEST
        return {"kind": "refused" if good else "bad refusal", "text": text[: 2 * LONGEST]}
    except Exception as error:
        return {"kind": "traceback", "text": f"{type(error).__name__}: {error}"[:LONGEST]}


def _open_model(path: Path | None) -> str:
    import numpy as np

    import hw4fast

    picture = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (28, 28, 3), np.uint8)
    if path is None:
        import onnxruntime  # noqa: F401

        return str(hw4fast.load)
    classifier: Any = hw4fast.load(path, threads=2)
    for n in (1, 3):
        answers = classifier.classify([picture] * n, top=3)
        assert len(answers) == n and all(len(answer) for answer in answers)
    return str(answers[0][0][0])


def _open_picture(path: Path | None) -> str:
    import numpy as np

    from hw4fast.data.images import read_picture

    classifier = _judge_of_pictures()
    if path is None:
        return ""
    pixels = read_picture(path)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] in (1, 3) and pixels.size
    classifier.classify(path, top=3)
    return "×".join(map(str, pixels.shape))


def _do_as_told(path: Path | None) -> str:
    """What must be noticed: the file names it."""
    from hw4fast.errors import UserError

    word = path.read_text() if path else ""
    if word == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif word == "hang":
        time.sleep(1000)
    elif word == "grow":
        held = []
        while True:
            held.append(b"x" * 2**24)
    elif word == "grow for a moment":
        return str(len(b"x" * (700 * 2**20)))
    elif word == "grow in a child":
        subprocess.run([sys.executable, "-c", "b = b'x' * (700 * 2**20); import time; time.sleep(1000)"])
    elif word == "print":
        os.write(2, b"noise")
    elif word == "fail":
        raise KeyError(word)
    elif word in REFUSALS:
        raise UserError(REFUSALS[word])
    return word


@cache
def _judge_of_pictures() -> Any:
    """A small linear net."""
    import hw4fast
    from tests.inference.hostile.base import linear, save

    with TemporaryDirectory() as folder:
        return hw4fast.load(save(linear(), Path(folder)), threads=2)


if __name__ == "__main__":
    _work(sys.argv[1])
