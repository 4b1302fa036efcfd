"""The few statistics that every room needs."""

from __future__ import annotations

from math import sqrt


def wilson(successes: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson score interval of a proportion, 95 % by default; (0, 1) for n = 0.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927): (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie in 0…{n}, not {successes}")
    if n == 0:
        return 0.0, 1.0
    p, z2 = successes / n, z * z
    centre = p + z2 / (2 * n)
    half = z * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    scale = 1 + z2 / n
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


def percent(successes: int, n: int) -> str:
    """`99.12 % (95 % interval 98.92 … 99.28, 9912 of 10000)`."""
    low, high = wilson(successes, n)
    share = 100 * successes / n if n else 0.0
    return f"{share:.2f} % (95 % interval {100 * low:.2f} … {100 * high:.2f}, {successes} of {n})"
