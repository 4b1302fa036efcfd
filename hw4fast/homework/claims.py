"""What the homework states and how a check of it is written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hw4fast.registry import Registry

HOLDS, CORRECTED, FAILS = "holds", "homework corrected", "FAILS"


@dataclass(frozen=True)
class Check:
    """what: what was computed; measured: what came out, with its unit; verdict: HOLDS, CORRECTED or FAILS."""

    what: str
    measured: str
    verdict: str


@dataclass(frozen=True)
class Claim:
    """A statement of the homework and the function that checks it."""

    problem: str
    statement: str
    check: Callable[[], list[Check]]


CLAIMS: Registry[Claim] = Registry("claim")


def claim(problem: str) -> Callable[[Callable[[], list[Check]]], Callable[[], list[Check]]]:
    """Registers a function whose docstring's first line is the statement."""

    def add(function: Callable[[], list[Check]]) -> Callable[[], list[Check]]:
        statement = " ".join((function.__doc__ or "").split("\n\n")[0].split())
        CLAIMS.add(problem, Claim(problem, statement, function))
        return function

    return add


def check(what: str, measured: str, holds: bool, correction: bool = False) -> Check:
    return Check(what, measured, (CORRECTED if correction else HOLDS) if holds else FAILS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
