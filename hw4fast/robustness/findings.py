"""What a study found, in words: computed from its rows, most important first."""

from __future__ import annotations

from collections.abc import Sequence

from hw4fast.robustness.metrics import LOST, Row, breaks, harm

FIXED, NEVER = 6, 7  # the places, after severities 1…5, of what has no severity and of what doesn't break


def by_series(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each transform together (the clean row left out), the one that breaks the model soonest first."""
    clean = rows[0]
    groups: dict[str, list[Row]] = {}
    for row in rows[1:]:
        groups.setdefault(row.point.series, []).append(row)
    return sorted(groups.values(), key=lambda group: _rank(group, clean))


def headline(rows: Sequence[Row]) -> str:
    """One sentence: what breaks the model soonest, or that nothing does."""
    clean, groups = rows[0], by_series(rows)
    broken = first_break(groups[0], clean)
    if broken is not None:
        name = _capital(groups[0][0].point.series)
        soonest = "" if len(groups) == 1 else " most" if broken.point.severity is None else " soonest"
        if broken.accuracy is None:
            return (
                f"{name} changes this model’s mind{soonest}:{_at(broken)} {share(broken.flip_rate)} of its answers "
                "differ from those to the clean pictures."
            )
        return (
            f"{name} breaks this model{soonest}:{_at(broken)} accuracy falls from {share(clean.accuracy)} "
            f"to {share(broken.accuracy)}."
        )
    worst = max(rows[1:], key=harm)
    where = worst.point.series + ("" if worst.point.severity is None else f" at severity {worst.point.severity}")
    if harm(worst) - harm(clean) >= LOST:
        certain = f"{clean.n} pictures are too few to be sure of anything"
    else:
        certain = "No transform breaks this model"
    return f"{certain}; {where} did the most harm: {_left(worst, clean)}."


def details(rows: Sequence[Row]) -> list[str]:
    """The sentences after the headline: what follows, and what the model bears."""
    clean, groups = rows[0], by_series(rows)
    graded = [group for group in groups if group[0].point.severity is not None]
    breaking = [(group[0].point.series, first_break(group, clean)) for group in graded]
    later = [(name, row) for name, row in breaking if row is not None]
    if graded and groups[0] is graded[0]:
        later = later[1:]  # the headline has said it
    sentences = []
    if later:
        parts = [f"{name} at severity {row.point.severity} ({_level(row)})" for name, row in later]
        sentences.append(f"Then {'come' if len(parts) > 1 else 'comes'} {_and(parts)}.")
    bears = [name for name, row in breaking if row is None]
    if bears and any(row for _, row in breaking):
        what = "takes 10 points off the accuracy" if clean.accuracy is not None else "changes one answer in ten"
        sentences.append(f"No severity of {_and(bears, 'or')} clearly {what}.")
    fixed = [group[0] for group in groups if group[0].point.severity is None and group is not groups[0]]
    if fixed:
        sentences.append(f"As given, {_and([f'{row.point.series} leaves {_level(row)}' for row in fixed])}.")
    return sentences


def first_break(group: Sequence[Row], clean: Row) -> Row | None:
    """The row of the smallest severity at which `group` breaks the model."""
    return next((row for row in group if breaks(row, clean)), None)


def share(value: float | None) -> str:
    """0.611 → `61.1 %` with a space that doesn't break; `–` for None."""
    return "–" if value is None else f"{100 * value:.1f}\u00a0%"


def _rank(group: Sequence[Row], clean: Row) -> tuple[int, float]:
    """Smallest breaking severity first (a fixed strength after all), then the greatest harm there; what never
    breaks last, worst first."""
    broken = first_break(group, clean)
    if broken is None:
        return NEVER, -max(harm(row) for row in group)
    return broken.point.severity or FIXED, -harm(broken)


def _at(row: Row) -> str:
    return "" if row.point.severity is None else f" at severity {row.point.severity} of 5,"


def _level(row: Row) -> str:
    return share(row.accuracy) if row.accuracy is not None else f"{share(1 - row.flip_rate)} unchanged"


def _left(row: Row, clean: Row) -> str:
    if row.accuracy is None:
        return f"{share(row.flip_rate)} of the answers changed"
    return f"{share(row.accuracy)} right after {share(clean.accuracy)} clean"


def _and(parts: Sequence[str], word: str = "and") -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"


def _capital(name: str) -> str:
    return name[0].upper() + name[1:] if name.isalpha() else name
