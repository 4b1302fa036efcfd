"""An exported net on one GPU through onnxruntime: python benchmarks/gpu_inference.py [--json FILE] [--models NAMES]

Pictures in, logits in host memory out, in float32 and float16. Of what a net reads: `InferenceSession.run` on a NumPy
tensor, the bytes that a file with `--input uint8` takes, and a tensor that lies on the GPU; torch's eager net on that
one (channels last in float16), where its weights are. Of photographs of 375 × 500: made to fit on the CPU, then
`InferenceSession.run`; and copied to the GPU as bytes and made to fit there. Also what onnxruntime's options do, and
how long its first call takes. Wall-clock medians in turns; no timing counts before the logits were the CPU's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from hw4fast.exporter.pixels import take_pixels
from hw4fast.exporter.precision import half
from hw4fast.files import data_folder
from hw4fast.inference.card import KEY
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.session import explain_provider
from hw4fast.nn import fit

MODELS = "squeezenet1_1"
BATCHES = (1, 256)
AWAY = {"float32": 1e-3, "float16": 2e-2}  # of the largest logit
TURNS, SLICE = 5, 0.03  # seconds that a side takes per turn, or a call if that is longer
HEIGHT, WIDTH = 375, 500
OPTIONS: dict[str, dict[str, str]] = {
    "ours": {},
    "TF32": {"use_tf32": "1"},
    "EXHAUSTIVE": {"cudnn_conv_algo_search": "EXHAUSTIVE"},
    "CUDA graph": {"enable_cuda_graph": "1"},
}
Call = Callable[[], np.ndarray]


def in_turns(calls: dict[str, Call], turns: int = TURNS) -> dict[str, list[float]]:
    """{side: the median seconds of a call in each turn}."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            call()
            taken: list[float] = []
            while sum(taken) < SLICE:
                begin = time.perf_counter()
                call()
                taken.append(time.perf_counter() - begin)
            times[name].append(statistics.median(taken))
    return times


def photographs(n: int) -> np.ndarray:
    """uint8 [n, HEIGHT, WIDTH, 3]: patches of colour."""
    rows = np.random.default_rng(n).integers(0, 256, (n, HEIGHT // 25, WIDTH // 25, 3), np.uint8)
    return rows.repeat(25, 1).repeat(25, 2)


def insist_close(name: str, found: np.ndarray, right: np.ndarray, away: float) -> None:
    differs = np.abs(found - right).max() / np.abs(right).max()
    assert differs <= away, f"{name} is {differs:.4f} of the largest logit away from the CPU"


def torch_call(model: str, precision: str, tensor: torch.Tensor) -> Call | None:
    """torchvision's net with the weights in HW4FAST_DATA; None where they aren't."""
    weights = (data_folder() or Path()) / "models" / f"{model}.pth"
    if not weights.is_file():
        return None
    import torchvision

    net = torchvision.models.get_model(model, weights=None).eval()
    net.load_state_dict(torch.load(weights, weights_only=True))
    net = net.to(tensor.device)
    if precision == "float16":
        net = net.to(torch.float16, memory_format=torch.channels_last)

    @torch.inference_mode()
    def call() -> np.ndarray:
        x = tensor
        if precision == "float16":
            x = tensor.to(torch.float16, memory_format=torch.channels_last)
        answer: np.ndarray = net(x).float().cpu().numpy()
        return answer

    return call


def of_batch(
    model: str, here: Classifier, there: Classifier, of_bytes: Classifier, precision: str, n: int
) -> dict[str, Any]:
    """here: float32 on the CPU, for the right answers; there, of_bytes: on the GPU."""
    photos, card = photographs(n), there.card
    pinned = torch.from_numpy(photos).pin_memory()
    fitted = np.stack([here.fit(photo) for photo in photos])
    tensor = here.tensor(fitted)
    on_gpu = torch.from_numpy(tensor).cuda()
    right = here.logits(tensor[:32])

    def run(x: np.ndarray) -> np.ndarray:
        answer: np.ndarray = there._session.run([card.output.name], {card.input.name: x})[0]
        return answer

    calls: dict[str, Call] = {
        "run": lambda: run(tensor),
        "bytes": lambda: of_bytes.logits(fitted),
        "on the GPU": lambda: there.logits(on_gpu),
        "photographs, run": lambda: run(there.tensor(np.stack([there.fit(photo) for photo in photos]))),
        "photographs": lambda: there.logits(fit(pinned.cuda(non_blocking=True), card.preprocessing)),
    }
    if (torchs := torch_call(model, precision, on_gpu)) is not None:
        calls["torch"] = torchs
    for name, call in calls.items():
        insist_close(name, call()[:32], right, AWAY[precision])
    times = in_turns(calls)
    entry: dict[str, Any] = {"model": model, "precision": precision, "pictures": n}
    pairs = {"on the GPU": ("run", "on the GPU"), "torch": ("torch", "on the GPU")}
    pairs["bytes"] = "run", "bytes"
    pairs["photographs"] = "photographs, run", "photographs"
    for name, taken in times.items():
        entry[name] = {"per_second": n / statistics.median(taken), "us": 1e6 * statistics.median(taken)}
        if name in pairs:  # how many times as long the first takes
            slow, fast = (times[side] for side in pairs[name])
            ratios = sorted(s / f for s, f in zip(slow, fast, strict=True))
            entry[name] |= {"ratio": statistics.median(ratios), "ratio_least": ratios[0], "ratio_most": ratios[-1]}
    return entry


def variants(here: Classifier, file: Path, folder: Path) -> Iterator[tuple[str, Path, Path]]:
    """In each precision the file, and the one that takes bytes."""
    for precision, change in (("float32", lambda proto: proto), ("float16", half)):
        proto = change(onnx.load(file))
        paths = folder / f"{file.stem}-{precision}.onnx", folder / f"{file.stem}-{precision}-uint8.onnx"
        bytes_in = replace(here.card.input, dtype="uint8", layout="NHWC")
        for path, card in zip(paths, (here.card, replace(here.card, input=bytes_in)), strict=True):
            if card.input.dtype == "uint8":
                take_pixels(proto, card.preprocessing, fold=False)
            onnx.helper.set_model_props(proto, {KEY: card.to_json_text()})
            onnx.save(proto, path)
        yield precision, *paths


def of_options(model: str, file: Path, precision: str, here: Classifier) -> Iterator[dict[str, Any]]:
    """Each option's first call of each batch, which looks for cuDNN's fastest way, and those after it."""
    tensors = {n: torch.randn(n, 3, 224, 224, generator=torch.Generator().manual_seed(n)) for n in BATCHES}
    right = here.logits(tensors[BATCHES[0]].numpy())
    for name, options in OPTIONS.items():
        entry: dict[str, Any] = {"model": model, "precision": precision, "options": name}
        try:
            there = Classifier(file, "cuda", trusted=True, options=options)
            for n, tensor in tensors.items():
                on_gpu = tensor.cuda()
                torch.cuda.synchronize()
                begin = time.perf_counter()
                there.logits(on_gpu)
                first = time.perf_counter() - begin
                (times,) = in_turns({name: partial(there.logits, on_gpu)}, turns=2).values()
                entry[str(n)] = {"first_s": first, "per_second": n / statistics.median(times)}
            differs = np.abs(there.logits(tensors[BATCHES[0]].cuda()) - right).max() / np.abs(right).max()
            entry["differs"] = float(differs)  # from float32 on the CPU, of the largest logit
        except Exception as error:  # one that this build doesn't know: the others still tell
            entry["failed"] = str(error)
        yield entry


def said(entry: dict[str, Any]) -> str:
    sides = [key for key, value in entry.items() if isinstance(value, dict)]
    rates = "; ".join(
        f"{side} {entry[side]['per_second']:,.0f}/s"
        + (f" ({entry[side]['ratio']:.2f} ×)" if "ratio" in entry[side] else "")
        for side in sides
    )
    return f"{entry['model']} {entry['precision']} × {entry['pictures']}: {rates}"


def said_of_options(entry: dict[str, Any]) -> str:
    what = f"{entry['model']} {entry['precision']}, {entry['options']}: "
    if "failed" in entry:
        return what + entry["failed"]
    rates = (f"{n}: {entry[str(n)]['per_second']:,.0f}/s, first {entry[str(n)]['first_s']:.2f} s" for n in BATCHES)
    return what + "; ".join(rates) + f"; differs by {entry['differs']:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--models", default=MODELS, help=f"names of files in HW4FAST_DATA/models (default: {MODELS})")
    arguments = parser.parse_args()
    folder = (data_folder() or Path("HW4FAST_DATA")) / "models"
    files = {name: folder / f"{name}.onnx" for name in arguments.models.split(",")}
    reason = explain_provider("cuda") or next((f"{f} isn't there" for f in files.values() if not f.is_file()), None)
    if reason:
        print(f"onnxruntime on a GPU is left out: {reason}")
        return
    found: dict[str, list[dict[str, Any]]] = {"inference": [], "options": []}

    def keep() -> None:  # what was measured before a crash
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")

    torch.backends.cudnn.allow_tf32 = False  # as ours
    with tempfile.TemporaryDirectory() as scratch:
        for name, file in files.items():
            here = Classifier(file)
            for precision, path, of_bytes in variants(here, file, Path(scratch)):
                there, takes_bytes = (Classifier(each, "cuda", trusted=True) for each in (path, of_bytes))
                for n in BATCHES:
                    found["inference"].append(of_batch(name, here, there, takes_bytes, precision, n))
                    print(said(found["inference"][-1]), flush=True)
                    keep()
                for entry in of_options(name, path, precision, here):
                    found["options"].append(entry)
                    print(said_of_options(entry), flush=True)
                    keep()


if __name__ == "__main__":
    main()
