"""ShuffleNets as onnxruntime runs them faster: the same sums, in a graph that suits its kernels.

onnxruntime convolves in blocks of channels as wide as the processor's vectors, but leaves them for a filter per channel
whose channels are no multiple of four (shufflenet_v2_x1_0 has 58), and for a pool whose channels are no multiple of the
block (24, where it is 16); and a channel shuffle (Zhang et al. 2018, arXiv:1707.01083, 3.1) costs it three copies.
`quicken` adds channels of zeros that nothing reads, and makes a Gather of each part of a shuffle that is read.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SWAP = [0, 2, 1, 3, 4]  # the groups and the channels in them change places
# as protobuf writes it, or packs it
WRITTEN = b"\x40\x00\x40\x02\x40\x01\x40\x03\x40\x04", b"\x42\x05\x00\x02\x01\x03\x04"
BY_NUMBER = ("Relu", "Clip")  # what they make of an added zero is finite, and no other number sees it
ALIGNED = 4  # channels that onnxruntime lays out in blocks for a filter per channel are a multiple of it


def has_shuffles(path: Path) -> bool:
    """Whether there may be any in the ONNX file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(written) >= 0 for written in WRITTEN)


def quicken(path: Path, block: int) -> int:
    """Rewrites an ONNX file whose constants are computed → how many shuffles and convolutions with too few channels
    were. block: channels in onnxruntime's blocks, 16 with AVX-512, else 8."""
    import onnx

    model = onnx.load(path)
    graph = _Graph(model)
    done = graph.gather_shuffles() + graph.widen(block)
    if done:
        del model.graph.value_info[:]  # tells how many channels there were
        onnx.save(model, path)
    return done


@dataclass
class _Piece:
    """Channels of a shuffled tensor that are read: all, or those that `node` cuts out."""

    node: Any
    name: str
    first: int
    count: int


@dataclass
class _Span:
    """A tensor's channels from the convolution that makes them, over filters per channel, to those that sum them up."""

    start: Any
    channels: int
    by_channel: list[Any] = field(default_factory=list)
    ends: list[Any] = field(default_factory=list)


class _Graph:
    """of onnx's ModelProto: who makes and reads what; see `quicken`."""

    def __init__(self, model: Any) -> None:
        from onnx import shape_inference

        self._nodes, self._constants = model.graph.node, model.graph.initializer
        self._values = {tensor.name: tensor for tensor in self._constants}
        self._makers = {name: node for node in self._nodes for name in node.output}
        self._readers: dict[str, list[Any]] = {}
        for node in self._nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._kept = {value.name for value in model.graph.output}
        self._branches = any(part.HasField("g") or part.graphs for node in self._nodes for part in node.attribute)
        inferred = shape_inference.infer_shapes(model).graph
        self._shapes = {
            value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]  # 0: unknown, or really none
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
        }

    # -- shuffles ------------------------------------------------------------------------------------------------

    def gather_shuffles(self) -> int:
        """[n, g·c, h, w] → Reshape [n, g, c, h, w] → Transpose → Reshape [n, c·g, h, w] becomes Gathers of channels."""
        from onnx import helper

        shuffles = [] if self._branches else list(self._shuffles())
        for before, swap, after, order in shuffles:
            pieces = self._pieces(after, len(order))
            place = list(self._nodes).index(swap)
            for piece in pieces:
                channels = self._constant(order[piece.first :][: piece.count], f"{piece.name}.channels")
                self._nodes.insert(place, helper.make_node("Gather", [before.input[0], channels], [piece.name], axis=1))
            gone = {node.output[0]: node for node in (after, swap, *(piece.node for piece in pieces))}
            if len(self._readers[before.output[0]]) == 1:
                gone[before.output[0]] = before
            for node in gone.values():
                self._nodes.remove(node)
        return len(shuffles)

    def _shuffles(self) -> Iterator[tuple[Any, Any, Any, np.ndarray]]:
        for swap in filter(_is_swap, self._nodes):
            before, readers = self._makers.get(swap.input[0]), self._only_readers(swap.output[0])
            if before is None or before.op_type != "Reshape" or [node.op_type for node in readers] != ["Reshape"]:
                continue
            (after,) = readers
            names = before.input[0], swap.input[0], after.output[0]
            whole, apart, again = (self._shapes.get(name, [0])[1:] for name in names)  # as many pictures in each
            if len(apart) == 4 and all(apart) and whole == again == [apart[0] * apart[1], *apart[2:]]:
                yield before, swap, after, np.arange(whole[0]).reshape(apart[:2]).T.ravel()

    def _pieces(self, after: Any, channels: int) -> list[_Piece]:
        """What is read of the shuffled tensor: where nothing but Slices and Splits of its channels read it, those."""
        pieces, whole = [], [_Piece(after, after.output[0], 0, channels)]
        for node in self._only_readers(after.output[0]):
            sizes = [self._shapes.get(name, [0, 0])[1] for name in node.output]
            first = self._first(node)
            if first is None or not all(sizes):
                return whole
            for name, size in zip(node.output, sizes, strict=True):
                pieces.append(_Piece(node, name, first, size))
                first += size
            if first > channels:
                return whole
        return pieces or whole

    def _first(self, node: Any) -> int | None:
        """The channel from which a Slice or a Split takes some, one after the other; None for another node."""
        if node.op_type == "Split":
            return 0 if _attribute(node, "axis", 0) == 1 else None
        if node.op_type != "Slice":
            return None
        given = [self._value(name) for name in node.input[1:]]
        if len(given) < 3 or any(value is None or value.size != 1 for value in given):
            return None
        start, _, axis, *step = (int(value.item()) for value in given)
        return start if axis == 1 and start >= 0 and step in ([], [1]) else None

    # -- channels ------------------------------------------------------------------------------------------------

    def widen(self, block: int) -> int:
        """Channels of zeros for what onnxruntime would take out of its blocks, up to a multiple of `block`: nothing
        reads them, because the filters of the convolutions that they end in get zeros for them."""
        wide = [] if self._branches else [span for conv in self._nodes if (span := self._span(conv, block))]
        for span in wide:
            more = -span.channels % block
            for conv in (span.start, *span.by_channel):
                self._grow(conv, 1, more, axis=0)
                if len(conv.input) > 2 and conv.input[2]:
                    self._grow(conv, 2, more, axis=0)
            for conv in span.by_channel:
                next(part for part in conv.attribute if part.name == "group").i = span.channels + more
            for conv in span.ends:
                self._grow(conv, 1, more, axis=1)
        read = {name for node in self._nodes for name in node.input} | self._kept
        for tensor in [tensor for tensor in self._constants if tensor.name not in read]:
            self._constants.remove(tensor)
        return len(wide)

    def _span(self, start: Any, block: int) -> _Span | None:
        """None where `start` is no convolution whose channels should and can be more."""
        if not self._is_conv(start) or _attribute(start, "group", 1) != 1:
            return None
        span = _Span(start, self._values[start.input[1]].dims[0])
        names, pooled = [start.output[0]], False
        for name in names:
            if name in self._kept:
                return None
            for node in self._readers.get(name, []):
                if node.input[0] != name or list(node.input).count(name) > 1:
                    return None
                if node.op_type in BY_NUMBER or (node.op_type == "MaxPool" and len(node.output) == 1):
                    pooled |= node.op_type == "MaxPool"
                    names.append(node.output[0])
                elif not self._is_conv(node):
                    return None
                elif _attribute(node, "group", 1) == 1:
                    span.ends.append(node)
                elif self._values[node.input[1]].dims[:2] == [span.channels, 1]:
                    span.by_channel.append(node)
                    names.append(node.output[0])
                else:
                    return None
        leaves = pooled or (span.by_channel and span.channels % ALIGNED)
        return span if leaves and span.channels % block else None

    def _is_conv(self, node: Any) -> bool:
        constant = all(name in self._values for name in node.input[1:] if name)
        return node.op_type == "Conv" and node.domain in ("", "ai.onnx") and constant

    def _grow(self, conv: Any, place: int, more: int, axis: int) -> None:
        value = self._value(conv.input[place])
        widths = [(0, more if i == axis else 0) for i in range(value.ndim)]
        conv.input[place] = self._constant(np.pad(value, widths), f"{conv.input[place]}.wide")

    # -- names ---------------------------------------------------------------------------------------------------

    def _only_readers(self, name: str) -> list[Any]:
        """No node where it is the graph's own answer, too."""
        return [] if name in self._kept else self._readers.get(name, [])

    def _value(self, name: str) -> Any:
        """Of a constant, else None."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self._values[name]) if name in self._values else None

    def _constant(self, value: np.ndarray, name: str) -> str:
        """Adds one, under that name or a longer one that is free → its name."""
        from onnx import numpy_helper

        while name in self._values or name in self._makers:
            name += "_"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        self._values[name] = self._constants[-1]
        return name


def _is_swap(node: Any) -> bool:
    return node.op_type == "Transpose" and _attribute(node, "perm") == SWAP


def _attribute(node: Any, name: str, otherwise: Any = None) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(part) for part in node.attribute if part.name == name), otherwise)
