"""Errors that are the user's to mend: shown as one line, never as a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something asked for can't be had. The text says what was asked, what was found, what to do next."""

    exit_code = 1


class UsageError(UserError):
    """The request itself is malformed (an unknown name, a bad value): exit code 2."""

    exit_code = 2


class PassingError(UserError):
    """What is in the way may be gone soon, with the same file: no memory, no permission, a disk that fails."""


class Interrupted(UserError):
    """Ctrl-C; the text says what is kept and how to go on."""

    exit_code = 130
