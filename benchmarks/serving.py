#!/usr/bin/env python
"""What serving costs beyond the net: our Classifier over onnxruntime's sessions, whole processes, beside torch.

    python benchmarks/serving.py
    python benchmarks/serving.py overhead processes --record

Needs HW4FAST_DATA with models/ and photos/. overhead: Classifier.logits on the tensor that the graph takes, and on the
pictures, in turns with its own session's `run`, and in bursts with that of a session that onnxruntime opens by itself.
processes: `hw4fast classify corn.jpg` in turns with the shortest script of torch and torchvision, which must give the
same answers; resnet50's first start and its next ones. fused: seed_cnn with random weights at batch 100, by our kernels
and by onnxruntime's own. torch: a net in torch and another in onnxruntime, as that comes and as we open it, alone and
call by call in turns, in short blocks that change their order. Parts run in that order: the first without torch in
memory. Nothing else should run meanwhile. The README needs a record of all parts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from hw4fast import load, record, timing
from hw4fast.data.images import read_picture
from hw4fast.files import data_folder
from hw4fast.inference.classifier import Classifier

RESULTS = Path(__file__).parent / "results"
DATA = data_folder() or Path()
CORN = DATA / "photos" / "imagenet-sample" / "n12144580_corn.JPEG"
NET = "shufflenet_v2_x1_0"
NETS = ("squeezenet1_1", NET)  # the second's weights are stored in int8, which our session unpacks once
BATCHES = {1: 5, 32: 2}  # {pictures: calls in a burst}
CALLS = 20  # in a block
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
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    onnxruntime.set_default_logger_severity(4)
    with tempfile.TemporaryDirectory() as scratch:
        found = {part: PARTS[part](arguments.seconds, Path(scratch)) for part in PARTS if part in arguments.parts}
    if arguments.record:
        record.append(RESULTS / "serving.jsonl", "serving", found)


def overhead(seconds: float, _: Path) -> list[dict[str, Any]]:
    assert "torch" not in sys.modules, "beside torch a Classifier opens its session in another way"
    rows = []
    for net in NETS:
        classifier = load(net)
        own = onnxruntime.InferenceSession(str(classifier.path), providers=["CPUExecutionProvider"])
        for batch, burst in BATCHES.items():
            files = sorted((DATA / "photos" / "nips2017").glob("*.*g"))[:batch]
            pictures = np.stack([classifier.fit(read_picture(file)) for file in files])
            rows += [{"net": net, **row} for row in over_sessions(classifier, own, pictures, seconds, burst)]
            for row in rows[-4:]:
                print(f"{net}, batch {batch}, {row['what']}: {_told(row['times_as_long'])} as long as {row['over']}")
    return rows


SAME, OWN = "the same session", "onnxruntime's own session"


def over_sessions(
    classifier: Classifier, own: Any, pictures: np.ndarray, seconds: float, burst: int
) -> list[dict[str, Any]]:
    """How many times as long Classifier.logits takes as `run` of its own session, call by call, and of `own`, a session
    of the same file and number of threads, in bursts: each waits until the other's threads rest. AssertionError unless
    all give the same answers."""
    card, tensor = classifier.card, classifier.tensor(pictures)
    threads = [session.get_session_options().intra_op_num_threads for session in (own, classifier._session)]
    assert threads[0] == threads[1], threads
    runs: dict[str, Callable[[], Any]] = {
        over: partial(session.run, [card.output.name], {card.input.name: tensor})
        for over, session in ((SAME, classifier._session), (OWN, own))
    }
    ours = {"tensors": partial(classifier.logits, tensor), "pictures": partial(classifier.logits, pictures)}
    answers = [run()[0] for run in runs.values()] + [call() for call in ours.values()]
    for answer in answers[1:]:
        assert np.abs(answer - answers[0]).max() <= 1e-4 * np.abs(answers[0]).max()
    patience = {SAME: {"at_most": 100_000}, OWN: {"burst": burst, "pause": timing.POOLS_REST_S}}
    rows = []
    for over, run in runs.items():
        times = timing.alternate({over: run, **ours}, seconds, at_least=21, **patience[over])
        per_round = {name: took.reshape(-1, burst if over == OWN else 1).mean(1) for name, took in times.items()}
        for name in ours:
            ratio = timing.ratio(per_round[name], per_round[over])
            rows.append({"what": name, "over": over, "batch": len(pictures), "times_as_long": asdict(ratio)})
    return rows


def _told(ratio: dict[str, Any]) -> timing.Ratio:
    return timing.Ratio(**ratio)


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
    others: dict[str, Callable[[], Any]] = {
        BARE: lambda: bare.run(None, {"input": x})[0],
        SPINNING: partial(Classifier(file, spin=True).logits, x),
        OURS: partial(load(file).logits, x),
    }
    for name, call in others.items():
        assert np.abs(call() - torchs().numpy()).max() <= 1e-4 * np.abs(call()).max(), name
    found = in_blocks(torchs, others, seconds)
    for name, row in found["times"].items():
        print(f"{name}: {row['median_s'] * 1e3:.2f} ms ({row['low_s'] * 1e3:.2f} … {row['high_s'] * 1e3:.2f})")
    for name, row in found["ratios"].items():
        print(f"{name}: {_told(row)} as long")
    return found


BARE, SPINNING, OURS = "InferenceSession as it comes", "Classifier that spins", "Classifier"


def in_blocks(
    torchs: Callable[[], Any],
    others: dict[str, Callable[[], Any]],
    seconds: float,
    calls: int = CALLS,
    at_least: int = 21,
) -> dict[str, Any]:
    """Each alone, and each of the `others` in turns with torch, call by call, in blocks of `calls` with a rest before
    each. A round is one block of each kind; they come in another order in each. times: spreads of the blocks' means;
    ratios: beside over alone, and of the others over those before them, of the same round."""
    blocks: dict[tuple[str, ...], tuple[Callable[[], Any], ...]] = {("torch",): (torchs,)}
    for name, call in others.items():
        blocks |= {(name,): (call,), (name, "torch"): (call, torchs)}
    means: dict[str, list[float]] = {}
    kinds, begun, turn = list(blocks), time.perf_counter(), 0
    while turn < at_least or time.perf_counter() - begun < seconds:
        for kind in kinds if turn % 2 else reversed(kinds):  # who comes after whom changes, too
            for who, mean in zip(kind, _block(blocks[kind], calls), strict=True):
                beside = [other for other in kind if other != who]
                means.setdefault(f"{who} beside {beside[0]}" if beside else f"{who} alone", []).append(mean)
        kinds, turn = kinds[1:] + kinds[:1], turn + 1
    took = {name: np.array(mean) for name, mean in means.items()}
    pairs = [(f"{name} beside torch", f"{name} alone") for name in others]
    pairs += [(f"torch beside {name}", "torch alone") for name in others]
    for one, other in combinations(others, 2):
        pairs += [(f"{other} {how}", f"{one} {how}") for how in ("alone", "beside torch")]
    ratios = {f"{one} over {other}": asdict(timing.ratio(took[one], took[other])) for one, other in pairs}
    return {"calls": calls, "times": {name: _spread(mean) for name, mean in took.items()}, "ratios": ratios}


def _block(turns: Sequence[Callable[[], Any]], calls: int) -> list[float]:
    """Mean seconds per call of each that takes turns; the first calls, which wake the threads, don't count."""
    time.sleep(timing.POOLS_REST_S)
    took: list[list[float]] = [[] for _ in turns]
    for _ in range(calls + 1):
        for seconds, call in zip(took, turns, strict=True):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return [float(np.mean(seconds[1:])) for seconds in took]


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
    assert fuse(changed) == 1  # a picture of one channel is onnxruntime's
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
