"""Bytes that are hardly a protobuf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.inference.hostile.base import (
    linear,
    writes,
)

# -- the wire format ---------------------------------------------------------------------------------------------


def raw(name: str, content: Any) -> None:
    @writes(name)
    def make(folder: Path) -> Path:
        path = folder / "hostile.onnx"
        path.write_bytes(content() if callable(content) else content)
        return path


def varint(number: int) -> bytes:
    out = b""
    while number >= 128:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def nested(field: int, depth: int, inner: bytes = b"") -> bytes:
    for _ in range(depth):
        inner = varint(field << 3 | 2) + varint(len(inner)) + inner
    return inner


def good() -> bytes:
    return linear().SerializeToString()


raw("text", b"this is no model, it is text")
raw("one byte", b"\x08")
raw("zeros", bytes(1000))
raw("a length of 2⁶³", b"\x3a" + varint(2**63 - 1) + b"x")
raw("a length of 2 GB", b"\x3a" + varint(2**31 - 1) + b"x")
raw("a varint without end", b"\x08" + b"\xff" * 1000)
raw("groups that open", b"\x0b" * 10**6)
raw("a graph in a graph", lambda: nested(7, 2000))
raw("unknown fields 10⁵ deep", lambda: nested(99, 2000))
raw("a body 3000 deep", lambda: varint(7 << 3 | 2) + varint(len(deep_graph(3000))) + deep_graph(3000))
raw("a million metadata", lambda: good() + nested(14, 1, b"\x0a\x01k\x12\x01v") * 10**6)
raw("a million opsets", lambda: good() + nested(8, 1, b"\x10\x11") * 10**6)
raw("a million nodes", lambda: good() + nested(7, 1, nested(1, 1, b"\x0a\x01x\x12\x01y\x22\x04Relu") * 10**6))
raw("a million empty initializers", lambda: good() + nested(7, 1, b"\x2a\x00" * 10**6))
raw("a million inputs", lambda: good() + nested(7, 1, b"\x5a\x00" * 10**6))
raw("a million functions", lambda: good() + nested(25, 1, b"\x0a\x01f\x52\x01d") * 10**6)
raw("10 million empty nodes", lambda: good() + nested(7, 1, b"\x0a\x00" * 10**7))
raw("first half", lambda: good()[: len(good()) // 2])
raw("all but a byte", lambda: good()[:-1])
raw("twice", lambda: good() * 2)
raw("a flatbuffer of onnxruntime", b"\x18\x00\x00\x00ORTM" + bytes(range(256)) * 4)


def deep_graph(depth: int) -> bytes:
    """GraphProto: a node whose attribute is a graph, and so on."""
    inner = b""
    for _ in range(depth):
        attribute = b"\x0a\x04body" + varint(6 << 3 | 2) + varint(len(inner)) + inner
        one = b"\x22\x04Loop" + varint(5 << 3 | 2) + varint(len(attribute)) + attribute
        inner = b"\x0a" + varint(len(one)) + one
    return inner
