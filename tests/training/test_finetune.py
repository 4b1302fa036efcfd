"""Fine-tuning: frozen means frozen, features are computed once, training stops early and keeps the best weights."""

from __future__ import annotations

import csv
import errno
import os
import shutil

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

from hw4fast.cli import main
from hw4fast.errors import Interrupted, UsageError, UserError
from hw4fast.exporter import export
from hw4fast.inference.classify import classify
from hw4fast.training import frozen, loop
from hw4fast.training.models.backbone import Tail, backbone, features, last_layer
from hw4fast.training.runs import load_data, load_model, load_record
from hw4fast.training.train import train

NET = "mobilenet_v3_small"  # the quickest of torchvision's
CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with three classes of eight pictures, weights for NET, a cache of their own."""
    root = tmp_path_factory.mktemp("finetune")
    rng = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (root / "photos" / name).mkdir(parents=True)
        for place in range(8):
            picture = rng.integers(0, 120, (48, 64, 3), np.uint8)
            picture[..., 2 - number] += 130
            Image.fromarray(picture).save(root / "photos" / name / f"{place}.png")
    torch.manual_seed(0)
    torch.save(torchvision.models.get_model(NET, weights=None).state_dict(), root / "net.pth")
    return root


@pytest.fixture
def tune(world, tmp_path, monkeypatch):
    """train() on that folder; the settings that are given win."""
    monkeypatch.setenv("HW4FAST_CACHE", str(world / "cache"))

    def run(out="run", resume=False, **settings):
        usual = {"dataset": str(world / "photos"), "model": NET, "weights": str(world / "net.pth"), "epochs": 3}
        given = {} if resume else {**usual, "batch_size": 8, "threads": 1, "lr": 1e-3, **settings}
        return train(given, tmp_path / out, resume=resume, progress=False)

    return run


def rows(result):
    with (result.folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def weights(result):
    return load_file(result.folder / "weights.safetensors")


def test_frozen_means_frozen_statistics_included(tune, world):
    result = tune(tune="head", epochs=5)
    before = torch.load(world / "net.pth", weights_only=True)
    path, _ = last_layer(torchvision.models.get_model(NET, weights=None))
    after = weights(result)
    for name, tensor in after.items():
        same = name in before and tensor.shape == before[name].shape and torch.equal(tensor, before[name])
        assert same != name.startswith(f"{path}."), name
    assert sum("running_mean" in name for name in after) > 10
    assert [row["stage"] for row in rows(result)] == ["head"] * 5
    assert result.n == 3 and float(rows(result)[-1]["train_cost"]) < float(rows(result)[0]["train_cost"])


def test_all_layers_move_when_they_are_not_frozen(tune, world):
    after, before = weights(tune(epochs=1)), torch.load(world / "net.pth", weights_only=True)
    moved = [name for name, tensor in after.items() if name in before and not torch.equal(tensor, before[name])]
    assert len(moved) > 0.9 * len(before)


def test_features_are_computed_once(tune, monkeypatch):
    first = tune(tune="head", epochs=2)

    def refuse(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(frozen, "features", refuse)
    assert weights(tune(out="again", tune="head", epochs=2)).keys() == weights(first).keys()


def test_the_tail_gives_the_nets_own_logits(world):
    for name in ("squeezenet1_1", "resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "vit_b_16"):
        model = torchvision.models.get_model(name, weights=None).eval()
        x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            (found,) = features(model, Tail(model), [x])
            assert torch.equal(Tail(model)(found), model(x)), name


def test_a_net_that_does_more_after_its_classifier_is_refused():
    class More(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(4, 3)

        def forward(self, x):
            return 2 * self.fc(x)

    model = More()
    with pytest.raises(UserError, match="does more after its classifier"):
        list(features(model, Tail(model), [torch.ones(2, 4)]))
    with pytest.raises(UserError, match="has no classifier"):
        Tail(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_it_stops_when_patience_is_over_and_keeps_the_best(tune, monkeypatch):
    costs = iter([3.0, 2.0, 2.5, 2.6, 2.7, 9.9])
    whole, kept = loop.evaluate, {}

    def scripted(net, batches, loss, batch=None):
        _, logits = whole(net, batches, loss, batch)
        told = next(costs)
        kept[told] = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        return told, logits

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", scripted)
        result = tune(epochs=20, patience=3)
    assert [float(row["val_cost"]) for row in rows(result)] == [3.0, 2.0, 2.5, 2.6, 2.7]
    final = weights(result)
    assert all(torch.equal(final[name], tensor) for name, tensor in kept[2.0].items())
    assert load_record(result.folder)["result"]["best_epoch"] == {"stage": "all", "epoch": 2}


def test_two_steps_in_one_command(tune):
    result = tune(tune="head-then-all", epochs=2)
    assert [(row["stage"], row["epoch"]) for row in rows(result)] == [
        ("head", "1"), ("head", "2"), ("all", "1"), ("all", "2"),
    ]  # fmt: skip
    assert {"confusion.png", "mistakes.png", "curves.png", "contact_sheet.png"} <= {
        path.name for path in result.folder.iterdir()
    }


@pytest.fixture(scope="module")
def undisturbed():
    """The weights of the run below, once they are there."""
    return {}


@pytest.mark.parametrize("step", [2, 5, 8, 10, 11])  # 3 steps make an epoch of 18 pictures: each epoch of each stage
def test_interrupted_two_steps_go_on_to_the_same_weights(step, tune, ctrl_c_in_step, undisturbed, monkeypatch):
    for name in ("curves", "contact_sheet", "class_sheet", "confusion", "mistakes", "samples"):
        monkeypatch.setattr(f"hw4fast.training.pictures.{name}", lambda *_: None)
    if not undisturbed:
        undisturbed.update(weights(tune(out="whole", tune="head-then-all", epochs=2)))
    with ctrl_c_in_step(step), pytest.raises(Interrupted):
        tune(out="cut", tune="head-then-all", epochs=2)
    resumed = tune(out="cut", resume=True)
    found = weights(resumed)
    assert found.keys() == undisturbed.keys()
    assert all(torch.equal(tensor, undisturbed[name]) for name, tensor in found.items())


def test_more_epochs_go_to_the_last_stage(tune, tmp_path, ctrl_c_in_step):
    with ctrl_c_in_step(11), pytest.raises(Interrupted):
        tune(out="longer", tune="head-then-all", epochs=2)
    resumed = train({"epochs": 3}, tmp_path / "longer", resume=True, progress=False)
    assert [(row["stage"], row["epoch"]) for row in rows(resumed)] == [
        ("head", "1"), ("head", "2"), ("all", "1"), ("all", "2"), ("all", "3"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_nets_with_several_outputs_are_refused(name, tune):
    with pytest.raises(UsageError, match="more than one output in training"):
        tune(model=name)


def test_a_grey_data_set_is_no_backbones(tmp_path):
    with pytest.raises(UsageError, match="takes colour pictures; those of digits are grey"):
        train({"dataset": "digits", "model": NET, "recipe": None, "patience": None}, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HW4FAST_CACHE", str(tmp_path / "cache"))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    command = ["train", str(world / "photos"), "--backbone", NET, "--weights", str(world / "net.pth"), "--freeze"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 1
    assert f"No space left on device: {tmp_path / 'cache'}" in capsys.readouterr().err
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    assert not (tmp_path / "run").exists()


def test_paths_are_found_again_from_another_folder(tune, world, tmp_path, monkeypatch):
    monkeypatch.chdir(world)
    first = tune(dataset="photos", weights="net.pth", tune="head", epochs=1)
    assert (first.settings.dataset, first.settings.weights) == (str(world / "photos"), str(world / "net.pth"))
    monkeypatch.chdir(tmp_path)
    assert train({"epochs": 2}, first.folder, resume=True, progress=False).settings.epochs == 2
    monkeypatch.chdir(world)
    assert train({"dataset": "photos", "epochs": 2}, first.folder, resume=True, progress=False).n == first.n


def test_an_unreadable_picture_is_told_and_the_exit_code_says_so(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HW4FAST_CACHE", str(world / "cache"))
    shutil.copytree(world / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "red" / "broken.png").write_bytes(b"\x89PNG")
    command = ["train", str(tmp_path / "photos"), "--backbone", NET, "--weights", str(world / "net.pth"), "--freeze"]
    assert main([*command, "--epochs", "1", "--out", str(tmp_path / "run")]) == 3
    said = capsys.readouterr()
    assert "left out: " in said.err and "broken.png" in said.err and "test accuracy" in said.out
    assert load_record(tmp_path / "run")["data"]["left_out"] == 1


def test_a_tuned_run_exports_and_classifies(tune, world):
    result = tune(tune="head", epochs=2)
    exported = export(result.folder)
    assert exported.card.labels == CLASSES and exported.card.preprocessing.resize == "shorter-side"
    assert exported.card.provenance["settings"]["dataset"] == "photos"
    assert str(world) not in exported.path.read_bytes().decode("latin-1")
    (answer,) = classify(world / "photos" / "red" / "0.png", exported.path, top=1)
    assert answer.clean.top[0][1] in CLASSES
    model = load_model(result.folder, load_data(load_record(result.folder)))
    assert not model.training


def test_settings_of_backbones_and_of_our_nets_are_kept_apart(tune):
    with pytest.raises(UsageError, match="dropout doesn't go with the model mobilenet_v3_small"):
        tune(dropout=0.1)
    with pytest.raises(UsageError, match="tune doesn't go with the model seed_cnn"):
        train({"tune": "head"}, progress=False)
    with pytest.raises(UsageError, match=r"unknown model 'mobilenet_v3_smal'; did you mean mobilenet_v3_small"):
        tune(model="mobilenet_v3_smal")


def test_pictures_are_for_a_pretrained_net_and_the_recipe_finetune(tune, world, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr("hw4fast.training.train.check", lambda settings: seen.update(vars(settings)) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train({"dataset": str(world / "photos")}, tmp_path / "run", progress=False)
    assert (seen["model"], seen["recipe"], seen["patience"], seen["lr"]) == ("shufflenet_v2_x1_0", "finetune", 10, 1e-4)


def test_the_head_is_new_and_the_rest_is_not(world):
    model, source = backbone(NET, 5, world / "net.pth")
    path, layer = last_layer(model)
    assert layer.out_features == 5 and source == "net.pth"
    before = torch.load(world / "net.pth", weights_only=True)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items() if not n.startswith(f"{path}."))
