"""Batched forms whose CUDA kernels the emulator runs: the transforms' bytes, as for pictures on a GPU."""

import numpy as np
import pytest
import torch

from hw4fast.batched import FORMS
from hw4fast.kernels import chosen_isa
from hw4fast.robustness.points import points_of
from tests.batched.test_forms import compared, photographs
from tests.emulated.faces import emulated  # noqa: F401

RUN = {  # transform → the kernels that it must have run; the others are torch's operations alone
    "blur": {"fixed_blur"},
    "defocus_blur": {"correlate"},
    "elastic": {"float_blur", "noise", "sample"},
    "fog": {"noise"},
    "gaussian_blur": {"fixed_blur"},
    "gaussian_noise": {"noise"},
    "glass_blur": {"fixed_blur", "noise"},
    "impulse_noise": {"noise"},
    "jpeg": {"jpeg"},
    "motion_blur": {"correlate"},
    "perspective": {"sample"},
    "rotate": {"sample"},
    "shear": {"sample"},
    "shot_noise": {"noise"},
    "snow": {"correlate", "noise"},
    "spatter": {"float_blur", "noise"},
    "speckle_noise": {"noise"},
    "translate": {"sample"},
    "trick": {"fixed_blur"},
    "zoom_blur": {"zoom_blur"},
}
POINTS = [point for point in points_of(list(FORMS))[1:] if not point.reads and point.severity in (3, None)]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.spec)
def test_the_transforms_bytes(emulated, monkeypatch, point):  # noqa: F811
    wanted_run = RUN.get(point.chain.links[0].transform.name, set())
    if "float_blur" in wanted_run and chosen_isa() == "baseline":
        pytest.skip("float_blur's bits are those of AVX2 or AVX-512")
    for shape in ((48, 37, 3), (28, 28, 1)):
        before = emulated.calls()
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "is_cuda", True)
            found, wanted = compared(point.chain, photographs(3, shape))
        assert np.array_equal(found, wanted), shape
        run = {name for name, calls in emulated.calls().items() if calls > before[name]}
        assert run == wanted_run
