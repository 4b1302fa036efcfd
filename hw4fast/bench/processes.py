"""Whole processes: how long it takes from their start to a first answer, and the most memory that they take."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hw4fast.bench.engines import TORCH, Engines, first_line

ROUNDS = 5


@dataclass(frozen=True)
class Process:
    """cold_start_s: median from the process's start to the first answer at batch 1, files in the page cache, of
    `rounds` that take turns; low_s, high_s: the fastest and the slowest; memory_mb: resident at most (10⁶ bytes), after
    a batch of `batch`, too."""

    engine: str
    cold_start_s: float
    low_s: float
    high_s: float
    rounds: int
    memory_mb: float
    batch: int


def whole_processes(found: Engines, batch: int, threads: int, rounds: int | None = None) -> list[Process]:
    """Of torch eager and of each of onnxruntime's engines; what fails is left out of `found` as well."""
    preprocessing = found.card.preprocessing
    shape = ",".join(map(str, (preprocessing.channels, *preprocessing.crop)))
    commands = {name: [name, str(file), str(threads), str(batch), shape] for name, file in found.files.items()}
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range((rounds or ROUNDS) + 1):
        for name, words in list(commands.items()):
            try:
                result = _run(words)
            except RuntimeError as error:
                found.left_out[f"{name}, whole process"] = first_line(error)
                del commands[name], took[name]
                continue
            if turn:  # the first fills the page cache and our cache of optimised graphs
                took[name].append(result)
    return [_summary(name, runs, batch) for name, runs in took.items()]


def _summary(name: str, runs: Sequence[tuple[float, float]], batch: int) -> Process:
    starts = [seconds for seconds, _ in runs]
    memory = max(megabytes for _, megabytes in runs)
    return Process(name, statistics.median(starts), min(starts), max(starts), len(starts), memory, batch)


def _run(words: Sequence[str]) -> tuple[float, float]:
    """Seconds to the first answer, and megabytes. RuntimeError when the process fails."""
    command = [sys.executable, "-P", "-m", "hw4fast.bench.processes", *words]
    with tempfile.TemporaryFile("w+") as said:
        begun = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as process:
            assert process.stdout is not None
            ready = process.stdout.readline()
            seconds = time.perf_counter() - begun
            rest = process.stdout.read()
        if ready.strip() != "ready" or process.returncode:
            said.seek(0)
            raise RuntimeError((said.read().strip().splitlines() or ["it did not say why"])[-1])
    return seconds, json.loads(rest)


def main(words: Sequence[str]) -> None:
    """The process that is measured: engine, file, threads, batch, shape of a picture."""
    engine, file, threads, batch, shape = words
    answer = (_torch if engine.startswith(TORCH) else _onnx)(engine, file, int(threads), shape)
    answer(1)
    print("ready", flush=True)
    answer(int(batch))
    print(json.dumps(peak_memory() / 1e6))


def _onnx(engine: str, file: str, threads: int, shape: str) -> Callable[[int], object]:
    import numpy as np

    from hw4fast.inference.classifier import Classifier

    classifier = Classifier(file, engine.split()[1], threads)
    channels, *sides = map(int, shape.split(","))
    return lambda n: classifier.logits(np.zeros((n, *sides, channels), np.uint8))


def _torch(_engine: str, file: str, threads: int, shape: str) -> Callable[[int], object]:
    import torch

    torch.set_num_threads(threads)
    net = torch.load(file, weights_only=False)  # which our own process wrote a moment ago

    def answer(n: int) -> torch.Tensor:
        with torch.inference_mode():
            return net(torch.zeros(n, *map(int, shape.split(","))))

    return answer


def peak_memory() -> int:
    """The most bytes of memory that this process has had resident so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage counts what the process that began it had at that moment
        (line,) = (line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    main(sys.argv[1:])
