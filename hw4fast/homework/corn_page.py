"""How the part `corn` is shown: the pictures in a row with the five best answers under each."""

from __future__ import annotations

import statistics
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast.figures import OKABE_ITO, pyplot
from hw4fast.homework.parts import aligned, photograph, save_png
from hw4fast.homework.parts import table as html_table
from hw4fast.transforms import parse

TOP = 5
HEAD = ("Picture", "clean", "trick", "blur51, σ = 2", "changes at σ =", "to", "changes on the grid", "hot pot at most")


def best(row: np.ndarray, labels: tuple[str, ...]) -> list[tuple[str, float]]:
    """The TOP most probable classes of a row of probabilities."""
    return [(labels[index], float(row[index])) for index in np.argsort(-row, kind="stable")[:TOP]]


def save_row(path: Path, picture: np.ndarray, entry: dict[str, Any]) -> None:
    """A PNG: the picture as the net saw it under each transform, the five best answers as bars under it."""
    names = list(entry["answers"])
    figure, grid = pyplot().subplots(
        2, len(names), figsize=(2.3 * len(names), 3.9), layout="constrained", height_ratios=(2, 1.5)
    )
    for column, name in enumerate(names):
        top, below = grid[:, column]
        seen = picture if name == "clean" else parse(name)(picture)
        top.imshow(seen)
        top.set_title(name, fontsize=9)
        top.axis("off")
        answers = entry["answers"][name]
        same = answers[0][0] == entry["answers"]["clean"][0][0]
        colours = [OKABE_ITO[0] if same else OKABE_ITO[1]] + ["#999999"] * (len(answers) - 1)
        below.barh(range(len(answers)), [100 * p for _, p in answers], color=colours)
        for place, (label, p) in enumerate(answers):
            below.text(1, place, f"{label[:22]} {100 * p:.0f} %", va="center", fontsize=7)
        below.set(xlim=(0, 100), ylim=(len(answers) - 0.5, -0.5), yticks=[])
        below.set_xlabel("probability (%)", fontsize=7)
        below.tick_params(labelsize=7)
        below.grid(visible=False)
    save_png(figure, path)


def finding(results: dict[str, Any]) -> str:
    photos = results["photos"]
    if len(photos) == 1:
        (entry,) = photos
        broken = entry["broken"]
        if broken["sigma"] is None:
            return f"No blur up to σ = {entry['sigmas'][-1]:g} changes {broken['before']}"
        return f"A blur of σ = {broken['sigma']:.2f} pixels turns {broken['before']} into {broken['after']}"
    sigmas = [entry["broken"]["sigma"] for entry in photos if entry["broken"]["sigma"] is not None]
    if not sigmas:
        return f"No blur changes the answer to any of {len(photos)} pictures"
    return (
        f"Half of the {len(sigmas)} pictures that a blur breaks ({len(photos)} in all) break below"
        f" σ = {statistics.median(sigmas):.2f} pixels"
    )


def _cells(entry: dict[str, Any]) -> list[str]:
    broken, pot = entry["broken"], entry["hot_pot"]
    firsts = [f"{entry['answers'][name][0][0]} {100 * entry['answers'][name][0][1]:.0f} %" for name in _shown(entry)]
    sigma = "–" if broken["sigma"] is None else f"{broken['sigma']:.3f}"
    return [
        entry["photo"],
        *firsts,
        sigma,
        broken["after"] if broken["sigma"] is not None else "–",
        str(broken["changes"]),
        f"{100 * pot['largest']:.1f} % (σ = {pot['sigma']:.2g})",
    ]


def _shown(entry: dict[str, Any]) -> list[str]:
    return [name for name in entry["answers"] if name in ("clean", "trick", "blur51:sigma=2")]


def table(results: dict[str, Any]) -> list[str]:
    lines = aligned(HEAD, [_cells(entry) for entry in results["photos"]])
    lines += [f"not read: {entry['photo']}: {entry['reason']}" for entry in results["unreadable"]]
    return [*lines, hot_pot(results)]


def hot_pot(results: dict[str, Any]) -> str:
    """What became of the homework's claim that the trick turns corn into a hot pot."""
    ever = [entry for entry in results["photos"] if entry["hot_pot"]["first"]]
    most = max(results["photos"], key=lambda entry: entry["hot_pot"]["largest"])["hot_pot"]
    if ever:
        return f"“hot pot” is the answer to {len(ever)} of {len(results['photos'])} pictures at some blur"
    return (
        f"The homework’s “hot pot” is the answer at no blur here; it gets {100 * most['largest']:.1f} % at most"
        f" (σ = {most['sigma']:.2g}). The trick is a blur and nothing else: ColorJitter() without arguments changes"
        " nothing"
    )


def section(results: dict[str, Any], folder: Path) -> str:
    cards = []
    for entry in results["photos"]:
        path = folder / entry.get("drawing", "")
        if path.is_file():
            name, note = entry["photo"], "Blue: the answer of the clean picture. Red: another one."
            cards.append(photograph(path, name, f"{name} under each transform, its five best answers below", note))
    answers = Counter(entry["broken"]["after"] for entry in results["photos"] if entry["broken"]["sigma"] is not None)
    common = ""
    if len(results["photos"]) > 1 and answers:
        names = ", ".join(f"{escape(label)} ({n})" for label, n in answers.most_common(8))
        common = f"<p>What they turn into most: {names}.</p>"
    lost = "".join(f"<li>{escape(e['photo'])}: {escape(e['reason'])}</li>" for e in results["unreadable"])
    return f"""<p class="note">{escape(results["model"])}; pictures stretched to 224×224 as in the homework. The blur’s
kernel is 51 pixels; its smallest σ that changes the answer is bisected to 0.1 %, after a grid of
{len(results["photos"][0]["sigmas"])} values of σ told how often the answer changes (it need not be once).</p>
<p>{escape(hot_pot(results))}.</p>
<div class="grid">{"".join(cards)}</div>
{common}{html_table(HEAD, [_cells(entry) for entry in results["photos"]], label="Pictures")}
{f'<h3>Not read</h3><ul class="failures">{lost}</ul>' if lost else ""}"""
