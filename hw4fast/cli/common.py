"""What the verbs share: how one is declared, how options are read, how results and complaints are printed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from hw4fast.errors import UserError

Arguments = argparse.Namespace


def verb(
    verbs: Any, name: str, sentence: str, examples: tuple[str, str], run: Callable[[Arguments], int]
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=sentence[0].lower() + sentence[1:-1],
        description=f"{sentence}\n\nexamples:\n  {examples[0]}\n  {examples[1]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="one JSON value per result on stdout, nothing else")
    return parser


def threads_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=positive, help="default: HW4FAST_THREADS, else all cores")


def threads(arguments: Arguments) -> int | None:
    from hw4fast.kernels import threads_from_environment

    return arguments.threads or threads_from_environment()


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no positive whole number")
    return int(text)


def numbers(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in text.split(","))


def print_json(value: Any) -> None:
    """One line of JSON that says exactly `value`. UserError for NaN and infinities, which JSON hasn't."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    try:
        text = json.dumps(value, ensure_ascii=encoding != "utf8", default=str, allow_nan=False)
    except ValueError:
        raise UserError("a result is NaN or infinite, which JSON can't say; without --json it is shown") from None
    print(text, flush=True)


def print_row(*cells: object) -> None:
    """One line of CSV (RFC 4180, but for line feeds alone)."""
    import csv

    csv.writer(sys.stdout, lineterminator="\n").writerow(cells)


def shown(value: object) -> str:
    """For names that come from outside: in text, nothing that a terminal obeys. JSON shows them as they are."""
    from hw4fast.paths import printable

    return printable(value)


def complain(what: object) -> None:
    """Says it on stderr, line by line."""
    print("hw4fast:", "\n".join(map(shown, str(what).split("\n"))), file=sys.stderr)
