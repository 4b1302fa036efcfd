"""record: lines that are appended and read back, and tell the machine but not its name or place."""

from __future__ import annotations

import json
import platform
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hw4fast import kernels, record

ROOT = Path(__file__).resolve().parents[1]


def test_append_and_read(tmp_path):
    path = tmp_path / "new" / "bench.jsonl"
    assert record.read(path) == []
    first = record.append(path, "bench", {"µs": [1.5]})
    second = record.append(path, "bench", None)
    assert record.read(path) == [first, second]
    assert first["results"] == {"µs": [1.5]} and first["what"] == "bench"
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2


def test_a_blank_line_is_nothing(tmp_path):
    record.append(tmp_path / "a.jsonl", "a", 1)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("\n")
    assert [entry["results"] for entry in record.read(tmp_path / "a.jsonl")] == [1]


@pytest.mark.parametrize("results", [float("nan"), np.float32(1), {"a": float("inf")}])
def test_what_is_no_json_leaves_the_file_as_it_was(results, tmp_path):
    record.append(tmp_path / "a.jsonl", "a", 1)
    before = (tmp_path / "a.jsonl").read_bytes()
    with pytest.raises((ValueError, TypeError)):
        record.append(tmp_path / "a.jsonl", "a", results)
    assert (tmp_path / "a.jsonl").read_bytes() == before


def test_it_tells_the_machine_but_not_its_name_or_place(tmp_path):
    entry = record.append(tmp_path / "a.jsonl", "a", None)
    assert entry["machine"]["isas"] == kernels.isas() and entry["machine"]["cores"] >= 1
    assert entry["versions"]["python"] == platform.python_version()
    assert entry["versions"]["numpy"] == version("numpy") and entry["versions"]["torch"] == version("torch")
    assert set(entry["versions"]) <= {"python", *record.PACKAGES}
    text = json.dumps(entry)
    for secret in (socket.gethostname(), str(ROOT), str(Path.home()), str(tmp_path)):
        assert not re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text), secret


def test_gpus_are_asked_for_where_something_ran_on_one(tmp_path, monkeypatch):
    asked = []
    gpu = {"name": "NVIDIA H100", "capability": 90, "memory": 80 << 30, "multiprocessors": 132}

    def devices():
        asked.append(1)
        return [gpu]

    cuda = SimpleNamespace(devices=devices, versions=lambda: (13000, 13000))
    monkeypatch.setattr("hw4fast._cuda", cuda, raising=False)
    plain = record.append(tmp_path / "a.jsonl", "a", None)["machine"]
    assert plain == record.machine() and not asked
    machine = record.append(tmp_path / "a.jsonl", "a", None, gpu=True)["machine"]
    assert machine == plain | {"gpus": [gpu], "driver": 13000}

    def none():
        raise RuntimeError("CUDA says cudaErrorNoDevice")

    cuda.devices = none
    assert record.machine(gpu=True) == plain
    monkeypatch.setitem(sys.modules, "hw4fast._cuda", None)  # not built
    monkeypatch.delattr("hw4fast._cuda", raising=False)
    assert record.machine(gpu=True) == plain


def test_now_is_utc():
    parsed = datetime.fromisoformat(record.now())
    assert parsed.utcoffset() == UTC.utcoffset(None)
    assert abs((datetime.now(UTC) - parsed).total_seconds()) < 5


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_the_commit_is_this_checkouts():
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    found = record.commit()
    assert found is not None and head.startswith(found.rstrip("+")) and len(found.rstrip("+")) >= 12


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


@pytest.mark.parametrize("place", ["site-packages/hw4fast", "hw4fast"])
def test_somebody_elses_repository_is_not_ours(place, tmp_path, monkeypatch):
    """Installed into a virtual environment inside a project of the user, the commit must not be the project's."""
    module = tmp_path / place / "record.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    (tmp_path / "mine.txt").write_text("the user's own work")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "mine.txt")
    git(tmp_path, "commit", "-qm", "mine")
    monkeypatch.setattr(record, "__file__", str(module))
    assert record.commit() is None


def test_a_changed_checkout_has_a_plus(tmp_path, monkeypatch):
    module = tmp_path / "hw4fast" / "record.py"
    module.parent.mkdir()
    module.write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "ours")
    monkeypatch.setattr(record, "__file__", str(module))
    clean = record.commit()
    assert clean is not None and len(clean) == 12
    module.write_text("# changed\n")
    assert record.commit() == clean + "+"


def test_outside_any_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "__file__", str(tmp_path / "hw4fast" / "record.py"))
    assert record.commit() is None
    monkeypatch.setenv("PATH", "")
    assert record.commit() is None


@pytest.mark.parametrize("torn", [b'{"what": "a", "resu', b'{"what": "\xc3', b"[1, 2]"])
def test_a_line_that_was_torn_harms_no_other(torn, tmp_path):
    path = tmp_path / "a.jsonl"
    record.append(path, "a", 1)
    with path.open("ab") as file:
        file.write(torn)  # and then the power failed
    record.append(path, "a", 2)
    record.append(path, "a", 3)
    assert path.read_bytes().split(b"\n")[1] == torn
    with pytest.warns(UserWarning, match=r"a\.jsonl, line 2 is no record and is left out: ") as caught:
        assert [entry["results"] for entry in record.read(path)] == [1, 2, 3]
    assert len(caught) == 1


def test_only_a_newline_ends_a_line(tmp_path):
    record.append(tmp_path / "a.jsonl", "a", "one\u2028two\x85three")
    assert [entry["results"] for entry in record.read(tmp_path / "a.jsonl")] == ["one\u2028two\x85three"]
