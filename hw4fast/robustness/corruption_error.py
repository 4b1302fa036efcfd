"""Corruption errors (CE): a model's errors on corrupted pictures, as a fraction of AlexNet's. The mCE is the mean of
those in MCE.

After D. Hendrycks, T. Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations",
ICLR 2019, arXiv:1903.12261, section 4.2. 1.0 is as bad as AlexNet; the paper prints 100 times these fractions.

ALEXNET holds published constants, so a CE stands beside published ones only where the errors are top-1 errors among
the 1000 classes of ImageNet, on pictures of its validation set at 224 px. Elsewhere (CIFAR, one's own classes or
pictures, other sizes) the fractions still rank models, but "AlexNet" in them means nothing. And even there:
  - ImageNet-C is a fixed set of JPEG files, corrupted and compressed once. Corrupting pictures here draws other
    random numbers and compresses nothing, which alone shifts errors.
  - `frost` here pastes generated textures, not the photographs of ImageNet-C: its CE, and so the mCE, is
    comparable between models measured here, not with the literature.

ALEXNET was verified, severity by severity, against the table "AlexNet ImageNet-C Error" that stood in the README of
github.com/hendrycks/robustness (added by pull request 20); the 15 of the mCE also against the numbers of its issue 10
and of timm (`imagenetc_alexnet_error_rates_list`), and their means against google-research/augmix (`imagenet.py`) and
bethgelab/game-of-noise (`evaluation_utils.py`). The four others stand in that README alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

MCE = (
    "gaussian_noise", "shot_noise", "impulse_noise",
    "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
    "snow", "frost", "fog", "brightness",
    "contrast", "elastic", "pixelate", "jpeg",
)  # fmt: skip

# Top-1 errors of torchvision's AlexNet at severities 1…5.
ALEXNET: Mapping[str, tuple[float, float, float, float, float]] = {
    "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
    "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
    "impulse_noise": (0.78374, 0.89808, 0.94870, 0.98720, 0.99548),
    "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
    "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
    "motion_blur": (0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
    "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
    "snow": (0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
    "frost": (0.61390, 0.79734, 0.88790, 0.89942, 0.93430),
    "fog": (0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
    "brightness": (0.45140, 0.48502, 0.54048, 0.62166, 0.72440),
    "contrast": (0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
    "elastic": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
    "pixelate": (0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
    "jpeg": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
    "speckle_noise": (0.66192, 0.74440, 0.90246, 0.94548, 0.97268),
    "gaussian_blur": (0.54732, 0.70444, 0.82574, 0.89864, 0.95940),
    "spatter": (0.47196, 0.62194, 0.75052, 0.84132, 0.90182),
    "saturate": (0.59342, 0.65514, 0.51174, 0.70834, 0.82260),
}


def corruption_error(errors: Sequence[float], name: str) -> float:
    """CE of one corruption: the sum of a model's errors over AlexNet's.

    errors: top-1 errors at severities 1, 2, 3, 4, 5, fractions of 1. name: a transform, a key of ALEXNET. Raises
    ValueError for another name, another number of errors, NaN, or an error outside 0…1.
    """
    if name not in ALEXNET:
        raise ValueError(f"no errors of AlexNet are known for {name!r}; they are for {', '.join(ALEXNET)}")
    ours, theirs = np.asarray(errors, np.float64), np.asarray(ALEXNET[name])
    if ours.shape != theirs.shape:
        raise ValueError(f"{name}: errors at severities 1…5 are needed, five numbers, not shape {ours.shape}")
    if not ((ours >= 0) & (ours <= 1)).all():
        raise ValueError(f"{name}: errors must lie in 0…1, not {ours.tolist()}")
    return float(ours.sum() / theirs.sum())
