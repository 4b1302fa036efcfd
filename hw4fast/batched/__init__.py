"""Transforms of whole batches as torch operations, on the CPU or a GPU: the very bytes of hw4fast.transforms.

A form is a function of this folder that registers itself under its transform's name.
"""

from hw4fast.batched.batches import TorchBatches
from hw4fast.batched.forms import FORMS, apply, knows
from hw4fast.registry import import_folder

import_folder(__name__, __path__)

__all__ = ["FORMS", "TorchBatches", "apply", "knows"]
