"""A study's transforms on one GPU in batches beside all of the same machine's cores:

    python benchmarks/gpu_study.py [--json FILE]

Pictures/s of every transform that has a batched form, at severity 3, on 224² pictures that lie there already: a batch
on the GPU, and picture by picture on the cores, a thread each, in turns; medians and the ratio with the least and the
most of the turns. No timing counts before equality passed, byte for byte. Then a whole study under every transform,
its net on the GPU both times, its transforms there and on the cores, in turns: with onnxruntime's CUDA provider only.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_blur import seconds
from PIL import Image

from hw4fast import record
from hw4fast.batched import FORMS, TorchBatches
from hw4fast.data.preprocessing import PRESETS
from hw4fast.inference.card import KEY, Card
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.session import explain_provider
from hw4fast.kernels import use_threads
from hw4fast.robustness.asking import Asked
from hw4fast.robustness.measure import measure
from hw4fast.robustness.points import Point, points_of
from hw4fast.robustness.source import open_source
from hw4fast.robustness.store import Store
from hw4fast.transforms.randomness import picture_key

N, SIDE, TURNS, SECONDS = 32, 224, 3, 0.1  # pictures of a batch; of the cores' turns
USUAL = PRESETS["imagenet"]


@cache
def photographs(n: int, height: int, width: int) -> list[np.ndarray]:
    """Soft shapes with noise."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8))
        soft = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        found.append(np.clip(soft + rng.normal(0, 6, soft.shape), 0, 255).astype(np.uint8))
    return found


def points() -> list[Point]:
    """One of each transform that has a form."""
    return [point for point in points_of(list(FORMS))[1:] if point.severity in (3, None)]


def of_point(point: Point, pool: ThreadPoolExecutor, cores: int, device: str = "cuda") -> dict[str, Any]:
    decoded = photographs(N, 375, 500)
    fitted = [USUAL.fit(picture) for picture in decoded]
    keys = [picture_key(picture) for picture in fitted]
    batches = TorchBatches(device)
    there, there_decoded = ([batches.put(picture) for picture in some] for some in (fitted, decoded))

    def by_gpu() -> torch.Tensor:
        return batches.apply(point.chain, there, keys, 0, there_decoded, USUAL)

    def by_core(at: int) -> np.ndarray:
        return point.apply(fitted[at], 0, keys[at], decoded=decoded[at], preprocessing=USUAL)

    def by_cores() -> float:
        begin, done = time.perf_counter(), 0
        while time.perf_counter() < begin + SECONDS:
            for _ in pool.map(by_core, range(N), chunksize=1):
                done += 1
        return done / (time.perf_counter() - begin)

    wanted = np.stack(list(pool.map(by_core, range(N))))
    differ = int((by_gpu().cpu().numpy() != wanted).sum())
    if differ:
        raise AssertionError(f"{point.spec}: {differ} of {wanted.size} bytes are not the cores'")
    gpu, cpu = [], []
    for _ in range(TURNS):
        gpu.append(N / statistics.median(seconds(by_gpu, 10)))
        cpu.append(by_cores())
    return {"what": point.spec, "pictures": N, "side": SIDE, "cores": cores} | compared(gpu, cpu)


def compared(gpu: list[float], cpu: list[float]) -> dict[str, float]:
    """Rates of the turns → medians, and the ratio with its least and most."""
    ratios = sorted(g / c for g, c in zip(gpu, cpu, strict=True))
    return {
        "per_s": statistics.median(gpu),
        "cores_per_s": statistics.median(cpu),
        "ratio": statistics.median(ratios),
        "ratio_least": ratios[0],
        "ratio_most": ratios[-1],
    }


def small_net(path: Path) -> Path:
    """A net of five convolutions on 224² with random weights: what it answers doesn't matter here."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng, nodes, constants, at = np.random.default_rng(0), [], [], "input"

    def constant(name: str, *shape: int) -> str:
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        constants.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    for k, (c, o) in enumerate(((3, 24), (24, 48), (48, 96), (96, 192), (192, 192))):
        given = [at, constant(f"w{k}", o, c, 3, 3)]
        nodes.append(helper.make_node("Conv", given, [f"c{k}"], strides=[2, 2], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{k}"], [at := f"r{k}"]))
    nodes.append(helper.make_node("GlobalAveragePool", [at], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", constant("last", 10, 192)], ["logits"], transB=1))
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("input", ["n", 3, SIDE, SIDE]), ("logits", ["n", 10]))
    ]
    graph = helper.make_graph(nodes, "net", *ends, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    card = Card(preprocessing=USUAL, labels=tuple("abcdefghij"), provenance={}, parity={}, opset=17)
    helper.set_model_props(model, {KEY: card.to_json_text()})
    onnx.save(model, path)
    return path


def whole(
    cores: int,
    photos: int = 32,
    turns: int = 2,
    transforms: list[str] | None = None,
    provider: str = "cuda",
    device: str = "cuda",
) -> dict[str, Any]:
    """Pictures × points a second of a study under every transform, the net on the GPU."""
    points = points_of(transforms)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        for number, picture in enumerate(photographs(photos, 375, 500)):
            Image.fromarray(picture).save(folder / "photos" / f"{number:03d}.jpg", quality=92)
        source = open_source(folder / "photos", "none")
        classifier = Classifier(small_net(folder / "net.onnx"), provider, threads=1)
        asked = Asked("net", classifier, source.labels_for(classifier.card.labels))

        def rate(batches: TorchBatches | None) -> float:
            with tempfile.TemporaryDirectory() as kept:
                begin, options = time.perf_counter(), {"seed": 0, "workers": cores, "progress": False}
                measure(source, np.arange(photos), [asked], points, Store(Path(kept), {}), batches=batches, **options)
                return photos * len(points) / (time.perf_counter() - begin)

        rates = [(rate(TorchBatches(device)), rate(None)) for _ in range(turns + 1)][1:]  # the first one warms up
    gpu, cpu = (list(side) for side in zip(*rates, strict=True))
    return {"what": "a whole study", "photos": photos, "points": len(points), "cores": cores} | compared(gpu, cpu)


def shown(entry: dict[str, Any]) -> dict[str, Any]:
    print(
        f"{entry['what']}: {entry['per_s']:,.0f} pictures/s, on {entry['cores']} cores {entry['cores_per_s']:,.0f}:"
        f" {entry['ratio']:.2f} × ({entry['ratio_least']:.2f} … {entry['ratio_most']:.2f})",
        flush=True,
    )
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cores, failed = record.cores(), []
    results: dict[str, list[dict[str, Any]]] = {"transforms": []}

    def keep() -> None:
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")

    with ThreadPoolExecutor(cores, initializer=use_threads, initargs=(1,)) as pool:
        for point in points():
            try:
                results["transforms"].append(shown(of_point(point, pool, cores)))
            except AssertionError as error:
                failed.append(str(error))
    keep()
    missing = [f"there is no {name}" for name in ("onnx", "pyarrow", "tqdm") if importlib.util.find_spec(name) is None]
    if reason := explain_provider("cuda") or "; ".join(missing):
        print(f"a whole study: not measured, {reason}")
    else:
        results["whole"] = [shown(whole(cores))]
    keep()
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
