"""The scale of a transform's level on a drawing: where a value stands, and the round numbers to write at it."""

from __future__ import annotations

from itertools import count
from math import floor, log, log10

from hw4fast.transforms.spec import Sweep

MOST = 6  # ticks
NEAR = 1e-9  # what floats may miss an end by


def share_of(sweep: Sweep, value: float) -> float:
    """Where in the sweep a level lies; the inverse of Sweep.at."""
    if sweep.logarithmic:
        return log(value / sweep.start) / log(sweep.stop / sweep.start)
    return (value - sweep.start) / (sweep.stop - sweep.start)


def round_ticks(sweep: Sweep) -> list[float]:
    """At most MOST round levels within the sweep, ascending. Of a linear one the multiples of 1, 2 or 5 times a power
    of ten; of a logarithmic one 1, 2, 5, 10, …; where these are too many 1, 3, 10, …, else powers of ten."""
    low, high = sorted((sweep.start, sweep.stop))
    if sweep.logarithmic:
        for factors in ((1, 2, 5), (1, 3), (1,)):
            found = _powers(low, high, factors)
            if len(found) <= MOST:
                break
        return found[:: -(-len(found) // MOST)] if len(found) > 1 else _multiples(low, high)
    return _multiples(low, high)


def _powers(low: float, high: float, factors: tuple[int, ...]) -> list[float]:
    """The factors times each power of ten, from low to high."""
    exponents = range(floor(log10(low)), floor(log10(high)) + 1)
    values = (float(f"{factor}e{exponent}") for exponent in exponents for factor in factors)
    return [value for value in values if low * (1 - NEAR) <= value <= high * (1 + NEAR)]


def _multiples(low: float, high: float) -> list[float]:
    """Multiples of the least step of 1, 2 or 5 times a power of ten of which MOST or fewer lie from low to high."""
    first = floor(log10((high - low) / MOST))
    for exponent in count(first):
        for factor in (1, 2, 5):
            step = float(f"{factor}e{exponent}")
            least, most = -floor(-(low / step) + NEAR), floor(high / step + NEAR)
            if most - least < MOST:
                return [float(f"{place * step:.12g}") for place in range(least, most + 1)]
    raise AssertionError("a step is found")


def axis_name(parameter: str, unit: str) -> str:
    """`sigma, px`; `degrees` alone where the unit says the same, `degrees counter-clockwise` where it says more."""
    if unit.startswith(parameter):
        return unit
    return f"{parameter}, {unit}" if unit else parameter
