"""Every way to compute one net here: torch's and onnxruntime's."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast.bench.choosing import Chosen, choose, some_files
from hw4fast.errors import UserError
from hw4fast.files import RUN_MODEL
from hw4fast.inference.card import KEY, Card
from hw4fast.inference.classifier import Classifier
from hw4fast.inference.known import NAME, find_model
from hw4fast.inference.session import PROVIDERS, explain_provider
from hw4fast.paths import is_file, is_model, is_run

Engine = Callable[[np.ndarray], Callable[[], np.ndarray]]  # uint8 [n, h, w, c] of fitted pictures → its call on the
# tensor that they make: → logits [n, classes]
ONNX, TORCH = "onnxruntime", "torch"
AGREEMENT = 1e-3  # largest difference of two engines' logits, in units of the largest logit
SAMPLES = 64


@dataclass
class Engines:
    """card: of the model; chosen: pictures for it; ready: {name: engine}; tolerances: {name: how far from the first
    one's its logits may be, in units of the largest, where it computes in another precision}; files: {name: the file
    that it runs, for whole processes}; left_out: {name: why it doesn't run}; failed: whether pictures or a part are
    among these, which should have worked; interrupted: by Ctrl-C, after which nothing more is measured; net: as torch
    knows it, for what isn't only a file."""

    card: Card
    chosen: Chosen
    ready: dict[str, Engine] = field(default_factory=dict)
    tolerances: dict[str, float] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: bool = False
    interrupted: bool = False
    net: Any = None

    @property
    def pictures(self) -> np.ndarray:
        """uint8 [n, h, w, c], up to SAMPLES, for tensors."""
        return self.chosen.fitted[:SAMPLES]

    def fail(self, what: str, error: Exception) -> None:
        """Leaves out what should have worked."""
        self.left_out[what], self.failed = first_line(error), True


def engines_of(model: str | Path, folder: Path | None, scratch: Path, threads: int) -> Engines:
    """What runs here of a run folder, an .onnx file with a card, or an architecture's name. folder: of pictures; what
    the model was made for if None, see choosing.py. Files that are made for it lie in `scratch`. Raises UserError for
    a model or pictures that can't be had."""
    file = _onnx_file(model, scratch)
    classifier = Classifier(file)
    found = Engines(classifier.card, choose(folder or some_files(model, scratch / "pictures"), classifier.fit))
    if found.chosen.broken:
        found.left_out[found.chosen.count()], found.failed = found.chosen.reason(), True
    _add_torch(found, model, scratch, threads)
    for provider in PROVIDERS:
        name = f"{ONNX} {provider}"
        reason = explain_provider(provider)
        if reason:
            found.left_out[name] = reason
        else:
            _add_onnx(found, name, file, provider, threads)
    for kind, change in CHANGES.items():
        _add_changed(found, kind, change, file, scratch, threads)
    return found


def _onnx_file(model: str | Path, scratch: Path) -> Path:
    """The .onnx file of the model; a run that was not exported yet is exported to `scratch`."""
    path = Path(model)
    if not is_run(path):
        return find_model(model)
    if is_file(path / RUN_MODEL):
        return path / RUN_MODEL
    from hw4fast.exporter import export

    return export(path, scratch / RUN_MODEL).path


def _add_onnx(found: Engines, name: str, file: Path, provider: str, threads: int) -> None:
    # it was opened before, or made here; torch is in this process only to take turns with it
    found.ready[name] = _onnx_engine(Classifier(file, provider, threads, trusted=True, spin=True))
    found.files[name] = file


def _onnx_engine(classifier: Classifier) -> Engine:
    def engine(pictures: np.ndarray) -> Callable[[], np.ndarray]:
        x = pictures if classifier.card.input.dtype == "uint8" else classifier.tensor(pictures)
        return lambda: classifier.logits(x)

    return engine


def _add_changed(
    found: Engines, kind: str, change: Callable[[Any, Engines, Path], Any], file: Path, scratch: Path, threads: int
) -> None:
    """The same graph rewritten, where the model is in float32 and takes that."""
    import onnx

    from hw4fast.exporter import TOLERANCES

    name, on_gpu, target = f"{ONNX} cpu {kind}", f"{ONNX} cuda {kind}", scratch / f"{kind}.onnx"
    try:
        if found.card.input.dtype != "float32" or found.card.provenance.get("precision", "float32") != "float32":
            raise ValueError("made of models in float32 only")
        proto = change(onnx.load(file), found, scratch)
        onnx.helper.set_model_props(proto, {KEY: found.card.to_json_text()})  # a known file has none in it
        target.write_bytes(proto.SerializeToString())
        _add_onnx(found, name, target, "cpu", threads)
        if kind in TOLERANCES:
            found.tolerances |= dict.fromkeys((name, on_gpu), TOLERANCES[kind])
    except Exception as error:  # of onnx and onnxruntime's tools: a graph that they can't read, change or write
        found.left_out[name] = first_line(error)
        return
    if kind == FOR_GPUS and f"{ONNX} cuda" in found.ready:
        try:
            _add_onnx(found, on_gpu, target, "cuda", threads)
        except UserError as error:
            found.left_out[on_gpu] = first_line(error)


def _fused(proto: Any, _: Engines, _scratch: Path) -> Any:
    from hw4fast.exporter.fuse import fuse

    if not fuse(proto):
        raise ValueError("the net has no convolution that hw4fast's kernels do faster")
    return proto


def _half(proto: Any, _: Engines, _scratch: Path) -> Any:
    from hw4fast.exporter.precision import half

    return half(proto)


def _int8(proto: Any, found: Engines, scratch: Path) -> Any:
    from hw4fast.exporter.precision import BATCH, quantised

    normalise, n = found.card.preprocessing.normalise, len(found.pictures)
    batches = [normalise(found.pictures[start : start + BATCH]) for start in range(0, n, BATCH)]
    folder = scratch / "int8"
    folder.mkdir()
    return quantised(proto, batches, folder, lambda _: None)


FOR_GPUS = "float16"  # what a GPU computes faster
CHANGES = {"fused": _fused, "float16": _half, "int8": _int8}


def _add_torch(found: Engines, model: str | Path, scratch: Path, threads: int) -> None:
    try:
        found.net = torch_net(model)
    except UserError as error:
        found.left_out[TORCH] = first_line(error)
    if found.net is None:
        found.left_out.setdefault(TORCH, "an .onnx file holds no torch model; bench the run folder or an architecture")
        return
    import torch

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it tells at length of a missing GPU
    normalise = found.card.preprocessing.normalise
    net = found.net

    def engine(call: Callable[[Any], Any], memory: Any = torch.contiguous_format) -> Engine:
        def on(pictures: np.ndarray) -> Callable[[], np.ndarray]:
            x = torch.from_numpy(normalise(pictures)).to(memory_format=memory)

            def run() -> np.ndarray:
                if torch.get_num_threads() != threads:
                    torch.set_num_threads(threads)
                with torch.inference_mode():
                    return call(x).numpy()

            return run

        return on

    found.ready[f"{TORCH} eager"] = engine(net)
    found.files[f"{TORCH} eager"] = scratch / "net.pt"
    torch.save(net, found.files[f"{TORCH} eager"])
    found.ready[f"{TORCH} channels-last"] = engine(_channels_last(model), torch.channels_last)
    found.ready[f"{TORCH}.compile"] = engine(torch.compile(net))


def _channels_last(model: str | Path) -> Any:
    """A net of its own: changing the memory format changes the weights in place."""
    import torch

    return torch_net(model).to(memory_format=torch.channels_last)


def torch_net(model: str | Path) -> Any:
    """The net in evaluation mode; None for a file. Raises UserError when its weights can't be had."""
    if is_run(model):
        from hw4fast.training import runs

        return runs.load_model(Path(model), runs.load_data(runs.load_record(Path(model))))
    if is_model(model) or not NAME.fullmatch(str(model)):
        return None
    from hw4fast.training.models.pretrained import pretrained

    return pretrained(str(model))[0]


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0]


@contextmanager
def threads_kept() -> Iterator[None]:
    """torch's number of threads, where torch was loaded, is afterwards what it was."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(before)
