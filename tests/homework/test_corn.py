"""The corn: the breaking point is found where it is, and the real photo breaks where the homework said it would."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hw4fast.errors import UsageError, UserError
from hw4fast.homework import corn, corn_page
from hw4fast.homework.parts import Options
from hw4fast.homework.reproduce import reproduce
from hw4fast.kernels.gaussian_blur import gaussian_blur

DATA = Path(os.environ.get("HW4FAST_DATA", "nowhere"))
needs_data = pytest.mark.skipif(
    not (DATA / corn.PHOTO).is_file() or not (DATA / "models" / f"{corn.ARCHITECTURE}.pth").is_file(),
    reason="needs HW4FAST_DATA with the corn photo and ShuffleNet's weights",
)


class Contrast:
    """A stand-in for a net that answers by how much of a chequered picture's contrast a blur has left."""

    card = SimpleNamespace(labels=("sharp", "soft", "grey"))

    def __init__(self, limits=(40.0, 10.0)):
        self.limits = limits

    def logits(self, batch):
        spread = batch.reshape(len(batch), -1).astype(float).std(1)
        answers = np.where(spread > self.limits[0], 0, np.where(spread > self.limits[1], 1, 2))
        return np.eye(3, dtype=np.float32)[answers]


def chequered():
    y, x = np.mgrid[0:64, 0:64] // 4
    return np.repeat((255 * ((x + y) % 2)).astype(np.uint8)[..., None], 3, 2)


def on_grid(net, picture):
    return net.logits(np.stack([gaussian_blur(picture, corn.SIZE, float(s)) for s in corn.SIGMAS])).argmax(1)


def test_the_breaking_point_is_the_first_change():
    net, picture = Contrast(), chequered()
    found = corn.breaking_point(net, picture, on_grid(net, picture))
    assert (found.before, found.after) == ("sharp", "soft") and found.changes == 1
    for factor, answer in ((1 - 2 * corn.CLOSE, 0), (1, 1)):
        blurred = gaussian_blur(picture, corn.SIZE, found.sigma * factor)
        assert int(net.logits(blurred[None]).argmax()) == answer


def test_a_picture_that_no_blur_changes():
    net, flat = Contrast(), np.full((32, 32, 3), 90, np.uint8)
    found = corn.breaking_point(net, flat, on_grid(net, flat))
    assert found == corn.Broken(None, "grey", "grey", 0)


def test_changes_back_are_counted():
    answers = np.zeros(len(corn.SIGMAS), int)
    answers[10:20] = 1  # away at 10, back at 20, away again at 30
    answers[30:] = 2
    found = corn.breaking_point(Contrast(), chequered(), answers)
    assert found.changes == 3 and corn.SIGMAS[9] <= found.sigma <= corn.SIGMAS[10]


def test_no_photo_is_one_clear_message(tmp_path, monkeypatch):
    monkeypatch.delenv("HW4FAST_DATA", raising=False)
    with pytest.raises(UserError, match=r"photo of corn can't be had: HW4FAST_DATA is not set; .* --photo"):
        reproduce(["corn"], tmp_path, Options(progress=False))
    monkeypatch.setenv("HW4FAST_DATA", str(tmp_path))
    with pytest.raises(UserError, match="is not there"):
        corn.find_photos(None)


def test_unknown_parts_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"unknown part 'maize'; known: mnist, fast, flowers, corn, theory, all"):
        reproduce(["maize"], tmp_path)


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """The part on the homework's photo: its net is exported here and nowhere else in this file."""
    return reproduce(["corn"], tmp_path_factory.mktemp("corn"), Options(progress=False))


@needs_data
def test_the_homeworks_photo(reproduced):
    result, folder = reproduced, reproduced.report.parent
    (photo,) = result.results["corn"]["photos"]
    assert photo["answers"]["clean"][0][0] == "corn"
    assert photo["answers"]["clean"][0][1] == pytest.approx(0.12, abs=0.01)
    assert photo["answers"]["trick"][0][0] != "corn" and photo["answers"]["blur51"][0][0] != "corn"
    assert 0.3 < photo["broken"]["sigma"] < 0.5 and photo["broken"]["before"] == "corn"
    assert "turns corn into" in corn_page.finding(result.results["corn"])
    with Image.open(folder / "corn" / "0-n12144580_corn.png") as picture:
        assert picture.width > 1500
    page = result.report.read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 1
    before = (folder / "corn" / "shufflenet_v2_x1_0-stretch.onnx").stat().st_mtime_ns
    reproduce(["corn"], folder, Options(progress=False))
    assert (folder / "corn" / "shufflenet_v2_x1_0-stretch.onnx").stat().st_mtime_ns == before


@needs_data
def test_a_folder_with_a_broken_picture(reproduced, tmp_path):
    (tmp_path / "out" / "corn").mkdir(parents=True)
    for file in (reproduced.report.parent / "corn").glob("*.onnx"):
        shutil.copy(file, tmp_path / "out" / "corn")
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, source in enumerate(sorted((DATA / "photos" / "nips2017").rglob("*.[pj]*g"))[:3]):
        (folder / f"{number}{source.suffix}").write_bytes(source.read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    result = reproduce(["corn"], tmp_path / "out", Options(photo=str(folder), progress=False)).results["corn"]
    assert [Path(entry["photo"]).stem for entry in result["photos"]] == ["0", "1", "2"]
    assert len({entry["drawing"] for entry in result["photos"]}) == 3
    assert [entry["photo"] for entry in result["unreadable"]] == ["broken.jpg"]
    with (tmp_path / "out" / "corn" / "corn.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3
    assert any("not read: broken.jpg" in line for line in corn_page.table(result))
