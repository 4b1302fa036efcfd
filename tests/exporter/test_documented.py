"""Every key that an exported file's card has is documented."""

from __future__ import annotations

from hw4fast.inference.classifier import Classifier
from tests.documented import documented


def test_the_keys_of_a_run(model_file):
    card = Classifier(model_file).card
    assert card.provenance.keys() <= documented("provenance") and card.parity.keys() <= documented("parity")
