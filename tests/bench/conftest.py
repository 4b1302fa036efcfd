"""What the tests of bench share: no second of theirs is spent where none is looked at."""

from __future__ import annotations

import pytest

from hw4fast.bench import engines


@pytest.fixture
def eager_only(monkeypatch):
    """torch.compile takes seconds: here it gives the net back."""
    import torch

    monkeypatch.setattr(torch, "compile", lambda model: model)


@pytest.fixture(autouse=True)
def as_it_is(request, monkeypatch):
    """Making float16 and int8 takes seconds: only where a test asks for it."""
    if "every_engine" not in request.node.name and "whole_of_it" not in request.node.name:
        monkeypatch.setattr(engines, "CHANGES", {})
