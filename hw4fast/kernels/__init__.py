"""A card per kernel: contract, float64 reference, variants, test cases, cost. No torch here."""

from __future__ import annotations

import os
from types import ModuleType

from hw4fast.errors import UserError


def compiled() -> ModuleType:
    """The module hw4fast._C. Raises UserError when it was not built."""
    try:
        from hw4fast import _C
    except ImportError as error:
        raise UserError(
            f"the compiled kernels (hw4fast._C) can't be loaded: {error}; build them with `pip install -e .`"
        ) from error
    return _C


def isas() -> list[str]:
    """Instruction sets that this processor has and this build carries, best first."""
    return compiled().isas()


def chosen_isa() -> str:
    """What a call runs on: HW4FAST_ISA, else the best. ValueError when HW4FAST_ISA can't be had."""
    return compiled().chosen_isa()


def calls() -> dict[str, dict[str, int]]:
    """{kernel: {instruction set: calls in this process so far}}: what did run, not what should have."""
    return compiled().calls()


def threads_from_environment() -> int | None:
    """HW4FAST_THREADS, None when unset. Raises UserError unless it is a whole number from 1 to 4096."""
    text = os.environ.get("HW4FAST_THREADS")
    if not text:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise UserError(f"HW4FAST_THREADS must be a whole number from 1 to 4096, not '{text}'")
    return int(text)
