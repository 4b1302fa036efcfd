"""Models by name: the model folder's files, and what is exported once into the cache."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import pytest

from hw4fast.errors import UserError
from hw4fast.inference import known
from hw4fast.inference.classifier import Classifier

TABLE = 'index,wnid,name\n1,n2,"crane, a bird"\n0,n1,tench\n'


class Child:
    """What subprocess.Popen gives, of an export that is over."""

    def __init__(self, code: int, said: str) -> None:
        self.returncode, self.stderr = code, io.StringIO(said)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """Empty HW4FAST_DATA/models and cache/models."""
    for variable, name in (("HW4FAST_DATA", "data"), ("HW4FAST_CACHE", "cache")):
        (tmp_path / name / "models").mkdir(parents=True)
        monkeypatch.setenv(variable, str(tmp_path / name))
    return tmp_path


def test_a_name_is_found_in_the_data_folder_before_the_cache(folders, centroid_onnx):
    in_cache, in_data = (folders / name / "models" / "net_1.onnx" for name in ("cache", "data"))
    shutil.copy(centroid_onnx, in_cache)
    assert known.find_model("net_1") == in_cache
    shutil.copy(centroid_onnx, in_data)
    assert known.find_model("net_1") == in_data
    assert Classifier("net_1").path == in_data


def test_a_file_or_a_run_wins_over_a_name(folders, centroid_onnx, monkeypatch):
    monkeypatch.chdir(folders)
    shutil.copy(centroid_onnx, folders / "cache" / "models" / "net.onnx")
    (folders / "net").mkdir()
    shutil.copy(centroid_onnx, folders / "net" / "model.onnx")
    assert known.find_model("net") == Path("net/model.onnx")


def test_a_folder_of_that_name_without_a_run_is_no_model(folders, centroid_onnx, monkeypatch):
    """And a net that can't be made tells of the folder."""
    monkeypatch.chdir(folders)
    (folders / "net").mkdir()
    (folders / "alexnet").mkdir()
    monkeypatch.setattr(known.subprocess, "Popen", lambda *_, **__: Child(1, "hw4fast: no torch\n"))
    with pytest.raises(
        UserError, match=r"no model 'alexnet' \(the folder 'alexnet' holds no run\), and it can't be made: no torch"
    ):
        known.find_model("alexnet")
    with pytest.raises(UserError, match=r"no model 'net' \(the folder 'net' holds no run\); did you mean"):
        known.find_model("net")
    with pytest.raises(UserError, match=r"a folder with neither model\.onnx nor run\.json"):
        known.find_model("./net")
    shutil.copy(centroid_onnx, folders / "cache" / "models" / "net.onnx")
    assert known.find_model("net") == folders / "cache" / "models" / "net.onnx"
    (folders / "net" / "run.json").write_text("{}")
    with pytest.raises(UserError, match="the run 'net' isn't exported yet"):
        known.find_model("net")


def test_what_is_not_there_is_exported_once_in_a_process_of_its_own(folders, centroid_onnx, monkeypatch, capsys):
    commands = []

    def start(command, **_):
        commands.append(command)
        shutil.copy(centroid_onnx, command[-1])
        return Child(0, "begun\n")

    monkeypatch.setattr(known.subprocess, "Popen", start)
    for _ in range(2):
        assert known.find_model("resnet18") == folders / "cache" / "models" / "resnet18.onnx"
    ((*words, path),) = commands
    assert words == [sys.executable, "-P", "-m", "hw4fast", "export", "resnet18", "--begun", "--onnx"]
    assert path == str(folders / "cache" / "models" / "resnet18.onnx")
    assert "exporting resnet18 to" in capsys.readouterr().err


def test_why_it_can_not_be_exported_is_told(folders, monkeypatch, capsys):
    """And the folder of the caller can put nothing in. Of an unknown name no process is asked."""
    pytest.importorskip("torchvision")
    for name in ("hw4fast.py", "argparse.py", "onnx.py", "torch.py"):
        (folders / name).write_text("raise SystemExit('run')")
    monkeypatch.chdir(folders)
    with pytest.raises(
        UserError, match=r"^there is no model 'resnet19'; did you mean resnet18, resnet\d+ or resnet\d+\?$"
    ):
        known.find_model("resnet19")
    assert capsys.readouterr().err == ""
    (folders / "data" / "models" / "resnet18.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"^there is no model 'resnet18', and it can't be made: .*resnet18\.pth"):
        known.find_model("resnet18")
    assert list((folders / "cache" / "models").iterdir()) == []


def test_weights_that_can_not_be_had(folders, monkeypatch):
    torch, pretrained = pytest.importorskip("torch"), pytest.importorskip("hw4fast.training.models.pretrained")

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    with pytest.raises(UserError) as caught:
        pretrained.pretrained("resnet18")
    assert known._refusal("resnet18", str(caught.value)).endswith(
        f"(no network); put resnet18.pth into {folders}/data/models or {folders}/cache/models, or: hw4fast export "
        "resnet18 --weights FILE --onnx resnet18.onnx and then --model resnet18.onnx"
    )


@pytest.mark.parametrize("path", ["no/such.onnx", "net.onnx", "Résumé"])
def test_what_is_no_name_is_a_missing_file(folders, path):
    with pytest.raises(UserError, match=r"there is no model file"):
        known.find_model(path)


@pytest.mark.parametrize("path", ["long" * 100 + ".onnx", "zero\0byte"])
def test_an_impossible_name_is_one_line(folders, path):
    with pytest.raises(UserError, match=r"the model file .* can't be read"):
        known.find_model(path)


def test_the_table_belongs_to_the_model_folder_alone(folders):
    (folders / "data" / "imagenet_classes.csv").write_text(TABLE, encoding="utf-8-sig")  # as Excel writes it
    ours = folders / "data" / "models" / "mobilenet_v2.onnx"
    card = known.known_card(ours)
    assert card.labels == ("tench", "crane") and card.licence == "Apache-2.0"
    assert known.known_card(folders / "mobilenet_v2.onnx") is None
    assert known.known_card(ours.with_name("other.onnx")) is None
    (folders / "kept").mkdir()
    (folders / "kept" / "SHA256E-s9.onnx").write_bytes(b"a model")
    ours.symlink_to(folders / "kept" / "SHA256E-s9.onnx")  # as git-annex and DVC keep it
    assert known.known_card(ours) == card
    (folders / "models").symlink_to("data/models")
    assert known.known_card(folders / "models" / "mobilenet_v2.onnx") == card


@pytest.mark.parametrize(
    "text", [None, "index,wnid\n0,n1\n", "index,wnid,name\nfirst,n1,tench\n", "index,wnid,name\n0\n"]
)
def test_labels_that_can_not_be_read(folders, text):
    path = folders / "data" / "imagenet_classes.csv"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="the labels of the model folder can't be read"):
        known.known_card(folders / "data" / "models" / "mobilenet_v2.onnx")
