"""Opens a model and runs it on one picture, in a process that may crash: checked.py starts it and knows no mercy.

A script of its own, which imports nothing of hw4fast: `python trial.py FILE MEGABYTES SECONDS [LIBRARY]`. Its last line
on stdout is JSON: {"failed": null, or onnxruntime's words on why the file can't be opened or run}.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any

KEY = "hw4fast.card"  # as in card.py
SIDE = 224  # of the picture when neither the graph nor its card says
MOST = 3 * 10**8  # numbers in the input: 32 pictures of the largest size that a card may name
THREADS = 8  # enough for one picture
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


def main(file: str, megabytes: str, seconds: str, library: str = "") -> None:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)  # what matters is an exception
    threads = min(os.cpu_count() or 1, THREADS)
    _limit(int(megabytes) * 2**20, (int(seconds) + 5) * threads)
    failed = None
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        if library:
            options.register_custom_ops_library(library)
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        pictures = _pictures(session)
        if pictures is not None:
            session.run(None, pictures)
    except BaseException as error:  # a MemoryError, too
        failed = f"{type(error).__name__}: {error}"[:2000]
    print(json.dumps({"failed": failed}), flush=True)
    os._exit(0)  # what a hostile file leaves behind needn't be tidied up


def _limit(size: int, seconds: int) -> None:
    """Memory, where the system keeps to it (Linux), and processor time: the last resort when nobody waits any more."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, most in ((resource.RLIMIT_DATA, size), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _pictures(session: Any) -> dict[str, Any] | None:
    """One picture of noise for the only input, as many as it insists on; None where it takes something else."""
    import numpy as np

    entries = session.get_inputs()
    if len(entries) != 1 or entries[0].type not in DTYPES:
        return None
    stated = _stated(session, len(entries[0].shape))
    shape = [axis if isinstance(axis, int) else length for axis, length in zip(entries[0].shape, stated, strict=True)]
    count = 1
    for side in shape:
        count *= side
    if not 0 < count <= MOST or min(shape, default=0) < 0:
        return None
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, count, np.uint8).reshape(shape)
    dtype = DTYPES[entries[0].type]
    return {entries[0].name: noise / np.float32(255) if dtype.startswith("float") else noise.astype(dtype)}


def _stated(session: Any, axes: int) -> list[int]:
    """The lengths of axes that the graph leaves open: what the card says, if it is one."""
    rows, columns, channels, layout = SIDE, SIDE, 3, "NCHW"
    try:
        card = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
        rows, columns = (int(side) for side in card["preprocessing"]["crop"])
        channels = len(card["preprocessing"]["mean"])
        layout = card.get("input", {}).get("layout", layout)
    except Exception:  # no card, or a broken one: the classifier says so
        pass
    if axes != 4:
        return [1] * axes
    return [1, rows, columns, channels] if layout == "NHWC" else [1, channels, rows, columns]


if __name__ == "__main__":
    main(*sys.argv[1:])
