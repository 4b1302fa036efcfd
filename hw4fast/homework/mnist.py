"""The part `mnist`: problem 3's table, with the homework's loss and with the right one, and sweeps for problem 2."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from hw4fast import data as datasets
from hw4fast import record
from hw4fast.files import write_json
from hw4fast.homework import mnist_page as page
from hw4fast.homework.parts import Options, Part, save, save_csv
from hw4fast.homework.side_by_side import finish_all
from hw4fast.training import loop, losses, runs
from hw4fast.training.recipes import RECIPES
from hw4fast.training.settings import Settings

# recipe → the homework's accuracy in %, that of its last batch of 100 images
HOMEWORK = {
    "l2": 99.0,
    "l1": 87.0,
    "l1-from-l2": 97.0,
    "sgd": 88.0,
    "momentum": 97.0,
    "adagrad": 92.0,
    "adam": 99.0,
    "sgd-bn": 99.0,
    "adam-bn": 100.0,
}
LOSSES = ("seed", "cross-entropy")
EPOCHS, SWEEP_EPOCHS = 10, 2
NEVER = "never_answered.json"
HISTORY = ("train_cost", "train_accuracy", "test_cost", "test_accuracy")
# setting → its values, all else as in the recipe sgd with cross-entropy
SWEEPS: dict[str, tuple[float, ...]] = {
    "lr": (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    "l2": (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    "l1": (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
    "momentum": (-0.9, -0.5, 0.0, 0.5, 0.9, 1.0, 1.1),
}


def run(folder: Path, options: Options) -> dict[str, Any]:
    """Trains what is not trained yet; writes table.csv, runs.csv, sweeps.csv, the curves and results.json."""
    datasets.load(options.dataset, progress=options.progress)  # had once, before several processes ask for it
    total = options.threads or record.cores()
    jobs = min(options.jobs, total)
    wanted = [
        (folder / "runs" / place, replace(settings, init=settings.init and str(folder / "runs" / settings.init)))
        for place, settings in (*_table(options), *_sweeps(options))
    ]
    finish_all(wanted, jobs, options.progress)
    found = [_outcome(path, total) if path.exists() else _without_start(settings) for path, settings in wanted]
    n = len(list(_table(options)))
    pairs = list(zip(wanted[:n], found[:n], strict=True))
    for (path, _), outcome in tqdm(pairs, "answers", disable=None if options.progress else True):
        if outcome["result"]:
            outcome["never"] = _never_answered(path)
    rows = _rows(found[:n])
    next(row for row in rows if row["recipe"] == "l1")["pull"] = _pull(wanted[0][1])
    sweeps = [
        {"setting": setting, "value": value, **outcome}
        for (setting, value), outcome in zip(
            [(setting, value) for setting, values in SWEEPS.items() for value in values], found[n:], strict=True
        )
    ]
    results = {
        "dataset": options.dataset,
        "kernels": options.kernels,
        "seeds": options.seeds or 1,
        "epochs": min(EPOCHS, options.epochs or EPOCHS),
        "sweep_epochs": min(SWEEP_EPOCHS, options.epochs or SWEEP_EPOCHS),
        "rows": rows,
        "sweeps": sweeps,
        "jobs": max(outcome["at_a_time"] for outcome in found[:n]),
        "table_seconds": sum(statistics.median(row[loss]["shares"]) for row in rows for loss in LOSSES),
    }
    save_csv(folder / "table.csv", page.plain(rows))
    save_csv(folder / "runs.csv", [_flat(outcome) for outcome in found[:n]])
    save_csv(folder / "sweeps.csv", [_flat(outcome) for outcome in sweeps])
    page.save_drawings(results, folder)
    save(folder, results, options)
    return results


def _table(options: Options) -> Iterator[tuple[str, Settings]]:
    """(folder below runs/, settings) of every run of the table; `init` is such a folder, too."""
    for loss in LOSSES:
        for name in HOMEWORK:
            recipe = RECIPES.get(name)
            for seed in range(options.seeds or 1):
                values = {"epochs": min(EPOCHS, options.epochs or EPOCHS), "loss": loss, "seed": seed, "recipe": name}
                if recipe.start:
                    values["init"] = f"{loss}/{recipe.start}-{seed}"
                yield f"{loss}/{name}-{seed}", _settings(options, recipe.settings | values)


def _sweeps(options: Options) -> Iterator[tuple[str, Settings]]:
    for setting, values in SWEEPS.items():
        for value in values:
            epochs = min(SWEEP_EPOCHS, options.epochs or SWEEP_EPOCHS)
            own = RECIPES.get("sgd").settings | {"epochs": epochs, setting: value}
            yield f"sweep-{setting}/{value:g}", _settings(options, own)


def _settings(options: Options, values: dict[str, Any]) -> Settings:
    total = options.threads or record.cores()
    jobs = min(options.jobs, total)
    threads = total // jobs if jobs > 1 else options.threads
    common: dict[str, Any] = {"dataset": options.dataset, "kernels": options.kernels, "threads": threads}
    return Settings(**(common | values))


def _outcome(folder: Path, threads: int) -> dict[str, Any]:
    """Settings, history and result of a run that is over; at_a_time: how many of its kind `threads` had room for."""
    entry = runs.load_record(folder)
    settings = entry["settings"]
    history: dict[str, list[float]] = {name: [] for name in HISTORY}
    seconds = 0.0
    if (folder / runs.METRICS).exists():
        with (folder / runs.METRICS).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                values = {**row, "test_accuracy": int(row["test_correct"]) / int(row["test_images"])}
                for name, column in history.items():
                    column.append(float(values[name]))
                seconds += float(row["seconds"])
    result = entry.get("result") if entry["status"] == "finished" else None
    return {
        "recipe": settings["recipe"],
        "loss": settings["loss"],
        "seed": settings["seed"],
        "status": entry["status"],
        "diverged": entry.get("diverged"),
        "result": result,
        "history": history,
        "seconds": seconds,
        "at_a_time": max(1, threads // entry["sessions"][-1]["threads"]),
    }


def _without_start(settings: Settings) -> dict[str, Any]:
    """The outcome of a run that could not begin, because the one it starts from diverged."""
    history: dict[str, list[float]] = {name: [] for name in HISTORY}
    names = {"recipe": settings.recipe, "loss": settings.loss, "seed": settings.seed}
    rest = {"status": "its start diverged", "diverged": None, "result": None, "history": history, "seconds": 0.0}
    rest["at_a_time"] = 1
    return names | rest


def _pull(settings: Settings) -> dict[str, float]:
    """The mean |gradient| per weight at the start of the first run, on its first batch, under each loss; and λ."""
    data = datasets.load(settings.dataset)
    model, found = runs.build_model(settings, data), {"l1": RECIPES.get("l1").settings["l1"]}
    x, y = loop.Pictures(data, data.train, torch.device("cpu"))[slice(0, settings.batch_size)]
    weights = [weight for weight in model.parameters() if weight.dim() > 1]
    for loss in LOSSES:
        gradients = torch.autograd.grad(losses.LOSSES[loss](model(x), y, settings.kernels, 0.0), weights)
        found[loss] = float(torch.cat([gradient.flatten() for gradient in gradients]).abs().mean())
    return found


def _never_answered(folder: Path) -> list[str]:
    """Names of the classes that a finished run answers for no test image; found once, kept beside the run."""
    path = folder / NEVER
    if not path.exists():
        data = runs.load_data(runs.load_record(folder))
        pictures = loop.Pictures(data, data.test, torch.device("cpu"))
        _, logits = loop.evaluate(runs.load_model(folder, data), pictures, "cross-entropy")
        answered = set(logits.argmax(1).tolist())
        write_json(path, [name for index, name in enumerate(data.class_names) if index not in answered])
    names: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return names


def _rows(outcomes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per recipe: the homework's number, and of each loss the means over the seeds."""
    rows = []
    for name, homework in HOMEWORK.items():
        row: dict[str, Any] = {"recipe": name, "homework": homework}
        for loss in LOSSES:
            own = [outcome for outcome in outcomes if (outcome["recipe"], outcome["loss"]) == (name, loss)]
            done = [outcome["result"] for outcome in own if outcome["result"]]
            whole = [100 * result["test_correct"] / result["test_images"] for result in done]
            last = [100 * result["test_last_correct"] / result["test_last_images"] for result in done]
            row[loss] = {
                "wholes": whole,
                "whole": statistics.fmean(whole) if done else None,
                "least": min(whole, default=None),
                "most": max(whole, default=None),
                "last": statistics.fmean(last) if done else None,
                "cost": statistics.fmean(result["test_cost"] for result in done) if done else None,
                "never": [outcome["never"] for outcome in own if outcome["result"]],
                "still": _still_falling([outcome["history"]["train_cost"] for outcome in own]),
                "diverged": len(own) - len(done),
                "test_images": done[0]["test_images"] if done else 0,
                "last_images": done[0]["test_last_images"] if done else 0,
                "seconds": [outcome["seconds"] for outcome in own],
                "shares": [outcome["seconds"] / outcome["at_a_time"] for outcome in own],
                "histories": [outcome["history"] for outcome in own],
            }
        rows.append(row)
    return rows


def _still_falling(costs: list[list[float]]) -> float | None:
    """By what share of itself the training cost fell in the last epoch, the least of the seeds; None for costs that
    are not above 0, as −p_y isn't, and for less than two epochs."""
    falls = [1 - cost[-1] / cost[-2] for cost in costs if len(cost) > 1 and cost[-2] > 0]
    return min(falls) if len(falls) == len(costs) else None


def _flat(outcome: dict[str, Any]) -> dict[str, Any]:
    """An outcome as one line of a CSV."""
    kept = {name: value for name, value in outcome.items() if name not in ("result", "history", "diverged", "never")}
    where = outcome["diverged"] or {"epoch": "", "step": "", "loss": ""}
    names = ("test_correct", "test_images", "test_cost", "test_last_correct", "test_last_images")
    result = outcome["result"] or dict.fromkeys(names, "")
    return kept | result | {f"diverged_{name}": value for name, value in where.items()}


PART = Part("mnist", "MNIST (problem 3)", run, page.section, page.finding, page.table)
