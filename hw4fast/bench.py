"""`bench`: one model on every engine that runs here, taking turns, after their answers were compared."""

from __future__ import annotations

import logging
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast import record, timing
from hw4fast.errors import UsageError, UserError
from hw4fast.files import RUN_MODEL
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.session import PROVIDERS, explain_provider, open_session
from hw4fast.kernels import check_threads

Engine = Callable[[np.ndarray], np.ndarray]  # float32 [n, c, h, w] → logits [n, classes]
BURST, PAUSE_S = 5, 0.02  # per turn, see timing.alternate
AGREEMENT = 1e-3  # largest difference of two engines' logits, in units of the largest logit


@dataclass(frozen=True)
class Timing:
    """One engine at one batch size: latencies of whole batches in milliseconds, throughput in images/s
    (batch / mean latency); calls: how many were timed."""

    engine: str
    batch: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_s: float
    calls: int


@dataclass(frozen=True)
class Result:
    """timings: what ran; left_out: {engine: why it did not}; path: the record that was appended to."""

    model: str
    threads: int
    timings: tuple[Timing, ...]
    left_out: dict[str, str]
    path: Path


def bench(
    model: str | Path,
    batches: Sequence[int] = (1, 32),
    seconds: float = 3.0,
    threads: int | None = None,
    out: str | Path | None = None,
) -> Result:
    """Latency and throughput of a run folder or an .onnx file with a card, on every engine that runs here.

    Engines: onnxruntime on each provider that loads; for a run folder torch eager and torch.compile as well. All
    get the same float32 batch of noise, `threads` threads (default: all cores), and must give the same answers
    before any is timed. `seconds`: about how long each batch size is measured. The record is appended to `out`,
    by default bench.jsonl in the run folder or beside the file.
    Raises UserError when engines disagree or the model can't be had, UsageError for a bad batch size.
    """
    if not batches or min(batches) < 1:
        raise UsageError(f"batch sizes must be positive, not {list(batches)}")
    if not 0 < seconds < math.inf:
        raise UsageError(f"seconds must be positive, not {seconds}")
    if threads is not None:
        check_threads(threads)
    path = Path(model)
    target = Path(out) if out else (path if path.is_dir() else path.parent) / "bench.jsonl"
    if not os.access(target if target.exists() else target.parent, os.W_OK):  # told before minutes are spent
        raise UserError(f"the record can't be written to '{target}'; name another file with --out")
    count = threads or record.cores()
    with tempfile.TemporaryDirectory() as scratch:
        file = _onnx_file(path, Path(scratch))
        card = Classifier(file).card
        engines, left_out = _onnx_engines(file, count)
        torch_engines, torch_left_out = _torch_engines(path, count)
        engines, left_out = torch_engines | engines, torch_left_out | left_out
        shape = (card.preprocessing.channels, *card.preprocessing.crop)
        with _threads_kept():
            timings = [timing for batch in batches for timing in _measure(engines, left_out, shape, batch, seconds)]
    results = {"model": str(model), "threads": count, "timings": [asdict(t) for t in timings], "left_out": left_out}
    record.append(target, "bench", results)
    return Result(str(model), count, tuple(timings), left_out, target)


def _onnx_file(path: Path, scratch: Path) -> Path:
    """The .onnx file of the model; a run that was not exported yet is exported to `scratch`."""
    if not path.is_dir():
        return path
    if (path / RUN_MODEL).is_file():
        return path / RUN_MODEL
    from hw4fast.exporter import export

    return export(path, scratch / RUN_MODEL).path


def _onnx_engines(file: Path, threads: int) -> tuple[dict[str, Engine], dict[str, str]]:
    engines: dict[str, Engine] = {}
    left_out = {}
    for provider in PROVIDERS:
        reason = explain_provider(provider)
        if reason:
            left_out[f"onnxruntime {provider}"] = reason
            continue
        session = open_session(file, provider, threads)
        engines[f"onnxruntime {provider}"] = _onnx_engine(session)
    return engines, left_out


def _onnx_engine(session: Any) -> Engine:
    return lambda x: session.run(["logits"], {"input": x})[0]


def _torch_engines(path: Path, threads: int) -> tuple[dict[str, Engine], dict[str, str]]:
    if not path.is_dir():
        return {}, {"torch": "an .onnx file holds no torch model; bench the run folder to compare with torch"}
    import torch

    from hw4fast.training import runs

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it tells at length of a missing GPU
    model = runs.load_model(path, runs.load_data(runs.load_record(path)))

    def engine(call: Callable[[Any], Any]) -> Engine:
        def run(x: np.ndarray) -> np.ndarray:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            with torch.inference_mode():
                return call(torch.from_numpy(x)).numpy()

        return run

    return {"torch eager": engine(model), "torch.compile": engine(torch.compile(model))}, {}


@contextmanager
def _threads_kept() -> Iterator[None]:
    """torch's number of threads, where torch was loaded, is afterwards what it was."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(before)


def _measure(
    engines: dict[str, Engine], left_out: dict[str, str], shape: tuple[int, ...], batch: int, seconds: float
) -> list[Timing]:
    """Compares the engines' answers on one batch, then times them; one that can't run is moved to `left_out`."""
    x = np.random.Generator(np.random.PCG64(batch)).standard_normal((batch, *shape)).astype(np.float32)
    answers = {}
    for name in list(engines):
        try:
            answers[name] = engines[name](x)
        except Exception as error:  # whatever an engine raises (no C++ compiler for torch.compile, say)
            left_out[name] = (str(error).strip().splitlines() or [repr(error)])[0]
            del engines[name]
    if not answers:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UserError(f"no engine can run the model: {reasons}")
    first, *others = answers.items()
    for name, logits in others:
        worst = float(np.abs(logits - first[1]).max() / np.abs(first[1]).max())
        if not worst <= AGREEMENT:
            raise UserError(f"{name} and {first[0]} disagree by {worst:.2g} of the largest logit; nothing was timed")
    calls = {name: partial(run, x) for name, run in engines.items()}
    timings = []
    for name, took in timing.alternate(calls, seconds=seconds, at_least=6, burst=BURST, pause=PAUSE_S).items():
        p50, p90, p99 = np.percentile(took * 1e3, (50, 90, 99))
        timings.append(Timing(name, batch, p50, p90, p99, batch / took.mean(), len(took)))
    return timings
