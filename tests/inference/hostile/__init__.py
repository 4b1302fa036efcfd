"""Hostile ONNX files by name: each asks onnxruntime, or us, for something that can't be given.

MODELS: name → function(folder) → the file it wrote there. "folded" ones act while the graph is optimised, "at run" ones
when a picture comes.
"""

from tests.inference.hostile import graphs, operators, programs, tensors, wire
from tests.inference.hostile.base import MODELS

__all__ = ["MODELS", "graphs", "operators", "programs", "tensors", "wire"]
