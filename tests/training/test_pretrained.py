"""Weights for torchvision's nets: where they are looked for, and what a wrong file says."""

from __future__ import annotations

import hashlib
import pickle

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from hw4fast.errors import UsageError, UserError
from hw4fast.exporter import export
from hw4fast.inference.classifier import Classifier
from hw4fast.training.models.pretrained import architectures, find_weights, labels, pretrained

NAME = "squeezenet1_1"  # the smallest


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return torchvision.models.get_model(NAME, weights=None).state_dict()


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No data folder, an empty cache, no network."""
    monkeypatch.delenv("HW4FAST_DATA", raising=False)
    monkeypatch.setenv("HW4FAST_CACHE", str(tmp_path / "cache"))

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    return tmp_path


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("place", ["named", "data", "cache"])
def test_weights_are_found(ending, place, nowhere, state, monkeypatch):
    folder = {"named": nowhere, "data": nowhere / "data" / "models", "cache": nowhere / "cache" / "models"}[place]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}.{ending}"
    if ending == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    monkeypatch.setenv("HW4FAST_DATA", str(nowhere / "data"))
    assert find_weights(NAME, path if place == "named" else None) == path
    model, source = pretrained(NAME, path if place == "named" else "DEFAULT")
    assert source == path.name and not model.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_what_can_not_be_had_says_where_it_was_looked_for(nowhere):
    with pytest.raises(
        UserError, match=r"\(no network\); put squeezenet1_1.pth into .*cache/models, or .* --weights FILE"
    ):
        pretrained(NAME)
    with pytest.raises(UserError, match="there is no file of weights"):
        pretrained(NAME, nowhere / "none.pth")
    with pytest.raises(UsageError, match="unknown architecture 'squeezenet11'; did you mean squeezenet1_1"):
        pretrained("squeezenet11")


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize("kind", ["noise", "empty", "pickle", "list", "other", "safetensors"])
def test_a_file_that_is_no_weights(kind, nowhere, state, capsys):
    path = nowhere / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "other":
        torch.save({"features.0.weight": torch.zeros(3)}, path)
    else:
        path.write_bytes(b"" if kind == "empty" else b"\x01" * 100)
    with pytest.raises(UserError, match=r"can't be read as weights|holds no state dict|don't fit squeezenet1_1"):
        pretrained(NAME, path)
    assert "run" not in capsys.readouterr().out.split()


def test_labels_and_names():
    assert "shufflenet_v2_x1_0" in architectures() and "fasterrcnn_resnet50_fpn" not in architectures()
    assert len(labels(NAME)) == 1000 and labels(NAME)[987] == "corn"


@pytest.mark.parametrize("preset", [None, "stretch"])
def test_an_architecture_is_exported_with_its_card(preset, nowhere, state):
    path = nowhere / "weights.pth"
    torch.save(state, path)
    result = export(NAME, nowhere / "net.onnx", weights=path, preprocess=preset)
    card = Classifier(result.path).card
    assert card.provenance["architecture"] == NAME and card.provenance["weights"] == "weights.pth"
    assert card.provenance["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (card.source, card.licence) == ("weights.pth", "")
    assert card.parity["preset"] == card.provenance["preset"] == (preset or "SqueezeNet1_1_Weights.IMAGENET1K_V1")
    assert card.parity["inputs_equal_to_torchvision"] == 10
    assert card.preprocessing.resize == ("stretch" if preset else "shorter-side")
    assert card.labels[987] == "corn" and card.parity["same_answers"] == card.parity["images"] == 10
    with pytest.raises(UsageError, match="unknown preprocessing 'crop'; known: imagenet, stretch"):
        export(NAME, weights=path, preprocess="crop")


def test_weights_do_not_go_with_a_run(nowhere):
    with pytest.raises(UsageError, match="go with an architecture"):
        export(nowhere, weights=nowhere / "w.pth")
