"""Ways to spoil a picture. A transform is a file of this folder that registers itself."""

from hw4fast.registry import import_folder
from hw4fast.transforms.randomness import generator
from hw4fast.transforms.spec import TRANSFORMS, Chain, Parameter, Transform, at_severity, parse

import_folder(__name__, __path__)

__all__ = ["TRANSFORMS", "Chain", "Parameter", "Transform", "at_severity", "generator", "parse"]
