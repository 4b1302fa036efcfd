"""Every transform that a study knows: as a list, and as a page with a picture at each severity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast import page
from hw4fast.data import carried
from hw4fast.data.images import read_picture
from hw4fast.data.preprocessing import PRESETS
from hw4fast.files import write_text
from hw4fast.robustness.pictures import data_uri
from hw4fast.robustness.points import Point, points_of
from hw4fast.transforms import TRANSFORMS, Transform
from hw4fast.transforms.own import import_transforms
from hw4fast.transforms.spec import ALIASES, SEVERITIES, shown

SIDE = 176  # pixels of a picture on the page


@dataclass(frozen=True)
class Entry:
    """A transform for people. specs: at severities 1…5, or the one that there is; levels: what the severity sets, as
    text; aliases: other names that are understood."""

    transform: Transform
    specs: tuple[str, ...]
    levels: tuple[str, ...]
    aliases: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        one = self.transform
        return {
            "name": one.name,
            "aliases": list(self.aliases),
            "family": one.family,
            "summary": one.summary,
            "level": one.level,
            "severities": list(self.specs),
            "parameters": {
                key: {"unit": p.unit, "default": p.default, "choices": list(p.choices)}
                | ({} if p.choices else {"low": p.low, "high": p.high})
                for key, p in one.parameters.items()
            },
            "random": one.random,
            "note": one.note,
            "same_as": one.same_as,
        }


def catalogue(imports: Sequence[str | Path] = ()) -> list[Entry]:
    """All transforms, a family at a time. imports: Python files with more. Raises as `import_transforms` does."""
    for path in imports:
        import_transforms(path)
    return sorted(map(_entry, map(TRANSFORMS.get, TRANSFORMS)), key=lambda entry: _place(entry.transform.family))


def _place(family: str) -> int:
    families = list(dict.fromkeys(TRANSFORMS.get(name).family for name in TRANSFORMS))
    return families.index(family)


def _entry(transform: Transform) -> Entry:
    points = points_of([transform.name])[1:]
    levels = tuple(_level(transform, point) for point in points)
    aliases = tuple(alias for alias, name in ALIASES.items() if name == transform.name)
    return Entry(transform, tuple(point.spec for point in points), levels, aliases)


def _level(transform: Transform, point: Point) -> str:
    assert point.chain is not None
    value = point.chain.links[0].parameters.get(transform.level)
    return str(point.severity) if value is None else shown(value)


def save_catalogue(path: str | Path, entries: Sequence[Entry], picture: str | Path | None = None) -> None:
    """One self-contained page: what each transform does to a picture of the user's, or to a photograph that
    scikit-learn brings, at 224 × 224. Raises UserError when it can't be read or the page can't be written."""
    decoded = carried.photograph(carried.PHOTOGRAPHS[0]) if picture is None else read_picture(picture)
    families: dict[str, list[Entry]] = {}
    for entry in entries:
        families.setdefault(entry.transform.family, []).append(entry)
    links = " ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in families)
    write_text(
        path,
        page.page(
            title="The transforms of hw4fast",
            kicker="<b>hw4fast transforms</b>",
            headline=f"{len(entries)} ways to spoil a picture",
            header=f'<p class="lede">At severities 1 to 5, on one picture of 224 × 224. {_HOW}</p>'
            f'<nav aria-label="On this page">{links}</nav>',
            main="\n".join(_section(name, found, decoded) for name, found in families.items()),
        ),
    )


_HOW = (
    "hw4fast classify and study know them by these names: NAME[LEVEL][:key=value,…], chained with +, and with "
    "severity=1 … 5 for any of them. Lengths in px are those of a picture whose shorter side has 224 pixels."
)


def _section(family: str, entries: Sequence[Entry], decoded: np.ndarray) -> str:
    cards = "".join(_card(entry, decoded) for entry in entries)
    return f'<section id="{escape(family)}"><h2>{escape(family)}</h2><div class="grid strips">{cards}</div></section>'


def _card(entry: Entry, decoded: np.ndarray) -> str:
    one = entry.transform
    cells = "".join(_cells(entry, decoded))
    note = f"<b>{escape(one.note)}</b> " if one.note else ""
    keys = ", ".join(f"{key} ({p.unit})" if p.unit else key for key, p in one.parameters.items())
    return (
        f'<div class="card"><h3>{escape(one.name)}</h3><p class="soft">{escape(one.summary)} {note}'
        f"Parameters: {escape(keys)}.{' Random.' if one.random else ''}</p>"
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(one.name)}">'
        f'<table class="strip"><tbody><tr>{cells}</tr></tbody></table></div></div>'
    )


def _cells(entry: Entry, decoded: np.ndarray) -> Iterator[str]:
    """Clean, then each severity; of one strength the other places stay empty."""
    points, usual = points_of([entry.transform.name]), PRESETS["imagenet"]
    for point in points:
        image = data_uri(point.apply(usual.fit(decoded), 0, decoded=decoded, preprocessing=usual), SIDE)
        told, below = escape(point.spec or "clean"), escape(point.heading)
        yield (
            f'<td><img src="{image}" width="224" height="224" loading="lazy" alt="{told}">'
            f'<span class="answer">{below}</span></td>'
        )
    yield "<td></td>" * (1 + len(SEVERITIES) - len(points))
