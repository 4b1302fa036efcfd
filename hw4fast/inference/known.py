"""Models by name: files of the model folders, and nets of torchvision's that are exported once into the cache."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hw4fast.data import carried
from hw4fast.data.preprocessing import preset
from hw4fast.errors import UserError
from hw4fast.files import cache_folder, data_folder
from hw4fast.inference.card import Card
from hw4fast.paths import is_folder, is_model, model_file, one_line

DEFAULT = "shufflenet_v2_x1_0"  # small and good: 9 MB, 74.8 % of 456 photographs that it never saw
NAME = re.compile(r"[a-z][a-z0-9_]*")  # of an architecture of torchvision's
BEGUN = "begun"  # what `export --begun` says on stderr when it knows the net
MODELS, LABELS = "models", "imagenet_classes.csv"  # in HW4FAST_DATA


@dataclass(frozen=True)
class Known:
    """What a file of the model folder doesn't say about itself."""

    source: str
    licence: str
    preset: str = "imagenet"
    opset: int = 17


KNOWN = {
    "squeezenet1_1": Known("the authors' SqueezeNet 1.1, weights in float16", "BSD"),
    "shufflenet_v2_x1_0": Known("onnx/models' ShuffleNet v2, weights in int8", "BSD-3-Clause"),
    "mobilenet_v2": Known("Coral's MobileNetV2, weights in int8", "Apache-2.0"),
}


def find_model(model: str | Path) -> Path:
    """The .onnx file that `model` names: a file, a run folder, or an architecture's name.

    The former two win, where they are. An architecture is looked for as NAME.onnx in HW4FAST_DATA/models and in the
    cache's models/, else exported there once, by a process of its own, because that needs torch. Raises UserError when
    nothing of that helps.
    """
    if is_model(model) or not NAME.fullmatch(str(model)):
        return model_file(model)
    for folder in model_folders():
        if (folder / f"{model}.onnx").is_file():
            return folder / f"{model}.onnx"
    return _exported(str(model))


def model_folders() -> list[Path]:
    """Where models are looked for by name, first to last."""
    data = data_folder()
    return [*([data / MODELS] if data else []), cache_folder() / MODELS]


def known_card(path: Path) -> Card | None:
    """The card of a file of HW4FAST_DATA/models that carries none, None for any other file. It may be a link to where
    its bytes are kept (git-annex, DVC).

    Raises UserError when the labels that belong to it can't be read.
    """
    data, known = data_folder(), KNOWN.get(path.stem)
    if known is None or data is None or path.parent.resolve() != (data / MODELS).resolve():
        return None
    provenance = {"architecture": path.stem, "weights": path.name, "preset": known.preset}
    return Card(
        preset(known.preset),
        imagenet_labels(data / LABELS),
        provenance,
        {},
        known.opset,
        licence=known.licence,
        source=known.source,
    )


def imagenet_labels(path: Path) -> tuple[str, ...]:
    """The first name of each class of a table with the columns index, wnid and name. Raises UserError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        names = tuple(row["name"].split(",")[0].strip() for row in sorted(rows, key=lambda row: int(row["index"])))
    except (OSError, ValueError, KeyError, AttributeError, csv.Error) as error:
        raise UserError(f"the labels of the model folder can't be read from '{path}': {one_line(error)}") from None
    return names


def _exported(name: str) -> Path:
    none = f"there is no model '{name}'" + (f" (the folder '{name}' holds no run)" if is_folder(name) else "")
    if hint := carried.unknown_architecture(name, carried.architectures()):
        raise UserError(f"{none}; {hint}")
    path = cache_folder() / MODELS / f"{name}.onnx"
    # -P: what lies in the caller's folder, an onnx.py for instance, is no module
    command = [sys.executable, "-P", "-m", "hw4fast", "export", name, "--begun", "--onnx", str(path)]
    said = "it did not say why"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        try:
            for line in filter(str.strip, child.stderr):
                if line.strip() == BEGUN:
                    print(f"hw4fast: exporting {name} to {path}, once", file=sys.stderr)
                else:
                    said = line.strip().removeprefix("hw4fast: ")
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        raise UserError(f"{none}, and it can't be made: {_refusal(name, said)}")
    return path


def _refusal(name: str, said: str) -> str:
    """The last line of `export`, which doesn't know which verb was asked."""
    before, asked, _ = said.rpartition(", or name a file with --weights FILE")  # which export alone has
    if asked:
        file = f"{name}.onnx"
        return f"{before}, or: hw4fast export {name} --weights FILE --onnx {file} and then --model {file}"
    return said
