"""How many threads kernels take, and torch's pool, which they share."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hw4fast import kernels
from hw4fast.errors import UsageError


def test_a_thread_may_take_fewer(monkeypatch):
    monkeypatch.setenv("HW4FAST_THREADS", "5")
    found = []

    def work() -> None:
        kernels.use_threads(1)
        found.append(kernels.threads_by_default())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [1] and kernels.threads_by_default() == 5
    monkeypatch.setenv("HW4FAST_THREADS", "many")
    with pytest.raises(UsageError, match="must be a whole number"):
        kernels.threads_by_default()


RESTING = """
import os, torch
from hw4fast import kernels
torch.set_num_threads(4)
x, threads = torch.ones(1_000_000), lambda: len(os.listdir("/proc/self/task"))
wanted, busy = float((x * 2).sum()), threads()
kernels.rest()
resting = threads()
assert float((x * 2).sum()) == wanted
print(busy - resting, threads() - resting)
kernels.rest()
kernels.rest()  # nothing is left to let go
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux shows them")
def test_torchs_threads_rest_until_its_next_call():
    """In a process of its own: the threads of other tests come and go."""
    run = subprocess.run([sys.executable, "-c", RESTING], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["3", "3"]


def test_without_torch_there_is_nothing_to_rest():
    script = "import sys; from hw4fast import kernels; kernels.rest(); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False"]
