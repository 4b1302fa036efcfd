"""`hw4fast.nn`'s CUDA implementations on the emulator: CPU tensors whose addresses its kernels take."""

from __future__ import annotations

import pytest

from hw4fast.nn import cuda
from tests.emulated import build


@pytest.fixture
def emulated(monkeypatch):
    """The emulated module hw4fast._cuda, to which hw4fast.nn.cuda leads during a test."""
    if build.headers() is None or build.runtime() is None:
        pytest.skip("CUDA's headers are not here (they come with nvcc, or with torch and triton)")
    found = build.module()
    monkeypatch.setattr(cuda, "module", lambda: found)
    monkeypatch.setattr(cuda, "launch", lambda kernel, where, *arguments: kernel(*arguments, 0))
    return found
