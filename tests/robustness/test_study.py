from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import pytest
from PIL import Image

import hw4fast.robustness.asking as asking_module
import hw4fast.robustness.measure as measure_module
import hw4fast.robustness.output as output_module
import hw4fast.robustness.study as study_module
from hw4fast.data import load
from hw4fast.errors import Interrupted, UsageError, UserError
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.classify import classify
from hw4fast.robustness.source import choose
from hw4fast.robustness.study import study
from hw4fast.stats import wilson
from hw4fast.transforms import at_severity
from tests.conftest import write_linear_onnx
from tests.inference.models import write_one_picture_onnx

TABLES = ("answers", "breaking", "classes", "models", "predictions", "summary", "transforms")
PLOTS = ("accuracy", "breaking", "calibration", "heat")
FILES = sorted(
    [f"{name}.parquet" for name in TABLES]
    + [f"{name}.csv" for name in TABLES if name != "answers"]
    + [f"{name}.{kind}" for name in PLOTS for kind in ("png", "svg")]
    + ["report.html", "study.json", "transforms.png"]
)
SOME = ("blur", "gaussian_noise", "rotate", "jitter", "snow", "channel_swap")

PREDICTIONS = "predictions.csv"


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def undrawn(monkeypatch):
    """Of a test alone: the others look at the plots."""
    monkeypatch.setattr("hw4fast.robustness.output._save_pictures", lambda *_: [])


@pytest.fixture(scope="module")
def digits(centroid_onnx, tmp_path_factory):
    """A study of 40 digits under some transforms of each kind."""
    return study("digits", centroid_onnx, SOME, out=tmp_path_factory.mktemp("s") / "digits", limit=40, progress=False)


def test_the_folder_holds_everything_and_nothing_else(digits):
    assert sorted(path.name for path in digits.out.iterdir()) == FILES
    assert [path.name for path in digits.out.parent.iterdir()] == ["digits"]
    assert digits.report == digits.out / "report.html"
    assert digits.n_images == 40
    assert len(digits.rows) == 1 + 5 * 5 + 1
    for name in ("accuracy.png", "breaking.png", "calibration.png", "heat.png", "transforms.png"):
        with Image.open(digits.out / name) as picture:
            assert min(picture.size) > 300


@pytest.mark.parametrize(
    ("transform", "severity"), [("clean", 0), ("blur", 4), ("gaussian_noise", 5), ("snow", 3), ("rotate", 2)]
)
def test_a_cell_agrees_with_an_independent_computation(digits, centroid_onnx, transform, severity):
    split = load("digits").test
    chosen = choose(len(split), 40, 0)
    classifier = Classifier(centroid_onnx)
    clean = [int(classifier.logits(split.images[[i]]).argmax()) for i in chosen]
    answers, confidences = [], []
    for i in chosen:
        picture = split.images[i]
        if transform != "clean":
            picture = at_severity(transform, severity)(picture, seed=0)
        logits = classifier.logits(picture[None])[0].astype(np.float64)
        answers.append(int(logits.argmax()))
        confidences.append(np.exp(logits.max()) / np.exp(logits).sum())
    rows = [
        row
        for row in table(digits.out / "predictions.csv")
        if (row["transform"], row["severity"]) == (transform, str(severity))
    ]
    assert [row["image"] for row in rows] == [f"test/{i}" for i in chosen]
    assert [int(row["label"]) for row in rows] == split.labels[chosen].tolist()
    assert [int(row["answer"]) for row in rows] == answers
    assert [row["answer_name"] for row in rows] == [str(answer) for answer in answers]
    assert [int(row["correct"]) for row in rows] == (answers == split.labels[chosen]).astype(int).tolist()
    assert [int(row["flipped"]) for row in rows] == [int(a != b) for a, b in zip(answers, clean, strict=True)]
    assert np.allclose([float(row["confidence"]) for row in rows], confidences, atol=6e-5)

    (line,) = [
        row
        for row in table(digits.out / "summary.csv")
        if (row["transform"], row["severity"]) == (transform, str(severity))
    ]
    correct = sum(a == b for a, b in zip(answers, split.labels[chosen], strict=True))
    flips = sum(a != b for a, b in zip(answers, clean, strict=True))
    assert (int(line["n"]), int(line["labelled"]), int(line["correct"]), int(line["flips"])) == (40, 40, correct, flips)
    written = [float(line[key]) for key in ("accuracy", "accuracy_low", "accuracy_high")]
    assert written == pytest.approx([correct / 40, *wilson(int(correct), 40)], abs=1e-6)
    written = [float(line[key]) for key in ("flip_rate", "flip_low", "flip_high")]
    assert written == pytest.approx([flips / 40, *wilson(flips, 40)], abs=1e-6)
    assert float(line["mean_confidence"]) == pytest.approx(np.mean(confidences), abs=2e-6)
    if transform == "clean":
        assert digits.clean == (correct, 40)
        assert correct > 30  # the model is a real one


def test_the_result_is_json_and_says_what_the_table_says(digits):
    value = json.loads(json.dumps(digits.to_json(), allow_nan=False))
    assert value["out"] == str(digits.out)
    lines = table(digits.out / "summary.csv")
    assert [row["spec"] for row in value["rows"]] == [line["spec"] for line in lines]
    assert [round(row["flip_high"], 6) for row in value["rows"]] == [float(line["flip_high"]) for line in lines]
    assert value["models"][0]["rows"] == value["rows"] and value["models"][0]["finding"] == value["finding"]


def test_every_prediction_is_there_once(digits):
    rows = table(digits.out / "predictions.csv")
    assert len(rows) == 40 * len(digits.rows)
    assert set(Counter((row["image"], row["transform"], row["severity"]) for row in rows).values()) == {1}


def test_the_record_says_what_ran(digits, centroid_onnx):
    record = json.loads((digits.out / "study.json").read_text(encoding="utf-8"))
    assert record["arguments"]["limit"] == 40
    named = ",".join(SOME)
    wanted = f"hw4fast study digits --model {centroid_onnx} --transforms {named} --seed 0 --limit 40"
    assert record["command"] == f"{wanted} --out {digits.out}"
    assert record["models"][0]["sha256"] == Classifier(centroid_onnx).sha256
    assert record["provider"] == record["transforms_on"] == "cpu"
    assert record["predictions"] == 40 * len(digits.rows)
    assert record["finding"] == digits.finding
    assert record["versions"]["numpy"] == np.__version__
    assert record["seconds"] > 0


@pytest.mark.parametrize("batch", [8, 7])
def test_the_same_study_gives_the_same_bytes(digits, centroid_onnx, tmp_path, monkeypatch, batch):
    monkeypatch.setattr(asking_module, "BATCH", batch)
    again = study("digits", centroid_onnx, SOME, out=tmp_path / "again", limit=40, progress=False)
    for name in ("predictions.csv", "summary.csv", "predictions.parquet", "summary.parquet", "answers.parquet"):
        assert (again.out / name).read_bytes() == (digits.out / name).read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_an_answer_does_not_depend_on_how_many_pictures_there_are(centroid_onnx, tmp_path, monkeypatch):
    """Here another batch size answers otherwise: as in onnxruntime, but by far more than a rounding."""
    exact = Classifier.answers

    def by_batch(self, batch):
        return tuple(np.roll(found, len(batch), axis=1) for found in exact(self, batch))

    monkeypatch.setattr(Classifier, "answers", by_batch)
    few, many = (
        table(study("digits", centroid_onnx, ["noise"], tmp_path / f"{n}", limit=n, progress=False).out / PREDICTIONS)
        for n in (3, 35)
    )
    chosen = {row["image"] for row in few}
    assert len(chosen) == 3
    assert [row for row in many if row["image"] in chosen] == few


@pytest.mark.usefixtures("undrawn")
def test_a_spec_of_the_study_repeats_in_classify(centroid_onnx, tmp_path):
    """`classify --transform SPEC --seed SEED` shows what the study saw, random transforms included."""
    digit_files(tmp_path / "mine", 3)
    names = ["gaussian_noise", "jitter", "rotate+gaussian_noise", "gaussian_noise:std=0.25"]
    found = study(tmp_path / "mine", centroid_onnx, names, tmp_path / "out", seed=3, progress=False)
    specs = [line["spec"] for line in table(found.out / "summary.csv")]
    rows = table(found.out / PREDICTIONS)
    assert len(specs) == 1 + 3 * 5 + 1 and len(rows) == 3 * len(specs)
    for number in range(3):
        path = tmp_path / "mine" / f"{number}.png"
        (result,) = classify(path, centroid_onnx, specs[1:], top=1, seed=3)
        mine = [row for row in rows if row["image"] == path.name]
        for answer, row in zip((result.clean, *result.transformed), mine, strict=True):
            index, label, probability = answer.top[0]
            assert (str(index), label) == (row["answer"], row["answer_name"])
            assert probability == pytest.approx(float(row["confidence"]), abs=6e-5)


def test_a_model_that_fails_or_answers_nan_ends_it(centroid_onnx, tmp_path):
    card = Classifier(centroid_onnx).card.to_json_text()
    broken = write_linear_onnx(tmp_path / "nan.onnx", np.zeros((10, 784)), np.full(10, np.nan), card)
    with pytest.raises(UserError, match=r"clean pictures: '.*nan\.onnx' gave an answer that is no number"):
        study("digits", broken, ["blur"], tmp_path / "out", limit=2, progress=False)
    digit_files(tmp_path / "mine", 2)
    with pytest.raises(UserError, match=r"'.*one\.onnx' failed on a batch of 8: "):
        study(
            tmp_path / "mine", write_one_picture_onnx(tmp_path / "one.onnx"), ["blur"], tmp_path / "out", progress=False
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("undrawn")
def test_another_seed_draws_other_noise(centroid_onnx, tmp_path):
    one, other = (
        study("digits", centroid_onnx, ["noise:std=0.5"], tmp_path / f"s{seed}", seed=seed, progress=False)
        for seed in (0, 1)
    )
    assert one.rows[0] == other.rows[0]
    assert one.rows[1].mean_confidence != other.rows[1].mean_confidence


@pytest.mark.usefixtures("undrawn")
def test_what_stands_there_is_kept(centroid_onnx, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outs = [study("digits", centroid_onnx, ["blur51"], seed=s, limit=2, progress=False).out for s in (0, 1, 0)]
    assert [out.as_posix() for out in outs] == ["studies/digits", "studies/digits-2", "studies/digits"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("Dear")
    assert study("digits", centroid_onnx, ["blur51"], "mine", limit=2, progress=False).out.name == "mine-2"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    (tmp_path / "empty").mkdir()
    assert study("digits", centroid_onnx, ["blur51"], "empty", limit=2, progress=False).out.name == "empty"


def test_files_of_an_earlier_study_that_this_one_has_not_go(centroid_onnx, tmp_path):
    digit_files(tmp_path / "mine", 6)
    labels = "".join(f"{i}.png,{load('digits').test.labels[i]}\n" for i in range(6))
    (tmp_path / "mine" / "labels.csv").write_text("file,label\n" + labels)
    out = tmp_path / "out"
    other = onnx.load(centroid_onnx)
    other.doc_string = "another file"
    onnx.save(other, tmp_path / "other.onnx")
    study(tmp_path / "mine", [centroid_onnx, tmp_path / "other.onnx"], ["rotate"], out, progress=False)
    names = {path.name for path in out.iterdir()}
    drawn = [f"{name}{mark}" for name in PLOTS for mark in ("", "-2")] + ["models"]
    plots = {f"{name}.{kind}" for name in drawn for kind in ("png", "svg")}
    tables = {f"{name}.{kind}" for name in (*TABLES[1:], "comparison", "across") for kind in ("csv", "parquet")}
    assert plots | tables <= names
    for own in ("heat-map.png", "models-2.png"):
        (out / own).write_bytes(b"the user's own")
    (tmp_path / "mine" / "labels.csv").unlink()
    study(tmp_path / "mine", centroid_onnx, ["rotate30"], out, breaking=0, resume=True, progress=False)
    left = {path.name for path in out.iterdir()}
    gone = {f"{name}.{kind}" for name in ("classes", "breaking", "comparison", "across") for kind in ("csv", "parquet")}
    gone |= {name for name in plots if not name.startswith("accuracy.")}
    assert names - left == gone and left - names == {"heat-map.png", "models-2.png"}


def test_a_strength_of_the_users_own_has_no_severity(centroid_onnx, tmp_path):
    found = study("digits", centroid_onnx, ["blur51", "rotate"], tmp_path / "s", limit=5, progress=False)
    assert [(row.point.series, row.point.severity) for row in found.rows[:3]] == [
        ("clean", 0),
        ("blur51", None),
        ("rotate", 1),
    ]
    record = json.loads((found.out / "study.json").read_text(encoding="utf-8"))
    assert " --transforms blur51,rotate " in record["command"]
    assert [row["severity"] for row in table(found.out / "summary.csv")] == ["0", "", "1", "2", "3", "4", "5"]
    assert 'aria-label="blur51. as given: accuracy' in found.report.read_text(encoding="utf-8")


def digit_files(folder, count):
    folder.mkdir(parents=True)
    split = load("digits").test
    for number in range(count):
        Image.fromarray(split.images[number, :, :, 0]).save(folder / f"{number}.png")


def test_a_corrupt_picture_is_skipped_and_reported(centroid_onnx, tmp_path):
    digit_files(tmp_path / "mine", 5)
    (tmp_path / "mine" / "2.png").write_bytes((tmp_path / "mine" / "1.png").read_bytes()[:60])
    (tmp_path / "mine" / "<script>alert(1)<").mkdir()
    (tmp_path / "mine" / "<script>alert(1)<" / "script>.jpg").write_text("no picture")
    labels = "".join(f"{i}.png,{load('digits').test.labels[i]}\n" for i in range(5))
    (tmp_path / "mine" / "labels.csv").write_text("file,label\n" + labels)
    found = study(tmp_path / "mine", centroid_onnx, ["blur"], tmp_path / "out", progress=False)
    assert found.n_images == 4
    assert [name for name, _ in found.failures] == ["2.png", "<script>alert(1)</script>.jpg"]
    assert {row["image"] for row in table(found.out / "predictions.csv")} == {"0.png", "1.png", "3.png", "4.png"}
    record = json.loads((found.out / "study.json").read_text(encoding="utf-8"))
    assert record["failures"][0]["image"] == "2.png"
    page = found.report.read_text(encoding="utf-8")
    assert "Pictures that could not be read" in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.jpg" in page


def test_a_folder_without_labels_reports_flips_and_confidence(centroid_onnx, tmp_path):
    digit_files(tmp_path / "mine", 6)
    found = study(tmp_path / "mine", centroid_onnx, ["rotate"], tmp_path / "out", progress=False)
    assert found.clean is None
    rows = table(found.out / "predictions.csv")
    assert {(row["label"], row["correct"]) for row in rows} == {("", "")}
    lines = table(found.out / "summary.csv")
    assert {(line["accuracy"], line["accuracy_low"], line["labelled"]) for line in lines} == {("", "", "0")}
    flips = Counter(row["severity"] for row in rows if row["flipped"] == "1")
    assert [int(line["flips"]) for line in lines] == [flips[line["severity"]] for line in lines]
    assert flips["5"] > 0
    page = found.report.read_text(encoding="utf-8")
    assert "Flip rate" in page
    assert "Accuracy" not in page


@pytest.mark.usefixtures("undrawn")
def test_sub_folders_and_a_data_set_agree(centroid_onnx, tmp_path):
    split = load("digits").test
    for number in range(8):
        path = tmp_path / "mine" / str(split.labels[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(split.images[number, :, :, 0]).save(path)
    found = study(tmp_path / "mine", centroid_onnx, ["noise"], tmp_path / "out", progress=False)
    answers = {
        (row["image"].split("/")[1].removesuffix(".png"), row["severity"]): row["answer"]
        for row in table(found.out / "predictions.csv")
    }
    whole = study("digits", centroid_onnx, ["noise"], tmp_path / "whole", progress=False)
    for row in table(whole.out / "predictions.csv"):
        number = row["image"].removeprefix("test/")
        if int(number) < 8:
            assert answers[number, row["severity"]] == row["answer"]


def test_the_bar_shows_no_sign_that_a_terminal_obeys(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with measure_module._bar(1, "\x1b[2Jmine", progress=True) as bar:
        bar.update()
    assert "study �[2Jmine" in sys.stderr.getvalue() and "\x1b[2J" not in sys.stderr.getvalue()


def test_nothing_readable_is_an_error_and_leaves_nothing(centroid_onnx, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").write_text("no picture")
    with pytest.raises(UserError, match=r"could be read; the first: a\.png"):
        study(tmp_path / "mine", centroid_onnx, ["blur"], tmp_path / "deep" / "out", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_a_study_that_is_interrupted_at_its_page_keeps_its_answers(centroid_onnx, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(output_module, "render", interrupt)
    with pytest.raises(Interrupted, match=r"are kept, go on with: hw4fast study digits .* --out .*out --resume$"):
        study("digits", centroid_onnx, ["blur51"], tmp_path / "out", limit=2, progress=False)
    monkeypatch.undo()
    again = study("digits", centroid_onnx, ["blur51"], tmp_path / "out", limit=2, progress=False, resume=True)
    assert (again.reused, again.predictions) == (4, 4)


def test_where_nothing_can_be_written_nothing_is_measured(centroid_onnx, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("measured in vain")

    monkeypatch.setattr(study_module, "measure", never)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't be written to .*: Not a directory"):
        study("digits", centroid_onnx, ["blur"], tmp_path / "file" / "out", progress=False)


def test_a_study_is_not_written_among_the_pictures(centroid_onnx, tmp_path, monkeypatch):
    digit_files(tmp_path / "mine", 1)
    monkeypatch.chdir(tmp_path / "mine")
    with pytest.raises(UsageError, match="among the pictures, to 'studies/mine'; name an --out elsewhere"):
        study(".", centroid_onnx, ["blur51"], progress=False)
    assert study(".", centroid_onnx, ["blur51"], "../out", progress=False).n_images == 1
    with pytest.raises(UsageError, match=r"name a folder to write the study to, not '\.'"):
        study("digits", centroid_onnx, ["blur51"], ".", progress=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"transforms": ["blurr"]}, "did you mean blur"),
        ({"seed": -1}, "seed must lie in 0"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"provider": "gpu"}, "unknown provider 'gpu'"),
    ],
)
def test_wrong_arguments_are_usage_errors(centroid_onnx, tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        study("digits", centroid_onnx, out=tmp_path / "out", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_it_never_imports_torch(centroid_onnx, tmp_path):
    code = (
        "import sys; from hw4fast.robustness.study import study; "
        f"study('digits', {str(centroid_onnx)!r}, ['blur51'], {str(tmp_path / 'out')!r}, limit=2); "
        "sys.exit(sum(name.split('.')[0] in ('torch', 'onnx', 'torchvision') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")  # and no bar where stderr is no terminal
