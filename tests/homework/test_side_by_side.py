"""Runs in processes of their own: the same as one after the other, and nothing of them is left behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hw4fast.errors import UsageError, UserError
from hw4fast.homework import side_by_side
from hw4fast.training import runs
from hw4fast.training.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SHORT = {"epochs": 1, "threads": 1, "channels": (8, 16)}


def wanted(folder: Path) -> list[side_by_side.Run]:
    """Two runs, one that starts from the first, and one that starts from a run that diverges."""
    common = Settings(**SHORT)
    return [
        (folder / "a", common),
        (folder / "from-a", Settings(**SHORT, init=str(folder / "a"))),
        (folder / "b", Settings(**SHORT, seed=1)),
        (folder / "diverges", Settings(**SHORT, lr=1e30)),
        (folder / "from-diverges", Settings(**SHORT, init=str(folder / "diverges"))),
    ]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The folders of the same runs, one after the other and two at a time."""
    found = []
    for jobs in (1, 2):
        found.append(tmp_path_factory.mktemp(f"jobs{jobs}"))
        side_by_side.finish_all(wanted(found[-1]), jobs, False)
    return found


def test_two_at_a_time_give_what_one_after_the_other_gives(both):
    for folder, _ in wanted(both[0]):
        other = both[1] / folder.name
        assert folder.exists() == other.exists() == (folder.name != "from-diverges")
        if not folder.exists():
            continue
        for name in ("status", "result"):
            assert runs.load_record(folder).get(name) == runs.load_record(other).get(name), folder.name
        weights = [path / "weights.safetensors" for path in (folder, other)]
        assert weights[0].exists() == weights[1].exists() == (folder.name != "diverges")
        assert not weights[0].exists() or weights[0].read_bytes() == weights[1].read_bytes()


def test_what_is_finished_is_not_run_again_and_each_run_has_a_line(both, capfd):
    before = [(both[1] / name / "run.json").read_bytes() for name in ("a", "b")]
    side_by_side.finish_all(wanted(both[1]), 2, True)
    assert before == [(both[1] / name / "run.json").read_bytes() for name in ("a", "b")]
    said = capfd.readouterr().err
    assert said.count(" of 5: ") == 4 and "run 1 of 5: " in said and "run 0" not in said
    assert "diverges: diverged" in said and f"{both[1].name}/a: " in said


def test_an_error_of_a_run_stops_the_others(both, tmp_path):
    other = [(both[1] / "a", Settings(**(SHORT | {"epochs": 3}))), (tmp_path / "long", Settings(epochs=10_000))]
    with pytest.raises(UsageError, match=r"was begun with epochs = 1, not 3; name another --out"):
        side_by_side.finish_all(other, 2, False)
    assert not (tmp_path / "long" / "weights.safetensors").exists()


def test_a_killed_process_is_told(tmp_path):
    long = [(tmp_path / name, Settings(epochs=10_000, threads=1)) for name in ("a", "b")]

    def kill_one_when_both_have_begun():
        while not all((folder / "checkpoint.safetensors").exists() for folder, _ in long):
            time.sleep(0.05)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    threading.Thread(target=kill_one_when_both_have_begun, daemon=True).start()
    with pytest.raises(UserError, match=r"was killed \(out of memory\?\); whole epochs are kept"):
        side_by_side.finish_all(long, 2, False)
    assert not multiprocessing.active_children()
    assert all(runs.load_state(folder).history for folder, _ in long)


def test_a_fault_in_a_process_is_not_taken_for_the_users(tmp_path, capfd):
    pair = [(tmp_path / "a", Settings(dataset=None)), (tmp_path / "b", Settings(epochs=10_000))]
    with pytest.raises(RuntimeError, match="a training process ended with exit code 1"):
        side_by_side.finish_all(pair, 2, False)
    assert "Traceback" in capfd.readouterr().err


def test_a_full_disk_is_told_as_it_is_with_one_job(tmp_path):
    """Whichever of the processes meets it first; the other one is ended in the middle of an epoch or of a write."""
    script = LONG.replace("finish_all(", "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); finish_all(")
    process = subprocess.run(
        [sys.executable, write(tmp_path, script)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 1 and ("can't be written" in process.stderr or "File too large" in process.stderr)


LONG = """
import resource
from pathlib import Path
from hw4fast.homework.side_by_side import finish_all
from hw4fast.training.settings import Settings

if __name__ == "__main__":
    finish_all([(Path("{out}") / name, Settings(epochs=10_000, threads=1)) for name in "ab"], 2, False)
"""


def write(folder: Path, script: str) -> Path:
    """The script as a file; spawned processes read it again."""
    path = folder / "script.py"
    path.write_text(script.format(out=folder), encoding="utf-8")
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ctrl_c_and_kill_leave_no_process_and_the_runs_go_on(number, tmp_path):
    """A terminal's Ctrl-C reaches all processes at once; a kill this one alone."""
    arguments = [sys.executable, write(tmp_path, LONG)]
    process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 120
    while not all((tmp_path / name / "checkpoint.safetensors").exists() for name in "ab"):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    _, err = process.communicate(timeout=20)  # the processes hold this pipe, too, and would for half an hour
    assert process.returncode == -number, err
    assert err.count("Traceback") == (number == signal.SIGINT)  # the script's own, which nobody catches there
    for name in "ab":
        done = len(runs.load_state(tmp_path / name).history)
        assert json.loads((tmp_path / name / "run.json").read_text(encoding="utf-8"))["status"] == "running"
        assert 0 < done < 10_000


def test_the_commands_ctrl_c_is_one_line(tmp_path):
    command = [sys.executable, "-m", "hw4fast", "reproduce", "mnist", "--dataset", "digits", "--threads", "2"]
    command += ["--jobs", "2", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 120
    while not list((tmp_path / "out").glob("mnist/runs/*/*/checkpoint.safetensors")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in err
    assert "hw4fast: interrupted in the part mnist; finished runs and whole epochs are kept" in err
