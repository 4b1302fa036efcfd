"""Recipes, the seed loss, schedules, starting weights: what the homework's runs are made of."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hw4fast.data import Split, load
from hw4fast.errors import Interrupted, UsageError, UserError
from hw4fast.training import loop
from hw4fast.training.losses import LOSSES
from hw4fast.training.optimizers import OPTIMIZERS, Optimizer
from hw4fast.training.recipes import RECIPES
from hw4fast.training.runs import load_record
from hw4fast.training.settings import SCHEDULES, Settings, check
from hw4fast.training.train import train
from tests.training.conftest import NARROW


def weights(result):
    return load_file(result.folder / "weights.safetensors")


# -- recipes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_is_its_settings(name, quick, tiny, tmp_path):
    recipe = RECIPES.get(name)
    check(Settings(**recipe.settings))
    start = {"init": str(quick(out=tmp_path / "start").folder)} if recipe.start else {}
    said = {**NARROW, **start, "patience": None}  # digits have no validation split
    by_name = train({"recipe": name, **said}, tmp_path / "a", progress=False)
    by_hand = train({**recipe.settings, **said}, tmp_path / "b", progress=False)
    assert by_name.settings.recipe == name and by_hand.settings.recipe is None
    assert (by_name.folder / "weights.safetensors").read_bytes() == (
        by_hand.folder / "weights.safetensors"
    ).read_bytes()


def test_what_is_said_wins_over_the_recipe(tiny, tmp_path):
    result = train({"recipe": "adam", **NARROW, "lr": 0.01, "epochs": 1}, tmp_path / "a", progress=False)
    assert (result.settings.optimizer, result.settings.lr, result.settings.l2) == ("adam", 0.01, 0.0)


def test_a_run_of_a_recipe_has_its_own_folder(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = train({"recipe": "sgd", **NARROW, "epochs": 1}, progress=False)
    assert str(result.folder) == "runs/digits-sgd"
    resumed = train({"recipe": "sgd", "epochs": 2}, resume=True, progress=False)
    assert resumed.folder == result.folder and resumed.settings.epochs == 2


def test_l1_from_l2_asks_for_the_run_that_it_starts_from(tmp_path):
    with pytest.raises(UsageError, match=r"hw4fast train digits --recipe l2`, then add --init runs/digits-l2"):
        train({"recipe": "l1-from-l2"}, tmp_path / "run", progress=False)
    assert not list(tmp_path.iterdir())


# -- starting weights --------------------------------------------------------------------------------------------


def test_init_starts_from_the_weights_of_another_run(quick, tmp_path):
    first = quick(seed=1, out=tmp_path / "first")
    second = quick(seed=2, init=str(first.folder), lr=1e-12, l2=0.0, out=tmp_path / "second")
    fresh = quick(seed=2, lr=1e-12, l2=0.0, out=tmp_path / "fresh")
    for name, tensor in weights(first).items():
        torch.testing.assert_close(weights(second)[name], tensor, rtol=0, atol=1e-8)
        assert not torch.allclose(weights(fresh)[name], tensor)


def test_an_interrupted_run_with_init_starts_from_it_again(quick, tmp_path, ctrl_c_in_step):
    first = str(quick(seed=1, out=tmp_path / "first").folder)
    whole = quick(init=first, out=tmp_path / "whole")
    with ctrl_c_in_step(1), pytest.raises(Interrupted):
        quick(init=first, out=tmp_path / "cut")
    resumed = train(None, tmp_path / "cut", resume=True, progress=False)
    assert (resumed.folder / "weights.safetensors").read_bytes() == (whole.folder / "weights.safetensors").read_bytes()


def test_init_that_does_not_fit_or_is_not_there(quick, tmp_path):
    narrow = str(quick(out=tmp_path / "narrow").folder)
    with pytest.raises(UserError, match=r"the weights of .*narrow don't fit this net: .*size mismatch"):
        quick(init=narrow, channels=(3, 4), out=tmp_path / "wide")
    with pytest.raises(UserError, match="is no run folder"):
        quick(init=str(tmp_path / "nothing"), out=tmp_path / "wide")
    assert not (tmp_path / "wide").exists()


# -- the homework's loss -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernels", ["hw4fast", "torch"])
def test_the_seed_loss_is_minus_p_and_its_gradient_cross_entropys_times_p(kernels):
    generator = torch.Generator().manual_seed(0)
    logits = (8 * torch.randn(20, 10, generator=generator)).double().requires_grad_()
    target = torch.randint(0, 10, (20,), generator=generator)
    p = torch.softmax(logits.detach(), 1)
    p_y = p.gather(1, target[:, None])
    loss = LOSSES["seed"](logits, target, kernels)
    loss.backward()
    assert loss.item() == pytest.approx(-float(p_y.mean()), rel=1e-12)
    torch.testing.assert_close(logits.grad, p_y * (p - torch.nn.functional.one_hot(target, 10)) / 20)


def test_a_run_on_the_seed_loss_has_costs_between_minus_one_and_zero(quick):
    result = quick(loss="seed", lr=0.5, l2=0.0, epochs=3)
    assert -1 < result.cost < 0
    other = quick(loss="seed", lr=0.5, l2=0.0, epochs=3, kernels="torch")
    assert other.cost == pytest.approx(result.cost, rel=1e-4)
    assert result.kernels["softmax_xent"].values() and not other.kernels


def test_the_last_batch_is_counted_by_itself(quick, tiny):
    result = quick(batch_size=16)  # 75 = 4 batches of 16 and one of 11; 30 test images = 16 and 14
    last = load_record(result.folder)["result"]
    assert last["test_last_images"] == 14 and 0 <= last["test_last_correct"] <= min(14, result.correct)
    train_last = float((result.folder / "metrics.csv").read_text().split("\n")[1].split(",")[4])
    assert math.isclose(train_last * 11, round(train_last * 11), abs_tol=1e-9)


# -- schedules and momentum --------------------------------------------------------------------------------------


def test_schedules():
    one_cycle = [SCHEDULES["one-cycle"](t / 100, 1) for t in range(101)]
    assert one_cycle[0] == pytest.approx(1 / 25) and one_cycle[10] == pytest.approx(1)
    assert one_cycle[100] == pytest.approx(1e-3)
    assert np.argmax(one_cycle) == 10 and (np.diff(one_cycle[:11]) > 0).all() and (np.diff(one_cycle[10:]) < 0).all()
    assert [SCHEDULES["stairs"](done, 14) for done in (0, 0.9, 1, 2.5)] == pytest.approx([1, 1, 0.7, 0.49])
    assert SCHEDULES["constant"](3.2, 10) == 1


@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_the_schedule_is_what_torchs_would_be(schedule, quick, monkeypatch):
    seen, step = [], Optimizer.step

    def noted(optimizer):
        seen.append(optimizer.rate)
        return step(optimizer)

    monkeypatch.setattr(Optimizer, "step", noted)
    quick(schedule=schedule, lr=0.2, epochs=2)
    expected = {
        "constant": [0.2] * 10,
        "stairs": [0.2] * 5 + [0.14] * 5,
        "one-cycle": [0.2 * SCHEDULES["one-cycle"](t / 5, 2) for t in range(10)],
    }
    assert seen == pytest.approx(expected[schedule])


def test_one_cycle_can_not_be_lengthened(quick, tmp_path):
    quick(schedule="one-cycle")
    with pytest.raises(UsageError, match="made for 2 epochs"):
        quick(schedule="one-cycle", epochs=3, resume=True)


@pytest.mark.parametrize("momentum", [-0.5, 0.0, 0.9])
def test_momentum_is_the_formula_below_zero_too(momentum):
    """v ← μv + g, w ← w − lr·v. Source: torch.optim.SGD, whose door refuses a negative μ."""
    net = torch.nn.Linear(1, 1, bias=False)
    optimizer = Optimizer(Settings(momentum=momentum, lr=0.1), net.parameters())
    w, v = net.weight.item(), 0.0
    for g in (1.0, -0.3, 0.7):
        net.weight.grad = torch.full((1, 1), g)
        optimizer.step()
        v = momentum * v + g
        w -= 0.1 * v
        assert net.weight.item() == pytest.approx(w, rel=1e-5)


def test_patience_needs_a_validation_split(quick, tmp_path):
    for settings in ({"patience": 3}, {"recipe": "finetune", "patience": 10}):
        with pytest.raises(UsageError, match="the test split must not decide when to stop"):
            quick(**settings)
    assert not (tmp_path / "run").exists()


def test_momentum_above_one_diverges_with_a_message(quick, tmp_path):
    with pytest.raises(loop.Diverged, match=r"no longer finite .* momentum 3\).*smaller --lr or --momentum"):
        quick(momentum=3.0, epochs=40)
    assert load_record(tmp_path / "run")["status"] == "diverged"


def test_every_optimizer_has_a_rate():
    assert all(rate > 0 for _, rate, _ in OPTIMIZERS.values())


# -- pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_have_the_bits_of_the_preprocessing(channels):
    digits = load("digits")
    if channels == 3:
        from dataclasses import replace

        colour = replace(digits.preprocessing, mode="RGB", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        noise = np.random.default_rng(0).integers(0, 256, (9, 28, 28, 3), np.uint8)
        digits = replace(digits, train=Split(noise, np.arange(9)), preprocessing=colour)
    pictures = loop.Pictures(digits, digits.train, torch.device("cpu"))
    expected = digits.preprocessing.normalise(digits.train.images[[4, 1, 7]])
    x, y = pictures[torch.tensor([4, 1, 7])]
    assert x.dtype == torch.float32 and np.array_equal(x.numpy(), expected)
    assert np.array_equal(y.numpy(), digits.train.labels[[4, 1, 7]])
