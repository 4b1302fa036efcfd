"""`bench`: one model on every engine that runs here, taking turns, after their answers were compared."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hw4fast import record, timing
from hw4fast.bench.against import (
    RECORDS,
    WHAT,
    Comparison,
    Older,
    compare_records,
    differing,
    has_bench,
    insist_on_something_common,
    latest,
)
from hw4fast.bench.agreement import Answers, Differences, agreeing, first, listed
from hw4fast.bench.drawing import draw
from hw4fast.bench.engines import Engines, engines_of, threads_kept
from hw4fast.bench.pictures import FromFiles, Way, from_files, ways_of
from hw4fast.bench.processes import Process, whole_processes
from hw4fast.errors import Interrupted, UsageError, UserError
from hw4fast.inference.session import explain_provider
from hw4fast.kernels import check_threads
from hw4fast.paths import is_run, one_line

BURST = 5  # calls per turn, see timing.alternate
Found = TypeVar("Found")


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
    """timings: what ran, from tensors; answers: how many of each engine's are the first one's; processes: whole ones;
    files: from picture files; against: whom the comparisons are with, and differences: what else that record doesn't
    share (model, threads, machine, versions); left_out: {engine, pictures or part: why}; failed: whether there is
    more among these than engines that don't run here; path: the record that was appended to; picture: the PNG, None
    when it couldn't be drawn."""

    model: str
    threads: int
    timings: tuple[Timing, ...]
    answers: tuple[Answers, ...]
    processes: tuple[Process, ...]
    files: tuple[FromFiles, ...]
    against: str | None
    differences: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    left_out: dict[str, str]
    failed: bool
    path: Path
    picture: Path | None


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
    eager, the same channels-last, and torch.compile. All get the same pictures and `threads` threads (default: all
    cores). Before any is timed its logits are compared with the first one's: in the same precision they differ by no
    more than engines.AGREEMENT of the largest, in float16 and int8 by exporter.TOLERANCES, or they are left out. That
    leaves room for other answers: how many are the same is in `answers`. `seconds`: about how long each batch size is
    measured.
    pictures: a folder of files, of which those that can't be read are left out; by default a run's test pictures, else
    photographs. whole: also from files, and processes. against: another model, which takes turns with this one on each
    engine of both; or a file of records, whose newest is compared.
    What fails once something was timed is left out, and the rest recorded; so are the parts that were done before a
    Ctrl-C. The record is appended to `out`, which ends in .jsonl, by default bench.jsonl in the run folder or beside
    the file, and a picture of the throughputs drawn beside it, under the same name.
    Raises Interrupted after a Ctrl-C; UserError when engines disagree, when a model or pictures can't be had, when
    nothing is common to the two that are compared, and when another picture stands where ours would; UsageError for a
    bad batch size or `out`.
    """
    _check(batches, seconds, threads)
    target, count = _target(Path(model), out), threads or record.cores()
    picture: Path | None = target.with_suffix(".png")
    other = latest(Path(against)) if against is not None and Path(against).suffix == RECORDS else None
    results: dict[str, Any] = {"model": str(model), "threads": count, "against": against and str(against)}
    gpu = explain_provider("cuda") is None
    here = {"machine": record.machine(gpu), "versions": record.versions(), "results": results}
    differences = tuple(differing(here, other.entry)) if other else ()
    with tempfile.TemporaryDirectory() as scratch, threads_kept():
        rival = None if other else against
        ready = _compared(model, batches, count, pictures, whole, rival, other, Path(scratch))
        measured = _measured(ready, seconds, count, whole)
    found, parts = ready.found, {"answers": ready.answers} | measured
    results |= {"differences": differences, "left_out": found.left_out}
    results |= {name: [asdict(row) for row in rows] for name, rows in parts.items()}
    entry = record.append(target, WHAT, results, gpu)
    try:
        draw(parts["timings"], _caption(entry), target.with_suffix(".png"))
    except (OSError, UserError) as error:
        found.fail("picture", error)
        picture = None
    if found.interrupted:
        raise Interrupted(f"interrupted; what was measured before is in '{one_line(target)}'")
    return Result(
        model=str(model),
        threads=count,
        timings=tuple(parts["timings"]),
        answers=tuple(parts["answers"]),
        processes=tuple(parts["processes"]),
        files=tuple(parts["files"]),
        against=other.name if other else results["against"],
        differences=differences,
        comparisons=tuple(parts["comparisons"]),
        left_out=found.left_out,
        failed=found.failed,
        path=target,
        picture=picture,
    )


def _check(batches: Sequence[int], seconds: float, threads: int | None) -> None:
    if not batches or min(batches) < 1:
        raise UsageError(f"batch sizes must be positive, not {list(batches)}")
    if not 0 < seconds < math.inf:
        raise UsageError(f"seconds must be positive, not {seconds}")
    if threads is not None:
        check_threads(threads)


def _target(model: Path, out: str | Path | None) -> Path:
    """The file of records: in the run folder, beside the file, or here for a name. All that can be wrong with it, or
    with the place of its picture, is told before minutes are spent."""
    target = Path(out) if out else (model if is_run(model) else model.parent) / f"bench{RECORDS}"
    if target.suffix != RECORDS:
        raise UsageError(f"the record's name must end in {RECORDS}, not be '{one_line(target)}'; the picture gets .png")
    if target.is_dir() or not os.access(target if target.exists() else target.parent, os.W_OK):
        raise UserError(f"the record can't be written to '{target}'; name another file with --out")
    picture = target.with_suffix(".png")
    if os.path.lexists(picture) and not has_bench(target):
        raise UserError(
            f"'{one_line(picture)}', where the picture would be drawn, is there and belongs to no record in"
            f" '{target.name}'; take it away or name another file with --out"
        )
    return target


# -- before anything is timed ------------------------------------------------------------------------------------


@dataclass
class _Compared:
    """What is to be timed: the engines of the model and its rival, by batch size those that answered, with their
    differences; the ways from files."""

    found: Engines
    differences: Differences
    answers: list[Answers]
    ways: dict[str, Way]
    other: Older | None
    rival: Engines | None = None
    rivals: Differences = field(default_factory=dict)


def _compared(
    model: str | Path,
    batches: Sequence[int],
    threads: int,
    pictures: str | Path | None,
    whole: bool,
    against: str | Path | None,
    other: Older | None,
    scratch: Path,
) -> _Compared:
    """UserError when something disagrees, or nothing is common to the two."""
    folder = None if pictures is None else Path(pictures)
    found = engines_of(model, folder, _new(scratch / "mine"), threads)
    differences, answers = agreeing(found, batches)
    ready = _Compared(found, differences, answers, {}, other)
    if other is not None:
        insist_on_something_common(_pairs(differences), other.medians, other.name)
    if against is not None:
        ready.rival = rival = engines_of(against, folder, _new(scratch / "theirs"), threads)
        ready.rivals, _ = agreeing(rival, batches)
        insist_on_something_common(_pairs(differences), _pairs(ready.rivals), str(against))
        alone = {name: reason for name, reason in rival.left_out.items() if name not in found.left_out}
        found.left_out |= {f"{name} of {against}": reason for name, reason in alone.items()}
    if whole:
        ready.ways = ways_of(found, threads)
    return ready


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _pairs(differences: Differences) -> Iterator[tuple[str, int]]:
    return ((engine, batch) for batch, engines in differences.items() for engine in engines)


# -- and then ----------------------------------------------------------------------------------------------------


def _measured(ready: _Compared, seconds: float, threads: int, whole: bool) -> dict[str, list[Any]]:
    """The rows of each part. A part that fails is left out; UserError when no engine could be timed."""
    found = ready.found
    timings: list[Timing] = []
    comparisons: list[Comparison] = []
    for batch, engines in ready.differences.items():
        if engines:
            rows, compared = _part(found, f"batch {batch}", partial(_measure, ready, batch, seconds)) or ([], [])
            timings, comparisons = timings + rows, comparisons + compared
    if not timings and found.interrupted:
        raise KeyboardInterrupt
    if not timings:
        raise UserError(f"no engine could be timed: {listed(found.left_out)}")
    if ready.other is not None:
        comparisons = compare_records(timings, ready.other)
    parts: dict[str, list[Any]] = {"timings": timings, "comparisons": comparisons, "files": [], "processes": []}
    if ready.ways:
        passes = partial(from_files, ready.ways, len(found.chosen.files))
        parts["files"] = _part(found, "picture files", passes) or []
    if whole:
        largest = max(timing.batch for timing in timings)
        parts["processes"] = _part(found, "whole processes", partial(whole_processes, found, largest, threads)) or []
    return parts


def _part(found: Engines, name: str, measure: Callable[[], Found]) -> Found | None:
    if found.interrupted:
        return None
    try:
        return measure()
    except Exception as error:  # of whatever kind: hours may have been measured before
        found.fail(name, error)
    except KeyboardInterrupt:
        found.interrupted = True
        found.left_out[name] = "interrupted"
    return None


def _measure(ready: _Compared, batch: int, seconds: float) -> tuple[list[Timing], list[Comparison]]:
    """Times the engines that have answered at that batch size."""

    def calls(found: Engines, names: Sequence[str]) -> dict[str, Callable[[], np.ndarray]]:
        return {name: found.ready[name](first(found.pictures, batch)) for name in names}

    mine, theirs = ready.differences[batch], ready.rivals.get(batch, {})
    turns = calls(ready.found, list(mine))
    if ready.rival is not None:
        both = calls(ready.rival, [name for name in theirs if name in mine])
        turns |= {f"against {name}": call for name, call in both.items()}
    times = timing.alternate(turns, seconds=seconds, at_least=6, burst=BURST, pause=timing.POOLS_REST_S)
    rows, compared = [], []
    for name, difference in mine.items():
        took = times[name]
        p10, p50, p90, p99 = np.percentile(took * 1e3, (10, 50, 90, 99))
        rows.append(Timing(name, batch, p10, p50, p90, p99, batch / took.mean(), len(took), difference))
        other = times.get(f"against {name}")
        if other is not None:  # a burst's calls are no independent ones: their mean counts once
            ratio = timing.ratio(other.reshape(-1, BURST).mean(1), took.reshape(-1, BURST).mean(1))
            compared.append(Comparison(name, batch, ratio.median, ratio.low, ratio.high, ratio.n))
    return rows, compared


def _caption(entry: dict[str, Any]) -> str:
    results, machine = entry["results"], entry["machine"]
    calls = min(row["calls"] for row in results["timings"])
    return (
        f"{results['model']}, {results['threads']} threads, engines taking turns; medians of at least {calls} calls,"
        f" bars from the 10th to the 90th percentile. {machine['processor']}, {machine['cores']} cores"
    )
