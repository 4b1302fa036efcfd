"""Comparing speeds on a machine that drifts: candidates take turns, ratios are paired, the spread is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
# After a call onnxruntime's threads look for work for 36 ms on a 2-core AMD EPYC: with a shorter pause whoever came
# after another session lost a core to it, and which of them looked best hung on the order.
POOLS_REST_S = 0.06


def alternate(
    candidates: Mapping[str, Callable[[], object]],
    seconds: float = 3.0,
    warmup: int = 5,
    at_least: int = 11,
    at_most: int = 2000,
    burst: int = 1,
    pause: float = 0.0,
) -> dict[str, np.ndarray]:
    """Lets the candidates take turns for about `seconds`; {name: float64 [rounds × burst] of seconds per call}.

    A turn is a pause, `burst` − 1 untimed calls (none for a burst of 1) and `burst` timed ones. Elements i of all
    arrays come from the same round. Who comes first rotates, so that no candidate always finds the caches as the
    same neighbour left them.

    Engines that keep a thread pool of their own need a burst and a pause: a pool spins for some milliseconds after
    its last call and takes the cores from whoever comes next (two such engines on two cores, call by call: 6.7 ms
    for what took 2.6 ms alone). at_least and at_most count rounds.
    """
    for call in candidates.values():
        for _ in range(warmup):
            call()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    begun = time.perf_counter()
    rounds = 0
    while rounds < at_least or (rounds < at_most and time.perf_counter() - begun < seconds):
        for name in names:
            times[name] += _turn(candidates[name], burst, pause)
        names = names[1:] + names[:1]
        rounds += 1
    return {name: np.array(took) for name, took in times.items()}


def _turn(call: Callable[[], object], burst: int, pause: float) -> list[float]:
    if pause:
        time.sleep(pause)
    for _ in range(burst - 1):
        call()
    took = []
    for _ in range(burst):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return took


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
