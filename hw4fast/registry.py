"""The one registry: names to things, with a helpful error for a name that is not there."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from hw4fast.errors import UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """An ordered table of named things of one kind (`transform`, `data set`, `model`)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        if name in self._entries:
            raise ValueError(f"{self.kind} '{name}' is registered already")
        self._entries[name] = entry
        return entry

    def remove(self, name: str) -> T:
        """Takes an entry out; KeyError when there is none."""
        return self._entries.pop(name)

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator form of `add`."""
        return lambda entry: self.add(name, entry)

    def get(self, name: str) -> T:
        """The entry; `UsageError` naming the nearest known names when there is none."""
        if name in self._entries:
            return self._entries[name]
        near = difflib.get_close_matches(name, self._entries, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(self._entries)}"
        raise UsageError(f"unknown {self.kind} '{name}'; {hint}")

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)


def import_folder(package: str, path: Iterable[str]) -> None:
    """Imports every module of a package's folder, so that a new file registers itself and touches nothing else."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
