"""The folder that a study leaves: tables, pictures, the page, and the record of how it came about."""

from __future__ import annotations

import csv
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw4fast.errors import UserError
from hw4fast.files import free_sibling, write_json, write_text
from hw4fast.record import now, processor, versions
from hw4fast.robustness import findings
from hw4fast.robustness.figures import save_curves, save_grid
from hw4fast.robustness.measure import Measured
from hw4fast.robustness.metrics import NO_LABEL, Row
from hw4fast.robustness.pictures import Prints
from hw4fast.robustness.report import Report, render

if TYPE_CHECKING:
    from hw4fast.inference.classifier import Classifier

USED = ("python", "hw4fast", "numpy", "pillow", "onnxruntime-gpu", "onnxruntime")  # versions that the page shows


@dataclass(frozen=True)
class Outcome:
    """A finished measurement. arguments: of `study`, as given; source: its name; seconds: it took to measure."""

    arguments: dict[str, Any]
    source: str
    classifier: Classifier
    measured: Measured
    rows: tuple[Row, ...]
    seconds: float

    @property
    def model(self) -> str:
        """The model file and the folder it lies in."""
        return "/".join(self.classifier.path.parts[-2:])


@contextmanager
def draft_of(wanted: Path) -> Iterator[Path]:
    """A hidden new folder beside `wanted`, to be filled and then put in its place by `files.settle`.

    Whatever happens, nothing half-done stays. Raises UserError when nothing can be written there, before any work.
    """
    made = [folder for folder in wanted.parents if not folder.exists()]
    draft = free_sibling(wanted.parent / f".{wanted.name}-{os.getpid()}")
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"the study can't be written to '{wanted}': {error.strerror}; name another folder") from None
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # not empty: the study stands in it
                folder.rmdir()


def write_files(folder: Path, outcome: Outcome) -> None:
    """All that a study leaves, into a folder that is there."""
    title = f"{outcome.source} · {outcome.model} · n = {outcome.rows[0].n} pictures"
    write_json(folder / "study.json", _record(outcome))
    _write_table(folder / "predictions.csv", PREDICTIONS, _predictions(outcome))
    lines = [row.to_json() for row in outcome.rows]
    _write_table(folder / "summary.csv", list(lines[0]), [line.values() for line in lines])
    save_curves(folder / "accuracy.png", outcome.rows[0], findings.by_series(outcome.rows), title)
    _save_transforms(folder / "transforms.png", outcome)
    write_text(folder / "report.html", render(_report(outcome)))


PREDICTIONS = (
    "image", "label", "transform", "severity", "answer", "answer_name", "confidence", "correct", "flipped",
)  # fmt: skip


def _predictions(outcome: Outcome) -> Iterable[Sequence[Any]]:
    """Picture by picture, clean first. Empty: no label, or no severity (a strength of the user's own)."""
    measured, names = outcome.measured, outcome.classifier.card.labels
    for column, image in enumerate(measured.names):
        label = measured.labels[column]
        clean = measured.answers[0, column]
        for at, point in enumerate(measured.points):
            answer, confidence = measured.answers[at, column], measured.confidence[at, column]
            yield (
                image,
                "" if label == NO_LABEL else label,
                point.series,
                "" if point.severity is None else point.severity,
                answer,
                names[answer],
                f"{confidence:.4f}",  # more digits would show how onnxruntime rounds
                "" if label == NO_LABEL else int(answer == label),
                int(answer != clean),
            )


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Empty for None; fractions with six digits."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([f"{value:.6f}" if isinstance(value, float) else value for value in row])


def _record(outcome: Outcome) -> dict[str, Any]:
    """`study.json`: all that is needed to repeat the study and to know what ran."""
    clean = outcome.rows[0]
    return {
        "finding": findings.headline(outcome.rows),
        "arguments": outcome.arguments,
        "date": now(),
        "command": _command(outcome.arguments),
        "model": {"sha256": outcome.classifier.sha256, "labels": len(outcome.classifier.card.labels)},
        "provider": outcome.classifier.provider,
        "versions": versions(),
        "processor": processor(),
        "n": clean.n,
        "labelled": clean.labelled,
        "predictions": clean.n * len(outcome.rows),
        "seconds": round(outcome.seconds, 3),
        "failures": [{"image": name, "reason": reason} for name, reason in outcome.measured.failures],
    }


def _command(arguments: dict[str, Any]) -> str:
    """The command line that repeats the study; what has its default is left out, the seed never."""
    words = ["hw4fast", "study", arguments["source"], "--model", arguments["model"]]
    words += ["--transforms", ",".join(arguments["transforms"])] if arguments["transforms"] else []
    words += ["--seed", str(arguments["seed"])]
    words += ["--provider", arguments["provider"]] if arguments["provider"] != "cpu" else []
    for name in ("threads", "limit"):
        words += [f"--{name}", str(arguments[name])] if arguments[name] is not None else []
    return shlex.join(words)


def _report(outcome: Outcome) -> Report:
    record = _record(outcome)
    speed = f"{record['predictions']} predictions in {outcome.seconds:.1f} s"
    used = [f"{name} {record['versions'][name]}" for name in USED if name in record["versions"]]
    return Report(
        title=outcome.source,
        model=outcome.model,
        measured=outcome.measured,
        rows=outcome.rows,
        model_labels=outcome.classifier.card.labels,
        seed=outcome.arguments["seed"],
        command=record["command"],
        date=record["date"][:10],
        record=[
            ("Seed", str(outcome.arguments["seed"])),
            ("Model, SHA-256", record["model"]["sha256"]),
            ("Ran on", f"{record['provider']}, {record['processor']}: {speed}"),
            ("Versions", ", ".join(used)),
            ("Beside this page", "predictions.csv, summary.csv, study.json, accuracy.png, transforms.png"),
        ],
    )


def _save_transforms(path: Path, outcome: Outcome) -> None:
    """One example under every transform, with the model's answers."""
    measured = outcome.measured
    prints = Prints(measured, outcome.classifier.card.labels, outcome.arguments["seed"], side=0)
    number = measured.album.examples()[0]
    lines = []
    for group in findings.by_series(outcome.rows):  # in the order of the page and of accuracy.png
        places = [0, *(measured.points.index(row.point) for row in group)]
        cells = [(measured.points[at].heading, prints.array(number, at), prints.line(number, at)) for at in places]
        lines.append((group[0].point.series, cells))
    save_grid(path, lines, f"{measured.names[number]} of {outcome.source}, and what the model answers")
