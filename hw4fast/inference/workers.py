"""Many pictures at a time: each core takes some the whole way, from the file through the net, and waits for no other.

A net's operators, shared out among cores one by one, leave them idle between two; whole pictures do not
(squeezenet1_1 on two cores, picture by picture: 257 instead of 180 a second).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import TypeVar

from hw4fast.kernels import use_threads

Item = TypeVar("Item")
Done = TypeVar("Done")
AHEAD = 4  # tasks per worker that may be begun or done before the first of them is taken


def in_order(
    function: Callable[[Item], Done], items: Iterable[Item], workers: int, stop: Event | None = None
) -> Generator[Done, None, None]:
    """function(item) of each, computed on `workers` threads whose kernels take one thread each; in the order of the
    items. What a call raises is raised here in its turn; what isn't begun by then never is. Memory is bounded. stop: is
    set when nobody wants the rest: a call that takes long may look at it."""
    waiting: deque[Future[Done]] = deque()
    pool = ThreadPoolExecutor(workers, "hw4fast", initializer=use_threads, initargs=(1,))
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # Ctrl-C, too
        if stop:
            stop.set()
        _end(pool)


def _end(pool: ThreadPoolExecutor) -> None:
    """Waits for what is running, a call per thread, through another Ctrl-C, too: a thread that is in a kernel when
    Python ends would end the process with it."""
    while True:
        try:
            return pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:
            continue
