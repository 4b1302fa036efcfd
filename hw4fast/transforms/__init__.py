"""Ways to spoil a picture. A transform is a file of this folder that registers itself."""

from hw4fast.registry import import_folder
from hw4fast.transforms.chain import Chain, Link, at_level, at_severity, parse
from hw4fast.transforms.own import transform
from hw4fast.transforms.randomness import generator
from hw4fast.transforms.spec import TRANSFORMS, Parameter, Sweep, Transform

import_folder(__name__, __path__)

__all__ = [
    "TRANSFORMS", "Chain", "Link", "Parameter", "Sweep", "Transform", "at_level", "at_severity", "generator", "parse",
    "transform",
]  # fmt: skip
