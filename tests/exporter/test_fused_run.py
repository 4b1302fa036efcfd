"""A run exported with `--fused`, from the training on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from hw4fast import kernels
from hw4fast.errors import UserError
from hw4fast.exporter import export
from hw4fast.inference import session
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.session import open_session


@pytest.fixture(scope="module")
def fused_file(small_run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fused") / "net.onnx"
    export(small_run, path, fused=True)
    return path


def test_a_fused_run_answers_as_the_plain_one(fused_file, small_run):
    from hw4fast.data import load

    pictures = load("digits").test.images[:100]
    plain = Classifier(small_run).logits(pictures)
    before = sum(kernels.ort_calls().values())
    fused = Classifier(fused_file)
    assert np.abs(fused.logits(pictures) - plain).max() <= 1e-5 * np.abs(plain).max()
    assert sum(kernels.ort_calls().values()) == before + 1  # the second block: the first has one channel in
    assert np.array_equal(Classifier(fused_file, kernels=False).logits(pictures), plain)
    assert sum(kernels.ort_calls().values()) == before + 1
    assert fused.card.provenance["fused"] is True and fused.card.parity["same_answers"] == 64
    onnx.checker.check_model(onnx.load(fused_file), full_check=True)


def test_a_bare_onnxruntime_runs_the_file(fused_file, small_run):
    """No hw4fast in that process: the file alone."""
    script = (
        "import sys, numpy, onnxruntime as o; s = o.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider']);"
        "print(s.run(None, {'input': numpy.ones((1, 1, 28, 28), numpy.float32)})[0].tolist())"
    )
    command = [sys.executable, "-c", script]
    answers = [
        eval(subprocess.run([*command, str(file)], capture_output=True, text=True, check=True).stdout)
        for file in (fused_file, small_run / "model.onnx")
    ]
    assert answers[0] == answers[1]


def test_the_card_tells_which_kernels_were_checked(fused_file, model_file):
    parity = Classifier(fused_file).card.parity
    batches = sum(-(-64 // size) for size in parity["batches"])
    assert parity["kernels"] == {kernels.chosen_isa(): batches}  # one block
    assert "kernels" not in Classifier(model_file).card.parity


@pytest.mark.usefixtures("quick_graph")
def test_kernels_that_do_not_run_are_not_called_checked(small_run, tmp_path, monkeypatch):
    create, bare = session._create, session._Options(kernels=False)
    monkeypatch.setattr(
        session, "_create", lambda model, on, _, *rest, **named: create(model, on, bare, *rest, **named)
    )
    with pytest.raises(UserError, match=r"kernels didn't run in the fused file, .* no file was written"):
        export(small_run, tmp_path / "net.onnx", fused=True)
    assert not list(tmp_path.iterdir())


def test_a_net_without_such_blocks_is_refused(small_run, tmp_path, monkeypatch):
    monkeypatch.setattr("hw4fast.exporter.fuse", lambda _: 0)
    with pytest.raises(UserError, match="no convolution that hw4fast's kernels do faster"):
        export(small_run, tmp_path / "net.onnx", fused=True)
    assert not (tmp_path / "net.onnx").exists()


def test_a_library_that_was_not_built(monkeypatch, tmp_path, fused_file):
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "hw4fast" / "kernels" / "__init__.py"))
    with pytest.raises(UserError, match=r"the library for onnxruntime .* build it with"):
        open_session(fused_file)
