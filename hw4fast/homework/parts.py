"""What a part of the homework is: something that runs, keeps its results in its folder, and shows them on the page."""

from __future__ import annotations

import base64
import csv
import io
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import Any

from hw4fast import record
from hw4fast.errors import UserError
from hw4fast.figures import pyplot
from hw4fast.files import write_json, write_text, writing
from hw4fast.page import svg

RESULTS = "results.json"
FORMAT = 2  # of the results; a higher number, and those of before are made again from the runs, not shown


@dataclass(frozen=True)
class Options:
    """What `reproduce` was asked for.

    seeds: runs of each recipe, None for 1 in the mnist part and 20 in fast; dataset: of these two; kernels: of the
    mnist part; epochs: at most so many of any run, None for the homework's; pictures: the flowers part's data set or
    folder; photo: a picture or a folder of them for the corn part, None for the usual one; threads: of all that runs at
    a time, None for all cores; jobs: runs of the mnist part at a time, at most as many as threads; progress: bars and
    lines on stderr. More jobs than one are processes of their own, so a script that asks for them does so below
    `if __name__ == "__main__":`.
    """

    seeds: int | None = None
    dataset: str = "mnist"
    pictures: str = "flowers"
    epochs: int | None = None
    kernels: str = "hw4fast"
    photo: str | None = None
    threads: int | None = None
    jobs: int = 1
    progress: bool = True


@dataclass(frozen=True)
class Part:
    """A part of the homework.

    run: does what is not done yet, in the part's own folder, and returns the results, JSON; section: those results as
    HTML; finding: as a sentence; table: as lines for the terminal; works: whether all came out as it should.
    """

    name: str
    title: str
    run: Callable[[Path, Options], dict[str, Any]]
    section: Callable[[dict[str, Any], Path], str]
    finding: Callable[[dict[str, Any]], str]
    table: Callable[[dict[str, Any]], list[str]]
    works: Callable[[dict[str, Any]], bool] = lambda results: True


def save(folder: Path, results: dict[str, Any], options: Options) -> None:
    """results.json, with what was asked for, and the machine and the versions that gave them."""
    origin = {"finished": record.now(), "machine": record.machine(), "versions": record.versions()}
    origin["asked"] = {
        field.name: getattr(options, field.name)
        for field in fields(Options)
        if field.name not in ("jobs", "progress") and getattr(options, field.name) != field.default
    }
    write_json(folder / RESULTS, results | origin | {"commit": record.commit(), "format": FORMAT})


def command(name: str, results: dict[str, Any]) -> str:
    """The command that gave a part's results, fit to be copied into a shell."""
    flags = [f"--{key} {shlex.quote(str(value))}" for key, value in results.get("asked", {}).items()]
    return " ".join(["hw4fast reproduce", name, *flags])


def load(folder: Path) -> dict[str, Any] | None:
    """What `save` wrote; None when the part has not run here, or with another version of hw4fast that wrote it in
    another format. Raises UserError when it is damaged."""
    path = folder / RESULTS
    if not path.is_file():
        return None
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(results, dict):
            raise TypeError("no object")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run that part again") from None
    return results if results.get("format") == FORMAT else None


def save_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One line per row; the first row's keys are the columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def save_png(figure: Any, path: Path) -> None:
    """Writes a figure and closes it."""
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=150)
    pyplot().close(figure)


def inked(axes: Any, ink: str) -> None:
    """Draws the axes, their words and their grid in the colour `ink`."""
    axes.tick_params(which="both", colors=ink)
    axes.xaxis.label.set_color(ink)
    axes.yaxis.label.set_color(ink)
    axes.spines[["left", "bottom"]].set_color(ink)
    axes.grid(color=ink, alpha=0.15, linewidth=0.6)


def photograph(path: Path, title: str, description: str, caption: str = "") -> str:
    """A PNG file as a card of the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="card"><h3>{escape(title)}</h3><div class="scroll" tabindex="0"><img class="sheet"'
        f' alt="{escape(description)}" src="data:image/png;base64,{data}"></div>{below}</figure>'
    )


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table for the terminal, columns under each other."""
    cells = [head, *rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def drawing(figure: Any, name: str, title: str, caption: str) -> str:
    """A figure as a card of the page, closed afterwards."""
    drawn = svg(figure, name, escape(f"{title}. {caption}", quote=True))
    pyplot().close(figure)
    heading, below = escape(title), escape(caption)
    return f'<figure class="card"><h3>{heading}</h3>{drawn}<figcaption>{below}</figcaption></figure>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, label: str = "Numbers") -> str:
    """An HTML table; the first `left` columns are text. Cells are text, too."""
    kinds = [' class="left"' if column < left else "" for column in range(len(head))]
    heads = "".join(f'<th scope="col"{kind}>{escape(text)}</th>' for text, kind in zip(head, kinds, strict=True))
    lines = []
    for row in rows:
        first = f'<th scope="row">{escape(row[0])}</th>'
        rest = "".join(
            f'<td class="spec">{escape(cell)}</td>' if column < left else f"<td>{escape(cell)}</td>"
            for column, cell in enumerate(row[1:], 1)
        )
        lines.append(f"<tr>{first}{rest}</tr>")
    swipe = '<p class="note swipe">The table is wider than the screen: swipe sideways for the other columns.</p>'
    return (
        f'{swipe}<div class="numbers scroll" tabindex="0" role="group" aria-label="{escape(label)}"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
