"""What the numba variants share: how they are compiled, on how many threads they run, and an exponential.

They are the readable middle road: what some twenty lines of Python reach. Importing numba takes 0.3 s and compiling
seconds, so both wait until a variant is called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from hw4fast.kernels import threads_by_default

FASTMATH = {"contract", "reassoc", "nnan", "nsz", "arcp"}  # sums in lanes; NaN is not looked after


@cache
def compiled_by_numba(make: Callable[..., Any], parallel: bool = True) -> Any:
    """The function that make(prange) defines, compiled: prange is numba's, which is not imported before."""
    import numba

    return numba.njit(parallel=parallel, fastmath=FASTMATH)(make(numba.prange))


def set_threads() -> None:
    """HW4FAST_THREADS, else all cores (or NUMBA_NUM_THREADS, if that is less)."""
    from numba import config, set_num_threads

    most = vars(config)["NUMBA_NUM_THREADS"]
    set_num_threads(min(threads_by_default() or most, most))


def exponential(_prange: Any) -> Callable[[Any], Any]:
    """e^x of a float32 x ≤ 0 that LLVM can compute in lanes, where np.exp is a call per number: the polynomial of
    exp_nonpositive in csrc/vector.inl, times 2^n made of its bits."""
    f32 = np.float32
    log2e, least, half, bias, place = f32(1.44269504), f32(-126), f32(0.5), f32(127), f32(2**23)
    a, b, c = f32(1.54531514e-4), f32(1.33908631e-3), f32(9.61808276e-3)
    d, e, f, one = f32(5.55035711e-2), f32(2.40226508e-1), f32(6.93147188e-1), f32(1)

    def exp(x: Any) -> Any:
        y = max(x * log2e, least)
        n = np.floor(y + half)
        r = y - n
        q = ((((a * r + b) * r + c) * r + d) * r + e) * r + f
        return (q * r + one) * np.int32((n + bias) * place).view(np.float32)

    return exp
