"""train: it learns, the folder holds what it should, the settings do what they say, mistakes are one line."""

from __future__ import annotations

import csv
import json
import math
import time
from dataclasses import asdict, fields

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from hw4fast import kernels
from hw4fast.data import load
from hw4fast.errors import Interrupted, UsageError, UserError
from hw4fast.stats import percent
from hw4fast.training import loop, runs
from hw4fast.training.losses import CROSS_ENTROPIES
from hw4fast.training.optimizers import OPTIMIZERS
from hw4fast.training.runs import Epoch, build_model, load_model, load_record
from hw4fast.training.settings import Settings, check
from hw4fast.training.train import train

FILES = {"checkpoint.safetensors", "contact_sheet.png", "curves.png", "metrics.csv", "run.json", "weights.safetensors"}

SMALL_RUN = Settings(epochs=4, batch_size=50, batch_norm=True, lr=0.1, threads=1)


def rows(folder):
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# -- a real run --------------------------------------------------------------------------------------------------


def test_it_learns_digits(small_run):
    result = load_record(small_run)["result"]
    assert result["test_images"] == 360
    assert result["test_correct"] >= 335, percent(result["test_correct"], 360)  # 93 %; chance is 10 %


def test_the_run_folder_holds_everything(small_run):
    assert {path.name for path in small_run.iterdir()} == FILES | {"model.onnx", "samples"}
    entry = json.loads((small_run / "run.json").read_text(encoding="utf-8"))
    assert entry["status"] == "finished"
    assert Settings.from_json(entry["settings"]) == SMALL_RUN
    assert set(entry["settings"]) == {field.name for field in fields(Settings)}
    assert entry["data"]["fingerprint"] == load("digits").fingerprint
    (session,) = entry["sessions"]
    assert session["versions"]["torch"] == torch.__version__.split("+")[0]
    assert session["machine"]["isas"] == kernels.isas()
    assert (session["threads"], session["isa"]) == (1, kernels.chosen_isa())
    steps, isa = 4 * math.ceil(1437 / 50), kernels.chosen_isa()
    blocks = {"conv_block", "conv_block_backward", "batch_norm_block", "batch_norm_block_backward"}
    assert entry["kernels_that_ran"].keys() == {"softmax_xent"} | blocks
    assert entry["kernels_that_ran"]["softmax_xent"] == {isa: steps}
    assert entry["kernels_that_ran"]["conv_block_backward"] == {isa: 2 * steps}
    assert entry["kernels_that_ran"]["batch_norm_block_backward"] == {isa: 2 * steps}


def test_metrics_are_one_row_per_epoch_and_the_last_is_the_result(small_run):
    table, result = rows(small_run), load_record(small_run)["result"]
    assert list(table[0]) == [field.name for field in fields(Epoch)]
    assert [int(row["epoch"]) for row in table] == [1, 2, 3, 4]
    assert float(table[0]["train_cost"]) > float(table[-1]["train_cost"]) > 0
    last = (int(table[-1]["test_correct"]), int(table[-1]["test_images"]), float(table[-1]["test_cost"]))
    assert last == (result["test_correct"], result["test_images"], result["test_cost"])


def test_the_weights_give_the_recorded_accuracy(small_run):
    digits = load("digits")
    x = torch.from_numpy(digits.preprocessing.normalise(digits.test.images))
    y = torch.from_numpy(digits.test.labels)
    model = load_model(small_run, digits)
    with torch.inference_mode():
        logits = model(x)
    result = load_record(small_run)["result"]
    assert int((logits.argmax(1) == y).sum()) == result["test_correct"]
    assert float(F.cross_entropy(logits, y)) == pytest.approx(result["test_cost"], rel=1e-5)
    pictures = loop.Pictures(digits, digits.test, torch.device("cpu"))
    cost, logits = loop.evaluate(model, pictures, "cross-entropy", batch=7)
    right = logits.argmax(1) == y
    assert (cost, int(right.sum())) == pytest.approx((result["test_cost"], result["test_correct"]), rel=1e-5)
    assert int(right[-10:].sum()) == result["test_last_correct"] and result["test_last_images"] == 10  # 360 in fifties


@pytest.mark.parametrize("name", ["curves.png", "contact_sheet.png"])
def test_the_pictures_show_something(name, small_run):
    with Image.open(small_run / name) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(pixels) > 200_000
    assert 0.005 < (pixels != pixels[0]).any(1).mean() < 0.9  # neither blank nor full
    assert len(np.unique(pixels, axis=0)) > 50


def test_the_samples_are_the_first_test_images(small_run):
    digits, files = load("digits"), sorted((small_run / "samples").iterdir())
    assert [file.name for file in files] == [f"{i:02}-{digits.test.labels[i]}.png" for i in range(10)]
    for file, image in zip(files, digits.test.images, strict=False):
        with Image.open(file) as picture:
            assert np.array_equal(np.asarray(picture), image[:, :, 0])


def test_curves_use_the_palette_for_train_and_test(small_run):
    with Image.open(small_run / "curves.png") as picture:
        colours = {tuple(pixel) for pixel in np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours


# -- settings ----------------------------------------------------------------------------------------------------


def test_an_existing_folder_is_left_alone(quick, tmp_path):
    one = quick()
    before = {path: path.read_bytes() for path in one.folder.rglob("*.*")}
    two, three = quick(seed=1), quick(seed=2)
    assert [result.folder for result in (one, two, three)] == [tmp_path / name for name in ("run", "run-2", "run-3")]
    assert {path: path.read_bytes() for path in one.folder.rglob("*.*")} == before


@pytest.mark.parametrize("place", [".", "..", "/"])
def test_a_folder_without_a_name_is_refused(place, quick, tmp_path, monkeypatch):
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    with pytest.raises(UsageError, match="name"):
        quick(out=place)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_the_same_settings_give_the_same_bytes_and_another_seed_does_not(quick):
    one, again, other = (quick(seed=seed).folder / "weights.safetensors" for seed in (3, 3, 4))
    assert one.read_bytes() == again.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_every_optimizer_learns(optimizer, quick):
    rate = {"sgd": 0.1, "adagrad": 0.02, "adam": 0.01, "adadelta": 1.0}[optimizer]
    result = quick(optimizer=optimizer, lr=rate, epochs=8, dropout=0.0, batch_norm=True, channels=(4, 8))
    table = rows(result.folder)
    assert float(table[-1]["train_cost"]) < 0.6 * float(table[0]["train_cost"])
    assert result.correct > 10  # 3 of 30 by chance


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.1), ("adagrad", 0.001), ("adam", 0.001)])
def test_default_learning_rates(optimizer, rate, quick):
    default, stated = quick(optimizer=optimizer), quick(optimizer=optimizer, lr=rate)
    assert [(run.folder / "weights.safetensors").read_bytes() for run in (default, stated)].count(
        (default.folder / "weights.safetensors").read_bytes()
    ) == 2


@pytest.mark.parametrize("setting", [{"momentum": 0.9}, {"l1": 1e-3}, {"l2": 0.0}, {"dropout": 0.0}, {"seed": 9}])
def test_a_setting_changes_the_weights(setting, quick):
    plain, changed = load_file(quick().folder / "weights.safetensors"), quick(**setting)
    assert any(
        not torch.equal(tensor, plain[name])
        for name, tensor in load_file(changed.folder / "weights.safetensors").items()
    )


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (0.02, 0.0), (0.0, 0.3), (0.02, 0.3)])
def test_one_step_is_the_formula(l1, l2, quick, tiny):
    """w − lr·(∂cost/∂w + l1·sign w + l2·w), biases without penalties: one batch with all images, one epoch."""
    settings = Settings(channels=(2, 3), epochs=1, batch_size=75, lr=0.05, l1=l1, l2=l2, dropout=0.0)
    model = build_model(settings, tiny)
    x = torch.from_numpy(tiny.preprocessing.normalise(tiny.train.images))
    y = torch.from_numpy(tiny.train.labels)
    F.cross_entropy(model(x), y).backward()
    expected = {}
    for name, w in model.named_parameters():
        penalty = l1 * w.sign() + l2 * w if name.endswith("weight") else torch.zeros_like(w)
        expected[name] = (w - 0.05 * (w.grad + penalty)).detach()
    found = load_file(quick(**asdict(settings)).folder / "weights.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_batch_norm_and_channels_shape_the_net(quick):
    weights = load_file(quick(batch_norm=True, channels=(5, 7)).folder / "weights.safetensors")
    shapes = [tuple(tensor.shape) for tensor in weights.values() if tensor.dim() == 4]
    assert sorted(shapes) == [(5, 1, 5, 5), (7, 5, 5, 5)]
    assert sum("running_mean" in name for name in weights) == 2


def test_threads_are_those_asked_for_and_the_process_keeps_its_own(quick, monkeypatch):
    seen, epoch = [], loop._epoch

    def noted(*arguments):
        seen.append(torch.get_num_threads())
        return epoch(*arguments)

    monkeypatch.setattr(loop, "_epoch", noted)
    before = torch.get_num_threads()
    quick(threads=before + 1, epochs=1)
    assert seen == [before + 1] and torch.get_num_threads() == before


# -- kernels -----------------------------------------------------------------------------------------------------


def losses_of(quick, monkeypatch, which):
    """Every step's loss, of a run on those kernels."""
    losses, loss_of = [], CROSS_ENTROPIES[which]

    def noted(logits, target):
        loss = loss_of(logits, target)
        if loss.requires_grad:  # not the test's
            losses.append(loss.item())
        return loss

    with monkeypatch.context() as patch:
        patch.setitem(CROSS_ENTROPIES, which, noted)
        result = quick(kernels=which, epochs=3)
    return losses, load_record(result.folder)["kernels_that_ran"]


def test_both_kernels_give_the_same_losses_and_the_record_says_which_ran(quick, monkeypatch):
    ours, ran_ours = losses_of(quick, monkeypatch, "hw4fast")
    theirs, ran_theirs = losses_of(quick, monkeypatch, "torch")
    assert len(ours) == 3 * 5
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert {name: sum(counts.values()) for name, counts in ran_ours.items()} == {
        "softmax_xent": 3 * 5,
        "conv_block": 2 * 3 * (5 + 1),
        "conv_block_backward": 2 * 3 * 5,
    }
    assert all(list(counts) == [kernels.chosen_isa()] for counts in ran_ours.values())
    assert ran_theirs == {}


# -- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"optimizer": "lion"}, "unknown optimizer 'lion'; known: sgd, adagrad, adam"),
        ({"kernels": "numpy"}, "unknown kernels 'numpy'; known: hw4fast, torch"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum"),
        ({"momentum": math.nan}, "momentum"),
        ({"loss": "hinge"}, "unknown loss 'hinge'; known: cross-entropy, seed"),
        ({"schedule": "cosine"}, "unknown schedule 'cosine'"),
        ({"recipe": "l3"}, "unknown recipe 'l3'"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**60}, "seed"),
        ({"l1": -1e-9}, "l1"),
        ({"l2": math.nan}, "l2"),
        ({"l2": math.inf}, "l2"),
        ({"lr": 0.0}, "lr"),
        ({"lr": -1.0}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"lr": math.inf}, "lr"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"dropout": math.nan}, "dropout"),
        ({"device": "tpu"}, "device must be cpu or cuda, not 'tpu'"),
        ({"device": torch.device("meta")}, "device must be cpu or cuda, not 'meta'"),
        ({"device": torch.device("cuda:1")}, "device must be cpu or cuda, not 'cuda:1'"),
        ({"precision": "float8", "device": "cuda"}, "precision must be float32 or bfloat16, not 'float8'"),
        ({"precision": "bfloat16"}, "the precision bfloat16 goes with device cuda"),
        ({"channels": (16,)}, "channels"),
        ({"channels": (16, 32, 64)}, "channels"),
        ({"channels": (0, 4)}, "channels"),
        ({"threads": 0}, "threads"),
    ],
    ids=str,
)
def test_a_bad_setting_is_refused_before_anything_is_written(setting, words, quick, tmp_path):
    with pytest.raises(UsageError, match=words):
        quick(**setting)
    assert list(tmp_path.iterdir()) == []


def test_the_defaults_pass():
    check(Settings())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize("which", ["hw4fast", "torch"])
def test_cuda_without_a_gpu(which, quick):
    with pytest.raises(UserError, match=r"torch finds no GPU.*--device cpu"):
        quick(device="cuda", kernels=which)


def test_cuda_has_no_kernel_of_ours(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="--kernels torch"):
        check(Settings(device="cuda"))
    check(Settings(device="cuda", kernels="torch"))


def test_unknown_data_set_and_model(tmp_path):
    with pytest.raises(UsageError, match="unknown data set 'digit'; did you mean digits"):
        train(Settings(dataset="digit"), tmp_path / "run")
    with pytest.raises(UsageError, match="unknown model 'seed_cn'; did you mean seed_cnn"):
        train(Settings(model="seed_cn"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_an_instruction_set_that_is_not_there_is_refused_before_anything_is_written(quick, tmp_path, monkeypatch):
    monkeypatch.setenv("HW4FAST_ISA", "mmx")
    with pytest.raises(UserError, match="mmx"):
        quick()
    assert list(tmp_path.iterdir()) == []


# -- a loss that is no number ------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_the_run(quick, tmp_path):
    with pytest.raises(UserError, match=r"no longer finite .* in epoch 1, .*lr 1e\+20") as caught:
        quick(lr=1e20)
    assert "kept" not in str(caught.value)  # there is nothing to keep
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
    entry = load_record(tmp_path / "run")
    assert entry["status"] == "diverged" and entry["diverged"]["epoch"] == 1
    assert 1 < entry["diverged"]["step"] <= 5 and entry["diverged"]["loss"] in ("nan", "inf")


def test_epochs_shorter_than_a_checkpoint_are_written_together(quick, tmp_path, monkeypatch, ctrl_c_in_step):
    """Nine of ten parts of the time are the epochs'; Ctrl-C loses none of the whole ones."""
    written, save = [], runs.save_state

    def slow(folder, state):
        save(folder, state)
        written.append(len(state.history))
        time.sleep(0.5)

    monkeypatch.setattr(runs, "save_state", slow)
    quick(epochs=3)
    assert written == [1, 3]
    written.clear()
    with ctrl_c_in_step(3 * 5 + 2), pytest.raises(Interrupted):
        quick(epochs=4, out=tmp_path / "other")
    assert written == [1, 3] and len(rows(tmp_path / "other")) == 3
    monkeypatch.setattr(runs, "save_state", save)
    quick(resume=True, epochs=4, out=tmp_path / "other")
    whole = quick(epochs=4, out=tmp_path / "whole").folder
    weights = [(folder / "weights.safetensors").read_bytes() for folder in (tmp_path / "other", whole)]
    assert weights[0] == weights[1]


def test_the_epochs_before_it_are_kept(quick, tmp_path, monkeypatch):
    whole, folder, epochs = loop.evaluate, tmp_path / "run", []

    def fails_in_epoch_3(*arguments):
        cost, logits = whole(*arguments)
        epochs.append(cost)
        return (math.nan if len(epochs) == 3 else cost), logits

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", fails_in_epoch_3)
        with pytest.raises(UserError, match=r"no longer finite \(nan\) in epoch 3, .*epoch 2 are kept"):
            quick(epochs=4)
    assert len(rows(folder)) == 2
    kept = (folder / "weights.safetensors").read_bytes()
    assert kept == (quick(epochs=2, out=tmp_path / "two").folder / "weights.safetensors").read_bytes()
    with pytest.raises(UserError, match="diverged in its first epoch and has no weights"):
        (folder / "weights.safetensors").unlink()
        quick(init=str(folder), out=tmp_path / "next")
    (folder / "weights.safetensors").write_bytes(kept)
    quick(init=str(folder), out=tmp_path / "next")
    assert quick(resume=True, epochs=4).folder == folder
    assert (folder / "weights.safetensors").read_bytes() == (
        quick(epochs=4).folder / "weights.safetensors"
    ).read_bytes()
