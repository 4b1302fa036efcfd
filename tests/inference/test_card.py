"""The card survives the trip through JSON, and junk is refused in one line."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw4fast.data import Preprocessing
from hw4fast.errors import UserError
from hw4fast.inference.card import DEEPEST, KEY, LONGEST, SCHEMA, Card, Input, Output
from hw4fast.inference.describe import _labels
from tests.documented import documented

PHOTOS = Preprocessing(
    mode="RGB",
    crop=(224, 224),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    resize="shorter-side",
    resize_size=256,
)
CARD = Card(
    PHOTOS,
    ("tench", "crane", "crane", "Ünï “q”"),
    {"dataset": "x", "n": [1, 2.5, None]},
    {"max": 1e-6},
    17,
    Input("x", "NHWC", "uint8"),
    Output("p", "probabilities"),
    "MIT",
    "somebody",
)


def changed(**values) -> str:
    """CARD's JSON with some keys replaced; a value of ... takes the key away."""
    record = {**json.loads(CARD.to_json_text()), **values}
    return json.dumps({key: value for key, value in record.items() if value is not ...})


def changed_preprocessing(**values) -> str:
    return changed(preprocessing={**PHOTOS.to_json(), **values})


def test_round_trip():
    assert Card.from_json_text(CARD.to_json_text()) == CARD


def test_every_key_of_the_schema_is_written():
    value = json.loads(CARD.to_json_text())
    assert value["schema"] == SCHEMA == 2
    assert value["input"] == {"name": "x", "layout": "NHWC", "dtype": "uint8"}
    assert value["output"] == {"name": "p", "kind": "probabilities"}
    assert value["preprocessing"] == {
        "mode": "RGB",
        "resize": "shorter-side",
        "resize_size": 256,
        "interpolation": "bilinear",
        "antialias": True,
        "crop": [224, 224],
        "divisor": 255.0,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }


def test_every_key_is_documented_and_every_documented_key_is_there():
    assert documented() == {entry.name for entry in fields(Card)} == CARD.to_json().keys()
    assert documented("preprocessing") == PHOTOS.to_json().keys()
    for part in ("input", "output"):
        assert documented(part) == asdict(getattr(CARD, part)).keys()


def test_a_card_of_schema_1_is_read():
    preprocessing = {key: value for key, value in PHOTOS.to_json().items() if key not in ("antialias", "divisor")}
    old = changed(schema=1, preprocessing=preprocessing, input=..., output=..., licence=..., source=...)
    card = Card.from_json_text(old)
    assert card == Card(PHOTOS, CARD.labels, CARD.provenance, CARD.parity, 17) and card.schema == 2
    assert (card.input, card.output) == (Input("input", "NCHW", "float32"), Output("logits", "logits"))


@given(labels=st.lists(st.text(), min_size=1, max_size=5), number=st.floats(allow_nan=False, allow_infinity=False))
def test_round_trip_of_any_labels_and_numbers(labels, number):
    card = Card(PHOTOS, tuple(labels), {"value": number}, {}, 17)
    assert Card.from_json_text(card.to_json_text()) == card


def test_nan_is_not_written():
    with pytest.raises(ValueError, match="JSON"):
        Card(PHOTOS, ("a",), {}, {"max": float("nan")}, 17).to_json_text()


def test_half_of_a_surrogate_pair_is_no_text():
    """JSON, and names of files, can hold one; protobuf can't."""
    with pytest.raises(UserError, match=r"the label of class 1 can't be so: .* at 'b.ud83d'; write it anew"):
        replace(CARD, labels=("a", "b\ud83d"))
    with pytest.raises(UserError, match=r"the card can't be written: there is half of a surrogate pair"):
        replace(CARD, provenance={"file": "\udcff.onnx"}).to_json_text()
    whole = changed(labels=["\U0001f33d"], licence="\U0001f33d")
    assert "\\ud83c" in whole and Card.from_json_text(whole).labels == ("\U0001f33d",)


def nested(depth: int) -> object:
    return {"a": nested(depth - 1)} if depth else 1


def test_what_is_nested_as_deep_as_a_card_may_be_is_read():
    deepest = changed(provenance=nested(DEEPEST - 1))
    assert Card.from_json_text(deepest).provenance == nested(DEEPEST - 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "can't be read"),
        ("{", "can't be read"),
        ("[" * 100_000, "can't be read"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        (changed(parity={"max": float("nan")}), "NaN is not JSON"),
        (changed(schema=3), "has schema 3, but this hw4fast reads schema 1 and 2; upgrade"),
        (changed(schema="1"), "has schema 1, but"),
        (changed(schema=1.5), "has schema 1.5, but"),
        (changed(schema=[2]), "has schema [2], but"),
        (changed(input=...), "missing keys ['input']"),
        (changed(input=[]), "input is not an object"),
        (changed(input={"name": "x", "layout": "CHWN", "dtype": "uint8"}), "a layout of"),
        (changed(input={"name": 1, "layout": "NCHW", "dtype": "uint8"}), "input must have a name"),
        (changed(input={"names": "x"}), "input has other keys than"),
        (changed(output={"name": "x", "kind": "odds"}), "a kind of"),
        (changed(licence=None), "licence is not a text"),
        (changed(schema=True), "has schema True"),
        (changed(schema=...), "has schema none"),
        (changed(labels=...), "missing keys ['labels']"),
        (changed(extra=1), "unknown keys ['extra']"),
        (changed(labels=[]), "labels is not a list of one or more texts"),
        (changed(labels="abc"), "labels is not a list"),
        (changed(labels=["a", 1]), "labels is not a list"),
        (changed(opset="17"), "opset is not"),
        (changed(opset=0), "opset is not"),
        (changed(opset=True), "opset is not"),
        (changed(opset=10**30), "a whole number of more than 20 digits"),
        (changed(parity={"max": 0.5}).replace("0.5", "1e999"), "1e999 is too large for a number"),
        (changed(parity={"max": 0.5}).replace("0.5", "-" + "9" * 5000), "a whole number of more than 20 digits"),
        (changed(schema=2.0), "has schema 2.0, but"),
        (changed(provenance=nested(DEEPEST)), "nested more than 32 deep"),
        (changed(labels=["b\ud83d"]), "half of a surrogate pair"),
        (changed(source="\udcff"), "half of a surrogate pair"),
        (changed(provenance={"a\udcff": 1}), "half of a surrogate pair"),
        (changed()[:-1] + ', "labels": ["a"]}', "the key 'labels' stands twice in it"),
        (changed().replace('"mode":', '"mode": "L", "mode":'), "the key 'mode' stands twice in it"),
        (" " * (LONGEST + 1), "it is longer than 32 million signs"),
        (changed(input={"layout": "NCHW", "dtype": "uint8"}), "input has other keys than"),
        (changed(output={"kind": "logits"}), "output has other keys than"),
        (changed(preprocessing={"mode": "L"}), "preprocessing has no antialias, crop, divisor, interpolation, mean"),
        (changed(provenance=[]), "provenance is not an object"),
        (changed(parity=None), "parity is not an object"),
        (changed(preprocessing=None), "preprocessing"),
        (changed(preprocessing=[]), "preprocessing"),
        (changed_preprocessing(mode="CMYK"), "mode must be one of"),
        (changed_preprocessing(antialias=False), "antialias must be true"),
        (changed_preprocessing(divisor=0), "divisor must be positive"),
        (changed_preprocessing(divisor="255"), "divisor must be positive"),
        (changed_preprocessing(divisor=True), "divisor must be positive"),
        (changed_preprocessing(mode=["L"]), "preprocessing"),
        (changed_preprocessing(surprise=1), "surprise"),
        (changed_preprocessing(crop=[224]), "crop must"),
        (changed_preprocessing(crop=[224, 224, 3]), "crop must"),
        (changed_preprocessing(crop=[224.5, 224]), "crop must"),
        (changed_preprocessing(crop=["a", "b"]), "preprocessing"),
        (changed_preprocessing(crop=[-1, 224]), "crop"),
        (changed_preprocessing(resize_size=256.5), "resize_size"),
        (changed_preprocessing(mean=[0.1, 0.2]), "mean and std must have 3 values"),
        (changed_preprocessing(mean=["0", "0", "0"]), "mean and std must be finite numbers"),
        (changed_preprocessing(std=[0.1, 0.0, 0.1]), "std positive"),
    ],
)
def test_junk_is_one_clear_line(text, message):
    with pytest.raises(UserError) as caught:
        Card.from_json_text(text)
    assert message in str(caught.value) and KEY in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(["preprocessing", "labels", "provenance", "parity", "opset", "schema"]),
)
def test_any_value_under_any_key_is_read_or_refused(value, key):
    try:
        card = Card.from_json_text(changed(**{key: value}))
    except UserError:
        return
    assert Card.from_json_text(card.to_json_text()) == card


@pytest.mark.parametrize(
    "text", ["index,wnid,name\n0,n1,tench\n", "0,tench\n1,goldfish\n", '"0",a\n"1",b', ",name\n0,a"]
)
def test_a_table_is_no_list_of_labels(text, tmp_path):
    (tmp_path / "labels").write_text(text)
    with pytest.raises(UserError, match=r"is this a CSV\? a labels file holds one name per line"):
        _labels(str(tmp_path / "labels"))
    (tmp_path / "labels").write_text("tench, Tinca tinca\n1,000 euros\n")
    assert _labels(str(tmp_path / "labels")) == ("tench, Tinca tinca", "1,000 euros")
