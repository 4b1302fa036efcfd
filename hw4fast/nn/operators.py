"""What the operators of this folder share: their library and the checks on tensors."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from hw4fast.kernels import threads_from_environment

library = torch.library.Library("hw4fast", "DEF")
HALVES = (torch.bfloat16, torch.float16)
DTYPES: dict[torch.dtype, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}


def no_tensors(required: dict[str, Any], **optional: Any) -> TypeError:
    """What to raise when not all of these are tensors; of the optional ones None is welcome."""
    for name, given in (required | optional).items():
        if isinstance(given, Tensor) or (given is None and name in optional):
            continue
        hint = f": take torch.from_numpy({name})" if isinstance(given, np.ndarray) else ""
        return TypeError(f"{name} must be a tensor{' or None' * (name in optional)}, not {type(given).__name__}{hint}")
    raise AssertionError("all are tensors")


def pair(value: Any, name: str) -> tuple[int, int]:
    """(down, across), which one whole number or two say, as in torch: 2, (2,), (2, 1). TypeError for what is no whole
    number, ValueError for three."""
    if type(value) is int:
        return value, value
    if type(value) is tuple and len(value) == 2 and type(value[0]) is int and type(value[1]) is int:
        return value
    given = value if isinstance(value, tuple | list) else (value,)
    try:
        whole = [operator.index(each) for each in given]
    except TypeError:
        raise TypeError(f"{name} must be a whole number or two (down, across), not {value!r}") from None
    if len(whole) not in (1, 2):
        raise ValueError(f"{name} must be a whole number or two (down, across), not {value!r}")
    return whole[0], whole[-1]


def cast_up(*tensors: Tensor | None) -> tuple[Any, ...]:
    """Under torch.autocast of the first one's device float32 of bfloat16 and float16, as torch has it for what it
    computes in float32. Asking costs 0.2 µs: only called when a dtype is not the expected one."""
    if not torch.is_autocast_enabled("cuda" if tensors[0] is not None and tensors[0].is_cuda else "cpu"):
        return tensors
    return tuple(None if tensor is None else tensor.float() if tensor.dtype in HALVES else tensor for tensor in tensors)


def check_tensors(kernel: str, *tensors: Tensor | None, cuda: bool = False) -> None:
    """Raises NotImplementedError for a tensor that is not on the CPU (or on a GPU, if there is a kernel for `cuda`), is
    sparse or carries a forward-mode gradient, ValueError for tensors on more than one device."""
    device = None
    for tensor in tensors:  # loops: a generator takes half a microsecond, and this is on the way of every call
        if tensor is None:
            continue
        if not tensor.is_cpu and not (cuda and tensor.is_cuda):
            known = "CPU and CUDA kernels" if cuda else "a CPU kernel"
            raise NotImplementedError(f"{kernel} has {known} only, not one for {tensor.device}: move its tensors")
        if device is None:
            device = tensor.device
        elif tensor.device != device:
            raise ValueError(f"{kernel}'s tensors must be on one device, not on {device} and {tensor.device}")
        if tensor.layout is not torch.strided:
            raise NotImplementedError(f"{kernel} takes no {tensor.layout} tensors: take tensor.to_dense()")
        if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(
                f"{kernel} has no forward-mode gradient, which would be lost: take torch's function"
            )


def check_pictures(kernel: str, pictures: Any) -> None:
    """Raises TypeError for what is no uint8 tensor, and as `check_tensors` of a kernel for the CPU and GPUs."""
    if not isinstance(pictures, Tensor):
        raise no_tensors({"pictures": pictures})
    check_tensors(kernel, pictures, cuda=True)
    if pictures.dtype is not torch.uint8:
        raise TypeError(f"pictures must be uint8, not {pictures.dtype}")


def refuse_second_derivative(function: str, instead: str) -> None:
    """Called in a backward pass: raises RuntimeError when it is itself to be differentiated. The kernels' gradients
    are constants to autograd, so a second derivative through them would be silently wrong."""
    if torch.is_grad_enabled():
        raise RuntimeError(f"{function} has no second derivative: for create_graph=True take {instead}")


def refuse_gradient(function: str, *tensors: Tensor) -> None:
    """Raises NotImplementedError where autograd would want the gradient of a function that has none."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise NotImplementedError(f"{function} has no gradient, which would be lost: take tensor.detach()")


def is_plain(*tensors: Tensor | None) -> bool:
    """Whether the kernel may be called past torch's dispatcher: ordinary tensors whose memory holds their numbers (and
    not their negatives), and nobody watching (no torch.func transform, forward-mode gradient, dispatch mode,
    torch.compile or jit trace)."""
    if torch.compiler.is_compiling():  # first: it can't trace some of the others
        return False
    for tensor in tensors:
        if tensor is not None and (
            type(tensor) not in (Tensor, nn.Parameter) or tensor.is_neg() or not torch._C._has_storage(tensor)
        ):
            return False
    return (
        torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._len_torch_dispatch_stack() == 0
        and forward_ad._current_level < 0
        and torch._C._get_tracing_state() is None
    )


def threads() -> int:
    """For the kernels: torch's number of threads (0 says so), but no more than HW4FAST_THREADS."""
    return min(_THREADS, torch.get_num_threads()) if _THREADS else 0


_THREADS = threads_from_environment()
