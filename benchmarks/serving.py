#!/usr/bin/env python
"""What serving costs beyond the net: our Classifier over onnxruntime's bare session, whole processes, beside torch.

    python benchmarks/serving.py
    python benchmarks/serving.py overhead processes --record

Needs HW4FAST_DATA with models/ and photos/. overhead: Classifier.logits on the tensor that the graph takes, and on the
pictures, in turns with `InferenceSession.run`. processes: `hw4fast classify corn.jpg` in turns with the shortest script
of torch and torchvision, which must give the same answers; resnet50's first start and its next ones. torch: a net in
torch and another in onnxruntime, one after the other in one process, as onnxruntime comes and as we open it. fused:
seed_cnn with random weights at batch 100, by our kernels and by onnxruntime's own. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from hw4fast import load, record, timing
from hw4fast.data.images import read_picture
from hw4fast.files import data_folder

RESULTS = Path(__file__).parent / "results"
DATA = data_folder() or Path()
CORN = DATA / "photos" / "imagenet-sample" / "n12144580_corn.JPEG"
NET = "shufflenet_v2_x1_0"
TORCH_SCRIPT = """
import sys, torch, torchvision
from PIL import Image
net = torchvision.models.shufflenet_v2_x1_0()
net.load_state_dict(torch.load(sys.argv[1]))
weights = torchvision.models.get_model_weights("shufflenet_v2_x1_0").DEFAULT
resize = torchvision.transforms._presets.ImageClassification(crop_size=224)
with torch.inference_mode():
    p = net.eval()(resize(Image.open(sys.argv[2]).convert("RGB"))[None]).softmax(1)[0]
for share, label in zip(*p.topk(5)):
    print(f"{100 * share:.1f}", weights.meta["categories"][label])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each comparison; default: %(default)s")
    parser.add_argument("--record", action="store_true", help="append to the records that the README quotes")
    arguments = parser.parse_args()
    onnxruntime.set_default_logger_severity(4)
    with tempfile.TemporaryDirectory() as scratch:
        found = {part: PARTS[part](arguments.seconds, Path(scratch)) for part in arguments.parts}
    if arguments.record:
        record.append(RESULTS / "serving.jsonl", "serving", found)


def overhead(seconds: float, _: Path) -> list[dict[str, Any]]:
    rows = []
    for batch in (1, 32):
        classifier = load(NET)
        session, card = classifier._session, classifier.card
        files = sorted((DATA / "photos" / "nips2017").glob("*.*g"))[:batch]
        pictures = np.stack([classifier.fit(read_picture(file)) for file in files])
        tensor = classifier.tensor(pictures)
        calls: dict[str, Callable[[], Any]] = {
            "InferenceSession.run": lambda: session.run([card.output.name], {card.input.name: tensor}),  # noqa: B023
            "Classifier.logits of tensors": partial(classifier.logits, tensor),
            "Classifier.logits of pictures": partial(classifier.logits, pictures),
        }
        times = timing.alternate(calls, seconds, at_least=21, at_most=100_000)
        for name in list(calls)[1:]:
            ratio = timing.ratio(times[name], times["InferenceSession.run"])
            rows.append({"what": name, "batch": batch, "times_as_long": asdict(ratio)})
            print(f"{name}, batch {batch}: {ratio} as long as InferenceSession.run")
    return rows


def processes(_: float, scratch: Path) -> dict[str, Any]:
    script = scratch / "script.py"
    script.write_text(TORCH_SCRIPT, encoding="utf-8")
    program = str(Path(sys.executable).with_name("hw4fast"))
    commands = {
        "hw4fast classify": [program, "classify", str(CORN)],
        "torch and torchvision": [sys.executable, str(script), str(DATA / "models" / f"{NET}.pth"), str(CORN)],
    }
    answers = {name: _printed(command) for name, command in commands.items()}
    same = [line.replace(" %  ", " ") for line in answers["hw4fast classify"][2:]] == answers["torch and torchvision"]
    assert same, answers
    times = timing.alternate(
        {name: partial(subprocess.run, command, check=True, capture_output=True) for name, command in commands.items()},
        seconds=0, warmup=1, at_least=15,
    )  # fmt: skip
    ratio = timing.ratio(times["torch and torchvision"], times["hw4fast classify"])
    found: dict[str, Any] = {name: _spread(took) for name, took in times.items()} | {"ratio": asdict(ratio)}
    print(found, f"{ratio} faster", sep="\n")
    found["resnet50"] = _starts(scratch)
    print(found["resnet50"])
    return found


def _printed(command: list[str]) -> list[str]:
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.strip() for line in text.splitlines()]


def _starts(scratch: Path) -> dict[str, Any]:
    """Of `classify --model resnet50.onnx` with an empty cache, then with what the first start left there."""
    from parity import random_weights

    from hw4fast import export

    weights = random_weights("resnet50", scratch / "resnet50.pth")
    file = export("resnet50", scratch / "resnet50.onnx", weights=weights, preprocess="imagenet").path
    program = str(Path(sys.executable).with_name("hw4fast"))
    took: dict[str, list[float]] = {"first start": [], "second start": []}
    for turn in range(7):
        environment = {**os.environ, "HW4FAST_CACHE": str(scratch / f"cache-{turn}")}
        for seconds in took.values():
            begun = time.perf_counter()
            command = [program, "classify", str(CORN), "--model", str(file)]
            subprocess.run(command, check=True, capture_output=True, env=environment)
            seconds.append(time.perf_counter() - begun)
    return {name: _spread(np.array(seconds)) for name, seconds in took.items()}


def _spread(took: np.ndarray) -> dict[str, float]:
    low, median, high = np.percentile(took, (25, 50, 75))
    return {"median_s": median, "low_s": low, "high_s": high, "n": len(took)}


def beside_torch(seconds: float, _: Path) -> dict[str, Any]:
    import torch

    from hw4fast.training.models.pretrained import pretrained

    net = pretrained("squeezenet1_1")[0].to(memory_format=torch.channels_last)
    x = np.random.Generator(np.random.PCG64(0)).standard_normal((1, 3, 224, 224)).astype(np.float32)
    picture = torch.from_numpy(x).to(memory_format=torch.channels_last)

    def torchs() -> Any:
        with torch.inference_mode():
            return net(picture)

    file = DATA / "models" / "squeezenet1_1.onnx"
    bare = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    calls = {
        "InferenceSession as it comes": partial(bare.run, None, {"input": x}),
        "Classifier": partial(load(file).logits, x),
    }
    found: dict[str, Any] = {"torch alone": _alone(torchs, seconds / 4)}
    for name, call in calls.items():
        found[f"{name}, alone"] = _alone(call, seconds / 4)
        by_turns: tuple[list[float], list[float]] = [], []
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            for took, one in zip(by_turns, (call, torchs), strict=True):
                start = time.perf_counter()
                one()
                took.append(time.perf_counter() - start)
        for who, took in zip((name, f"torch beside {name}"), by_turns, strict=True):
            found[f"{who}, by turns"] = _spread(np.array(took))
    for name, row in found.items():
        print(f"{name}: {row['median_s'] * 1e3:.2f} ms ({row['low_s'] * 1e3:.2f} … {row['high_s'] * 1e3:.2f})")
    return found


def _alone(call: Callable[[], Any], seconds: float) -> dict[str, float]:
    time.sleep(0.2)
    return _spread(timing.alternate({"it": call}, seconds, at_most=100_000)["it"])


def fused(seconds: float, scratch: Path) -> dict[str, Any]:
    """AssertionError unless the answers agree."""
    import onnx
    import torch

    from hw4fast.exporter.fuse import fuse
    from hw4fast.kernels import ort_calls, ort_library
    from hw4fast.training.models.seed_cnn import seed_cnn

    torch.manual_seed(0)
    net, example = seed_cnn((1, 28, 28), 10, kernels="torch").eval(), torch.zeros(2, 1, 28, 28)
    shapes = ({0: torch.export.Dim("n", min=1)},)
    program = torch.onnx.export(net, (example,), dynamo=True, input_names=["x"], dynamic_shapes=shapes, verbose=False)
    plain = program.model_proto
    changed = onnx.ModelProto()
    changed.CopyFrom(plain)
    assert fuse(changed) == 2
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(ort_library()))
    sessions = {
        "onnxruntime": onnxruntime.InferenceSession(plain.SerializeToString(), providers=["CPUExecutionProvider"]),
        "hw4fast": onnxruntime.InferenceSession(
            changed.SerializeToString(), options, providers=["CPUExecutionProvider"]
        ),
    }
    rows = {}
    for batch in (1, 100):
        x = np.random.Generator(np.random.PCG64(0)).standard_normal((batch, 1, 28, 28)).astype(np.float32)
        calls = {name: partial(session.run, None, {"x": x}) for name, session in sessions.items()}
        answers = [call()[0] for call in calls.values()]
        assert np.abs(answers[0] - answers[1]).max() <= 1e-5 * np.abs(answers[0]).max()
        times = timing.alternate(calls, seconds, at_least=21, burst=5, pause=timing.POOLS_REST_S)
        per_round = {name: took.reshape(-1, 5).mean(1) for name, took in times.items()}
        ratio = timing.ratio(per_round["onnxruntime"], per_round["hw4fast"])
        rows[str(batch)] = {name: _spread(took) for name, took in times.items()} | {"ratio": asdict(ratio)}
        print(f"seed_cnn, batch {batch}: {np.median(times['hw4fast']) * 1e3:.3f} ms, {ratio} onnxruntime's own speed")
    assert sum(ort_calls().values()) > 0
    return rows


PARTS: dict[str, Callable[[float, Path], Any]] = {
    "overhead": overhead,
    "processes": processes,
    "fused": fused,
    "torch": beside_torch,
}

if __name__ == "__main__":
    main()
