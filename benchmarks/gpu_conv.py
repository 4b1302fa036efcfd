"""3×3 convolutions of bfloat16 on tensor cores beside cuDNN's, on the GPU that is there.

    python benchmarks/gpu_conv.py [--sweep] [--json FILE]

Both get channels-last tensors and the same work: a CUDA graph of 20 convolutions that go round inputs larger than the
L2 cache, medians of CUDA events. --sweep times every choice of tiles, too. Each is held against float64 before it is
timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hw4fast.nn import cuda

LAUNCHES, REPEATS = 20, 15
SHAPES = [(64, 64, 56, 64), (64, 128, 28, 128)]  # n, c, side, o
WAYS = {1: "mma.sync", 2: "wgmma"}


def microseconds(run: Callable[[int], None]) -> tuple[float, float]:
    """Median and the quartiles' distance of a launch, in a graph of LAUNCHES."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for i in range(3):
            run(i)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(LAUNCHES):
            run(i)
    graph.replay()
    times = []
    for _ in range(REPEATS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1000 * begin.elapsed_time(end) / LAUNCHES)
    low, middle, high = statistics.quantiles(times, n=4)
    return middle, high - low


def choices(sweep: bool) -> list[tuple[int, ...]]:
    """TensorChoice of csrc/conv_block_tensor.cuh: way, columns, rows, strips, shared memory."""
    ways = [1, 2] if torch.cuda.get_device_capability() == (9, 0) else [1]
    best: list[tuple[int, ...]] = [(way, 0, 0, 0, 0) for way in ways]
    if not sweep:
        return best
    tiles = [
        (columns, rows, strips) for columns in (64, 128) for rows in (128, 192, 256, 384) for strips in (1, 2, 4, 7)
    ]
    return best + [(way, *tile, 0) for way in ways for tile in tiles]


def measure(n: int, c: int, side: int, o: int, sweep: bool) -> list[dict[str, Any]]:
    module = cuda.module()
    l2 = torch.cuda.get_device_properties(0).L2_cache_size
    count = max(3, -(-2 * l2 // (2 * n * side * side * c)) + 1)
    inputs = [torch.randn(n, side, side, c, device="cuda").bfloat16().permute(0, 3, 1, 2) for _ in range(count)]
    weight = (torch.randn(o, 3, 3, c, device="cuda") / (9 * c) ** 0.5).bfloat16().permute(0, 3, 1, 2)
    outputs = [torch.empty(n, side, side, o, device="cuda", dtype=torch.bfloat16) for _ in range(count)]
    shape = (n, side, side, c, o, 3, 3, 1, 1, 1, 1, side, side)
    flops = 2 * n * side * side * 9 * c * o

    def ours(choice: tuple[int, ...], relu: bool = False) -> Callable[[int], None]:
        def run(i: int) -> None:
            x, y, stream = inputs[i % count], outputs[i % count], torch.cuda.current_stream().cuda_stream
            module.conv_tensor(
                2, shape, relu, False, x.data_ptr(), weight.data_ptr(), 0, y.data_ptr(), 0, choice, stream
            )

        return run

    kept: list[Tensor | None] = [None] * count

    def theirs(i: int) -> None:
        kept[i % count] = functional.conv2d(inputs[i % count], weight, padding=1)

    wanted = functional.conv2d(inputs[0][:2].double().cpu(), weight.double().cpu(), padding=1)
    baseline, spread = microseconds(theirs)
    print(f"3 × 3, {c} → {o} on {side}², batch {n}, bfloat16")
    print(f"  {'cuDNN':48} {baseline:7.1f} ± {spread:4.1f} µs {flops / baseline / 1e6:6.0f} TFLOP/s")
    found_times = [{"what": f"{c} → {o} on {side}²", "side": "cuDNN", "us": baseline, "quartiles": spread}]
    for choice in choices(sweep):
        try:
            plan = module.conv_tensor_plan(2, shape, False, False, choice)
        except ValueError:
            continue
        if not plan["shared"] or (choice[3] and plan["strips"] != choice[3]):
            continue
        ours(choice)(0)
        found = outputs[0][:2].permute(0, 3, 1, 2).double().cpu()
        error = float((found - wanted).norm() / wanted.norm())
        name = f"{WAYS[choice[0]]} {plan['rows']}×{plan['columns']}, strips {plan['strips']}, slots {plan['slots']}"
        if error > 5e-3:
            print(f"  {name:48} WRONG: relative error {error:.2g}")
            continue
        took, spread = microseconds(ours(choice))
        chosen = "" if choice[1] else " (chosen)"
        print(
            f"  {name + chosen:48} {took:7.1f} ± {spread:4.1f} µs {flops / took / 1e6:6.0f} TFLOP/s, "
            f"{baseline / took:.2f} × cuDNN"
        )
        found_times.append({"what": f"{c} → {o} on {side}²", "side": name + chosen, "us": took, "quartiles": spread})
        found_times[-1] |= {"tflops": flops / took / 1e6, "ratio": baseline / took}
    return found_times


def measure_backward(n: int, c: int, side: int, o: int) -> list[dict[str, Any]]:
    """All three gradients of a convolution with bias and ReLU, of which cuDNN's side leaves the ReLU out."""
    module = cuda.module()
    x = torch.randn(n, side, side, c, device="cuda").bfloat16().permute(0, 3, 1, 2)
    weight = (torch.randn(o, 3, 3, c, device="cuda") / (9 * c) ** 0.5).bfloat16().permute(0, 3, 1, 2)
    grad = torch.randn(n, side, side, o, device="cuda").bfloat16().permute(0, 3, 1, 2)
    code = torch.zeros(n, side, side, o, device="cuda", dtype=torch.uint8)
    call = (2, (n, side, side, c, o, 3, 3, 1, 1, 1, 1, side, side), True, False)
    scratch = torch.empty(module.conv_tensor_backward_scratch(*call), device="cuda", dtype=torch.uint8)
    gradients = [torch.empty_like(x), torch.empty_like(weight), torch.empty(o, device="cuda", dtype=torch.bfloat16)]
    inputs, outputs = ([t.data_ptr() for t in tensors] for tensors in ((x, weight, grad, code), gradients))

    def ours(_: int) -> None:
        stream = torch.cuda.current_stream().cuda_stream
        module.conv_tensor_backward(*call, inputs, weight.stride(), grad.stride(), outputs, scratch.data_ptr(), stream)

    def theirs(_: int) -> None:
        torch.ops.aten.convolution_backward(
            grad, x, weight, [o], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, True]
        )

    baseline, spread = microseconds(theirs)
    print(f"backward, {c} → {o} on {side}²\n  {'cuDNN':48} {baseline:7.1f} ± {spread:4.1f} µs")
    took, spread = microseconds(ours)
    print(f"  {'ours':48} {took:7.1f} ± {spread:4.1f} µs, {baseline / took:.2f} × cuDNN")
    what = f"{c} → {o} on {side}², backward"
    return [
        {"what": what, "side": "cuDNN", "us": baseline},
        {"what": what, "side": "hw4fast", "us": took, "quartiles": spread, "ratio": baseline / took},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", action="store_true", help="every choice of tiles, too")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    results = []
    for shape in SHAPES:
        results += measure(*shape, arguments.sweep) + measure_backward(*shape)
    if arguments.json:
        arguments.json.write_text(json.dumps({"tensor_cores": results}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
