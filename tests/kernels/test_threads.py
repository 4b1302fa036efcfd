"""How many threads kernels take, and torch's pool, which they share."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hw4fast import kernels
from hw4fast.errors import UsageError


def threads_of_this_process() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


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


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux shows them")
def test_torchs_threads_rest_until_its_next_call():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        x = torch.ones(1_000_000)
        wanted = float((x * 2).sum())
        busy = threads_of_this_process()
        kernels.rest()
        assert threads_of_this_process() <= busy - 3
        assert float((x * 2).sum()) == wanted and threads_of_this_process() >= busy
        kernels.rest()
        kernels.rest()  # nothing is left to let go
    finally:
        torch.set_num_threads(before)


def test_without_torch_there_is_nothing_to_rest():
    script = "import sys; from hw4fast import kernels; kernels.rest(); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False"]
