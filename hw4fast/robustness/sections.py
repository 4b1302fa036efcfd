"""The sections of the page that need no pictures: the heat map, breaking points, calibration, classes, two models."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

from hw4fast.page import breakable
from hw4fast.robustness import findings
from hw4fast.robustness.analysis import (
    Breaking,
    ClassRow,
    Series,
    calibration_error,
    calibration_of,
)
from hw4fast.robustness.drawings import calibration, curve, histogram
from hw4fast.robustness.figures import legend_svg
from hw4fast.robustness.findings import share
from hw4fast.robustness.measure import Measured
from hw4fast.robustness.metrics import Row, breaks, harm
from hw4fast.robustness.points import counted
from hw4fast.stats import FEW_CLUSTERS, half_up
from hw4fast.transforms import TRANSFORMS
from hw4fast.transforms.spec import SEVERITIES

FEWEST = 6  # pictures: of fewer the median has no 95 % interval from order statistics
FEWEST_OF_CLASS = 5  # pictures: of fewer a line says nothing
MOST_CLASSES = 25  # of a table on the page; classes.csv holds them all


class Frame(Protocol):
    """How a plot stands on the page: in its own section, or among those of a further model."""

    def __call__(self, ident: str, head: str, note: str, body: str) -> str: ...


def section(ident: str, head: str, note: str, body: str) -> str:
    """note, body: HTML."""
    return f"""<section id="{ident}"><h2>{head}</h2>
<p class="note">{note}</p>
{body}</section>"""


def part(ident: str, head: str, note: str, body: str) -> str:
    """Of a further model, where what is drawn was explained before."""
    return f'<h3 class="plots">{head}</h3>{body}'


def heat_map(rows: Sequence[Row], series: Sequence[Series], frame: Frame = section) -> str:
    """Transform × severity: accuracy (or the share of changed answers) as a number on a tint that deepens with harm."""
    clean = rows[0]
    labelled = clean.accuracy is not None
    areas = {one.name: one for one in series}
    graded = [group for group in findings.by_series(rows) if group[0].point.severity is not None]
    if not graded:
        return ""
    heads = "".join(f'<th scope="col">{severity}</th>' for severity in SEVERITIES)
    lines = []
    for group in graded:
        cells = "".join(_heat_cell(row, clean) for row in group)
        one = areas[group[0].point.series]
        area = one.area if labelled else one.flip_area
        name = escape(one.name)
        lines.append(f'<tr><th scope="row">{name}</th>{cells}<td class="area">{share(area)}</td></tr>')
    what = "Accuracy" if labelled else "Share of answers that changed"
    return frame(
        "heat",
        "Where it hurts",
        f"""{what} in %, transform by severity, the most harmful transform first; clean: {share(_value(clean))}. The
deeper the tint, the more is lost; a framed cell breaks the model. Mean: the area under the curve from clean to
severity 5 divided by its width, which is the mean height of the curve.""",
        f"""<div class="map halves scroll" tabindex="0" role="group" aria-label="Heat map"><table class="heat">
<thead><tr><th scope="col"></th>{heads}<th scope="col">mean</th></tr></thead>
<tbody>{"".join(lines)}</tbody></table></div>""",
    )


def _value(row: Row) -> float:
    return row.flip_rate if row.accuracy is None else row.accuracy


def _heat_cell(row: Row, clean: Row) -> str:
    lost = (harm(row) - harm(clean)) / max(1e-9, 1 - harm(clean))
    return f"<td{tint(lost, 'broken' if breaks(row, clean) else '')}>{half_up(100 * _value(row), 0)}</td>"


def tint(lost: float, kind: str = "") -> str:
    """A cell's attributes. lost: the share of what could be lost; kind: a class of its own."""
    lost = min(1.0, max(0.0, lost))
    kinds = [name for name in ("deep" if lost > 0.85 else "", kind) if name]
    told = f' class="{" ".join(kinds)}"' if kinds else ""
    return f'{told} style="--harm:{80 * lost:.0f}%"'


def breaking_section(found: Sequence[Breaking], frame: Frame = section) -> str:
    """A histogram per transform, and the medians in words."""
    if not found:
        return ""
    cards = []
    for one in found:
        sweep = TRANSFORMS.get(one.transform).sweep
        assert sweep is not None
        told = f"{one.transform}: {_told(one)}"
        cards.append(
            f'<figure class="card"><h3>{escape(one.transform)}</h3>{histogram(one, sweep, told)}'
            f"<figcaption>{escape(_told(one))}</figcaption></figure>"
        )
    pictures = f"{found[0].n} picture{'s' * (found[0].n > 1)}"
    return frame(
        "breaking",
        "How much it takes",
        f"""The breaking point of a picture is the smallest strength that changes the answer to it: here of {pictures},
by bisection between the places of a grid; the transform that does it soonest on its own scale first. The line is the
median with its 95 % interval (order statistics); the dashed bar counts pictures whose answer never changes up to the
end of the sweep. breaking.csv holds every point, and how often an answer changes back on the way.""",
        f'<div class="grid charts">{"".join(cards)}</div>',
    )


def curves_section(rows: Sequence[Row], frame: Frame = section) -> str:
    """A panel per transform: accuracy and flip rate against severity."""
    clean = rows[0]
    labelled = clean.accuracy is not None
    cards = []
    for group in findings.by_series(rows):
        name = group[0].point.series
        told = "; ".join(f"{row.point.label}: {_rates(row)}" for row in group)
        drawn = curve(clean, group, f"{name}. {told}")
        cards.append(f'<figure class="card"><h3>{breakable(name)}</h3>{drawn}</figure>')
    keys = [("accuracy", f"Accuracy: answers that are right{findings.labelled_part(clean)}")] if labelled else []
    keys.append(("flips", "Flip rate: answers that differ from the clean picture’s"))
    legend = "".join(f"<li>{legend_svg(kind)}<span>{text}</span></li>" for kind, text in keys)
    dotted = "; the dotted line is the accuracy on clean pictures" if labelled else ""
    return frame(
        "curves",
        "How fast it breaks",
        f"""Each panel is one transform, the most harmful first; from left to right it grows stronger. n =
{findings.pictures(clean)} at every point; bands are 95 % Wilson intervals: the shares among all
pictures like these that so many of them leave plausible{dotted}.""",
        f'<ul class="legend">{legend}</ul>\n<div class="grid charts">{"".join(cards)}</div>',
    )


def _rates(row: Row) -> str:
    right = "" if row.accuracy is None else f"accuracy {share(row.accuracy)}, "
    return f"{right}flipped {share(row.flip_rate)}"


def _told(one: Breaking) -> str:
    back = f"; {one.not_monotone} change back on the way" if one.not_monotone else ""
    never = f"; {one.never} of {one.n} never" if one.never else ""
    if one.median is None:
        return f"fewer than half change up to the end of the sweep{never}{back}"
    half = "half change by" if one.n >= FEWEST else "median:"
    return f"{half} {_median(one)}{never}{back}"


def _median(one: Breaking) -> str:
    """`sigma 7.73 px (95 % interval 5.2 … 11)`, `factor 0.6 (of the range; 95 % interval 0.7 … never)`; no interval of
    fewer than FEWEST pictures."""
    unit, low, high = one.unit, *("never" if end is None else f"{end:.3g}" for end in one.interval)
    said = "too few pictures for an interval" if one.n < FEWEST else f"95 % interval {low} … {high}"
    if unit.startswith(one.parameter):  # `degrees 30 counter-clockwise`
        return f"{one.parameter} {one.median:.3g}{unit.removeprefix(one.parameter)} ({said})"
    return f"{one.parameter} {one.median:.3g}" + (
        f" ({unit}; {said})" if " " in unit else f"{unit and ' '}{unit} ({said})"
    )


def breaking_line(found: Sequence[Breaking]) -> str:
    """The sentence for the top of the page: the three that take least. Empty without any, and where there are too few
    pictures for an interval of a median."""
    swept = {one.transform for one in found}
    once = [one for one in found if TRANSFORMS.get(one.transform).same_as not in swept]
    halved = [one for one in once if one.median is not None and one.n >= FEWEST]
    if not halved:
        return ""
    parts = [f"{one.transform} at {_median(one)}" for one in halved[:3]]
    return f"Of {halved[0].n} pictures half get another answer by {findings.joined(parts)}."


def calibration_section(measured: Measured, frame: Frame = section) -> str:
    """Reliability of the confidences, clean and spoiled; nothing without labels."""
    clean, spoiled = (calibration_error(measured, at) for at in ([0], counted(measured.points)))
    if clean is None:
        return ""
    bins = [(kind, found) for kind, (_, found) in zip(("accuracy", "flips"), calibration_of(measured), strict=True)]
    told = f"{share(clean)} on clean pictures, {share(spoiled)} on spoiled ones"
    return frame(
        "calibration",
        "Does it know when it is wrong?",
        f"""How often answers are right (up) that the model is so sure of (across), in 15 bins; on the dotted diagonal
it is as often right as it thinks. Circles and full line: clean pictures, with 95 % Wilson intervals; squares and
dashes: the spoiled ones together, with 95 % intervals that resample whole pictures, as the answers to one picture hang
together (none where a bin holds fewer than {FEW_CLUSTERS} pictures). Expected calibration error (ECE: how far
confidence and share of right answers lie apart on average; Guo et al. 2017): {told}.""",
        f'<div class="grid charts"><figure class="card">{calibration(bins, f"calibration error {told}")}'
        f"<figcaption>ECE {told}</figcaption></figure></div>",
    )


def classes_section(classes: Sequence[ClassRow], labels: Sequence[str]) -> str:
    """The classes that lose most, as a table; nothing without labels or with one class only."""
    if len(classes) < 2:
        return ""
    told = [row for row in classes if row.n >= FEWEST_OF_CLASS]
    if not told:
        most = max(row.n for row in classes)
        return section(
            "classes",
            "Which classes suffer",
            f"""No class has more than {most} picture{"s" * (most > 1)} here: too few to say which suffers. classes.csv
holds them all the same.""",
            "",
        )
    lines = "".join(
        f'<tr><th scope="row">{escape(labels[row.label].partition(",")[0])}</th><td>{row.n}</td>'
        f"<td>{share(row.clean / row.n)}</td><td>{share(row.spoiled)}</td>"
        f'<td class="left">{escape(row.worst)}</td><td>{share(row.worst_accuracy)}</td></tr>'
        for row in told[:MOST_CLASSES]
    )
    fewer = len(classes) - len(told)
    rest = f" Of {len(told)} classes these are {MOST_CLASSES}." if len(told) > MOST_CLASSES else ""
    if fewer:
        rest += f" Left out: {fewer} class{'es' * (fewer > 1)} of fewer than {FEWEST_OF_CLASS} pictures."
    rest += " classes.csv holds all." if rest else ""
    return section(
        "classes",
        "Which classes suffer",
        f"""Accuracy on the pictures of each class, clean and over the transforms and severities; the class that
loses most first. Few pictures of a class say little of it: n stands beside.{rest}""",
        f"""<div class="numbers scroll" tabindex="0" role="group" aria-label="Classes"><table>
<thead><tr><th scope="col" class="left">Class</th><th scope="col">n</th><th scope="col">Clean</th>
<th scope="col">Spoiled</th><th scope="col" class="left">Worst</th><th scope="col">there</th></tr></thead>
<tbody>{lines}</tbody></table></div>""",
    )
