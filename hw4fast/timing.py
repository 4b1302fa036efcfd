"""Comparing speeds on a machine that drifts: candidates take turns, ratios are paired, the spread is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


def alternate(
    candidates: Mapping[str, Callable[[], object]],
    seconds: float = 3.0,
    warmup: int = 5,
    at_least: int = 11,
    at_most: int = 2000,
) -> dict[str, np.ndarray]:
    """Calls every candidate once per round, in turn, for about `seconds`; {name: float64 [rounds] of seconds}.

    Element i of each array comes from the same round. The order turns round from one round to the next, so that
    no candidate always finds the caches as the same neighbour left them.
    """
    for call in candidates.values():
        for _ in range(warmup):
            call()
    rounds: list[dict[str, float]] = []
    begun = time.perf_counter()
    names = list(candidates)
    while len(rounds) < at_least or (len(rounds) < at_most and time.perf_counter() - begun < seconds):
        took = {}
        for name in names:
            call = candidates[name]
            start = time.perf_counter()
            call()
            took[name] = time.perf_counter() - start
        rounds.append(took)
        names = names[1:] + names[:1]
    return {name: np.array([took[name] for took in rounds]) for name in candidates}


@dataclass(frozen=True)
class Ratio:
    """How many times faster: the median of paired ratios with its 95 % bootstrap interval over n rounds."""

    median: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.median:.2f}× ({self.low:.2f} … {self.high:.2f}, n = {self.n})"


def ratio(baseline: np.ndarray, ours: np.ndarray) -> Ratio:
    """baseline / ours, round by round. Source: Efron, Tibshirani, "An Introduction to the Bootstrap" (1993),
    percentile interval; its draws are fixed, so equal times give equal intervals."""
    pairs = baseline / ours
    rng = np.random.Generator(np.random.PCG64(0))
    medians = np.median(pairs[rng.integers(0, len(pairs), (RESAMPLES, len(pairs)))], axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return Ratio(float(np.median(pairs)), float(low), float(high), len(pairs))
