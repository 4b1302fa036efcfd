"""All tests of this folder need an NVIDIA GPU, and skip with the reason where there is none."""

from pathlib import Path

import pytest
import torch

from hw4fast import kernels


def missing() -> str | None:
    if not torch.cuda.is_available():
        return f"torch finds no GPU; {kernels.cuda_error() or 'hw4fast finds one'}"
    return kernels.cuda_error()


def pytest_collection_modifyitems(items):
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    reason = missing() if here else None
    for item in here:
        item.add_marker(pytest.mark.gpu)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
