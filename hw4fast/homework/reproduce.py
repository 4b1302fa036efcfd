"""reproduce: the homework's experiments, its numbers beside ours, one report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from hw4fast import page
from hw4fast.data import DATASETS
from hw4fast.errors import Interrupted, UsageError, UserError
from hw4fast.files import write_text
from hw4fast.homework import corn, fast, flowers, mnist, parts, theory
from hw4fast.homework.parts import Options, Part

PARTS: dict[str, Part] = {part.name: part for part in (mnist.PART, fast.PART, flowers.PART, corn.PART, theory.PART)}
REPORT = "report.html"


@dataclass(frozen=True)
class Result:
    """Of the parts that were asked for: report: the page; results: {part: what it found}; failed: {part: why it could
    not run}; works: all that ran came out as they should."""

    report: Path
    results: dict[str, dict[str, Any]]
    failed: dict[str, str]
    works: bool


def reproduce(names: Sequence[str] = ("all",), out: str | Path = "homework", options: Options | None = None) -> Result:
    """Runs the parts of those names (mnist, fast, flowers, corn, theory, or all) and writes `out`/report.html over all
    parts that have run there.

    What an earlier call finished in `out` is kept, and what was interrupted goes on. A part whose data or weights can't
    be had doesn't keep the others from running. Raises UsageError for an unknown name or settings other than those a
    run was begun with, UserError when no part could run, Interrupted on Ctrl-C.
    """
    unknown = [name for name in names if name not in (*PARTS, "all")]
    if unknown:
        raise UsageError(f"unknown part '{unknown[0]}'; known: {', '.join(PARTS)}, all")
    chosen = [name for name in PARTS if name in names or "all" in names]
    options, out = options or Options(), Path(out)
    _check(options)
    results: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    try:
        for name in chosen:
            try:
                results[name] = PARTS[name].run(out / name, options)
            except (UsageError, Interrupted):
                raise
            except UserError as error:
                failed[name] = str(error)
    except (KeyboardInterrupt, Interrupted):
        again = "finished runs and whole epochs are kept, the same command goes on"
        raise Interrupted(f"interrupted in the part {name}; {again}") from None
    finally:
        report = write_report(out)
    if not results:
        raise UserError("\n".join(failed.values()))
    return Result(report, results, failed, all(PARTS[name].works(found) for name, found in results.items()))


def _check(options: Options) -> None:
    """Raises UsageError for names that a part would stumble on after hours of another one."""
    for name, folder_too in (("dataset", False), ("pictures", True)):
        value = getattr(options, name)
        if value not in DATASETS and not (folder_too and Path(value).is_dir()):
            known = f"a folder, or {', '.join(DATASETS)}" if folder_too else ", ".join(DATASETS)
            raise UsageError(f"--{name} {value}: there is no such data set; known: {known}")
    if options.photo is not None and not Path(options.photo).exists():
        raise UsageError(f"--photo {options.photo}: there is no such picture or folder")


def write_report(out: Path) -> Path:
    """The page of all parts that have results in `out`."""
    found = {name: results for name in PARTS if (results := parts.load(out / name))}
    sections = "\n".join(
        f'<section id="{name}"><h2>{escape(PARTS[name].title)}</h2>\n'
        f"<p>{escape(PARTS[name].finding(results))}.</p>\n{PARTS[name].section(results, out / name)}</section>"
        for name, results in found.items()
    )
    links = " ".join(f'<a href="#{name}">{escape(PARTS[name].title)}</a>' for name in found)
    nav = f'<nav aria-label="On this page">{links} <a href="#repeat">Repeat it</a></nav>'
    headline = ". ".join(PARTS[name].finding(results) for name, results in found.items()) or "Nothing has run yet"
    text = page.page(
        title="The homework, reproduced and corrected",
        kicker="<b>hw4fast reproduce</b> · the homework’s numbers beside ours",
        headline=headline,
        header=nav,
        main=sections + page.repeat("\n".join(parts.command(*pair) for pair in found.items()), _record(found)),
    )
    write_text(out / REPORT, text)
    return out / REPORT


def _record(found: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    pairs = []
    for name, results in found.items():
        machine = results["machine"]
        versions = ", ".join(f"{library} {number}" for library, number in results["versions"].items())
        text = f"{results['finished']}; {machine['processor']}, {machine['cores']} cores; {versions}"
        pairs.append((name, text))
    return pairs
