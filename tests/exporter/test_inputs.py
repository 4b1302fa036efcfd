"""An architecture's inputs are torchvision's to the bit, by torchvision's own transforms, or there is no file."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.models import get_model_weights

from hw4fast import exporter
from hw4fast.cli import main
from hw4fast.data.images import read_picture
from hw4fast.data.preprocessing import preset
from hw4fast.errors import UsageError, UserError
from hw4fast.exporter import Result, export, origin
from hw4fast.exporter.origin import Origin, as_preprocessing, transforms
from hw4fast.exporter.parity import compare_inputs, upright
from hw4fast.exporter.source import Photograph, Source, _photographs, of_architecture, photographs
from hw4fast.inference.card import Card
from hw4fast.inference.known import KNOWN
from hw4fast.training.models.pretrained import architectures

ALIEN = Origin("mine.pth", "0" * 64)


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """HW4FAST_DATA with a folder of photographs, still empty; they are all that there is."""
    monkeypatch.setattr("hw4fast.exporter.source._of_scikit_learn", lambda: iter(()))
    (tmp_path / "data" / "photos" / "mine").mkdir(parents=True)
    monkeypatch.setenv("HW4FAST_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "photos" / "mine"


@pytest.fixture
def no_data(monkeypatch):
    monkeypatch.delenv("HW4FAST_DATA", raising=False)


def photo(width: int = 300, height: int = 220, seed: int = 0) -> Image.Image:
    """Smooth colours with noise."""
    rng = np.random.Generator(np.random.PCG64(seed))
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize((width, height))
    return Image.fromarray(np.asarray(coarse) ^ rng.integers(0, 8, (height, width, 3), np.uint8))


@cache
def some_photographs() -> tuple[Photograph, ...]:
    """Wide, high and small (so that it grows)."""
    made = []
    for size in ((500, 375), (180, 301), (61, 40)):
        file = io.BytesIO()
        photo(*size).save(file, "JPEG")
        made.append(Photograph(f"{size}.jpg", file.getvalue()))
    return tuple(made)


def source_of(chosen: origin.Transforms) -> Source:
    files = some_photographs()
    pictures = np.stack([chosen.preprocessing.fit(read_picture(file.content)) for file in files])
    return Source(None, chosen.preprocessing, ("a",), {}, pictures, files, transforms=chosen)


# -- all of torchvision's ----------------------------------------------------------------------------------------


def test_every_weights_member_of_torchvisions_to_the_bit():
    """No weights are needed for their transforms; most are alike."""
    told = {}
    for name in architectures():
        for member in get_model_weights(name):
            told.setdefault(as_preprocessing(member.transforms()), member)
    assert len(architectures()) == 80 and len(told) >= 28
    for preprocessing, member in told.items():
        reference = member.transforms()
        for file in some_photographs()[:2]:
            ours = torch.from_numpy(preprocessing.normalise(preprocessing.fit(read_picture(file.content))[None]))[0]
            assert torch.equal(ours, reference(upright(file.content))), member


@pytest.mark.parametrize("asked", ["imagenet", "stretch", "torchvision", None])
def test_every_preset_has_a_reference_of_its_own(asked):
    chosen = transforms("convnext_tiny", ALIEN, asked)
    assert compare_inputs(source_of(chosen))["inputs_equal_to_torchvision"] == 3
    size = {"imagenet": [256], "stretch": [224, 224]}.get(asked, [236])
    assert chosen.reference.resize_size == size and isinstance(
        chosen.reference, torchvision.transforms._presets.ImageClassification
    )


@pytest.mark.parametrize("asked", ["imagenet", "stretch", None])
@pytest.mark.parametrize(
    "change",
    [
        {"resize": "shorter-side", "resize_size": 255},
        {"interpolation": "bicubic"},
        {"interpolation": "nearest"},
        {"mean": (0.485, 0.456, 0.405)},
        {"std": (0.229, 0.224, 0.226)},
        {"mode": "BGR"},
        {"divisor": 254.0},
        {"crop": (223, 223)},
    ],
    ids=str,
)
def test_another_preprocessing_than_torchvisions_is_seen(change, asked):
    chosen = transforms("resnet18", ALIEN, asked)
    wrong = replace(chosen, preprocessing=replace(chosen.preprocessing, **change))
    with pytest.raises(UserError, match=r"our input of '\(500, 375\).jpg' .*transforms\(\); no file was written"):
        compare_inputs(source_of(wrong))


@pytest.mark.parametrize("change", [{"resize_size": 232}, {"interpolation": "bicubic"}, {"mean": (0.5, 0.5, 0.5)}])
def test_there_is_no_file_then(change, tmp_path, monkeypatch, no_data):
    right = origin.as_preprocessing
    monkeypatch.setattr(origin, "as_preprocessing", lambda told: replace(right(told), **change))
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / "net.pth")
    with pytest.raises(UserError, match="no file was written"):
        export("squeezenet1_1", tmp_path / "net.onnx", weights=tmp_path / "net.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]


# -- whose weights, whose transforms -----------------------------------------------------------------------------


def mark(name: str, member: str) -> str:
    return re.search(r"-([0-9a-f]+)\.pth$", get_model_weights(name)[member].url)[1]


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize(("member", "resize"), [("IMAGENET1K_V1", 256), ("IMAGENET1K_V2", 232)])
def test_a_file_of_torchvisions_by_its_name(member, resize, ending, tmp_path):
    path = tmp_path / f"resnet50-{mark('resnet50', member)}.{ending}"
    path.write_bytes(b"weights")
    whose = origin.origin("resnet50", path)
    assert whose.member is get_model_weights("resnet50")[member] and whose.known_by == "its name"
    chosen = transforms("resnet50", whose, None)
    assert chosen.preprocessing.resize_size == resize and chosen.preset == f"ResNet50_Weights.{member}"
    assert chosen.because == f"{path.name} is that, by its name"
    assert transforms("resnet50", whose, "torchvision").preset == chosen.preset
    assert transforms("resnet50", whose, "imagenet").preprocessing == preset("imagenet")  # the user's word


def test_a_file_of_torchvisions_by_its_sha256(tmp_path, monkeypatch):
    path = tmp_path / "resnet50.pth"
    path.write_bytes(b"weights")
    digest, real = hashlib.sha256(b"weights").hexdigest(), origin._mark
    second = get_model_weights("resnet50")["IMAGENET1K_V2"]
    monkeypatch.setattr(origin, "_mark", lambda url: digest[:8] if url == second.url else real(url))
    whose = origin.origin("resnet50", path)
    assert (whose.member, whose.known_by, whose.sha256) == (second, "its SHA-256", digest)
    path.write_bytes(b"others")
    assert origin.origin("resnet50", path).member is None


def test_every_file_of_torchvisions_has_a_mark_of_its_own():
    for name in architectures():
        urls = [member.url for member in get_model_weights(name)]
        marks = [origin._mark(url) for url in urls]
        assert len(set(marks)) == len(set(urls))
        assert all(f"-{found}.pth" in url for found, url in zip(marks, urls, strict=True))


@pytest.mark.parametrize("asked", [None, "DEFAULT"])
def test_torchvisions_own_when_they_were_fetched(asked, data, tmp_path, monkeypatch):
    photo().save(data / "a.jpg")
    monkeypatch.setenv("HW4FAST_CACHE", str(tmp_path / "cache"))

    def fetch(url, model_dir, **_):
        Path(model_dir).mkdir(parents=True)
        state = torchvision.models.mobilenet_v2(weights=None).state_dict()
        torch.save(state, Path(model_dir) / Path(url).name)
        return state

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    source, second = of_architecture("mobilenet_v2", asked, None), get_model_weights("mobilenet_v2").IMAGENET1K_V2
    assert source.preprocessing.resize_size == 232 and source.licence == "BSD-3-Clause" and second.url in source.source
    assert source.provenance["weights"] == f"torchvision's {second}" and len(source.provenance["weights_sha256"]) == 64
    assert compare_inputs(source)["inputs_compared_with"] == "MobileNet_V2_Weights.IMAGENET1K_V2.transforms()"


@pytest.mark.parametrize(
    ("name", "asked", "taken", "resize", "why"),
    [
        ("convnext_tiny", None, "IMAGENET1K_V1", 236, "all its weights of convnext_tiny were tested so"),
        ("resnet50", None, "IMAGENET1K_V1", 256, "tested in several ways; --preprocess tells another"),
        ("resnet50", "torchvision", "IMAGENET1K_V2", 232, "it was asked for: these are the default weights"),
        ("mobilenet_v3_large", None, "IMAGENET1K_V1", 256, "tested in several ways"),
        ("efficientnet_b0", None, "IMAGENET1K_V1", 256, "all its weights"),
        ("vgg16", None, "IMAGENET1K_V1", 256, "tested in several ways"),
    ],
)
def test_weights_of_others(name, asked, taken, resize, why):
    chosen = transforms(name, ALIEN, asked)
    assert chosen.preset.endswith(f".{taken}") and chosen.preprocessing.resize_size == resize
    assert why in chosen.because and ("mine.pth is no file of torchvision's" in chosen.because) == (asked is None)
    assert chosen.preprocessing.interpolation == ("bicubic" if name == "efficientnet_b0" else "bilinear")


def test_an_unknown_preset():
    with pytest.raises(UsageError, match="unknown preprocessing 'crop'; known: imagenet, stretch, torchvision"):
        transforms("resnet18", ALIEN, "crop")


# -- on what terms ----------------------------------------------------------------------------------------------


def test_torchvisions_weights_tell_licence_and_recipe(tmp_path):
    for name, member, licence in (
        ("resnet18", "IMAGENET1K_V1", "BSD-3-Clause"),
        ("vit_b_16", "IMAGENET1K_SWAG_LINEAR_V1", f"CC-BY-NC-4.0 ({origin.SWAG})"),
    ):
        path = tmp_path / f"x-{mark(name, member)}.pth"
        path.write_bytes(b"weights")
        whose, told = origin.origin(name, path), get_model_weights(name)[member]
        assert whose.licence == licence
        assert whose.source == f"torchvision's {told}, {told.url}, recipe {told.meta['recipe']}"


def test_every_licence_that_torchvision_names_is_known():
    said = {member.meta.get("license") for name in architectures() for member in get_model_weights(name)}
    assert said == origin.LICENCES.keys()


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x1_0"])
def test_weights_of_the_model_folder_have_the_licence_of_its_files(name):
    digest = next(digest for digest, known in origin.KNOWN_FILES.items() if known == name)
    whose = Origin(f"{name}.pth", digest)
    assert (whose.licence, whose.source) == (KNOWN[name].licence, KNOWN[name].source)
    assert (ALIEN.licence, ALIEN.source) == ("", "mine.pth")


def test_those_are_the_files():
    folder = Path(os.environ.get("HW4FAST_DATA", "")) / "models"
    if not (folder / "squeezenet1_1.pth").is_file():
        pytest.skip("needs models/ in HW4FAST_DATA")
    for digest, name in origin.KNOWN_FILES.items():
        assert origin.sha256(folder / f"{name}.pth") == digest


# -- photographs as they come ------------------------------------------------------------------------------------


def save_lying(path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    photo().save(path, exif=exif)


ORDINARY = {
    "lying": save_lying,
    "cmyk": lambda path: photo().convert("CMYK").save(path),
    "grey": lambda path: photo().convert("L").save(path),
    "small": lambda path: photo(31, 27).save(path),
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_any_ordinary_photograph_is_compared(kind, data):
    ORDINARY[kind](data / "a.jpg")
    for asked in ("imagenet", "stretch"):
        chosen = transforms("resnet18", ALIEN, asked)
        fitted, left_out = _photographs(chosen.preprocessing)
        assert left_out == () and list(fitted)[-1].name == "a.jpg" and len(fitted) == 1
        source = Source(None, chosen.preprocessing, ("a",), {}, np.stack(list(fitted.values())), tuple(fitted))
        assert compare_inputs(replace(source, transforms=chosen))["inputs_equal_to_torchvision"] == 1


BAD = {
    "none": (lambda path: path.write_bytes(b"nope"), r"a\.jpg' is no picture"),
    "empty": (lambda path: path.write_bytes(b""), r"a\.jpg' is empty"),
    "folder": (Path.mkdir, r"a\.jpg' is a folder"),
    "thin": (lambda path: photo(6000, 3).save(path), r"a\.jpg': 6000×3 pixels are too long and thin"),
}


@pytest.mark.parametrize("kind", BAD)
def test_photographs_that_can_not_be_taken_are_left_out_and_named(kind, data):
    make, words = BAD[kind]
    make(data / "a.jpg")
    photo().save(data / "b.jpg")
    fitted, (reason,) = _photographs(preset("imagenet"))
    assert re.search(words, reason) and list(fitted)[-1].name == "b.jpg" and len(fitted) == len(photographs()) == 1


def test_of_many_photographs_some_at_even_distances(data, monkeypatch):
    monkeypatch.setattr("hw4fast.exporter.source.SAMPLES", 4)
    for number in range(8):
        photo(30, 30, number).save(data / f"{number}.jpg")
    fitted, _ = _photographs(preset("imagenet"))
    assert [file.name for file in fitted] == ["0.jpg", "2.jpg", "4.jpg", "6.jpg"]


# -- what the command says ---------------------------------------------------------------------------------------


@pytest.fixture
def exported(tmp_path, monkeypatch) -> Result:
    """What `export` would return, without a net."""
    said = compare_inputs(source_of(transforms("convnext_tiny", ALIEN, None)))
    errors = ("max_error_to_torch", "max_error_to_float64", "torch_max_error_to_float64")
    numbers = ("largest_logit", "tolerance", *errors)
    parity = said | dict.fromkeys(numbers, 1.0) | {"precision": "float32", "images": 3, "batches": [3]}
    card = Card(preset("imagenet"), ("a",), {}, parity | {"same_answers": 3}, 20)
    result = Result(tmp_path / "net.onnx", card, 1, (), ("'a.jpg' is no picture", "'b.jpg' is empty"))
    monkeypatch.setattr(exporter, "export", lambda *_, **__: result)
    return result


def test_the_command_tells_which_preset_and_which_photographs_are_missing(exported, capsys):
    assert main(["export", "convnext_tiny", "--weights", "DEFAULT"]) == 0
    said = capsys.readouterr()
    assert "prepared as ConvNeXt_Tiny_Weights.IMAGENET1K_V1 says (mine.pth is no file of torchvision's" in said.out
    assert (
        "3 photographs equal to the last bit to those of ConvNeXt_Tiny_Weights.IMAGENET1K_V1.transforms()" in said.out
    )
    assert re.search(r"2 of HW4FAST_DATA's photographs left out.*\n.*'a\.jpg' is no.*\n.*'b\.jpg'", said.err)
    assert main(["export", "convnext_tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parity"]["preset"] == "ConvNeXt_Tiny_Weights.IMAGENET1K_V1"


def test_the_help_names_default(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--weights FILE|DEFAULT" in text and "torchvision (as its default weights were tested)" in text
