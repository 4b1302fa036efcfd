"""imagecorruptions at the other end of a pipe: benchmarks/corruptions.py runs this with the interpreter that has it.

A message is a line of JSON, and the bytes that its "size" counts. The first tells the versions here. Then come the
names to try and the pictures, uint8 [n, h, w, 3]; the answer says which raise, and which did until imagecorruptions was
mended for today's packages. From then on every request is answered by a corrupted picture and the seconds that the call
took in here, or by what it raised. Nothing is imported but the standard library, NumPy and imagecorruptions.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, BinaryIO

SIDE = 64  # of the cut on which every corruption is tried
PACKAGES = ("imagecorruptions", "numpy", "scipy", "scikit-image", "opencv-python", "pillow")


def main() -> None:
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what imagecorruptions prints is no answer
    try:
        import imagecorruptions  # type: ignore[import-not-found]  # noqa: F401
        import numpy as np
    except Exception as error:  # pkg_resources, or whatever its packages raise
        return send(answers, {"error": said(error)})
    on_one_thread()
    send(answers, {"versions": versions()})
    head = json.loads(requests.readline())
    pictures = np.frombuffer(requests.read(head["size"]), np.uint8).reshape(head["shape"])
    send(answers, tried(head["names"], np.ascontiguousarray(pictures[0][:SIDE, :SIDE])))
    for line in requests:
        asked = json.loads(line)
        try:
            result, seconds = corrupt(pictures[asked.pop("picture")], **asked)
            body = np.ascontiguousarray(result, np.uint8)
            send(answers, {"seconds": seconds, "shape": body.shape}, body.tobytes())
        except Exception as error:
            send(answers, {"error": said(error)})


def corrupt(picture: Any, name: str, severity: int, seed: int, calls: int) -> tuple[Any, float]:
    """The picture and the seconds of the last of so many calls."""
    import imagecorruptions
    import numpy as np

    for _ in range(calls):
        np.random.seed(seed)
        start = time.perf_counter()
        result = imagecorruptions.corrupt(picture, severity=severity, corruption_name=name)
        seconds = time.perf_counter() - start
    return result, seconds


def send(answers: BinaryIO, head: dict[str, Any], body: bytes = b"") -> None:
    answers.write(json.dumps({**head, "size": len(body)}).encode() + b"\n" + body)
    answers.flush()


def said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def on_one_thread() -> None:
    try:
        import cv2
    except ImportError:  # a stand-in for imagecorruptions needs none
        return
    cv2.setNumThreads(1)


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def tried(names: list[str], picture: Any) -> dict[str, Any]:
    """{"mended": {name: what it raised before}, "raises": {name: what it raises still}}."""

    def call(name: str) -> None:
        corrupt(picture, name, severity=3, seed=0, calls=1)

    before = failing(names, call)
    if before:
        mend()
    after = failing(before, call)
    return {"mended": {name: text for name, text in before.items() if name not in after}, "raises": after}


def failing(names: Iterable[str], call: Callable[[str], None]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            call(name)
        except Exception as error:
            found[name] = said(error)
    return found


def mend() -> None:
    """NumPy 2 has no np.float_, scikit-image's gaussian no `multichannel` since 0.22: the same in today's words."""
    import numpy as np
    from imagecorruptions import corruptions

    np.float_ = np.float64  # type: ignore[attr-defined]
    gaussian = corruptions.gaussian

    def with_multichannel(image: Any, sigma: Any, multichannel: bool = False, **more: Any) -> Any:
        return gaussian(image, sigma, channel_axis=-1 if multichannel else None, **more)

    corruptions.gaussian = with_multichannel


if __name__ == "__main__":
    main()
