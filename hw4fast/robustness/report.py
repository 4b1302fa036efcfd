"""`report.html`: the finding in words, the curves, the pictures, the table, how to repeat it. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from hw4fast import page
from hw4fast.robustness import findings, model_sections, sections
from hw4fast.robustness.across import Across
from hw4fast.robustness.album import FLIPS_PER_SERIES, Album
from hw4fast.robustness.analysis import ModelRow, breaking_points, classes_of, series_of
from hw4fast.robustness.drawings import CSS
from hw4fast.robustness.findings import share
from hw4fast.robustness.measure import Measured
from hw4fast.robustness.metrics import LOST, Row, breaks
from hw4fast.robustness.pictures import Prints, short
from hw4fast.robustness.points import Point
from hw4fast.stats import half_up

LARGEST = 4_500_000  # bytes of a page
SIDES = (192, 144, 112, 80, 56)  # pixels of an embedded picture: the largest that keeps the page below LARGEST


@dataclass(frozen=True)
class Report:
    """What a page is made of. title: what was studied; model: the first one's name, whose answers the page is about;
    others: further models and what they answered, which it is compared with; models, across: all of them over the
    whole study; command: repeats it; record: (name, value) pairs to show; date: of the study, empty where it isn't to
    be shown.
    """

    title: str
    model: str
    measured: Measured
    album: Album
    rows: Sequence[Row]
    model_labels: Sequence[str]
    seed: int
    command: str
    record: Sequence[tuple[str, str]]
    date: str = ""
    others: Sequence[tuple[str, Measured]] = ()
    models: Sequence[ModelRow] = ()
    across: Across | None = None


def render(report: Report) -> str:
    """The whole page; every name that comes from outside is escaped."""
    charts = _plots(report)
    for side in SIDES:
        prints = Prints(report.measured, report.album, report.model_labels, report.seed, side)
        text = _page(report, charts, _strips(report, prints), _flips(report, prints))
        if len(text) <= LARGEST:
            break
    return text


def _plots(report: Report) -> tuple[str, str, str]:
    """What needs no pictures: the heat map and the curves; breaking points, calibration, classes; other models."""
    measured = report.measured
    heat = sections.heat_map(report.rows, series_of(report.rows, len(report.model_labels)))
    broken = sections.breaking_section(breaking_points(measured))
    classes = sections.classes_section(classes_of(measured), report.model_labels)
    listed = model_sections.models_section(report.models)
    names, others = [report.model, *(name for name, _ in report.others)], [measured, *(m for _, m in report.others)]
    compared = _further(report) + model_sections.comparison_section(names, others)
    listed += model_sections.across_section(report.across) if report.across else ""
    return (
        listed + heat + broken + sections.curves_section(report.rows),
        sections.calibration_section(measured) + classes,
        compared,
    )


def _further(report: Report) -> str:
    """The plots of each further model, collapsed on a screen."""
    models = []
    for number, (name, found) in enumerate(report.others, 2):
        rows = found.rows()
        plots = (
            sections.heat_map(rows, series_of(rows, found.classes), sections.part),
            sections.breaking_section(breaking_points(found), sections.part),
            sections.curves_section(rows, sections.part),
            sections.calibration_section(found, sections.part),
        )
        models.append(
            f'<details class="model" id="model-{number}"><summary>{page.breakable(name)}: '
            f"{escape(findings.headline(rows))}</summary>{''.join(plots)}</details>"
        )
    if not models:
        return ""
    return f"""<section id="further"><h2>The other model{"s" * (len(models) > 1)}</h2>
<p class="note">The same plots of every further model, as explained above; open what you want to see.</p>
{"".join(models)}</section>"""


def _page(report: Report, plots: tuple[str, str, str], strips: str, flips: str) -> str:
    title = escape(f"{report.title} · {report.model}")
    failures = _failures(report)
    date = f" · {escape(report.date)}" if report.date else ""
    places = (
        ("models", "Models"),
        ("across", "Model by transform"),
        ("heat", "Heat map"),
        ("breaking", "Breaking points"),
        ("calibration", "Calibration"),
        ("classes", "Classes"),
        ("further", "Other models"),
    )
    links = "".join(f'<a href="#{name}">{text}</a> ' for name, text in places if f'id="{name}"' in "".join(plots))
    more = '<a href="#failures">Unreadable pictures</a>' if failures else ""
    lede = [*findings.details(report.rows), sections.breaking_line(breaking_points(report.measured))]
    lede += [model_sections.alexnet_line(report.models[0])] if report.models else []
    header = f"""<p class="lede">{escape(" ".join(lede).strip())}</p>
<p class="note">{escape(findings.meaning(report.rows))}</p>
{_facts(report)}
<nav aria-label="On this page"><a href="#curves">Curves</a> {links}<a href="#pictures">Pictures</a>
<a href="#flips">First flips</a> <a href="#numbers">Numbers</a> <a href="#repeat">Repeat it</a> {more}</nav>"""
    plain, pages = page.repeat(report.command, list(report.record)), (plots[0], strips, flips, plots[1], plots[2])
    return page.page(
        title=f"What breaks it: {report.title} · {report.model}",
        kicker=f"<b>hw4fast study</b> · {title}{date}",
        headline=findings.headline(report.rows),
        header=header,
        main="\n".join([*pages, _numbers(report), failures, plain]),
        css=CSS,
    )


def _facts(report: Report) -> str:
    clean, rows = report.rows[0], report.rows
    facts = []
    if clean.accuracy is not None:
        of = f"{clean.correct} of {clean.labelled}; 95 % interval {_interval(clean.accuracy_interval)}"
        facts.append(("Accuracy on clean pictures", share(clean.accuracy), of))
    if clean.top5 is not None:
        of = f"{clean.correct_top5} of {clean.labelled}; 95 % interval {_interval(clean.top5_interval)}"
        facts.append(("Right among the top 5, clean", share(clean.top5), of))
    worst = max(rows[1:], key=lambda row: row.flip_rate)
    changes = f"each clean and changed in {len(rows) - 1} ways"
    by = f"by {worst.point.spec}" if worst.flips else "not one changed"
    least = min(rows[1:], key=lambda row: row.mean_confidence)
    least_note = f"by {least.point.spec}; clean pictures {share(clean.mean_confidence)}"
    facts += [
        ("Pictures", f"{clean.n:,}".replace(",", "\u202f"), changes if len(rows) > 2 else "each clean and changed"),
        ("Most answers flipped", share(worst.flip_rate), by),
        ("Lowest mean confidence", share(least.mean_confidence), least_note),
    ]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{page.breakable(note)}</small></dd></div>"
        for name, value, note in facts
    )
    return f'<dl class="facts">{cells}</dl>'


def _strips(report: Report, prints: Prints) -> str:
    points = report.measured.points
    examples = report.album.examples
    longest = max(len(prints.answer(number, at)) for number in examples for at in range(len(points)))
    cards = []
    for group in findings.by_series(report.rows):
        name, shown = escape(group[0].point.series), page.breakable(group[0].point.series)
        places = [0, *(points.index(row.point) for row in group)]
        cards.append(
            f'<div class="card"><h3>{shown}</h3><p class="soft">{escape(group[0].point.summary)}</p>'
            f'<div class="scroll" tabindex="0" role="group" aria-label="Pictures: {name}">'
            f'<table class="{"strip wide" if longest > 7 else "strip"}">'
            f"{_strip(prints, examples, places)}</table></div></div>"
        )
    key = "✓ right, ✗ wrong" if report.rows[0].accuracy is not None else "= as when clean, ≠ answered otherwise"
    return f"""<section id="pictures"><h2>What the model sees</h2>
<p class="note">The same {len(examples)} pictures under every transform, at the size the network reads<span
class="paper"> (on paper two of them)</span>. Below each: the model’s answer and the probability it gives it.
{key}; those that are off stand in a thick frame.</p>
<div class="grid strips">{"".join(cards)}</div></section>"""


def _strip(prints: Prints, examples: Sequence[int], places: Sequence[int]) -> str:
    """The inside of a table: a column per severity; for a fixed strength a line each for clean and as given."""
    heads = [_heading(prints.measured.points[at], prints.measured.points[places[-1]]) for at in places]
    if len(places) == 2:
        lines = [
            f'<tr><th scope="row">{head}</th>{"".join(_cell(prints, number, at) for number in examples)}</tr>'
            for head, at in zip(heads, places, strict=True)
        ]
        return f"<tbody>{''.join(lines)}</tbody>"
    lines = [f"<tr>{''.join(_cell(prints, number, at) for at in places)}</tr>" for number in examples]
    columns = "".join(f'<th scope="col">{head}</th>' for head in heads)
    return f"<thead><tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody>"


def _heading(point: Point, strongest: Point) -> str:
    """The severity over its level; over the clean column, the level's name."""
    below = point.level[1] if point.level else strongest.level[0] if strongest.level else point.spec
    return f"{escape(point.label)} <small>{escape(below)}</small>"


def _cell(prints: Prints, number: int, at: int, tag: str = "td") -> str:
    off = ' class="off"' if prints.off(number, at) else ""
    return f"<{tag}{off}>{prints.html(number, at)}</{tag}>"


def _flips(report: Report, prints: Prints) -> str:
    points, flips = report.measured.points, report.album.flips
    cards = []
    for flip in flips:
        point = points[flip.at]
        name = page.breakable(report.measured.names[flip.number])
        where = f"{point.series}, severity {point.severity}" if point.severity else point.series
        cards.append(
            f'<figure class="card"><h3>{page.breakable(where)}</h3>'
            f'<div class="pair">{_cell(prints, flip.number, 0, "div")}'
            f'<span class="arrow" aria-label="becomes">→</span>{_cell(prints, flip.number, flip.at, "div")}</div>'
            f"<figcaption>{name}{_truth(report, flip.number)}</figcaption>"
            "</figure>"
        )
    knew = "knew when clean" if report.rows[0].labelled else "was asked about"
    text = (
        f"At most {FLIPS_PER_SERIES} pictures per transform that the model {knew}: first those whose answer changed at "
        "the least severity, among these the ones where it is surest of its new answer. predictions.csv holds all "
        "answers."
        if cards
        else f"No answer to a picture that the model {knew} changed under any transform."
    )
    return f"""<section id="flips"><h2>Which pictures flipped first</h2>
<p class="note">{text}</p>
<div class="grid flips">{"".join(cards)}</div></section>"""


def _truth(report: Report, number: int) -> str:
    label = int(report.measured.labels[number])
    return f" · labelled\u00a0{escape(short(report.model_labels[label]))}" if label >= 0 else ""


def _numbers(report: Report) -> str:
    clean = report.rows[0]
    labelled = clean.accuracy is not None
    bodies = [_body([clean], clean)] + [_body(group, clean) for group in findings.by_series(report.rows)]
    right = '<th scope="col">Accuracy</th><th scope="col">95 % interval</th>' if labelled else ""
    if clean.top5 is not None:
        right += '<th scope="col">Top 5</th><th scope="col">95 % interval</th>'
    least = f"{100 * LOST:.0f}"
    top = (
        " Top 5: the label is among the five classes that the model holds likeliest." if clean.top5 is not None else ""
    )
    tinted = (
        f"breaks the model: its accuracy is at least {least} points below clean"
        if labelled
        else f"changes the model’s mind: at least {least} % of its answers differ from clean"
    )
    return f"""<section id="numbers"><h2>Every number</h2>
<p class="note">n = {findings.pictures(clean)} in every line; 95 % Wilson intervals. A tinted line {tinted}, and the
intervals lie apart.{top}</p>
<p class="note swipe">The table is wider than the screen: swipe sideways for the other columns.</p>
<div class="numbers scroll" tabindex="0" role="group" aria-label="Every number"><table>
<thead><tr><th scope="col" class="left">Transform</th><th scope="col" class="left">Severity</th>{right}
<th scope="col">Flipped</th><th scope="col">95 % interval</th><th scope="col">Mean confidence</th>
<th scope="col" class="left">Written as</th></tr></thead>
{"".join(bodies)}
</table></div></section>"""


def _body(group: Sequence[Row], clean: Row) -> str:
    lines = []
    for place, row in enumerate(group):
        name = (
            f'<th scope="rowgroup" rowspan="{len(group)}">{page.breakable(row.point.series)}</th>' if place == 0 else ""
        )
        severity = "–" if not row.point.severity else str(row.point.severity)
        right = ""
        if row.accuracy is not None:
            right = f"<td>{share(row.accuracy)}{_bar(row.accuracy, '')}</td><td>{_interval(row.accuracy_interval)}</td>"
        if row.top5 is not None:
            right += f"<td>{share(row.top5)}</td><td>{_interval(row.top5_interval)}</td>"
        broken = ' class="broken"' if breaks(row, clean) else ""
        lines.append(
            f'<tr{broken}>{name}<td class="left">{severity}</td>{right}'
            f"<td>{share(row.flip_rate)}{_bar(row.flip_rate, ' f')}</td><td>{_interval(row.flip_interval)}</td>"
            f'<td>{share(row.mean_confidence)}</td><td class="spec">{page.breakable(row.point.spec)}</td></tr>'
        )
    return f"<tbody>{''.join(lines)}</tbody>"


def _bar(value: float, kind: str) -> str:
    return f'<span class="bar{kind}" aria-hidden="true"><i style="width:{100 * value:.1f}%"></i></span>'


def _interval(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else "\u00a0…\u00a0".join(half_up(100 * end, 1) for end in interval)


def _failures(report: Report) -> str:
    failures = report.measured.failures
    if not failures:
        return ""
    shown = "".join(f"<li><b>{escape(name)}</b>: {escape(reason)}</li>" for name, reason in failures[:50])
    more = f"<li>and {len(failures) - 50} more: study.json names them all</li>" if len(failures) > 50 else ""
    return f"""<section id="failures"><h2>Pictures that could not be read</h2>
<p class="note">{len(failures)} left out of every number above.</p><ul class="failures">{shown}{more}</ul></section>"""
