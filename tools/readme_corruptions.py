"""The README's blocks on the study and on ImageNet-C's corruptions beside imagecorruptions', from their records;
readme.py fills them in."""

from __future__ import annotations

import csv
import json
from math import floor, log10
from pathlib import Path

from readme_serving import OLD, RESULTS, OldRecordError, markdown, where

from hw4fast import record

SEVERITY = 3
HEAD = ("corruption", "imagecorruptions", "hw4fast", "times as long", "the same?")
ANOTHER_PICTURE = {"frost": "not comparable: ours is generated, theirs are photographs of ice"}


def corruptions() -> str:
    """A row per corruption at SEVERITY, and their totals."""
    entry = record.read(RESULTS / "corruptions.jsonl")[-1]
    found = entry["results"]
    rows = [row for row in found.get("time", {}).get("rows", ()) if row["severity"] == SEVERITY]
    if not rows or not {"equal", "chance"} <= found.keys():
        raise OldRecordError(f"{OLD} `python benchmarks/corruptions.py --python … --record`")
    lines = [[row["corruption"], *times(row, found["mended"]), same(row["corruption"], found)] for row in rows]
    for total in [total for total in found["time"]["totals"] if total["severity"] == SEVERITY]:
        what = f"**the {total['corruptions']} that run as they are**"
        lines.append([what, *cells(total["theirs_ms"], total["ours_ms"], total["ratio"]), ""])
    versions = found["theirs"]
    theirs = ", ".join(f"{name} {versions[name]}" for name in THEIR_PACKAGES if name in versions)
    return "\n".join(markdown(HEAD, lines)) + (
        f"\n\nOne picture of {found['side']}² at severity {SEVERITY} on one thread: medians of {found['time']['pairs']}"
        f" calls in turns over {found['pictures']} photographs, and their ratio with its 95 % bootstrap interval."
        " Equal: at all five severities, of the values of all photographs. The same chance: mean, standard deviation"
        " and autocorrelation of what changes in a photograph, over so many draws of each: their means and spreads"
        " differ by less than four standard errors, or the means by less than half a percent."
        f"{mended(found['mended'])} {theirs}; {where(entry, found['isas'])}."
    )


THEIR_PACKAGES = ("imagecorruptions", "numpy", "scikit-image", "opencv-python")


def mended(names: dict[str, str]) -> str:
    if not names:
        return ""
    *few, last = names
    which = f"{', '.join(few)} and {last} raise" if few else f"{last} raises"
    return f" In brackets: {which} with these packages; mended here, and not in the total."


def times(row: dict, names: dict[str, str]) -> list[str]:
    if "raises" in row:
        return ["raises", "", ""]
    found = cells(row["theirs_ms"]["median"], row["ours_ms"]["median"], row["ratio"])
    return [f"({cell})" for cell in found] if row["corruption"] in names else found


def cells(theirs: float, ours: float, ratio: dict) -> list[str]:
    middle, low, high = (short(ratio[key]) for key in ("median", "low", "high"))
    return [f"{short(theirs)} ms", f"{short(ours)} ms", f"{middle} ({low} … {high})"]


def short(value: float) -> str:
    """Three digits, and all that stand before the point: 0.0806, 17.7, 1,023."""
    return f"{value:,.{max(0, 2 - floor(log10(value)))}f}"


def same(name: str, found: dict) -> str:
    """Whether ours does what theirs does, in words."""
    rows = [row for row in (*found["equal"], *found["chance"]) if row["corruption"] == name]
    raised = [row["raises"] for row in rows if "raises" in row]
    if raised or not rows:
        return f"theirs raises {raised[0]}" if raised else ANOTHER_PICTURE.get(name, "not compared")
    if "close" in rows[0]:
        return equal(rows)
    bad = [f"{row['severity']}: {', '.join(differing(row['statistics']))}" for row in rows if not row["same"]]
    if bad:
        return f"another chance at severity {'; '.join(bad)}"
    return f"the same chance, {min(row['draws'] for row in rows):,} draws"


def equal(rows: list[dict]) -> str:
    worst = max(row["worst"] for row in rows)
    if worst <= 2:
        return "equal" if worst == 0 else f"equal within {worst} grey level{'s' * (worst > 1)}"
    found = [f"{100 * row['close']:.2f} % at severity {row['severity']}" for row in rows if row["close"] < 1]
    return f"within 2 grey levels: {', '.join(found)}; at most {worst} beside"


def differing(statistics: dict) -> list[str]:
    names = [name for name, row in statistics.items() if not row["agrees"]]
    return [*names, *(f"spread of {name}" for name, row in statistics.items() if not row["spread_agrees"])]


def robust_recipes() -> str:
    """A row per recipe of the homework's, the one that bears most first: means over its seeds and their range."""
    found = json.loads((RESULTS / "mnist-study.json").read_text(encoding="utf-8"))
    runs: dict[str, list[dict[str, str]]] = {}
    with (RESULTS / "mnist-models.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            runs.setdefault(Path(row["model"]).parent.name, []).append(row)
    seeds = {len(rows) for rows in runs.values()}
    if len(seeds) != 1:
        raise OldRecordError(f"{OLD} `bash tools/robust_recipes.sh`")

    def mean(recipe: str, column: str) -> float:
        return sum(float(row[column]) for row in runs[recipe]) / len(runs[recipe])

    def cell(recipe: str, column: str) -> str:
        each = [100 * float(row[column]) for row in runs[recipe]]
        return f"{100 * mean(recipe, column):.1f} % ({min(each):.1f} … {max(each):.1f})"

    columns = ("clean", "accuracy", "flip_rate", "spoiled_calibration")
    order = sorted(runs, key=lambda recipe: -mean(recipe, "accuracy"))
    worst = {recipe: sorted({row["worst"] for row in runs[recipe]}) for recipe in order}
    lines = [[recipe, *(cell(recipe, name) for name in columns), ", ".join(worst[recipe])] for recipe in order]
    head = ("Recipe", "Clean", "Spoiled", "Answers changed", "Calibration error, spoiled", "Worst")
    lost = [100 * (mean(one, "accuracy") - mean(f"{one}-bn", "accuracy")) for one in ("sgd", "adam")]
    if "counted" not in found:
        raise OldRecordError(f"{OLD} `bash tools/robust_recipes.sh`")
    return "\n".join(markdown(head, lines)) + (
        f"\n\nAccuracy on {found['n']:,} of MNIST's test pictures, clean and as the mean over {found['counted']}"
        f" spoiled forms of each (in all {found['predictions']:,} answers); the share of spoiled pictures whose answer"
        " isn't the clean one's; the expected calibration error of the spoiled."
        f" Means of {seeds.pop()} seeds, from the least to the greatest."
        " Some forms, such as a mirrored digit, spoil what the label says, too: they count against all recipes"
        f" alike. Batch normalisation costs {lost[0]:.1f} points with SGD and {lost[1]:.1f} with Adam, which clean"
        " pictures don't show. `bash tools/robust_recipes.sh` repeats it."
    )


def studying() -> str:
    """What a study of the photographs found, and how fast and how large it is."""
    found = json.loads((RESULTS / "photos-study.json").read_text(encoding="utf-8"))
    entry = record.read(RESULTS / "studying.jsonl")[-1]
    results = entry["results"]
    speed, memory = results["speed"], results["memory"]["peak_mib"]
    lines = [f"- {one['model'].rpartition('/')[2].removesuffix('.onnx')}: {one['finding']}" for one in found["models"]]
    asked = f"{found['predictions']:,} answers about {found['n']} photographs of nips2017"
    few, many = sorted(memory, key=int)
    ratio = speed["ratio"]
    share, low, high = (f"{100 * ratio[key]:.0f}" for key in ("median", "low", "high"))
    return "\n".join(lines) + (
        f"\n\n{asked}, and their breaking points, in {found['seconds'] / 60:.0f} min. From the files on, the study gets"
        f" {speed['images_per_s']['study']:.0f} answers a second out of {results['model']}, {share} % (quartiles {low}"
        f" … {high} of {speed['rounds']} turns) of what onnxruntime alone reaches on ready tensors at its best"
        f" ({speed['best']}). Its memory is {memory[few]:.0f} MiB at most with {few} photographs and {memory[many]:.0f}"
        f" with {many}. {where(entry, [])}."
    )
