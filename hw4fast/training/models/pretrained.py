"""torchvision's classification nets with trained weights: from a file, the data folder, the cache, or torchvision.

torchvision is imported where it is used: it takes longer than torch itself, and our own nets don't need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hw4fast.data import carried
from hw4fast.errors import UsageError, UserError
from hw4fast.files import cache_folder, data_folder
from hw4fast.paths import one_line

ENDINGS = (".pth", ".pt", ".safetensors")


def architectures() -> Sequence[str]:
    """Names of torchvision's classification nets."""
    if known := carried.architectures():
        return known
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def check_architecture(name: str) -> None:
    """Raises UsageError that names the nearest known for a name that isn't one of `architectures()`."""
    if hint := carried.unknown_architecture(name, architectures()):
        raise UsageError(f"unknown architecture '{name}'; {hint}")


def labels(name: str) -> tuple[str, ...]:
    """ImageNet's 1000 class names in the order of the logits, as torchvision's weights carry them."""
    import torchvision

    return tuple(torchvision.models.get_model_weights(name).DEFAULT.meta["categories"])


def parameters(name: str) -> int:
    """How many numbers the net learns, as torchvision's weights say. Raises UsageError for an unknown name."""
    import torchvision

    check_architecture(name)
    return torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]


def pretrained(name: str, weights: str | Path | None = None) -> tuple[nn.Module, str]:
    """The net in evaluation mode with ImageNet's 1000 classes, and where its weights came from.

    weights: a torch file (read with weights_only) or a safetensors file; None or "DEFAULT": `NAME.pth` or
    `NAME.safetensors` in HW4FAST_DATA/models or in the cache's models/, else torchvision's, downloaded to the cache.
    Raises UsageError for an unknown name, UserError for weights that can't be had, are damaged or don't fit.
    """
    import torchvision

    check_architecture(name)
    path = find_weights(name, weights)
    model = torchvision.models.get_model(name, weights=None)
    state = _downloaded(name) if path is None else read_weights(path)
    source = f"torchvision's {torchvision.models.get_model_weights(name).DEFAULT}" if path is None else path.name
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the weights in {path} don't fit {name}: {reason}") from None
    if hasattr(model, "transform_input"):  # GoogLeNet and Inception: torchvision sets it with its weights
        model.transform_input = True
    return model.eval(), source


def find_weights(name: str, weights: str | Path | None) -> Path | None:
    """The file that holds them; None when torchvision must be asked. Raises UserError for a file that isn't there."""
    if weights not in (None, "DEFAULT"):
        path = Path(weights)
        if not path.is_file():
            raise UserError(f"there is no file of weights '{path}'")
        return path
    data = data_folder()
    for folder in (data and data / "models", cache_folder() / "models"):
        for ending in ENDINGS:
            if folder and (folder / f"{name}{ending}").is_file():
                return folder / f"{name}{ending}"
    return None


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict; never unpickles anything but tensors. Raises UserError when the file isn't one."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise UserError(_no_weights(path, error)) from None
    except Exception as error:  # pickle.UnpicklingError and whatever a broken file brings
        raise UserError(_no_weights(path, error)) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"'{path}' holds no state dict (name → tensor)")
    return state


def _no_weights(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return f"'{path}' can't be read as weights ({type(error).__name__}: {reason})"


def downloaded_file(name: str) -> Path:
    """Where torchvision's default weights lie in the cache, once they were fetched."""
    import torchvision

    return cache_folder() / "torchvision" / Path(torchvision.models.get_model_weights(name).DEFAULT.url).name


def _downloaded(name: str) -> dict[str, Tensor]:
    """torchvision's default weights, kept in the cache."""
    import torchvision

    weights = torchvision.models.get_model_weights(name).DEFAULT
    folder = downloaded_file(name).parent
    try:
        return torch.hub.load_state_dict_from_url(
            weights.url, model_dir=str(folder), progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError) as error:
        data = data_folder()
        places = [*([f"{data / 'models'}"] if data else []), f"{cache_folder() / 'models'}"]
        raise UserError(
            f"the weights of {name} can't be had: {weights.url} failed ({one_line(error)}); put {name}.pth into"
            f" {' or '.join(places)}, or name a file with --weights FILE"
        ) from None
