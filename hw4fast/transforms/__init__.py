"""Ways to spoil a picture. A transform is a file of this folder that registers itself."""

from importlib import import_module
from pkgutil import iter_modules

from hw4fast.transforms.randomness import generator
from hw4fast.transforms.spec import TRANSFORMS, Chain, Parameter, Transform, at_severity, parse

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["TRANSFORMS", "Chain", "Parameter", "Transform", "at_severity", "generator", "parse"]
