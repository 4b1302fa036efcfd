"""Train a small net, export one self-describing ONNX file, run it fast, find out what breaks it.

The verbs of the command line as functions, and the parts, imported on first use: torch comes only with `train` and
`export`, and with the parts `nn` and `batched`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_FACE = {  # name → (module, attribute)
    "Settings": ("hw4fast.training.settings", "Settings"),
    "train": ("hw4fast.training.train", "train"),
    "export": ("hw4fast.exporter", "export"),
    "load": ("hw4fast.inference.classifier", "Classifier"),
    "classify": ("hw4fast.inference.classify", "classify"),
    "Result": ("hw4fast.inference.classify", "Result"),
    "Failure": ("hw4fast.inference.classify", "Failure"),
    "ort_library": ("hw4fast.kernels", "ort_library"),
    "study": ("hw4fast.robustness.frame", "study"),
    "transform": ("hw4fast.transforms.own", "transform"),
}
_PARTS = ("batched", "errors", "kernels", "nn", "transforms")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("hw4fast")
    if name in _PARTS:
        return import_module(f"hw4fast.{name}")
    if name not in _FACE:
        raise AttributeError(f"module 'hw4fast' has no attribute '{name}'")
    module, attribute = _FACE[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*_FACE, *_PARTS])
