"""seed_cnn: the homework's net."""

from __future__ import annotations

from torch import nn

from hw4fast.training.models.registry import MODELS


@MODELS.register("seed_cnn")
def seed_cnn(
    input_shape: tuple[int, int, int],
    classes: int,
    channels: tuple[int, int] = (16, 32),
    hidden: tuple[int, int] = (128, 64),
    dropout: float = 0.4,
    batch_norm: bool = False,
) -> nn.Module:
    """Two blocks of 5×5 convolution, ReLU and 2×2 max-pool, then three linear layers, dropout between the first two.

    input_shape: (channels, height, width), height and width at least 4; returns logits, not probabilities.
    """
    depth, height, width = input_shape
    layers: list[nn.Module] = []
    for wide in channels:
        layers += [nn.Conv2d(depth, wide, kernel_size=5, padding=2, bias=not batch_norm)]
        layers += [nn.BatchNorm2d(wide)] if batch_norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        depth, height, width = wide, height // 2, width // 2
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(depth * height * width, hidden[0]),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden[0], hidden[1]),
        nn.ReLU(),
        nn.Linear(hidden[1], classes),
    )
