"""A torch net as an ONNX graph, and the file that carries it with its card."""

from __future__ import annotations

import contextlib
import io
import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from hw4fast.exporter.source import Source
from hw4fast.inference.card import KEY, Card

OPSET = 20


def to_onnx(source: Source) -> Any:
    """The net as an onnx.ModelProto with a dynamic batch, without traces of this machine's folders."""
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
    proto = program.model_proto
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # stack traces, with this machine's paths
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    return proto


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


def write(proto: Any, card: Card, path: Path) -> None:
    import onnx

    onnx.helper.set_model_props(proto, {KEY: card.to_json_text()})
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))
