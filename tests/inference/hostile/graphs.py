"""Graphs and cards that make no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, TypeProto, helper

from tests.inference.hostile.base import (
    CARD,
    HUGE,
    I64,
    KEY,
    F,
    add,
    const,
    linear,
    save,
    writes,
)

# -- graphs ------------------------------------------------------------------------------------------------------


def altered(name: str, change: Any, **options: Any) -> None:
    def make() -> ModelProto:
        model = linear(**options)
        change(model)
        return model

    add(name, make)


def rename(model: ModelProto, old: str, new: str) -> None:
    for entry in model.graph.node:
        for names in (entry.input, entry.output):
            for i, found in enumerate(names):
                if found == old:
                    names[i] = new


altered("two inputs", lambda m: m.graph.input.append(helper.make_tensor_value_info("second", F, ["n", 1, 28, 28])))
altered("no input", lambda m: m.graph.ClearField("input"))
altered("no output", lambda m: m.graph.ClearField("output"))
altered("no graph", lambda m: m.ClearField("graph"))
altered("no nodes", lambda m: m.graph.ClearField("node"))
altered("a ring of nodes", lambda m: rename(m, "most", "nothing"))
altered("a name given twice", lambda m: rename(m, "plain", "flat") or rename(m, "zero", "flat"))
altered("an initializer twice", lambda m: m.graph.initializer.append(m.graph.initializer[0]))
altered(
    "an input that is an initializer",
    lambda m: m.graph.initializer.append(const("input", np.zeros((1, 1, 28, 28)), np.float32)),
)
altered(
    "an output that is an initializer",
    lambda m: m.graph.initializer.append(const("logits", np.zeros((1, 3)), np.float32)),
)
altered("nodes in the wrong order", lambda m: m.graph.node.reverse())
altered("an opset far away", lambda m: setattr(m.opset_import[0], "version", 2**40))
altered("an opset of −1", lambda m: setattr(m.opset_import[0], "version", -1))
altered("no opset", lambda m: m.ClearField("opset_import"))
altered("IR far away", lambda m: setattr(m, "ir_version", 2**40))
altered("IR −1", lambda m: setattr(m, "ir_version", -1))
altered("a domain that nobody knows", lambda m: setattr(m.graph.node[-1], "domain", "\x1b[31mevil\n"))
altered("an operator with control signs", lambda m: setattr(m.graph.node[-1], "op_type", "\x1b[2J\n\n" * 2000))
altered(
    "a name of 10 MB",
    lambda m: setattr(m.graph.node[-1], "name", "x" * 10**7) or setattr(m.graph.node[-1], "op_type", "Gemmm"),
)
for label, shape in {
    "no batch axis": (1, 28, 28),
    "no batch axis but four": (1, 1, 28, 28, 1),
    "a batch of 10⁹": (10**9, 1, 28, 28),
    "a batch of 10⁵": (10**5, 1, 28, 28),
    "a batch of 2⁶²": (2**62, 1, 28, 28),
    "a batch of 0": (0, 1, 28, 28),
    "a batch of −1": (-1, 1, 28, 28),
    "a batch of −7": (-7, 1, 28, 28),
    "sides of 0": ("n", 1, 0, 0),
    "sides of terabytes": ("n", 1, HUGE, HUGE),
    "1000 axes": ("n",) + (1,) * 1000,
    "no axes": (),
}.items():
    add(f"an input with {label}", lambda shape=shape: linear(shape=shape))
for dtype in (
    TensorProto.STRING,
    TensorProto.BFLOAT16,
    TensorProto.COMPLEX64,
    TensorProto.INT4,
    TensorProto.BOOL,
    0,
    99,
):
    altered(
        f"an input of type {dtype}",
        lambda m, dtype=dtype: setattr(m.graph.input[0].type.tensor_type, "elem_type", dtype),
    )
tensor_type = helper.make_tensor_type_proto(F, [1])
for label, proto in {
    "a sequence": helper.make_sequence_type_proto(tensor_type),
    "an option": helper.make_optional_type_proto(tensor_type),
    "a map": helper.make_map_type_proto(I64, tensor_type),
    "nothing": TypeProto(),
}.items():
    altered(f"an input that is {label}", lambda m, proto=proto: m.graph.input[0].type.CopyFrom(proto))
    altered(f"an output that is {label}", lambda m, proto=proto: m.graph.output[0].type.CopyFrom(proto))


def deep_type() -> TypeProto:
    proto = tensor_type
    for _ in range(90):
        proto = helper.make_sequence_type_proto(proto)
    return proto


altered("an input 90 sequences deep", lambda m: m.graph.input[0].type.CopyFrom(deep_type()))

# -- the card ----------------------------------------------------------------------------------------------------

card = json.loads(CARD)
CARDS: dict[str, str | None] = {
    "no card": None,
    "an empty card": "",
    "a card that is no JSON": "{schema: 2",
    "a card that is a list": "[]",
    "a card that is deep": "[" * 10**6,
    "a card of deep objects": '{"a":' * 10**5 + "1" + "}" * 10**5,
    "a card of a long number": '{"schema": ' + "9" * 10**6 + "}",
    "a card of another schema": json.dumps({**card, "schema": 99}),
    "a card of schema 1e999": CARD.replace('"schema":2', '"schema":1e999'),
    "a card without labels": json.dumps({key: value for key, value in card.items() if key != "labels"}),
    "a card of no labels": json.dumps({**card, "labels": []}),
    "a card of numbers as labels": json.dumps({**card, "labels": [1, 2, 3]}),
    "a card of two labels": json.dumps({**card, "labels": ["a", "b"]}),
    "a card of a million labels": json.dumps({**card, "labels": ["x"] * 10**6}),
    "a card of a long label": json.dumps({**card, "labels": ["x" * 10**6, "b", "c"]}),
    "a card of labels that a terminal obeys": json.dumps({**card, "labels": ["\x1b[2J", "\n\n", "\u202e"]}),
    "a card of another input": json.dumps({**card, "input": {**card["input"], "name": "other"}}),
    "a card of another output": json.dumps({**card, "output": {**card["output"], "name": "x\n" * 500}}),
    "a card of uint8": json.dumps({**card, "input": {**card["input"], "dtype": "uint8"}}),
    "a card of NHWC": json.dumps({**card, "input": {**card["input"], "layout": "NHWC"}}),
    "a card of NaN": CARD.replace("0.35", "NaN"),
    "a card with an opset of 10³⁰": json.dumps({**card, "opset": 10**30}),
    "a card with a key of a megabyte": json.dumps({**card, "k\n" * 500000: 1}),
    "a card of surrogates": CARD.replace('"0"', '"\\ud800"'),
}  # fmt: skip
for label, text in CARDS.items():
    add(label, lambda text=text: linear(card=text))
for label, changes in {
    "a huge crop": {"crop": [10**9, 10**9]},
    "a negative crop": {"crop": [-28, -28]},
    "a crop of floats": {"crop": [28.0, 28.0]},
    "a huge resize": {"resize": "shorter-side", "resize_size": 10**9},
    "a divisor of 1e-320": {"divisor": 1e-320},
    "no mean": {"mean": []},
    "many means": {"mean": [0.1] * 10**6},
    "std 0": {"std": [0.0]},
    "text as std": {"std": "abc"},
    "a mode of a list": {"mode": ["L"]},
    "an interpolation of an object": {"interpolation": {}},
}.items():
    text = json.dumps({**card, "preprocessing": {**card["preprocessing"], **changes}})
    add(f"a card with {label}", lambda text=text: linear(card=text))


@writes("two cards")
def two_cards(folder: Path) -> Path:
    model = linear()
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, "[]"
    return save(model, folder)


@writes("a card that is no UTF-8")
def no_utf8(folder: Path) -> Path:
    path = save(linear(), folder)
    path.write_bytes(path.read_bytes().replace(b'"labels":["0"', b'"labels":["\xff"'))
    return path


@writes("names that are no UTF-8")
def no_utf8_names(folder: Path) -> Path:
    path = save(linear(), folder)
    path.write_bytes(path.read_bytes().replace(b"logits", b"\xffogits"))
    return path


@writes("an axis that is no UTF-8")
def no_utf8_axis(folder: Path) -> Path:
    path = save(linear(shape=("name", 1, 28, 28)), folder)
    path.write_bytes(path.read_bytes().replace(b"name", b"\xff\xff\xff\xff"))
    return path
