"""What a transform is: its parameters, how strong it is at severities 1…5, and how its strength can be swept.

Lengths are in pixels of a picture whose shorter side has 224 (`px`), unless a parameter says otherwise: at 224² the
constants of ImageNet-C are the published ones, and a smaller picture is spoiled as much as it would be there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hw4fast.registry import Registry

SEVERITIES = (1, 2, 3, 4, 5)
UNSTATED = 3  # the severity that a name without a level stands for
SEVERITY = "severity"  # what any transform can be told instead of its own parameters
NUMBER = r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]-?[0-9]+)?"
Value = float | str | None
Settings = Mapping[str, Value]


@dataclass(frozen=True)
class Parameter:
    """One number, or one of a few words, that a transform reads; `low` and `high` are inclusive.

    default: the value when it isn't given (None: the transform derives it from the others). unit: for people.
    """

    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    odd: bool = False
    choices: tuple[str, ...] = ()
    default: float | str | None = None
    unit: str = ""

    def read(self, text: str) -> float | str:
        """The value in `text`; ValueError with what would be right."""
        if self.choices:
            if text not in self.choices:
                raise ValueError(f"must be one of {', '.join(self.choices)}")
            return text
        if not re.fullmatch(NUMBER, text):
            raise ValueError("must be a number")
        return self.check(float(text))

    def check(self, value: float) -> float:
        """The number itself, an int where it must be whole; ValueError with what would be right."""
        value = float(value) + 0.0  # no −0
        if not self.low <= value <= self.high:
            raise ValueError(f"must lie in {shown(self.low)} … {shown(self.high)}")
        if (self.whole or self.odd) and not value.is_integer():
            raise ValueError(f"must be {'an odd' if self.odd else 'a whole'} number")
        if self.odd and value % 2 != 1:
            raise ValueError("must be odd")
        return int(value) if self.whole or self.odd else value

    def nearest(self, value: float) -> float:
        """The permitted number next to `value`."""
        value = min(max(value, self.low), self.high)
        if self.odd:
            return int(2 * np.floor(value / 2) + 1)
        return int(np.rint(value)) if self.whole else value


WHOLE_SEVERITY = Parameter(1, 5, whole=True)
ANY_SEVERITY = Parameter(0, 5)


@dataclass(frozen=True)
class Sweep:
    """The values of the level between which a breaking point is sought: from `start`, where the picture is (nearly)
    as it was, to `stop`. logarithmic: halfway between two is their geometric mean."""

    start: float
    stop: float
    logarithmic: bool = False

    def at(self, share: float | np.ndarray) -> Any:
        """The value (or values) at a share 0…1 of the way."""
        if self.logarithmic:
            return self.start * (self.stop / self.start) ** share
        return self.start + (self.stop - self.start) * share


@dataclass(frozen=True)
class Transform:
    """A named way to change a picture.

    apply: f(picture, **parameters) → picture; uint8 [h, w, 1 or 3] in, the same shape out, the input left as it was.
        Where it is `random` it gets `rng`, too, from which all randomness comes.
    level: the parameter that the LEVEL in `NAME[LEVEL]` sets; "severity" where no single parameter says how strong
        it is: then `parameters` doesn't hold it.
    severities: the level at severity 1…5, from weak to strong, or all the parameters that the severity sets; only one
        where the transform is `fixed`: there is no weaker or stronger mirror image.
    summary: one sentence. family: the file it stands in.
    suffix: whether the canonical name writes the level as `NAME51` rather than as `NAME:key=51`.
    random: whether it draws.
    origin: the parameters at "severity 0", where it changes (nearly) nothing; with it severities between the whole
        numbers are interpolated.
    sweep: of the level, for breaking points. note: what a reader of the numbers must know, such as that they can't be
        compared with published ones. fingerprint: of the code, where it isn't this package's.
    same_as: another transform that does the same on another scale, such as a Gaussian blur told by its kernel's size:
        means over many transforms count one of the two.
    reads: whether it is about how a picture comes to its size: then `apply` gets the picture as it was decoded, of any
        size, and `preprocessing` beside the parameters, and gives what the net is to read.
    """

    name: str
    apply: Callable[..., np.ndarray]
    parameters: Mapping[str, Parameter] = field(hash=False)
    level: str
    severities: tuple[float | Settings, ...] = field(hash=False)
    summary: str
    family: str = ""
    suffix: bool = True
    random: bool = False
    origin: Settings | None = field(default=None, hash=False)
    sweep: Sweep | None = None
    note: str = ""
    fingerprint: str = ""
    reads: bool = False
    same_as: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z_]+", self.name):
            raise ValueError(f"a transform's name is lower-case letters and underscores, not {self.name!r}")
        if len(self.severities) not in (1, len(SEVERITIES)):
            raise ValueError(f"{self.name}: {len(SEVERITIES)} severities are needed, or 1 where the strength is fixed")
        if SEVERITY in self.parameters:
            raise ValueError(f"{self.name}: '{SEVERITY}' is every transform's; name the parameter otherwise")
        if self.level not in (SEVERITY, *self.parameters):
            raise ValueError(f"{self.name} has no parameter '{self.level}' that could be its level")
        rows = [self.row(severity) for severity in range(1, len(self.severities) + 1)]
        for row in (*rows, self.origin or {}):
            for key, value in row.items():
                self.read(key, value)
        if self.level != SEVERITY and not all(self.level in row for row in rows):
            raise ValueError(f"{self.name}: a severity doesn't set the level, {self.level}")
        for end in (self.sweep.start, self.sweep.stop) if self.sweep else ():
            try:
                self.strength.check(end)
            except ValueError as error:
                raise ValueError(f"{self.name}: the ends of a sweep {error}, not {end}") from None

    @property
    def fixed(self) -> bool:
        """Whether it has no severities, but one strength."""
        return len(self.severities) == 1

    @property
    def strength(self) -> Parameter:
        """What the level may be."""
        if self.level != SEVERITY:
            return self.parameters[self.level]
        return WHOLE_SEVERITY if self.origin is None else ANY_SEVERITY

    def read(self, key: str, value: Value) -> Any:
        """A parameter's value, an int where it must be whole. Raises ValueError for another parameter or value."""
        if key not in self.parameters:
            raise ValueError(f"{self.name} has no parameter '{key}'; it knows {', '.join(self.parameters)}")
        if value is None:
            return None
        try:
            if isinstance(value, str) and not self.parameters[key].choices:
                raise ValueError("must be a number")
            return self.parameters[key].read(shown(value))
        except ValueError as error:
            raise ValueError(f"{self.name}: {key} {error}, not {value!r}") from None

    def row(self, severity: float) -> dict[str, Value]:
        """The parameters that a severity sets; between whole numbers those of `origin` and of the next severities are
        interpolated. Raises ValueError where there is no such severity."""
        if self.fixed and severity != 1:
            raise ValueError(f"{self.name} has no severities")
        (ANY_SEVERITY if self.origin is not None else WHOLE_SEVERITY).check(severity)
        rows = [r if isinstance(r, Mapping) else {self.level: r} for r in self.severities]
        rows.insert(0, {**rows[0], **(self.origin or {})})
        below = int(severity)
        if below == severity:
            return dict(rows[below])
        return {key: self._between(key, rows[below], rows[below + 1], severity - below) for key in rows[below + 1]}

    def _between(self, key: str, weak: Settings, strong: Settings, share: float) -> Value:
        low, high = weak.get(key, strong[key]), strong[key]
        if isinstance(low, str) or isinstance(high, str) or low is None or high is None:
            return high
        return self.parameters[key].nearest(low + (high - low) * share)

    def settle(self, given: Settings) -> tuple[dict[str, Any], float | None]:
        """Every parameter's value, and the severity that set those which weren't given (None: the level did).

        given: some parameters, or "severity"; neither the level nor a severity means severity UNSTATED. A fixed
        transform has its one row always, and no severity.
        """
        given = dict(given)
        severity = given.pop(SEVERITY, None)
        if self.fixed:
            row = self.row(1 if severity is None else float(severity))
        else:
            severity = UNSTATED if severity is None and self.level not in given else severity
            row = {} if severity is None else self.row(float(severity))
        settled = {key: parameter.default for key, parameter in self.parameters.items()} | row | given
        return settled, None if severity is None else float(severity)

    def __call__(
        self, picture: np.ndarray, severity: float | None = None, rng: np.random.Generator | None = None, **given: Value
    ) -> np.ndarray:
        """The transform by itself: uint8 [h, w, 1 or 3] → the same shape.

        severity: 1…5; or parameters by name. rng: of the draws; a fixed one if None.
        Raises ValueError for a picture, severity or parameter that is none.
        """
        check_picture(picture)
        if self.reads:
            raise ValueError(
                f"{self.name} is about how a picture is read: it can't be called by itself, only in a chain"
            )
        given = {key: self.read(key, value) for key, value in given.items()}
        settled, _ = self.settle(given if severity is None else {**given, SEVERITY: severity})
        if self.random:
            settled["rng"] = rng or np.random.Generator(np.random.Philox(0))
        result = self.apply(picture, **settled)
        return check_result(self.name, picture, result)


def check_picture(picture: np.ndarray) -> None:
    """Raises ValueError for what is no uint8 [h, w, 1 or 3] with at least one pixel."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3) or 0 in picture.shape:
        raise ValueError(f"a picture is uint8 [h, w, 1 or 3], not {picture.dtype} {list(picture.shape)}")


def check_result(name: str, picture: np.ndarray, result: np.ndarray) -> np.ndarray:
    """The result itself; TypeError unless it is uint8 of the picture's shape."""
    if not isinstance(result, np.ndarray):
        raise TypeError(f"{name} gave {type(result).__name__}, not a NumPy array")
    if result.dtype != np.uint8 or result.shape != picture.shape:
        raise TypeError(f"{name} made {result.dtype} {list(result.shape)} of uint8 {list(picture.shape)}")
    return result


TRANSFORMS: Registry[Transform] = Registry("transform")
ALIASES: dict[str, str] = {}  # the names of imagecorruptions where ours are shorter


def register(transform: Transform, aliases: Sequence[str] = ()) -> Transform:
    """Enters a transform under its own name; ValueError for a name that is taken, be it as an alias."""
    for name in (transform.name, *aliases):
        if name in ALIASES:
            raise ValueError(f"transform '{name}' is another name of {ALIASES[name]}")
        if name in aliases and name in TRANSFORMS:
            raise ValueError(f"transform '{name}' is registered already")
    TRANSFORMS.add(transform.name, transform)
    ALIASES.update(dict.fromkeys(aliases, transform.name))
    return transform


def shown(value: float | str) -> str:
    """51.0 → 51, 0.1 → 0.1: the shortest text that `Parameter.read` turns back into the value."""
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else repr(float(value))
