"""bench --against: models take turns; a record says what it doesn't share, and is refused when nothing is common."""

from __future__ import annotations

import json
import shutil

import pytest

from hw4fast import bench as bench_module
from hw4fast import cli, record
from hw4fast.bench import bench
from hw4fast.bench.against import differing, latest
from hw4fast.errors import UserError
from hw4fast.inference.session import explain_provider

SHORT = {"seconds": 0.01, "threads": 1, "whole": False}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(bench_module.timing, "POOLS_REST_S", 0)
    monkeypatch.setattr(bench_module, "draw", lambda *_: None)


def test_against_another_model_they_take_turns(centroid_onnx, tmp_path):
    shutil.copy(centroid_onnx, tmp_path / "net.onnx")
    result = bench(centroid_onnx, (1, 3), out=tmp_path / "b.jsonl", against=tmp_path / "net.onnx", **SHORT)
    assert [(row.engine, row.batch) for row in result.comparisons] == [("onnxruntime cpu", 1), ("onnxruntime cpu", 3)]
    for row in result.comparisons:
        assert 0 < row.low <= row.ratio <= row.high and row.n >= 6
    assert result.against == str(tmp_path / "net.onnx") and result.differences == ()
    assert record.read(tmp_path / "b.jsonl")[0]["results"]["against"] == str(tmp_path / "net.onnx")


@pytest.fixture
def untimed(monkeypatch):
    monkeypatch.setattr(bench_module.timing, "alternate", lambda *_, **__: pytest.fail("it was timed"))


def test_against_a_model_without_a_common_engine(centroid_onnx, tmp_path, monkeypatch, untimed):
    engines_of = bench_module.engines_of

    def renamed(model, *rest):
        found = engines_of(centroid_onnx, *rest)
        if model == "other":
            found.ready = {"another engine": found.ready["onnxruntime cpu"]}
        return found

    monkeypatch.setattr(bench_module, "engines_of", renamed)
    with pytest.raises(UserError, match="no engine and batch size in common, so nothing was timed"):
        bench(centroid_onnx, (1,), out=tmp_path / "b.jsonl", against="other", **SHORT)


@pytest.fixture
def older(centroid_onnx, tmp_path):
    """A file with a record of two batch sizes; returns (its path, the entry)."""
    bench(centroid_onnx, (1, 4), out=tmp_path / "b.jsonl", **SHORT)
    (entry,) = record.read(tmp_path / "b.jsonl")
    return tmp_path / "b.jsonl", entry


def test_against_a_record(centroid_onnx, older, tmp_path):
    path, entry = older
    second = bench(centroid_onnx, (4, 8), out=tmp_path / "c.jsonl", against=path, **SHORT)
    (row,) = second.comparisons
    assert (row.engine, row.batch, row.low) == ("onnxruntime cpu", 4, None)
    assert row.ratio == pytest.approx(entry["results"]["timings"][1]["p50_ms"] / second.timings[0].p50_ms)
    assert second.differences == () and second.against == f"{centroid_onnx} of {entry['time']}"


def test_nothing_in_common_is_refused_before_it_is_timed(centroid_onnx, older, tmp_path, untimed):
    with pytest.raises(UserError, match=r"no engine and batch size in common, .* cpu at 2; there: onnx.* cpu at 1"):
        bench(centroid_onnx, (2,), out=tmp_path / "d.jsonl", against=older[0], **SHORT)
    with pytest.raises(UserError, match="holds no record of a bench"):
        bench(centroid_onnx, (2,), out=tmp_path / "d.jsonl", against=tmp_path / "none.jsonl", **SHORT)
    assert not (tmp_path / "d.jsonl").exists()


def test_what_a_record_does_not_share_is_said(centroid_onnx, older, tmp_path, capsys):
    _, entry = older
    entry["results"] |= {"model": "resnet18", "threads": 7}
    entry["machine"] |= {"processor": "Another CPU", "isas": ["baseline"], "cores": 99}
    entry["machine"]["gpus"] = [{"name": "NVIDIA T4", "capability": 75}]
    entry["versions"] |= {"onnxruntime-gpu": "1.19.0"}
    del entry["versions"]["numpy"]
    path, out = tmp_path / "changed.jsonl", tmp_path / "c.jsonl"
    path.write_text(json.dumps(entry), encoding="utf-8")
    words = ["--no-whole", "--batches", "4", "--seconds", "0.01", "--threads", "1", "--out", str(out)]
    assert cli.main(["bench", str(centroid_onnx), "--against", str(path), *words]) == 0
    said = capsys.readouterr()
    assert f"how many times faster than resnet18 of {entry['time']}" in said.out
    now, machine = record.versions(), record.machine(gpu=explain_provider("cuda") is None)
    gpus = machine.get("gpus", [{"name": "none"}])
    for line in (
        f"model: resnet18 in the record, {centroid_onnx} now",
        "threads: 7 in the record, 1 now",
        f"processor: Another CPU in the record, {machine['processor']} now",
        f"cores: 99 in the record, {machine['cores']} now",
        f"instruction sets: baseline in the record, {' '.join(machine['isas']) or 'none'} now",
        f"GPU 0: NVIDIA T4 in the record, {gpus[0]['name']} now",
        f"onnxruntime-gpu: 1.19.0 in the record, {now.get('onnxruntime-gpu', 'none')} now",
        f"numpy: none in the record, {now['numpy']} now",
    ):
        assert f"hw4fast: not the same: {line}\n" in said.err
    assert said.err.count("not the same") == len(record.read(out)[0]["results"]["differences"]) == 7 + len(gpus)


def test_equal_entries_share_everything(older):
    assert differing(older[1], older[1]) == []


@pytest.mark.parametrize("spoil", ["results", "machine", "versions", "time"])
def test_a_record_that_lacks_something(spoil, older, tmp_path):
    entry = {key: value for key, value in older[1].items() if key != spoil}
    (tmp_path / "c.jsonl").write_text(json.dumps(entry), encoding="utf-8")
    with pytest.raises(UserError, match="isn't as bench writes it"):
        latest(tmp_path / "c.jsonl")


@pytest.mark.parametrize("rows", [5, [5], [{"engine": "a", "batch": 1, "p50_ms": None, "calls": 1}], [{"engine": []}]])
def test_a_record_with_other_rows(rows, older, tmp_path):
    older[1]["results"]["timings"] = rows
    (tmp_path / "c.jsonl").write_text(json.dumps(older[1]), encoding="utf-8")
    with pytest.raises(UserError, match="isn't as bench writes it"):
        latest(tmp_path / "c.jsonl")
