"""The table of nets: name → function that builds one for an input shape and a number of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from hw4fast.registry import Registry

MODELS: Registry[Callable[..., nn.Module]] = Registry("model")


def build(name: str, input_shape: tuple[int, int, int], classes: int, options: dict[str, Any]) -> nn.Module:
    """A freshly initialised net for float32 [n, *input_shape] → logits [n, classes]."""
    return MODELS.get(name)(input_shape, classes, **options)
