"""seed_cnn: the homework's net."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from hw4fast.nn import BatchNormBlock, ConvBlock
from hw4fast.training.models.registry import MODELS


@MODELS.register("seed_cnn")
def seed_cnn(
    input_shape: tuple[int, int, int],
    classes: int,
    channels: tuple[int, int] = (16, 32),
    hidden: tuple[int, int] = (128, 64),
    dropout: float = 0.4,
    batch_norm: bool = False,
    kernels: str = "hw4fast",
) -> nn.Module:
    """Two blocks of 5×5 convolution, ReLU and 2×2 max-pool, then three linear layers, dropout between the first two.

    input_shape: (channels, height, width), height and width at least 4; returns logits, not probabilities.
    kernels: "hw4fast" for blocks on our kernel, "torch" for torch's modules alone; both start from the same weights
    at the same seed, and a state dict of one loads into the other.
    """
    depth, height, width = input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, wide in enumerate(channels, 1):
        if kernels == "hw4fast":
            rest = not batch_norm  # ReLU and pool belong to the last block
            layers[f"conv{i}"] = ConvBlock(depth, wide, 5, padding=2, bias=not batch_norm, relu=rest, pool=rest)
            if batch_norm:
                layers[f"norm{i}"] = BatchNormBlock(wide)
        else:
            layers[f"conv{i}"] = nn.Conv2d(depth, wide, 5, padding=2, bias=not batch_norm)
            if batch_norm:
                layers[f"norm{i}"] = nn.BatchNorm2d(wide)
            layers[f"relu{i}"], layers[f"pool{i}"] = nn.ReLU(), nn.MaxPool2d(2)
        depth, height, width = wide, height // 2, width // 2
    layers["flatten"] = nn.Flatten()
    layers["linear1"] = nn.Linear(depth * height * width, hidden[0])
    layers["relu3"], layers["dropout"] = nn.ReLU(), nn.Dropout(dropout)
    layers["linear2"], layers["relu4"] = nn.Linear(hidden[0], hidden[1]), nn.ReLU()
    layers["linear3"] = nn.Linear(hidden[1], classes)
    return nn.Sequential(layers)
