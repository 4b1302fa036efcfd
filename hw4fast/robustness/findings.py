"""What a study found, in words: computed from its rows, most important first."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from hw4fast.robustness.metrics import LOST, Row, breaks, harm, loss_bound
from hw4fast.robustness.points import Point, doubles
from hw4fast.stats import half_up

FIXED, NEVER = 6, 7  # the places, after severities 1…5, of what has no severity and of what doesn't break
NAMED = 4  # of a list in a sentence
WEAK = 2 / 3  # a model that gets fewer clean pictures right has little that a transform could break


def by_series(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each transform together (the clean row left out), the one that breaks the model soonest first."""
    clean = rows[0]
    groups: dict[str, list[Row]] = {}
    for row in rows[1:]:
        groups.setdefault(row.point.series, []).append(row)
    return sorted(groups.values(), key=lambda group: _rank(group, clean))


def headline(rows: Sequence[Row]) -> str:
    """One sentence: what breaks the model soonest, or that nothing does, and how sure that is."""
    clean, groups = rows[0], by_series(rows)
    broken = first_break(groups[0], clean)
    if broken is not None:
        return _broken(broken, clean, alone=len(groups) == 1)
    if _weak(clean):
        return (
            f"This model gets only {share(clean.accuracy)} of the {_counted(clean)} clean pictures right: "
            "little is left for a transform to break."
        )
    return _unbroken(rows, groups)


def details(rows: Sequence[Row]) -> list[str]:
    """The sentences after the headline: what follows, and what the model bears; of transforms that are the same on
    another scale only one."""
    clean, groups = rows[0], by_series(rows)
    graded = [group for group in groups if group[0].point.severity is not None]
    breaking = [(group[0].point, first_break(group, clean)) for group in graded]
    broken = [row for _, row in breaking if row is not None]
    twice = {point.kind for point in doubles([row.point for row in rows]) if point.severity}
    said = {_subject(groups[0][0].point, twice)}  # in the headline
    later = []
    for row in sorted(broken, key=lambda row: (row.point.severity or FIXED, -harm(row))):
        if _subject(row.point, twice) not in said:
            later.append(row)
            said.add(_subject(row.point, twice))
    sentences = []
    if first_break(groups[0], clean) is None and _weak(clean):
        sentences.append(_harm_and_limit(rows))
    if later:
        parts = [f"{row.point.series} at severity {row.point.severity} ({_level(row)})" for row in later[:NAMED]]
        more = f", and {_others(len(later) - NAMED)}" if len(later) > NAMED else ""
        sentences.append(f"Then {'come' if len(later) > 1 else 'comes'} {joined(parts)}{more}.")
    held: dict[str, str] = {}
    for point, first in breaking:
        if first is None and _subject(point, twice) not in said:
            held.setdefault(_subject(point, twice), point.series)
    bears = list(held.values())
    if bears and broken:
        bears = bears if len(bears) <= NAMED else [*bears[:NAMED], _others(len(bears) - NAMED)]
        what = "takes 10 points off the accuracy" if clean.accuracy is not None else "changes one answer in ten"
        sentences.append(f"No severity of {joined(bears, 'or')} clearly {what}.")
    fixed = [group[0] for group in groups if group[0].point.severity is None and group is not groups[0]]
    if fixed:
        verb = "leaves" if clean.accuracy is not None else "gives"
        sentences.append(f"As given, {joined([f'{row.point.series} {verb} {_level(row)}' for row in fixed])}.")
    return sentences


def meaning(rows: Sequence[Row]) -> str:
    """What the headline's words mean: when a transform "breaks" a model, and what a severity is."""
    if rows[0].accuracy is not None:
        words = f"“Breaks” means: at least {100 * LOST:.0f} points less accuracy than on clean pictures, and"
    else:
        words = f"“Changes its mind” means: at least {100 * LOST:.0f} % of the answers differ from the clean ones, and"
    words += " 95 % intervals that lie apart."
    if len({row.point.series for row in rows[1:] if row.point.severity}) > 1:
        words += " Severities are steps on each transform’s own scale: the same number is not the same strength."
    return words + _stand_aside([row.point for row in rows])


def _stand_aside(points: Sequence[Point]) -> str:
    """Which transforms numbers over all of them leave out, and why; empty for none."""
    twice = doubles(points)
    others = {point.kind: point.series for point in points if point.severity and point not in twice}
    same: dict[str, list[str]] = {}  # that which counts → those that do the same
    for point in twice:
        if point.severity and point.series not in same.setdefault(others[point.kind], []):
            same[others[point.kind]].append(point.series)
    fixed = [point.series for point in twice if not point.severity]
    parts = [f"{joined(names)} (the same as {name}, on another scale)" for name, names in same.items()]
    if fixed:
        parts.append(f"{joined(fixed)} (a strength of what is counted already)")
    return f" Where transforms are taken together, {joined(parts)} {_is(twice)} left out." if parts else ""


def _is(points: Sequence[Point]) -> str:
    return "are" if len({point.series for point in points}) > 1 else "is"


def first_break(group: Sequence[Row], clean: Row) -> Row | None:
    """The row of the smallest severity at which `group` breaks the model."""
    return next((row for row in group if breaks(row, clean)), None)


def share(value: float | None, digits: int = 1) -> str:
    """0.611 → `61.1 %` with a space that doesn't break; `–` for None; `100.0 %` and `0.0 %` only of all and none."""
    if value is None:
        return "–"
    least = 10.0**-digits
    text = half_up(100 * value, digits)
    if value < 1 and text == half_up(100, digits):
        return f">\u00a0{half_up(100 - least, digits)}\u00a0%"
    if value > 0 and text == half_up(0, digits):
        return f"<\u00a0{half_up(least, digits)}\u00a0%"
    return f"{text}\u00a0%"


def points(value: float) -> str:
    """A difference of two shares in points, with its sign: 0.0625 → `+6.3`."""
    size = half_up(100 * abs(value), 1)
    return size if size == "0.0" else f"{'-' if value < 0 else '+'}{size}"


def labelled_part(clean: Row) -> str:
    """` (of 3 labelled pictures)` where that isn't all of them: what a share of right answers is a share of."""
    some = 0 < clean.labelled < clean.n
    return f" (of {clean.labelled} labelled picture{'s' * (clean.labelled > 1)})" if some else ""


def pictures(clean: Row) -> str:
    """`40 pictures`, and how many of them accuracy counts."""
    if clean.accuracy is None or clean.labelled == clean.n:
        return f"{clean.n} pictures"
    return f"{clean.n} pictures ({clean.labelled} of them labelled, which accuracy counts)"


def _broken(broken: Row, clean: Row, *, alone: bool) -> str:
    name = _capital(broken.point.series)
    soonest = "" if alone else " most" if broken.point.severity is None else " soonest"
    if broken.accuracy is None:
        return (
            f"{name} changes this model’s mind{soonest}:{_at(broken)} {share(broken.flip_rate)} of its answers "
            "differ from those to the clean pictures."
        )
    return (
        f"{name} breaks this model{soonest}:{_at(broken)} accuracy falls from {share(clean.accuracy)} "
        f"to {share(broken.accuracy)}{labelled_part(clean)}."
    )


def _unbroken(rows: Sequence[Row], groups: Sequence[Sequence[Row]]) -> str:
    """That nothing breaks the model; or, of a small sample, what it leaves open."""
    nothing, limit = _nothing(rows), _limit(rows)
    if nothing and limit:
        return f"{nothing[0].upper()}{nothing[1:]}, but {limit}."
    verb, what = ("break", "this model") if rows[0].accuracy is not None else ("change", "this model’s mind")
    worst = _most_harm(rows)
    if limit and round(max(harm(row) for row in rows[1:]) - harm(rows[0]), 9) >= LOST:
        question = f"whether {groups[0][0].point.series} {verb}s" if len(groups) == 1 else f"what {verb}s"
        return f"Too few pictures to tell {question} {what}: {limit}; {worst}."
    clearly = "clearly " if limit else ""
    if len(groups) == 1:
        claim = f"{_capital(groups[0][0].point.series)} doesn’t {clearly}{verb} {what}"
    else:
        claim = f"No transform {clearly}{verb}s {what}"
    if nothing:
        return f"{claim}: {nothing}."
    return f"{claim}{', but ' + limit if limit else ''}; {worst}."


def _harm_and_limit(rows: Sequence[Row]) -> str:
    """What the headline of a weak model has no room for."""
    nothing, limit = _nothing(rows), _limit(rows)
    first, rest = (nothing or _most_harm(rows)).split(" ", 1)
    return f"{_capital(first)} {rest}{', but ' if nothing and limit else '; ' if limit else ''}{limit}."


def _nothing(rows: Sequence[Row]) -> str:
    """That no harm was seen, in words; empty where some was."""
    if not any(row.flips for row in rows):
        return "not one answer changed"
    return "no loss of accuracy was found" if all(harm(row) <= harm(rows[0]) for row in rows) else ""


def _most_harm(rows: Sequence[Row]) -> str:
    clean, ordered = rows[0], [row for group in by_series(rows) for row in group]
    worst = max(ordered, key=lambda row: (harm(row), -(row.point.severity or 0)))  # of equals the least severity
    where = worst.point.series + ("" if worst.point.severity is None else f" at severity {worst.point.severity}")
    if worst.accuracy is None:
        return f"{where} changed the most answers: {share(worst.flip_rate)}"
    basis = labelled_part(clean)
    return f"{where} did the most harm: {share(worst.accuracy)} right after {share(clean.accuracy)} clean{basis}"


def _limit(rows: Sequence[Row]) -> str:
    """The loss that so few pictures can't exclude; empty where it is less than what breaks a model."""
    clean = rows[0]
    bound = max(loss_bound(row, clean) for row in rows[1:])
    if bound < LOST:
        return ""
    if clean.accuracy is None:
        return f"with n = {clean.n} a change of up to {ceil(100 * bound)}\u00a0% of the answers can’t be excluded"
    return f"with n = {_counted(clean)} a loss of up to {ceil(100 * bound)} points can’t be excluded"


def _weak(clean: Row) -> bool:
    return clean.accuracy is not None and clean.accuracy < WEAK


def _counted(clean: Row) -> str:
    return f"{clean.labelled}{' labelled' if clean.labelled < clean.n else ''}"


def _rank(group: Sequence[Row], clean: Row) -> tuple[int, float, float]:
    """Smallest breaking severity first (a fixed strength after all), then the greatest harm there; what never
    breaks last, worst first; of equals the one that does more harm over all its severities."""
    broken, over_all = first_break(group, clean), -sum(harm(row) for row in group) / len(group)
    if broken is None:
        return NEVER, -max(harm(row) for row in group), over_all
    return broken.point.severity or FIXED, -harm(broken), over_all


def _at(row: Row) -> str:
    return "" if row.point.severity is None else f" at severity {row.point.severity} of 5,"


def _others(count: int) -> str:
    return f"{count} other{'s' * (count > 1)}"


def _level(row: Row) -> str:
    return share(row.accuracy) if row.accuracy is not None else f"{share(row.flip_rate)} changed"


def _subject(point: Point, twice: set[str]) -> str:
    """What a sentence about a transform is about: of the kinds `twice` the kind, for they have several names."""
    return point.kind if point.kind in twice else point.series


def joined(parts: Sequence[str], word: str = "and") -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"


def _capital(name: str) -> str:
    return name[0].upper() + name[1:] if name.isalpha() else name
