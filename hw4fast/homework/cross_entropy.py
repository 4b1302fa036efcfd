"""Problem 1: each statement about cross-entropy as a function that checks it numerically, in float64.

The losses and gradients that are checked are our kernels'.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from hw4fast.homework.claims import Check, check, claim, generator
from hw4fast.nn import binary_cross_entropy_with_logits, softmax_cross_entropy


@claim("1.1")
def swapped_cross_entropy() -> list[Check]:
    """−[a ln y + (1 − a) ln(1 − y)], with target y and activation a swapped, is undefined at y = 0 and y = 1;
    −[y ln a + (1 − y) ln(1 − a)] with a = σ(z) is finite for every z."""
    a = np.linspace(0.01, 0.99, 99)
    with np.errstate(divide="ignore", invalid="ignore"):
        swapped = np.array([-(a * np.log(y) + (1 - a) * np.log(1 - y)) for y in (0.0, 1.0)])
    z = torch.linspace(-1e4, 1e4, 20_001, dtype=torch.float64)
    both = torch.stack([z, z]), torch.stack([torch.zeros_like(z), torch.ones_like(z)])
    right = binary_cross_entropy_with_logits(*both, reduction="none")
    exact = torch.stack([torch.logaddexp(z, torch.zeros(())), torch.logaddexp(-z, torch.zeros(()))])
    error = float((right - exact).abs().max())
    with np.errstate(divide="ignore", over="ignore"):
        naive = -np.log(1 / (1 + np.exp(-z.numpy())))
    return [
        check(
            "the swapped form at y = 0 and 1, for 99 values of a in 0.01 … 0.99",
            f"{int((~np.isfinite(swapped)).sum())} of {swapped.size} values are infinite",
            not np.isfinite(swapped).any(),
        ),
        check(
            "the right form from z (kernel bce_with_logits), z = −10⁴ … 10⁴, y = 0 and 1",
            f"all finite: {bool(torch.isfinite(right).all())}; largest error {error:.1e} of 10⁴",
            bool(torch.isfinite(right).all()) and error < 1e-11,
        ),
        check(
            "the right form from a = σ(z) rounded to float64 first, y = 1, the same z",
            f"infinite for {int(np.isinf(naive).sum())} of {len(naive)} z: hence a kernel that takes z",
            bool(np.isinf(naive).any()),
        ),
    ]


@claim("1.2")
def bernoulli_likelihood() -> list[Check]:
    """The negative log-likelihood of Bernoulli variables, −ln Π p^y (1 − p)^(1 − y), is binary cross-entropy."""
    z = 2 * torch.randn(500, generator=generator(), dtype=torch.float64)
    p = torch.sigmoid(z)
    y = torch.bernoulli(p, generator=generator(1))
    likelihood = torch.where(y == 1, p, 1 - p).prod()
    cost = binary_cross_entropy_with_logits(z, y, reduction="sum")
    error = abs(float(cost + likelihood.log()) / float(cost))
    return [
        check(
            "Σ of the kernel bce_with_logits against −ln of the product of 500 probabilities",
            f"{float(cost):.6f} nats, relative difference {error:.1e}",
            error < 1e-13,
        )
    ]


@claim("1.3")
def categorical_likelihood() -> list[Check]:
    """The negative log-likelihood of a categorical variable is softmax cross-entropy, −ln p_y; the homework's own
    formula, −Σ_k [y_k ln p_k + (1 − y_k) ln(1 − p_k)], is the sum of K binary ones, a different cost."""
    n, classes = 1000, 10
    z = 2 * torch.randn(n, classes, generator=generator(), dtype=torch.float64)
    target = torch.randint(0, classes, (n,), generator=generator(1))
    p = torch.softmax(z, 1)
    y = nn.functional.one_hot(target, classes).double()
    categorical = -torch.log((p**y).prod(1))
    error = float((softmax_cross_entropy(z, target, reduction="none") - categorical).abs().max())
    homework = -(y * p.log() + (1 - y) * torch.log1p(-p)).sum(1)
    extra = homework - categorical
    two = torch.softmax(z[:, :2], 1)
    twice = -(torch.log(two[:, 0]) + torch.log1p(-two[:, 1])) / -torch.log(two[:, 0])
    return [
        check(
            "kernel softmax_xent against −ln Π p_k^y_k, 1000 rows of 10 classes",
            f"largest difference {error:.1e} nats",
            error < 1e-13,
        ),
        check(
            "the homework's formula less that, the same rows",
            f"{float(extra.mean()):.3f} nats on average, at least {float(extra.min()):.3f}: never 0,"
            " Σ of −ln(1 − p_k) over the wrong classes",
            float(extra.min()) > 0,
            correction=True,
        ),
        check(
            "the two for 2 classes, where p₂ = 1 − p₁",
            f"exactly twice: ratio {float(twice.mean()):.12f}",
            float((twice - 2).abs().max()) < 1e-9,
            correction=True,
        ),
    ]


@claim("1.4")
def least_cost() -> list[Check]:
    """For 0 < y < 1 the cost C(a) = −[y ln a + (1 − y) ln(1 − a)] is smallest at a = y, where C″ > 0."""
    y = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    low, high = torch.full_like(y, -50), torch.full_like(y, 50)
    for _ in range(200):  # bisection on the kernel's ∂C/∂z, which rises with z
        z = ((low + high) / 2).requires_grad_()
        (slope,) = torch.autograd.grad(binary_cross_entropy_with_logits(z, y, reduction="sum"), z)
        low, high = torch.where(slope < 0, z.detach(), low), torch.where(slope < 0, high, z.detach())
    a = torch.sigmoid(low)
    error = float((a - y).abs().max())
    curvature = y / y**2 + (1 - y) / (1 - y) ** 2
    grid, h = torch.linspace(0.02, 0.98, 97, dtype=torch.float64), 1e-4

    def cost(at: Tensor) -> Tensor:
        return -(y[:, None] * at.log() + (1 - y[:, None]) * torch.log1p(-at))

    found = (cost(grid + h) - 2 * cost(grid) + cost(grid - h)) / h**2
    formula = y[:, None] / grid**2 + (1 - y[:, None]) / (1 - grid) ** 2
    off = float(((found - formula) / formula).abs().max())
    least = binary_cross_entropy_with_logits(low, y, reduction="none")
    entropy = -(y * y.log() + (1 - y) * torch.log1p(-y))
    return [
        check("where the kernel's gradient is 0, for 999 values of y", f"|a − y| ≤ {error:.1e}", error < 1e-12),
        check(
            "second difference of C (h = 10⁻⁴) at 97 values of a for each y, against y/a² + (1 − y)/(1 − a)²",
            f"at least {float(found.min()):.3f}, and {float(curvature.min()):.3f} at a = y; off by {off:.1e} of it",
            float(found.min()) > 0 and off < 1e-4,
        ),
        check(
            "the least cost itself against the entropy of y",
            f"differs by at most {float((least - entropy).abs().max()):.1e} nats: it is not 0 but for y = 0 or 1",
            float((least - entropy).abs().max()) < 1e-12,
        ),
    ]


@claim("1.5")
def sharp_softmax() -> list[Check]:
    """softmax(c·z) for c → ∞ gives 1/m to each of m tied largest entries and 0 to the others."""
    checks = []
    for m in (1, 2, 3):
        z = torch.tensor([[2.0] * m + [1.0, 0.5, -3.0]], dtype=torch.float64)
        limit = torch.tensor([1 / m] * m + [0.0] * 3, dtype=torch.float64)
        errors = [float((_softmax(c * z)[0] - limit).abs().max()) for c in (1, 10, 100, 1000)]
        checks.append(
            check(
                f"{m} tied: distance from the limit at c = 1, 10, 100, 1000 (from the kernel's gradient)",
                ", ".join(f"{error:.1e}" for error in errors),
                errors[-1] < 1e-15 and errors[0] > errors[1] > errors[2] >= errors[3],
            )
        )
    return checks


def _softmax(z: Tensor) -> Tensor:
    """softmax of rows as the kernel softmax_xent has it: its gradient is softmax less the one-hot target."""
    z = z.clone().requires_grad_()
    target = torch.zeros(len(z), dtype=torch.int64)
    (gradient,) = torch.autograd.grad(softmax_cross_entropy(z, target, reduction="sum"), z)
    return gradient + nn.functional.one_hot(target, z.shape[1])


@claim("1.6")
def output_error() -> list[Check]:
    """The error of the output layer, δ = ∂C/∂z, is a − y: for σ with binary and for softmax with categorical
    cross-entropy."""
    z = 3 * torch.randn(64, 10, generator=generator(), dtype=torch.float64)
    target = torch.randint(0, 10, (64,), generator=generator(1))
    y = nn.functional.one_hot(target, 10).double()
    found = []
    for name, cost, a in (
        ("σ, kernel bce_with_logits", lambda z: binary_cross_entropy_with_logits(z, y, reduction="sum"), torch.sigmoid),
        (
            "softmax, kernel softmax_xent",
            lambda z: softmax_cross_entropy(z, target, reduction="sum"),
            lambda z: torch.softmax(z, 1),
        ),
    ):
        at = z.clone().requires_grad_()
        (delta,) = torch.autograd.grad(cost(at), at)
        formula = float((delta - (a(z) - y)).abs().max())
        h, slope = 1e-5, torch.empty_like(z)
        for place in range(z.numel()):
            step = torch.zeros(z.numel(), dtype=torch.float64)
            step[place] = h
            step = step.view_as(z)
            slope.view(-1)[place] = (cost(z + step) - cost(z - step)) / (2 * h)
        measured = float((delta - slope).abs().max())
        found.append(
            check(
                f"{name}, 64 × 10 logits",
                f"gradient less (a − y): {formula:.1e}; less central differences of the cost: {measured:.1e}",
                formula < 1e-14 and measured < 1e-7,
            )
        )
    return found
