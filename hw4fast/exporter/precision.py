"""A net in other numbers than float32: float16, or int8 by onnxruntime's static quantisation."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto

METHOD, PERCENTILE = "percentile", 99.999
BATCH = 8  # pictures at once while calibrating: all tensors between the layers of so many are held


def half(model: ModelProto) -> ModelProto:
    """The same net with weights and arithmetic in float16; its input and output stay float32.

    Weights beyond float16's range are cut off: whoever writes the result must check it.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _quiet():
        model = convert_float_to_float16(model, keep_io_types=True)
    _sort(model.graph)  # its casts of inputs come last
    return model


def _sort(graph: GraphProto) -> None:
    """Puts every node behind those that it reads from, else in the order that was."""
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    waiting, sorted_nodes = list(graph.node), []
    while waiting:
        later = []
        for node in waiting:
            if known.issuperset(node.input):
                known.update(node.output)
                sorted_nodes.append(node)
            else:
                later.append(node)
        assert len(later) < len(waiting), "a circle of nodes"
        waiting = later
    del graph.node[:]
    graph.node.extend(sorted_nodes)


def quantised(model: ModelProto, batches: list[np.ndarray], scratch: Path, said: Callable[[int], Any]) -> ModelProto:
    """The same net with its convolutions and matrix products in int8, as QuantizeLinear and DequantizeLinear nodes.

    batches: what the graph takes, on which the ranges of all tensors are measured; said: is told the size of each
    batch when its turn comes. scratch: a folder for files that the caller removes.
    Activations are uint8, weights int8 per output channel, of 7 bits (reduce_range): where the processor has no VNNI,
    onnxruntime adds the products of a pair in 16 bits, which overflow with 8. On an emulated Haswell, 8 bits moved
    logits by up to 31 % of the largest, 7 bits by nothing at all: one file, the same answers everywhere.
    Ranges are cut at the 99.999th percentile: on 432 photographs squeezenet1_1 and shufflenet_v2_x1_0 are as accurate
    with MinMax and Entropy, but agree with float32 more rarely or err more.
    """
    from onnxruntime import quantization as q

    prepared, made = scratch / "prepared.onnx", scratch / "quantised.onnx"
    with _quiet():
        onnx.save(model, scratch / "model.onnx")
        q.quant_pre_process(str(scratch / "model.onnx"), str(prepared), skip_symbolic_shape=True)
        q.quantize_static(
            str(prepared),
            str(made),
            _reader(model.graph.input[0].name, batches, said),
            quant_format=q.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            calibrate_method=q.CalibrationMethod.Percentile,
            extra_options={
                "CalibPercentile": PERCENTILE,
                "CalibTensorRangeSymmetric": False,
                "CalibStridedMinMax": 1,  # batch by batch, whatever the method: else all are held at once
            },
        )
    result = onnx.load(made)
    used = {node.domain for node in result.graph.node}
    opsets = [entry for entry in result.opset_import if entry.domain in used]  # onnxruntime's tools name all they know
    del result.opset_import[:]
    result.opset_import.extend(opsets)
    return result


def _reader(name: str, batches: list[np.ndarray], said: Callable[[int], Any]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        """onnxruntime asks for the batches from `start` to before `end`, one after the other, then for None."""

        start, end = 0, len(batches)

        def __len__(self) -> int:
            return len(batches)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.start, self.end = start_index, end_index

        def get_next(self) -> dict[str, np.ndarray] | None:
            if self.start >= self.end:
                return None
            self.start += 1
            said(len(batches[self.start - 1]))
            return {name: batches[self.start - 1]}

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's tools print, warn and log to the root logger, which `logging.warning` gives a handler of its own
    when it has none."""
    root, before, handler = logging.getLogger(), logging.root.manager.disable, logging.NullHandler()
    root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)
