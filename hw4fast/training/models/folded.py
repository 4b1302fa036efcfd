"""Weights whose batch normalisation was folded into the convolutions, as it is in a net that came by way of ONNX or a
quantised one: such a net answers as before, but can't be trained further, for in training its layers normalise by the
batch, which they have not done since. Its statistics are taken anew."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def _layers(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None and m.affine]


def is_folded(model: nn.Module) -> bool:
    """Whether it has batch normalisation, all of it with mean 0 and variance 1, and not all with shift 0 as in a net
    that was never trained."""
    layers = _layers(model)
    means = (layer.running_mean for layer in layers)
    variances = (layer.running_var for layer in layers)
    return (
        any(layer.bias.any() for layer in layers)
        and all(mean is not None and not mean.any() for mean in means)
        and all(variance is not None and bool((variance == 1).all()) for variance in variances)
    )


def unfold(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Gives each layer of batch normalisation the mean μ and the variance σ² (over all pictures and places, biased) of
    what it reads, and γ, β that undo it: γ·√((σ² + ε)/(v + ε)) and β + γ·(μ − m)/√(v + ε) where it had mean m and
    variance v. In evaluation the net computes what it did, within rounding; in training, about that.

    batches: inputs [n, …] of the net, which is run in evaluation mode and left in it. After Wu, Johnson, "Rethinking
    'Batch' in BatchNorm" (2021), section 3, whose statistics these are.
    """
    layers = _layers(model)
    sums = {layer: torch.zeros(3, layer.num_features, dtype=torch.float64) for layer in layers}  # n, Σx, Σx²

    def add(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x, total = inputs[0].float(), sums[layer]  # type: ignore[index]
        n, axes = x.numel() / x.shape[1], [axis for axis in range(x.dim()) if axis != 1]
        variance, mean = (part.double().cpu() for part in torch.var_mean(x, axes, correction=0))
        total += torch.stack([torch.full_like(mean, n), n * mean, n * (variance + mean**2)])

    hooks = [layer.register_forward_pre_hook(add) for layer in layers]
    model.eval()
    try:
        with torch.inference_mode():
            for batch in batches:
                model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    with torch.no_grad():
        for layer, (n, total, squares) in sums.items():
            if not n.any():
                continue  # the net doesn't come by it
            assert layer.running_mean is not None and layer.running_var is not None
            had = (layer.running_mean, layer.running_var, layer.weight, layer.bias)
            m, v, gamma, beta = (tensor.double().cpu() for tensor in had)
            mean = total / n
            variance = (squares / n - mean**2).clamp_(min=0)
            slope = gamma / (v + layer.eps).sqrt()
            for tensor, value in zip(
                had, (mean, variance, slope * (variance + layer.eps).sqrt(), beta + slope * (mean - m)), strict=True
            ):
                tensor.copy_(value)
