"""A study that goes on: after a kill, with more models, more transforms, more pictures; on any number of cores."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hw4fast.robustness.measure as measure_module
import hw4fast.robustness.study as study_module
from hw4fast.cli import main
from hw4fast.errors import Interrupted, UsageError, UserError
from hw4fast.inference.classifier import Classifier
from hw4fast.robustness.output import command
from hw4fast.robustness.store import PARTS, WHOLE, Answer, Store
from hw4fast.robustness.study import study
from tests.conftest import write_linear_onnx

pytestmark = pytest.mark.usefixtures("undrawn")
SOME = ["blur", "gaussian_noise", "snow", "flip"]
SAME = ("predictions.csv", "predictions.parquet", "summary.csv", "summary.parquet", "answers.parquet")


@pytest.fixture(scope="module")
def whole(centroid_onnx, tmp_path_factory):
    return study(
        "digits", centroid_onnx, SOME, tmp_path_factory.mktemp("whole") / "s", limit=30, breaking=0, progress=False
    )


@pytest.fixture(scope="module")
def other_onnx(centroid_onnx, tmp_path_factory):
    """Another net for the same digits."""
    weights = np.random.Generator(np.random.PCG64(1)).standard_normal((10, 784)) * 0.1
    card = Classifier(centroid_onnx).card.to_json_text()
    return write_linear_onnx(tmp_path_factory.mktemp("other") / "other.onnx", weights, np.zeros(10), card)


def same_files(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in SAME)


@pytest.fixture
def asked(monkeypatch):
    """How many pictures the nets were asked about."""
    counted = []
    exact = Classifier.answers

    def counting(self, batch):
        counted.append(len(batch))
        return exact(self, batch)

    monkeypatch.setattr(Classifier, "answers", counting)
    return counted


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_number_of_workers_does_not_matter(whole, centroid_onnx, tmp_path, threads):
    options = {"limit": 30, "progress": False, "breaking": 0, "threads": threads}
    assert same_files(study("digits", centroid_onnx, SOME, tmp_path / "s", **options).out, whole.out)


def test_neither_does_pythons_hash_seed(whole, centroid_onnx, tmp_path):
    command = [
        sys.executable,
        "-m",
        "hw4fast",
        "study",
        "digits",
        "--model",
        str(centroid_onnx),
        "--limit",
        "30",
        "--breaking",
        "0",
    ]
    command += ["--transforms", ",".join(SOME), "--out", str(tmp_path / "s")]
    subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": "7"}, check=True, capture_output=True)
    assert same_files(tmp_path / "s", whole.out)


def test_a_killed_study_goes_on_where_it_was(whole, centroid_onnx, tmp_path):
    """The child stops, with parts on the disk, at its twentieth picture, and is killed."""
    code = f"""
import dataclasses, time
import hw4fast.robustness.store as store
store.SECONDS = 0.0
from hw4fast.robustness import source, study
opened = source.open_source
def slow(*arguments):
    found = opened(*arguments)
    read, seen = found.read, []
    def picture(number):
        seen.append(number)
        if len(seen) > 20:
            time.sleep(600)
        return read(number)
    return dataclasses.replace(found, read=picture)
study.open_source = slow
options = dict(limit=30, threads=1, breaking=0, progress=False)
study.study("digits", {str(centroid_onnx)!r}, {SOME!r}, {str(tmp_path / "s")!r}, **options)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code.replace("source.replace", "__import__('dataclasses').replace")]
    ) as p:
        parts, deadline = tmp_path / "s" / PARTS, time.monotonic() + 60
        while len(list(parts.glob("[0-9]*.parquet"))) < 12 and time.monotonic() < deadline:
            time.sleep(0.02)
        p.send_signal(signal.SIGKILL)
    assert json.loads((tmp_path / "s" / "study.json").read_text(encoding="utf-8"))["status"] == "unfinished"
    with pytest.raises(UsageError, match=r"an interrupted study of the same source stands in .*: add --resume"):
        study("digits", centroid_onnx, SOME, tmp_path / "s", limit=30, breaking=0, progress=False)
    again = study("digits", centroid_onnx, SOME, tmp_path / "s", limit=30, breaking=0, progress=False, resume=True)
    assert again.out == tmp_path / "s" and again.reused >= 12 * 17
    assert same_files(again.out, whole.out) and not (again.out / PARTS).exists()


def test_ctrl_c_keeps_the_answers_and_says_how_to_go_on(whole, centroid_onnx, tmp_path, monkeypatch):
    noted = measure_module._note
    seen = []

    def interrupt(*arguments):
        noted(*arguments)
        seen.append(1)
        if len(seen) == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(measure_module, "_note", interrupt)
    with pytest.raises(Interrupted, match=r"are kept, go on with: hw4fast study digits --model .* --resume$"):
        study("digits", centroid_onnx, SOME, tmp_path / "s", limit=30, breaking=0, progress=False)
    monkeypatch.undo()
    again = study("digits", centroid_onnx, SOME, tmp_path / "s", limit=30, breaking=0, progress=False, resume=True)
    assert again.reused == 9 * 17 and same_files(again.out, whole.out)


def test_only_what_is_new_is_asked(whole, centroid_onnx, other_onnx, tmp_path, asked):
    first = study("digits", centroid_onnx, ["blur"], tmp_path / "s", limit=10, breaking=0, progress=False)
    assert (first.reused, first.predictions, sum(asked)) == (0, 60, 80)  # batches are filled up to 8
    asked.clear()
    again = study("digits", centroid_onnx, ["blur"], tmp_path / "s", limit=10, breaking=0, progress=False)
    assert (again.reused, asked, again.out) == (60, [], first.out)
    more = study(
        "digits", [centroid_onnx, other_onnx], ["blur", "snow"], tmp_path / "s", limit=10, breaking=0, progress=False
    )
    assert (more.reused, more.predictions) == (60, 220)
    assert len(asked) == 10 * (2 + 2) and more.out == first.out
    asked.clear()
    assert (
        study("digits", [centroid_onnx, other_onnx], SOME, tmp_path / "s", limit=30, breaking=0, progress=False).reused
        == 220
    )
    back = study("digits", centroid_onnx, SOME, tmp_path / "s", limit=30, breaking=0, progress=False)
    assert back.reused == back.predictions
    for name in SAME[:4]:
        assert (back.out / name).read_bytes() == (whole.out / name).read_bytes()
    assert len(pq.read_table(back.out / WHOLE)) == 2 * 30 * 17  # the other model's answers are kept, too


def test_several_models_answer_as_each_alone(whole, centroid_onnx, other_onnx, tmp_path):
    both = study("digits", [centroid_onnx, other_onnx], SOME, tmp_path / "s", limit=30, breaking=0, progress=False)
    alone = study("digits", other_onnx, SOME, tmp_path / "o", limit=30, breaking=0, progress=False)
    assert both.models[0].rows == whole.rows and both.models[1].rows == alone.rows
    tables = [pq.read_table(found.out / "predictions.parquet").to_pylist() for found in (both, whole, alone)]
    assert tables[0] == tables[1] + tables[2]
    assert len({row["model"] for row in tables[0]}) == 2


def test_another_label_is_another_rank(centroid_onnx, tmp_path):
    """Answers are the same; what is right isn't."""
    from PIL import Image

    from hw4fast.data import load

    split = load("digits").test
    (tmp_path / "p").mkdir()
    for number in range(4):
        Image.fromarray(split.images[number, :, :, 0]).save(tmp_path / "p" / f"{number}.png")
    found = [study(tmp_path / "p", centroid_onnx, ["blur51"], tmp_path / "s", progress=False)]
    for label in (1, 2):
        (tmp_path / "p" / "labels.csv").write_text("file,label\n" + "".join(f"{i}.png,{label}\n" for i in range(4)))
        found.append(study(tmp_path / "p", centroid_onnx, ["blur51"], tmp_path / "s", progress=False))
    assert [f.reused for f in found] == [0, 0, 0]
    rows = [pq.read_table(found[2].out / "predictions.parquet").to_pylist()][0]
    logits = Classifier(centroid_onnx).logits(split.images[:4])
    assert [row["label_rank"] for row in rows if not row["spec"]] == (logits > logits[:, [2]]).sum(axis=1).tolist()


@pytest.mark.parametrize("code", ["return picture", "return 255 - picture"])
def test_a_changed_transform_of_the_users_own_is_asked_again(centroid_onnx, tmp_path, code):
    """In processes of their own: a name is registered once."""

    def run(text):
        (tmp_path / "mine.py").write_text(
            "import hw4fast\n@hw4fast.transform(severities=(1, 2, 3, 4, 5))\ndef mine(picture, much):\n    "
            + text
            + "\n"
        )
        command = [sys.executable, "-m", "hw4fast", "study", "digits", "--model", str(centroid_onnx), "--limit", "5"]
        command += ["--transforms", "mine,blur51", "--import", str(tmp_path / "mine.py"), "--out", str(tmp_path / "s")]
        done = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    first, second = run("return picture"), run(code)
    assert first["reused"] == 0 and second["reused"] == (35 if code == "return picture" else 10)
    assert [row["flips"] for row in first["rows"][1:6]] == [0] * 5
    assert (second["rows"][1]["flips"] > 0) == (code != "return picture")


def test_what_is_no_study_can_not_be_resumed(centroid_onnx, tmp_path):
    with pytest.raises(UsageError, match="there is no study of this source with this seed in"):
        study("digits", centroid_onnx, ["blur51"], tmp_path / "s", limit=2, progress=False, resume=True)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "study.json").write_text("{")
    with pytest.raises(UserError, match=r"study\.json' is damaged"):
        study("digits", centroid_onnx, ["blur51"], tmp_path / "s", limit=2, progress=False)
    with pytest.raises(UsageError, match="the same model is named twice"):
        study("digits", [centroid_onnx, centroid_onnx], ["blur51"], tmp_path / "t", limit=2, progress=False)
    with pytest.raises(UsageError, match="name at least one model"):
        study("digits", [], ["blur51"], tmp_path / "t", limit=2, progress=False)
    assert not (tmp_path / "t").exists()


def test_a_damaged_part_is_named(centroid_onnx, tmp_path):
    found = study("digits", centroid_onnx, ["blur51"], tmp_path / "s", limit=2, progress=False)
    (found.out / WHOLE).write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"answers\.parquet' is damaged .*: delete it"):
        study("digits", centroid_onnx, ["blur51"], tmp_path / "s", limit=2, progress=False)
    (found.out / WHOLE).unlink()
    assert study("digits", centroid_onnx, ["blur51"], tmp_path / "s", limit=2, progress=False).reused == 0


def test_a_full_disk_keeps_what_is_there(centroid_onnx, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "x.parquet")

    found = study("digits", centroid_onnx, ["blur51"], tmp_path / "s", limit=2, progress=False)
    before = (found.out / WHOLE).read_bytes()
    monkeypatch.setattr(Store, "_write", full)
    with pytest.raises(UserError, match=r"can't be written to .*No space left.*are kept, go on with: .* --resume"):
        study("digits", centroid_onnx, ["blur51", "rotate"], tmp_path / "s", limit=4, progress=False)
    assert (found.out / WHOLE).read_bytes() == before


def test_another_setting_is_asked_again(tmp_path):
    answer = {"blur3": Answer(1, 0.5, -1, -1)}
    store = Store(tmp_path, {"onnxruntime": "1"})
    store.add("m", 2**64 - 1, 0, answer)
    store.add("m", 2**64 - 1, 5, answer)
    store.finish()
    store.add("m", 2**64 - 1, 0, answer)  # twice, as after a kill
    store.finish()
    again = Store(tmp_path, {"onnxruntime": "1"})
    assert len(again) == 2 and again.find("m", 2**64 - 1, 0) == answer
    assert again.find("m", 1, 0) == again.find("n", 2**64 - 1, 0) == again.find("m", 2**64 - 1, 1) == {}
    assert len(Store(tmp_path, {"onnxruntime": "2"})) == 0


def filled(folder, setting, *specs):
    store = Store(folder, setting)
    for model in "nm":
        for pixels in range(20):
            store.add(model, pixels, 0, {spec: Answer(pixels, 0.5, 0, 1) for spec in specs})
        store.flush()
    store.finish()
    return (folder / WHOLE).read_bytes()


def test_the_file_is_the_same_however_its_answers_came_together(tmp_path, monkeypatch):
    """Another setting's words were left in it."""
    fresh = filled(tmp_path / "fresh", {"numpy": "2"}, "a", "b", "c")
    filled(tmp_path / "s", {"numpy": "1"}, "x", "c", "a0")
    filled(tmp_path / "s", {"numpy": "2"}, "c", "a")
    assert filled(tmp_path / "s", {"numpy": "2"}, "b", "a") == fresh
    assert filled(tmp_path / "s", {"numpy": "2"}) == fresh
    monkeypatch.setattr("hw4fast.robustness.store.ROWS", 7)  # in many pieces
    small = filled(tmp_path / "s", {"numpy": "2"})
    assert pq.read_table(tmp_path / "s" / WHOLE).equals(pq.read_table(tmp_path / "fresh" / WHOLE)) and small != fresh
    assert Store(tmp_path / "s", {"numpy": "2"}).find("m", 7, 0) == dict.fromkeys("abc", Answer(7, 0.5, 0, 1))


def test_answers_of_older_versions_are_read(tmp_path):
    """They hold words where there are numbers of words now."""
    columns = {"model": ["m", "m"], "spec": ["clean", "blur3"], "pixels": np.array([7, 7], np.uint64), "seed": [0, 0]}
    columns |= {name: np.array([1, 2], np.int32) for name in ("label", "answer", "rank")}
    table = pa.table(columns | {"confidence": np.array([0.5, 1], np.float32)}, metadata={"numpy": "1"})
    pq.write_table(table, tmp_path / WHOLE)
    wanted = {"clean": Answer(1, 0.5, 1, 1), "blur3": Answer(2, 1.0, 2, 2)}
    store = Store(tmp_path, {"numpy": "1"})
    assert store.find("m", 7, 0) == wanted
    store.finish()
    assert store.find("m", 7, 0) == Store(tmp_path, {"numpy": "1"}).find("m", 7, 0) == wanted
    pq.write_table(table.drop_columns(["rank"]), tmp_path / WHOLE)
    with pytest.raises(UserError, match=r"answers\.parquet' is damaged"):
        Store(tmp_path, {"numpy": "1"})


def test_memory_of_many_answers(tmp_path):
    """Sorted as words they took 135 kB a picture of 186 points."""
    specs = [f"transform_with_a_long_name{k}:severity=3" for k in range(186)]
    store, answer = Store(tmp_path, {}), Answer(1, 0.5, 0, 1)
    for pixels in range(500):
        store.add("0123456789abcdef", pixels, 0, dict.fromkeys(specs, answer))
    store.flush()
    tracemalloc.start()
    store.finish()
    peaks = [tracemalloc.get_traced_memory()[1]]
    tracemalloc.reset_peak()
    Store(tmp_path, {})
    peaks.append(tracemalloc.get_traced_memory()[1] - tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert max(peaks) < 500 * 20e3
    again = Store(tmp_path, {})
    assert len(again) == 500 * 186 and set(again.find("0123456789abcdef", 499, 0)) == set(specs)
    assert store.find("0123456789abcdef", 7, 0) == again.find("0123456789abcdef", 7, 0)


@pytest.mark.parametrize("out", [None, "a folder/it's"])
def test_the_command_repeats_what_was_asked(out, monkeypatch):
    """Typed into a shell it asks for the same."""
    asked = {"source": "my pictures", "model": ["one net.onnx", "two.onnx"], "seed": 3, "provider": "cuda"}
    asked |= {"transforms": ["translate:right=0.1,down=0.2+rotate10:fill=black", "blur", "jitter:hue=0.1,contrast=2"]}
    asked |= {"threads": 2, "limit": 7, "labels": "none", "out": out, "breaking": 0, "imports": ["mine.py", "o.py"]}
    seen = []

    def study(source, model, transforms, **options):
        seen.append({"source": source, "model": model, "transforms": transforms} | options)
        raise UserError("enough")

    monkeypatch.setattr(study_module, "study", study)
    program, *words = shlex.split(shlex.join(command(asked)))
    assert (program, main(words)) == ("hw4fast", 1)
    assert seen == [asked | {"resume": False, "batches": None}]
