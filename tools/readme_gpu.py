"""The README's block on GPUs, from the record that tools/gpu_check.sh leaves; readme.py fills it in."""

from __future__ import annotations

import re
from typing import Any

from readme_serving import RESULTS, markdown

from hw4fast import record

HEAD = ("what", "hw4fast", "beside it", "times as fast", "target")


def gpu() -> str:
    """A row per target."""
    entry = record.read(RESULTS / "gpu.jsonl")[-1]
    found = entry["results"]
    gpu, clock = found["gpus"][0]["name"], ", inference is by the wall clock" * ("gpu_inference" in found)
    return "\n".join(markdown(HEAD, rows(found))) + (
        "\n\nMedians in turns on one machine, each side's calls in a CUDA graph of its own, and the ratio with the"
        f" least and the most of the turns; a blur's calls stand alone{clock}. The copy is torch's, of as many bytes."
        f" {gpu}, torch {entry['versions']['torch']}, CUDA {found['cuda'] // 1000}.{found['cuda'] % 1000 // 10}."
    )


def rows(found: dict[str, Any]) -> list[list[str]]:
    """What HEAD says of each thing that was measured."""
    lines = [*losses(found["gpu"]), *convolutions(found), *blurs(found["gpu_blur"])]
    lines += resizes(found["gpu_resize"]) if "gpu_resize" in found else []
    lines += inference(found["gpu_inference"]) if "gpu_inference" in found else []
    lines += studies(found["gpu_study"]) if "gpu_study" in found else []
    return [*lines, *training(found["gpu_training"])]


def ratio(entry: dict[str, Any]) -> str:
    return f"{entry['ratio']:.2f}× ({entry['ratio_least']:.2f} … {entry['ratio_most']:.2f})"


def losses(found: dict[str, Any]) -> list[list[str]]:
    lines = []
    for small in found["small"]:
        beside, goal = f"torch {us(small['torch'])}", "2×" if small["what"].startswith("softmax_xent") else ""
        what = re.sub(r"\d{4,}", lambda number: f"{int(number[0]):,}", small["what"].replace(" (", ", (", 1))
        lines.append([f"{what}, float32", us(small["hw4fast"]), beside, ratio(small["torch"]), goal])
    for entry in found["softmax"]:
        rows, classes = entry["shape"]
        what = f"softmax_xent, ({rows:,}, {classes:,}), {entry['dtype']}"
        beside = [f"{name} {us(entry[name])}" for name in ("torch", "torch.compile") if name in entry]
        times = [ratio(entry[name]) for name in ("torch", "torch.compile") if name in entry]
        goals = ["2×", "1.1×"][: len(times)]
        share = f"{entry['kernel']['of_copy'] * 100:.0f} %"
        ours = f"{us(entry['hw4fast'])}, the kernel alone {us(entry['kernel'])}"
        beside.append(f"copy {us(entry['copy'])}")
        lines.append(
            [what, ours, "; ".join(beside), "; ".join([*times, f"{share} of the copy"]), ", ".join([*goals, "90 %"])]
        )
    return lines


def convolutions(found: dict[str, Any]) -> list[list[str]]:
    lines = []
    for entry in found["gpu"]["conv"]:
        what = entry["what"].replace("ieee", "float32").replace("tf32", "float32 as tf32")
        beside = f"cuDNN, ReLU, pool {us(entry['torch'])}"
        lines.append([what, us(entry["hw4fast"]), beside, ratio(entry["torch"]), "2×"])
    for entry in found["gpu"].get("batch_norm", []):
        beside = f"batch_norm, ReLU, pool {us(entry['torch'])}"
        lines.append([entry["what"], us(entry["hw4fast"]), beside, ratio(entry["torch"]), ""])
    for entry in found["gpu_conv"]["tensor_cores"]:
        if entry["side"] == "cuDNN" or entry["side"].startswith("mma"):
            continue
        theirs = next(
            e for e in found["gpu_conv"]["tensor_cores"] if e["what"] == entry["what"] and e["side"] == "cuDNN"
        )
        what = f"3×3 convolution {entry['what']}, batch 64, bfloat16"
        goal = "" if "backward" in entry["what"] else "0.9×"
        lines.append([what, us(entry), f"cuDNN {us(theirs)}", f"{entry['ratio']:.2f}×", goal])
    return lines


def blurs(found: dict[str, Any]) -> list[list[str]]:
    return [
        [
            f"gaussian_blur {entry['size']}, {entry['pictures']} pictures of 3×{entry['side']}², {entry['dtype']}",
            f"{entry['ms']:.2f} ms",
            f"torchvision {entry['torchvision_ms']:.1f} ms",
            ratio(entry),
            "20×" if entry["size"] == 51 else "",
        ]
        for entry in found["blur"]
    ]


def resizes(found: dict[str, Any]) -> list[list[str]]:
    lines = []
    for entry in found["resize"]:
        h, w = entry["shape"]
        what = f"resize and normalise, {entry['pictures']} × {h} × {w}, {entry['interpolation']}, to {entry['dtype']}"
        beside = f"torchvision {entry['torchvision_us']:,.0f} µs; copy {entry['copy_us']:,.0f} µs"
        share = f"{100 * entry['copy_us'] / entry['us']:.0f} % of the copy"
        lines.append([what, us(entry), beside, f"{ratio(entry)}; {share}", ""])
    return lines


def inference(found: dict[str, Any]) -> list[list[str]]:
    """What a net reads, from host memory and on the GPU, and photographs, to logits in host memory."""
    lines = []
    for entry in found["inference"]:
        what = f"{entry['model']} through onnxruntime, {entry['precision']}, {entry['pictures']} at a time"
        rates = {side: f"{value['per_second']:,.0f}/s" for side, value in entry.items() if isinstance(value, dict)}
        beside = f"`InferenceSession.run` {rates['run']}"
        lines.append([f"{what}, in host memory as bytes", rates["bytes"], beside, ratio(entry["bytes"]), ""])
        others, times = beside, ratio(entry["on the GPU"])
        if "torch" in entry:
            others += f"; torch {rates['torch']}"
            times += f"; {ratio(entry['torch'])}"
        lines.append([f"{what}, on the GPU", rates["on the GPU"], others, times, ""])
        others = f"made to fit on the CPU, `run` {rates['photographs, run']}"
        lines.append([f"{what}, photographs", rates["photographs"], others, ratio(entry["photographs"]), ""])
    options = {(entry["precision"], entry["options"]): entry for entry in found["options"] if "failed" not in entry}
    for precision in ("float32", "float16"):
        plain, graph = (options.get((precision, name)) for name in ("ours", "CUDA graph"))
        if plain and graph:
            one, other = (entry["1"]["per_second"] for entry in (graph, plain))
            what = f"{graph['model']} through onnxruntime, {precision}, 1 at a time, on the GPU, as a CUDA graph"
            lines.append([what, f"{one:,.0f}/s", f"without the graph {other:,.0f}/s", f"{one / other:.2f}×", ""])
    return lines


def studies(found: dict[str, Any]) -> list[list[str]]:
    """The whole study, if it was measured, and what gains most and least of its transforms."""
    lines = []
    for entry in found.get("whole", []):
        what = f"study of {entry['photos']} photographs at {entry['points']} points, the net on the GPU"
        lines.append([what, *rates(entry), ""])
    among = sorted(found["transforms"], key=lambda entry: entry["ratio"])
    for place in (-1, len(among) // 2, 0) if among else ():
        entry = among[place]
        what = f"transform `{entry['what']}`, {entry['pictures']} × {entry['side']}²"
        lines.append([what, *rates(entry), ""])
    return lines


def rates(entry: dict[str, Any]) -> list[str]:
    return [f"{entry['per_s']:,.0f}/s", f"{entry['cores']} cores {entry['cores_per_s']:,.0f}/s", ratio(entry)]


def training(found: dict[str, Any]) -> list[list[str]]:
    lines = []
    for precision in ("float32", "bfloat16"):
        entry = found["seed_cnn"][precision]
        for name, goal in (("torch", "5×"), ("torch, CUDA graph", "1.5×")):
            if name in entry:
                other = entry[name]
                what = f"seed_cnn, an epoch at batch 100, {precision}"
                lines.append([what, s(entry["hw4fast"]), f"{name} {s(other)}", ratio(other), goal])
    one = found["fast"]
    accuracy = f"{one['accuracy'] * 100:.2f} % ({one['accuracy_least'] * 100:.2f} … {one['accuracy_most'] * 100:.2f})"
    time = f"{one['seconds']:.3f} s ({one['seconds_least']:.3f} … {one['seconds_most']:.3f})"
    lines.append(
        [f"MNIST, recipe fast, {one['seeds']} seeds: {accuracy}", time, "", "", "99 % in 0.76 s, better 0.3 s"]
    )
    return lines


def us(entry: dict[str, Any]) -> str:
    return f"{entry['us']:,.1f} µs" if entry["us"] < 100 else f"{entry['us']:,.0f} µs"


def s(entry: dict[str, Any]) -> str:
    return f"{entry['seconds']:.3f} s"
