"""Whose weights those are, what they were tested with and on what terms, as far as torchvision's enums know them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw4fast.data import Preprocessing
from hw4fast.data.preprocessing import PRESETS, preset
from hw4fast.errors import UsageError
from hw4fast.files import sha256
from hw4fast.inference.known import KNOWN

TORCHVISION = "torchvision"  # the preset that is no fixed one: what the architecture's weights were tested with
MARK = re.compile(r"-([0-9a-f]{8,})\.")  # how the name of a file of torchvision's ends: the beginning of its SHA-256
SWAG = "https://github.com/facebookresearch/SWAG/blob/main/LICENSE"
LICENCES = {None: "BSD-3-Clause", SWAG: f"CC-BY-NC-4.0 ({SWAG})"}  # by what the meta of torchvision's weights says
# state dicts of the same weights as the files of inference.known by that name
KNOWN_FILES = {
    "d979c1723a56664ff65b73cd797b17a4b80efda4ce3eb9b380bdd4033e60359d": "squeezenet1_1",
    "ea698edbcd8abbc95612c7eb8095f1cbfc4be0aef0a2971c757eaf39b851f7a6": "shufflenet_v2_x1_0",
}


@dataclass(frozen=True)
class Origin:
    """Of a file of weights. file: its name; sha256: of its bytes; member: of torchvision's enum of that architecture,
    None for weights that aren't torchvision's; known_by: how that was seen."""

    file: str
    sha256: str
    member: Any = None
    known_by: str = ""

    @property
    def source(self) -> str:
        """Where they are from, in words."""
        if self.member is not None:
            recipe = self.member.meta.get("recipe")
            return f"torchvision's {self.member}, {self.member.url}" + (f", recipe {recipe}" if recipe else "")
        known = KNOWN_FILES.get(self.sha256)
        return KNOWN[known].source if known else self.file

    @property
    def licence(self) -> str:
        """torchvision's own where its weights don't name another; it says that the data they were trained on may set
        further terms. "" if nobody said it."""
        if self.member is not None:
            said = self.member.meta.get("license")
            return LICENCES.get(said, str(said))
        known = KNOWN_FILES.get(self.sha256)
        return KNOWN[known].licence if known else ""


def origin(name: str, path: Path) -> Origin:
    """Of the weights of architecture `name` in a file: torchvision's when its SHA-256 begins as the name of one of
    theirs ends, or when its own name ends so (a copy in another format has other bytes)."""
    digest = sha256(path)
    marks = {_mark(member.url): member for member in _members(name)}
    for mark, member in marks.items():
        if digest.startswith(mark):
            return Origin(path.name, digest, member, "its SHA-256")
    for mark, member in marks.items():
        if path.stem.endswith(f"-{mark}"):
            return Origin(path.name, digest, member, "its name")
    return Origin(path.name, digest)


def _members(name: str) -> list[Any]:
    import torchvision

    return list(torchvision.models.get_model_weights(name))


def _mark(url: str) -> str:
    found = MARK.search(url.rsplit("/", 1)[-1])
    assert found, f"{url} names no hash"
    return found[1]


@dataclass(frozen=True)
class Transforms:
    """How pictures become inputs. preset: its name in the card; because: why that one; reference: what torchvision
    makes of a Pillow image by itself, float32 [3, h, w], with which `preprocessing` is compared; compared_with: its
    name."""

    preprocessing: Preprocessing
    preset: str
    because: str
    reference: Any
    compared_with: str


def transforms(name: str, weights: Origin, asked: str | None) -> Transforms:
    """asked: a preset's name, "torchvision" for what the weights (or else the architecture's default ones) were tested
    with; None: what the weights were tested with if they are torchvision's, else what all weights of the architecture
    were tested with, else IMAGENET1K_V1. Raises UsageError for an unknown name."""
    if asked in PRESETS:
        return Transforms(preset(asked), asked, "it was asked for", *_references()[asked])
    if asked not in (None, TORCHVISION):
        raise UsageError(f"unknown preprocessing '{asked}'; known: {', '.join([*PRESETS, TORCHVISION])}")
    member, because = _member(name, weights, asked)
    told = member.transforms()
    return Transforms(as_preprocessing(told), str(member), because, told, f"{member}.transforms()")


def _member(name: str, weights: Origin, asked: str | None) -> tuple[Any, str]:
    """Whose transforms are taken, and why."""
    members = _members(name)
    default = members[0].DEFAULT
    if weights.member is not None:
        return weights.member, f"{weights.file} is that, by {weights.known_by}"
    if asked == TORCHVISION:
        return default, "it was asked for: these are the default weights"
    alien = f"{weights.file} is no file of torchvision's"
    if len({as_preprocessing(member.transforms()) for member in members}) == 1:
        return default, f"{alien}; all its weights of {name} were tested so"
    first = type(default).__members__.get("IMAGENET1K_V1", default)
    return first, f"{alien}, and its weights of {name} were tested in several ways; --preprocess tells another"


def _references() -> dict[str, tuple[Any, str]]:
    """What torchvision makes of a picture under each of our own presets: its own object for nets of 224×224, and that
    with another Resize."""
    from torchvision.models import ResNet18_Weights

    usual = ResNet18_Weights.IMAGENET1K_V1
    stretched = usual.transforms()
    stretched.resize_size = [224, 224]
    return {
        "imagenet": (usual.transforms(), f"{usual}.transforms()"),
        "stretch": (stretched, f"Resize([224, 224]), then CenterCrop and Normalize as in {usual}.transforms()"),
    }


def as_preprocessing(told: Any) -> Preprocessing:
    """torchvision's ImageClassification → ours."""
    (crop,), (resize,) = told.crop_size, told.resize_size
    return Preprocessing(
        mode="RGB",
        crop=(crop, crop),
        mean=tuple(told.mean),
        std=tuple(told.std),
        resize="shorter-side",
        resize_size=resize,
        interpolation=told.interpolation.value,
    )
