"""hw4fast's CUDA kernels beside torch's on one GPU: python benchmarks/gpu.py [--json FILE] [--only softmax,small,conv]

Each side's calls are captured in a CUDA graph and replayed in turns, so that the host's time is left out; inputs and
gradients rotate through more memory than the GPU's cache. Figures are medians of the turns with the least and the most;
a ratio is the median of each turn's. No timing counts before equality passed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hw4fast.nn import batch_norm_block, binary_cross_entropy_with_logits, conv_block, softmax_cross_entropy

TURNS = 15
CLASSES = (1024, 4096, 16384, 32768, 65536, 131072)
COMPILED = (1024, 16384, 131072)


def captured(calls: Sequence[Callable[[], Any]]) -> torch.cuda.CUDAGraph:
    """One graph of all calls, whose results stay alive until the last."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            calls[0]()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [call() for call in calls]
    del kept
    return graph


def seconds(graph: torch.cuda.CUDAGraph, calls: int, replays: int) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(replays):
        graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / calls / replays


def in_turns(
    sides: dict[str, Sequence[Callable[[], Any]]], turns: int = TURNS, budget: float = 1.0
) -> dict[str, list[float]]:
    """{side: seconds per call of each turn}, within some `budget` seconds for all."""
    graphs = {name: captured(calls) for name, calls in sides.items()}
    replays = {}
    for name, graph in graphs.items():
        graph.replay()
        once = seconds(graph, 1, 1)
        replays[name] = max(1, min(100, int(budget / len(sides) / turns / max(once, 1e-6))))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, graph in graphs.items():
            times[name].append(seconds(graph, len(sides[name]), replays[name]))
    return times


def told(times: dict[str, list[float]], ours: str) -> dict[str, Any]:
    """Microseconds (median, least, most) of each side, and how many times `ours` is faster than the others."""
    result: dict[str, Any] = {}
    for name, each in times.items():
        us = [1e6 * t for t in each]
        result[name] = {"us": statistics.median(us), "us_least": min(us), "us_most": max(us)}
        if name != ours:
            ratios = sorted(t / o for t, o in zip(each, times[ours], strict=True))
            result[name]["ratio"] = statistics.median(ratios)
            result[name]["ratio_least"], result[name]["ratio_most"] = ratios[0], ratios[-1]
    return result


def both(function: Callable[..., Tensor], x: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
    loss = function(x, *rest)
    return loss.detach(), torch.autograd.grad(loss, x)[0]


def softmax() -> list[dict[str, Any]]:
    """Loss and gradient of (8192, classes), beside a copy of the logits."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for classes in CLASSES:
            size = 8192 * classes * dtype.itemsize
            copies = max(1, min(8, (3 << 28) // size)) if size < (1 << 30) else 1
            xs = [torch.randn(8192, classes, device="cuda", dtype=dtype).requires_grad_() for _ in range(copies)]
            targets = [torch.randint(0, classes, (8192,), device="cuda") for _ in range(copies)]
            ours, theirs = both(softmax_cross_entropy, xs[0], targets[0]), both(F.cross_entropy, xs[0], targets[0])
            bound = 1e-5 if dtype is torch.float32 else 1e-2
            torch.testing.assert_close(ours[0], theirs[0], rtol=bound, atol=bound)
            assert (ours[1].float() - theirs[1].float()).norm() <= bound * theirs[1].float().norm()
            del ours, theirs

            def calls(function, xs=xs, targets=targets):
                return [lambda x=x, t=t: both(function, x, t) for x, t in zip(xs, targets, strict=True)]

            def alone(x=None, t=None):
                return torch.ops.hw4fast.softmax_xent(x, t)  # loss and gradient: what autograd is given

            sides = {
                "hw4fast": calls(softmax_cross_entropy),
                "kernel": [lambda x=x, t=t: alone(x.detach(), t) for x, t in zip(xs, targets, strict=True)],
                "copy": [lambda x=x: x.detach().clone() for x in xs],
                "torch": calls(F.cross_entropy),
            }
            if classes in COMPILED:
                torch._dynamo.reset()
                sides["torch.compile"] = calls(torch.compile(F.cross_entropy, dynamic=False))
                sides["torch.compile"][0]()
            entry = told(in_turns(sides, budget=0.6), "hw4fast")
            for name in ("hw4fast", "kernel", "copy"):
                entry[name]["gb_per_s"] = 2 * size / entry[name]["us"] / 1e3
            entry["kernel"]["of_copy"] = entry["copy"]["us"] / entry["kernel"]["us"]
            found.append({"shape": [8192, classes], "dtype": str(dtype).removeprefix("torch."), **entry})
            line(f"softmax_xent {dtype} (8192, {classes})", entry)
            del xs, targets, sides
            torch.cuda.empty_cache()
    return found


def small() -> list[dict[str, Any]]:
    """Losses of a batch of 100 in a graph: launches are all that counts."""
    x, target = torch.randn(100, 10, device="cuda").requires_grad_(), torch.randint(0, 10, (100,), device="cuda")
    torch.testing.assert_close(both(softmax_cross_entropy, x, target), both(F.cross_entropy, x, target))
    sides = {
        "hw4fast": [lambda: both(softmax_cross_entropy, x, target)] * 20,
        "torch": [lambda: both(F.cross_entropy, x, target)] * 20,
    }
    entry = told(in_turns(sides), "hw4fast")
    line("softmax_xent (100, 10)", entry)
    logits, soft = torch.randn(4096, 1000, device="cuda").requires_grad_(), torch.rand(4096, 1000, device="cuda")
    functions = (binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits)
    torch.testing.assert_close(*(both(function, logits, soft) for function in functions))
    sides = {
        name: [lambda f=function: both(f, logits, soft)] * 4
        for name, function in zip(("hw4fast", "torch"), functions, strict=True)
    }
    bce = told(in_turns(sides), "hw4fast")
    line("bce_with_logits (4096, 1000)", bce)
    return [{"what": "softmax_xent (100, 10)", **entry}, {"what": "bce_with_logits (4096, 1000)", **bce}]


def conv() -> list[dict[str, Any]]:
    """seed_cnn's blocks, forward and forward + backward, float32 (as tf32, and plain) and bfloat16."""
    found = []
    for n in (100, 1000):
        for c, side, o in ((1, 28, 16), (16, 14, 32)):
            for precision in ("tf32", "ieee", "bfloat16"):
                torch.backends.cudnn.conv.fp32_precision = "ieee" if precision == "ieee" else "tf32"
                dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
                x = torch.randn(n, side, side, c, device="cuda", dtype=dtype).permute(0, 3, 1, 2)
                x.requires_grad_(c > 1)  # pictures need no gradient
                weight = (torch.randn(o, c, 5, 5, device="cuda") / (25 * c) ** 0.5).to(dtype).requires_grad_()
                bias = torch.randn(o, device="cuda", dtype=dtype).requires_grad_()

                def ours(x=x, weight=weight, bias=bias):
                    return conv_block(x, weight, bias, padding=2)

                def theirs(x=x, weight=weight, bias=bias):
                    return F.max_pool2d(F.relu(F.conv2d(x, weight, bias, padding=2)), 2)

                bound = 1e-4 if precision == "ieee" else 2e-2
                name = f"conv_block {c}x{side}² to {o}, batch {n}, {precision}"
                found += beside_torch(name, ours, theirs, [t for t in (x, weight, bias) if t.requires_grad], bound)
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    return found


def batch_norm() -> list[dict[str, Any]]:
    """What follows a convolution of seed_cnn with batch normalisation, in training: statistics, ReLU and pool."""
    found = []
    for n in (100, 1000):
        for c, side in ((16, 28), (32, 14)):
            for dtype in (torch.float32, torch.bfloat16):
                x = torch.randn(n, side, side, c, device="cuda").to(dtype).permute(0, 3, 1, 2).requires_grad_()
                weight, bias = (torch.rand(c, device="cuda").requires_grad_() for _ in range(2))

                def ours(x=x, weight=weight, bias=bias):
                    return batch_norm_block(x, weight, bias)[0]

                def theirs(x=x, weight=weight, bias=bias):
                    return F.max_pool2d(F.relu(F.batch_norm(x, None, None, weight, bias, True)), 2)

                bound = 1e-4 if dtype is torch.float32 else 2e-2
                name = f"batch_norm_block {c}x{side}², batch {n}, {str(dtype).removeprefix('torch.')}"
                found += beside_torch(name, ours, theirs, [x, weight, bias], bound)
    return found


def beside_torch(
    name: str, ours: Callable[[], Tensor], theirs: Callable[[], Tensor], wanted: list[Tensor], bound: float
) -> list[dict[str, Any]]:
    """Forward, and with the gradients of `wanted`, each held against torch's before it is timed beside it."""

    def step(function):
        y = function()
        return torch.autograd.grad(y, wanted, torch.ones_like(y))

    def forward(function):
        with torch.no_grad():
            return function()

    assert (ours().float() - theirs().float()).norm() <= bound * theirs().float().norm()
    for mine, other in zip(step(ours), step(theirs), strict=True):
        # of two nearly equal places each may take another one for the maximum
        error = ((mine.float() - other.float()).norm() / other.float().norm()).item()
        assert error <= 0.1, f"{name}: a gradient differs by {error:.2g}"
    found = []
    for what, call in (("forward", forward), ("forward + backward", step)):
        sides = {"hw4fast": [lambda: call(ours)] * 10, "torch": [lambda: call(theirs)] * 10}  # noqa: B023
        entry = told(in_turns(sides, budget=0.3), "hw4fast")
        found.append({"what": f"{name}, {what}", **entry})
        line(f"{name}, {what}", entry)
    return found


def line(what: str, entry: dict[str, Any]) -> None:
    times = ", ".join(f"{name} {each['us']:.1f} µs" for name, each in entry.items() if isinstance(each, dict))
    ratios = ", ".join(
        f"{each['ratio']:.2f} × as fast as {name} ({each['ratio_least']:.2f} … {each['ratio_most']:.2f})"
        for name, each in entry.items()
        if isinstance(each, dict) and "ratio" in each
    )
    print(f"{what}: {times}; {ratios}", flush=True)


PARTS = {"small": small, "softmax": softmax, "conv": conv, "batch_norm": batch_norm}


def main(parts: dict[str, Callable[[], list[dict[str, Any]]]] = PARTS, about: str | None = __doc__) -> None:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default=",".join(parts))
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := [name for name in wanted if name not in parts]:
        parser.error(f"unknown part {', '.join(unknown)}; known: {', '.join(parts)}")
    torch.backends.cudnn.benchmark = True
    results: dict[str, Any] = {}
    for name in wanted:
        begin = time.perf_counter()
        try:
            results[name] = parts[name]()
        except Exception as error:  # the other parts' numbers are not lost
            print(f"{name} failed: {type(error).__name__}: {error}", flush=True)
            results[name] = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(f"-- {name}: {time.perf_counter() - begin:.0f} s", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if failed := [name for name, found in results.items() if "error" in found]:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
