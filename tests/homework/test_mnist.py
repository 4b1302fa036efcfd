"""The table of problem 3, on digits and in one epoch: what runs, what is kept, what is shown."""

from __future__ import annotations

import csv
import json

import pytest

from hw4fast.cli import main
from hw4fast.errors import Interrupted, UsageError, UserError
from hw4fast.homework import finished, mnist, mnist_page
from hw4fast.homework.parts import Options
from hw4fast.homework.reproduce import reproduce
from hw4fast.training import runs

OPTIONS = Options(dataset="digits", epochs=1, threads=1, progress=False)
RECIPES = {"l2": 99.0, "l1-from-l2": 97.0, "adam-bn": 100.0}
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


def test_an_interrupted_table_goes_on_to_the_same_numbers(trained, tmp_path, monkeypatch):
    count, train = [], finished.train

    def ctrl_c_in_the_third(*arguments, **options):
        count.append(1)
        if len(count) == 3:
            raise Interrupted("interrupted")
        return train(*arguments, **options)

    other = tmp_path / "other"
    with monkeypatch.context() as patch:
        patch.setattr(finished, "train", ctrl_c_in_the_third)
        with pytest.raises(Interrupted):
            reproduce(["mnist"], other, OPTIONS)
    assert (other / "report.html").exists() and len(list((other / "mnist" / "runs" / "seed").iterdir())) == 2
    resumed = reproduce(["mnist"], other, OPTIONS).results["mnist"]["rows"]

    def comparable(rows):
        return [{loss: (row[loss]["whole"], row[loss]["cost"]) for loss in ("seed", "cross-entropy")} for row in rows]

    assert comparable(resumed) == comparable(trained.results["mnist"]["rows"])


def test_other_settings_in_the_same_folder_are_refused(trained, out):
    with pytest.raises(UsageError, match=r"was begun with epochs = 1, not 2; name another --out"):
        reproduce(["mnist"], out, Options(dataset="digits", epochs=2, threads=1, progress=False))


def test_without_mnist_there_is_one_clear_message(tmp_path, monkeypatch):
    monkeypatch.delenv("HW4FAST_DATA", raising=False)
    monkeypatch.setenv("HW4FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HW4FAST_MNIST_MIRRORS", "http://127.0.0.1:9/")
    with pytest.raises(UserError, match="MNIST can't be had"):
        reproduce(["mnist"], tmp_path / "homework", Options(progress=False))


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
    assert "28 checks of the theory hold" in said.out and (tmp_path / "homework" / "report.html").exists()


def row(whole, homework=97.0, seed=None, recipe="momentum"):
    def found(value):
        return {
            "whole": value, "least": value, "most": value, "last": value, "diverged": int(value is None),
            "test_images": 10_000, "last_images": 100, "cost": 0.1, "seconds": 1.0, "histories": [],
        }  # fmt: skip

    return {"recipe": recipe, "homework": homework, "cross-entropy": found(whole), "seed": found(seed or whole)}


def test_reasons_follow_from_the_numbers():
    assert "as the homework says" in mnist_page.reason(row(97.3))
    assert "2.0 points more" in mnist_page.reason(row(99.0))
    assert "2.0 points less" in mnist_page.reason(row(95.0))
    assert "−p_y costs 10.0 points" in mnist_page.reason(row(99.0, seed=89.0))
    assert "−p_y" not in mnist_page.reason(row(99.0))
    assert "100 % was one batch" in mnist_page.reason(row(99.4, 100.0, recipe="adam-bn"))
    assert mnist_page.reason(row(None)) == "diverged with cross-entropy"


def test_results_are_json(trained, out):
    stored = json.loads((out / "mnist" / "results.json").read_text(encoding="utf-8"))
    assert stored["rows"] == trained.results["mnist"]["rows"] and stored["versions"]["torch"]
