"""`study`: what breaks a model. Every picture under every transform at every severity, as tables and as a page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw4fast.errors import UsageError
from hw4fast.files import settle
from hw4fast.robustness.findings import headline
from hw4fast.robustness.measure import measure
from hw4fast.robustness.metrics import Row
from hw4fast.robustness.output import Outcome, draft_of, write_files
from hw4fast.robustness.points import points_of
from hw4fast.robustness.source import Source, choose, open_source

STUDIES = Path("studies")


@dataclass(frozen=True)
class StudyResult:
    """out: the folder that was written; report: its page, to look at next; n_images: pictures measured;
    clean: (right answers, labelled pictures) without a transform, None without labels; rows: the summary, clean
    first; failures: (name, reason) of each picture that could not be read; finding: the page's first sentence.
    """

    out: Path
    report: Path
    n_images: int
    clean: tuple[int, int] | None
    rows: tuple[Row, ...]
    failures: tuple[tuple[str, str], ...]
    finding: str

    def to_json(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            "report": str(self.report),
            "finding": self.finding,
            "n_images": self.n_images,
            "rows": [row.to_json() for row in self.rows],
            "failures": [{"image": name, "reason": reason} for name, reason in self.failures],
        }


def study(
    source: str | Path,
    model: str | Path,
    transforms: Sequence[str] | str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    provider: str = "cpu",
    threads: int | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> StudyResult:
    """Measures `model` on every picture of `source`, clean and under every transform, and writes what it found.

    source: a data set's name (its test split) or a folder of pictures (see `read_folder` for its labels).
    model: an exported `.onnx` file. transforms: names (each at severities 1…5) or specifications with a level such
    as `blur51` or `noise:std=0.1+rotate10` (one point each); every transform if None.
    out: the folder to write; `studies/SOURCE` if None. What stands there already is kept: a numbered sibling is
    written instead. The folder appears whole, at the end; an interrupted study leaves none.
    seed: of all chance. limit: only that many pictures, the first of a shuffle that `seed` fixes.

    The same arguments give byte-identical `predictions.csv` and `summary.csv` on the same machine.
    Raises UserError and UsageError for what can't be had; pictures that can't be read are skipped and reported.
    """
    from hw4fast.inference.classifier import Classifier

    if seed < 0:
        raise UsageError(f"seed must not be negative, it is {seed}")
    points = points_of([transforms] if isinstance(transforms, str) else transforms)
    classifier = Classifier(model, provider, threads)
    opened = open_source(source, classifier.card.labels)
    chosen = choose(len(opened.names), limit, seed)
    wanted = _wanted(out, opened)
    with draft_of(wanted) as draft:
        started = time.perf_counter()
        measured = measure(opened, chosen, classifier, points, seed=seed, progress=progress)
        arguments = {
            "source": str(source),
            "model": str(model),
            "transforms": None if transforms is None else list(transforms),
            "seed": seed,
            "provider": provider,
            "threads": threads,
            "limit": limit,
        }
        seconds = time.perf_counter() - started
        outcome = Outcome(arguments, opened.name, classifier, measured, tuple(measured.rows()), seconds)
        write_files(draft, outcome)
        return _result(settle(draft, wanted), outcome)


def _wanted(out: str | Path | None, source: Source) -> Path:
    """Where to write. UsageError for a place inside the pictures' folder: the next study would take the study's own
    pictures for some of them."""
    wanted = STUDIES / source.name if out is None else Path(out)
    if wanted.name in ("", ".."):
        raise UsageError(f"name a folder to write the study to, not '{out}'")
    if source.folder is not None and wanted.resolve().is_relative_to(source.folder.resolve()):
        raise UsageError(f"the study would be written among the pictures, to '{wanted}'; name an --out elsewhere")
    return wanted


def _result(folder: Path, outcome: Outcome) -> StudyResult:
    clean = outcome.rows[0]
    return StudyResult(
        out=folder,
        report=folder / "report.html",
        n_images=clean.n,
        clean=(clean.correct, clean.labelled) if clean.labelled else None,
        rows=outcome.rows,
        failures=outcome.measured.failures,
        finding=headline(outcome.rows),
    )
