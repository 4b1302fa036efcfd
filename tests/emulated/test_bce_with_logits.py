"""bce_with_logits' CUDA kernels, run by the emulator, against the float64 reference."""

import numpy as np
import pytest
import torch

from hw4fast.kernels import bce_with_logits as card
from hw4fast.nn import bce_with_logits
from tests.emulated.faces import emulated  # noqa: F401


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("case", [case for case in card.cases() if np.prod(case.shape) < 20000], ids=lambda c: c.name)
def test_every_case(emulated, case, dtype):  # noqa: F811
    logits, target, options = case.make(dtype)
    loss_ref, grad_ref = card.reference(logits, target, **options)
    reduction = card.REDUCTIONS[options.pop("reduction", "mean")]
    weights = [None if (w := options.get(name)) is None else torch.from_numpy(w) for name in ("weight", "pos_weight")]
    loss, grad = bce_with_logits._bce_with_logits_cuda(
        torch.from_numpy(logits), torch.from_numpy(target), *weights, reduction
    )
    near = 2e-6 if dtype is np.float32 else 1e-13
    np.testing.assert_allclose(loss.numpy(), loss_ref, rtol=near, atol=near)
    np.testing.assert_allclose(grad.numpy(), grad_ref, rtol=near, atol=near * np.max(np.abs(grad_ref), initial=0))
