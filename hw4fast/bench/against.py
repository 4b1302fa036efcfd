"""Two models, or two records, engine by engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw4fast import record
from hw4fast.errors import UserError
from hw4fast.paths import one_line

if TYPE_CHECKING:
    from hw4fast.bench import Timing

WHAT, RECORDS = "bench", ".jsonl"  # what its records are, and how their files end


@dataclass(frozen=True)
class Comparison:
    """How many times faster the model is than the other one, on one engine at one batch size: the median of paired
    ratios with its 95 % interval where both took turns (n rounds); of two records the ratio of their medians, without
    an interval (low and high None), which the machine's drift goes into."""

    engine: str
    batch: int
    ratio: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Older:
    """A bench in a file of records. name: its model and when it was; medians: {(engine, batch): (p50 in ms, calls)}."""

    name: str
    entry: Mapping[str, Any]
    medians: Mapping[tuple[str, int], tuple[float, int]]


def has_bench(path: Path) -> bool:
    """Whether a file of records, which needn't be there, holds one of a bench."""
    return any(entry.get("what") == WHAT for entry in record.read(path))


def latest(path: Path) -> Older:
    """The newest bench in a file of records. UserError when there is none, or it isn't as bench writes it."""
    entries = [entry for entry in record.read(path) if entry.get("what") == WHAT]
    if not entries:
        raise UserError(f"'{one_line(path)}' holds no record of a bench")
    entry = entries[-1]
    try:
        _told(entry)
        rows = entry["results"]["timings"]
        medians = {(row["engine"], row["batch"]): (float(row["p50_ms"]), int(row["calls"])) for row in rows}
        return Older(f"{entry['results']['model']} of {entry['time']}", entry, medians)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the newest bench in '{one_line(path)}' isn't as bench writes it ({error!r})") from None


def differing(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What two entries, or the like of them, don't share besides their times: model, threads, machine and versions."""
    here, there = _told(mine), _told(theirs)
    names = dict.fromkeys([*here, *there])
    return [
        f"{name}: {there.get(name, 'none')} in the record, {here.get(name, 'none')} now"
        for name in names
        if here.get(name) != there.get(name)
    ]


def _told(entry: Mapping[str, Any]) -> dict[str, Any]:
    results, machine = entry["results"], entry["machine"]
    told = {"model": results["model"], "threads": results["threads"]}
    told |= {name: machine[name] for name in ("processor", "cores", "system")}
    told["instruction sets"] = " ".join(machine["isas"]) or "none"
    told |= {f"GPU {number}": gpu["name"] for number, gpu in enumerate(machine.get("gpus", ()))}
    return told | dict(entry["versions"])


def insist_on_something_common(mine: Iterable[tuple[str, int]], theirs: Iterable[tuple[str, int]], name: str) -> None:
    """(engine, batch) of both. UserError when nothing is in both."""
    here, there = list(mine), list(theirs)
    if not set(here) & set(there):
        lists = [", ".join(f"{engine} at {batch}" for engine, batch in pairs) or "nothing" for pairs in (here, there)]
        raise UserError(
            f"this model and '{one_line(name)}' have no engine and batch size in common, so nothing was timed; here:"
            f" {lists[0]}; there: {lists[1]}"
        )


def compare_records(mine: Sequence[Timing], theirs: Older) -> list[Comparison]:
    """Where both have the same engine and batch."""
    found = []
    for row in mine:
        p50, calls = theirs.medians.get((row.engine, row.batch), (0.0, 0))
        if calls:
            found.append(Comparison(row.engine, row.batch, p50 / row.p50_ms, None, None, min(row.calls, calls)))
    return found
