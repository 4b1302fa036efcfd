"""Why the MNIST table differs from the homework's, and which of its conclusions survive: read off the numbers."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from hw4fast.stats import wilson

SEED, RIGHT = "seed", "cross-entropy"
BATCH = 100  # images of the homework's accuracies
COSTS = 0.5  # points from which on −p_y is said to do worse
# what the homework's table says is worse, and what better
PAIRS = (
    ("l1", "l2", "L2 does better than L1"),
    ("l1", "l1-from-l2", "L1 does better from L2’s weights than from random ones"),
    ("sgd", "momentum", "momentum helps SGD"),
    ("sgd", "sgd-bn", "batch normalisation helps SGD"),
    ("adagrad", "adam", "Adam does better than Adagrad"),
    ("sgd", "adam", "Adam does better than SGD"),
    ("adam", "adam-bn", "batch normalisation helps Adam"),
)


WHY = (
    "−p_y does worse because its gradient is p_y times cross-entropy’s: what the net gets thoroughly wrong teaches it"
    " next to nothing, and a digit that begins badly may never be answered at all. Which seeds begin badly is chance,"
    " so one run of each recipe can show any order"
)


def spread(values: list[float], digits: int = 1) -> str:
    """Lowest and highest, or the one value there is, in %."""
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return f"{low} %" if low == high else f"{low} … {high} %"


def reason(row: dict[str, Any]) -> str:
    """What the homework's own loss gives here beside its number, what the right loss gives, and why they differ."""
    seed, right, homework = row[SEED], row[RIGHT], row["homework"]
    parts = []
    if seed["wholes"]:
        low, high = (100 * bound for bound in wilson(round(homework * BATCH / 100), BATCH))
        told = f"with its loss −p_y {spread(seed['wholes'])} here"
        if any(low <= value <= high for value in seed["wholes"]):
            told += f", so its {homework:g} % of one batch (95 %: {low:.1f} … {high:.1f}) is to be had"
            others = [value for value in seed["wholes"] if not low <= value <= high]
            told += f", if not with each seed ({spread(others)})" if others else ""
        else:
            told += f", not its {homework:g} % of one batch (95 %: {low:.1f} … {high:.1f})"
        parts.append(told)
    else:
        parts.append("with its loss −p_y it diverges here")
    if not right["wholes"]:
        return "; ".join([*parts, "with cross-entropy it diverges, too"])
    gain = statistics.fmean(right["wholes"]) - statistics.fmean(seed["wholes"]) if seed["wholes"] else None
    parts.append(f"with cross-entropy {spread(right['wholes'], 2)}")
    if gain is not None and gain > COSTS:
        parts.append(_why(row, gain))
    if statistics.fmean(right["wholes"]) < 98 and right.get("still") and right["still"] > 0.02:
        share = f"{100 * right['still']:.0f} %"
        parts.append(f"it was not done yet: in the last epoch its training cost still fell by {share}")
    if row["recipe"] == "adam-bn" and max(right["wholes"]) < 100:
        parts.append("100 % was one batch: on the whole test set no net here reaches it")
    return "; ".join(parts)


def mechanism(rows: list[dict[str, Any]]) -> str:
    """WHY, if −p_y does worse in any row, else nothing."""
    pairs = [(row[SEED]["whole"], row[RIGHT]["whole"]) for row in rows]
    return WHY if any(None not in pair and pair[1] - pair[0] > COSTS for pair in pairs) else ""


def _why(row: dict[str, Any], gain: float) -> str:
    """Why −p_y does so much worse."""
    text, pull = f"−p_y costs {gain:.1f} points{_dead(row[SEED])}", row.get("pull")
    if pull:
        text += (
            f": its gradient begins at {pull[SEED]:.1g} per weight (mean size) instead of {pull[RIGHT]:.1g}, and L1"
            f" pulls each weight with {pull['l1']:g} towards 0"
        )
    return text


def _dead(found: dict[str, Any]) -> str:
    """Which classes the nets of the seeds never answer, in words; nothing when each answers all."""
    told = []
    for seed, names in enumerate(found.get("never", [])):
        if names:
            what = f"{len(names)} classes" if len(names) > 4 else " and ".join(names)
            told.append(f"{what} (seed {seed})" if len(found["never"]) > 1 else what)
    return f", for the net never answers {', '.join(told)}" if told else ""


@dataclass(frozen=True)
class Conclusion:
    """statement: the homework's; homework: by how many points the better is ahead in its table; seed, right: the same
    under −p_y and cross-entropy, seed by seed, empty where a run diverged; verdict: what is left of it under
    cross-entropy."""

    statement: str
    homework: float
    seed: list[float]
    right: list[float]
    verdict: str


def conclusions(rows: list[dict[str, Any]]) -> list[Conclusion]:
    """One for each of PAIRS whose recipes are in the table.

    It survives if with every seed the better is ahead by more than 1.96 standard deviations of a difference of two
    accuracies on n test images each, √(p(1 − p)/n + q(1 − q)/n). That the images are the same is not made use of.
    """
    by_name = {row["recipe"]: row for row in rows}
    found = []
    for worse, better, statement in PAIRS:
        if worse in by_name and better in by_name:
            a, b = by_name[worse], by_name[better]
            ahead = {loss: _ahead(a[loss], b[loss]) for loss in (SEED, RIGHT)}
            verdict = _verdict(a[RIGHT], b[RIGHT])
            found.append(Conclusion(statement, b["homework"] - a["homework"], ahead[SEED], ahead[RIGHT], verdict))
    return found


def _ahead(a: dict[str, Any], b: dict[str, Any]) -> list[float]:
    """Seed by seed; nothing where a run diverged: what is left would no longer be pairs."""
    if a["diverged"] or b["diverged"]:
        return []
    return [q - p for p, q in zip(a["wholes"], b["wholes"], strict=True)]


def _verdict(a: dict[str, Any], b: dict[str, Any]) -> str:
    ahead, n = _ahead(a, b), min(a["test_images"], b["test_images"])
    if not ahead:
        return "can’t be said: diverged"
    margins = [
        196 * math.sqrt(sum(p * (1 - p) / n for p in (x / 100, y / 100)))
        for x, y in zip(a["wholes"], b["wholes"], strict=True)
    ]
    if all(d > margin for d, margin in zip(ahead, margins, strict=True)):
        return "survives"
    if all(d < -margin for d, margin in zip(ahead, margins, strict=True)):
        return "the other way round"
    seeds = "one seed" if len(ahead) == 1 else f"{len(ahead)} seeds"
    return f"not told apart by {seeds} of {n:,} test images"
