"""Nets that can be trained. A net is one file here that registers its builder."""

from hw4fast.registry import import_folder
from hw4fast.training.models.registry import MODELS, build

import_folder(__name__, __path__)

__all__ = ["MODELS", "build"]
