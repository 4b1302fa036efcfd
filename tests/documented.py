"""The keys of the card that its documentation names."""

from __future__ import annotations

import re

from hw4fast.inference import card

SECTION = re.compile(r"^ {4}(\w+) {2,}(.*?)(?=^ {4}\w|^\w|\Z)", re.DOTALL | re.MULTILINE)
NESTED = re.compile(r"^ {21}((?:\w+, )*\w+)(?:  |: )", re.MULTILINE)  # a line, or several keys in one


def documented(part: str | None = None) -> set[str]:
    """Of the card, or of an object in it."""
    assert card.__doc__
    sections = dict(SECTION.findall(card.__doc__))
    if part is None:
        return set(sections)
    return {key for keys in NESTED.findall(sections[part]) for key in keys.split(", ")}
