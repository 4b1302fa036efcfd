#!/usr/bin/env python
"""How fast and how large a study is: beside onnxruntime alone on ready tensors, and with ten times the photographs.

    python benchmarks/studying.py FOLDER [--model NAME] [--record]

1. speed: every transform at every severity of a few photographs, from their files to answers in the store, taking turns
   with onnxruntime that is given ready tensors: at its best of several batch sizes, on its own threads and with one
   thread per picture. Median and quartiles of the ratios of the turns.
2. memory: the largest resident size of `hw4fast study` in a process of its own, with 100 photographs and with 1,000,
   under three transforms. Where there are fewer, some stand there under several names, and are asked about each time.
3. bytes: predictions.parquet on 1, 2 and 4 workers.

--record appends to the record that the README quotes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast import record
from hw4fast.data.folder import read_folder
from hw4fast.inference.classifier import Classifier
from hw4fast.robustness.asking import Asked
from hw4fast.robustness.measure import measure
from hw4fast.robustness.points import points_of
from hw4fast.robustness.source import Source, choose, open_source
from hw4fast.robustness.store import Store

ROUNDS, PHOTOS, PILOT = 21, 2, 7  # of the speed: turns, photographs of each, tries to find onnxruntime's best
SOME = ("gaussian_noise", "blur", "snow")
BATCHES = (1, 8, 32)


@dataclass(frozen=True)
class Engine:
    """onnxruntime alone: `workers` calls at a time, each on `threads` threads, of ready batches."""

    classifier: Classifier
    workers: int
    batch: int

    def images_per_s(self, tensor: np.ndarray, seconds: float) -> float:
        part = tensor[: self.batch]
        end = time.perf_counter() + seconds

        def run(_: int) -> int:
            done = 0
            while time.perf_counter() < end:
                self.classifier.logits(part)
                done += self.batch
            return done

        start = time.perf_counter()
        with ThreadPoolExecutor(self.workers) as pool:
            total = sum(pool.map(run, range(self.workers)))
        return total / (time.perf_counter() - start)


def speed(folder: str, model: str, photos: int, rounds: int) -> dict[str, Any]:
    """images/s of the study and of onnxruntime's best, and their ratio, per round."""
    cores = record.cores()
    source = open_source(folder)
    one, whole = Classifier(model, threads=1), Classifier(model, threads=cores, kernels=False)
    asked = Asked(model, one, source.labels_for(one.card.labels))
    chosen = choose(len(source.names), photos * (rounds + 1), 0)
    points = points_of(None)
    tensor = one.tensor(np.stack([one.fit(source.read(int(n))) for n in np.resize(chosen, max(BATCHES))]))
    engines = {f"{cores} × 1 thread, batch {batch}": Engine(one, cores, batch) for batch in BATCHES}
    engines |= {f"{cores} threads, batch {batch}": Engine(whole, 1, batch) for batch in BATCHES}
    pilot: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(PILOT):
        for name, engine in engines.items():  # in turns: a slow second of the machine must not choose
            pilot[name].append(engine.images_per_s(tensor, 0.8))
    best = max(pilot, key=lambda name: float(np.median(pilot[name])))
    found: dict[str, list[float]] = {"study": [], best: []}
    for round_ in range(rounds + 1):  # the first one warms up
        few = chosen[np.arange(round_ * photos, (round_ + 1) * photos) % len(chosen)]
        # short turns: a shared machine may lose half of its speed for seconds
        rates = {"study": _study_rate(source, few, asked, points, cores)}
        rates[best] = engines[best].images_per_s(tensor, photos * len(points) / rates["study"])
        if round_:
            for name, rate in rates.items():
                found[name].append(rate)
        print(f"round {round_}: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()), file=sys.stderr)
    ratios = np.array(found["study"]) / np.array(found[best])
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    return {
        "photos": photos,
        "points": len(points),
        "images_per_s": {name: float(np.median(rates)) for name, rates in found.items()},
        "pilot_images_per_s": pilot,
        "best": best,
        "ratio": {"median": float(middle), "low": float(low), "high": float(high)},
        "rounds": rounds,
    }


def _study_rate(source: Source, chosen: np.ndarray, asked: Asked, points: Any, workers: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        store = Store(Path(folder), {})
        measure(source, chosen, [asked], points, store, seed=0, workers=workers, progress=False)
        return len(chosen) * len(points) / (time.perf_counter() - start)


def memory(folder: str, model: str, counts: tuple[int, ...]) -> dict[str, Any]:
    """MiB of the largest resident size, by the number of photographs."""
    found = {}
    given = read_folder(Path(folder).resolve())
    labels = given.labels if given.class_names is None else None  # of a labels.csv
    for count in counts:
        with tempfile.TemporaryDirectory() as out:
            many = Path(out, "many")
            many.mkdir()
            lines = ["file,label"]
            for number, place in zip(range(count), cycle(range(len(given.files))), strict=False):
                name = f"{number:05d}{given.files[place].suffix}"
                (many / name).symlink_to(given.files[place])
                if labels is not None and labels[place] is not None:
                    lines.append(f"{name},{labels[place]}")
            if labels is not None:
                (many / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
            words = ["study", str(many), "--model", model, "--transforms", ",".join(SOME)]
            code = _peak([*words, "--breaking", "0", "--out", f"{out}/s"])
            done = json.loads(Path(out, "s", "study.json").read_text(encoding="utf-8"))
            found[str(done["n"])] = code
        print(f"{count} photographs: {code:.0f} MiB", file=sys.stderr)
    return {"peak_mib": found, "transforms": list(SOME)}


def _peak(words: list[str]) -> float:
    """Runs the command line in a process of its own and asks the system for its largest size."""
    code = (
        "import resource, subprocess, sys; subprocess.run([sys.executable, '-m', 'hw4fast', *sys.argv[1:]], check=True,"
        "stdout=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True)
    return int(done.stdout) / (1024 if sys.platform != "darwin" else 1024**2)


def bytes_by_workers(folder: str, model: str, photos: int) -> dict[str, str]:
    """SHA-256 of predictions.parquet, by the number of workers."""
    found = {}
    for workers in (1, 2, 4):
        with tempfile.TemporaryDirectory() as out:
            words = [sys.executable, "-m", "hw4fast", "study", folder, "--model", model, "--limit", str(photos)]
            words += ["--threads", str(workers), "--breaking", "2", "--out", f"{out}/s"]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            content = Path(out, "s", "predictions.parquet").read_bytes()
        found[str(workers)] = hashlib.sha256(content).hexdigest()
        print(f"{workers} workers: {found[str(workers)][:16]}", file=sys.stderr)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="of photographs")
    parser.add_argument("--model", default="shufflenet_v2_x1_0", metavar="NAME")
    parser.add_argument("--photos", type=int, default=PHOTOS, help="of the speed; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the speed; default: %(default)s")
    parser.add_argument("--counts", default="100,1000", help="photographs of the memory; default: %(default)s")
    parser.add_argument("--record", action="store_true", help="append to the record that the README quotes")
    a = parser.parse_args()
    found = {"model": a.model, "speed": speed(a.folder, a.model, a.photos, a.rounds)}
    found["memory"] = memory(a.folder, a.model, tuple(int(n) for n in a.counts.split(",")))
    found["bytes"] = bytes_by_workers(a.folder, a.model, min(a.photos, 4))
    ratio = found["speed"]["ratio"]
    print(
        f"{found['speed']['images_per_s']['study']:.0f} images/s, {100 * ratio['median']:.0f} % of onnxruntime alone"
        f" ({100 * ratio['low']:.0f} … {100 * ratio['high']:.0f}; {found['speed']['best']}); memory"
        f" {found['memory']['peak_mib']} MiB; {len(set(found['bytes'].values()))} kind of bytes on 1, 2 and 4 workers"
    )
    if a.record:
        record.append(Path(__file__).parent / "results" / "studying.jsonl", "studying", found)
    return 0 if len(set(found["bytes"].values())) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
