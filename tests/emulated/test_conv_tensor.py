"""Convolutions on tensor cores, emulated: the tiles' edges, the swizzles, the pipeline."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from tests import conv_tensor
from tests.emulated import build


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return build.module()


def test_wide_taps(module: ModuleType) -> None:
    conv_tensor.check_forward(module, conv_tensor.SPREAD, torch.bfloat16, "cpu", 2)
    conv_tensor.check_backward(module, conv_tensor.SPREAD, torch.bfloat16, "cpu", 2, plain=True)


@pytest.mark.parametrize("dtype", conv_tensor.CODES, ids=str)
@pytest.mark.parametrize("case", conv_tensor.SMALL, ids=str)
def test_forward(module: ModuleType, case: conv_tensor.Case, dtype: torch.dtype) -> None:
    conv_tensor.check_forward(module, case, dtype, "cpu", seed=hash(case) & 0xFFFF)


@pytest.mark.parametrize("case, choice", conv_tensor.CHOICES, ids=str)
def test_tiles(module: ModuleType, case: conv_tensor.Case, choice: tuple[int, ...]) -> None:
    conv_tensor.check_forward(module, case, torch.bfloat16, "cpu", seed=1, choice=(0, *choice))


@pytest.mark.parametrize("case, choice", conv_tensor.CHOICES[1:5], ids=str)
def test_tiles_of_floats(module: ModuleType, case: conv_tensor.Case, choice: tuple[int, ...]) -> None:
    conv_tensor.check_forward(module, case, torch.float32, "cpu", seed=1, choice=(0, *choice))


WGMMA = [*(pair for pair in conv_tensor.CHOICES if min(pair[0].shape[1], pair[1][0]) >= 64), *conv_tensor.ROLES]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case, choice", WGMMA, ids=str)
def test_wgmma(module: ModuleType, case: conv_tensor.Case, choice: tuple[int, ...], dtype: torch.dtype) -> None:
    conv_tensor.check_forward(module, case, dtype, "cpu", seed=1, choice=(2, *choice))


@pytest.mark.parametrize("case, choice", [WGMMA[0], WGMMA[-1]], ids=str)
def test_wgmma_in_float16(module: ModuleType, case: conv_tensor.Case, choice: tuple[int, ...]) -> None:
    """Two of them: it takes bfloat16's way but for how a number is read and stored."""
    conv_tensor.check_forward(module, case, torch.float16, "cpu", seed=1, choice=(2, *choice))


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("rows", [128, 192, 256])
def test_codes(module: ModuleType, rows: int, relu: bool, pool: bool) -> None:
    conv_tensor.check_codes(module, "cpu", relu, pool, (2 if rows == 192 else 0, 64, rows, 0, 0))


@pytest.mark.parametrize("rows", [128, 192, 256])
def test_codes_of_floats(module: ModuleType, rows: int) -> None:
    conv_tensor.check_codes(module, "cpu", True, True, (2 if rows == 192 else 0, 64, rows, 0, 0), torch.float32)


@pytest.mark.parametrize("dtype", conv_tensor.CODES, ids=str)
@pytest.mark.parametrize("case", conv_tensor.SMALL, ids=str)
def test_backward(module: ModuleType, case: conv_tensor.Case, dtype: torch.dtype) -> None:
    seed = hash(case) & 0xFFFF
    conv_tensor.check_backward(module, case, dtype, "cpu", seed, plain=seed % 2 == 0)


@pytest.mark.parametrize("dtype", conv_tensor.CODES, ids=str)
def test_pack(module: ModuleType, dtype: torch.dtype) -> None:
    conv_tensor.check_pack(module, dtype, "cpu")
