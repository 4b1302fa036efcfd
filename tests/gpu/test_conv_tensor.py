"""Convolutions on tensor cores on a GPU: what the emulator showed of mma.sync, and wgmma, which only Hopper has."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from hw4fast.nn import cuda
from tests import conv_tensor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
BEST, MMA, WGMMA = 0, 1, 2
ROLES = [(64, 192), (64, 384), (128, 192)]  # columns and rows of csrc/conv_block_tensor_roles.cuh
BIG = [
    conv_tensor.SPREAD,
    conv_tensor.Case((8, 64, 56, 56), 64, (3, 3), padding=(1, 1)),
    conv_tensor.Case((16, 128, 28, 28), 128, (3, 3), padding=(1, 1), relu=False),
    conv_tensor.Case((3, 64, 57, 55), 96, (3, 3), padding=(1, 1), pool=True),
    conv_tensor.Case((100, 16, 14, 14), 32, (5, 5), padding=(2, 2), pool=True),
    conv_tensor.Case((5, 256, 14, 14), 512, (3, 3), stride=(2, 2), padding=(1, 1)),
    conv_tensor.Case((9, 512, 7, 7), 512, (3, 3), padding=(1, 1)),
    conv_tensor.Case((2, 64, 200, 211), 256, (1, 1)),
    conv_tensor.Case((2, 128, 33, 300), 80, (7, 7), padding=(3, 3)),
]


@pytest.fixture(scope="module")
def module() -> ModuleType:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("tensor cores for bfloat16 and tf32 begin with compute capability 8.0")
    return cuda.module()


def _can(case: conv_tensor.Case, dtype: torch.dtype, way: int) -> bool:
    chunks = case.shape[1] * dtype.itemsize // 16
    wide = -(-chunks // 8) * 8 * 3 <= -(-chunks // 2) * 2 * 4  # tensor_chunks in csrc/conv_block_tensor.cu
    return way != WGMMA or (torch.cuda.get_device_capability() == (9, 0) and case.o > 32 and wide)


@pytest.mark.parametrize("way", [MMA, WGMMA])
@pytest.mark.parametrize("dtype", conv_tensor.CODES, ids=str)
@pytest.mark.parametrize("case", conv_tensor.SMALL + BIG, ids=str)
def test_forward(module: ModuleType, case: conv_tensor.Case, dtype: torch.dtype, way: int) -> None:
    if not _can(case, dtype, way):
        pytest.skip("wgmma needs compute capability 9.0 and channels enough")
    conv_tensor.check_forward(module, case, dtype, "cuda", hash(case) & 0xFFFF, (way, 0, 0, 0, 0))


@pytest.mark.parametrize("way", [MMA, WGMMA])
@pytest.mark.parametrize("columns, rows", [(64, 256), (64, 128), (128, 128), (128, 256), *ROLES])
@pytest.mark.parametrize("strips", [1, 2])
@pytest.mark.parametrize("case", BIG[1:4], ids=str)
def test_tiles(module: ModuleType, case: conv_tensor.Case, strips: int, columns: int, rows: int, way: int) -> None:
    if not _can(case, torch.bfloat16, way) or (way == MMA and (columns, rows) in ROLES):
        pytest.skip("wgmma needs compute capability 9.0, and such tiles need wgmma")
    try:
        conv_tensor.check_forward(module, case, torch.bfloat16, "cuda", 3, (way, columns, rows, strips, 0))
    except ValueError as error:
        assert "too small for a tile" in str(error)
        pytest.skip("the tile doesn't fit in this GPU's shared memory")


@pytest.mark.parametrize("case, choice", conv_tensor.CHOICES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_choices(module: ModuleType, dtype: torch.dtype, case: conv_tensor.Case, choice: tuple[int, ...]) -> None:
    conv_tensor.check_forward(module, case, dtype, "cuda", 4, (MMA, *choice))


@pytest.mark.parametrize("dtype", conv_tensor.CODES, ids=str)
@pytest.mark.parametrize("case, choice", conv_tensor.ROLES, ids=str)
def test_roles(module: ModuleType, case: conv_tensor.Case, choice: tuple[int, ...], dtype: torch.dtype) -> None:
    if not _can(case, dtype, WGMMA):
        pytest.skip("wgmma needs compute capability 9.0")
    conv_tensor.check_forward(module, case, dtype, "cuda", 4, (WGMMA, *choice))


@pytest.mark.parametrize("way", [MMA, WGMMA])
@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("rows", [128, 192, 256])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_codes(module: ModuleType, dtype: torch.dtype, rows: int, relu: bool, pool: bool, way: int) -> None:
    if (way == WGMMA and torch.cuda.get_device_capability() != (9, 0)) or (way == MMA and rows == 192):
        pytest.skip("wgmma needs compute capability 9.0, and such tiles need wgmma")
    conv_tensor.check_codes(module, "cuda", relu, pool, (way, 64, rows, 0, 0), dtype)


@pytest.mark.parametrize("dtype", conv_tensor.CODES, ids=str)
@pytest.mark.parametrize("case", conv_tensor.SMALL + BIG, ids=str)
def test_backward(module: ModuleType, case: conv_tensor.Case, dtype: torch.dtype) -> None:
    seed = hash(case) & 0xFFFF
    conv_tensor.check_backward(module, case, dtype, "cuda", seed, plain=seed % 2 == 0)


def test_the_same_every_time_and_in_a_graph(module: ModuleType) -> None:
    case = BIG[1]
    x, weight, bias = conv_tensor.tensors(case, torch.bfloat16, "cuda", 5)
    assert bias is not None
    output = torch.empty(8, 56, 56, 64, dtype=torch.bfloat16, device="cuda")

    def run() -> None:
        module.conv_tensor(
            2, conv_tensor.numbers(case, 56, 56), True, False, x.data_ptr(), weight.data_ptr(), bias.data_ptr(),
            output.data_ptr(), 0, (BEST, 0, 0, 0, 0), torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip

    run()
    first = output.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    for _ in range(3):
        output.fill_(float("nan"))
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(output, first)
    stream = torch.cuda.Stream()
    output.fill_(float("nan"))
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        run()
    stream.synchronize()
    assert torch.equal(output, first)


@pytest.mark.parametrize("dtype", conv_tensor.CODES, ids=str)
def test_pack(module: ModuleType, dtype: torch.dtype) -> None:
    conv_tensor.check_pack(module, dtype, "cuda")
