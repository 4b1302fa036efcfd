"""The bridge: a run or a pretrained net becomes one self-describing ONNX file, checked against torch beforehand."""

from __future__ import annotations

import copy
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hw4fast.errors import UsageError, UserError
from hw4fast.exporter import merits
from hw4fast.exporter.fuse import fuse
from hw4fast.exporter.graph import OPSET, replaceable, to_onnx, write
from hw4fast.exporter.parity import Differs, compare, compare_inputs
from hw4fast.exporter.pixels import can_fold, take_pixels
from hw4fast.exporter.precision import BATCH, METHOD, half, quantised
from hw4fast.exporter.samples import Calibration, calibration, judged
from hw4fast.exporter.source import Source, of_architecture, of_run
from hw4fast.files import PART, RUN_MODEL, writing
from hw4fast.inference.card import Card, Input
from hw4fast.inference.known import NAME
from hw4fast.paths import is_folder, is_model
from hw4fast.training.models.pretrained import architectures, check_architecture

INPUTS = ("float32", "uint8")
# Of the largest logit, against float64. Measured on photographs: float16 at most 0.0022 (four nets); int8 0.05
# (squeezenet1_1) and 0.12 (shufflenet_v2_x1_0), which one scale per tensor instead of per channel ruins: 0.86.
TOLERANCES = {"float32": 1e-5, "float16": 5e-3, "int8": 0.25}
TOLERANCE = TOLERANCES["float32"]


@dataclass(frozen=True)
class Result:
    """path: the file; card: what it carries; size: bytes; left_out: a line for each calibration picture that can't be
    read, unchecked: for each photograph on which the file would have been checked, had it been one that can be;
    replaced: the precision of the exported file that was there before."""

    path: Path
    card: Card
    size: int
    left_out: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    replaced: str | None = None


@dataclass(frozen=True)
class Variant:
    """What kind of file is wanted. UsageError for a kind that there isn't."""

    input: str = "float32"
    fused: bool = False
    fp16: bool = False
    int8: bool = False

    def __post_init__(self) -> None:
        if self.input not in INPUTS:
            raise UsageError(f"unknown input '{self.input}'; known: {', '.join(INPUTS)}")
        if self.fp16 and self.int8:
            raise UsageError("a file is in float16 or in int8, not both; say --fp16 or --int8")
        if self.fused and self.precision != "float32":
            raise UsageError(
                f"hw4fast's kernels know float32 and no {self.precision}; say --fused or --{self.flag}, not both"
            )

    @property
    def flag(self) -> str:
        return "fp16" if self.fp16 else "int8" if self.int8 else ""

    @property
    def precision(self) -> str:
        return "float16" if self.fp16 else "int8" if self.int8 else "float32"


def export(
    model: str | Path,
    onnx: str | Path | None = None,
    tolerance: float | None = None,
    weights: str | Path | None = None,
    preprocess: str | None = None,
    fused: bool = False,
    input: str = "float32",
    fp16: bool = False,
    int8: bool = False,
    calibrate: str | Path | None = None,
    licence: str | None = None,
) -> Result:
    """Writes a net as ONNX with its card inside.

    model: a finished run folder, written to RUN/model.onnx by default; or the name of one of torchvision's
    classification architectures, written to NAME.onnx, with `weights` (a file, or "DEFAULT", see models.pretrained) and
    preprocessed as `preprocess` says: "imagenet", "stretch" or "torchvision"; see exporter.origin for the default.
    fused: convolution blocks that hw4fast's kernels do faster become functions, see exporter.fuse.
    input: "float32", or "uint8": the file takes the fitted pictures and normalises them itself, see exporter.pixels.
    fp16, int8: weights and arithmetic in float16 or int8, see exporter.precision. calibrate: for int8, a folder of
    pictures on which its ranges are measured; by default training pictures of the run, or for an architecture the
    photographs that it is checked on. licence: of the weights, for the card; by default what is known of them (see
    exporter.origin), "" of a run's.
    The file takes "input", float32 [n, channels, height, width] or uint8 [n, height, width, channels], of any n ≥ 1,
    and gives "logits" [n, classes].
    It is tried on real pictures at batch sizes 1, 2 and 7 before it gets its name: when a logit differs from
    torch's float64 result by more than `tolerance` (default: TOLERANCES) times the largest logit, or in float32 an
    answer differs from torch's, there is no file and UserError says by how much. int8 is compared with the float32
    file, too, which must pass first, see exporter.merits. Raises UserError, too, for a folder without a finished run,
    when `fused` finds no such block, for a folder to calibrate on in which no picture can be read, and when a file
    stands there that `export` didn't write.
    """
    variant = Variant(input, fused, fp16, int8)
    tolerance = TOLERANCES[variant.precision] if tolerance is None else tolerance
    if not 0 < tolerance < math.inf:
        raise UsageError(f"tolerance must be positive, not {tolerance}")
    if calibrate is not None and not int8:
        raise UsageError("pictures to calibrate on go with --int8")
    if onnx and (str(onnx).endswith("/") or is_folder(onnx)):
        raise UsageError(f"'{onnx}' is a folder; name a file in it: {Path(onnx) / RUN_MODEL}")
    replaced = replaceable(Path(onnx)) if onnx else None  # before anything is fetched
    source, path = _source(model, onnx, weights, preprocess)
    replaced = replaced if onnx else replaceable(path)
    if licence is not None:
        source = replace(source, licence=licence)
    pictures = calibration(source, calibrate) if int8 else None
    with writing(path) as temporary:
        said = compare_inputs(source)
        graph = to_onnx(source)
        if pictures is None:
            card = _float(source, graph, variant, tolerance, temporary, said)[1]
        else:
            card = _int8(source, graph, variant, tolerance, pictures, temporary, said)
    left_out = () if pictures is None else pictures.left_out
    return Result(path, card, path.stat().st_size, left_out, source.left_out, replaced)


def _float(
    source: Source, graph: Any, variant: Variant, tolerance: float, path: Path, said: dict[str, Any]
) -> tuple[Any, Card]:
    """Writes and checks the file in float32 or float16 → the graph, and the card that the file carries.

    The division of uint8 pictures goes into the first convolution where the result is near enough to float64's.
    """
    if variant.fp16:
        graph = half(graph)
    ways = [False] if variant.input == "float32" else [True, False] if can_fold(graph) else [False]
    for fold in ways:
        proto, provenance = copy.deepcopy(graph), source.provenance | {"precision": variant.precision}
        if variant.input == "uint8":
            take_pixels(proto, source.preprocessing, fold)
            provenance["normalisation"] = "division folded into the first convolution" if fold else "nodes of its own"
        if variant.fused:
            provenance["fused"] = True
            if not fuse(proto):
                raise UserError("it has no convolution that hw4fast's kernels do faster; export it without --fused")
        card = _card(source, variant, provenance)
        write(proto, card, path)
        try:
            parity = said | compare(source, path, tolerance, variant.fused, variant.precision)
            break
        except Differs:
            if fold is ways[-1]:
                raise
    card = replace(card, parity=parity)
    write(proto, card, path)
    return proto, card


def _int8(
    source: Source,
    graph: Any,
    variant: Variant,
    tolerance: float,
    pictures: Calibration,
    path: Path,
    said: dict[str, Any],
) -> Card:
    """Writes and checks the file in int8, made from one in float32 that is as good as torch → its card."""
    from tqdm import tqdm

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / f"float32.{PART}.onnx"  # a name of which no optimised graph is kept
        proto, before = _float(source, graph, replace(variant, int8=False), TOLERANCE, plain, said)
        batches = [pictures.pictures[i : i + BATCH] for i in range(0, len(pictures.pictures), BATCH)]
        if variant.input == "float32":
            batches = [source.preprocessing.normalise(batch) for batch in batches]
        with tqdm(total=len(pictures.pictures), desc="calibrating", unit="img", disable=None, leave=False) as bar:
            proto = quantised(proto, batches, Path(folder), bar.update)
        how = {"method": METHOD, "pictures": len(pictures.pictures), "origin": pictures.origin}
        card = replace(before, provenance=before.provenance | {"precision": "int8", "calibration": how}, parity={})
        write(proto, card, path)
        parity = said | compare(source, path, tolerance, precision="int8")
        parity["judged"] = merits.judge(plain, path, judged(source, pictures.pictures))
        parity["speed"] = merits.race(plain, path, source.pictures)
        parity["float32"] = {key: before.parity[key] for key in ("max_error_to_float64", "tolerance")}
        parity["float32"]["size"] = plain.stat().st_size
    card = replace(card, parity=parity)
    write(proto, card, path)
    return card


def _card(source: Source, variant: Variant, provenance: dict[str, Any]) -> Card:
    taken = Input(layout="NHWC", dtype="uint8") if variant.input == "uint8" else Input()
    return Card(
        source.preprocessing, source.labels, provenance, {}, OPSET, taken, licence=source.licence, source=source.source
    )


def _source(
    model: str | Path, onnx: str | Path | None, weights: str | Path | None, preprocess: str | None
) -> tuple[Source, Path]:
    """What is exported, and where to."""
    stands = is_model(model)
    if not stands and NAME.fullmatch(str(model)):
        try:
            check_architecture(str(model))
        except UsageError as error:
            raise UsageError(f"{model} is no run folder, and an {error}") from None
    if stands or str(model) not in architectures():
        if weights is not None or preprocess is not None:
            raise UsageError("weights and preprocessing go with an architecture; a run has its own")
        return of_run(Path(model)), Path(onnx) if onnx else Path(model) / RUN_MODEL
    return of_architecture(str(model), weights, preprocess), Path(onnx) if onnx else Path(f"{model}.onnx")
