"""What the operators of this folder share on a GPU: the module hw4fast._cuda, and calls on the caller's stream."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hw4fast import kernels

CODES = {  # enum class Dtype of csrc/cuda.cuh
    torch.float32: 0,
    torch.float64: 1,
    torch.bfloat16: 2,
    torch.float16: 3,
    torch.uint8: 4,
}


@cache
def module() -> ModuleType:
    """hw4fast._cuda. Raises NotImplementedError, as for a device without a kernel, where it was not built."""
    try:
        return kernels.compiled_cuda()
    except kernels.UserError as error:
        raise NotImplementedError(str(error)) from None


def launch(kernel: Callable[..., Any], where: Tensor, *arguments: Any) -> Any:
    """kernel(*arguments, stream) on the device of `where`, on that device's current stream."""
    return asked(kernel, where, *arguments, torch._C._cuda_getCurrentRawStream(where.device.index))


def asked(function: Callable[..., Any], where: Tensor, *arguments: Any) -> Any:
    """function(*arguments), whose current device is that of `where`."""
    if not where.is_cuda or where.device.index == torch.cuda.current_device():
        return function(*arguments)
    with torch.cuda.device(where.device.index):
        return function(*arguments)


def address(tensor: Tensor | None) -> int:
    """Of its first number; 0 for None and for no numbers."""
    return 0 if tensor is None else tensor.data_ptr()


def scratch(where: Tensor, size: int) -> Tensor:
    """Uninitialised bytes on the device of `where`; torch keeps them until the stream has passed what was launched."""
    return torch.empty(size, dtype=torch.uint8, device=where.device)


def copied(numbers: np.ndarray, where: Tensor) -> Tensor:
    """An array on the device of `where`. Raises RuntimeError within a CUDA graph's capture, whose replays would read
    host memory that is no longer there."""
    if where.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("a transform's numbers come from host memory with each call: it can't be in a CUDA graph")
    return torch.from_numpy(numbers).to(where.device)


_in_graphs: dict[int, Tensor] = {}


def keep_for_graphs(*tables: Tensor) -> None:
    """Keeps them for ever where a CUDA graph is being captured that will know them by address."""
    if tables[0].is_cuda and torch.cuda.is_current_stream_capturing():  # the emulator's lie on the CPU
        _in_graphs.update((table.data_ptr(), table) for table in tables)


def scale(grad: Tensor, factor: Tensor) -> None:
    """grad *= factor, in place; grad: contiguous; factor: one number, or one for each of grad's first indices.

    One number that is 1 costs no more than a look at it."""
    rows = factor.numel() if factor.dim() else 1
    factor = factor.to(grad.dtype).contiguous()
    columns = grad.numel() // rows if rows else 0
    launch(module().scale, grad, CODES[grad.dtype], grad.data_ptr(), factor.data_ptr(), rows, columns, factor.dim() > 0)
