"""Loops, branches and functions without an end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from tests.inference.hostile.base import (
    I64,
    F,
    add,
    changed,
    const,
    linear,
    node,
)

# -- loops, branches, functions ----------------------------------------------------------------------------------


def body(nodes: Iterable[NodeProto], outputs: str, inputs: Iterable[Any] = (), name: str = "body") -> GraphProto:
    values = [helper.make_tensor_value_info(output, *kind) for output, kind in _typed(outputs)]
    return helper.make_graph(list(nodes), name, list(inputs), values)


def _typed(outputs: str) -> Iterable[tuple[str, tuple[int, Any]]]:
    for output in outputs.split():
        name, _, kind = output.partition(":")
        yield name, ({"bool": TensorProto.BOOL, "i": I64, "": F}[kind], None)


INFO = helper.make_tensor_value_info
LOOP_INPUTS = (INFO("i", I64, []), INFO("go", TensorProto.BOOL, []), INFO("x", I64, None))


def loop(trips: str, scan: bool = False) -> NodeProto:
    step = [node("Identity", "go", "on"), node("Add", "x one", "y")]
    if scan:
        step.append(node("Identity", "x", "kept"))
    graph = body(step, "on:bool y:i" + (" kept:i" if scan else ""), LOOP_INPUTS)
    return node("Loop", f"{trips} yes start", "h all" if scan else "h", body=graph)


YES = const("yes", True, np.bool_)
changed("Loop of 2⁶² rounds, folded", loop("trips"), constants=[const("trips", 2**62), YES, const("start", [0])])
changed(
    "Loop of 2⁶² rounds, at run",
    node("Identity", "zero", "start"),
    loop("trips"),
    constants=[const("trips", 2**62), YES],
)
changed("Loop without end", node("Identity", "zero", "start"), loop("-"), constants=[YES])
big = const("start", np.zeros(10**6, np.int64))
changed("Loop that keeps terabytes", loop("trips", scan=True), constants=[const("trips", 2**62), YES, big])
changed(
    "Loop of doubling",
    node("Identity", "zero", "start"),
    node(
        "Loop",
        "trips yes start",
        "h",
        body=body([node("Identity", "go", "on"), node("Concat", "x x", "y", axis=0)], "on:bool y:i", LOOP_INPUTS),
    ),
    constants=[const("trips", 60), YES],
)
changed("Loop of −1 rounds", node("Identity", "zero", "start"), loop("trips"), constants=[const("trips", -1), YES])


def nested_ifs(depth: int) -> NodeProto:
    inner = body([node("Identity", "one", ["leaf", "i"][0])], "leaf:i")
    for level in range(depth):
        inner = body(
            [
                node(
                    "If",
                    "yes",
                    f"o{level}",
                    then_branch=inner,
                    else_branch=body([node("Identity", "one", f"e{level}")], f"e{level}:i"),
                )
            ],
            f"o{level}:i",
        )
    return node("If", "yes", "h", then_branch=inner, else_branch=body([node("Identity", "one", "e")], "e:i"))


for depth in (5, 20):
    changed(f"If {depth} deep", nested_ifs(depth), constants=[YES])
changed(
    "SequenceMap",
    node("SequenceConstruct", "one one", "s"),
    node("SequenceMap", "s", "t", body=body([node("Identity", "q", "r")], "r:i", [INFO("q", I64, None)])),
    node("ConcatFromSequence", "t", axis=0),
)
changed("If without branches", node("If", "yes"), constants=[YES])
changed("Loop without a body", node("Loop", "one yes one"), constants=[YES])
scan_body = body(
    [node("Add", "s e", "t"), node("Identity", "e", "u")], "t:i u:i", [INFO("s", I64, [1]), INFO("e", I64, [1])]
)
changed(
    "Scan of 10⁷ rows",
    node("Expand", "one size", "rows"),
    node("Scan", "zero rows", "last h", body=scan_body, num_scan_inputs=1),
    constants=[const("size", [10**7, 1])],
)
changed("Scan with no inputs to scan", node("Scan", "zero one", "last h", body=scan_body, num_scan_inputs=99))


def with_functions(*functions: Any) -> ModelProto:
    model = linear([node("f0", "input", "h", domain="mine")])
    model.functions.extend(functions)
    return model


def function(name: str, nodes: Iterable[NodeProto], inputs: str = "a", outputs: str = "b", domain: str = "mine") -> Any:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    return helper.make_function(domain, name, inputs.split(), outputs.split(), list(nodes), opsets)


add("function that calls itself", lambda: with_functions(function("f0", [node("f0", "a", "b", domain="mine")])))
add(
    "functions that call each other",
    lambda: with_functions(
        function("f0", [node("f1", "a", "b", domain="mine")]), function("f1", [node("f0", "a", "b", domain="mine")])
    ),
)
add(
    "function of a branch that calls itself",
    lambda: with_functions(
        function(
            "f0",
            [
                node("Constant", "", "c", value=const("c", True, np.bool_)),
                node(
                    "If",
                    "c",
                    "b",
                    then_branch=body([node("f0", "a", "d", domain="mine")], "d"),
                    else_branch=body([node("Identity", "a", "e")], "e"),
                ),
            ],
        )
    ),
)


def twice(level: int, last: int) -> Any:
    if level == last:
        return function(f"f{level}", [node("Relu", "a", "b")])
    return function(
        f"f{level}", [node(f"f{level + 1}", "a", "m", domain="mine"), node(f"f{level + 1}", "m", "b", domain="mine")]
    )


for last in (12, 40):
    add(
        f"functions that double {last} times",
        lambda last=last: with_functions(*(twice(i, last) for i in range(last + 1))),
    )
add(
    "function twice",
    lambda: with_functions(function("f0", [node("Relu", "a", "b")]), function("f0", [node("Relu", "a", "b")])),
)
add("function that is missing", with_functions)
add("function with an empty body", lambda: with_functions(function("f0", [])))


def gemm_of_gemm() -> ModelProto:
    model = linear()
    model.functions.append(function("Gemm", [node("Gemm", "a c d", "b")], "a c d", domain=""))
    return model


add("function in place of Gemm", gemm_of_gemm)
