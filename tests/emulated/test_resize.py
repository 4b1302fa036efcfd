"""resize's CUDA kernel, run by the emulator: the CPU kernel's bytes, which are Pillow's."""

import importlib

import numpy as np
import pytest
import torch

from hw4fast.kernels import resize as card
from tests.emulated.faces import emulated  # noqa: F401

nn_resize = importlib.import_module("hw4fast.nn.resize")  # the package's name is the function's
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = [case for case in card.cases() if case.shape[0] * case.shape[1] + case.size[0] * case.size[1] < 4000]
# every filter, every second width: the arithmetic is one
CASES = [case for at, case in enumerate(SMALL) if at % 2 == case.name.endswith(("bilinear", "lanczos"))]


def on_emulator(pictures, size, box=None, interpolation="bilinear", mean=(), std=(), dtype=torch.float32):
    box = box or (0, 0, *size)
    return nn_resize._resize_cuda(pictures, size, box, interpolation, mean, std, dtype)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_small_case_of_the_card(emulated, case):  # noqa: F811
    picture, options = case.make()
    found = on_emulator(torch.from_numpy(picture)[None], **options)
    assert np.array_equal(found[0].numpy(), card.resize(picture, **options))


@pytest.mark.parametrize(
    ("shape", "size", "box"),
    [((3, 90, 70, 3), (40, 41), None), ((2, 70, 200, 3), (65, 35), (1, 1, 60, 34)), ((1, 400, 30, 1), (3, 90), None)],
)
def test_batches_and_what_a_net_reads(emulated, shape, size, box):  # noqa: F811
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    mean, std = MEAN[: shape[3]], STD[: shape[3]]
    box = box or (0, 0, *size)
    wanted = nn_resize._resize_cpu(x, size, box, "bilinear", list(mean), list(std), torch.float32)
    for dtype in nn_resize.DTYPES:
        assert torch.equal(on_emulator(x, size, box, mean=mean, std=std, dtype=dtype), wanted.to(dtype))
    wanted = nn_resize._resize_cpu(x, size, box, "bilinear", [], [], torch.float32)
    wide = torch.cat([x, x], 2)[:, :, : shape[2]]  # rows that lie further apart
    turned = x.transpose(1, 2).contiguous().transpose(1, 2)  # pixels that do
    assert wide.stride(1) > x.stride(1) and turned.stride(2) > shape[3]
    for view in (x, wide, turned):
        assert torch.equal(on_emulator(view, size, box), wanted)


@pytest.mark.parametrize("interpolation", ["bilinear", "lanczos"])
def test_large_pictures_have_small_tiles(emulated, interpolation):  # noqa: F811
    for shape, size in (((1, 9000, 9, 3), (2, 5)), ((1, 3, 9000, 1), (1, 3)), ((1, 60_000, 2, 3), (1, 2))):
        x = torch.from_numpy(np.random.default_rng(1).integers(0, 256, shape, np.uint8))
        wanted = nn_resize._resize_cpu(x, size, (0, 0, *size), interpolation, [], [], torch.float32)
        assert torch.equal(on_emulator(x, size, interpolation=interpolation), wanted)


def test_what_no_tile_holds_is_told(emulated):  # noqa: F811
    """A picture of 2.4 gigapixels and more to a pixel: the first pass leaves a column that shared memory can't hold."""
    table = np.array([0, 80_000], np.int32).ctypes
    some, tables = torch.zeros(8, dtype=torch.uint8).data_ptr(), (table.data, table.data)
    with pytest.raises(ValueError, match="too long for a GPU"):
        emulated.resize(4, some, 0, 0, some, 1, 3, (1, 1), tables, tables, False, [], [], 0)
    for wrong in ((2, (1, 1)), (3, (0, 1))):
        with pytest.raises(ValueError, match=r"channels|pixels"):
            emulated.resize(4, some, 0, 0, some, 1, *wrong, tables, tables, False, [], [], 0)
    with pytest.raises(ValueError, match="mean and std"):
        emulated.resize(0, some, 0, 0, some, 1, 3, (1, 1), tables, tables, False, [], [0.5], 0)
    with pytest.raises(ValueError, match="float16"):
        emulated.resize(1, some, 0, 0, some, 1, 1, (1, 1), tables, tables, False, [0.5], [0.5], 0)


def test_nothing_is_nothing(emulated):  # noqa: F811
    assert on_emulator(torch.zeros(0, 4, 5, 3, dtype=torch.uint8), (2, 2)).shape == (0, 2, 2, 3)
