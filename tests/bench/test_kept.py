"""What bench has measured it records, whatever fails afterwards; what can go wrong is looked at before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hw4fast import bench as bench_module
from hw4fast import cli, data, record
from hw4fast.bench import bench
from hw4fast.bench import engines as engines_module
from hw4fast.bench import pictures as pictures_module
from hw4fast.errors import UsageError, UserError
from hw4fast.inference.classify import Failure

SHORT = {"seconds": 0.01, "threads": 1}
UPRIGHT = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """No rests between turns, no processes, no drawing: the tests of test_bench.py do that."""
    monkeypatch.setattr(bench_module.timing, "POOLS_REST_S", 0)
    monkeypatch.setattr(bench_module, "whole_processes", lambda *_: [])
    monkeypatch.setattr(bench_module, "draw", lambda _timings, _caption, path: path.write_bytes(b"drawn"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """71 digits, of which the last one is cut off: a tensor's sample doesn't reach it."""
    folder = tmp_path_factory.mktemp("photos")
    for number, image in enumerate(data.load("digits").test.images[:71]):
        Image.fromarray(image.squeeze()).save(folder / f"{number:02}.png")
    last = folder / "70.png"
    last.write_bytes(last.read_bytes()[:60])
    return folder


def entry(path: Path) -> dict:
    (only,) = record.read(path)
    return only["results"]


def test_a_broken_picture_among_the_later_ones_is_left_out(centroid_onnx, photos, tmp_path):
    result = bench(centroid_onnx, (1,), pictures=photos, out=tmp_path / "b.jsonl", **SHORT)
    assert {row.files for row in result.files} == {70} and len(result.files) == 4
    assert "70.png" in result.left_out["1 of 71 pictures"] and result.failed
    assert entry(tmp_path / "b.jsonl")["files"][0]["files"] == 70


def test_all_broken_is_an_error_that_says_why(centroid_onnx, photos, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_bytes((photos / "70.png").read_bytes())
    with pytest.raises(UserError, match=r"holds no picture to read: .*a\.png"):
        bench(centroid_onnx, (1,), pictures=tmp_path / "p", out=tmp_path / "b.jsonl", **SHORT)


def failing(monkeypatch, at: int, calls: int):
    """onnxruntime's engine fails at batch size `at` after so many calls."""
    engine, count = engines_module._onnx_engine, [0]

    def made(classifier):
        def on(pictures):
            call = engine(classifier)(pictures)

            def run():
                count[0] += len(pictures) == at
                if len(pictures) == at and count[0] > calls:
                    raise MemoryError("no memory for them")
                return call()

            return run

        return on

    monkeypatch.setattr(engines_module, "_onnx_engine", made)


@pytest.mark.usefixtures("eager_only")
def test_an_engine_that_fails_at_a_larger_batch_is_timed_at_the_smaller_one(small_run, tmp_path, monkeypatch):
    failing(monkeypatch, at=3, calls=0)
    result = bench(small_run, (1, 3), out=tmp_path / "b.jsonl", **SHORT)
    assert result.left_out["onnxruntime cpu, batch 3"] == "no memory for them"
    assert [row.batch for row in result.timings if row.engine == "onnxruntime cpu"] == [1]
    assert [row.batch for row in result.timings if row.engine == "torch eager"] == [1, 3]
    assert result.files[0].way == pictures_module.OURS


def test_a_batch_size_that_fails_while_it_is_timed_leaves_the_others(centroid_onnx, tmp_path, monkeypatch):
    failing(monkeypatch, at=3, calls=30)
    result = bench(centroid_onnx, (1, 3), out=tmp_path / "b.jsonl", whole=False, **SHORT)
    assert result.left_out["batch 3"] == "no memory for them" and result.failed
    assert [row["batch"] for row in entry(tmp_path / "b.jsonl")["timings"]] == [1]


def test_nothing_timed_is_an_error_and_no_record(centroid_onnx, tmp_path, monkeypatch):
    failing(monkeypatch, at=3, calls=30)
    with pytest.raises(UserError, match=r"no engine could be timed: .*batch 3: no memory for them"):
        bench(centroid_onnx, (3,), out=tmp_path / "b.jsonl", whole=False, **SHORT)
    assert not (tmp_path / "b.jsonl").exists()


@pytest.mark.parametrize(
    ("part", "name"), [("from_files", "picture files"), ("whole_processes", "whole processes"), ("draw", "picture")]
)
def test_a_part_that_fails_takes_nothing_with_it(part, name, centroid_onnx, photos, tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise OSError("the disk is full\nand so on")

    monkeypatch.setattr(bench_module, part, fails)
    arguments = ["bench", str(centroid_onnx), "--batches", "2", "--seconds", "0.01", "--out", str(tmp_path / "b.jsonl")]
    assert cli.main([*arguments, "--pictures", str(photos)]) == 3
    said = capsys.readouterr()
    assert f"left out: {name}: the disk is full\n" in said.err and "onnxruntime cpu" in said.out
    assert entry(tmp_path / "b.jsonl")["timings"][0]["batch"] == 2
    assert (tmp_path / "b.png").exists() == ("picture: " in said.out) == (part != "draw")


# -- answers from files ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eager_only")
def test_pictures_that_exif_turns_are_turned_for_torch_too(small_run, tmp_path):
    for number, image in enumerate(data.load("digits").test.images[:12]):
        orientation, turn = list(UPRIGHT.items())[number % 4]
        stored = Image.fromarray(image.squeeze())
        exif = Image.Exif()
        exif[274] = orientation
        stored = stored if turn is None else stored.transpose(turn)
        stored.save(tmp_path / f"{number}.jpg", exif=exif, quality=95)
    result = bench(small_run, (1,), pictures=tmp_path, out=tmp_path / "b.jsonl", **SHORT)
    assert {row.way for row in result.files} >= set(pictures_module.THEIRS)


def found(model, folder, tmp_path):
    return engines_module.engines_of(model, folder, tmp_path, 1)


def test_the_row_of_classify_is_classify_itself(centroid_onnx, photos, tmp_path, monkeypatch):
    asked, classify = [], pictures_module.classify

    def spy(files, model, threads):
        results = list(classify(files, model, threads=threads))
        asked.append((len(files), threads, len(results[0].clean.top)))
        return results

    monkeypatch.setattr(pictures_module, "classify", spy)
    ways = pictures_module.ways_of(found(centroid_onnx, photos, tmp_path), 2)
    assert asked == [(70, 2, 5)]
    rows = pictures_module.from_files(ways, 70, rounds=2)
    assert len(asked) == 3 and rows[0].way == pictures_module.OURS and rows[0].files == 70


def test_other_answers_than_classifys_are_refused(centroid_onnx, photos, tmp_path, monkeypatch):
    classify = pictures_module.classify
    monkeypatch.setattr(pictures_module, "classify", lambda files, *_, **__: classify([files[0]] * 70, centroid_onnx))
    with pytest.raises(UserError, match=r"the net alone answers \d+ of 70 pictures otherwise than hw4fast classify"):
        pictures_module.ways_of(found(centroid_onnx, photos, tmp_path), 1)


def test_classify_that_fails_leaves_the_files_out(centroid_onnx, photos, tmp_path, monkeypatch):
    engines = found(centroid_onnx, photos, tmp_path)
    monkeypatch.setattr(pictures_module, "classify", lambda *_, **__: [Failure("00.png", "it is gone")])
    assert pictures_module.ways_of(engines, 1) == {}
    assert engines.left_out[pictures_module.OURS] == "it is gone" and engines.failed


@pytest.mark.usefixtures("eager_only")
def test_torch_that_fails_on_a_picture_is_left_out_alone(small_run, photos, tmp_path, monkeypatch):
    def fails(_image):
        raise ValueError("a broken EXIF block")

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", fails)
    engines = found(small_run, photos, tmp_path)
    ways = pictures_module.ways_of(engines, 1)
    assert list(ways) == [pictures_module.OURS, "opening the model alone", "reading and fitting alone", "the net alone"]
    assert [engines.left_out[name] for name in pictures_module.THEIRS] == ["a broken EXIF block"] * 2


def test_without_onnxruntime_there_are_no_files(centroid_onnx, photos, tmp_path):
    engines = found(centroid_onnx, photos, tmp_path)
    engines.files.clear()
    assert pictures_module.ways_of(engines, 1) == {}
    assert engines.left_out["picture files"] == "onnxruntime cpu doesn't run the model"


# -- where it is written -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b.png", "b", "b.json"])
def test_records_have_a_name_of_their_own(name, centroid_onnx, tmp_path):
    with pytest.raises(UsageError, match=r"must end in \.jsonl"):
        bench(centroid_onnx, (1,), out=tmp_path / name, whole=False, **SHORT)
    assert not list(tmp_path.iterdir())


def test_the_records_own_picture_is_drawn_again_and_no_other(centroid_onnx, tmp_path):
    record.append(tmp_path / "b.jsonl", "serving", {})  # another's
    (tmp_path / "b.png").write_bytes(b"a photograph")
    with pytest.raises(UserError, match=r"'.*b\.png'.* belongs to no record in 'b\.jsonl'"):
        bench(centroid_onnx, (1,), out=tmp_path / "b.jsonl", whole=False, **SHORT)
    assert (tmp_path / "b.png").read_bytes() == b"a photograph"
    (tmp_path / "b.png").unlink()
    for _ in range(2):
        result = bench(centroid_onnx, (1,), out=tmp_path / "b.jsonl", whole=False, **SHORT)
        assert result.picture.read_bytes() == b"drawn"
        result.picture.write_bytes(b"old")


def test_a_folder_is_no_record(centroid_onnx, tmp_path):
    (tmp_path / "b.jsonl").mkdir()
    with pytest.raises(UserError, match="can't be written"):
        bench(centroid_onnx, (1,), out=tmp_path / "b.jsonl", whole=False, **SHORT)


def test_it_says_whose_answers_are_others(centroid_onnx, tmp_path, monkeypatch, capsys):
    """An engine in another precision, which likes 3 a little more than the others do."""
    engines_of = engines_module.engines_of

    def with_another(*arguments):
        found = engines_of(*arguments)

        def biased(pictures):
            call = found.ready["onnxruntime cpu"](pictures)
            return lambda: call() + 0.2 * np.abs(call()).max() * np.eye(10, dtype=np.float32)[3]

        found.ready["int8"], found.tolerances["int8"] = biased, 0.25
        return found

    monkeypatch.setattr(bench_module, "engines_of", with_another)
    for number, digit in enumerate(data.load("digits").test.images[:64]):
        Image.fromarray(digit[:, :, 0]).save(tmp_path / f"{number:02}.png")
    words = [
        "--no-whole",
        "--pictures",
        str(tmp_path),
        "--batches",
        "8",
        "--seconds",
        "0.01",
        "--out",
        str(tmp_path / "b.jsonl"),
    ]
    assert cli.main(["bench", str(centroid_onnx), *words]) == 0
    first, other = entry(tmp_path / "b.jsonl")["answers"]
    assert first == {"engine": "onnxruntime cpu", "other": "onnxruntime cpu", "same": 64, "n": 64}
    assert 0 < other["same"] < 64
    line = f"64 pictures, the same answers as onnxruntime cpu: every engine but int8 ({other['same']} of 64)"
    assert line in capsys.readouterr().out.splitlines()


def test_a_folder_that_bears_the_nets_name_is_no_run(centroid_onnx, tmp_path, monkeypatch):
    """`resnet18/` with somebody's pictures in it: the name means the net, and the record lies here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net").mkdir()
    monkeypatch.setattr(engines_module, "find_model", lambda _: centroid_onnx)
    monkeypatch.setattr(engines_module, "torch_net", lambda _: None)
    folder = tmp_path / "digits"
    folder.mkdir()
    Image.fromarray(data.load("digits").test.images[0].squeeze()).save(folder / "0.png")
    result = bench("net", (1,), pictures=folder, whole=False, **SHORT)
    assert result.path == Path("bench.jsonl") and entry(result.path)["model"] == "net"


@pytest.mark.parametrize("after", ["batch 1", "picture files"])
def test_ctrl_c_keeps_what_was_measured(after, centroid_onnx, photos, tmp_path, monkeypatch, capsys):
    out, measure, files = tmp_path / "b.jsonl", bench_module._measure, bench_module.from_files

    def pressed(*arguments):
        raise KeyboardInterrupt

    if after == "batch 1":
        monkeypatch.setattr(bench_module, "_measure", lambda *rest: measure(*rest) if rest[1] == 1 else pressed())
        monkeypatch.setattr(bench_module, "from_files", lambda *_: pytest.fail("goes on"))
    else:
        monkeypatch.setattr(bench_module, "from_files", lambda *rest: (files(*rest), pressed()))
    arguments = ["--batches", "1,2", "--seconds", "0.01", "--threads", "1", "--out", str(out)]
    assert cli.main(["bench", str(centroid_onnx), "--pictures", str(photos), *arguments]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"hw4fast: interrupted; what was measured before is in '{out}'"
    results = entry(out)
    assert {row["batch"] for row in results["timings"]} == ({1} if after == "batch 1" else {1, 2})
    assert results["files"] == []
    assert results["left_out"]["batch 2" if after == "batch 1" else "picture files"] == "interrupted"


def test_ctrl_c_before_anything_was_measured_leaves_no_record(centroid_onnx, photos, tmp_path, monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_module, "_measure", pressed)
    with pytest.raises(KeyboardInterrupt):
        bench(centroid_onnx, (1, 2), pictures=photos, out=tmp_path / "b.jsonl", **SHORT)
    assert not (tmp_path / "b.jsonl").exists()
