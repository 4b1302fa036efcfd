"""Corruption errors: the table of AlexNet against what is published, and a published model worked out again."""

from __future__ import annotations

import numpy as np
import pytest

from hw4fast.robustness.corruption_error import ALEXNET, MCE, corruption_error

# Means over severities as published beside the table: google-research/augmix and hendrycks/robustness.
MEANS = {
    "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640, "defocus_blur": 0.819880,
    "glass_blur": 0.826268, "motion_blur": 0.785948, "zoom_blur": 0.798360, "snow": 0.866816, "frost": 0.826572,
    "fog": 0.819324, "brightness": 0.564592, "contrast": 0.853204, "elastic": 0.646056, "pixelate": 0.717840,
    "jpeg": 0.606500, "speckle_noise": 0.845388, "gaussian_blur": 0.787108, "spatter": 0.717512, "saturate": 0.658248,
}  # fmt: skip

# ResNet-50 in table 1 of the paper: CE in per cent, in the order of MCE; there, mCE 76.7.
RESNET50 = (80, 82, 83, 75, 89, 78, 80, 78, 75, 66, 57, 71, 85, 77, 77)


def resnet50() -> dict[str, list[float]]:
    """Errors that give the CE of the table: AlexNet's, times it."""
    return {name: [ce / 100 * error for error in ALEXNET[name]] for name, ce in zip(MCE, RESNET50, strict=True)}


def test_the_table_has_the_published_means():
    assert {name: round(float(np.mean(errors)), 6) for name, errors in ALEXNET.items()} == MEANS
    assert len(MCE) == 15 and len(ALEXNET) == 19
    assert set(ALEXNET) - set(MCE) == {"speckle_noise", "gaussian_blur", "spatter", "saturate"}


def test_alexnet_is_one():
    assert {corruption_error(errors, name) for name, errors in ALEXNET.items()} == {1.0}


def test_a_published_model():
    found = {name: corruption_error(errors, name) for name, errors in resnet50().items()}
    assert [100 * found[name] for name in MCE] == pytest.approx(RESNET50)
    assert np.mean(list(found.values())) == pytest.approx(0.767, abs=0.005)  # the CE are rounded to 1 %


def test_by_hand():
    errors = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert corruption_error(errors, "jpeg") == pytest.approx(1.5 / 3.0325)


@pytest.mark.parametrize(
    ("errors", "name", "message"),
    [
        ([0.1] * 5, "rotate", "no errors of AlexNet are known for 'rotate'"),
        ([0.1] * 4, "fog", r"fog: errors at severities 1…5 are needed.*\(4,\)"),
        ([], "fog", "five numbers"),
        ([0.1, 0.2, 0.3, 0.4, np.nan], "fog", "must lie in 0…1"),
        ([10, 20, 30, 40, 50], "fog", "must lie in 0…1"),
        ([-0.1, 0.2, 0.3, 0.4, 0.5], "fog", "must lie in 0…1"),
    ],
)
def test_errors_that_are_none(errors, name, message):
    with pytest.raises(ValueError, match=message):
        corruption_error(errors, name)
