"""The tests of convolutions on tensor cores (csrc/conv_block_tensor*.cu), the emulator's and the GPU's: fresh numbers
against float64 of the same rounded numbers, outputs poisoned before."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hw4fast.kernels import conv_block as card

CODES = {torch.float32: 0, torch.bfloat16: 2, torch.float16: 3}
# Relative Frobenius errors: of an output rounded to its dtype, or of one factor of the products rounded to tf32. Were
# that one's last bits cut off instead, it would be more.
BOUNDS = {torch.float32: 2.5e-4, torch.bfloat16: 5e-3, torch.float16: 1e-3}


class Case(NamedTuple):
    shape: tuple[int, int, int, int]  # n, c, h, w
    o: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    relu: bool = True
    pool: bool = False
    bias: bool = True


SMALL = [
    Case((2, 16, 6, 5), 32, (3, 3), padding=(1, 1)),
    Case((3, 16, 7, 9), 20, (5, 5), padding=(2, 2), pool=True),  # odd sides, and channels that are no whole chunk
    Case((1, 64, 9, 8), 64, (3, 3), padding=(1, 1), relu=False),
    Case((2, 64, 5, 7), 72, (3, 3), padding=(1, 1), pool=True),
    Case((5, 72, 7, 7), 40, (1, 1), bias=False),
    Case((2, 8, 11, 13), 7, (7, 7), stride=(2, 2), padding=(3, 3)),
    Case((1, 128, 8, 8), 136, (2, 3), stride=(1, 2), padding=(0, 1), pool=True, relu=False),
    Case((2, 24, 9, 30), 64, (4, 1), stride=(2, 1), padding=(5, 0)),
    Case((40, 16, 3, 3), 33, (3, 3), padding=(1, 1), bias=False),  # tiles over many images
    Case((2, 16, 9, 8), 40, (7, 7), padding=(3, 3)),  # the most taps of a warp
    Case((1, 32, 8, 9), 12, (7, 7), padding=(3, 3), pool=True),
]
# Pictures of whole chunks don't fit in a smaller GPU's shared memory.
SPREAD = Case((4, 64, 20, 20), 32, (7, 7), stride=(2, 2), padding=(3, 3))
# Of the tiles' ways those that small shapes don't take by themselves: many tiles per block, the weight in slots.
# columns, rows, strips and shared memory of TensorChoice in csrc/conv_block_tensor.cuh
CHOICES = [
    (Case((15, 16, 9, 11), 32, (3, 3), padding=(1, 1)), (32, 256, 1, 0)),
    (Case((15, 64, 9, 11), 16, (3, 3), padding=(1, 1)), (16, 256, 2, 48 << 10)),
    (Case((15, 16, 9, 11), 13, (3, 3), padding=(1, 1), pool=True), (16, 256, 1, 0)),
    (Case((15, 16, 9, 11), 64, (3, 3), padding=(1, 1)), (64, 256, 2, 48 << 10)),
    (Case((9, 256, 9, 11), 64, (1, 1)), (64, 256, 2, 94 << 10)),
    (Case((13, 128, 8, 13), 64, (3, 3), padding=(1, 1)), (64, 256, 2, 0)),
    (Case((14, 128, 8, 13), 64, (3, 3), padding=(1, 1), pool=True), (64, 256, 2, 0)),
    (Case((5, 136, 8, 13), 136, (1, 1)), (128, 128, 1, 0)),
    (Case((4, 64, 11, 9), 64, (3, 3), padding=(1, 1), pool=True), (64, 128, 1, 0)),
    (Case((4, 64, 11, 9), 136, (3, 3), padding=(1, 1), pool=True), (128, 128, 1, 0)),
    (Case((7, 64, 9, 12), 128, (1, 2), padding=(1, 1)), (128, 256, 2, 0)),
    (Case((7, 64, 9, 12), 128, (2, 2), padding=(1, 1), pool=True), (128, 256, 1, 0)),
]
# Those of csrc/conv_block_tensor_roles.cuh, of wgmma only: the weight in slots and all of it, several tiles per block.
ROLES = [
    (Case((9, 64, 9, 11), 64, (3, 3), padding=(1, 1)), (64, 192, 1, 0)),
    (Case((9, 64, 9, 11), 64, (3, 3), padding=(1, 1), pool=True), (64, 192, 1, 0)),
    (Case((14, 128, 8, 13), 128, (3, 3), padding=(1, 1), relu=False), (128, 192, 1, 0)),
    (Case((14, 128, 8, 13), 128, (3, 3), padding=(1, 1), pool=True), (128, 192, 2, 0)),
    (Case((13, 136, 8, 13), 136, (2, 3), padding=(1, 1)), (128, 192, 1, 0)),
    (Case((25, 64, 9, 12), 128, (2, 2), padding=(1, 1), pool=True, bias=False), (128, 192, 1, 145 << 10)),
    (Case((1, 64, 19, 19), 72, (3, 3), stride=(2, 2), padding=(1, 1)), (64, 192, 1, 0)),
    (Case((30, 64, 9, 4), 40, (3, 3), padding=(1, 1)), (64, 192, 1, 0)),  # lines shorter than a pass of the producers
    (Case((6, 64, 23, 32), 64, (2, 3), padding=(1, 1)), (64, 384, 1, 0)),
    (Case((6, 64, 23, 32), 64, (2, 3), padding=(1, 1), pool=True), (64, 384, 2, 0)),
]


def rounded(x: Tensor) -> Tensor:
    """Of float32 tf32's numbers nearest to these, the larger of two."""
    return x if x.dtype != torch.float32 else ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def tensors(case: Case, dtype: torch.dtype, device: str, seed: int) -> tuple[Tensor, Tensor, Tensor | None]:
    random = torch.Generator().manual_seed(seed)
    n, c, h, w = case.shape
    x = torch.randn(n, h, w, c, generator=random).to(dtype).to(device).permute(0, 3, 1, 2)
    weight = torch.randn(case.o, *case.kernel, c, generator=random) / (c * case.kernel[0] * case.kernel[1]) ** 0.5
    bias = torch.randn(case.o, generator=random).to(dtype).to(device) if case.bias else None
    return x, rounded(weight.to(dtype)).to(device).permute(0, 3, 1, 2), bias


def sides(case: Case) -> tuple[int, int]:
    """Of the convolution."""
    down, across = (
        (side + 2 * p - k) // s + 1
        for side, p, k, s in zip(case.shape[2:], case.padding, case.kernel, case.stride, strict=True)
    )
    return down, across


def reference(case: Case, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Before ReLU and pool [n, o, oh, ow], and the output, in float64."""
    x, weight = x.double().cpu(), weight.double().cpu()
    y = functional.conv2d(x, weight, None if bias is None else bias.double().cpu(), case.stride, case.padding)
    output = y.clamp(min=0) if case.relu else y
    return y, functional.max_pool2d(output, 2) if case.pool else output


def poisoned(*shape: int, dtype: torch.dtype, device: str) -> Tensor:
    return torch.full(shape, 77 if dtype == torch.uint8 else float("nan"), dtype=dtype, device=device)


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double().cpu() - wanted).norm() / wanted.norm().clamp(min=1e-30))


def numbers(case: Case, rows: int, cols: int) -> tuple[int, ...]:
    n, c, h, w = case.shape
    return (n, h, w, c, case.o, *case.kernel, *case.stride, *case.padding, rows, cols)


def check_forward(
    module: ModuleType,
    case: Case,
    dtype: torch.dtype,
    device: str,
    seed: int,
    choice: tuple[int, ...] = (0, 0, 0, 0, 0),
) -> None:
    x, weight, bias = tensors(case, dtype, device, seed)
    y, wanted = reference(case, x, weight, bias)
    n, o, rows, cols = wanted.shape
    output = poisoned(n, rows, cols, o, dtype=dtype, device=device)
    code = poisoned(n, rows, cols, o, dtype=torch.uint8, device=device)
    stream = torch.cuda.current_stream().cuda_stream if device == "cuda" else 0
    arguments = (x.data_ptr(), weight.data_ptr(), 0 if bias is None else bias.data_ptr())
    module.conv_tensor(
        CODES[dtype], numbers(case, rows, cols), case.relu, case.pool, *arguments, output.data_ptr(), code.data_ptr(),
        choice, stream,
    )  # fmt: skip
    output, code = output.permute(0, 3, 1, 2), code.permute(0, 3, 1, 2).cpu()
    assert error(output, wanted) < BOUNDS[dtype]
    # A code says where a value is taken: that one must be the output, within what rounding can do.
    assert code.max() <= 4
    tolerance = 0.02 * float(y.abs().max())
    if case.pool:
        windows = y[:, :, : 2 * rows, : 2 * cols].unflatten(3, (cols, 2)).unflatten(2, (rows, 2)).transpose(3, 4)
        four = windows.flatten(4)  # 2·down + across
        taken = four.gather(4, code.clamp(max=3).long()[..., None])[..., 0]
        best = four.amax(4)
    else:
        assert not case.relu or set(code.unique().tolist()) <= {0, 4}
        taken = best = y
    dead = code == 4
    assert torch.where(dead, 0, (taken - best).abs()).max() < tolerance
    if case.relu:
        assert (best[dead] < tolerance).all()
        assert (best[~dead] > -tolerance).all()
        assert (output.cpu()[dead] == 0).all()
    else:
        assert not dead.any()


def check_codes(
    module: ModuleType,
    device: str,
    relu: bool,
    pool: bool,
    choice: tuple[int, ...],
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Small whole numbers are exact, so outputs and codes must be: many ties, zeros, and a NaN here and there."""
    case = Case((3, 64, 11, 13), 64, (3, 3), padding=(1, 1), relu=relu, pool=pool)
    random = torch.Generator().manual_seed(7)
    x = torch.randint(-1, 2, (3, 11, 13, 64), generator=random) * (torch.rand(3, 11, 13, 64, generator=random) < 0.1)
    weight = torch.randint(-1, 2, (64, 3, 3, 64), generator=random)
    bias = torch.randint(-1, 2, (64,), generator=random)
    x, weight, bias = (tensor.to(dtype).to(device) for tensor in (x, weight, bias))
    x[0, 5, 5, 3] = x[2, 0, 12, 63] = float("nan")
    x, weight = x.permute(0, 3, 1, 2), weight.permute(0, 3, 1, 2)
    arrays = [tensor.double().cpu().numpy() for tensor in (x, weight, bias)]
    wanted, wanted_code = card.reference(*arrays, padding=case.padding, relu=relu, pool=pool)
    n, o, rows, cols = wanted.shape
    output = poisoned(n, rows, cols, o, dtype=dtype, device=device)
    code = poisoned(n, rows, cols, o, dtype=torch.uint8, device=device)
    stream = torch.cuda.current_stream().cuda_stream if device == "cuda" else 0
    addresses = [tensor.data_ptr() for tensor in (x, weight, bias, output, code)]
    module.conv_tensor(CODES[dtype], numbers(case, rows, cols), relu, pool, *addresses, choice, stream)
    found = output.permute(0, 3, 1, 2).double().cpu()
    torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(code.cpu(), torch.from_numpy(wanted_code))


def check_backward(module: ModuleType, case: Case, dtype: torch.dtype, device: str, seed: int, plain: bool) -> None:
    """plain: weight and gradient as torch has them by default, not channels-last."""
    x, weight, _ = tensors(case, dtype, device, seed)
    if plain:
        weight = weight.contiguous()
    n, c, h, w = case.shape
    leaves = [tensor.detach().double().cpu().requires_grad_() for tensor in (x, weight)]
    b = torch.zeros(case.o, dtype=torch.float64, requires_grad=True)
    y = functional.conv2d(*leaves, b, case.stride, case.padding)
    rows, cols = (side // 2 if case.pool else side for side in y.shape[2:])
    random = torch.Generator().manual_seed(seed + 1)
    grad = torch.randn(n, rows, cols, case.o, generator=random).to(dtype).to(device).permute(0, 3, 1, 2)
    if plain:
        grad = grad.contiguous()
    code = torch.randint(0, 5, (n, rows, cols, case.o), generator=random, dtype=torch.uint8)
    if not case.pool:
        code = code // 4 * 4
    if not case.relu:
        code = code % 4
    whole = torch.zeros_like(y)
    wanted_code = code.permute(0, 3, 1, 2)
    for k in range(4 if case.pool else 1):
        step = 2 if case.pool else 1
        place = whole[:, :, k // 2 : step * rows : step, k % 2 : step * cols : step]
        place.copy_(torch.where(wanted_code == k, grad.double().cpu(), 0))
    y.backward(whole)
    code = code.to(device)
    grad_x = poisoned(n, h, w, c, dtype=dtype, device=device)
    grad_weight = torch.full_like(weight, float("nan"))
    grad_bias = poisoned(case.o, dtype=dtype, device=device)
    arguments = (CODES[dtype], numbers(case, rows, cols), case.relu, case.pool)
    scratch = poisoned(module.conv_tensor_backward_scratch(*arguments), dtype=torch.uint8, device=device)
    scratch.fill_(255)  # NaN
    stream = torch.cuda.current_stream().cuda_stream if device == "cuda" else 0
    inputs = (x, weight, grad, code if case.relu or case.pool else None)
    strides = [weight.stride(), grad.stride()]
    outputs = [(tensor.data_ptr()) for tensor in (grad_x, grad_weight, grad_bias)]
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in inputs]
    module.conv_tensor_backward(*arguments, addresses, *strides, outputs, scratch.data_ptr(), stream)
    bound = BOUNDS[dtype] * (1.4 if dtype == torch.float32 else 1)  # both factors are rounded
    assert error(grad_x.permute(0, 3, 1, 2), leaves[0].grad) < bound
    assert error(grad_weight, leaves[1].grad) < bound
    assert error(grad_bias, b.grad) < bound
    again = torch.full_like(weight, float("nan"))
    outputs[1] = again.data_ptr()
    module.conv_tensor_backward(*arguments, addresses, *strides, outputs, scratch.data_ptr(), stream)
    assert torch.equal(again, grad_weight)


def check_pack(module: ModuleType, dtype: torch.dtype, device: str) -> None:
    weight = torch.randn(7, 11, 3, 2, generator=torch.Generator().manual_seed(1)).to(dtype).to(device)
    packed = poisoned(7, 3, 2, 11, dtype=dtype, device=device)
    stream = torch.cuda.current_stream().cuda_stream if device == "cuda" else 0
    module.conv_tensor_pack(CODES[dtype], weight.data_ptr(), weight.stride(), weight.shape, packed.data_ptr(), stream)
    assert torch.equal(packed, rounded(weight).permute(0, 2, 3, 1))
