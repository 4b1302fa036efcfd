"""The table of problem 3, on digits and in one epoch: what runs, what is kept, what is shown."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
import torch

from hw4fast.cli import main
from hw4fast.data import load
from hw4fast.errors import Interrupted, UsageError, UserError
from hw4fast.homework import finished, mnist, mnist_why
from hw4fast.homework.parts import Options
from hw4fast.homework.reproduce import reproduce
from hw4fast.training import loop, runs

OPTIONS = Options(dataset="digits", epochs=1, threads=1, progress=False)
RECIPES = {"l2": 99.0, "l1": 87.0, "l1-from-l2": 97.0, "adam-bn": 100.0}
SWEEPS = {"lr": (0.1, 1e30), "momentum": (-0.5, 0.5), "l2": (0.0, 0.1), "l1": (0.0, 0.1)}


@pytest.fixture(scope="module", autouse=True)
def small():
    """Three recipes, few sweeps, no pictures of each run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mnist, "HOMEWORK", RECIPES)
        patch.setattr(mnist, "SWEEPS", SWEEPS)
        for name in ("curves", "contact_sheet", "samples"):
            patch.setattr(f"hw4fast.training.pictures.{name}", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("mnist") / "homework"


@pytest.fixture(scope="module")
def trained(out, small):
    return reproduce(["mnist"], out, OPTIONS)


def test_the_table_has_a_row_per_recipe_and_both_losses(trained, out):
    rows = trained.results["mnist"]["rows"]
    assert [row["recipe"] for row in rows] == list(RECIPES)
    folder = out / "mnist"
    for row in rows:
        for loss in ("seed", "cross-entropy"):
            entry = runs.load_record(folder / "runs" / loss / f"{row['recipe']}-0")
            assert (entry["settings"]["loss"], entry["settings"]["recipe"]) == (loss, row["recipe"])
            result = entry["result"]
            assert row[loss]["whole"] == pytest.approx(100 * result["test_correct"] / 360)
            assert row[loss]["last"] == pytest.approx(100 * result["test_last_correct"] / 60)  # 360 = 3 × 100 + 60
        assert row["seed"]["cost"] < 0 < row["cross-entropy"]["cost"]
    first = runs.load_record(folder / "runs" / "cross-entropy" / "l1-from-l2-0")["settings"]["init"]
    assert first == str(folder / "runs" / "cross-entropy" / "l2-0")
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(line["homework"]) for line in table] == list(RECIPES.values())
    names = {f"{name}.png" for name in (*RECIPES, "optimisers", "sweeps")}
    assert names <= {path.name for path in folder.iterdir()}


def test_a_sweep_that_diverges_is_shown(trained):
    sweeps = {(s["setting"], s["value"]): s for s in trained.results["mnist"]["sweeps"]}
    assert sweeps["lr", 1e30]["status"] == "diverged" and sweeps["lr", 1e30]["result"] is None
    assert sweeps["momentum", -0.5]["result"]["test_images"] == 360
    page = trained.report.read_text(encoding="utf-8")
    assert "stopped being finite" in page and page.count("<svg") == len(RECIPES) + 2


def test_what_is_finished_is_not_run_again(trained, out, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(finished, "train", refuse)
    again = reproduce(["mnist"], out, OPTIONS)
    assert again.results["mnist"]["rows"] == trained.results["mnist"]["rows"]


def finished_before(out, folder, *names):
    """Runs of those names stand in the folder already."""
    for name in names:
        for run in (out / "mnist" / "runs").glob(name):
            shutil.copytree(run, folder / "mnist" / "runs" / run.relative_to(out / "mnist" / "runs"))


def test_an_interrupted_table_goes_on_to_the_same_numbers(trained, out, tmp_path, monkeypatch):
    count, train = [], finished.train

    def ctrl_c_in_the_third(*arguments, **options):
        count.append(1)
        if len(count) == 3:
            raise Interrupted("interrupted")
        return train(*arguments, **options)

    other = tmp_path / "other"
    finished_before(out, other, "sweep-*")
    with monkeypatch.context() as patch:
        patch.setattr(finished, "train", ctrl_c_in_the_third)
        with pytest.raises(Interrupted):
            reproduce(["mnist"], other, OPTIONS)
    assert (other / "report.html").exists() and len(list((other / "mnist" / "runs" / "seed").iterdir())) == 2
    resumed = reproduce(["mnist"], other, OPTIONS).results["mnist"]["rows"]

    def comparable(rows):
        return [{loss: (row[loss]["whole"], row[loss]["cost"]) for loss in ("seed", "cross-entropy")} for row in rows]

    assert comparable(resumed) == comparable(trained.results["mnist"]["rows"])


@pytest.mark.usefixtures("trained")
def test_a_start_that_diverges_ends_no_table(out, tmp_path, monkeypatch):
    whole = loop._epoch

    def diverges(settings, *arguments):
        if settings.recipe == "l2":
            raise loop.Diverged(settings, 1, 1, float("nan"))
        return whole(settings, *arguments)

    monkeypatch.setattr(loop, "_epoch", diverges)
    finished_before(out, tmp_path, "sweep-*", "*/adam-bn-0")
    result = reproduce(["mnist"], tmp_path, OPTIONS)
    rows = {entry["recipe"]: entry for entry in result.results["mnist"]["rows"]}
    for name in ("l2", "l1-from-l2"):
        assert rows[name]["cross-entropy"]["diverged"] == 1 and rows[name]["cross-entropy"]["whole"] is None
        assert "with cross-entropy it diverges, too" in mnist_why.reason(rows[name])
    assert rows["l1"]["cross-entropy"]["whole"] > 0
    assert "its start diverged" in (tmp_path / "mnist" / "runs.csv").read_text(encoding="utf-8")
    again = reproduce(["mnist"], tmp_path, OPTIONS)
    assert again.results["mnist"]["rows"] == result.results["mnist"]["rows"]


def test_other_settings_in_the_same_folder_are_refused(trained, out):
    with pytest.raises(UsageError, match=r"was begun with epochs = 1, not 2; name another --out"):
        reproduce(["mnist"], out, Options(dataset="digits", epochs=2, threads=1, progress=False))


def test_without_mnist_there_is_one_clear_message(tmp_path, monkeypatch):
    monkeypatch.delenv("HW4FAST_DATA", raising=False)
    monkeypatch.setenv("HW4FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HW4FAST_MNIST_MIRRORS", "http://127.0.0.1:9/")
    with pytest.raises(UserError, match="MNIST can't be had"):
        reproduce(["mnist"], tmp_path / "homework", Options(progress=False))


@pytest.mark.parametrize(
    "options", [Options(dataset="mnits"), Options(pictures="no/folder"), Options(photo="no.jpg")], ids=str
)
def test_a_wrong_name_is_told_before_hours_of_work(options, tmp_path):
    with pytest.raises(UsageError, match="there is no such"):
        reproduce(["all"], tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_a_part_without_its_data_keeps_no_other_from_running(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("HW4FAST_DATA", raising=False)
    monkeypatch.setenv("HW4FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HW4FAST_MNIST_MIRRORS", "http://127.0.0.1:9/")
    command = ["reproduce", "mnist", "corn", "--out", str(tmp_path / "homework")]
    assert main(command) == 1
    said = capsys.readouterr()
    assert "MNIST can't be had" in said.err and "corn" in said.err and not said.out
    assert main(["reproduce", "mnist", "theory", "--out", str(tmp_path / "homework")]) == 3
    said = capsys.readouterr()
    assert "hw4fast: mnist: MNIST can't be had" in said.err
    assert "checks of the theory hold" in said.out and (tmp_path / "homework" / "report.html").exists()


def row(right, homework=97.0, seed=None, recipe="momentum"):
    """right, seed: accuracies in %, seed by seed."""

    def found(values):
        mean = sum(values) / len(values) if values else None
        return {
            "wholes": values, "whole": mean, "least": mean, "most": mean, "last": mean, "diverged": not values,
            "test_images": 10_000, "last_images": 100, "cost": 0.1, "seconds": [1.0], "histories": [],
        }  # fmt: skip

    return {"recipe": recipe, "homework": homework, "cross-entropy": found(right), "seed": found(seed or right)}


def test_reasons_follow_from_the_numbers():
    def why(*arguments, **options):
        return mnist_why.reason(row(*arguments, **options))

    assert why([97.3]).startswith("with its loss −p_y 97.3 % here, so its 97 % of one batch (95 %: 91.5 … 99.0)")
    assert "not its 97 % of one batch" in why([99.0], seed=[88.5, 88.1])
    assert "is to be had, if not with each seed (88.5 %)" in why([99.0], seed=[88.5, 98.1])
    assert why([99.0], seed=[89.0]).endswith("−p_y costs 10.0 points")
    assert "costs" not in why([99.0])
    assert "100 % was one batch" in why([99.4], 100.0, recipe="adam-bn")
    assert "with cross-entropy it diverges, too" in mnist_why.reason(row([]))


def test_the_mechanism_is_told_where_it_shows():
    assert mnist_why.mechanism([row([99.0]), row([99.0], seed=[89.0])]) == mnist_why.WHY
    assert mnist_why.mechanism([row([99.0], seed=[98.9]), row([])]) == ""


def test_a_training_that_was_not_done_is_told():
    slow = row([96.8], 92.0, recipe="adagrad")
    slow["cross-entropy"]["still"] = 0.05
    assert "in the last epoch its training cost still fell by 5 %" in mnist_why.reason(slow)
    assert mnist._still_falling([[2.0, 1.0, 0.9], [2.0, 1.0, 0.5]]) == pytest.approx(0.1)
    assert mnist._still_falling([[-0.1, -0.2]]) is None and mnist._still_falling([[1.0]]) is None


def test_classes_that_are_never_answered_are_named():
    dead = row([99.0], seed=[89.0])
    dead["seed"]["never"] = [["8"], [], ["8", "2"]]
    told = mnist_why.reason(dead)
    assert told.endswith("points, for the net never answers 8 (seed 0), 8 and 2 (seed 2)")
    dead["seed"]["never"] = [list("023456789")]
    assert mnist_why.reason(dead).endswith("the net never answers 9 classes")
    dead["pull"] = {"l1": 0.001, "seed": 0.00012, "cross-entropy": 0.0012}
    assert "begins at 0.0001 per weight (mean size) instead of 0.001, and L1 pulls" in mnist_why.reason(dead)


@pytest.mark.parametrize(
    ("sgd", "momentum", "verdict"),
    [
        ([97.0], [99.0], "survives"),
        ([99.0], [97.0], "the other way round"),
        ([99.0], [99.1], "one seed of 10,000 test images"),
        ([97.0, 99.0], [99.0, 99.1], "2 seeds of 10,000 test images"),
        ([], [99.0], "diverged"),
        ([97.0], [99.0, 99.1], "diverged"),
    ],
)
def test_what_survives_follows_from_the_numbers(sgd, momentum, verdict):
    rows = [row(sgd, 88.0, [88.0], "sgd"), row(momentum, 97.0, [89.0], "momentum")]
    rows[0]["cross-entropy"]["diverged"] = max(0, len(momentum) - len(sgd))
    (found,) = mnist_why.conclusions(rows)
    assert found.statement == "momentum helps SGD" and verdict in found.verdict
    assert found.homework == 9.0 and found.seed == pytest.approx([1.0])


def test_a_class_that_a_run_never_answers_is_found_and_kept(trained, out):
    folder = out / "mnist" / "runs" / "seed" / "l1-0"
    kept = json.loads((folder / mnist.NEVER).read_text(encoding="utf-8"))
    data = load("digits")
    logits = loop.evaluate(
        runs.load_model(folder, data), loop.Pictures(data, data.test, torch.device("cpu")), "cross-entropy"
    )[1]
    assert kept == [name for index, name in enumerate(data.class_names) if not (logits.argmax(1) == index).any()]
    (found,) = [entry for entry in trained.results["mnist"]["rows"] if entry["recipe"] == "l1"]
    assert found["seed"]["never"] == [kept] and len(kept) > 0


def test_results_are_json(trained, out):
    stored = json.loads((out / "mnist" / "results.json").read_text(encoding="utf-8"))
    assert stored["rows"] == trained.results["mnist"]["rows"] and stored["versions"]["torch"]
