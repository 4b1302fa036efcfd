"""bench: engines are compared before they are timed, what is left out says why, records are appended."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from hw4fast import bench as bench_module
from hw4fast import record
from hw4fast.bench import bench
from hw4fast.errors import UsageError, UserError
from hw4fast.inference.session import PROVIDERS, explain_provider

SHORT = {"seconds": 0.01, "threads": 1}


@pytest.fixture
def eager_only(monkeypatch):
    """torch.compile takes seconds: here it gives the net back."""
    monkeypatch.setattr(torch, "compile", lambda model: model)


def test_a_run_on_every_engine(small_run, tmp_path):
    """The one test that really compiles; without a C++ compiler torch.compile is left out and says so."""
    result = bench(small_run, (3,), out=tmp_path / "b.jsonl", **SHORT)
    ran = {timing.engine for timing in result.timings}
    assert {"torch eager", "onnxruntime cpu"} <= ran
    expected = {"torch eager", "torch.compile", *(f"onnxruntime {name}" for name in PROVIDERS)}
    assert ran | result.left_out.keys() == expected and not ran & result.left_out.keys()
    assert all(result.left_out.values())
    for timing in result.timings:
        assert timing.batch == 3 and timing.calls >= 30
        assert 0 < timing.p50_ms <= timing.p90_ms <= timing.p99_ms
        assert 3e3 / timing.p99_ms * 0.1 < timing.images_per_s <= 3e3 / timing.p50_ms * 10


def test_the_record_is_appended(centroid_onnx, tmp_path):
    path = tmp_path / "b.jsonl"
    first = bench(centroid_onnx, (1, 4), out=path, **SHORT)
    bench(centroid_onnx, (2,), out=path, **SHORT)
    entries = record.read(path)
    assert [entry["what"] for entry in entries] == ["bench", "bench"] and first.path == path
    assert [t["batch"] for t in entries[0]["results"]["timings"]] == [1, 4]
    assert [t["batch"] for t in entries[1]["results"]["timings"]] == [2]
    assert entries[0]["results"]["threads"] == 1 and entries[0]["machine"]["processor"]
    assert entries[0]["results"]["timings"][0]["p50_ms"] == first.timings[0].p50_ms


def test_a_file_alone_leaves_torch_out(centroid_onnx, tmp_path):
    shutil.copy(centroid_onnx, tmp_path / "net.onnx")
    result = bench(tmp_path / "net.onnx", (1,), **SHORT)
    assert result.path == tmp_path / "bench.jsonl" and result.path.exists()
    assert next(timing.engine for timing in result.timings) == "onnxruntime cpu"
    assert "holds no torch model" in result.left_out["torch"]
    for name in PROVIDERS:
        assert result.left_out.get(f"onnxruntime {name}") == explain_provider(name)


@pytest.mark.usefixtures("eager_only")
def test_a_run_that_was_not_exported_is_left_unexported(small_run, tmp_path):
    shutil.copytree(small_run, tmp_path / "run", ignore=shutil.ignore_patterns("model.onnx"))
    result = bench(tmp_path / "run", (1,), **SHORT)
    assert {"torch eager", "onnxruntime cpu"} <= {timing.engine for timing in result.timings}
    assert result.path == tmp_path / "run" / "bench.jsonl" and not (tmp_path / "run" / "model.onnx").exists()


@pytest.mark.usefixtures("eager_only")
@pytest.mark.parametrize("spoil", [lambda y: y + 0.01 * np.abs(y).max(), lambda y: y * np.nan], ids=["off", "nan"])
def test_engines_that_disagree_are_not_timed(spoil, small_run, tmp_path, monkeypatch):
    engine, path = bench_module._onnx_engine, tmp_path / "b.jsonl"
    monkeypatch.setattr(bench_module, "_onnx_engine", lambda session: lambda x: spoil(engine(session)(x)))
    monkeypatch.setattr(bench_module.timing, "alternate", lambda *_, **__: pytest.fail("it was timed"))
    with pytest.raises(UserError, match=r"onnxruntime cpu and torch eager disagree by .*; nothing was timed"):
        bench(small_run, (1,), out=path, **SHORT)
    assert not path.exists()


@pytest.mark.usefixtures("eager_only")
def test_an_engine_that_can_not_run_is_left_out(small_run, tmp_path, monkeypatch):
    def broken(_x):
        raise RuntimeError("no kernel\nfor this node")

    monkeypatch.setattr(bench_module, "_onnx_engine", lambda session: broken)
    result = bench(small_run, (1, 2), out=tmp_path / "b.jsonl", **SHORT)
    assert result.left_out["onnxruntime cpu"] == "no kernel"
    assert {timing.engine for timing in result.timings} == {"torch eager", "torch.compile"}


def test_no_engine_at_all(centroid_onnx, tmp_path, monkeypatch):
    def broken(_x):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(bench_module, "_onnx_engine", lambda session: broken)
    with pytest.raises(UserError, match=r"no engine can run .*onnxruntime cpu: no kernel"):
        bench(centroid_onnx, (1,), out=tmp_path / "b.jsonl", **SHORT)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batches": ()}, "batch sizes"),
        ({"batches": (1, 0)}, "batch sizes"),
        ({"seconds": 0.0}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": float("inf")}, "seconds"),
        ({"threads": 0}, "threads"),
    ],
    ids=str,
)
def test_bad_arguments(change, words, centroid_onnx, tmp_path):
    with pytest.raises(UsageError, match=words):
        bench(centroid_onnx, **{"batches": (1,), **SHORT, **change}, out=tmp_path / "b.jsonl")


def test_threads_of_the_process_are_given_back(small_run, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model: model)
    before = torch.get_num_threads()
    bench(small_run, (1,), 0.01, before + 1, tmp_path / "b.jsonl")
    assert torch.get_num_threads() == before


def test_no_model(tmp_path):
    with pytest.raises(UserError, match="there is no model file"):
        bench(tmp_path / "net.onnx")
