"""hw4fast.nn.resize: the bytes of the kernel (which are Pillow's), batches, lists, and as torch may call it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hw4fast.kernels import resize as card
from hw4fast.nn import resize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pictures(n=2, h=37, w=50, c=3):
    return torch.from_numpy(np.random.default_rng(h * w).integers(0, 256, (n, h, w, c), np.uint8))


@pytest.mark.parametrize("interpolation", card.FILTERS)
@pytest.mark.parametrize("c", card.CHANNELS)
@pytest.mark.parametrize("box", [None, (3, 5, 12, 20)])
def test_it_is_the_kernel(interpolation, c, box):
    x = pictures(c=c)
    found = resize(x, (20, 33), box, interpolation)
    expected = [card.resize(one, (20, 33), box, interpolation) for one in x.numpy()]
    assert found.dtype is torch.uint8 and np.array_equal(found.numpy(), expected)
    normalised = resize(x, (20, 33), box, interpolation, MEAN[:c], STD[:c])
    expected = [card.resize(one, (20, 33), box, interpolation, MEAN[:c], STD[:c]) for one in x.numpy()]
    assert normalised.dtype is torch.float32 and np.array_equal(normalised.numpy(), expected)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(resize(x, (20, 33), box, interpolation, MEAN[:c], STD[:c], dtype), normalised.to(dtype))


def test_pictures_of_several_sizes_are_a_batch():
    several = [pictures(1, h, w)[0] for h, w in ((30, 40), (64, 20), (5, 5))]
    for options in ({}, {"mean": MEAN, "std": STD}):
        found = resize(several, (16, 24), **options)
        assert torch.equal(found, torch.cat([resize(one[None], (16, 24), **options) for one in several]))


def test_views_are_read_where_they_lie():
    x = pictures(4, 40, 60)
    views = (x[::2], x[:, 3:20, 5:40], x[:, ::2], x[:, :, ::2], x.permute(0, 2, 1, 3), x[..., [2, 1, 0]])
    for view in views:
        assert torch.equal(resize(view, (12, 13)), resize(view.contiguous(), (12, 13)))
    assert resize(x[:0], (12, 13)).shape == (0, 12, 13, 3)


@pytest.mark.parametrize("mean", [[], list(MEAN)])
def test_torch_s_own_checks(mean):
    std = list(STD) if mean else []
    arguments = (pictures(), [20, 33], [1, 2, 10, 11], "bilinear", mean, std, torch.float32)
    torch.library.opcheck(torch.ops.hw4fast.resize.default, arguments)
    compiled = torch.compile(lambda x: resize(x, (20, 33), None, "bicubic", mean or None, std or None) + 0)
    x = pictures()
    assert torch.equal(compiled(x), resize(x, (20, 33), None, "bicubic", mean or None, std or None))


@pytest.mark.parametrize(
    ("given", "options", "error", "said"),
    [
        (np.zeros((1, 4, 4, 3), np.uint8), {}, TypeError, "must be a tensor"),
        ([np.zeros((4, 4, 3), np.uint8)], {}, TypeError, "must be a tensor"),
        (torch.zeros(1, 4, 4, 3), {}, TypeError, "must be uint8"),
        (pictures()[0], {}, ValueError, r"must be \[n, h, w, 1 or 3\], or a list"),
        ([pictures()], {}, ValueError, r"or a list of \[h, w, 1 or 3\], not \[2, 37, 50, 3\]"),
        ([], {}, ValueError, "there must be a picture"),
        ([pictures()[0], pictures(c=1)[0]], {}, ValueError, "as many channels"),
        (pictures(c=2), {}, ValueError, "1 or 3"),
        (pictures(h=0), {}, ValueError, "with pixels"),
        (pictures(), {"size": (0, 5)}, ValueError, "must have pixels"),
        (pictures(), {"box": (0, 0, 9, 8)}, ValueError, "lie within"),
        (pictures(), {"interpolation": "nearest"}, ValueError, "interpolation must be one of"),
        (pictures(), {"mean": MEAN}, ValueError, "mean and std"),
        (pictures(), {"mean": MEAN, "std": STD[:2]}, ValueError, "3 values each"),
        (pictures(), {"mean": MEAN, "std": STD, "dtype": torch.float64}, TypeError, "dtype must be"),
        (pictures().to("meta"), {}, NotImplementedError, "CPU and CUDA"),
    ],
    ids=str,
)
def test_bad_input_is_told(given, options, error, said):
    with pytest.raises(error, match=said):
        resize(given, **{"size": (8, 8), **options})
