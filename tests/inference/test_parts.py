"""How many pictures go through a thread of classify at a time."""

from __future__ import annotations

import pytest

from hw4fast.inference.classify import IN_A_ROW, _parts


@pytest.mark.parametrize("at_once", [1, 3, 8, 32])
@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 7, 64, 200])
def test_what_workers_take_at_a_time(count, workers, at_once):
    """All, in order and in whole batches; single ones at both ends, several between."""
    files = [str(number) for number in range(count)]
    parts = list(_parts(files, at_once, IN_A_ROW, workers))
    assert [file for part in parts for file in part] == files
    assert all(len(part) % at_once == 0 for part in parts[:-1])
    assert max(map(len, parts)) <= max(IN_A_ROW, at_once)
    assert len(parts[-1]) <= at_once
    assert len(parts[0]) <= at_once
    if count == 200 and at_once == 1 and workers < 5:
        assert sum(len(part) == IN_A_ROW for part in parts) > 200 / IN_A_ROW / 2
        assert sum(len(part) == 1 for part in parts) >= 2 * workers
    assert max(map(len, _parts(files, at_once, 1, workers))) <= at_once
