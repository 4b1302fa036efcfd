"""The cache of optimised graphs: the same answers, sooner; whatever is wrong with it, the file itself is opened."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from hw4fast import record
from hw4fast.errors import UserError
from hw4fast.files import writing
from hw4fast.inference import optimised, session, shuffles
from hw4fast.inference.session import open_session
from tests.conftest import write_linear_onnx
from tests.inference.nets import answers, picture, small, with_constants_as_inputs

X = np.random.Generator(np.random.PCG64(1)).standard_normal((2, 1, 28, 28)).astype(np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HW4FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(optimised, "LEAST", 1)
    return tmp_path / "cache" / "optimised"


@pytest.fixture
def model(tmp_path) -> Path:
    return linear(tmp_path / "net.onnx")


def linear(path: Path, seed: int = 0) -> Path:
    rng = np.random.Generator(np.random.PCG64(seed))
    return write_linear_onnx(path, rng.standard_normal((10, 784)), rng.standard_normal(10), "the card")


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.glob("*") if path.name != "hashes")


def answer(path: Path, **options) -> np.ndarray:
    return open_session(path, **options).run(["logits"], {"input": X})[0]


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Names of the graphs that onnxruntime was given."""
    seen: list[str] = []
    create = session._create

    def record(model, *rest, **options):
        seen.append(Path(model).name if isinstance(model, str) else "bytes")
        return create(model, *rest, **options)

    monkeypatch.setattr(session, "_create", record)
    monkeypatch.setattr(session, "_reopens", lambda *_: True)
    return seen


def test_the_second_start_reads_what_the_first_has_written(model, cache, opened):
    first = answer(model)
    (entry,) = entries(cache)
    assert sorted(path.name for path in entry.iterdir()) == sorted([optimised.GRAPH, optimised.WEIGHTS, optimised.NOTE])
    second = open_session(model)
    assert opened == ["net.onnx", optimised.GRAPH]
    assert np.array_equal(second.run(["logits"], {"input": X})[0], first)
    assert second.get_modelmeta().custom_metadata_map == {"hw4fast.card": "the card"}
    assert second.get_inputs()[0].shape == ["n", 1, 28, 28] and entries(cache) == [entry]


def test_a_small_file_is_not_worth_it(model, cache, opened, monkeypatch):
    monkeypatch.setattr(optimised, "LEAST", model.stat().st_size + 1)
    answer(model)
    answer(model)
    assert opened == ["net.onnx"] * 2 and not cache.exists()


def test_other_bytes_are_another_graph(model, cache):
    before = answer(model)
    linear(model, seed=1)
    after = answer(model)
    assert not np.array_equal(before, after) and len(entries(cache)) == 2
    assert np.array_equal(answer(model), after)


def test_bytes_that_change_in_the_same_moment(model, cache):
    """Same length, same times as far as a user can set them."""
    before = answer(model)
    status = model.stat()
    linear(model, seed=1)
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert model.stat().st_size == status.st_size
    assert not np.array_equal(before, answer(model))


def test_the_hash_is_noted_once_the_file_has_settled(model, cache, monkeypatch):
    monkeypatch.setattr(optimised, "SETTLED_S", -1)
    answer(model)
    (note,) = (cache / "hashes").iterdir()
    monkeypatch.setattr(optimised, "sha256", lambda *_: pytest.fail("hashed again"))
    answer(model)
    assert len(note.read_text()) == 64


def test_the_same_bytes_under_another_name_share_it(model, cache, opened, tmp_path):
    answer(model)
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(model.read_bytes())
    answer(copy)
    assert opened == ["net.onnx", optimised.GRAPH] and len(entries(cache)) == 1


def test_with_and_without_kernels_are_two_graphs(model, cache):
    answer(model)
    answer(model, kernels=False)
    assert len(entries(cache)) == 2


def test_another_processor_of_the_same_name_has_its_own(model, cache, opened, monkeypatch):
    """onnxruntime lays a convolution's weights out in blocks as wide as the processor's vectors."""
    answer(model)
    monkeypatch.setattr(record, "instructions", lambda: "fewer")
    answer(model)
    assert opened == ["net.onnx"] * 2 and len(entries(cache)) == 2


def test_a_file_that_is_replaced_while_it_is_opened_is_not_kept(model, cache, tmp_path, monkeypatch):
    """Else its graph would lie under the hash of the bytes that were there before."""
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(model.read_bytes())
    right, create = answer(model, kernels=False), session._create

    def replaced_before(path, *rest, **options):
        linear(model, seed=1)
        return create(path, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(session, "_create", replaced_before)
        answer(model)
    assert len(entries(cache)) == 1 and np.array_equal(answer(copy), right)


def test_for_so_many_pictures_at_a_time(model, cache):
    for _ in range(2):
        fixed = open_session(model, batch=2)
        assert fixed.get_inputs()[0].shape == [2, 1, 28, 28]
        assert np.array_equal(fixed.run(["logits"], {"input": X})[0], answer(model))
    assert len(entries(cache)) == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda entry: (entry / optimised.WEIGHTS).write_bytes(b""),
        lambda entry: (entry / optimised.WEIGHTS).unlink(),
        lambda entry: (entry / optimised.GRAPH).write_bytes(b"nonsense"),
        lambda entry: (entry / optimised.GRAPH).write_bytes(bytes((entry / optimised.GRAPH).stat().st_size)),
        lambda entry: (entry / optimised.NOTE).write_text("{"),
        lambda entry: (entry / optimised.NOTE).unlink(),
    ],
)
def test_a_spoilt_entry_is_made_anew(spoil, model, cache, opened):
    right = answer(model)
    (entry,) = entries(cache)
    spoil(entry)
    assert np.array_equal(answer(model), right)
    assert opened[-1] == "net.onnx"
    assert np.array_equal(answer(model), right)
    assert opened[-1] == optimised.GRAPH


def test_a_cache_that_may_not_be_written(model, cache, opened):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    answer(model)
    answer(model)
    assert opened == ["net.onnx"] * 2


def test_a_graph_that_can_not_be_written(model, cache, opened, monkeypatch):
    """As on a full disk: onnxruntime fails while it writes."""
    draft = optimised.Entry.draft

    def no_folder(self):
        folder = draft(self)
        folder.rmdir()
        return folder

    monkeypatch.setattr(optimised.Entry, "draft", no_folder)
    assert answer(model).shape == (2, 10)
    assert opened == ["net.onnx"] * 2 and not entries(cache)


def test_no_model_leaves_nothing(tmp_path, cache):
    path = tmp_path / "text.onnx"
    path.write_text("this is no model")
    with pytest.raises(UserError, match="can't be loaded as an ONNX model"):
        open_session(path)
    assert not entries(cache)


def test_weights_in_other_files_are_not_kept(model, cache, opened, tmp_path):
    """They may change without the file."""
    moved = tmp_path / "moved.onnx"
    onnx.save(onnx.load(model), moved, save_as_external_data=True, location="moved.bin", size_threshold=100)
    answer(moved)
    assert opened == ["moved.onnx"] and not entries(cache)


def test_the_oldest_make_room(tmp_path, cache, monkeypatch):
    models = [linear(tmp_path / f"{seed}.onnx", seed) for seed in range(4)]
    for number, path in enumerate(models[:3]):
        answer(path)
        (new,) = (entry for entry in entries(cache) if (entry / optimised.NOTE).stat().st_mtime > time.time() - 50)
        os.utime(new / optimised.NOTE, (0, time.time() - 1000 + number))
    before = entries(cache)
    size = sum(path.stat().st_size for path in before[0].iterdir())
    answer(models[0])  # is used: now the second is the oldest
    monkeypatch.setattr(optimised, "MOST", int(2.5 * size))
    answer(models[3])
    after = entries(cache)
    assert len(before) == 3 and len(after) == 2 and len(set(after) & set(before)) == 1
    opened_again = [optimised.entry(path, session._onnxruntime().__version__, "cpu", True, None) for path in models]
    assert [entry.whole() for entry in opened_again] == [True, False, False, True]


def test_what_killed_processes_left_is_swept(model, cache):
    cache.mkdir(parents=True)
    for name, age in ((".old", 7200), (".new", 10)):
        (cache / name).mkdir()
        os.utime(cache / name, (0, time.time() - age))
    answer(model)
    assert not (cache / ".old").exists() and (cache / ".new").exists()


def test_a_file_that_is_only_being_written_is_not_kept(model, cache):
    with writing(model) as temporary:
        linear(temporary)
        answer(temporary)
    assert not cache.exists()


def test_a_graph_that_asks_for_what_was_folded_is_not_kept(cache, tmp_path, monkeypatch):
    """onnxruntime writes some so whose constants are inputs, too, as all are in files of IR version 3."""
    monkeypatch.setattr(shuffles, "has_shuffles", lambda _: False)
    path = small(tmp_path / "old.onnx")
    (before,) = answers(path, 24)
    with_constants_as_inputs(path, 3)
    for _ in range(3):
        session = open_session(path)
        assert [entry.name for entry in session.get_inputs()] == ["x"]
        assert np.array_equal(session.run(None, picture(24))[0], before)
    assert entries(cache) == []
