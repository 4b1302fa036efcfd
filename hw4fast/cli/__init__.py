"""The command line: it parses and prints; everything else is done in the rooms.

Results go to stdout, progress and notices to stderr. Exit codes: 0 all well, 1 it failed, 2 wrong usage,
3 done but some inputs failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from hw4fast.cli import making, studying, using
from hw4fast.cli.common import complain
from hw4fast.errors import UserError

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code. A user's mistake is one line on stderr, never a traceback.

    As a program (argv None) it leaves at once when it was interrupted: a second Ctrl-C while Python tidies up would
    find threads in our kernels, and end the process with a crash.
    """
    try:
        code = _main(argv)
    except KeyboardInterrupt:  # the second one
        code = INTERRUPTED
    if code == INTERRUPTED and argv is None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        os._exit(code)
    return code


def _main(argv: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a stand-in for a stream may lack it
            stream.reconfigure(errors="backslashreplace")  # a sign that the terminal lacks is no reason to stop
    try:
        arguments = _parser().parse_args(argv)
        code = arguments.run(arguments)
        sys.stdout.flush()  # here, where a reader that went away can still be told from a failure
        return code
    except UserError as error:
        complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        if argv is None:  # once is enough
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        complain(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hw4fast",
        description="Train a small net, export one self-describing ONNX file, run it fast, find out what breaks it.",
        epilog="Start with: hw4fast train digits",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for add in (
        making.add_train,
        making.add_export,
        using.add_classify,
        studying.add_study,
        studying.add_transforms,
        using.add_bench,
        using.add_card,
        using.add_info,
        making.add_reproduce,
    ):
        add(verbs)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"hw4fast {version('hw4fast')}")
        parser.exit()
