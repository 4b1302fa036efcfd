"""bench: engines are compared before they are timed, what is left out says why, records are appended."""

from __future__ import annotations

import shutil
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from hw4fast import bench as bench_module
from hw4fast import record
from hw4fast.bench import bench, choosing, processes
from hw4fast.bench import engines as engines_module
from hw4fast.bench import pictures as pictures_module
from hw4fast.errors import UsageError, UserError
from hw4fast.inference.session import PROVIDERS, explain_provider

SHORT = {"seconds": 0.01, "threads": 1, "whole": False}
ALONE = [pictures_module.OURS, "opening the model alone", "reading and fitting alone", "the net alone"]


def test_a_run_on_every_engine(small_run, tmp_path):
    """The one test that really compiles; without a C++ compiler torch.compile is left out and says so."""
    result = bench(small_run, (3,), out=tmp_path / "b.jsonl", **SHORT)
    ran = {timing.engine for timing in result.timings}
    assert {"torch eager", "torch channels-last", "onnxruntime cpu", "onnxruntime cpu fused"} <= ran
    expected = {"torch eager", "torch channels-last", "torch.compile"}
    expected |= {f"onnxruntime cpu {kind}" for kind in ("fused", "float16", "int8")}
    expected |= {f"onnxruntime {name}" for name in PROVIDERS}
    expected |= {"onnxruntime cuda float16"} if "onnxruntime cuda" in ran else set()
    assert ran | result.left_out.keys() == expected and not ran & result.left_out.keys()
    assert all(result.left_out.values())
    for timing in result.timings:
        assert timing.batch == 3 and timing.calls >= 30
        assert 0 < timing.p10_ms <= timing.p50_ms <= timing.p90_ms <= timing.p99_ms
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
    engine, path = engines_module._onnx_engine, tmp_path / "b.jsonl"

    def spoilt(classifier):
        return lambda pictures: lambda: spoil(engine(classifier)(pictures)())

    monkeypatch.setattr(engines_module, "_onnx_engine", spoilt)
    monkeypatch.setattr(bench_module.timing, "alternate", lambda *_, **__: pytest.fail("it was timed"))
    with pytest.raises(UserError, match=r"onnxruntime cpu and torch eager disagree by .*; nothing was timed"):
        bench(small_run, (1,), out=path, **SHORT)
    assert not path.exists()


@pytest.mark.usefixtures("eager_only")
def test_float16_on_a_gpu_where_there_is_one(centroid_onnx, tmp_path, monkeypatch):
    """Classifiers run on the CPU here, whatever they are asked for; in the second turn float16 is refused."""
    create, refused = engines_module.Classifier, UserError("no kernel there")

    def on_cpu(file, provider="cpu", *rest, **options):
        return create(file, "cpu", *rest, **options)

    monkeypatch.setattr(engines_module, "CHANGES", {"float16": engines_module._half})
    monkeypatch.setattr(engines_module, "Classifier", on_cpu)
    monkeypatch.setattr(engines_module, "explain_provider", lambda name: None if name != "tensorrt" else "none")
    for number, ready in enumerate((True, False)):
        (scratch := tmp_path / str(number)).mkdir()
        found = engines_module.engines_of(centroid_onnx, None, scratch, 1)
        name = "onnxruntime cuda float16"
        assert (name in found.ready) is ready and found.tolerances.get(name) == 5e-3, found.left_out
        monkeypatch.setattr(
            engines_module, "_add_onnx", partial(_refuse_float16_on_gpus, engines_module._add_onnx, refused)
        )
    assert found.left_out[name] == "no kernel there" and "onnxruntime cpu float16" in found.ready


def _refuse_float16_on_gpus(add, refused, found, name, *rest):
    if name == "onnxruntime cuda float16":
        raise refused
    add(found, name, *rest)


def test_an_engine_that_can_not_run_is_left_out(small_run, tmp_path, monkeypatch):
    def broken(_pictures):
        raise RuntimeError("no kernel\nfor this node")

    monkeypatch.setattr(engines_module, "_onnx_engine", lambda classifier: broken)
    result = bench(small_run, (1, 2), out=tmp_path / "b.jsonl", **SHORT)
    assert result.left_out["onnxruntime cpu"] == "no kernel"
    assert {timing.engine for timing in result.timings} == {"torch eager", "torch channels-last", "torch.compile"}


def test_no_engine_at_all(centroid_onnx, tmp_path, monkeypatch):
    def broken(_pictures):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(engines_module, "_onnx_engine", lambda classifier: broken)
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
    bench(small_run, (1,), 0.01, before + 1, tmp_path / "b.jsonl", whole=False)
    assert torch.get_num_threads() == before


def test_no_model(tmp_path):
    with pytest.raises(UserError, match="there is no model file"):
        bench(tmp_path / "net.onnx")


# -- whole processes and picture files ---------------------------------------------------------------------------


@pytest.mark.usefixtures("eager_only")
def test_the_whole_of_it(small_run, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "FILES", 12)
    monkeypatch.setattr(pictures_module, "BATCH", 5)
    monkeypatch.setattr(processes, "ROUNDS", 1)
    monkeypatch.setattr(engines_module, "CHANGES", {"fused": engines_module.CHANGES["fused"]})
    result = bench(small_run, (2,), 0.01, 2, tmp_path / "b.jsonl")
    engines = {process.engine for process in result.processes}
    assert engines == {"torch eager"} | {t.engine for t in result.timings if t.engine.startswith("onnxruntime")}
    assert "onnxruntime cpu fused" in engines
    for process in result.processes:
        assert 0.02 < process.low_s <= process.cold_start_s <= process.high_s and process.rounds == processes.ROUNDS
        assert process.batch == 2 and 10 < process.memory_mb < 2000
    eager, onnx, *_ = result.processes
    assert onnx.memory_mb < eager.memory_mb and onnx.cold_start_s < eager.cold_start_s
    ways = {row.way: row for row in result.files}
    assert list(ways) == [*ALONE, *pictures_module.THEIRS]
    for row in result.files:
        assert row.files == 12 and 0 < row.low <= row.images_per_s <= row.high
    assert ways[pictures_module.OURS].ratio_to_ours == 1
    (entry,) = record.read(tmp_path / "b.jsonl")
    assert entry["results"]["files"][0]["images_per_s"] == result.files[0].images_per_s
    assert Image.open(result.picture).size[0] > 500 and result.picture == tmp_path / "b.png"


def test_a_file_reads_photographs(centroid_onnx, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "FILES", 3)
    monkeypatch.setattr(processes, "ROUNDS", 1)
    result = bench(centroid_onnx, (1,), 0.01, 1, tmp_path / "b.jsonl")
    assert [row.way for row in result.files] == ALONE
    assert {process.engine for process in result.processes} == {timing.engine for timing in result.timings}


def test_pictures_of_ones_own(centroid_onnx, tmp_path):
    (tmp_path / "mine").mkdir()
    for number in range(4):
        Image.fromarray(np.full((40, 40), 60 * number, np.uint8)).save(tmp_path / "mine" / f"{number}.png")
    found = engines_module.engines_of(centroid_onnx, tmp_path / "mine", tmp_path, 1)
    assert found.chosen.files == tuple(tmp_path / "mine" / f"{number}.png" for number in range(4))
    assert [len(found.pictures), found.left_out.get("4 of 4 pictures"), found.failed] == [4, None, False]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no picture"):
        engines_module.engines_of(centroid_onnx, tmp_path / "empty", tmp_path, 1)


@pytest.mark.usefixtures("eager_only")
def test_other_answers_from_files_are_not_timed(small_run, tmp_path, monkeypatch):
    found = engines_module.engines_of(small_run, None, tmp_path, 1)
    forward = type(found.net).forward
    monkeypatch.setattr(type(found.net), "forward", lambda self, x: -forward(self, x))
    with pytest.raises(UserError, match=r"answers \d+ of 128 pictures otherwise than .*; nothing was timed"):
        pictures_module.ways_of(found, 1)


def test_a_process_that_fails_says_why(centroid_onnx, tmp_path):
    found = engines_module.engines_of(centroid_onnx, None, tmp_path, 1)
    found.files["onnxruntime cpu"] = tmp_path / "gone.onnx"
    assert processes.whole_processes(found, 1, 1, rounds=1) == []
    assert "there is no model file" in found.left_out["onnxruntime cpu, whole process"]


def test_the_folder_of_the_caller_can_put_nothing_in(tmp_path, monkeypatch):
    for name in ("hw4fast.py", "json.py", "numpy.py"):
        (tmp_path / name).write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="not enough values to unpack"):  # it came as far as its own words
        processes._run([])
