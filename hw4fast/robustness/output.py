"""The folder that a study leaves: tables, pictures, the page, and the record of how it came about."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hw4fast.files import write_json, write_text
from hw4fast.inference.card import Card
from hw4fast.record import now, processor, versions
from hw4fast.robustness import findings
from hw4fast.robustness.across import Across, across_models
from hw4fast.robustness.album import Album, make_album
from hw4fast.robustness.analysis import ModelRow, breaking_points, calibration_of, model_row
from hw4fast.robustness.asking import Asked
from hw4fast.robustness.breaking import PICTURES
from hw4fast.robustness.figures import save_breaking, save_calibration, save_curves, save_grid, save_heat, save_models
from hw4fast.robustness.folder import RECORD
from hw4fast.robustness.measure import Measured
from hw4fast.robustness.metrics import Row
from hw4fast.robustness.pictures import Prints
from hw4fast.robustness.points import counted
from hw4fast.robustness.report import Report, render
from hw4fast.robustness.source import Source
from hw4fast.robustness.tables import further_tables, prediction_tables, summary_table, write_table

if TYPE_CHECKING:
    from hw4fast.inference.classifier import Classifier

TABLES = ("predictions", "summary", "transforms", "models", "classes", "breaking", "comparison", "across")
PLOTS = ("accuracy", "heat", "breaking", "calibration")  # of each model; and `models` of all
USED = ("python", "hw4fast", "numpy", "pillow", "onnxruntime-gpu", "onnxruntime")  # shown


@dataclass(frozen=True)
class Outcome:
    """A finished measurement. arguments: of `study`, as given; measured: of each of the models; seconds: it took;
    device: where transforms ran, but for those that it doesn't know."""

    arguments: dict[str, Any]
    source: Source
    models: Sequence[Asked]
    measured: Sequence[Measured]
    seconds: float
    device: str = "cpu"

    @cached_property
    def rows(self) -> tuple[tuple[Row, ...], ...]:
        """Per model, clean first."""
        return tuple(tuple(measured.rows()) for measured in self.measured)

    @cached_property
    def model_rows(self) -> tuple[ModelRow, ...]:
        return tuple(
            model_row(model.name, found, rows, len(model.classifier.card.labels))
            for model, found, rows in zip(self.models, self.measured, self.rows, strict=True)
        )

    @cached_property
    def across(self) -> Across | None:
        return across_models([model.name for model in self.models], self.measured)

    @cached_property
    def album(self) -> Album:
        """The pictures to show, of what the first model answered."""
        measured, classifier = self.measured[0], self.classifier

        def picture(number: int) -> tuple[np.ndarray, dict[str, Any]]:
            decoded = self.source.read(measured.numbers[number])
            return classifier.fit(decoded), {"decoded": decoded, "preprocessing": classifier.card.preprocessing}

        return make_album(measured, picture)

    @property
    def classifier(self) -> Classifier:
        return self.models[0].classifier

    @property
    def reused(self) -> int:
        """How many of the predictions were there from before."""
        return self.measured[0].reused

    @property
    def notes(self) -> tuple[str, ...]:
        """That a model was trained on pictures of the folder's name: on those its accuracy says little."""
        if self.source.folder is None or self.source.held_out:
            return ()
        trained = [model.name for model in self.models if _trained_on(model.classifier.card) == self.source.name]
        return tuple(
            f"{name} was trained on a folder named '{self.source.name}': where it is this one, most of these pictures"
            " were learnt by heart, and what they show is too good; study pictures that it has never seen"
            for name in trained
        )

    @property
    def predictions(self) -> int:
        return sum(measured.answers.size for measured in self.measured)


def _trained_on(card: Card) -> object:
    """The data set's name of a run of ours; None of other files, whose provenance may hold anything."""
    settings = card.provenance.get("settings")
    return settings.get("dataset") if isinstance(settings, dict) else None


def write_files(folder: Path, outcome: Outcome) -> None:
    """All that a study leaves, into a folder that is there; `study.json` last: what it says stands there, does. What an
    earlier study left there of such files, and this one has not, goes."""
    tables = {"predictions": prediction_tables(outcome.models, outcome.measured), "summary": summary_table(outcome)}
    tables |= further_tables(outcome)
    for name, table in tables.items():
        write_table(folder / name, table)
    plots = _save_pictures(folder, outcome)
    write_text(folder / "report.html", render(_report(outcome)))
    _remove_stale(folder, tables, plots)
    write_json(folder / RECORD, _record(outcome))


def _remove_stale(folder: Path, tables: Iterable[str], plots: Iterable[str]) -> None:
    """Tables and plots of names that only a study writes, other than these."""
    kept = {f"{name}.{kind}" for name in tables for kind in ("csv", "parquet")}
    kept |= {f"{name}.{kind}" for name in plots for kind in ("png", "svg")}
    ours = re.compile(rf"({'|'.join(TABLES)})\.(csv|parquet)|(({'|'.join(PLOTS)})(-[1-9]\d*)?|models)\.(png|svg)")
    for path in folder.iterdir():
        if ours.fullmatch(path.name) and path.name not in kept and path.is_file():
            path.unlink()


def _save_pictures(folder: Path, outcome: Outcome) -> list[str]:
    """Every plot of the page as .png and .svg, of the second model as `heat-2` and so on; `transforms.png`, which is
    photographs, of the first one. The names of the plots that there are."""
    saved: list[str] = []
    for number, (model, rows, measured) in enumerate(zip(outcome.models, outcome.rows, outcome.measured, strict=True)):
        mark = f"-{number + 1}" if number else ""
        named = f"{outcome.source.name} · {model.name}"
        title = f"{named} · n = {rows[0].n} pictures"
        few = f"{named} · n = {len(measured.sought)} of {rows[0].n} pictures"
        sweeps = {transform.name: transform.sweep for transform in measured.swept if transform.sweep is not None}
        accuracy, heat, breaking, calibration = (folder / f"{name}{mark}" for name in PLOTS)
        save_curves(accuracy, rows[0], findings.by_series(rows), title)
        there = {
            accuracy: True,
            heat: save_heat(heat, rows, title),
            breaking: save_breaking(breaking, breaking_points(measured), sweeps, few),
            calibration: save_calibration(calibration, calibration_of(measured), title),
        }
        saved += [path.name for path, drawn in there.items() if drawn]
    _save_transforms(folder / "transforms.png", outcome)
    if outcome.across and save_models(folder / "models", outcome.across, outcome.source.name):
        saved.append("models")
    return saved


def _record(outcome: Outcome) -> dict[str, Any]:
    """`study.json`: all that is needed to repeat the study and to know what ran."""
    clean = outcome.rows[0][0]
    return {
        "status": "finished",
        "source": outcome.source.identity,
        "seed": outcome.arguments["seed"],
        "finding": findings.headline(outcome.rows[0]),
        "arguments": outcome.arguments,
        "date": now(),
        "command": shlex.join(command(outcome.arguments)),
        "models": [
            {
                "model": model.name,
                "sha256": model.classifier.sha256,
                "labels": len(model.classifier.card.labels),
                "finding": findings.headline(rows),
            }
            for model, rows in zip(outcome.models, outcome.rows, strict=True)
        ],
        "provider": outcome.classifier.provider,
        "transforms_on": outcome.device,
        "versions": versions(),
        "processor": processor(),
        "n": clean.n,
        "labelled": clean.labelled,
        "points": len(outcome.measured[0].points),
        "counted": len(counted(outcome.measured[0].points)),  # of them, in means over all
        "predictions": outcome.predictions,
        "reused": outcome.reused,
        "seconds": round(outcome.seconds, 3),
        "notes": list(outcome.notes),
        "failures": [{"image": name, "reason": reason} for name, reason in outcome.measured[0].failures],
    }


def command(arguments: dict[str, Any]) -> list[str]:
    """The command line that repeats the study; what has its default is left out, the seed never."""
    words = ["hw4fast", "study", arguments["source"], "--model", *arguments["model"]]
    words += ["--transforms", ",".join(arguments["transforms"])] if arguments["transforms"] else []
    words += ["--seed", str(arguments["seed"])]
    words += ["--provider", arguments["provider"]] if arguments["provider"] != "cpu" else []
    for name in ("threads", "limit", "labels", "out"):
        words += [f"--{name}", str(arguments[name])] if arguments[name] is not None else []
    words += ["--breaking", str(arguments["breaking"])] if arguments["breaking"] != PICTURES else []
    for path in arguments["imports"]:
        words += ["--import", path]
    return words


def _report(outcome: Outcome) -> Report:
    record = _record(outcome)
    speed = f"{record['predictions']} predictions, {outcome.reused} of them from before, in {outcome.seconds:.1f} s"
    used = [f"{name} {record['versions'][name]}" for name in USED if name in record["versions"]]
    return Report(
        title=outcome.source.name,
        model=outcome.models[0].name,
        measured=outcome.measured[0],
        album=outcome.album,
        rows=outcome.rows[0],
        model_labels=outcome.classifier.card.labels,
        seed=outcome.arguments["seed"],
        command=record["command"],
        date=record["date"][:10],
        models=outcome.model_rows,
        across=outcome.across,
        others=[(model.name, found) for model, found in zip(outcome.models[1:], outcome.measured[1:], strict=True)],
        record=[
            *(("Note", note) for note in outcome.notes),
            ("Seed", str(outcome.arguments["seed"])),
            ("Model, SHA-256", outcome.classifier.sha256),
            ("Ran on", f"{record['provider']}, {record['processor']}: {speed}"),
            ("Versions", ", ".join(used)),
            (
                "Beside this page",
                "every number (.csv, .parquet), every plot (.png, .svg), study.json",
            ),
        ],
    )


def _save_transforms(path: Path, outcome: Outcome) -> None:
    """One example under every transform, with the model's answers."""
    measured = outcome.measured[0]
    prints = Prints(measured, outcome.album, outcome.classifier.card.labels, outcome.arguments["seed"], side=0)
    number = outcome.album.examples[0]
    lines = []
    for group in findings.by_series(outcome.rows[0]):  # in the order of the page and of accuracy.png
        places = [0, *(measured.points.index(row.point) for row in group)]
        cells = [(measured.points[at].heading, prints.array(number, at), prints.line(number, at)) for at in places]
        lines.append((group[0].point.series, cells))
    save_grid(path, lines, f"{measured.names[number]} of {outcome.source.name}, and what the model answers")
