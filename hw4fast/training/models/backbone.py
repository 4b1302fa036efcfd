"""A pretrained net of torchvision's with a new last layer, and the net cut in two before its classifier."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from hw4fast.errors import UserError
from hw4fast.training.models.pretrained import pretrained

TAILS = ("fc", "classifier", "heads", "head")  # how torchvision's nets call what comes after the features


def backbone(name: str, classes: int, weights: str | Path | None = None) -> tuple[nn.Module, str]:
    """The net for `classes` classes, its last layer random, all else trained on ImageNet; and where from.

    Raises what `pretrained` raises.
    """
    model, source = pretrained(name, weights)
    return _with_classes(model, classes), source


def bare(name: str, classes: int) -> nn.Module:
    """The same net with random weights."""
    import torchvision

    return _with_classes(torchvision.models.get_model(name, weights=None), classes)


def _with_classes(model: nn.Module, classes: int) -> nn.Module:
    path, layer = last_layer(model)
    folder, _, name = path.rpartition(".")
    setattr(model.get_submodule(folder), name, _for_classes(layer, classes))
    return model


def last_layer(model: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """(path, layer) that gives the logits: the last linear layer, or SqueezeNet's last convolution."""
    found = [(path, layer) for path, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return found[-1]


def _for_classes(layer: nn.Linear | nn.Conv2d, classes: int) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, classes, bias=layer.bias is not None)
    return nn.Conv2d(layer.in_channels, classes, layer.kernel_size, bias=layer.bias is not None)  # type: ignore[arg-type]


def freeze(model: nn.Module) -> nn.Module:
    """Leaves the last layer alone to be trained, and returns it."""
    _, layer = last_layer(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in layer.parameters():
        parameter.requires_grad_(True)
    return layer


def state_of_the_rest(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and statistics but the last layer's: what must not change while they are frozen."""
    path, _ = last_layer(model)
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith(f"{path}.")}


class Tail(nn.Module):
    """What a net does after its features: its classifier, flattened to logits [n, classes]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        name = next((name for name in TAILS if isinstance(getattr(model, name, None), nn.Module)), None)
        if name is None:
            raise UserError(f"a {type(model).__name__} has no classifier that can be trained by itself; train it all")
        self.classifier = getattr(model, name)

    def forward(self, features: Tensor) -> Tensor:
        return self.classifier(features).flatten(1)


def features(model: nn.Module, tail: Tail, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """What `tail` reads, for each batch of pictures, the net in evaluation mode.

    Raises UserError when the tail alone doesn't give the net's own logits, as in a net that does more after it.
    """
    caught: list[Tensor] = []
    hook = tail.classifier.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    model.eval()
    try:
        with torch.inference_mode():
            for batch in batches:
                caught.clear()
                logits = model(batch)
                found = caught[0]
                if not torch.equal(tail(found), logits):
                    raise UserError(f"a {type(model).__name__} does more after its classifier; train it all")
                yield found
    finally:
        hook.remove()
