"""A torch net as an ONNX graph, and the file that carries it with its card."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from hw4fast.errors import UserError
from hw4fast.exporter.source import Source
from hw4fast.inference.card import KEY, Card
from hw4fast.paths import is_file, one_line

OPSET = 20
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
SUMMARY = "## Exception summary"


def to_onnx(source: Source) -> Any:
    """The net as an onnx.ModelProto with a dynamic batch, without traces of this machine's folders.

    Raises UserError for a net that torch can't export.
    """
    try:
        program = _exported(source)
    except Exception as error:  # torch.onnx wraps some in its own, and lets others through
        raise UserError(f"torch can't export the net: {_reason(error)}") from error
    proto = program.model_proto
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # stack traces, with this machine's paths
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    return proto


def _exported(source: Source) -> Any:
    example = torch.zeros(2, source.preprocessing.channels, *source.preprocessing.crop)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with _interruptible(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            source.model,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            verbose=False,
        )
    assert program is not None
    return program


def _reason(error: Exception) -> str:
    """What torch says first, and the exception that it sums up below pages of advice; without colours."""
    lines = [line for line in COLOURS.sub("", str(error)).splitlines() if line.strip()] or [repr(error)]
    reason = lines[0].split(" This is step ")[0]
    if SUMMARY in lines[1:-1]:
        reason += " " + re.sub(r"^<class '[\w.]+'>: ", "", lines[lines.index(SUMMARY) + 1])
    return one_line(reason)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """torch.onnx takes a Ctrl-C for an error of its own; afterwards it is one again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield
    except Exception:
        if pressed:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def replaceable(path: Path) -> str | None:
    """The precision of the file that `export` wrote at `path` before; None when there is none, or an empty one.

    Raises UserError for another file: it is somebody's, and can't be exported again.
    """
    if not is_file(path) or path.stat().st_size == 0:
        return None
    import onnx

    try:
        props = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
        provenance = Card.from_json_text(props[KEY]).provenance
        if "exported" in provenance:
            return str(provenance.get("precision", "float32"))
    except Exception:  # protobuf's DecodeError, and whatever a foreign file brings
        pass
    raise UserError(f"'{path}' is there and is no file that hw4fast exported; name another one, or remove it")


def write(proto: Any, card: Card, path: Path) -> None:
    import onnx

    onnx.helper.set_model_props(proto, {KEY: card.to_json_text()})
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))
