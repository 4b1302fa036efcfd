"""Runs that `reproduce` needs, several at a time: a small net leaves a second core half idle, a second run doesn't."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from hw4fast.errors import Interrupted, UserError
from hw4fast.homework.finished import finished
from hw4fast.training import runs
from hw4fast.training.settings import Settings

Run = tuple[Path, Settings]  # its folder; `init` is such a folder, too


def finish_all(wanted: Sequence[Run], jobs: int, progress: bool) -> None:
    """`finished` for each, at most `jobs` at a time. A run that starts from another waits for that one, and doesn't
    begin when that one diverged: then it has no folder.

    jobs 1: here; more: in processes of their own, which end with this one, be it killed, at their last whole epoch.
    Raises what `finished` raises, at the first, after the others have ended; UserError when such a process is killed.
    """
    if jobs > 1 and len(wanted) > 1:
        with _workers(min(jobs, len(wanted))) as workers:
            _spread(wanted, workers, progress)
        return
    for number, (folder, settings) in enumerate(wanted, 1):
        if progress:
            print(f"hw4fast: run {number} of {len(wanted)}: {_name(folder)}", file=sys.stderr)
        if not _start_diverged(settings):
            finished(folder, settings, progress)


def _name(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def _start_diverged(settings: Settings) -> bool:
    return settings.init is not None and runs.load_record(Path(settings.init))["status"] == "diverged"


def _spread(wanted: Sequence[Run], workers: dict[Connection, BaseProcess], progress: bool) -> None:
    from tqdm import tqdm

    waiting, idle, running = list(wanted), list(workers), dict[Connection, Path]()
    if progress:
        print(f"hw4fast: {len(wanted)} runs, {len(workers)} at a time", file=sys.stderr)
    with tqdm(total=len(wanted), unit="run", disable=None if progress else True, dynamic_ncols=True) as bar:
        while waiting or running:
            unfinished = {str(folder) for folder in (*running.values(), *(folder for folder, _ in waiting))}
            for run in [run for run in waiting if run[1].init not in unfinished]:
                if _start_diverged(run[1]):
                    bar.update()
                elif idle:
                    running[idle[-1]] = run[0]
                    _send(idle.pop(), run, workers)
                else:
                    break
                waiting.remove(run)
            bar.set_postfix_str(", ".join(map(_name, running.values())))
            ready = wait(list(running), timeout=1) if running else ()
            bar.refresh()
            for worker in ready:
                assert isinstance(worker, Connection)
                error = _receive(worker, workers)
                if error:
                    raise error
                folder = running.pop(worker)
                idle.append(worker)
                bar.update()
                if progress:
                    over = len(wanted) - len(waiting) - len(running)
                    bar.write(f"hw4fast: run {over} of {len(wanted)}: {_outcome(folder)}", file=sys.stderr)


def _outcome(folder: Path) -> str:
    entry = runs.load_record(folder)
    if entry["status"] != "finished":
        return f"{_name(folder)}: {entry['status']}"
    result = entry["result"]
    share = 100 * result["test_correct"] / result["test_images"]
    return f"{_name(folder)}: {share:.2f} % in {entry['seconds']:.0f} s"


def _send(worker: Connection, run: Run, workers: dict[Connection, BaseProcess]) -> None:
    try:
        worker.send(run)
    except OSError:
        raise _killed(workers[worker]) from None


def _receive(worker: Connection, workers: dict[Connection, BaseProcess]) -> Exception | None:
    try:
        error: Exception | None = worker.recv()
    except (EOFError, OSError):
        raise _killed(workers[worker]) from None
    return error


def _killed(process: BaseProcess) -> UserError:
    process.join()
    if process.exitcode not in (0, -signal.SIGTERM, -signal.SIGKILL):
        raise RuntimeError(f"a training process ended with exit code {process.exitcode}")  # a fault of ours
    kept = "whole epochs are kept, the same command goes on"
    return UserError(f"a training process was killed (out of memory?); {kept}, and --jobs 1 needs the least memory")


@contextmanager
def _workers(jobs: int) -> Iterator[dict[Connection, BaseProcess]]:
    """{our end of its pipe: process}. Afterwards all have ended: Ctrl-C reaches them as SIGTERM, and from here alone,
    for a terminal sends it to all at once."""
    context = multiprocessing.get_context("spawn")  # a forked child of torch's threads may hang
    workers: dict[Connection, BaseProcess] = {}
    try:
        with _ignored_by_children():
            for _ in range(jobs):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs,), daemon=True)
                process.start()
                theirs.close()
                workers[ours] = process
        yield workers
    finally:
        for child in workers.values():
            child.terminate()
        for pipe in workers:
            pipe.close()  # one that is about to answer sees that nobody listens
        for child in workers.values():
            child.join()


def _ignored_by_children() -> Any:
    """Processes that begin within it ignore SIGINT from their first instruction on. Only the main thread may say so."""
    return _ignoring() if threading.current_thread() is threading.main_thread() else nullcontext()


@contextmanager
def _ignoring() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(parent: Connection) -> None:
    """Runs what it is sent, one after the other, and answers each with None or the error; until it is told to end, or
    the parent has."""
    with contextlib.suppress(KeyboardInterrupt, Interrupted):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        threading.Thread(target=_end_with_the_parent, daemon=True).start()
        while True:
            answer: Exception | None = None
            try:
                folder, settings = parent.recv()
            except (EOFError, OSError):
                return
            try:
                finished(folder, settings, False)
            except Interrupted:
                raise
            except (UserError, OSError) as error:
                answer = error
            try:
                parent.send(answer)
            except OSError:
                return


def _end_with_the_parent() -> None:
    process = multiprocessing.parent_process()
    assert process is not None
    wait([process.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
