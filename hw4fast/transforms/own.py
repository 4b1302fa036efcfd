"""A user's own transform: a function, a decorator, and `--import FILE`."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import linecache
import marshal
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hw4fast.errors import UsageError, UserError
from hw4fast.kernels import compiled
from hw4fast.paths import one_line
from hw4fast.transforms.spec import TRANSFORMS, Parameter, Settings, Sweep, Transform, check_result, register

Function = TypeVar("Function", bound=Callable[..., np.ndarray])


def transform(
    severities: tuple[float | Settings, ...],
    *,
    name: str | None = None,
    parameters: Mapping[str, Parameter] | None = None,
    sweep: tuple[float, float] | None = None,
    summary: str | None = None,
) -> Callable[[Function], Function]:
    """Registers a function as a transform that `study` and `classify` know by name:

        @hw4fast.transform(severities=(0.1, 0.2, 0.3, 0.4, 0.5))
        def tint(picture, rng, amount):
            "Moves red towards white."
            picture = picture.copy()
            picture[..., 0] += ((255 - picture[..., 0]) * amount).astype("uint8")
            return picture

    The function takes uint8 [h, w, 1 or 3] and gives a new array of the same shape and dtype; if it takes `rng`, all
    chance must come from that numpy.random.Generator. Its next parameter is the level, which `severities` sets.
    name: the function's own if None. parameters: their ranges; any number if None. sweep: (start, stop) of the level,
    for breaking points. summary: the first line of the docstring if None.
    Raises ValueError for another function or other severities, and for a name that is taken.
    """

    def decorate(function: Function) -> Function:
        if not inspect.isfunction(function):
            raise ValueError(f"a transform is a function, not {type(function).__name__}")
        called = inspect.signature(function).parameters
        ranges = _ranges(function.__name__, list(called.values())[1:], parameters or {}, severities)
        random = "rng" in called

        def apply(picture: np.ndarray, **given: Any) -> np.ndarray:
            try:
                # a user's function may write into its input
                return check_result("it", picture, function(picture.copy(), **given))
            except Exception as error:
                given.pop("rng", None)
                raise UserError(_fault(function, picture, given, error)) from error

        register(
            Transform(
                name=name or function.__name__,
                apply=apply,
                parameters=ranges,
                level=next(iter(ranges)),
                severities=tuple(severities),
                summary=summary or (inspect.getdoc(function) or "A transform of the user's.").split("\n")[0],
                family="own",
                random=random,
                sweep=Sweep(*sweep) if sweep else None,
                fingerprint=_fingerprint(function),
            )
        )
        return function

    return decorate


def _fault(function: Callable[..., Any], picture: np.ndarray, settled: dict[str, Any], error: Exception) -> str:
    """What a user's function did wrong, and on which of its lines."""
    file = function.__code__.co_filename
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f"{Path(file).name}, line {lines[-1]}: " if lines else ""
    how = ", ".join(f"{name}={value:.6g}" for name, value in settled.items())
    what = f"the transform {function.__name__} failed with {how} on a picture of {list(picture.shape)}"
    return f"{what}: {where}{type(error).__name__}: {one_line(str(error))}"


def _ranges(
    name: str,
    called: list[inspect.Parameter],
    given: Mapping[str, Parameter],
    severities: tuple[float | Settings, ...],
) -> dict[str, Parameter]:
    """What a function's parameters behind the picture may be; the first one is the level."""
    if any(p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in called):
        raise ValueError(f"{name}: a transform's parameters are given by name: no *args, no **kwargs, no /")
    ranges = {}
    for p in called:
        if p.name == "rng":
            continue
        default = None if p.default is p.empty else p.default
        known = given.get(p.name, Parameter(-1e9, 1e9))
        ranges[p.name] = known if known.default is not None else replace(known, default=default)
        is_level = p.name == next(iter(ranges))
        always = all(isinstance(row, Mapping) and p.name in row for row in severities)
        if p.default is p.empty and known.default is None and not (is_level or always):
            raise ValueError(f"{name}: {p.name} needs a default, or a value at every severity")
    if not ranges:
        raise ValueError(f"{name}: a transform takes a picture and at least one parameter, its level")
    if unknown := set(given) - set(ranges):
        raise ValueError(f"{name} has no parameter '{min(unknown)}'")
    return ranges


def _fingerprint(function: Callable[..., np.ndarray]) -> str:
    """Of the whole file that the function stands in: it may call what is beside it."""
    try:
        text = inspect.getsource(inspect.getmodule(function) or function)
    except (OSError, TypeError):  # typed into an interpreter
        return hashlib.blake2b(marshal.dumps(function.__code__), digest_size=8).hexdigest()
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@cache
def fingerprint() -> str:
    """Of the transforms of this package and of what they call, as they are on the disk."""
    package = Path(__file__).parents[1]
    digest = hashlib.blake2b(digest_size=8)
    parts = [file for part in ("transforms", "kernels") for file in sorted(package.glob(f"{part}/*.py"))]
    for file in [*parts, package / "data" / "preprocessing.py", compiled().__file__]:
        digest.update(Path(str(file)).read_bytes())
    return digest.hexdigest()


OWN = "hw4fast_own_"  # how the names of such modules begin
_imported: dict[Path, list[str]] = {}  # file → its transforms
_brought: dict[str, Any] = {}  # modules beside such files that they brought in, by name
_seen: dict[str, tuple[Any, bytes]] = {}  # modules beside such files, and what stood in them when they came


def import_transforms(path: str | Path) -> list[str]:
    """Runs a Python file of the user's and gives the names of the transforms that it registers.

    A file that was imported before is run again, and what it registers takes the place of what it had. So are the
    modules beside it that such a file brought in; one that was in memory before is left as it is. The transforms'
    fingerprint is of all these files, but not of what a function imports when it is called. Raises UserError when it
    can't be read or run, UsageError when it registers none; then what was registered before still is.
    """
    path = Path(path)
    specification = importlib.util.spec_from_file_location(OWN + path.stem, path)
    if not path.is_file() or specification is None or specification.loader is None:
        raise UserError(f"'{path}' is no Python file (NAME.py) that could be imported")
    module = importlib.util.module_from_spec(specification)
    with _all_or_nothing(path, module.__name__):
        for name in _imported.get(path.resolve(), []):
            if name in TRANSFORMS:
                TRANSFORMS.remove(name)
        for name in [name for name, other in _beside(path).items() if _brought.get(name) is other]:
            del sys.modules[name]
        known, before = set(TRANSFORMS), set(sys.modules)
        linecache.checkcache(str(path))  # inspect reads the text from there
        sys.modules[module.__name__] = module  # where dataclasses and inspect look for it
        try:
            specification.loader.exec_module(module)
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            why = f"{type(error).__name__}: {one_line(str(error))}"
            raise UserError(f"'{path}' can't be imported: {why}") from None
        new = [name for name in TRANSFORMS if name not in known]
        if not new:
            raise UsageError(f"'{path}' registers no transform; put @hw4fast.transform(severities=…) over a function")
    beside = _beside(path)
    _brought.update({name: other for name, other in beside.items() if name not in before})
    for name in new:
        entry = TRANSFORMS.remove(name)
        TRANSFORMS.add(name, replace(entry, fingerprint=_digest(entry.fingerprint, beside)))
    _imported[path.resolve()] = new
    return new


@contextmanager
def _all_or_nothing(path: Path, own: str) -> Iterator[None]:
    """Leaves the transforms, the module `own` and those beside the file as they were when something is raised."""
    entries, modules = {name: TRANSFORMS.get(name) for name in TRANSFORMS}, dict(sys.modules)
    try:
        yield
    except BaseException:
        for name in list(TRANSFORMS):
            TRANSFORMS.remove(name)
        for name, entry in entries.items():
            TRANSFORMS.add(name, entry)
        for name in (own, *_beside(path)):
            sys.modules.pop(name, None)
        for name, module in modules.items():
            sys.modules.setdefault(name, module)
        raise


def _beside(path: Path) -> dict[str, Any]:
    """The modules in memory that lie in the file's folder or below, but for installed packages, this one, the program
    that runs, and other files with transforms: they are imported by themselves."""
    folder = path.resolve().parent
    installed = [Path(__file__).parents[1], *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))]
    found = {}
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/").resolve()
        elsewhere = {"site-packages", "dist-packages"} & set(file.parts) or any(map(file.is_relative_to, installed))
        of_its_own = name == "__main__" or name.startswith(OWN)
        if file.is_relative_to(folder) and file.is_file() and not elsewhere and not of_its_own:
            found[name] = module
    return found


def _digest(own: str, beside: Mapping[str, Any]) -> str:
    """The fingerprint itself where there are no other files. A module counts as it was when it was seen first: an edit
    since then isn't what runs."""
    digest = hashlib.blake2b(own.encode(), digest_size=8)
    for name in sorted(beside):
        if name not in _seen or _seen[name][0] is not beside[name]:
            _seen[name] = beside[name], Path(beside[name].__file__).read_bytes()
        digest.update(f"{name} ".encode() + _seen[name][1])
    return digest.hexdigest() if beside else own
