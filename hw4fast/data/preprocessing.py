"""From a decoded picture to what a network reads. Written down once: training, the card and inference share it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import inf, isfinite, isqrt
from typing import Any

import numpy as np
from PIL import Image

from hw4fast.errors import UsageError
from hw4fast.kernels.resize import FILTERS, Box, resize

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,  # Pillow's filters are antialiased when they shrink
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MAX_PIXELS = 100_000_000  # of any picture that is decoded or made
MAX_CROP = MAX_PIXELS // 32  # of what a network reads (1767×1767): pictures come to it in batches of up to 32
COLOUR_MODES = {"L": 1, "RGB": 3, "BGR": 3}


@dataclass(frozen=True)
class Preprocessing:
    """`fit` a picture to the network's size, then `normalise` a batch of them.

    mode: what the network reads: "L" (one channel), "RGB" or "BGR" (channels in that order; mean and std, too).
    resize: "stretch" to `crop`, or "shorter-side" to `resize_size` and then the centre `crop`.
    resize_size: length of the shorter side in pixels ("shorter-side" only).
    crop: (height, width) in pixels of what the network reads.
    interpolation: a key of RESAMPLING.
    divisor: of the bytes; 255 gives values in 0…1.
    mean, std: per channel, of what was divided.
    Raises ValueError for anything else, and for sizes that would fill the memory: a crop of more than MAX_CROP
    pixels, a resize_size whose square is more than MAX_PIXELS.
    """

    mode: str
    crop: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = "stretch"
    resize_size: int | None = None
    interpolation: str = "bilinear"
    divisor: float = 255.0

    def __post_init__(self) -> None:
        if self.mode not in COLOUR_MODES:
            raise ValueError(f"mode must be one of {list(COLOUR_MODES)}, not {self.mode!r}")
        if self.interpolation not in RESAMPLING:
            raise ValueError(f"interpolation must be one of {list(RESAMPLING)}, not {self.interpolation!r}")
        if self.resize not in ("stretch", "shorter-side"):
            raise ValueError(f"resize must be 'stretch' or 'shorter-side', not {self.resize!r}")
        if (self.resize == "shorter-side") != (self.resize_size is not None):
            raise ValueError("resize_size goes with resize='shorter-side', and only with it")
        if [type(side) for side in self.crop] != [int, int] or type(self.resize_size) not in (int, type(None)):
            raise ValueError("crop must be two whole numbers, resize_size one")
        if min(self.crop) < 1 or (self.resize_size is not None and self.resize_size < max(self.crop)):
            raise ValueError(f"crop {self.crop} must be positive and no larger than resize_size {self.resize_size}")
        if self.crop[0] * self.crop[1] > MAX_CROP or (self.resize_size or 0) ** 2 > MAX_PIXELS:
            raise ValueError(
                f"crop {self.crop} must have at most {MAX_CROP} pixels, resize_size {self.resize_size} at most "
                f"{isqrt(MAX_PIXELS)}"
            )
        if not all(type(value) in (int, float) and isfinite(value) for value in (*self.mean, *self.std)):
            raise ValueError("mean and std must be finite numbers")
        if type(self.divisor) not in (int, float) or not 0 < self.divisor < inf:
            raise ValueError(f"divisor must be positive and finite, not {self.divisor}")
        if not len(self.mean) == len(self.std) == self.channels or min(self.std) <= 0:
            raise ValueError(f"mean and std must have {self.channels} values each, std positive")

    @property
    def channels(self) -> int:
        return COLOUR_MODES[self.mode]

    @property
    def fitting(self) -> tuple[Any, ...]:
        """What `fit` depends on: preprocessings that agree in it show the same pixels."""
        return self.channels, self.crop, self.resize, self.resize_size, self.interpolation

    def fit(self, picture: np.ndarray) -> np.ndarray:
        """uint8 [h, w, 1 or 3] of any size → uint8 [crop height, crop width, channels].

        Raises ValueError for another array, and for a picture so long and thin that scaling its shorter side would
        fill the memory.
        """
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3):
            raise ValueError(f"a picture is uint8 [h, w, 1 or 3], not {picture.dtype} {list(picture.shape)}")
        picture = self.in_mode(picture)
        size, box = self.places(*picture.shape[:2])
        if self.interpolation in FILTERS:
            return resize(picture, size, box, self.interpolation)
        image = Image.fromarray(picture[:, :, 0] if self.channels == 1 else picture)
        image = image.resize(size[::-1], RESAMPLING[self.interpolation])
        top, left, height, width = box
        return np.asarray(image).reshape(*size, -1)[top : top + height, left : left + width].copy()

    def in_mode(self, picture: np.ndarray) -> np.ndarray:
        """uint8 [h, w, 1 or 3] → [h, w, channels]: grey where the network reads grey."""
        if picture.shape[2] == self.channels:
            return picture
        image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
        image = image.convert("L" if self.channels == 1 else "RGB")
        return np.asarray(image).reshape(*picture.shape[:2], self.channels)

    def places(self, height: int, width: int) -> tuple[tuple[int, int], Box]:
        """What a picture is resized to, and which part of that the net reads."""
        rows, columns = self.crop
        if self.resize == "stretch":
            return self.crop, (0, 0, rows, columns)
        assert self.resize_size is not None
        short = min(height, width)
        # torchvision's rules: the longer side is truncated, not rounded; halves of the crop's place go to the even
        size = self.resize_size * height // short, self.resize_size * width // short
        if size[0] * size[1] > MAX_PIXELS:
            raise ValueError(f"{width}×{height} pixels are too long and thin; crop the picture")
        return size, (round((size[0] - rows) / 2), round((size[1] - columns) / 2), rows, columns)

    @np.errstate(all="ignore")  # a divisor that is none in float32: what the net answers to it is refused
    def normalise(self, batch: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """uint8 [n, h, w, c] of fitted pictures → float32 [n, c, h, w] with channels in the order of `mode`:
        (x / divisor − mean) / std, in the order torchvision computes it. out: memory that it may use for that."""
        batch = batch[..., ::-1] if self.mode == "BGR" else batch
        n, height, width, channels = batch.shape
        if self.divisor == 255 and batch.size and batch.dtype == np.uint8:  # what the kernel divides by
            tensor = np.empty((n, channels, height, width), np.float32) if out is None else out
            for picture, to in zip(batch, tensor, strict=True):
                resize(picture, (height, width), mean=self.mean, std=self.std, out=to)
            return tensor
        scaled = batch.astype(np.float32) / np.float32(self.divisor)
        scaled -= np.asarray(self.mean, np.float32)
        scaled /= np.asarray(self.std, np.float32)
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))

    def to_json(self) -> dict[str, Any]:
        value = {key: list(entry) if isinstance(entry, tuple) else entry for key, entry in asdict(self).items()}
        return value | {"antialias": self.interpolation != "nearest"}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Preprocessing:
        """The inverse of `to_json`; ValueError when a key is unknown, missing or of the wrong kind. Cards of schema 1
        say nothing of divisor and antialias."""
        try:
            given = {key: entry for key, entry in value.items() if key != "antialias"}
            made = cls(**{**given, **{key: tuple(value[key]) for key in ("crop", "mean", "std")}})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a preprocessing record: {error}") from None
        if value.get("antialias", made.to_json()["antialias"]) != made.to_json()["antialias"]:
            raise ValueError("antialias must be true, and false for nearest: as Pillow resizes")
        return made


_IMAGENET: dict[str, Any] = {"mode": "RGB", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PRESETS = {  # for nets trained on ImageNet: the homework's two strategies
    "imagenet": Preprocessing(crop=(224, 224), resize="shorter-side", resize_size=256, **_IMAGENET),
    "stretch": Preprocessing(crop=(224, 224), resize="stretch", **_IMAGENET),
}


def preset(name: str) -> Preprocessing:
    """A preset by name. Raises UsageError for an unknown one."""
    if name not in PRESETS:
        raise UsageError(f"unknown preprocessing '{name}'; known: {', '.join(PRESETS)}")
    return PRESETS[name]
