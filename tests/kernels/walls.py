"""Memory that ends the process where a kernel reads or writes beside its arrays."""

import ctypes
import mmap
import sys
from collections.abc import Iterator

import numpy as np
import pytest


def walled(*arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Copies of the arrays that begin, then such that end, where the memory that may be touched does."""
    if sys.platform != "linux":
        pytest.skip("mprotect by ctypes")
    for at_end in (False, True):
        yield [_between_walls(array, at_end) for array in arrays]


def _between_walls(array: np.ndarray, at_end: bool) -> np.ndarray:
    page, libc = mmap.PAGESIZE, ctypes.CDLL(None, use_errno=True)
    inside = -(-max(array.nbytes, 1) // page) * page
    memory = np.frombuffer(mmap.mmap(-1, inside + 2 * page), np.uint8)
    for wall in (0, page + inside):
        assert libc.mprotect(ctypes.c_void_p(memory.ctypes.data + wall), ctypes.c_size_t(page), 0) == 0
    begin = page + (inside - array.nbytes if at_end else 0)
    copy = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
