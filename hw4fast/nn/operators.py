"""What the operators of this folder share: their library and the checks on tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

library = torch.library.Library("hw4fast", "DEF")
DTYPES: dict[torch.dtype, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}


def check_devices(kernel: str, *tensors: Tensor | None) -> None:
    """Raises NotImplementedError unless every tensor is on the CPU."""
    given = [tensor for tensor in tensors if tensor is not None]
    if not all(tensor.is_cpu for tensor in given):
        devices = ", ".join(str(tensor.device) for tensor in given)
        raise NotImplementedError(f"{kernel} has a CPU kernel only, but its tensors are on {devices}: move them")


def refuse_second_derivative(function: str, instead: str) -> None:
    """Called in a backward pass: raises RuntimeError when it is itself to be differentiated. The kernels' gradients
    are constants to autograd, so a second derivative through them would be silently wrong."""
    if torch.is_grad_enabled():
        raise RuntimeError(f"{function} has no second derivative: for create_graph=True take {instead}")
