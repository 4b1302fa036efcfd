"""The command line: exit codes, what stands on stdout and on stderr, examples that parse, light imports."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hw4fast import cli
from hw4fast.cli import main
from hw4fast.cli.common import print_json
from hw4fast.cli.studying import _specs
from hw4fast.data import load
from hw4fast.errors import UserError
from hw4fast.inference.card import Card
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.classify import Failure
from hw4fast.inference.session import explain_provider
from tests.conftest import write_linear_onnx
from tests.inference.models import write_one_picture_onnx

VERBS = ("train", "export", "classify", "study", "transforms", "bench", "card", "info")


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, as a user starts it."""
    command = [sys.executable, "-m", "hw4fast", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


@pytest.fixture
def digit(tmp_path):
    Image.fromarray(load("digits").test.images[0, :, :, 0]).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


# -- help --------------------------------------------------------------------------------------------------------


def usage_of(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_help_names_every_verb_and_the_first_step(capsys):
    text = usage_of(capsys)
    assert [verb for verb in VERBS if not re.search(rf"^ +{verb}\s+\w", text, re.MULTILINE)] == []
    assert "hw4fast train digits" in text


@pytest.mark.parametrize("verb", VERBS)
def test_each_help_has_one_sentence_and_two_examples_that_parse(verb, capsys):
    text = usage_of(capsys, verb)
    sentence, examples = re.search(r"\n\n(\S.*\.)\n\nexamples:\n((?:  hw4fast .+\n)+)", text).groups()
    assert sentence.count(". ") == 0
    commands = [shlex.split(line) for line in examples.splitlines()]
    assert len(commands) == 2
    for command in commands:
        assert command[:2] == ["hw4fast", verb]
        cli._parser().parse_args(command[1:])


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_explained(verb, capsys):
    options = usage_of(capsys, verb).partition("options:\n")[2]
    starts = re.findall(r"^  (--?\S.*(?:\n {4,}.*)*)", options, re.MULTILINE)
    assert starts
    bare = [text for text in starts if not re.search(r"(?: {2,}|\n +)\S", text)]
    assert not bare


# -- exit codes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "VERB"),
        (("trian",), 2, "'train'"),
        (("train", "digitz"), 2, "did you mean digits"),
        (("train", "--optimizer", "adamm"), 2, "sgd, adagrad, adam"),
        (("train", "--kernels", "cublas"), 2, "hw4fast, torch"),
        (("train", "--epochs", "0"), 2, "no positive whole number"),
        (("train", "--lr", "nan"), 2, "lr must be positive"),
        (("train", "--channels", "3"), 2, "two numbers in 1"),
        (("train", "--threads", "two"), 2, "no positive whole number"),
        (("export", "nowhere", "--onnx"), 2, "nowhere is no run folder, and an unknown architecture 'nowhere'"),
        (("export", "no/where", "--onnx"), 1, "no/where is no run folder"),
        (("classify",), 2, "IMAGE"),
        (("classify", "a.png", "--model", "nowhere.onnx"), 1, "no model file 'nowhere.onnx'"),
        (("study", "digits", "--model", "nowhere.onnx"), 1, "no model file 'nowhere.onnx'"),
        (("bench", "nowhere"), 1, "nowhere"),
        (("bench", "nowhere", "--batches", "1,none"), 2, "'none' is no positive whole number"),
    ],
)
def test_mistakes(arguments, code, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        found = main(list(arguments))
    except SystemExit as stop:  # argparse's way
        found = stop.code
    assert found == code
    said = capsys.readouterr()
    assert words in said.err.splitlines()[-1]
    assert "Traceback" not in said.err and said.out == ""
    assert not list(tmp_path.iterdir())  # and nothing is left behind


def test_a_mistake_as_a_process(tmp_path):
    done = run("train", "digitz", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert "did you mean digits" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("verb", "options", "words"),
    [
        ("classify", ("--transform", "blurr5"), "did you mean blur"),
        ("classify", ("--provider", "cudda"), "cuda"),
        ("classify", ("--device", "cudda"), "cuda"),
        ("study", ("--transforms", "blurr"), "did you mean blur"),
        ("study", ("--provider", "cudda"), "cuda"),
        ("study", ("--device", "cudda"), "cuda"),
    ],
)
def test_unknown_names_list_the_nearest(verb, options, words, digit, centroid_onnx, capsys):
    source = str(digit) if verb == "classify" else "digits"
    assert main([verb, source, "--model", str(centroid_onnx), *options]) == 2
    assert words in capsys.readouterr().err


def test_a_study_on_a_gpu_that_is_not_there_says_so_once(centroid_onnx, tmp_path, capsys):
    if explain_provider("cuda") is None:
        pytest.skip("there is a GPU")
    arguments = ["study", "digits", "--model", str(centroid_onnx), "--provider", "cuda", "--out", str(tmp_path / "s")]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert "provider 'cuda' doesn't run here" in said.err and len(said.err.splitlines()) == 1
    assert not said.out and not list(tmp_path.iterdir())


def test_classify_counts_failures_in_the_exit_code(digit, centroid_onnx, capsys):
    broken = digit.with_name("broken.png")
    broken.write_text("no picture")
    assert main(["classify", str(digit), "--model", str(centroid_onnx)]) == 0
    assert main(["classify", str(digit), str(broken), "--model", str(centroid_onnx)]) == 3
    captured = capsys.readouterr()
    assert "broken.png" in captured.err and "1 of 2" in captured.err
    assert main(["classify", str(broken), "--model", str(centroid_onnx)]) == 1


def test_an_interrupt_is_130(monkeypatch, digit, centroid_onnx, capsys):
    def interrupted(*_: object, **__: object):
        raise KeyboardInterrupt

    monkeypatch.setattr("hw4fast.inference.classify.classify", interrupted)
    assert main(["classify", str(digit), "--model", str(centroid_onnx)]) == 130
    assert capsys.readouterr().err == "hw4fast: interrupted\n"


@pytest.mark.parametrize(
    ("stop", "code", "words"),
    [(KeyboardInterrupt(), 130, "interrupted"), (UserError("gone"), 1, "gone"), (OSError(28, "full"), 1, "full")],
)
@pytest.mark.parametrize("option", [(), ("--csv",), ("--json",)])
def test_failures_are_told_however_classify_ends(option, stop, code, words, monkeypatch, capsys):
    def stopped(*_: object, **__: object):
        yield Failure("a.png", "'a.png' is empty")
        yield Failure("b.png", "'b.png' is empty")
        raise stop

    monkeypatch.setattr("hw4fast.inference.classify.classify", stopped)
    assert main(["classify", "folder", *option]) == code
    lines = [f"hw4fast: {text}" for text in ("'a.png' is empty", "'b.png' is empty", words)]
    assert capsys.readouterr().err.splitlines() == lines


def test_errors_of_the_system_are_one_line(monkeypatch, digit, centroid_onnx, capsys):
    def full(*_: object, **__: object):
        raise OSError(28, "No space left on device", "report.html")

    monkeypatch.setattr("hw4fast.inference.classify.classify", full)
    assert main(["classify", str(digit), "--model", str(centroid_onnx)]) == 1
    assert capsys.readouterr().err == "hw4fast: No space left on device: report.html\n"


def test_a_reader_that_goes_away_is_no_error(centroid_onnx, digit):
    command = shlex.join([sys.executable, "-m", "hw4fast", "classify", *[str(digit)] * 300, "--model"])
    line = f"{command} {shlex.quote(str(centroid_onnx))} | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{digit}\n"


@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_a_model_that_fails_is_one_line(json_option, digit, centroid_onnx, tmp_path, capsys):
    card = Classifier(centroid_onnx).card.to_json_text()
    nan = write_linear_onnx(tmp_path / "nan.onnx", np.zeros((10, 784)), np.full(10, np.nan), card)
    one = write_one_picture_onnx(tmp_path / "one.onnx")
    for model, words in ((nan, "no number"), (one, "failed on a batch of 2")):
        assert main(["classify", str(digit), "--model", str(model), "--transform", "blur5", *json_option]) == 1
        captured = capsys.readouterr()
        assert captured.out == "" and len(captured.err.splitlines()) == 1
        assert model.name in captured.err and words in captured.err


@pytest.mark.parametrize("value", [float("nan"), {"a": [float("inf")]}])
def test_json_has_no_nan(value, capsys):
    with pytest.raises(UserError, match="NaN or infinite, which JSON can't say"):
        print_json(value)
    assert capsys.readouterr().out == ""


# -- output ------------------------------------------------------------------------------------------------------


def test_classify_prints_a_table(digit, tmp_path, centroid_onnx, capsys):
    (tmp_path / "broken, indeed.png").write_text("no picture")
    words = ["classify", str(digit), str(tmp_path / "broken, indeed.png"), "--model", str(centroid_onnx), "--csv"]
    assert main([*words, "--transform", "blur5", "--top", "2"]) == 3
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(out.splitlines()))
    assert [(row["transform"], row["rank"]) for row in rows[:4]] == [
        (name, rank) for name in ("clean", "blur5") for rank in "12"
    ]
    assert rows[0]["file"] == str(digit) and 0 < float(rows[0]["probability"]) <= 1 and not rows[0]["error"]
    assert rows[4]["file"].endswith("broken, indeed.png") and "no picture" in rows[4]["error"] and len(rows) == 5
    assert err.splitlines()[-1] == "hw4fast: 1 of 2 pictures could not be classified"
    assert main([*words, "--json"]) == 2


def test_a_folder_without_pictures_is_no_picture_that_failed(digit, tmp_path, centroid_onnx, capsys):
    (tmp_path / "empty").mkdir()
    words = ["classify", str(tmp_path / "empty"), "--model", str(centroid_onnx)]
    assert main(words) == 1
    assert capsys.readouterr().err == f"hw4fast: the folder '{tmp_path}/empty' holds no picture\n"
    assert main(["classify", str(digit), str(tmp_path / "none.png"), *words[1:]]) == 3
    assert capsys.readouterr().err.endswith("hw4fast: 1 of 2 pictures could not be classified\n")


def test_classify_prints_clean_and_transformed_side_by_side(digit, centroid_onnx, capsys):
    transforms = ("--transform", "blur5", "--transform", "rotate45")
    assert main(["classify", str(digit), "--model", str(centroid_onnx), *transforms, "--top", "2"]) == 0
    name, head, *answers = capsys.readouterr().out.splitlines()
    assert name == str(digit)
    assert head.split() == ["clean", "blur5", "rotate45"]
    assert len(answers) == 2
    assert all(len(re.findall(r"\d+\.\d %  \d", line)) == 3 for line in answers)


def test_json_is_one_value_per_picture_and_nothing_else(digit, centroid_onnx, capsys):
    missing = str(digit.with_name("missing.png"))
    assert main(["classify", str(digit), missing, "--model", str(centroid_onnx), "--json"]) == 3
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["file"] == str(digit) and first["clean"]
    assert second["file"] == missing and "missing.png" in second["error"]


HOSTILE = "\x1b]0;owned\x07\x1b[2J"


def test_names_from_outside_do_not_reach_the_terminal_as_they_are(tmp_path, centroid_onnx, capsys, recwarn):
    old = Classifier(centroid_onnx).card
    labels = tuple(f"{HOSTILE}{digit}" for digit in range(10))
    card = Card(old.preprocessing, labels, {}, {}, old.opset).to_json_text()
    model = write_linear_onnx(tmp_path / f"{HOSTILE}.onnx", np.zeros((10, 784)), np.zeros(10), card)
    picture, broken = (tmp_path / f"{HOSTILE}{name}.png" for name in ("good", "broken"))
    Image.fromarray(load("digits").test.images[0, :, :, 0]).save(picture)
    broken.write_text("no picture")
    pictures = [str(picture), str(broken)]
    assert main(["classify", *pictures, "--model", str(model), "--top", "1"]) == 3
    assert main(["classify", *pictures, "--model", f"{model}.none"]) == 1
    folder = ["study", str(tmp_path), "--model", str(model), "--transforms", "blur51"]
    assert main([*folder, "--out", str(tmp_path.with_name(HOSTILE))]) == 3
    captured = capsys.readouterr()
    assert "owned" in captured.out and "owned" in captured.err
    assert not recwarn.list  # matplotlib warns of signs that it can't draw, by showing them
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", captured.out + captured.err)
    assert main(["classify", str(picture), "--model", str(model), "--top", "1", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["file"] == str(picture) and value["clean"]["top"][0]["label"] == labels[0]


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_a_terminal_that_lacks_signs(encoding, tmp_path, centroid_onnx):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    helped = run("train", "--help", env=environment, encoding=encoding)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert ("λ" if encoding == "utf-8" else r"\u03bb") in helped.stdout
    missing = str(tmp_path / "é…😀\udcff.png")
    done = run("classify", missing, "--model", str(centroid_onnx), "--json", env=environment, encoding=encoding)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert json.loads(done.stdout)["file"] == missing  # exact, whatever stdout can say


def test_streams_that_can_not_be_set(monkeypatch):
    class Plain(io.StringIO):
        encoding = None

    monkeypatch.setattr(sys, "stdout", Plain())
    monkeypatch.setattr(sys, "stderr", Plain())
    assert main(["info", "--json"]) == 0
    assert json.loads(sys.stdout.getvalue())["processor"]


def test_a_small_run_through_every_verb(tmp_path):
    """The story as a user types it, with --json everywhere: one value on stdout, no bar on a stderr that is a pipe."""

    def value(*arguments: str):
        done = run(*arguments, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "\r" not in done.stderr
        (line,) = done.stdout.splitlines()
        return json.loads(line)

    trained = value("train", "digits", "--epochs", "1", "--threads", "1", "--channels", "2,2")
    assert trained["folder"] == "runs/digits" and trained["n"] == 360
    assert value("export", "runs/digits", "--onnx")["path"] == "runs/digits/model.onnx"
    picture = str(min((tmp_path / "runs/digits/samples").iterdir()))
    assert value("classify", picture, "--model", "runs/digits", "--top", "1")["clean"]
    studied = value("study", "digits", "--model", "runs/digits", "--transforms", "blur", "--limit", "20")
    assert (tmp_path / studied["report"]).is_file()
    short = "--seconds", "0.05", "--batches", "1", "--no-whole"
    engines = {timing["engine"] for timing in value("bench", "runs/digits", *short)["timings"]}
    assert {"torch eager", "onnxruntime cpu"} <= engines
    assert value("info")["isas"]


def test_specs_are_split_at_commas_but_not_inside_one():
    assert _specs("blur") == ["blur"]
    assert _specs("blur,noise3,rotate30") == ["blur", "noise3", "rotate30"]
    assert _specs("jitter:brightness=0.1,contrast=0.2,blur") == ["jitter:brightness=0.1,contrast=0.2", "blur"]
    chain = "translate:right=0.1,down=0.1+rotate10:fill=black"
    assert _specs(f"{chain},blur") == [chain, "blur"]
    assert _specs("blur5:sigma=2+rotate10,noise:std=0.1") == ["blur5:sigma=2+rotate10", "noise:std=0.1"]
    assert _specs("blur5:sigma=2,noise:std=0.1") == ["blur5:sigma=2", "noise:std=0.1"]


# -- light starts ------------------------------------------------------------------------------------------------

HEAVY = {"torch", "numpy", "PIL", "onnx", "onnxruntime", "matplotlib", "sklearn", "numba", "tqdm"}


def modules_after(*arguments: str) -> set[str]:
    """The packages in memory when the command has ended well."""
    code = (
        "import sys\nfrom hw4fast.cli import main\n"
        "try: code = main(sys.argv[1:])\nexcept SystemExit as stop: code = stop.code\n"
        "assert code in (0, None), code\n"
        "print('\\nMODULES', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("MODULES")[2].split())


@pytest.mark.parametrize("arguments", [("--help",), ("train", "--help"), ("study", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(arguments):
    assert not modules_after(*arguments) & HEAVY


def test_inference_never_imports_torch(digit, centroid_onnx, tmp_path):
    model = ("--model", str(centroid_onnx))
    for arguments in (
        ("classify", str(digit), *model, "--transform", "blur51", "--transform", "jitter0.3"),
        ("study", "digits", *model, "--transforms", "noise", "--limit", "10", "--out", str(tmp_path / "study")),
        ("info",),
    ):
        found = modules_after(*arguments)
        assert "torch" not in found, arguments
        assert "numpy" in found  # it has looked at the right process
