"""timing: candidates take turns, ratios are paired and their interval covers the truth."""

from __future__ import annotations

import numpy as np
import pytest

from hw4fast import timing


def recorder(calls: list[str], name: str):
    return lambda: calls.append(name)


def test_candidates_take_turns():
    calls: list[str] = []
    times = timing.alternate({name: recorder(calls, name) for name in "abc"}, seconds=0, warmup=2, at_least=6)
    assert calls[:6] == ["a", "a", "b", "b", "c", "c"]  # warm-up
    rounds = ["".join(calls[i : i + 3]) for i in range(6, len(calls), 3)]
    assert rounds == ["abc", "bca", "cab", "abc", "bca", "cab"]
    assert list(times) == ["a", "b", "c"] and all(took.shape == (6,) for took in times.values())


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the candidates move."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return now


def work(clock, seconds: float):
    def call() -> None:
        clock[0] += seconds

    return call


def test_times_are_each_candidates_own(clock):
    times = timing.alternate({"slow": work(clock, 3.0), "fast": work(clock, 1.0)}, seconds=40, warmup=0, at_least=1)
    assert times["slow"].tolist() == [3.0] * 10 and times["fast"].tolist() == [1.0] * 10


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 11), (1, 11), (20, 20), (1e9, 30)])
def test_at_least_and_at_most(seconds, rounds, clock):
    times = timing.alternate({"one": work(clock, 1.0)}, seconds=seconds, warmup=0, at_most=30)
    assert len(times["one"]) == rounds


def test_ratio_covers_a_known_ratio_on_a_drifting_machine():
    covered, widths = 0, []
    for seed in range(40):
        rng = np.random.Generator(np.random.PCG64(seed))
        drift = np.exp(np.cumsum(rng.normal(0, 0.1, 60)))  # both get slower and faster together
        found = timing.ratio(3.0 * drift * rng.lognormal(0, 0.1, 60), drift * rng.lognormal(0, 0.1, 60))
        assert found.low <= found.median <= found.high and found.n == 60
        covered += found.low <= 3.0 <= found.high
        widths.append(found.high - found.low)
    assert covered >= 34  # 38 on average
    assert max(widths) < 0.5  # unpaired, the drift alone would make it several times wider


def test_ratio_of_equal_times_is_the_same_each_time():
    a, b = np.array([2.0, 4.0, 6.0, 9.0]), np.array([1.0, 2.0, 2.0, 3.0])
    assert timing.ratio(a, b) == timing.ratio(a, b)
    assert timing.ratio(a, a) == timing.Ratio(1.0, 1.0, 1.0, 4)
    assert timing.ratio(a, b).median == 2.5
    assert str(timing.Ratio(2.0, 1.5, 2.25, 7)) == "2.00× (1.50 … 2.25, n = 7)"
