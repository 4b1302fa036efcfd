"""Corruption errors: the table of AlexNet against what is published, and a published model worked out again."""

from __future__ import annotations

import numpy as np
import pytest

from hw4fast.robustness.corruption_error import (
    ALEXNET,
    ALEXNET_CLEAN,
    MCE,
    corruption_error,
    mean_corruption_error,
    mean_relative_corruption_error,
    missing,
    relative_corruption_error,
)

# Means over severities as published beside the table: google-research/augmix and hendrycks/robustness.
MEANS = {
    "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640, "defocus_blur": 0.819880,
    "glass_blur": 0.826268, "motion_blur": 0.785948, "zoom_blur": 0.798360, "snow": 0.866816, "frost": 0.826572,
    "fog": 0.819324, "brightness": 0.564592, "contrast": 0.853204, "elastic": 0.646056, "pixelate": 0.717840,
    "jpeg": 0.606500, "speckle_noise": 0.845388, "gaussian_blur": 0.787108, "spatter": 0.717512, "saturate": 0.658248,
}  # fmt: skip

# ResNet-50 in table 1 of the paper: CE in per cent, in the order of MCE; there, mCE 76.7 and (section 5.2) relative
# mCE 105.0 at a clean error of 23.87 %.
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
    assert mean_corruption_error(ALEXNET) == pytest.approx(1.0)
    assert mean_relative_corruption_error(ALEXNET, ALEXNET_CLEAN) == pytest.approx(1.0)


def test_a_published_model():
    assert mean_corruption_error(resnet50()) == pytest.approx(0.767, abs=0.005)  # the CE are rounded to 1 %
    assert mean_relative_corruption_error(resnet50(), 0.2387) == pytest.approx(1.05, abs=0.015)


def test_by_hand():
    errors = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert corruption_error(errors, "jpeg") == pytest.approx(1.5 / 3.0325)
    assert relative_corruption_error(errors, 0.05, "jpeg") == pytest.approx(1.25 / (3.0325 - 5 * 0.43478))
    assert relative_corruption_error(errors, 0.4, "jpeg") < 0


def test_only_the_fifteen_count():
    worst = {**resnet50(), "saturate": [1.0] * 5, "rotate": [1.0] * 5}
    assert mean_corruption_error(worst) == mean_corruption_error(resnet50())


def test_what_is_missing_is_named():
    some = {name: errors for name, errors in resnet50().items() if name not in ("frost", "glass_blur")}
    assert missing(some) == ("glass_blur", "frost")
    assert missing(ALEXNET) == ()
    for call in (lambda: mean_corruption_error(some), lambda: mean_relative_corruption_error(some, 0.2)):
        with pytest.raises(ValueError, match="missing: glass_blur, frost"):
            call()


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
    with pytest.raises(ValueError, match=message):
        relative_corruption_error(errors, 0.1, name)


@pytest.mark.parametrize("clean_error", [-0.1, 23.9, float("nan")])
def test_a_clean_error_that_is_none(clean_error):
    with pytest.raises(ValueError, match="the clean error must lie in 0…1"):
        relative_corruption_error([0.5] * 5, clean_error, "fog")
