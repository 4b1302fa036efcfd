"""ShuffleNets as onnxruntime runs them faster: a graph that suits its kernels, with the same answers but for rounding.

onnxruntime keeps a picture's channels in blocks as wide as the processor's vectors. It gives that up at a filter per
channel whose channels are no multiple of four (shufflenet_v2_x1_0 has 58), and at a pool whose channels don't fill the
blocks (24, where one has 16). A channel shuffle (Zhang et al. 2018, arXiv:1707.01083, 3.1) costs it three copies.
`quicken` fills the blocks with channels of zeros, whose products with zeros the next convolution adds up, and makes a
Gather of each part of a shuffle that is read. Only an infinite number makes a difference: times zero it is none.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

SWAP = [0, 2, 1, 3, 4]  # the groups and the channels in them change places
# as protobuf writes it, or packs it
WRITTEN = b"\x40\x00\x40\x02\x40\x01\x40\x03\x40\x04", b"\x42\x05\x00\x02\x01\x03\x04"
BY_NUMBER = ("Relu", "Clip")  # what they make of an added zero is finite, and no other number sees it
ALIGNED = 4  # channels that onnxruntime keeps in blocks at a filter per channel are a multiple of it


def has_shuffles(path: Path) -> bool:
    """Whether there may be any in the ONNX file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(written) >= 0 for written in WRITTEN)


def quicken(path: Path, block: int, inputs: Sequence[str] | None = None) -> int:
    """Rewrites the ONNX file in place → how many shuffles and channels were rewritten; it stays as it is at 0.

    Its constants were folded (onnxruntime's ENABLE_BASIC): what a node computes is none here. block: channels in
    onnxruntime's blocks, 16 with AVX-512, else 8. inputs: the graph's, where files older than IR version 4 name their
    constants, too, and those that were folded away; all that it names if None.
    """
    import onnx

    model = onnx.load(path)
    for value in [value for value in model.graph.input if inputs is not None and value.name not in inputs]:
        model.graph.input.remove(value)
        model.ir_version = max(model.ir_version, 4)
    graph = _Graph(model)
    if graph.has_branches:  # they read what they want
        return 0
    done = graph.gather_shuffles() + _Graph(model).widen(block)
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
        graph = model.graph
        self._model, self._nodes, self._constants = model, graph.node, graph.initializer
        inputs = {value.name for value in graph.input}  # in old files constants, too, that a caller may replace
        self._values = {tensor.name: tensor for tensor in self._constants if tensor.name not in inputs}
        self._makers = {name: node for node in self._nodes for name in node.output}
        self._readers: dict[str, list[Any]] = {}
        for node in self._nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._given_out = {value.name for value in graph.output}
        self._names = {
            *inputs,
            *self._given_out,
            *self._makers,
            *self._readers,
            *(each.name for each in self._constants),
        }
        self._grown: dict[tuple[str, int], str] = {}

    @property
    def has_branches(self) -> bool:
        return any(part.HasField("g") or part.graphs for node in self._nodes for part in node.attribute)

    @cached_property
    def _shapes(self) -> dict[str, list[int]]:
        """Of what is known; 0 for an axis of unknown length, or really of none."""
        from onnx import shape_inference

        graph = shape_inference.infer_shapes(self._model).graph
        return {
            value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.value_info, *graph.output)
        }

    # -- shuffles ------------------------------------------------------------------------------------------------

    def gather_shuffles(self) -> int:
        """[n, g·c, h, w] → Reshape [n, g, c, h, w] → Transpose → Reshape [n, c·g, h, w] becomes Gathers of channels."""
        from onnx import helper

        shuffles = list(self._shuffles())
        for before, swap, after, order in shuffles:
            pieces = self._pieces(after, len(order))
            place = list(self._nodes).index(swap)
            for piece in pieces:
                channels = self._constant(order[piece.first :][: piece.count], f"{piece.name}.channels")
                self._nodes.insert(place, helper.make_node("Gather", [before.input[0], channels], [piece.name], axis=1))
            gone = {node.output[0]: node for node in (after, swap, *(piece.node for piece in pieces))}
            if len(self._only_readers(before.output[0])) == 1:
                gone[before.output[0]] = before
            for node in gone.values():
                self._nodes.remove(node)
        return len(shuffles)

    def _shuffles(self) -> Iterator[tuple[Any, Any, Any, np.ndarray]]:
        for swap in self._nodes:
            if not _is(swap, "Transpose") or _attribute(swap, "perm") != SWAP:
                continue
            before, readers = self._makers.get(swap.input[0]), self._only_readers(swap.output[0])
            if before is None or len(readers) != 1 or not _is(before, "Reshape") or not _is(readers[0], "Reshape"):
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
            first = self._first(node)
            shapes = [self._shapes.get(name, []) for name in node.output]
            if first is None or not all(len(shape) == 4 and shape[1] for shape in shapes):
                return whole
            for name, shape in zip(node.output, shapes, strict=True):
                pieces.append(_Piece(node, name, first, shape[1]))
                first += shape[1]
            if first > channels:
                return whole
        return pieces or whole

    def _first(self, node: Any) -> int | None:
        """The channel from which a Slice or a Split takes some, one after the other; None for another node."""
        if _is(node, "Split"):
            return 0 if _attribute(node, "axis", 0) == 1 else None
        if not _is(node, "Slice"):
            return None
        given = [self._value(name) for name in node.input[1:]]
        if len(given) < 3 or any(value is None or value.size != 1 for value in given):
            return None
        start, _, axis, *step = (int(value.item()) for value in given)
        return start if axis == 1 and start >= 0 and step in ([], [1]) else None

    # -- channels ------------------------------------------------------------------------------------------------

    def widen(self, block: int) -> int:
        """Channels of zeros, up to a multiple of `block`, for what onnxruntime would take out of its blocks."""
        wide = [span for conv in self._nodes if (span := self._span(conv, block))]
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
        read = {name for node in self._nodes for name in node.input} | self._given_out
        for tensor in [tensor for name, tensor in self._values.items() if name not in read]:
            self._constants.remove(tensor)
        return len(wide)

    def _span(self, start: Any, block: int) -> _Span | None:
        """None where `start` is no convolution whose channels should and can be more. Too many more cost what they
        save."""
        if not self._is_conv(start) or _attribute(start, "group", 1) != 1:
            return None
        span = _Span(start, self._values[start.input[1]].dims[0])
        todo, pooled = [start.output[0]], False
        while todo:
            name = todo.pop()
            if name in self._given_out:
                return None
            for node in self._readers.get(name, []):
                if node.input[0] != name or list(node.input).count(name) > 1:
                    return None
                if _is(node, *BY_NUMBER) or (_is(node, "MaxPool") and len(node.output) == 1):
                    pooled |= node.op_type == "MaxPool"
                    todo.append(node.output[0])
                elif not self._is_conv(node):
                    return None
                elif _attribute(node, "group", 1) == 1:
                    span.ends.append(node)
                elif self._values[node.input[1]].dims[:2] == [span.channels, 1]:
                    span.by_channel.append(node)
                    todo.append(node.output[0])
                else:
                    return None
        leaves = pooled or (span.by_channel and span.channels % ALIGNED)
        return span if leaves and 0 < 2 * (-span.channels % block) <= span.channels else None

    def _is_conv(self, node: Any) -> bool:
        return _is(node, "Conv") and all(name in self._values for name in node.input[1:] if name)

    def _grow(self, conv: Any, place: int, more: int, axis: int) -> None:
        """Zeros at the end of an axis of its weight or bias, which others may read, too. Whoever needs the same gets
        the same: how many more follows from the axis."""
        key = conv.input[place], axis
        if key not in self._grown:
            value = self._value(key[0])
            widths = [(0, more if i == axis else 0) for i in range(value.ndim)]
            self._grown[key] = self._constant(np.pad(value, widths), f"{key[0]}.wide")
        conv.input[place] = self._grown[key]

    # -- names ---------------------------------------------------------------------------------------------------

    def _only_readers(self, name: str) -> list[Any]:
        """No node where it is the graph's own answer, too."""
        return [] if name in self._given_out else self._readers.get(name, [])

    def _value(self, name: str) -> Any:
        """Of a constant, else None."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self._values[name]) if name in self._values else None

    def _constant(self, value: np.ndarray, name: str) -> str:
        """Adds one, under that name or a longer one that is free → its name."""
        from onnx import numpy_helper

        while name in self._names:
            name += "_"
        self._names.add(name)
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        self._values[name] = self._constants[-1]
        return name


def _is(node: Any, *kinds: str) -> bool:
    """Whether it is one of these standard operators."""
    return node.op_type in kinds and node.domain in ("", "ai.onnx")


def _attribute(node: Any, name: str, otherwise: Any = None) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(part) for part in node.attribute if part.name == name), otherwise)
