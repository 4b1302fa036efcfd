"""The bridge: a run or a pretrained net becomes one self-describing ONNX file, checked against torch beforehand."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from hw4fast.errors import UsageError, UserError
from hw4fast.exporter.fuse import fuse
from hw4fast.exporter.graph import OPSET, to_onnx, write
from hw4fast.exporter.parity import compare, compare_inputs
from hw4fast.exporter.source import Source, of_architecture, of_run
from hw4fast.files import RUN_MODEL, writing
from hw4fast.inference.card import Card
from hw4fast.inference.known import NAME
from hw4fast.training.models.pretrained import architectures, check_architecture

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Result:
    """path: the file; card: what it carries; size: bytes."""

    path: Path
    card: Card
    size: int


def export(
    model: str | Path,
    onnx: str | Path | None = None,
    tolerance: float = TOLERANCE,
    weights: str | Path | None = None,
    preprocess: str | None = None,
    fused: bool = False,
) -> Result:
    """Writes a net as ONNX with its card inside.

    model: a finished run folder, written to RUN/model.onnx by default; or the name of one of torchvision's
    classification architectures, written to NAME.onnx, with `weights` (a file, see models.pretrained) and
    preprocessed as the preset `preprocess` says; by default as torchvision's weights say, "imagenet" for other ones.
    fused: convolution blocks that hw4fast's kernels do faster become functions, see exporter.fuse.
    The file takes "input", float32 [n, channels, height, width] of any n ≥ 1, and gives "logits" [n, classes].
    It is tried on real pictures at batch sizes 1, 2 and 7 before it gets its name: when a logit differs from
    torch's float64 result by more than `tolerance` times the largest logit, or an answer differs from torch's,
    there is no file and UserError says by how much. Raises UserError, too, for a folder without a finished run, and
    when `fused` finds no such block.
    """
    if not 0 < tolerance < math.inf:
        raise UsageError(f"tolerance must be positive, not {tolerance}")
    source, path = _source(model, onnx, weights, preprocess)
    provenance = source.provenance | ({"fused": True} if fused else {})
    card = Card(source.preprocessing, source.labels, provenance, {}, OPSET, source=source.source)
    with writing(path) as temporary:
        proto = to_onnx(source)
        if fused and not fuse(proto):
            raise UserError(f"'{model}' has no convolution that hw4fast's kernels do faster; export it without --fused")
        write(proto, card, temporary)
        parity = compare_inputs(source) | compare(source, temporary, tolerance, fused)
        card = replace(card, parity=parity)
        write(proto, card, temporary)
    return Result(path, card, path.stat().st_size)


def _source(
    model: str | Path, onnx: str | Path | None, weights: str | Path | None, preprocess: str | None
) -> tuple[Source, Path]:
    """What is exported, and where to."""
    if not Path(model).exists() and NAME.fullmatch(str(model)):
        try:
            check_architecture(str(model))
        except UsageError as error:
            raise UsageError(f"{model} is no run folder, and an {error}") from None
    if Path(model).exists() or str(model) not in architectures():
        if weights is not None or preprocess is not None:
            raise UsageError("weights and preprocessing go with an architecture; a run has its own")
        return of_run(Path(model)), Path(onnx) if onnx else Path(model) / RUN_MODEL
    return of_architecture(str(model), weights, preprocess), Path(onnx) if onnx else Path(f"{model}.onnx")
