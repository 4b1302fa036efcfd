"""Each kind of hostile model: an answer or one clear line; no crash, no hang, no unbounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.inference.hostile import MODELS
from tests.watched import BAD, LONGEST, Watched

LIMITS = {"HW4FAST_TRIAL_SECONDS": "20", "HW4FAST_TRIAL_MB": "1024"}
HURRY = {**LIMITS, "HW4FAST_TRIAL_SECONDS": "1"}
HARMFUL = {  # to onnxruntime 1.31 in our process: what is said of each when it is tried in another one
    "makes onnxruntime crash": (
        "ConvTranspose with group 0",
        "Div of the least by −1",
        "Div of the least by −1 at run",
        "Mod of the least by −1 at run",
        "DepthToSpace of huge",
    ),
    "isn't done with one picture": (
        "Loop of 2⁶² rounds, folded",
        "Loop of 2⁶² rounds, at run",
        "Loop without end",
        "functions that double 40 times",
    ),
    "asks for more than 1024 MiB of memory": (
        "ConstantOfShape of 8 GB, folded",
        "Expand to 8 GB, at run",
        "Pad to 8 GB, at run",
        "Resize to 8 GB, at run",
        "Concat doubles 40 times, folded",
        "Add broadcasts 30 times, at run",
        "RandomNormal of 8 GB",
        "Loop that keeps terabytes",
        "Loop of doubling",
        "10 million empty nodes",
    ),
}
FOREIGN = {  # the classes that the promise names
    "two inputs": "the model's tensors are input, second → logits, the card says input → logits",
    "an input with no batch axis": "the card says input [None, 1, 28, 28], but the model takes [1, 28, 28]",
    "an input with a batch of 10⁹": "the model takes 1000000000 pictures at a time",
    "an input with a batch of 0": "the model takes 0 pictures at a time",
    "weights in /etc/passwd": "Absolute path not allowed for external data location",
    "weights in /etc/passwd by ..": "External data path escapes model directory",
    "weights in a link to /etc/passwd": "External data path escapes model directory",
    "weights in /dev/zero": "Absolute path not allowed for external data location",
    "weights in a file that is too short": "out of bounds or can not be read in full",
    "weights with dims of terabytes": "can't be loaded as an ONNX model",
    "no weights with dims of terabytes": "can't be loaded as an ONNX model",
    "weights with dims of −1": "can't be loaded as an ONNX model",
    "no card": "it has no card (metadata 'hw4fast.card': preprocessing and labels)",
    "a card that is no JSON": "the card (hw4fast.card) can't be read",
    "a card that is deep": "the card (hw4fast.card) can't be read",
    "a card without labels": "missing keys ['labels']",
    "a card of no labels": "labels is not a list of one or more texts",
    "a card of two labels": "the card has 2 labels, but the model's output is",
    "a card with a huge crop": "must have at most",
    "a card that is no UTF-8": "has names or metadata that are no text (UTF-8)",
    "names that are no UTF-8": "has names or metadata that are no text (UTF-8)",
    "an axis that is no UTF-8": "has names or metadata that are no text (UTF-8)",
    "first half": "can't be loaded as an ONNX model",
    "a card with a divisor of 1e-320": "gave an answer that is no number",
}
CASES = [(name, text) for text, names in HARMFUL.items() for name in names] + list(FOREIGN.items())


@pytest.fixture(scope="module")
def digit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "digit.png"
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.mark.parametrize(("name", "text"), CASES)
def test_one_clear_line(name, text, digit, tmp_path):
    path = MODELS[name](tmp_path)
    command = [sys.executable, "-m", "hw4fast", "classify", str(digit), "--model", str(path)]
    limits = HURRY if text == "isn't done with one picture" else LIMITS
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **limits}, timeout=60)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    said = done.stderr.removesuffix("\n")
    assert said.startswith("hw4fast: ") and text in said, said
    assert said.isprintable() and len(said) < LONGEST, said


def test_every_model_is_answered_or_refused(tmp_path):
    """One in twelve of them; HW4FAST_FUZZ=2000, or any other number: all."""
    names = [name for i, name in enumerate(MODELS) if "HW4FAST_FUZZ" in os.environ or i % 12 == 0]
    names.append("If 5 deep")  # odd and sound
    assert len(MODELS) > 450
    answered = {}
    with Watched("model", seconds=10, memory=1500, environment={**LIMITS, "HW4FAST_TRIAL_SECONDS": "4"}) as watched:
        for name in names:
            outcome = watched.judge(MODELS[name](tmp_path))
            assert outcome.kind not in BAD, (name, outcome)
            answered[name] = outcome.kind == "answered"
    assert answered["If 5 deep"] and sum(answered.values()) < len(names) / 3


@pytest.mark.parametrize(
    ("name", "answer"),
    [("a card of labels that a terminal obeys", "\x1b[2J"), ("weights in a good file beside it", "0")],
)
def test_what_is_only_odd_is_answered(name, answer, digit, tmp_path):
    command = [sys.executable, "-m", "hw4fast", "classify", str(digit), "--model", str(MODELS[name](tmp_path))]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert text.replace("\n", "").isprintable() and "%" in text
    found = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert answer in [guess["label"] for guess in found["clean"]["top"]]
