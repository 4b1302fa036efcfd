"""Two small nets to compare seed_cnn with: one made to be trained in seconds, and the PyTorch example's."""

from __future__ import annotations

from torch import nn

from hw4fast.nn import ConvBlock
from hw4fast.training.models.registry import MODELS


@MODELS.register("fast_cnn")
def fast_cnn(
    input_shape: tuple[int, int, int],
    classes: int,
    channels: tuple[int, int] = (8, 32),
    dropout: float = 0.0,
    batch_norm: bool = False,
    kernels: str = "hw4fast",
) -> nn.Module:
    """Two blocks of 5×5 convolution, ReLU and 2×2 max-pool, then one linear layer. Arguments as of seed_cnn."""
    depth, height, width = input_shape
    layers: list[nn.Module] = []
    for wide in channels:
        layers += _block(depth, wide, 5, 2, True, kernels)
        if batch_norm:
            layers.append(nn.BatchNorm2d(wide))
        depth, height, width = wide, height // 2, width // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(depth * height * width, classes))


@MODELS.register("example_cnn")
def example_cnn(
    input_shape: tuple[int, int, int],
    classes: int,
    channels: tuple[int, int] = (32, 64),
    dropout: float = 0.25,
    batch_norm: bool = False,
    kernels: str = "hw4fast",
) -> nn.Module:
    """The net of PyTorch's MNIST example: two 3×3 convolutions without border, max-pool, two linear layers, dropout
    before each (twice as much before the second).

    Source: github.com/pytorch/examples, mnist/main.py. batch_norm: after each convolution's ReLU.
    """
    depth, height, width = input_shape
    layers: list[nn.Module] = []
    for number, wide in enumerate(channels):
        layers += _block(depth, wide, 3, 0, number == 1, kernels)
        if batch_norm:
            layers.append(nn.BatchNorm2d(wide))
        depth = wide
    flat = depth * ((height - 4) // 2) * ((width - 4) // 2)
    head = [nn.Dropout(dropout), nn.Flatten(), nn.Linear(flat, 128), nn.ReLU()]
    return nn.Sequential(*layers, *head, nn.Dropout(min(0.9, 2 * dropout)), nn.Linear(128, classes))


def _block(depth: int, wide: int, size: int, padding: int, pool: bool, kernels: str) -> list[nn.Module]:
    """Convolution, ReLU, and max-pool if wanted. The same layers follow each other on both kernels, so that a state
    dict of one fits the other: Identity stands where torch has modules without parameters."""
    if kernels == "hw4fast":
        return [ConvBlock(depth, wide, size, padding=padding, pool=pool), nn.Identity(), nn.Identity()]
    rest = nn.MaxPool2d(2) if pool else nn.Identity()
    return [nn.Conv2d(depth, wide, size, padding=padding), nn.ReLU(), rest]
