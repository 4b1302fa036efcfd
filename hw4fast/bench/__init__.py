"""`bench`: one model on every engine that runs here, taking turns, after their answers were compared."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast import record, timing
from hw4fast.bench.against import Comparison, compare_records, latest
from hw4fast.bench.drawing import draw
from hw4fast.bench.engines import AGREEMENT, Engines, engines_of, first_line, threads_kept
from hw4fast.bench.pictures import FromFiles, from_files, some_files
from hw4fast.bench.processes import Process, whole_processes
from hw4fast.errors import UsageError, UserError
from hw4fast.kernels import check_threads

BURST = 5  # calls per turn, see timing.alternate
RECORDS = ".jsonl"


@dataclass(frozen=True)
class Timing:
    """One engine at one batch size: latencies of whole batches in milliseconds, throughput in images/s
    (batch / mean latency); calls: how many were timed; difference: of its logits from the first engine's, at most, in
    units of the largest."""

    engine: str
    batch: int
    p10_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_s: float
    calls: int
    difference: float


@dataclass(frozen=True)
class Result:
    """timings: what ran, from tensors; processes: whole ones; files: from picture files; comparisons: with the other
    model or record; left_out: {engine: why it did not}; path: the record that was appended to; picture: the PNG."""

    model: str
    threads: int
    timings: tuple[Timing, ...]
    processes: tuple[Process, ...]
    files: tuple[FromFiles, ...]
    comparisons: tuple[Comparison, ...]
    left_out: dict[str, str]
    path: Path
    picture: Path


def bench(
    model: str | Path,
    batches: Sequence[int] = (1, 32),
    seconds: float = 3.0,
    threads: int | None = None,
    out: str | Path | None = None,
    against: str | Path | None = None,
    pictures: str | Path | None = None,
    whole: bool = True,
) -> Result:
    """Latency and throughput of a model on every engine that runs here: from tensors at each batch size, from picture
    files on all cores, and of whole processes with their memory.

    model: a run folder, an .onnx file with a card, or an architecture's name. Engines: onnxruntime on each provider
    that loads; on the CPU with convolution blocks fused, in float16 and int8, too; for a run and an architecture torch
    eager, the same channels-last, and torch.compile. All get the same pictures, `threads` threads (default: all
    cores), and must give the same answers before any is timed. `seconds`: about how long each batch size is measured.
    pictures: a folder of files; by default a run's test pictures, else photographs. whole: also from files, and
    processes. against: another model, which takes turns with this one on each engine of both; or a file of records,
    whose newest is compared. The record is appended to `out`, by default bench.jsonl in the run folder or beside the
    file, and a picture of the throughputs drawn beside it.
    Raises UserError when engines disagree or a model can't be had, UsageError for a bad batch size.
    """
    _check(batches, seconds, threads)
    target = _target(Path(model), out)
    other = latest(Path(against)) if against is not None and Path(against).suffix == RECORDS else None
    count = threads or record.cores()
    with tempfile.TemporaryDirectory() as scratch, threads_kept():
        folder = None if pictures is None else Path(pictures)
        found = engines_of(model, folder, _new(Path(scratch) / "mine"), count)
        rival = None
        if against is not None and other is None:
            rival = engines_of(against, folder, _new(Path(scratch) / "theirs"), count)
        timings: list[Timing] = []
        comparisons: list[Comparison] = []
        for batch in batches:
            rows, compared = _measure(found, rival, batch, seconds)
            timings, comparisons = timings + rows, comparisons + compared
        processes: list[Process] = []
        files: list[FromFiles] = []
        if whole:
            files = from_files(found, folder or some_files(model, Path(scratch) / "pictures"), count)
            processes = whole_processes(found, max(batches), count)
    results: dict[str, Any] = {"model": str(model), "threads": count, "left_out": found.left_out}
    parts: dict[str, list[Any]] = {"timings": timings, "processes": processes, "files": files}
    results |= {name: [asdict(row) for row in rows] for name, rows in parts.items()}
    if other is not None:
        comparisons = compare_records({"results": results}, other)
    results |= {"against": against and str(against), "comparisons": [asdict(row) for row in comparisons]}
    entry = record.append(target, "bench", results)
    picture = target.with_suffix(".png")
    draw(timings, _caption(entry), picture)
    rest = (tuple(processes), tuple(files), tuple(comparisons), found.left_out, target, picture)
    return Result(str(model), count, tuple(timings), *rest)


def _check(batches: Sequence[int], seconds: float, threads: int | None) -> None:
    if not batches or min(batches) < 1:
        raise UsageError(f"batch sizes must be positive, not {list(batches)}")
    if not 0 < seconds < math.inf:
        raise UsageError(f"seconds must be positive, not {seconds}")
    if threads is not None:
        check_threads(threads)


def _target(model: Path, out: str | Path | None) -> Path:
    """The file of records: in the run folder, beside the file, or here for a name."""
    target = Path(out) if out else (model if model.is_dir() else model.parent) / f"bench{RECORDS}"
    if not os.access(target if target.exists() else target.parent, os.W_OK):  # told before minutes are spent
        raise UserError(f"the record can't be written to '{target}'; name another file with --out")
    return target


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _measure(
    found: Engines, rival: Engines | None, batch: int, seconds: float
) -> tuple[list[Timing], list[Comparison]]:
    """Compares the engines' answers on one batch, then times them; one that can't run is moved to `left_out`."""
    calls, differences = _agreeing(found, batch)
    rivals = _agreeing(rival, batch)[0] if rival else {}
    turns = calls | {f"against {name}": call for name, call in rivals.items() if name in calls}
    times = timing.alternate(turns, seconds=seconds, at_least=6, burst=BURST, pause=timing.POOLS_REST_S)
    rows, compared = [], []
    for name in calls:
        took = times[name]
        p10, p50, p90, p99 = np.percentile(took * 1e3, (10, 50, 90, 99))
        rows.append(Timing(name, batch, p10, p50, p90, p99, batch / took.mean(), len(took), differences[name]))
        theirs = times.get(f"against {name}")
        if theirs is not None:  # a burst's calls are no independent ones: their mean counts once
            ratio = timing.ratio(theirs.reshape(-1, BURST).mean(1), took.reshape(-1, BURST).mean(1))
            compared.append(Comparison(name, batch, ratio.median, ratio.low, ratio.high, ratio.n))
    return rows, compared


def _agreeing(found: Engines, batch: int) -> tuple[dict[str, Any], dict[str, float]]:
    """{engine: its call on one batch of pictures}, {engine: how far it is from the first}."""
    pictures = found.pictures[np.arange(batch) % len(found.pictures)]
    calls, answers = {}, {}
    for name, engine in list(found.ready.items()):
        try:
            calls[name] = engine(pictures)
            answers[name] = calls[name]()
        except Exception as error:  # whatever an engine raises (no C++ compiler for torch.compile, say)
            found.left_out[name] = first_line(error)
            del found.ready[name]
            found.files.pop(name, None)
            calls.pop(name, None)
    if not answers:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.left_out.items())
        raise UserError(f"no engine can run the model: {reasons}")
    first, reference = next(iter(answers.items()))
    differences = {}
    for name, logits in answers.items():
        worst = float(np.abs(logits - reference).max() / np.abs(reference).max())
        if not worst <= found.tolerances.get(name, AGREEMENT):
            raise UserError(f"{name} and {first} disagree by {worst:.2g} of the largest logit; nothing was timed")
        differences[name] = worst
    return calls, differences


def _caption(entry: dict[str, Any]) -> str:
    results, machine = entry["results"], entry["machine"]
    calls = min(row["calls"] for row in results["timings"])
    return (
        f"{results['model']}, {results['threads']} threads, engines taking turns; medians of at least {calls} calls,"
        f" bars from the 10th to the 90th percentile. {machine['processor']}, {machine['cores']} cores"
    )
