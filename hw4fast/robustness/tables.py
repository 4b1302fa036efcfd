"""A study's numbers as tables: Parquet for programs, CSV for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hw4fast.files import writing
from hw4fast.robustness.across import Across
from hw4fast.robustness.analysis import Breaking, breaking_points, classes_of, compare, series_of
from hw4fast.robustness.asking import Asked
from hw4fast.robustness.measure import Measured
from hw4fast.robustness.metrics import NO_LABEL

PICTURES = 512  # of a table of predictions

if TYPE_CHECKING:
    from hw4fast.robustness.output import Outcome


def prediction_tables(models: Sequence[Asked], measured: Sequence[Measured]) -> Iterator[Any]:
    """Arrow tables, together a row per model, picture and point, in this order, clean first; PICTURES pictures each,
    for all at once would need more memory than they were measured in. Empty: no label, or no severity (a strength of
    the user's own)."""
    for model, found in zip(models, measured, strict=True):
        for begin in range(0, len(found.names), PICTURES):
            yield _of_model(model, found, slice(begin, begin + PICTURES))


def _of_model(model: Asked, found: Measured, some: slice) -> Any:
    import pyarrow as pa

    names, chosen = found.names[some], found.answers[:, some]
    p, n = chosen.shape
    labels, clean = np.repeat(found.labels[some], p), np.repeat(chosen[0], p)
    answers, unlabelled = chosen.T.ravel(), labels == NO_LABEL
    severities = [point.severity for point in found.points]
    return pa.table(
        {
            "model": _words([model.name], np.zeros(n * p, np.int32)),
            "image": _words(names, np.repeat(np.arange(n, dtype=np.int32), p)),
            "label": pa.array(labels, pa.int32(), mask=unlabelled),
            "transform": _words([point.series for point in found.points], np.tile(np.arange(p, dtype=np.int32), n)),
            "severity": pa.array(severities * n, pa.int8()),
            "spec": _words([point.spec for point in found.points], np.tile(np.arange(p, dtype=np.int32), n)),
            "answer": pa.array(answers, pa.int32()),
            "answer_name": _words(list(model.classifier.card.labels), answers.astype(np.int32)),
            # more digits would show how onnxruntime rounds
            "confidence": pa.array(np.round(found.confidence[:, some].T.ravel().astype(np.float64), 4)),
            "label_rank": pa.array(found.ranks[:, some].T.ravel(), pa.int32(), mask=unlabelled),
            "correct": pa.array((answers == labels).astype(np.int8), mask=unlabelled),
            "flipped": pa.array((answers != clean).astype(np.int8)),
        }
    )


def _words(words: Sequence[str], numbers: np.ndarray) -> Any:
    """A column of words by their numbers; a word that stands twice among them is one."""
    import pyarrow as pa

    known: dict[str, int] = {}
    codes = np.array([known.setdefault(word, len(known)) for word in words], np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(codes[numbers]), pa.array(list(known), pa.string())).cast(
        pa.string()
    )


def summary_table(outcome: Outcome) -> Any:
    """An Arrow table: a row per model and point."""
    import pyarrow as pa

    lines = [
        {"model": model.name} | row.to_json()
        for model, rows in zip(outcome.models, outcome.rows, strict=True)
        for row in rows
    ]
    rounded = [
        {key: round(value, 6) if isinstance(value, float) else value for key, value in line.items()} for line in lines
    ]
    return pa.Table.from_pylist(rounded)


def further_tables(outcome: Outcome) -> dict[str, Any]:
    """What the analysis found, by the file's name: `transforms` (areas, corruption errors, medians of the breaking
    points), `models`, `classes`, `breaking` (a row per picture and transform), `comparison`, `across` (a row per
    transform and model). Tables without rows are left out."""
    import pyarrow as pa

    lines: dict[str, list[dict[str, Any]]] = {"transforms": [], "classes": [], "breaking": [], "comparison": []}
    for model, found, rows in zip(outcome.models, outcome.measured, outcome.rows, strict=True):
        of_model = {"model": model.name}
        broken = {one.transform: one for one in breaking_points(found)}
        for one in series_of(rows, len(model.classifier.card.labels)):
            lines["transforms"].append(of_model | asdict(one) | _summary_of(broken.get(one.name)))
        for row in classes_of(found):
            name = model.classifier.card.labels[row.label]
            lines["classes"].append(of_model | asdict(row) | {"label_name": name})
        lines["breaking"] += [of_model | line for line in _broken(found)]
    lines["models"] = [
        asdict(one) | {"clean": one.clean.accuracy, "n": one.clean.n, "labelled": one.clean.labelled}
        for one in outcome.model_rows
    ]
    first = outcome.measured[0]
    for model, other in zip(outcome.models[1:], outcome.measured[1:], strict=True):
        for pair in compare(first, other):
            line: dict[str, Any] = {"first": outcome.models[0].name, "second": model.name, "spec": pair.point.spec}
            line |= {"only_first": pair.only_first, "only_second": pair.only_second, "mcnemar_p": pair.p}
            lines["comparison"].append(line | asdict(pair.difference))
    lines["across"] = list(_across(outcome.across)) if outcome.across else []
    return {name: pa.Table.from_pylist(rows) for name, rows in lines.items() if rows}


def _across(found: Across) -> Iterator[dict[str, Any]]:
    for one in found.lines:
        for model, area, (low, high), best in zip(found.models, one.areas, one.intervals, one.best, strict=True):
            row = {"transform": one.series, "model": model, "area": area, "low": low, "high": high, "best": best}
            yield row | {"n": found.n}


def _summary_of(one: Breaking | None) -> dict[str, Any]:
    keys = ("parameter", "unit", "n", "never", "median", "low", "high", "quartile_1", "quartile_3", "not_monotone")
    if one is None:
        return dict.fromkeys(f"breaking_{key}" for key in keys)
    values = (one.parameter, one.unit, one.n, one.never, one.median, *one.interval, *one.quartiles, one.not_monotone)
    return {f"breaking_{key}": value for key, value in zip(keys, values, strict=True)}


def _broken(found: Measured) -> Iterator[dict[str, Any]]:
    for place, row in zip(found.sought, found.broken, strict=True):
        for transform, one in zip(found.swept, row, strict=True):
            level = None if isnan(one.value) else one.value
            share = None if isnan(one.share) else one.share
            yield {
                "image": found.names[place],
                "transform": transform.name,
                "parameter": transform.level,
                "level": level,
                "share_of_sweep": share,
                "sign_changes": one.changes,
            }


def write_table(path: Path, tables: Any) -> None:
    """`path`.parquet and `path`.csv of an Arrow table, or of several of the same columns, one after the other."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import csv

    pieces = iter([tables] if isinstance(tables, pa.Table) else tables)
    first = next(pieces)
    with writing(path.with_suffix(".parquet")) as parquet, writing(path.with_suffix(".csv")) as text:
        options = csv.WriteOptions(quoting_style="needed")
        with (
            pq.ParquetWriter(parquet, first.schema) as one,
            csv.CSVWriter(text, first.schema, write_options=options) as two,
        ):
            for piece in chain([first], pieces):
                one.write_table(piece)
                two.write_table(piece)
