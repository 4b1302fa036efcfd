"""Arrays as they may come."""

import numpy as np


def misaligned(array: np.ndarray) -> np.ndarray:
    """The same numbers, one byte beside where they should begin."""
    raw = np.empty(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view
