"""The bridge: a run or a pretrained net becomes one self-describing ONNX file, checked against torch beforehand."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from hw4fast import record
from hw4fast.data import Preprocessing
from hw4fast.data.images import read_picture
from hw4fast.data.preprocessing import preset
from hw4fast.errors import UsageError, UserError
from hw4fast.files import RUN_MODEL, data_folder, writing
from hw4fast.inference.card import KEY, Card
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.known import NAME
from hw4fast.training import runs
from hw4fast.training.models.pretrained import (
    architectures,
    check_architecture,
    find_weights,
    labels,
    pretrained,
    torchvisions_preprocessing,
)
from hw4fast.training.settings import Settings

OPSET = 20
BATCHES = (1, 2, 7)
SAMPLES = 64
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Result:
    """path: the file; card: what it carries; size: bytes."""

    path: Path
    card: Card
    size: int


@dataclass(frozen=True)
class _Source:
    """What is exported. model: in evaluation mode; pictures: uint8, fitted, on which it is checked; photographs: the
    files' bytes that they were made of, where there are such."""

    model: nn.Module
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    provenance: dict[str, Any]
    pictures: np.ndarray
    photographs: tuple[bytes, ...] = ()
    source: str = ""


def export(
    model: str | Path,
    onnx: str | Path | None = None,
    tolerance: float = TOLERANCE,
    weights: str | Path | None = None,
    preprocess: str | None = None,
) -> Result:
    """Writes a net as ONNX with its card inside.

    model: a finished run folder, written to RUN/model.onnx by default; or the name of one of torchvision's
    classification architectures, written to NAME.onnx, with `weights` (a file, see models.pretrained) and
    preprocessed as the preset `preprocess` says; by default as torchvision's weights say, "imagenet" for other ones.
    The file takes "input", float32 [n, channels, height, width] of any n ≥ 1, and gives "logits" [n, classes].
    It is tried on real pictures at batch sizes 1, 2 and 7 before it gets its name: when a logit differs from
    torch's float64 result by more than `tolerance` times the largest logit, or an answer differs from torch's,
    there is no file and UserError says by how much. Raises UserError, too, for a folder without a finished run.
    """
    if not 0 < tolerance < math.inf:
        raise UsageError(f"tolerance must be positive, not {tolerance}")
    if not Path(model).exists() and NAME.fullmatch(str(model)):
        try:
            check_architecture(str(model))
        except UsageError as error:
            raise UsageError(f"{model} is no run folder, and an {error}") from None
    if Path(model).exists() or str(model) not in architectures():
        if weights is not None or preprocess is not None:
            raise UsageError("weights and preprocessing go with an architecture; a run has its own")
        source, path = _run(Path(model)), Path(onnx) if onnx else Path(model) / RUN_MODEL
    else:
        source, path = _architecture(str(model), weights, preprocess), Path(onnx) if onnx else Path(f"{model}.onnx")
    card = Card(source.preprocessing, source.labels, source.provenance, {}, OPSET, source=source.source)
    with writing(path) as temporary:
        proto = _to_onnx(source)
        _write(proto, card, temporary)
        parity = _compare_inputs(source) | _compare(source, temporary, tolerance)
        card = replace(card, parity=parity)
        _write(proto, card, temporary)
    return Result(path, card, path.stat().st_size)


def _run(run: Path) -> _Source:
    entry = runs.load_record(run)
    settings, dataset = Settings.from_json(entry["settings"]), runs.load_data(entry)
    kept = ("settings", "data", "result", "commit", "sessions")
    provenance = {key: entry[key] for key in kept if key in entry} | _now()
    paths = {name: Path(value).name for name in ("dataset", "init", "weights") if (value := getattr(settings, name))}
    provenance["settings"] = entry["settings"] | paths  # no folder of this machine goes into the file
    pictures = np.stack([dataset.preprocessing.fit(image) for image in dataset.test.images[:SAMPLES]])
    model = runs.load_model(run, dataset)
    return _Source(model, dataset.preprocessing, dataset.class_names, provenance, pictures)


def _architecture(name: str, weights: str | Path | None, preprocess: str | None) -> _Source:
    model, source = pretrained(name, weights)
    if preprocess is None and find_weights(name, weights) is None:
        preprocess, preprocessing = "torchvision", torchvisions_preprocessing(name)
    else:
        preprocess = preprocess or "imagenet"
        preprocessing = preset(preprocess)
    provenance = {"architecture": name, "weights": source, "preset": preprocess} | _now()
    files = photographs()
    pictures = np.stack([preprocessing.fit(read_picture(file)) for file in files])
    return _Source(model, preprocessing, labels(name), provenance, pictures, files, source=source)


def _now() -> dict[str, Any]:
    return {"exported": record.now(), "versions": record.versions()}


def photographs() -> tuple[bytes, ...]:
    """Real pictures to try a net on, as the bytes of JPEG files: the two photographs that scikit-learn carries, whole
    and in quarters, and the first of HW4FAST_DATA/photos, where there are some."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    files = []
    for photo in load_sample_images().images:
        top, left = photo.shape[0] // 2, photo.shape[1] // 2
        for part in (photo, photo[:top, :left], photo[:top, left:], photo[top:, :left], photo[top:, left:]):
            file = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(part)).save(file, "JPEG", quality=95)
            files.append(file.getvalue())
    data = data_folder()
    found = sorted((data / "photos").glob("*/*.[jJ][pP]*[gG]")) if data else []
    return (*files, *(path.read_bytes() for path in found[:: max(1, len(found) // (SAMPLES - len(files)))]))[:SAMPLES]


def _to_onnx(source: _Source) -> Any:
    """The net as an onnx.ModelProto with a dynamic batch, without traces of this machine's folders."""
    example = torch.zeros(2, source.preprocessing.channels, *source.preprocessing.crop)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with _interruptible(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            source.model,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # stack traces, with this machine's paths
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    return proto


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """torch.onnx takes a Ctrl-C for an error of its own; afterwards it is one again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield
    except Exception:
        if pressed:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def _write(proto: Any, card: Card, path: Path) -> None:
    import onnx

    onnx.helper.set_model_props(proto, {KEY: card.to_json_text()})
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _compare_inputs(source: _Source) -> dict[str, Any]:
    """From JPEG bytes to the net's input by torchvision's own transforms: the same tensors to the last bit, or
    UserError."""
    if not source.photographs:
        return {}
    from PIL import Image
    from torchvision import transforms

    p = source.preprocessing
    mode = transforms.InterpolationMode(p.interpolation)
    if p.resize == "stretch":
        fit = [transforms.Resize(list(p.crop), mode)]
    else:
        fit = [transforms.Resize(p.resize_size, mode), transforms.CenterCrop(list(p.crop))]
    # as the presets of its weights do it; its newer ToDtype multiplies by 1/255 instead, which rounds another way
    end = [transforms.PILToTensor(), transforms.ConvertImageDtype(torch.float32), transforms.Normalize(p.mean, p.std)]
    theirs = transforms.Compose([*fit, *end])
    ours = torch.from_numpy(p.normalise(source.pictures))
    for mine, file in zip(ours, source.photographs, strict=True):
        wanted = theirs(Image.open(io.BytesIO(file)).convert("RGB"))
        if not torch.equal(mine, wanted):
            worst = float((mine - wanted).abs().max())
            raise UserError(f"our input differs from torchvision's by {worst:.3g}; no file was written")
    return {"inputs_equal_to_torchvision": len(source.photographs)}


def _compare(source: _Source, path: Path, tolerance: float) -> dict[str, Any]:
    """Runs the file as `classify` would and measures how far it is from torch, in float32 and float64."""
    pictures, model = source.pictures, source.model
    classifier = Classifier(path)
    with torch.inference_mode():
        inputs = torch.from_numpy(source.preprocessing.normalise(pictures))
        single = model(inputs).numpy()
        double = model.double()(inputs.double()).numpy()
        model.float()
    sizes = (len(pictures), *BATCHES)
    ours = np.stack(  # [sizes, n, classes]; the worst of them counts, and a NaN makes the maximum a NaN
        [
            np.concatenate([classifier.logits(pictures[i : i + size]) for i in range(0, len(pictures), size)])
            for size in sizes
        ]
    )
    largest = float(np.abs(double).max())
    parity: dict[str, Any] = {
        "images": len(pictures),
        "batches": list(sizes),
        "provider": classifier.provider,
        "largest_logit": largest,
        "max_error_to_torch": float(np.abs(ours - single).max()),
        "max_error_to_float64": float(np.abs(ours - double).max()),
        "torch_max_error_to_float64": float(np.abs(single - double).max()),
        "same_answers": int((ours.argmax(2) == single.argmax(1)).all(0).sum()),
        "tolerance": tolerance,
    }
    if not parity["max_error_to_float64"] <= tolerance * largest or parity["same_answers"] != len(pictures):
        raise UserError(
            f"the exported net differs from torch: {parity['max_error_to_float64']:.3g} at most where"
            f" {tolerance:g} × {largest:.3g} is allowed, {parity['same_answers']} of {len(pictures)} answers the same;"
            " no file was written"
        )
    return parity
