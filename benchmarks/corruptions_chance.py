"""Whether two ways to corrupt a picture at random do so with the same chance: statistics of what they change."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

DISTANCES = (1, 4)  # pixels
NAMES = ("mean", "std", *(f"{way} {distance}" for way in ("across", "down") for distance in DISTANCES))
FAR = 4.0  # standard errors; by chance alone one of a record's 132 comparisons is farther in 1 of 120 records
SMALL, SMALL_MEAN = 0.005, 0.05  # a difference that doesn't matter: share of the statistic; grey levels, of the mean
MOST = 1e6  # standard errors that are told, where the error is 0


def statistics(picture: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Of result − picture, uint8 [h, w, c] both: float64 [len(NAMES)], its mean and its standard deviation over all
    values in grey levels, and its autocorrelation at DISTANCES across and down, the mean of the channels."""
    change = result.astype(np.float32) - picture
    planes = np.ascontiguousarray(change.transpose(2, 0, 1))
    planes -= planes.mean((1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    variances = np.square(planes).mean((1, 2), dtype=np.float64)
    pairs = [(planes[..., d:], planes[..., :-d]) for d in DISTANCES]
    pairs += [(planes[:, d:], planes[:, :-d]) for d in DISTANCES]
    covariances = np.array([np.einsum("chw,chw->c", near, far) / near[0].size for near, far in pairs])
    correlations = np.divide(covariances, variances, out=np.zeros_like(covariances), where=variances > 0)
    return np.array([change.mean(dtype=np.float64), change.std(dtype=np.float64), *correlations.mean(1)])


def compare(theirs: np.ndarray, ours: np.ndarray) -> dict[str, dict[str, Any]]:
    """By the name of each statistic, from two samples [n, len(NAMES)]: both means, their difference in standard errors
    and as a share of theirs, the ratio of the standard deviations and its distance from 1 in standard errors, and
    whether the means and the spreads agree: where they don't, chance differs."""
    return {name: _one(name, theirs[:, i], ours[:, i]) for i, name in enumerate(NAMES)}


def _one(name: str, theirs: np.ndarray, ours: np.ndarray) -> dict[str, Any]:
    difference = float(ours.mean() - theirs.mean())
    error = sqrt(ours.var(ddof=1) / len(ours) + theirs.var(ddof=1) / len(theirs))
    size = abs(float(theirs.mean()))
    z = _in_errors(difference, error)
    small = abs(difference) < SMALL * size and (name != "mean" or abs(difference) < SMALL_MEAN)
    spreads = [float(each.std(ddof=1)) for each in (theirs, ours)]
    ratio = spreads[1] / spreads[0] if min(spreads) > 0 else float(spreads[0] == spreads[1])
    log_ratio = np.log(ratio) if ratio > 0 else -MOST
    spread_z = _in_errors(log_ratio, sqrt(_of_log_spread(theirs) + _of_log_spread(ours)))
    return {
        "theirs": float(theirs.mean()),
        "ours": float(ours.mean()),
        "z": z,
        "relative": difference / size if size else None,
        "spread_ratio": ratio,
        "spread_z": spread_z,
        "agrees": abs(z) < FAR or small,
        "spread_agrees": abs(spread_z) < FAR,
    }


def _in_errors(difference: float, error: float) -> float:
    return 0.0 if difference == 0 else float(np.clip(difference / max(error, 1e-300), -MOST, MOST))


def _of_log_spread(values: np.ndarray) -> float:
    """Variance of the logarithm of a sample's standard deviation, by its fourth moment; of few values that is too small
    as a rule: at least what normal ones have."""
    squares = np.square(values - values.mean())
    second = squares.mean()
    return max(float(np.square(squares).mean() / second**2) - 1, 2.0) / (4 * len(values)) if second > 0 else 0.0


def same(compared: dict[str, dict[str, Any]]) -> bool:
    return all(row["agrees"] and row["spread_agrees"] for row in compared.values())


def disagreements(compared: dict[str, dict[str, Any]]) -> list[str]:
    """A phrase for each statistic that doesn't agree."""
    found = []
    for name, row in compared.items():
        if not row["agrees"]:
            share = "" if row["relative"] is None else f", {100 * row['relative']:+.2f} %"
            found.append(f"{name} {row['ours']:.4g} for {row['theirs']:.4g} (z = {row['z']:+.1f}{share})")
        if not row["spread_agrees"]:
            found.append(f"spread of {name} {row['spread_ratio']:.3f}× theirs (z = {row['spread_z']:+.1f})")
    return found
