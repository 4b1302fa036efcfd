"""classify: the right answers, failures that don't stop the rest, saved pictures, and a cold start without torch."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hw4fast.data import load
from hw4fast.data.images import read_picture
from hw4fast.errors import UsageError, UserError
from hw4fast.inference import classify as classify_module
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.classify import Failure, Result, classify
from hw4fast.transforms import parse


def write_digit(path, index: int = 0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(load("digits").test.images[index, :, :, 0]).save(path)
    return path


@pytest.fixture
def digit(tmp_path):
    return write_digit(tmp_path / "digit.png")


def only(results) -> Result:
    (result,) = results
    assert isinstance(result, Result), result
    return result


def test_answers_are_the_classifiers(digit, centroid_onnx):
    result = only(classify([digit], centroid_onnx, ["blur51", "noise0.3"], top=3, seed=7))
    classifier, picture = Classifier(centroid_onnx), load("digits").test.images[0]
    assert result.file == str(digit)
    assert [answer.transform for answer in result.transformed] == ["blur51", "gaussian_noise:std=0.3"]
    for answer in (result.clean, *result.transformed):
        seen = picture if answer.transform == "clean" else parse(answer.transform)(picture, seed=7)
        probabilities = classifier.probabilities(seen[None])[0]
        order = np.argsort(-probabilities)[:3]
        assert [index for index, _, _ in answer.top] == order.tolist()
        assert [label for _, label, _ in answer.top] == [str(index) for index in order]
        assert [value for _, _, value in answer.top] == pytest.approx(probabilities[order].tolist(), abs=1e-6)
    assert result.clean.top[0][0] == load("digits").test.labels[0]
    assert result.transformed[0].top[0][2] != result.clean.top[0][2]


@pytest.mark.parametrize(("top", "given"), [(1, 1), (10, 10), (99, 10)])
def test_top(top, given, digit, centroid_onnx):
    values = [value for _, _, value in only(classify(digit, centroid_onnx, top=top)).clean.top]
    assert len(values) == given and values == sorted(values, reverse=True)


def test_bad_pictures_fail_and_the_rest_goes_on(digit, tmp_path, centroid_onnx):
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    missing = tmp_path / "missing.png"
    empty = tmp_path / "empty"
    empty.mkdir()
    results = list(classify([text, digit, missing, empty, digit], centroid_onnx))
    assert [type(result) for result in results] == [Failure, Result, Failure, Failure, Result]
    assert [result.file for result in results] == [str(path) for path in (text, digit, missing, empty, digit)]
    assert "no picture that can be read" in results[0].reason and "there is no" in results[2].reason
    assert f"the folder '{empty}' holds no picture" in results[3].reason


@pytest.fixture
def many(tmp_path) -> Path:
    """A folder with twenty digits, the first of them broken, and a folder in it with one more."""
    folder = tmp_path / "many"
    for number in range(20):
        write_digit(folder / f"{number:02}.png", number)
    (folder / "00.png").write_text("broken")
    write_digit(folder / "zz" / "last.png", 20)
    return folder


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("at_once", [1, 6])
def test_a_folder_is_classified_in_order_on_all_cores(threads, at_once, many, centroid_onnx, monkeypatch):
    """As picture by picture; also several at a time, as on a GPU."""
    monkeypatch.setattr("hw4fast.inference.classify._at_once", lambda *_: at_once)
    files = sorted(many.rglob("*.png"))
    wanted = [next(classify(file, centroid_onnx, ["noise0.3", "blur5"], top=2, seed=3)) for file in files]
    got = list(classify(many, centroid_onnx, ["noise0.3", "blur5"], top=2, seed=3, threads=threads))
    assert [result.file for result in got] == list(map(str, files)) and isinstance(got[0], Failure)
    assert got[0] == wanted[0]
    for mine, theirs in zip(got[1:], wanted[1:], strict=True):
        for answer, other in zip((mine.clean, *mine.transformed), (theirs.clean, *theirs.transformed), strict=True):
            assert [guess[:2] for guess in answer.top] == [guess[:2] for guess in other.top]
            assert [guess[2] for guess in answer.top] == pytest.approx([guess[2] for guess in other.top], abs=1e-6)


def test_many_pictures_go_through_several_threads(many, centroid_onnx, monkeypatch):
    names = set()
    read = classify_module.read_picture

    def note(file):
        names.add(threading.current_thread().name)
        time.sleep(0.01)
        return read(file)

    monkeypatch.setattr(classify_module, "read_picture", note)
    assert len(list(classify(many, centroid_onnx, threads=3))) == 21
    assert {name.rpartition("_")[0] for name in names} == {"hw4fast"} and len(names) == 3


@pytest.mark.parametrize("transforms, parts", [((), 8), (("blur5", "blur9"), 2)])
def test_a_graph_that_insists_on_a_number_is_given_so_many(
    transforms, parts, many, centroid_onnx, tmp_path, monkeypatch
):
    import onnx

    model = onnx.load(centroid_onnx)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(model, tmp_path / "eight.onnx")
    sizes, probabilities = [], Classifier.probabilities

    def note(self, batch):
        sizes.append(len(batch) // (1 + len(transforms)))
        return probabilities(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "probabilities", note)
        found = list(classify(many, tmp_path / "eight.onnx", transforms, top=1))
    assert max(sizes) == parts and len(found) == 21
    assert sum(sizes) == sum(isinstance(result, Result) for result in found)
    for mine, other in zip(found[1:], list(classify(many, centroid_onnx, transforms, top=1))[1:], strict=True):
        assert mine.clean.top[0][:2] == other.clean.top[0][:2]


def test_many_pictures_are_saved_under_the_same_names(many, tmp_path, centroid_onnx):
    for name in ("one", "more"):
        (tmp_path / name).mkdir()
    files = [write_digit(tmp_path / name / "same.png", index) for index, name in enumerate(("one", "more"))] * 10
    results = list(classify(files, centroid_onnx, ["blur3"], save_transformed=tmp_path / "out"))
    assert [result.transformed[0].saved.name for result in results] == ["same-blur3.png", "same-blur3-2.png"] * 10


def test_a_model_that_fails_stops_many(many, centroid_onnx, monkeypatch):
    def broken(self, batch):
        raise UserError("weights are broken")

    monkeypatch.setattr(Classifier, "probabilities", broken)
    with pytest.raises(UserError, match="weights are broken"):
        list(classify(many, centroid_onnx))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hw4fast")]


def test_nothing_is_read_any_more_once_nobody_listens(many, centroid_onnx, monkeypatch):
    seen = []
    read = classify_module.read_picture
    monkeypatch.setattr(classify_module, "read_picture", lambda file: seen.append(file) or read(file))
    results = classify([many] * 50, centroid_onnx, threads=2)
    next(results)
    results.close()
    count = len(seen)
    time.sleep(0.05)
    assert len(seen) == count < 100  # of 1050


def test_pictures_are_read_one_at_a_time(digit, tmp_path, centroid_onnx):
    """The first answer comes before the second file exists."""
    later = tmp_path / "later.png"
    results = classify([digit, later], centroid_onnx)
    assert isinstance(next(results), Result)
    write_digit(later, 1)
    assert isinstance(next(results), Result)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"transforms": ["blurr"]}, UsageError, "did you mean blur"),
        ({"transforms": ["blur51", "blur4"]}, UsageError, "size must be odd"),
        ({"top": 0}, UsageError, "top must be 1 or more"),
        ({"model": "no/such.onnx"}, UserError, "there is no model file"),
        ({"providers": "abacus"}, UsageError, "unknown provider"),
        ({"threads": 0}, UsageError, "threads must lie in 1 … "),
    ],
)
def test_errors_come_before_the_first_picture(change, error, message, digit, centroid_onnx):
    with pytest.raises(error, match=message):
        classify(**{"paths": [digit], "model": centroid_onnx, **change})


def test_a_folder_that_cannot_be_made(digit, centroid_onnx):
    with pytest.raises(UserError, match="can't be made"):
        classify([digit], centroid_onnx, ["blur3"], save_transformed=digit / "sub")


def test_json(digit, tmp_path, centroid_onnx):
    good, bad = classify([digit, tmp_path / "x.png"], centroid_onnx, ["blur3"], top=2, save_transformed=tmp_path / "s")
    value = json.loads(json.dumps(good.to_json(), allow_nan=False))
    assert list(value) == ["file", "clean", "transformed"]
    assert list(value["clean"]) == ["transform", "top"]
    assert list(value["clean"]["top"][0]) == ["index", "label", "probability"]
    assert value["transformed"][0]["transform"] == "blur3"
    assert value["transformed"][0]["saved"] == str(tmp_path / "s" / "digit-blur3.png")
    assert list(bad.to_json()) == ["file", "error"]


def test_random_transforms_repeat_with_the_seed(digit, centroid_onnx):
    first, again, other = (
        only(classify(digit, centroid_onnx, ["noise0.3", "jitter"], seed=seed)).transformed for seed in (1, 1, 2)
    )
    assert first == again != other


def test_saved_pictures_are_what_the_model_saw(digit, tmp_path, centroid_onnx):
    specs = ["blur51:sigma=2+noise:std=0.1", "rotate-30:fill=black"]
    result = only(classify(digit, centroid_onnx, specs, save_transformed=tmp_path / "deep" / "er", seed=3))
    names = [answer.saved.name for answer in result.transformed]
    assert names == ["digit-blur51_sigma=2+gaussian_noise_std=0.1.png", "digit-rotate-30_fill=black.png"]
    for answer in result.transformed:
        expected = parse(answer.transform)(load("digits").test.images[0], seed=3)
        assert np.array_equal(read_picture(answer.saved), expected)
    assert result.clean.saved is None


def test_saved_pictures_are_never_overwritten(tmp_path, centroid_onnx):
    """Two folders with a digit.png each, and a stranger's file under the name that would come next."""
    digits = [write_digit(tmp_path / name / "digit.png", index) for index, name in enumerate("ab")]
    out = tmp_path / "out"
    out.mkdir()
    (out / "digit-blur3.png").write_text("a stranger's")

    def save() -> list[str]:
        results = classify(digits, centroid_onnx, ["blur3"], save_transformed=out)
        return [result.transformed[0].saved.name for result in results]

    assert save() == ["digit-blur3-2.png", "digit-blur3-3.png"]
    assert (out / "digit-blur3.png").read_text() == "a stranger's"
    assert save() == ["digit-blur3-2.png", "digit-blur3-3.png"]  # the same pixels are there already
    assert {path.name for path in out.iterdir()} == {f"digit-blur3{end}.png" for end in ("", "-2", "-3")}


def test_each_saved_picture_is_looked_at_once(tmp_path, centroid_onnx, monkeypatch):
    """However many have the same name: none in the call that writes them, each once in the next one."""
    out, looked = tmp_path / "out", []
    digits = [write_digit(tmp_path / f"{number}" / "digit.png", number) for number in range(12)]
    read = classify_module.read_picture
    monkeypatch.setattr(classify_module, "read_picture", lambda path: looked.append(Path(path).parent) or read(path))

    def save(files: list[Path]) -> list[str]:
        return [result.clean.saved.name for result in classify(files, centroid_onnx, save_transformed=out, threads=1)]

    names = ["digit-clean.png", *(f"digit-clean-{number}.png" for number in range(2, 13))]
    assert save(digits + digits) == names + names and looked.count(out) == 0
    assert save(digits[::-1] + digits) == names[::-1] + names and looked.count(out) == 12


def test_what_was_saved_and_is_gone_is_saved_again(tmp_path, centroid_onnx):
    digit = write_digit(tmp_path / "digit.png")
    results = classify([digit, digit], centroid_onnx, save_transformed=tmp_path / "out")
    next(results).clean.saved.unlink()
    saved = next(results).clean.saved
    assert np.array_equal(read_picture(saved), read_picture(digit))


def test_a_picture_that_cannot_be_saved_stops_with_one_line(digit, tmp_path, centroid_onnx):
    results = classify([digit], centroid_onnx, ["blur3"], save_transformed=tmp_path / "out")
    (tmp_path / "out").rmdir()
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(UserError, match=r"digit-blur3.png' can't be written"):
        next(results)


@pytest.mark.parametrize("start", ["ü né:w\n" + "x" * 120, "玉" * 80], ids=["signs", "240 bytes"])
def test_unusual_file_names(start, tmp_path, centroid_onnx):
    path = write_digit(tmp_path / (start + ".png"))
    result = only(classify(path, centroid_onnx, ["blur3"], save_transformed=tmp_path / "out"))
    saved = result.transformed[0].saved
    assert saved.exists() and "\n" not in saved.name and ":" not in saved.name and " " not in saved.name


def test_a_colour_photo_reaches_a_grey_model(tmp_path, centroid_onnx):
    photo = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.jpg")
    result = only(classify(tmp_path / "photo.jpg", centroid_onnx, ["jitter"]))
    assert len(result.clean.top) == 5


def test_cold_process_imports_only_what_it_needs(digit, centroid_onnx):
    code = (
        "import sys; from hw4fast.inference.classify import classify\n"
        "(result,) = classify([sys.argv[1]], sys.argv[2], ['blur51'])\n"
        "print(result.clean.top[0][1])\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", code, str(digit), str(centroid_onnx)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer, modules = done.stdout.splitlines()
    assert answer == str(load("digits").test.labels[0]) and done.stderr == ""
    heavy = {"torch", "torchvision", "onnx", "onnxscript", "matplotlib", "sklearn", "numba", "scipy", "tqdm"}
    assert not heavy & set(modules.split())
    assert "onnxruntime" in modules.split()


def test_without_transforms_the_clean_picture_is_saved(digit, tmp_path, centroid_onnx):
    result = only(classify(digit, centroid_onnx, save_transformed=tmp_path / "out"))
    assert result.clean.saved == tmp_path / "out" / "digit-clean.png"
    assert np.array_equal(read_picture(result.clean.saved), load("digits").test.images[0])


def test_one_transform_may_be_a_text_of_its_own(digit, centroid_onnx):
    assert [answer.transform for answer in only(classify(digit, centroid_onnx, "blur5")).transformed] == ["blur5"]


@pytest.mark.parametrize("times", [1, 2, 3])
def test_ctrl_c_among_many_is_no_crash_however_often(times, many, tmp_path, centroid_onnx):
    """Threads are in our kernels then: Python's end would meet them there."""
    command = [sys.executable, "-m", "hw4fast", "classify", *[str(many)] * 2000, "--model", str(centroid_onnx), "--csv"]
    table = tmp_path / "table.csv"
    with table.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True) as process:
        while table.stat().st_size < 1000:  # more than its head
            assert process.poll() is None
            time.sleep(0.01)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.01)
        _, err = process.communicate(timeout=60)
    lines = err.splitlines()
    assert process.returncode == 130 and all(
        line == "hw4fast: interrupted" or "00.png' is no" in line for line in lines
    )
    if times == 1:  # what could not be read by then, and then this; another Ctrl-C may come amid the reasons
        assert len(lines) > 1 and lines[-1] == "hw4fast: interrupted", err
    assert table.read_text().endswith("\n")  # what was answered is there, whole


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b"])
def test_what_can_not_be_a_path_fails_like_a_missing_file(name, centroid_onnx):
    (found,) = classify([name], centroid_onnx)
    assert isinstance(found, Failure) and "\n" not in found.reason


def test_answers_before_the_nets_error_are_kept(many, centroid_onnx, monkeypatch):
    """The net fails on its 14th picture: 13 are answered, whatever a thread takes at a time."""
    probabilities, sound = Classifier.probabilities, [str(file) for file in sorted(many.glob("*.png"))[1:]] * 3
    lock, calls = threading.Lock(), []

    def fails(self, batch):
        with lock:
            calls.append(1)
            if len(calls) == 14:
                raise UserError("weights are broken")
        return probabilities(self, batch)

    monkeypatch.setattr(Classifier, "probabilities", fails)
    results = classify(sound, centroid_onnx, threads=1)
    assert [next(results).file for _ in range(13)] == sound[:13]
    with pytest.raises(UserError, match="weights are broken"):
        next(results)


def test_ctrl_c_waits_for_a_picture_and_no_more(many, centroid_onnx, monkeypatch):
    """A thread has eight in hand, each of which takes the net 0.2 s."""
    files = sorted(many.glob("*.png"))[1:] * 10
    probabilities = Classifier.probabilities
    monkeypatch.setattr(Classifier, "probabilities", lambda *given: time.sleep(0.2) or probabilities(*given))
    results = classify(files, centroid_onnx, threads=2)
    for _ in range(24):
        next(results)
    begun = time.monotonic()
    results.close()
    assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize("threads", [0, -1])
@pytest.mark.parametrize("count", [1, 20])
def test_threads(threads, count, digit, centroid_onnx):
    with pytest.raises(UsageError, match="threads"):
        list(classify([digit] * count, centroid_onnx, threads=threads))


def test_an_unknown_instruction_set_is_no_pictures_fault(digit, centroid_onnx, monkeypatch):
    monkeypatch.setenv("HW4FAST_ISA", "foo")
    with pytest.raises(UsageError, match="HW4FAST_ISA 'foo'"):
        list(classify([digit], centroid_onnx))
