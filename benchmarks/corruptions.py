#!/usr/bin/env python
"""ImageNet-C's 19 corruptions: ours beside imagecorruptions', whether they are the same, and how long they take.

    python -m venv build/theirs && build/theirs/bin/pip install "setuptools<80" imagecorruptions==1.1.2
    python benchmarks/corruptions.py --python build/theirs/bin/python
    python benchmarks/corruptions.py equal time --python build/theirs/bin/python --severities 1,3,5

imagecorruptions imports pkg_resources, which newer setuptools lack: it has an environment and a process of its own.
equal: the corruptions without chance at every severity, on all pictures. chance: the others on the first picture, the
statistics of what changes over --draws draws each; frost is left out, since ours is generated. time: calls in turns,
theirs, ours, of the same picture on one thread; a turn is a call that doesn't count, which wakes processor and caches,
and one that does. Theirs are timed within their process, around the call alone. Those that raise with today's packages
are mended, and left out of the totals. impulse_noise there draws from the system: no seed repeats it. Pictures are of
HW4FAST_DATA/photos/nips2017, else those that scikit-learn carries. Nothing else should run meanwhile. The README needs
a record of all parts: --record appends it there, --out to another file. Exit code 3: done, but something of theirs
raises, isn't equal or has another chance; it is named on stderr.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import corruptions_chance as chance
import numpy as np
from corruptions_pipe import ONE_THREAD, RaisedError, Theirs
from tqdm import tqdm

from hw4fast import kernels, record
from hw4fast.data.images import read_picture
from hw4fast.errors import UserError
from hw4fast.files import data_folder
from hw4fast.kernels.resize import resize
from hw4fast.timing import RESAMPLES, Ratio
from hw4fast.transforms import at_severity
from hw4fast.transforms.randomness import picture_key
from hw4fast.transforms.spec import SEVERITIES

RESULTS = Path(__file__).parent / "results" / "corruptions.jsonl"
FIXED, RANDOM, OTHER = "without chance", "with chance", "another picture of ice"
CORRUPTIONS = {
    "gaussian_noise": RANDOM, "shot_noise": RANDOM, "impulse_noise": RANDOM, "speckle_noise": RANDOM,
    "defocus_blur": FIXED, "glass_blur": RANDOM, "motion_blur": RANDOM, "zoom_blur": FIXED, "gaussian_blur": FIXED,
    "snow": RANDOM, "frost": OTHER, "fog": RANDOM, "spatter": RANDOM,
    "brightness": FIXED, "contrast": FIXED, "saturate": FIXED, "elastic": RANDOM, "pixelate": FIXED, "jpeg": FIXED,
}  # fmt: skip
THEIR_NAMES = {"elastic": "elastic_transform", "jpeg": "jpeg_compression"}
CHANCE_AT = {"spatter": (3, 5)}  # water, mud; the others at 3
SHARE_OF_DRAWS, FEWEST = {"glass_blur": 0.06}, 20  # there a call takes a second
SIDE, KEY = 224, b"a picture"
CLOSE = 2  # grey levels
EQUAL = 0.999  # of the values must be so close
NUMBERS = {  # options: as a rule, with --quick, at least
    "pictures": (8, 2, 1, "that are compared and timed"),
    "pairs": (32, 4, 2, "of calls that are timed, of each corruption"),
    "draws": (1000, 40, FEWEST, "of each corruption with chance"),
    "workers": (record.cores(), 1, 1, "processes that draw"),
}
Row = dict[str, Any]
At = Callable[[str], Sequence[int]]


@dataclass(frozen=True)
class Request:
    """team: processes with imagecorruptions; pictures: uint8 [n, SIDE, SIDE, 3]; the rest are the options."""

    team: Sequence[Theirs]
    pictures: np.ndarray
    severities: Sequence[int]
    pairs: int
    draws: int

    @property
    def theirs(self) -> Theirs:
        return self.team[0]

    @property
    def mended(self) -> dict[str, str]:
        return by_our_names(self.theirs.mended)

    @property
    def raises(self) -> dict[str, str]:
        return by_our_names(self.theirs.raises)


def main() -> int:
    arguments = _arguments()
    os.environ.update(ONE_THREAD)
    before = kernels.calls()
    try:
        pictures = photographs(arguments.pictures)
        names = [their_name(name) for name in CORRUPTIONS]
        with ExitStack() as stack:
            team = [stack.enter_context(Theirs(arguments.python, names, pictures)) for _ in range(arguments.workers)]
            request = Request(team, pictures, arguments.severities, arguments.pairs, arguments.draws)
            about = {"pictures": len(pictures), "side": SIDE, "theirs": team[0].versions, "mended": request.mended}
            found = about | {part: PARTS[part](request) for part in PARTS if part in arguments.parts}
    except UserError as error:
        print(f"corruptions.py: {error}", file=sys.stderr)
        return error.exit_code
    calls = kernels.calls()
    found["isas"] = sorted({isa for kernel in calls for isa, n in calls[kernel].items() if n > before[kernel][isa]})
    if out := RESULTS if arguments.record else arguments.out:
        record.append(out, "corruptions", found)
    bad = complaints(found)
    print(*bad, sep="\n", end="\n" * bool(bad), file=sys.stderr)
    return 3 if bad else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--python", required=True, help="the interpreter that has imagecorruptions")
    parser.add_argument("--severities", default="3", help="that are timed, such as 1,3,5; default: %(default)s")
    for name, (usual, _, _, what) in NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, help=f"{what}; default: {usual}")
    parser.add_argument("--quick", action="store_true", help="few pictures, pairs and draws: does it run at all?")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--record", action="store_true", help="append to the records that the README quotes")
    where.add_argument("--out", type=Path, help="append the record to this file")
    found = parser.parse_args()
    if unknown := set(found.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if found.record and (found.quick or found.parts):
        parser.error("the README's record is of all parts, and not --quick; name another file with --out")
    found.parts = found.parts or list(PARTS)
    for name, (usual, quick, least, _) in NUMBERS.items():
        if getattr(found, name) is None:
            setattr(found, name, quick if found.quick else usual)
        if getattr(found, name) < least:
            parser.error(f"--{name} must be at least {least}")
    if not re.fullmatch("[1-5](,[1-5])*", found.severities):
        parser.error("--severities takes numbers from 1 to 5, with commas between them")
    found.severities = sorted({int(text) for text in found.severities.split(",")})
    return found


def photographs(count: int) -> np.ndarray:
    """uint8 [n, SIDE, SIDE, 3], up to `count` photographs."""
    data = data_folder()
    files: Sequence[Any] = sorted((data / "photos" / "nips2017").glob("*.*g")) if data else ()
    if not files:
        from hw4fast.exporter import source

        files = source.photographs()
    return np.stack([resize(read_picture(file), (SIDE, SIDE), threads=1) for file in files[:count]])


def their_name(name: str) -> str:
    return THEIR_NAMES.get(name, name)


def by_our_names(told: Mapping[str, str]) -> dict[str, str]:
    return {name: told[their_name(name)] for name in CORRUPTIONS if their_name(name) in told}


def each(kind: str | None, request: Request, what: str, row: Callable[[str, int], Row], at: At) -> list[Row]:
    """A row of every corruption of that kind, any if None, and of each severity that `at` gives for it; where theirs
    raises, what it raised."""
    rows = []
    cases = [(name, severity) for name in CORRUPTIONS if kind in (None, CORRUPTIONS[name]) for severity in at(name)]
    for name, severity in tqdm(cases, what, disable=None, leave=False):
        head = {"corruption": name, "severity": severity}
        try:
            found = {"raises": request.raises[name]} if name in request.raises else row(name, severity)
        except RaisedError as error:  # on another picture than it was tried on
            found = {"raises": str(error)}
        rows.append(head | found)
    return rows


# -- equal -------------------------------------------------------------------------------------------------------


def equal(request: Request) -> list[Row]:
    def row(name: str, severity: int) -> Row:
        chain = at_severity(name, severity)
        results = [request.theirs.corrupt(their_name(name), severity, i)[0] for i in range(len(request.pictures))]
        ours = [chain(picture, seed=0, key=picture_key(picture)) for picture in request.pictures]
        return differences(np.stack(results), np.stack(ours))

    rows = each(FIXED, request, "equal", row, lambda _: SEVERITIES)
    print(f"\nequal: values of {len(request.pictures)} pictures within {CLOSE} grey levels, and the worst difference")
    cells: dict[str, list[str]] = {}
    for found in rows:
        cell = found.get("raises") or f"{100 * found['close']:.3f} % ({found['worst']})"
        cells.setdefault(found["corruption"], []).append(cell)
    for name, told in cells.items():
        print(f"  {name:<15} {f'{told[0]} at every severity' if len(set(told)) == 1 else '   '.join(told)}")
    return rows


def differences(theirs: np.ndarray, ours: np.ndarray) -> Row:
    """Of two uint8 arrays [n, h, w, c]: the share of values that are CLOSE, the worst difference in grey levels."""
    apart = np.abs(theirs.astype(np.int16) - ours)
    return {"values": apart.size, "close": float((apart <= CLOSE).mean()), "worst": int(apart.max())}


# -- chance ------------------------------------------------------------------------------------------------------


def same_chance(request: Request) -> list[Row]:
    def row(name: str, severity: int) -> Row:
        draws = max(FEWEST, round(request.draws * SHARE_OF_DRAWS.get(name, 1)))
        compared = chance.compare(*drawn(request, name, severity, draws))
        return {"draws": draws, "statistics": compared, "same": chance.same(compared)}

    rows = each(RANDOM, request, "chance", row, lambda name: CHANCE_AT.get(name, (3,)))
    print("\nchance: statistics of what changes in one picture")
    for row_ in rows:
        told = row_.get("raises") or "; ".join(chance.disagreements(row_["statistics"])) or "the same"
        print(f"  {row_['corruption']:<15} severity {row_['severity']}, {row_.get('draws', 0)} draws: {told}")
    return rows


def drawn(request: Request, name: str, severity: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of so many draws of theirs and ours on the first picture, [draws, len(chance.NAMES)] both."""
    picture, chain = request.pictures[0], at_severity(name, severity)

    def share(worker: int) -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        for draw in range(worker, draws, len(request.team)):
            seed = crc32(f"{name} {severity} {draw}".encode())  # no other corruption there draws the same numbers
            theirs, _ = request.team[worker].corrupt(their_name(name), severity, 0, seed)
            ours = chain(picture, seed=draw, key=KEY)
            found.append((chance.statistics(picture, theirs), chance.statistics(picture, ours)))
        return found

    with ThreadPoolExecutor(len(request.team)) as pool:
        pairs = [pair for part in pool.map(share, range(len(request.team))) for pair in part]
    theirs, ours = zip(*pairs, strict=True)
    return np.array(theirs), np.array(ours)


# -- time --------------------------------------------------------------------------------------------------------


def times(request: Request) -> Row:
    """Rows of every corruption and severity, and for each severity the totals of those that run as they are."""
    taken: dict[tuple[str, int], np.ndarray] = {}

    def row(name: str, severity: int) -> Row:
        pairs = taken[name, severity] = in_turns(request, name, severity)
        return {"theirs_ms": spread(pairs[:, 0]), "ours_ms": spread(pairs[:, 1]), "ratio": asdict(ratio([pairs]))}

    rows = each(None, request, "time", row, lambda _: request.severities)
    totals = []
    for severity in request.severities:
        counted = [pairs for (name, at), pairs in taken.items() if at == severity and name not in request.mended]
        if counted:
            theirs, ours = np.sum([np.median(pairs, axis=0) for pairs in counted], axis=0) * 1e3
            total = {"severity": severity, "corruptions": len(counted), "theirs_ms": theirs, "ours_ms": ours}
            totals.append(total | {"ratio": asdict(ratio(counted))})
    show_times(rows, totals, request)
    return {"pairs": request.pairs, "rows": rows, "totals": totals}


def in_turns(request: Request, name: str, severity: int) -> np.ndarray:
    """Seconds [pairs, 2], theirs and ours, the pictures one after the other."""
    chain, found = at_severity(name, severity), []
    for turn in range(request.pairs):
        number = turn % len(request.pictures)
        _, theirs = request.theirs.corrupt(their_name(name), severity, number, turn, calls=2)
        picture, key = request.pictures[number], picture_key(request.pictures[number])
        for _ in range(2):
            start = time.perf_counter()
            chain(picture, seed=0, key=key)
            ours = time.perf_counter() - start
        found.append((theirs, ours))
    return np.array(found)


def spread(seconds: np.ndarray) -> Row:
    low, median, high = np.percentile(seconds * 1e3, (25, 50, 75))
    return {"median": median, "quartiles": [low, high], "n": len(seconds)}


def ratio(measured: Sequence[np.ndarray]) -> Ratio:
    """How many times as long theirs take: the sum of medians over the sum of medians, of arrays [pairs, 2], with its
    95 % bootstrap interval; the pairs of each array are drawn anew. Its draws are fixed."""
    rng = np.random.Generator(np.random.PCG64(0))
    sums, drawn_sums = np.zeros(2), np.zeros((RESAMPLES, 2))
    for pairs in measured:
        sums += np.median(pairs, axis=0)
        drawn_sums += np.median(pairs[rng.integers(0, len(pairs), (RESAMPLES, len(pairs)))], axis=1)
    low, high = np.percentile(drawn_sums[:, 0] / drawn_sums[:, 1], (2.5, 97.5))
    return Ratio(float(sums[0] / sums[1]), float(low), float(high), min(map(len, measured)))


def show_times(rows: Sequence[Row], totals: Sequence[Row], request: Request) -> None:
    print(f"\ntime: {request.pairs} pairs over {len(request.pictures)} pictures of {SIDE}², one thread: theirs, ours")
    for row in rows:
        head = f"  {row['corruption']:<15} severity {row['severity']}"
        if "raises" in row:
            print(f"{head}: raises {row['raises']}")
            continue
        note = "  (mended)" if row["corruption"] in request.mended else ""
        medians = f"{row['theirs_ms']['median']:8.2f} ms {row['ours_ms']['median']:7.3f} ms"
        print(f"{head} {medians}  {Ratio(**row['ratio'])}{note}")
    for row in totals:
        medians = f"{row['theirs_ms']:8.2f} ms {row['ours_ms']:7.3f} ms"
        print(f"  all {row['corruptions']:<11} severity {row['severity']} {medians}  {Ratio(**row['ratio'])}")
    for name, text in request.mended.items():
        print(f"  mended: {name}, {text}")


def complaints(found: Row) -> list[str]:
    """A line for what raises, isn't equal, or has another chance."""
    lines = []
    for row in [*found.get("equal", ()), *found.get("chance", ()), *found.get("time", {}).get("rows", ())]:
        what = f"{row['corruption']}, severity {row['severity']}"
        if "raises" in row:
            lines.append(f"{what}: imagecorruptions raises {row['raises']}")
        elif row.get("close", 1) < EQUAL:
            lines.append(f"{what}: only {100 * row['close']:.2f} % within {CLOSE} grey levels, worst {row['worst']}")
        elif not row.get("same", True):
            lines.append(f"{what}: another chance, {'; '.join(chance.disagreements(row['statistics']))}")
    return list(dict.fromkeys(lines))


PARTS: dict[str, Callable[[Request], Any]] = {"equal": equal, "chance": same_chance, "time": times}

if __name__ == "__main__":
    sys.exit(main())
