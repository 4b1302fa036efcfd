"""gaussian_blur as a torch operator, a function and a module: schema, CPU kernel, fake kernel and autograd together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from hw4fast.kernels import compiled
from hw4fast.kernels import gaussian_blur as card
from hw4fast.nn import cuda
from hw4fast.nn.operators import check_tensors, is_plain, library, no_tensors, threads

_C = compiled()
DTYPES = (torch.uint8, torch.float32)
Sizes = int | Sequence[int]
Sigmas = float | Sequence[float] | None

library.define("gaussian_blur(Tensor image, SymInt[2] kernel_size, float[2] sigma) -> Tensor")
_gaussian_blur = torch.ops.hw4fast.gaussian_blur.default


def _check(image: Tensor) -> None:
    if not isinstance(image, Tensor):
        raise no_tensors({"image": image})
    if image.dim() < 2:
        raise ValueError(f"image must be [..., c, h, w] or [h, w], not {list(image.shape)}")
    if image.dtype not in DTYPES:
        raise TypeError(f"image must be uint8 or float32, not {image.dtype}")


def _is_channels_last(image: Tensor) -> bool:
    """Whether its pixels are neighbours in memory, channels and all."""
    return image.dim() > 2 and image.shape[-3] > 1 and image.stride(-3) == 1 and image.stride(-1) == image.shape[-3]


def _output(image: Tensor) -> Tensor:
    """Uninitialised, dense, channels-last if the image is."""
    if not _is_channels_last(image):
        return image.new_empty(image.shape)
    *n, c, h, w = image.shape
    strides = [c * h * w * math.prod(n[i + 1 :]) for i in range(len(n))]
    return image.new_empty_strided(image.shape, (*strides, 1, w * c, c))


def _gaussian_blur_op(image: Tensor, kernel_size: list[int], sigma: list[float]) -> Tensor:
    _check(image)
    pairs = card.pairs(tuple(kernel_size), tuple(sigma))
    return _gaussian_blur_cuda(image, *pairs) if image.is_cuda else _gaussian_blur_cpu(image, *pairs)


@lru_cache(256)
def _weights_on(device: torch.device, size: int, sigma: float) -> Tensor:
    """[size], float32. Kept: a later call, and a CUDA graph captured after one, copies nothing from the host."""
    return torch.from_numpy(card.gaussian_weights(size, sigma)).to(device, torch.float32)


def _gaussian_blur_cuda(image: Tensor, sizes: tuple[int, int], sigmas: tuple[float, float]) -> Tensor:
    output = _output(image)
    if image.numel() == 0:
        return output
    c, h, w = (1,) * (3 - image.dim()) + image.shape[-3:]
    if image.dim() > 4:  # `reshape` may copy: a copy keeps its pixels' order
        last = _is_channels_last(image)
        image = image.movedim(-3, -1).reshape(-1, h, w, c).movedim(-1, 1) if last else image.reshape(-1, c, h, w)
    lacking = 4 - image.dim()
    shape, strides = (1,) * lacking + image.shape, (0,) * lacking + image.stride()
    over = (c * h * w, *(0,) * (3 - output.dim()), *output.stride()[-3:])
    across, down = (_weights_on(image.device, *of) for of in zip(sizes, sigmas, strict=True))
    cuda.keep_for_graphs(across, down)
    is_float, _cuda = image.dtype is torch.float32, cuda.module()
    middle = None
    if not _cuda.gaussian_blur_fits(is_float, shape, sizes[::-1]):
        middle = torch.empty(image.numel(), dtype=torch.float32, device=image.device)
    cuda.launch(
        _cuda.gaussian_blur,
        image,
        is_float,
        image.data_ptr(),
        strides,
        output.data_ptr(),
        over,
        shape,
        sizes[::-1],
        (down.data_ptr(), across.data_ptr()),
        cuda.address(middle),
    )
    return output


def _gaussian_blur_cpu(image: Tensor, sizes: tuple[int, int], sigmas: tuple[float, float]) -> Tensor:
    output = _output(image)
    if image.numel() == 0:
        return output
    last = _is_channels_last(image)
    c, h, w = image.shape[-3:] if image.dim() > 2 else (1, *image.shape)
    if not last and w > 1 and image.stride(-1) != 1:
        image = image.contiguous()
    if image.dim() > 4:  # `reshape` may copy: a copy keeps its pixels' order
        image = image.movedim(-3, -1).reshape(-1, h, w, c).movedim(-1, 1) if last else image.reshape(-1, c, h, w)
    n = image.shape[0] if image.dim() == 4 else 1
    over_n, over_c, over_h, _ = (0,) * (4 - image.dim()) + image.stride()
    is_float = image.dtype is torch.float32
    arguments, _weights = card.prepared(sizes, sigmas, is_float)
    _C.gaussian_blur(
        is_float,
        image.data_ptr(),
        (over_n, 0, over_h) if last else (over_n, over_c, over_h),
        output.data_ptr(),
        (n, 1, h, w, c) if last else (n, c, h, w, 1),
        *arguments,
        "",
        threads(),
    )
    return output


def _gaussian_blur_fake(image: Tensor, kernel_size: list[int], sigma: list[float]) -> Tensor:
    return _output(image)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.kernel_size, ctx.sigma = inputs


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The adjoint. A picture mirrored about its end pixels is periodic; one period holds every pixel twice, but an end
    once. Over the period the blur is symmetric; over the picture it is so once each end counts half."""
    scale = _ends(grad, -2)[:, None] * _ends(grad, -1)
    return _gaussian_blur(grad * scale, ctx.kernel_size, ctx.sigma) / scale, None, None


def _ends(grad: Tensor, side: int) -> Tensor:
    """[length of the side], of grad's dtype: 2 at both ends, else 1."""
    place = torch.arange(grad.shape[side], device=grad.device)
    return grad.new_ones(grad.shape[side]) + ((place == 0) | (place == grad.shape[side] - 1))


for _device in ("CPU", "CUDA"):
    library.impl("gaussian_blur", _gaussian_blur_op, _device)
torch.library.register_fake("hw4fast::gaussian_blur", _gaussian_blur_fake, lib=library)
torch.library.register_autograd("hw4fast::gaussian_blur", _backward, setup_context=_keep, lib=library)


def gaussian_blur(img: Tensor, kernel_size: Sizes, sigma: Sigmas = None) -> Tensor:
    """torchvision.transforms.functional.gaussian_blur in two passes; pictures may be smaller than the kernel.

    img: [..., c, h, w] or [h, w], uint8 or float32; channels-last memory is read where it lies and so is
    the result. kernel_size: odd pixels, 1 … 999, one or [across, down]; sigma: pixels, likewise, 0.15·size + 0.35 if
    None. float32 is differentiable, any number of times.
    Raises ValueError for a wrong shape or value, TypeError for a wrong dtype, NotImplementedError for a device other
    than the CPU and NVIDIA's GPUs, where sums are in float32: within a grey level of the CPU's.
    See hw4fast.kernels.gaussian_blur for the formula and the float64 reference.
    """
    _check(img)
    sizes, sigmas = card.pairs(kernel_size, sigma)
    if img.is_cpu and is_plain(img) and not (img.requires_grad and torch.is_grad_enabled()):
        return _gaussian_blur_cpu(img, sizes, sigmas)  # past the dispatcher
    check_tensors("gaussian_blur", img, cuda=True)
    return _gaussian_blur(img, sizes, sigmas)


class GaussianBlur(nn.Module):
    """`gaussian_blur` with its kernel kept."""

    def __init__(self, kernel_size: Sizes, sigma: Sigmas = None) -> None:
        super().__init__()
        self.kernel_size, self.sigma = card.pairs(kernel_size, sigma)

    def forward(self, img: Tensor) -> Tensor:
        return gaussian_blur(img, self.kernel_size, self.sigma)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, sigma={self.sigma}"
