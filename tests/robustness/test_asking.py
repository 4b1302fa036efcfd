"""What an answer belongs to: not what else is asked, by whom, or in which order."""

from __future__ import annotations

import csv
import multiprocessing

import numpy as np
import onnx
import pytest
from PIL import Image
from sklearn.metrics import top_k_accuracy_score

from hw4fast.errors import UserError
from hw4fast.files import alone
from hw4fast.robustness.asking import _ranks
from hw4fast.robustness.study import study
from tests.linear import net

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        small = Image.fromarray(rng.integers(0, 256, (8, 16, 3), np.uint8))
        small.resize((128, 64)).save(folder / f"{i}.png")
    return folder


def answers(result, model=""):
    with (result.out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"].endswith(model)]
    return {(row["image"], row["spec"]): (row["answer"], row["confidence"]) for row in rows}


def quietly(*arguments, **options):
    return study(*arguments, **{"progress": False, "breaking": 0} | options)


def test_each_model_misses_its_own_normalisation(photos, tmp_path):
    one = net(tmp_path / "one.onnx", 1)
    two = net(tmp_path / "two.onnx", 2, mean=(0.1, 0.2, 0.9), std=(0.1, 1, 0.3))
    alone = answers(quietly(photos, two, ["normalisation", "blur"], tmp_path / "alone"), "two.onnx")
    both = answers(quietly(photos, [one, two], ["normalisation", "blur"], tmp_path / "both"), "two.onnx")
    assert alone == both and len(alone) == 8 * 7


def test_pictures_that_differ_beside_the_crop_only(photos, tmp_path):
    """What hangs on the decoded picture isn't found under the fitted one, nor the other way round."""
    for path in list(photos.iterdir()):
        picture = np.array(Image.open(path))
        picture[:, :20] = 255 - picture[:, :20]
        Image.fromarray(picture).save(photos / f"other-{path.name}")
    model = net(tmp_path / "net.onnx", 1, resize="shorter-side", resize_size=32)
    first = quietly(photos, model, ["framing", "thumbnail", "blur"], tmp_path / "s", breaking=4)
    found, table = answers(first), (first.out / "predictions.csv").read_bytes()
    again = quietly(photos, model, ["framing", "thumbnail", "blur"], tmp_path / "s", breaking=4)
    assert again.reused == again.predictions and (again.out / "predictions.csv").read_bytes() == table
    for way, same in (("framing", False), ("blur", True), ("", True)):  # squashed, the edges show
        points = [key for key in found if key[1].startswith(way) and bool(key[1]) == bool(way)]
        pairs = [(found[key], found[f"other-{key[0]}", key[1]]) for key in points if not key[0].startswith("other-")]
        assert pairs and all(one == other for one, other in pairs) is same


def test_weights_in_another_file_are_a_part_of_the_model(photos, tmp_path):
    def outside(seed):
        whole = onnx.load(net(tmp_path / "whole.onnx", seed))
        (tmp_path / "net.data").unlink(missing_ok=True)
        onnx.save(whole, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=100)
        return (tmp_path / "net.onnx").read_bytes()

    graph = outside(1)
    quietly(photos, tmp_path / "net.onnx", ["blur"], tmp_path / "s")
    assert outside(2) == graph
    changed = quietly(photos, tmp_path / "net.onnx", ["blur"], tmp_path / "s")
    assert changed.reused == 0
    fresh = quietly(photos, tmp_path / "net.onnx", ["blur"], tmp_path / "fresh")
    assert answers(changed) == answers(fresh)


@pytest.mark.filterwarnings("ignore")
def test_a_net_that_is_quantised_as_it_runs_answers_picture_by_picture(photos, tmp_path):
    """DynamicQuantizeLinear has one scale for all of a batch."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    net(tmp_path / "net.onnx", 1, scale=0.01)
    quantize_dynamic(tmp_path / "net.onnx", tmp_path / "int8.onnx", weight_type=QuantType.QUInt8)
    few = answers(quietly(photos, tmp_path / "int8.onnx", ["contrast"], tmp_path / "few"))
    more = answers(quietly(photos, tmp_path / "int8.onnx", ["gaussian_noise", "contrast"], tmp_path / "more"))
    assert {key: more[key] for key in few} == few


def test_pictures_that_are_sought_and_broken(photos, tmp_path):
    (photos / "0.png").write_bytes(b"no picture")
    result = quietly(photos, net(tmp_path / "net.onnx", 1), ["rotate"], tmp_path / "s", breaking=1)
    assert [name for name, _ in result.failures] == ["0.png"]
    assert result.report.is_file() and not (result.out / "breaking.csv").exists()


def _hold(folder, held, go_on):
    with alone(folder, "studying into"):
        held.set()
        go_on.wait(60)


def test_a_folder_that_another_process_studies_into_is_not_touched(photos, tmp_path):
    model = net(tmp_path / "net.onnx", 1)
    study_folder = tmp_path / "s"
    quietly(photos, model, ["flip"], study_folder)
    for path in study_folder.iterdir():
        if path.name != "study.json":  # as in the first seconds of a study
            path.unlink()
    spawn = multiprocessing.get_context("spawn")
    held, go_on = spawn.Event(), spawn.Event()
    other = spawn.Process(target=_hold, args=(study_folder, held, go_on))
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(UserError, match="another process is studying into"):
            quietly(photos, model, ["flip"], study_folder)
    finally:
        go_on.set()
        other.join()
    assert (study_folder / "study.json").is_file()


def test_a_failed_study_leaves_the_users_own_folders(photos, tmp_path):
    (tmp_path / "results").mkdir()
    bad = net(tmp_path / "bad.onnx", 1, scale=np.nan)
    for out in ("results/s", "new/deeper/s"):
        with pytest.raises(UserError, match="NaN"):
            quietly(photos, bad, ["flip"], tmp_path / out)
    assert list((tmp_path / "results").iterdir()) == [] and not (tmp_path / "new").exists()


@pytest.mark.parametrize("k", [1, 2, 5])
def test_ranks_are_scikit_learns_top_k_without_ties_and_a_stable_sort_with_them(k):
    rng = np.random.default_rng(k)
    scores, labels = rng.random((400, 10)), rng.integers(0, 10, 400)
    ranks = _ranks(scores, labels)
    assert (ranks < k).mean() == pytest.approx(top_k_accuracy_score(labels, scores, k=k, labels=range(10)))
    tied = rng.integers(0, 4, (400, 10)).astype(np.float32)
    first = np.argsort(-tied, axis=1, kind="stable")[:, :k]
    ranks = _ranks(tied, labels)
    assert np.array_equal(ranks < k, (first == labels[:, None]).any(axis=1))
