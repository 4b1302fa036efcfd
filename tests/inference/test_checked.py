"""A trial of each new file in a process of its own, and what is remembered of it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from hw4fast.errors import UsageError, UserError
from hw4fast.inference import checked
from hw4fast.inference.session import open_session
from tests.inference.hostile import MODELS
from tests.inference.hostile.base import linear, save


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HW4FAST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def trials(monkeypatch) -> list[Path]:
    """The files that were tried, in order."""
    tried, real = [], checked._try
    monkeypatch.setattr(checked, "_try", lambda path, library: tried.append(path) or real(path, library))
    return tried


def test_a_harmless_file_is_tried_once(tmp_path, trials):
    path = save(linear(), tmp_path)
    assert open_session(path) and open_session(path)
    shutil.copy(path, tmp_path / "copy.onnx")
    open_session(tmp_path / "copy.onnx")
    assert trials == [path]
    open_session(path, kernels=False)
    assert len(trials) == 2  # without our operators it is another graph


def test_another_byte_is_another_file(tmp_path, trials):
    path = save(linear(), tmp_path)
    open_session(path)
    model = linear()
    model.doc_string = "x"
    save(model, tmp_path)
    open_session(path)
    assert len(trials) == 2


def test_weights_in_another_file_belong_to_it(tmp_path, trials):
    path = MODELS["weights in a good file beside it"](tmp_path)
    for _ in range(2):
        open_session(path)
    assert len(trials) == 1
    (tmp_path / "beside.bin").write_bytes(np.ones(3 * 784, np.float32).tobytes())
    open_session(path)
    assert len(trials) == 2


def test_a_harmful_file_is_never_remembered(tmp_path, trials):
    path = MODELS["Div of the least by −1"](tmp_path)
    for _ in range(2):
        with pytest.raises(UserError, match=r"hostile\.onnx' makes onnxruntime crash \(SIGFPE\)"):
            open_session(path)
    assert len(trials) == 2


def test_what_onnxruntime_refuses_is_not_remembered(tmp_path, trials):
    path = tmp_path / "text.onnx"
    path.write_text("no model")
    for _ in range(2):
        with pytest.raises(UserError, match="can't be loaded as an ONNX model"):
            open_session(path)
    assert len(trials) == 2


@pytest.mark.parametrize("name", ["Loop without end", "functions that double 40 times"])
def test_time(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HW4FAST_TRIAL_SECONDS", "2")
    with pytest.raises(UserError, match=r"isn't done with one picture after 2 s; .* HW4FAST_TRIAL_SECONDS=20"):
        open_session(MODELS[name](tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to RLIMIT_DATA")
def test_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("HW4FAST_TRIAL_MB", "300")
    with pytest.raises(
        UserError, match=r"asks for more than 300 MiB of memory for one picture; .* HW4FAST_TRIAL_MB=1200"
    ):
        open_session(MODELS["Concat doubles 40 times, at run"](tmp_path))
    large = linear(shape=(10**5, 1, 28, 28))  # 313 MB of input
    with pytest.raises(UserError, match="asks for more than 300 MiB"):
        open_session(save(large, tmp_path))
    monkeypatch.setenv("HW4FAST_TRIAL_MB", "1200")
    open_session(save(large, tmp_path))


@pytest.mark.parametrize("name", ["HW4FAST_TRIAL_SECONDS", "HW4FAST_TRIAL_MB"])
@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "9" * 40])
def test_bad_limits(name, value, tmp_path, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name} must be a whole number"):
        open_session(save(linear(), tmp_path))


def test_a_file_of_two_gigabytes_is_not_even_read(tmp_path, trials):
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(UserError, match="has more than 2 GiB, which no ONNX file can have"):
        open_session(path)
    assert not trials


def test_no_process_can_be_started(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    with pytest.raises(UserError, match=r"can't be tried, because no process can be started: .*No such file"):
        open_session(save(linear(), tmp_path))


def test_a_python_without_onnxruntime(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(
        sys, "executable", shutil.which("python3", path="/usr/bin") or pytest.skip("needs another Python")
    )
    with pytest.raises(UserError, match=r"can't be tried: .*onnxruntime"):
        open_session(save(linear(), tmp_path))


def test_a_cache_that_cant_be_written(tmp_path, monkeypatch, trials):
    (tmp_path / "cache").write_text("a file, no folder")
    path = save(linear(), tmp_path)
    assert open_session(path) and open_session(path)
    assert len(trials) == 2


def test_old_notes_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(checked, "MOST", 8)
    for i in range(20):
        checked._keep(tmp_path / "cache" / "checked" / f"{i:032}")
    kept = list((tmp_path / "cache" / "checked").iterdir())
    assert 6 <= len(kept) <= 8 and tmp_path / "cache" / "checked" / f"{19:032}" in kept


def test_the_folder_of_the_caller_can_put_nothing_in(tmp_path, monkeypatch):
    """Beside a model lies a module that the trial would import."""
    (tmp_path / "onnxruntime.py").write_text("raise SystemExit('run')")
    (tmp_path / "json.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    assert open_session(save(linear(), tmp_path))
