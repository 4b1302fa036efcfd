"""Operators that are asked for more than there is, or for nonsense."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.inference.hostile.base import (
    HUGE,
    F,
    changed,
    const,
    node,
)

# -- tensors that grow -------------------------------------------------------------------------------------------


def grows(
    name: str, kind: str, inputs: str, size: Any, constants: Iterable[TensorProto] = (), **attributes: Any
) -> None:
    """An operator that reads how much to make from the input `size`: as a constant and at run time."""
    constants = list(constants)
    nodes = [node(kind, inputs, **attributes)]
    changed(f"{name}, folded", *nodes, constants=[*constants, const("size", size)])
    later = [node("Add", "zero size0", "size"), *nodes]
    changed(f"{name}, at run", *later, constants=[*constants, const("size0", size)])


ONE = const("k", [[[[1.0]]]], np.float32)
for label, sizes in {
    "terabytes": [HUGE],
    "an overflow": [2**32, 2**32],
    "an overflow of bytes": [2**62],
    "a negative side": [-1],
    "8 GB": [2 * 10**9],
}.items():
    grows(f"ConstantOfShape of {label}", "ConstantOfShape", "size", sizes)
grows("Expand to terabytes", "Expand", "k size", [HUGE, 1, 1, 1], [ONE])
grows("Expand to 8 GB", "Expand", "k size", [2 * 10**9, 1, 1, 1], [ONE])
grows("Expand overflows", "Expand", "k size", [2**32, 2**32, 2, 2], [ONE])
grows("Tile to terabytes", "Tile", "k size", [HUGE, 1, 1, 1], [ONE])
grows("Tile overflows", "Tile", "k size", [2**32, 2**32, 2, 2], [ONE])
grows("Tile negative", "Tile", "k size", [-5, 1, 1, 1], [ONE])
grows("Reshape to terabytes", "Reshape", "k size", [HUGE, HUGE], [ONE])
grows("Reshape overflows", "Reshape", "k size", [2**32, 2**32, 1], [ONE])
grows("Pad to terabytes", "Pad", "k size", [0, 0, 0, HUGE, 0, 0, 0, 0], [ONE])
grows("Pad to 8 GB", "Pad", "k size", [0, 0, 0, 10**9, 0, 0, 0, 10**9], [ONE])
grows("Pad reflects terabytes", "Pad", "k size", [0, 0, 0, HUGE, 0, 0, 0, 0], [ONE], mode="reflect")
grows("Pad overflows", "Pad", "k size", [0, 0, 2**62, 2**62, 0, 0, 2**62, 2**62], [ONE])
grows("Pad far negative", "Pad", "k size", [0, 0, 0, -(2**63), 0, 0, 0, 0], [ONE])
grows("Resize to terabytes", "Resize", "k - - size", [1, 1, 2**20, 2**20], [ONE])
grows("Resize to 8 GB", "Resize", "k - - size", [1, 1, 2**15, 2**16], [ONE], mode="linear")
grows("Resize to a negative size", "Resize", "k - - size", [1, 1, -4, 4], [ONE])
grows("Resize overflows", "Resize", "k - - size", [1, 1, 2**40, 2**40], [ONE], mode="cubic")
grows("OneHot of terabytes", "OneHot", "one size onoff", HUGE, [const("onoff", [0, 1], np.float32)])
grows("OneHot of depth −1", "OneHot", "one size onoff", -1, [const("onoff", [0, 1], np.float32)])
grows("TopK of 2⁶²", "TopK", "k size", [2**62], [ONE])
grows("HannWindow of terabytes", "HannWindow", "size", HUGE)
grows("DFT of terabytes", "DFT", "sig size", HUGE, [const("sig", np.ones((1, 4, 1)), np.float32)], axis=1)
grows("CenterCropPad", "CenterCropPad", "k size", [HUGE, 1, 1, 1], [ONE])
for label, limit, delta in (
    ("terabytes", 1e12, 1.0),
    ("tiny steps", 1.0, 1e-300),
    ("steps of nothing", 1.0, 0.0),
    ("NaN", float("nan"), 1.0),
    ("infinity", float("inf"), 1.0),
):
    numbers = [const("start", 0, np.float64), const("limit", limit, np.float64), const("delta", delta, np.float64)]
    changed(f"Range of {label}, folded", node("Range", "start limit delta"), constants=numbers)
    later = [node("Cast", "zero", "z1", to=11), node("Squeeze", "z1", "z"), node("Add", "z start0", "start")]
    numbers = [const("start0", 0, np.float64), *numbers[1:]]
    changed(f"Range of {label}, at run", *later, node("Range", "start limit delta"), constants=numbers)
for scale in (1e6, 1e30, float("nan"), float("inf"), -1.0, 0.0, 1e-30):
    scales = const("scales", [1, 1, scale, scale], np.float32)
    changed(f"Resize by {scale}", node("Resize", "input - scales"), constants=[scales])
    changed(f"Upsample by {scale}", node("Upsample", "input scales"), constants=[scales], opset=9)
for start in ("folded", "at run"):
    seed = [node("Identity", "one", "d0")] if start == "folded" else [node("Identity", "zero", "d0")]
    doubled = [node("Concat", f"d{i} d{i}", f"d{i + 1}", axis=0) for i in range(40)]
    changed(f"Concat doubles 40 times, {start}", *seed, *doubled, node("Identity", "d40"))
    doubled = [node("Add", f"d{i} c{i}", f"d{i + 1}") for i in range(30)]
    axes = [const(f"c{i}", np.zeros([4] + [1] * i)) for i in range(30)]
    changed(f"Add broadcasts 30 times, {start}", *seed, *doubled, node("Identity", "d30"), constants=axes)
column, row = const("column", np.ones((10**6, 1)), np.float32), const("row", np.ones((1, 10**6)), np.float32)
changed("MatMul of an outer product, folded", node("MatMul", "column row"), constants=[column, row])
outer = [node("Cast", "zero", "z", to=F), node("Add", "column z", "c"), node("MatMul", "c row")]
changed("MatMul of an outer product, at run", *outer, constants=[column, row])
vector = const("v", np.ones(10**4), np.float32)
changed("Einsum of an outer product", node("Einsum", "v v v v", equation="a,b,c,d->abcd"), constants=[vector])
changed("EyeLike", node("EyeLike", "e"), constants=[const("e", np.ones((10**5, 1)))])
for kind in ("RandomNormal", "RandomUniform"):
    changed(f"{kind} of terabytes", node(kind, "", shape=[HUGE]))
    changed(f"{kind} of 8 GB", node(kind, "", shape=[2 * 10**9]))

# -- windows -----------------------------------------------------------------------------------------------------

KERNEL = const("k", np.ones((1, 1, 3, 3)), np.float32)
WINDOWS: dict[str, dict[str, Any]] = {
    "pads of terabytes": {"pads": [HUGE] * 4},
    "pads of 8 GB": {"pads": [0, 0, 2**15, 2**16]},
    "pads that overflow": {"pads": [2**62] * 4},
    "negative pads": {"pads": [-100] * 4},
    "two pads": {"pads": [1, 1]},
    "strides of 0": {"strides": [0, 0]},
    "strides of −1": {"strides": [-1, -1]},
    "huge strides": {"strides": [HUGE, HUGE]},
    "dilations of 0": {"dilations": [0, 0]},
    "huge dilations": {"dilations": [HUGE, HUGE]},
    "negative dilations": {"dilations": [-3, -3]},
    "kernel_shape of 0": {"kernel_shape": [0, 0]},
    "huge kernel_shape": {"kernel_shape": [HUGE, HUGE]},
    "negative kernel_shape": {"kernel_shape": [-3, -3]},
    "nine axes": {"kernel_shape": [3] * 9},
    "group 0": {"group": 0},
    "group −1": {"group": -1},
    "huge group": {"group": HUGE},
    "huge output_padding": {"output_padding": [HUGE, HUGE]},
    "huge output_shape": {"output_shape": [HUGE, HUGE]},
    "negative output_shape": {"output_shape": [-8, -8]},
}
for label, attributes in WINDOWS.items():
    key = next(iter(attributes))
    if not key.startswith("output"):
        changed(f"Conv with {label}", node("Conv", "input k", **attributes), constants=[KERNEL])
        if key not in ("kernel_shape", "dilations"):
            fused = {"strides": [1, 1], "pads": [0, 0, 0, 0], "group": 1, **attributes}
            zero = const("b", [0], np.float32)
            ours = node("conv_block", "input k b", domain="hw4fast", **fused)
            changed(f"hw4fast.conv_block with {label}", ours, constants=[KERNEL, zero])
    changed(f"ConvTranspose with {label}", node("ConvTranspose", "input k", **attributes), constants=[KERNEL])
    if key not in ("group", "output_padding", "output_shape"):
        for kind in ("MaxPool", "AveragePool", "LpPool"):
            changed(f"{kind} with {label}", node(kind, "input", **{"kernel_shape": [2, 2], **attributes}), opset=19)
changed("Conv without channels", node("Conv", "input k"), constants=[const("k", np.ones((0, 1, 3, 3)), np.float32)])
changed("Conv of other channels", node("Conv", "input k"), constants=[const("k", np.ones((2, 7, 3, 3)), np.float32)])
changed(
    "MaxUnpool far away",
    node("MaxPool", "input", "p i", kernel_shape=[2, 2], strides=[2, 2]),
    node("Mul", "i far", "j"),
    node("MaxUnpool", "p j", kernel_shape=[2, 2], strides=[2, 2]),
    constants=[const("far", [HUGE])],
)
changed(
    "hw4fast.conv_block of other channels",
    node("conv_block", "input k b", domain="hw4fast", strides=[1, 1], pads=[0, 0, 0, 0], group=1),
    constants=[const("k", np.ones((2, 7, 3, 3)), np.float32), const("b", [0, 0], np.float32)],
)
changed(
    "hw4fast.conv_block of a small picture",
    node("conv_block", "input k b", domain="hw4fast", strides=[1, 1], pads=[0, 0, 0, 0], group=1),
    constants=[const("k", np.ones((1, 1, 99, 99)), np.float32), const("b", [0], np.float32)],
)
changed(
    "hw4fast.conv_block of two axes",
    node("conv_block", "k k b", domain="hw4fast", strides=[1, 1], pads=[0, 0, 0, 0], group=1),
    constants=[const("k", np.ones((1, 1)), np.float32), const("b", [0], np.float32)],
)
