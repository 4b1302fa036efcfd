"""What `card` prints: the main figures of a card in lines, and of strange ones what they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw4fast.cli.card_lines import card_lines
from hw4fast.data import Preprocessing
from hw4fast.data.preprocessing import preset
from hw4fast.inference.card import Card, Input, Output

VERSIONS = {"python": "3.11.7", "torch": "2.14.1"}
MACHINE = {"processor": "AMD EPYC", "cores": 2, "isas": ["avx2", "baseline"], "system": "Linux"}
SESSION = {"begun": "2026-11-25T22:57:50+00:00", "machine": MACHINE, "versions": VERSIONS, "threads": 2, "isa": "avx2"}
SETTINGS = {"dataset": "digits", "model": "seed_cnn", "recipe": "adam", "epochs": 2, "batch_size": 100, "lr": 0.1}
RUN: dict[str, Any] = {
    "settings": SETTINGS | {"optimizer": "adam", "tune": "all", "patience": None, "seed": 7},
    "data": {"name": "digits", "source": "scikit-learn's load_digits", "fingerprint": "90", "left_out": 0},
    "result": {"test_correct": 192, "test_images": 360, "test_cost": 1.6727, "test_last_correct": 34},
    "commit": "0906ec42fb2a",
    "sessions": [SESSION],
    "exported": "2026-11-25T22:58:49+00:00",
    "versions": VERSIONS,
    "precision": "float32",
}
PARITY = {
    "precision": "float32",
    "images": 64,
    "batches": [64, 1, 2, 7],
    "provider": "cpu",
    "largest_logit": 2.0182,
    "max_error_to_torch": 4.7e-07,
    "max_error_to_float64": 4.4e-07,
    "torch_max_error_to_float64": 3.5e-07,
    "same_answers": 64,
    "near_ties": 0,
    "tolerance": 1e-05,
}
DIGITS = Preprocessing(mode="L", crop=(28, 28), mean=(0.3088,), std=(0.3488,))
OF_RUN = Card(DIGITS, tuple("0123456789"), RUN, PARITY, 20)
TEXT_OF_RUN = """\
labels         10: 0 | 1 | 2 | 3 | 4 | …
preprocessing  read as grey (L)
               stretched to 28×28 pixels (bilinear, antialiased)
               (byte / 255 − mean) / std, mean 0.3088, std 0.3488
input          input: float32 [n, 1, 28, 28] (NCHW)
output         logits: logits [n, 10]
licence        not said
source         not said
provenance     seed_cnn trained on digits (scikit-learn's load_digits): recipe adam, 2 epochs, batches of 100, adam,
                 learning rate 0.1, seed 7
               test accuracy 53.33 % (95 % interval 48.17 … 58.42, 192 of 360), cost 1.6727 nats
               begun 2026-11-25T22:57:50+00:00 on AMD EPYC, 2 cores, avx2, commit 0906ec42fb2a; python 3.11.7, torch
                 2.14.1
               exported 2026-11-25T22:58:49+00:00 as float32
parity         on 64 pictures in batches of 64, 1, 2, 7: 64 answers as torch gives them
               error at most 4.4e-07 to float64, torch's own 3.5e-07; allowed 2e-05, 1e-05 of the largest logit
opset          20; the card has schema 2"""


def lines(card: Card) -> str:
    return "\n".join(card_lines(card))


def test_of_a_run():
    assert lines(OF_RUN) == TEXT_OF_RUN


def test_of_a_fine_tuned_net_in_several_sessions():
    tuned = RUN["settings"] | {"tune": "head-then-all", "patience": 10}
    result = RUN["result"] | {"best_epoch": {"stage": "all", "epoch": 3}}
    old = SESSION | {"versions": {"torch": "2.13.0"}}
    provenance = RUN | {"settings": tuned, "result": result, "sessions": [old, old]}
    text = lines(replace(OF_RUN, provenance=provenance)).replace("\n                 ", " ")
    assert "learning rate 0.1, tuned head-then-all, patience 10, seed 7" in text
    assert "cost 1.6727 nats, epoch 3 of stage all" in text
    assert "in 2 sessions, the last one begun 2026-11-25T22:57:50+00:00" in text
    assert "as float32; python 3.11.7, torch 2.14.1" in text  # others than it was trained with


def test_of_an_architecture_in_int8_that_takes_pictures():
    told = {"median": 0.88, "low": 0.86, "high": 0.91, "n": 160, "float32_ms": 0.2, "int8_ms": 0.22}
    judged = {"pictures": 360, "same_answers": 354, "correct_float32": 192, "correct_int8": 194}
    more = {
        "inputs_equal_to_torchvision": 60,
        "near_ties": 28,
        "judged": {"test": judged},
        "speed": {"processor": "AMD EPYC", "cores": 2, "batches": {"1": told}},
    }
    provenance = {
        "architecture": "squeezenet1_1",
        "weights": "squeezenet1_1.pth",
        "preset": "imagenet",
        "exported": "2026-11-25T22:59:35+00:00",
        "versions": VERSIONS,
        "precision": "int8",
        "normalisation": "nodes of its own",
        "calibration": {"method": "percentile", "pictures": 256, "origin": "the folder c"},
    }
    photos = replace(preset("imagenet"), mode="BGR", interpolation="nearest")
    card = Card(
        photos, ("a",), provenance, PARITY | more, 20, Input("x", "NHWC", "uint8"), Output("y", "probabilities")
    )
    text = lines(replace(card, licence="BSD", source="somebody")).replace("\n                 ", " ")
    for part in (
        "read as BGR (blue first)\n",
        "shorter side to 256 pixels (nearest, not antialiased), then the centre, 224×224\n",
        "x: uint8 [n, 224, 224, 3] (NHWC); divided and normalised in the graph\n",
        "y: probabilities [n, 1]\n",
        "licence        BSD\nsource         somebody\n",
        "squeezenet1_1, weights squeezenet1_1.pth, preprocessing imagenet\n",
        "as int8 (calibrated on 256 pictures: the folder c), nodes of its own; python 3.11.7, torch 2.14.1\n",
        "64 answers as torch gives them, 28 near ties\n",
        "inputs of 60 photographs equal to the last bit to those of torchvision's transforms\n",
        "on 360 others (test): 354 answers as in float32; accuracy in float32 53.33 % (95 % interval 48.17 … 58.42,",
        "in int8 53.89 % (",
        "batch 1: 0.88× float32's speed (95 % interval 0.86 … 0.91) on AMD EPYC, 2 cores\n",
    ):
        assert part in text, part


def test_of_a_card_set_by_hand():
    card = Card(replace(DIGITS, crop=(8, 9)), ("cat", "dog"), {"file": "net.onnx"}, {}, 17)
    text = lines(card)
    assert "stretched to 8×9 (height × width) pixels" in text and "labels         2: cat | dog\n" in text
    assert "provenance     the card was set by hand, for net.onnx\nparity         not measured\n" in text
    text = lines(replace(card, provenance={"file": "net.onnx", "edited": ["labels", "output"]}))
    assert "edited by hand since: labels, output\nparity         not measured since it was edited\n" in text
    assert "provenance     not said\n" in lines(replace(card, provenance={}))


def test_labels_with_commas_are_told_apart():
    card = replace(OF_RUN, labels=("tench, Tinca tinca", "a" * 70, "dog"))
    assert (
        lines(card)
        .replace("\n                 ", " ")
        .startswith(f"labels         3: tench, Tinca tinca | {'a' * 59}… | dog\n")
    )


def test_what_another_program_wrote_is_named():
    provenance = {f"key {number}": number for number in range(9)} | {"settings": 5, "result": {"test_images": 3}}
    text = lines(replace(OF_RUN, provenance=provenance, parity={"images": [], "best": {"x": 1}}))
    assert "provenance     key 0: 0, key 1: 1, key 2: 2" in text and "key 7: 7, …\n" in text
    assert 'parity         {"images": [], "best": {"x": 1}}\n' in text


@pytest.mark.parametrize("text", ["\x1b[2J", "\u202e", "a\nb", "x" * 10**6, "", "  "])
def test_strange_text_breaks_no_line(text):
    card = replace(OF_RUN, labels=(text, "b"), licence=text, source=text, provenance={text: text, "file": text})
    told = lines(replace(card, parity={text: text}, input=Input(text), output=Output(text)))
    assert len(told) < 5000 and told.replace("\n", "").isprintable()
    assert {line[:15].strip() for line in told.split("\n")} - {""} == {
        line[:15].strip() for line in TEXT_OF_RUN.split("\n")
    } - {""}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(
        [*RUN, "calibration", "normalisation", "edited", "file", "architecture", *PARITY, "judged", "speed"]
    ),
)
def test_any_value_under_any_key_is_told(value, key):
    assert "opset" in lines(replace(OF_RUN, provenance=RUN | {key: value}, parity=PARITY | {key: value}))
