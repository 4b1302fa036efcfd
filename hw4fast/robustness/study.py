"""`study`: what breaks a model. Every picture under every transform at every severity, as tables and as a page."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw4fast import record
from hw4fast.errors import Interrupted, UsageError, UserError
from hw4fast.files import alone, write_json
from hw4fast.kernels import check_threads
from hw4fast.paths import one_line, printable
from hw4fast.robustness.asking import BATCH, Asked
from hw4fast.robustness.breaking import PICTURES
from hw4fast.robustness.findings import headline
from hw4fast.robustness.folder import RECORD, begin, forget, unfinished
from hw4fast.robustness.measure import Measured, measure
from hw4fast.robustness.metrics import Row
from hw4fast.robustness.output import Outcome, command, write_files
from hw4fast.robustness.points import points_of
from hw4fast.robustness.source import Source, choose, open_source
from hw4fast.robustness.store import Store
from hw4fast.robustness.together import Batches
from hw4fast.transforms.own import fingerprint, import_transforms

STUDIES = Path("studies")
Models = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class ModelResult:
    """model: its name in the tables; clean: (right answers, labelled pictures) without a transform, None without
    labels; rows: the summary, clean first; finding: the page's first sentence."""

    model: str
    clean: tuple[int, int] | None
    rows: tuple[Row, ...]
    finding: str


@dataclass(frozen=True)
class StudyResult:
    """out: the folder that was written; report: its page, to look at next; n_images: pictures measured;
    models: what was found of each; failures: (name, reason) of each picture that could not be read;
    reused, predictions: how many answers were there from before, of how many; notes: what else is to be known.
    """

    out: Path
    report: Path
    n_images: int
    models: tuple[ModelResult, ...]
    failures: tuple[tuple[str, str], ...]
    reused: int
    predictions: int
    notes: tuple[str, ...] = ()

    @property
    def clean(self) -> tuple[int, int] | None:
        return self.models[0].clean

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.models[0].rows

    @property
    def finding(self) -> str:
        return self.models[0].finding

    def to_json(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            "report": str(self.report),
            "finding": self.finding,
            "n_images": self.n_images,
            "rows": [row.to_json() for row in self.rows],
            "models": [
                {"model": m.model, "finding": m.finding, "rows": [row.to_json() for row in m.rows]} for m in self.models
            ],
            "notes": list(self.notes),
            "failures": [{"image": name, "reason": reason} for name, reason in self.failures],
            "predictions": self.predictions,
            "reused": self.reused,
        }


def study(
    source: str | Path,
    model: Models,
    transforms: Sequence[str] | str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    provider: str = "cpu",
    threads: int | None = None,
    limit: int | None = None,
    progress: bool = True,
    labels: str | Path | None = None,
    imports: Sequence[str | Path] = (),
    resume: bool = False,
    breaking: int = PICTURES,
    batches: Batches | None = None,
) -> StudyResult:
    """Measures models on every picture of `source`, clean and under every transform, and writes what it found.

    source: a data set's name (its test split) or a folder of pictures (see `read_folder` for its labels).
    model: an exported `.onnx` file, a run folder or a known name; several are compared. transforms: names (each at
    severities 1…5) or specifications with a level such as `blur51` or `gaussian_noise:std=0.1+rotate10` (one point
    each); every transform if None.
    out: the folder to write; `studies/SOURCE` if None. A study of the same source and seed that stands there is gone on
    with: what it holds isn't asked again. Anything else is kept, and a numbered sibling written instead.
    seed: of all chance. threads: pictures at a time, one core each; all cores if None. limit: only that many pictures,
    the first of a shuffle that `seed` fixes. labels: a file that labels a folder's pictures (see `data.folder`).
    imports: Python files with transforms of the user's own. breaking: of how many pictures, evenly among them, the
    smallest strength is sought that changes the answer; 0 for none. resume: go on with a study that was interrupted.
    batches: a device that changes pictures and hands them to the models in batches, such as
    `hw4fast.batched.TorchBatches("cuda")` for the provider "cuda": the transforms' bytes are the same; each core for
    itself if None.

    The same arguments give byte-identical predictions and summaries on the same machine, whatever `threads` says.
    Raises UserError and UsageError for what can't be had, Interrupted on Ctrl-C (answers are kept); pictures that can't
    be read are skipped and reported.
    """
    started = time.perf_counter()
    if seed < 0 or seed >= 2**63:
        raise UsageError(f"seed must lie in 0 … 2^63 − 1, it is {seed}")
    if breaking < 0:
        raise UsageError(f"breaking must not be negative, it is {breaking}")
    workers = check_threads(threads) if threads is not None else record.cores()
    for path in imports:
        import_transforms(path)
    points = points_of([transforms] if isinstance(transforms, str) else transforms)
    models = [model] if isinstance(model, str | Path) else list(model)
    opened = open_source(source, labels)
    chosen = choose(len(opened.names), limit, seed)
    asked = _asked(models, provider, opened)
    arguments = {
        "source": str(source),
        "model": [str(name) for name in models],
        "transforms": None if transforms is None else [transforms] if isinstance(transforms, str) else list(transforms),
        "seed": seed,
        "provider": provider,
        "threads": threads,
        "limit": limit,
        "breaking": breaking,
        "labels": None if labels is None else str(labels),
        "out": None if out is None else str(out),
        "imports": [str(path) for path in imports],
    }
    wanted = _wanted(out, opened)
    made = [parent for parent in wanted.parents if not parent.exists()]
    folder = begin(wanted, opened.identity, seed, arguments, resume)
    try:
        with alone(folder, "studying into"):  # nothing of a folder that another process studies into is touched
            try:
                store = Store(folder, _setting(asked[0], batches))
                options: dict[str, Any] = {"seed": seed, "workers": workers, "progress": progress, "breaking": breaking}
                measured = measure(opened, chosen, asked, points, store, batches=batches, **options)
                store.finish()
                seconds, device = time.perf_counter() - started, batches.name if batches else "cpu"
                outcome = Outcome(arguments, opened, asked, measured, seconds, device)
                write_json(folder / RECORD, unfinished(opened.identity, seed, arguments))  # until all files are of it
                write_files(folder, outcome)
            except KeyboardInterrupt:
                raise Interrupted(f"interrupted{_kept(arguments, folder, made)}") from None
            except OSError as error:
                raise UserError(f"{_why(folder, error)}{_kept(arguments, folder, made)}") from None
            except BaseException:
                forget(folder, made)
                raise
    except OSError as error:
        raise UserError(_why(folder, error)) from None
    return _result(folder, outcome)


def _why(folder: Path, error: OSError) -> str:
    return f"the study can't be written to '{printable(str(folder))}' ({one_line(error.strerror or str(error))})"


def _asked(models: Sequence[str | Path], provider: str, source: Source) -> list[Asked]:
    """The models, opened, with names that differ. Each runs on one thread per picture."""
    from hw4fast.inference.classifier import Classifier

    if not models:
        raise UsageError("name at least one model to study")
    classifiers = [Classifier(model, provider, threads=1) for model in models]
    names = ["/".join(c.path.parts[-2:]) for c in classifiers]
    twice = {name for name in names if names.count(name) > 1}
    names = [str(c.path) if name in twice else name for name, c in zip(names, classifiers, strict=True)]
    if len({c.sha256 for c in classifiers}) < len(classifiers):
        raise UsageError("the same model is named twice; once is enough")
    return [Asked(name, c, source.labels_for(c.card.labels)) for name, c in zip(names, classifiers, strict=True)]


def _setting(model: Asked, batches: Batches | None) -> dict[str, str]:
    """What an answer depends on besides the model, the picture and the transform: versions, and the code itself, which
    in a source folder changes without them; and the size of batches, by which a net's sums may differ."""
    used = ("hw4fast", "onnxruntime-gpu", "onnxruntime", "numpy", "pillow")
    versions = record.versions()
    setting = {name: versions[name] for name in used if name in versions}
    setting |= {"provider": model.classifier.provider, "code": fingerprint()}
    return setting | {"batch": str(batches.size if batches else BATCH)}


def _kept(arguments: dict[str, Any], folder: Path, made: Sequence[Path]) -> str:
    again = shlex.join([*command(arguments | {"out": str(folder)}), "--resume"])
    if forget(folder, made):
        return " before the first answers were kept; nothing was written"
    return f"; the answers so far are kept, go on with: {again}"


def _wanted(out: str | Path | None, source: Source) -> Path:
    """Where to write. UsageError for a place inside the pictures' folder: the next study would take the study's own
    pictures for some of them."""
    wanted = STUDIES / source.name if out is None else Path(out)
    if wanted.name in ("", ".."):
        raise UsageError(f"name a folder to write the study to, not '{out}'")
    if source.folder is not None and wanted.resolve().is_relative_to(source.folder.resolve()):
        raise UsageError(f"the study would be written among the pictures, to '{wanted}'; name an --out elsewhere")
    return wanted


def _result(folder: Path, outcome: Outcome) -> StudyResult:
    def of(model: Asked, measured: Measured, rows: tuple[Row, ...]) -> ModelResult:
        clean = (rows[0].correct, rows[0].labelled) if rows[0].labelled else None
        return ModelResult(model.name, clean, rows, headline(rows))

    return StudyResult(
        out=folder,
        report=folder / "report.html",
        n_images=outcome.rows[0][0].n,
        models=tuple(map(of, outcome.models, outcome.measured, outcome.rows)),
        failures=outcome.measured[0].failures,
        reused=outcome.reused,
        predictions=outcome.predictions,
        notes=outcome.notes,
    )
