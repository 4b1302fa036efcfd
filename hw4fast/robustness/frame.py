"""`hw4fast.study` for Python: the summary as a DataFrame."""

from __future__ import annotations

from typing import Any

from hw4fast.robustness import study as room


def study(*arguments: Any, **options: Any) -> Any:
    """A pandas.DataFrame of the study's summary, a row per model and point (clean first); arguments, files and errors
    are those of `hw4fast.robustness.study.study`.

    `frame.attrs` holds what else there is: `finding` (the first sentence), `notes` (what else is to be known), `report`
    and `out` (paths), `failures` ((name, reason) of each picture that could not be read). The predictions, a row per
    model, picture and point, are `pandas.read_parquet(frame.attrs["out"] + "/predictions.parquet")`.
    """
    import pandas

    result = room.study(*arguments, **options)
    frame = pandas.read_parquet(result.out / "summary.parquet")
    frame.attrs = {
        "finding": result.finding,
        "notes": list(result.notes),
        "report": str(result.report),
        "out": str(result.out),
        "failures": list(result.failures),
    }
    return frame
