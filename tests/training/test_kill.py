"""Real processes, really killed: what --resume makes of them is what an undisturbed run gives, byte for byte."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hw4fast.training.train import train

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 6
SETTINGS = {
    "sgd": {"optimizer": "sgd", "momentum": 0.9, "lr": 0.03, "batch_norm": True},
    "adam": {"optimizer": "adam", "l1": 1e-5},
}


def command(name: str, folder: Path) -> list[str]:
    flags = ["--epochs", str(EPOCHS), "--threads", "1", "--channels", "8,16", "--out", str(folder)]
    for key, value in SETTINGS[name].items():
        flags += [f"--{key.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return [sys.executable, "-m", "hw4fast", "train", "digits", *flags]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def epochs(folder: Path) -> list[int]:
    if not (folder / "metrics.csv").exists():
        return []
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def wait_until(process: subprocess.Popen[str], what) -> None:
    """Until what() is true; the process must still be running then."""
    end = time.monotonic() + 120
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)


def end_with(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def status(folder: Path) -> str:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"]


@pytest.fixture(scope="module")
def undisturbed(request, tmp_path_factory) -> tuple[str, Path]:
    """The name of some settings, and the folder of a run that nobody disturbed."""
    given = {**SETTINGS[request.param], "epochs": EPOCHS, "threads": 1, "channels": (8, 16)}
    return request.param, train(given, tmp_path_factory.mktemp(request.param) / "run", progress=False).folder


def assert_same(folder: Path, undisturbed: Path) -> None:
    assert (folder / "weights.safetensors").read_bytes() == (undisturbed / "weights.safetensors").read_bytes()
    assert epochs(folder) == list(range(1, EPOCHS + 1))
    one, other = (json.loads((path / "run.json").read_text(encoding="utf-8")) for path in (folder, undisturbed))
    for key in ("status", "settings", "result", "kernels_that_ran"):
        assert one[key] == other[key], key


@pytest.mark.parametrize("undisturbed", SETTINGS, indirect=True)
def test_killed_inside_an_epoch(undisturbed, tmp_path):
    name, whole = undisturbed
    process = start(command(name, tmp_path / "run"))
    wait_until(process, lambda: len(epochs(tmp_path / "run")) >= 2)
    time.sleep(0.05)  # the third has begun
    code, _, err = end_with(process, signal.SIGKILL)
    assert code == -signal.SIGKILL, err
    assert status(tmp_path / "run") == "running" and len(epochs(tmp_path / "run")) < EPOCHS
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    train(None, tmp_path / "run", resume=True, progress=False)
    assert_same(tmp_path / "run", whole)


@pytest.mark.parametrize("undisturbed", ["sgd"], indirect=True)
def test_ctrl_c_says_the_command_that_goes_on(undisturbed, tmp_path):
    """Ctrl-C inside an epoch; then the command is copied from the message into a new process."""
    name, whole = undisturbed
    folder = tmp_path / "my run"
    process = start(command(name, folder))
    wait_until(process, (folder / "checkpoint.safetensors").exists)
    time.sleep(0.05)  # an epoch takes longer: the next one has begun
    code, out, err = end_with(process, signal.SIGINT)
    assert code == 130 and out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("hw4fast: interrupted; ") and "Traceback" not in err
    assert status(folder) == "running" and len(epochs(folder)) < EPOCHS
    program, *arguments = shlex.split(last.partition("go on with: ")[2])
    assert program == "hw4fast"
    again = subprocess.run([sys.executable, "-m", "hw4fast", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"epoch {EPOCHS}/{EPOCHS}" in again.stderr and "epoch 1/" not in again.stderr
    assert_same(folder, whole)


@pytest.mark.parametrize("undisturbed", ["adam"], indirect=True)
def test_killed_before_the_first_checkpoint(undisturbed, tmp_path):
    name, whole = undisturbed
    process = start(command(name, tmp_path / "run"))
    wait_until(process, (tmp_path / "run" / "run.json").exists)
    code, _, err = end_with(process, signal.SIGKILL)
    assert code == -signal.SIGKILL, err
    assert epochs(tmp_path / "run") == []
    train(None, tmp_path / "run", resume=True, progress=False)
    assert_same(tmp_path / "run", whole)
