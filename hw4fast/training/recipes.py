"""Named settings: `hw4fast train mnist --recipe adam` is the homework's run of that name: its settings, no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hw4fast.registry import Registry


@dataclass(frozen=True)
class Recipe:
    """sentence: what it is; settings: the values of `Settings` that it sets; start: the recipe whose finished run it
    must be given as `init`, None for random weights."""

    sentence: str
    settings: dict[str, Any]
    start: str | None = None


RECIPES: Registry[Recipe] = Registry("recipe")

# -- the homework's problem 3: seed_cnn, 10 epochs, batch 100, dropout 0.4, all of which are the defaults -----------

for _name, _recipe in {
    "l2": Recipe("SGD at 0.1 with λ/2·Σw²", {"lr": 0.1, "l2": 1e-4}),
    "l1": Recipe("SGD at 0.1 with λ·Σ|w|, λ = 0.001", {"lr": 0.1, "l1": 1e-3, "l2": 0.0}),
    "l1-from-l2": Recipe("as l1, from the weights of the run l2", {"lr": 0.1, "l1": 1e-3, "l2": 0.0}, start="l2"),
    "sgd": Recipe("SGD at 0.1", {"lr": 0.1, "l2": 0.0}),
    "momentum": Recipe("SGD at 0.1 with momentum 0.1", {"lr": 0.1, "l2": 0.0, "momentum": 0.1}),
    "adagrad": Recipe("Adagrad at 0.001", {"optimizer": "adagrad", "lr": 0.001, "l2": 0.0}),
    "adam": Recipe("Adam at 0.001", {"optimizer": "adam", "lr": 0.001, "l2": 0.0}),
    "sgd-bn": Recipe("SGD at 0.1 with batch normalisation", {"lr": 0.1, "l2": 0.0, "batch_norm": True}),
    "adam-bn": Recipe(
        "Adam at 0.001 with batch normalisation",
        {"optimizer": "adam", "lr": 0.001, "l2": 0.0, "batch_norm": True},
    ),
}.items():
    RECIPES.add(_name, _recipe)

# -- problem 5: a pretrained net on other pictures -------------------------------------------------------------------

RECIPES.add(
    "finetune",
    Recipe(
        "Adam at 0.0001 until the validation cost has not fallen for ten epochs",
        # so many epochs that patience decides: a frozen one costs next to nothing, and thousands may help
        {"optimizer": "adam", "lr": 1e-4, "l2": 0.0, "batch_size": 32, "epochs": 20_000, "patience": 10},
    ),
)

# -- shortest time to 99 % on MNIST ----------------------------------------------------------------------------------

RECIPES.add(
    "fast",
    Recipe(
        "a small net, one epoch: Adam whose rate rises to 0.01 and falls to 0, labels smoothed by 0.05",
        {
            "model": "fast_cnn",
            "channels": (8, 32),
            "dropout": 0.0,
            "epochs": 1,
            "batch_size": 96,
            "optimizer": "adam",
            "beta2": 0.99,  # the second moment must keep up with a rate that changes within 625 steps
            "lr": 0.01,
            "schedule": "one-cycle",
            "label_smoothing": 0.05,
            "l2": 0.0,
        },
    ),
)
RECIPES.add(
    "pytorch-example",
    Recipe(
        "PyTorch's MNIST example: Adadelta at 1, times 0.7 after each epoch",
        {
            "model": "example_cnn",
            "channels": (32, 64),
            "dropout": 0.25,
            "epochs": 14,
            "batch_size": 64,
            "optimizer": "adadelta",
            "schedule": "stairs",
            "l2": 0.0,
        },
    ),
)
