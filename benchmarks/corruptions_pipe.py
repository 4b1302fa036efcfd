"""Our end of the pipe to imagecorruptions: corruptions_theirs.py in another interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast.errors import UserError
from hw4fast.paths import one_line

SCRIPT = Path(__file__).with_name("corruptions_theirs.py")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1")
HINT = 'python -m venv DIR && DIR/bin/pip install "setuptools<80" imagecorruptions==1.1.2, then --python DIR/bin/python'


class RaisedError(Exception):
    """What imagecorruptions raised for a picture."""


class Theirs:
    """imagecorruptions in a process of its own. versions: of its packages. mended, raises: {name: what it raised}, of
    the corruptions that run only since they were mended, and of those that don't run.

    Raises UserError when that interpreter can't import it, or its process ends.
    """

    def __init__(self, python: str | Path, names: Sequence[str], pictures: np.ndarray) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        command = [str(python), "-W", "ignore", str(SCRIPT)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log}
        try:
            self._process = subprocess.Popen(command, env={**os.environ, **ONE_THREAD}, **pipes)  # type: ignore[call-overload]
        except OSError as error:
            raise UserError(f"'{python}' can't be started: {error.strerror}; give it as --python") from None
        try:
            self.versions: dict[str, str] = self._answer()[0]["versions"]
            tried, _ = self._ask({"names": list(names), "shape": pictures.shape, "size": pictures.nbytes}, pictures)
        except RaisedError as error:
            self.close()
            raise UserError(f"'{python}' can't import imagecorruptions ({error}); {HINT}") from None
        except BaseException:
            self.close()
            raise
        self.mended: dict[str, str] = tried["mended"]
        self.raises: dict[str, str] = tried["raises"]

    def corrupt(
        self, name: str, severity: int, picture: int, seed: int = 0, calls: int = 1
    ) -> tuple[np.ndarray, float]:
        """Picture number `picture`, corrupted, uint8 [h, w, 3], and the seconds of the last of so many calls, each from
        that seed. Raises RaisedError with what imagecorruptions raised."""
        head, body = self._ask(
            {"name": name, "severity": severity, "picture": picture, "seed": seed, "calls": calls}, None
        )
        return np.frombuffer(body, np.uint8).reshape(head["shape"]), head["seconds"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def __enter__(self) -> Theirs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, head: dict[str, Any], body: np.ndarray | None) -> tuple[dict[str, Any], bytes]:
        try:
            self._process.stdin.write(json.dumps(head).encode() + b"\n")
            if body is not None:
                self._process.stdin.write(np.ascontiguousarray(body).data)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._answer()

    def _answer(self) -> tuple[dict[str, Any], bytes]:
        try:
            head = json.loads(self._process.stdout.readline())
            body = self._process.stdout.read(head["size"])
        except (ValueError, TypeError, KeyError):  # nothing, or no message of ours
            raise self._ended() from None
        if "error" in head:
            raise RaisedError(head["error"])
        if len(body) < head["size"]:
            raise self._ended()
        return head, body

    def _ended(self) -> UserError:
        self._process.kill()
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        last = next((one_line(line) for line in reversed(lines) if line.strip()), "it said nothing")
        return UserError(f"the process with imagecorruptions gave no answer (exit code {code}): {last}")
