"""Two models, or two records, engine by engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw4fast import record
from hw4fast.errors import UserError
from hw4fast.paths import one_line


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


def latest(path: Path) -> dict[str, Any]:
    """The newest bench in a file of records. UserError when there is none."""
    entries = [entry for entry in record.read(path) if entry.get("what") == "bench"]
    if not entries:
        raise UserError(f"'{one_line(path)}' holds no record of a bench")
    return entries[-1]


def compare_records(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Comparison]:
    """Of two entries, where both have the same engine and batch. UserError when nothing is common to them."""
    others = {(row["engine"], row["batch"]): row for row in theirs["results"]["timings"]}
    found = []
    for row in mine["results"]["timings"]:
        other = others.get((row["engine"], row["batch"]))
        if other:
            count = min(row["calls"], other["calls"])
            found.append(Comparison(row["engine"], row["batch"], other["p50_ms"] / row["p50_ms"], None, None, count))
    if not found:
        raise UserError("the two records have no engine and batch size in common")
    return found
