"""Problem 2: each statement about training as a function that checks it numerically, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hw4fast.homework.claims import Check, check, claim, generator
from hw4fast.nn import softmax_cross_entropy


@claim("2.1")
def decay() -> list[Check]:
    """An L2 penalty λ/2·w² multiplies a weight by 1 − lr·λ in each step, so the weight grows without bound when
    lr·λ > 2; an L1 penalty λ|w| takes off lr·λ whatever the weight, and so can bring it to 0."""
    checks = []
    for strength in (0.5, 19.0, 21.0):
        w = abs(_descend(lambda w, strength=strength: strength / 2 * w**2, 0.1, 0.0, 100))  # type: ignore[misc]
        formula = abs(1 - 0.1 * strength) ** 100
        checks.append(
            check(
                f"L2, lr 0.1, λ = {strength:g}: |w| after 100 steps from 1",
                f"{w:.2e}, |1 − lr·λ|¹⁰⁰ = {formula:.2e}",
                (w > 1) == (0.1 * strength > 2) and math.isclose(w, formula, rel_tol=1e-9),
            )
        )
    l1 = [abs(_descend(lambda w: 0.05 * abs(w), 0.1, 0.0, steps)) for steps in (150, 250)]
    l2 = _descend(lambda w: 0.05 / 2 * w**2, 0.1, 0.0, 250)
    text = f"L1 {l1[0]:.3f} after 150 steps and {l1[1]:.3f} after 250; L2 {l2:.3f} after 250"
    near = abs(l1[0] - 0.25) < 1e-9 and l1[1] <= 0.1 * 0.05 + 1e-12 and l2 > 0.2
    return [*checks, check("λ = 0.05, lr 0.1, from 1: L1 arrives (within lr·λ), L2 only nears 0", text, near)]


@claim("2.2")
def vanishing_gradient() -> list[Check]:
    """With depth the error δ of the first layers vanishes for σ at every usual scale of the weights; for tanh and ReLU
    it depends on that scale, and there is a usual one at which it stays."""
    found = {name: [backpropagate(name, gain) for gain in GAINS] for name in ACTIVATIONS}
    rates = {name: [float((d[0] / d[-1]) ** (1 / (DEPTH - 1))) for _, d in runs] for name, runs in found.items()}
    told = {name: ", ".join(f"{rate:.2f}" for rate in rates[name]) for name in rates}
    gains = ", ".join(f"{gain:.3g}" for gain in GAINS)
    what = f"{{}}: factor of ‖δ‖ per layer towards the first of {DEPTH}; weights N(0, g²/n), g = {gains}"
    small = [rates[name][0] < 0.7 for name in ("tanh", "ReLU")]
    stays = [min(abs(math.log(rate)) for rate in rates[name]) < 0.1 for name in ("tanh", "ReLU")]
    huge = (16.0, [backpropagate("σ", 16.0)[1]])
    far = float((huge[1][0][0] / huge[1][0][-1]) ** (1 / (DEPTH - 1)))
    first, twentieth = ([backpropagate(name, GAIN[name], n)[0][0] for name in ACTIVATIONS] for n in (2, DEPTH))
    least = ", ".join(f"{n} {b / a:.1e}" for n, a, b in zip(ACTIVATIONS, first, twentieth, strict=True))
    return [
        check(what.format("σ"), f"{told['σ']}: vanishes at each", max(rates["σ"]) < 0.7),
        check(f"σ at g = {huge[0]:g}, far from usual: the same factor", f"{far:.2f}: it does not vanish", far > 1),
        check(what.format("tanh"), f"{told['tanh']}: vanishes if small, stays near g = 1", small[0] and stays[0]),
        check(what.format("ReLU"), f"{told['ReLU']}: vanishes if small, stays near g = √2", small[1] and stays[1]),
        check(
            "first layer’s ‖∂C/∂W‖ in a net of 20 layers over that in one of 2; g = 1, for ReLU √2",
            least,
            twentieth[0] / first[0] < 1e-9 and min(twentieth[1] / first[1], twentieth[2] / first[2]) > 0.05,
        ),
    ]


DEPTH, WIDTH = 20, 100
GAINS = (0.5, 1.0, math.sqrt(2), 2.0)
GAIN = {"σ": 1.0, "tanh": 1.0, "ReLU": math.sqrt(2)}  # Glorot's and He's
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"σ": torch.sigmoid, "tanh": torch.tanh, "ReLU": torch.relu}


def backpropagate(activation: str, gain: float, depth: int = DEPTH) -> tuple[np.ndarray, np.ndarray]:
    """‖∂C/∂W‖ and ‖δ‖ = ‖∂C/∂z‖ (Frobenius) of each of `depth` layers of WIDTH neurons, first to last, mean over 8
    nets: softmax cross-entropy on random targets, 256 random inputs, weights N(0, gain²/WIDTH).

    √2 is the gain of He et al., "Delving Deep into Rectifiers" (2015); 1 that of Glorot, Bengio (2010) here.
    """
    total = np.zeros((2, depth))
    for seed in range(8):
        source = generator(seed)

        def draw(*shape: int, source: torch.Generator = source) -> Tensor:
            return torch.randn(*shape, generator=source, dtype=torch.float64)

        out, a = draw(10, WIDTH) / math.sqrt(WIDTH), draw(256, WIDTH)
        target = torch.randint(0, 10, (256,), generator=source)
        weights = [(gain / math.sqrt(WIDTH) * draw(WIDTH, WIDTH)).requires_grad_() for _ in range(depth)]
        sums = []
        for weight in weights:
            sums.append(a @ weight.T)
            a = ACTIVATIONS[activation](sums[-1])
        gradients = torch.autograd.grad(softmax_cross_entropy(a @ out.T, target), [*weights, *sums])
        norms = [float(gradient.norm()) for gradient in gradients]
        total += np.array([norms[:depth], norms[depth:]])
    return total[0] / 8, total[1] / 8


@claim("2.3")
def steep_sigmoid() -> list[Check]:
    """|w σ′(wa + b)| ≥ 1 needs |w| ≥ 4; the activations a for which it holds span
    (2/|w|) ln(|w|(1 + √(1 − 4/|w|))/2 − 1), which is largest, about 0.45, near |w| = 6.9."""
    z = np.linspace(-20, 20, 400_001)
    steepest = float((_sigmoid(z) * (1 - _sigmoid(z))).max())
    widths = np.linspace(4.01, 40, 3600)
    measured = np.array([measured_width(w) for w in widths[::36]])
    error = float(np.abs(measured - span(widths[::36])).max())
    fine = np.linspace(4, 40, 3_600_001)[1:]
    at = int(np.argmax(span(fine)))
    below = max(measured_width(w) for w in (0.5, 2.0, 3.999))
    return [
        check("the largest σ′", f"{steepest:.12f}, so |w σ′| ≥ 1 needs |w| ≥ 4", abs(steepest - 0.25) < 1e-12),
        check("the span for |w| = 0.5, 2, 3.999", f"{below:g}", below == 0),
        check("the formula against bisection, 100 values of |w| in 4 … 40", f"differ by {error:.1e}", error < 1e-9),
        check(
            "where the span is largest",
            f"|w| = {fine[at]:.4f}, span {span(fine)[at]:.4f}",
            abs(fine[at] - 6.9) < 0.05 and abs(span(fine)[at] - 0.45) < 0.005,
        ),
    ]


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def span(w: np.ndarray) -> np.ndarray:
    """The formula, for w ≥ 4."""
    return 2 / w * np.log(w * (1 + np.sqrt(1 - 4 / w)) / 2 - 1)


def measured_width(w: float) -> float:
    """Length of the interval of a on which |w σ′(wa)| ≥ 1, by bisection on its right end (b only moves it)."""

    def holds(a: float) -> bool:
        s = 1 / (1 + math.exp(-w * a))
        return w * s * (1 - s) >= 1

    if not holds(0.0):
        return 0.0
    low, high = 0.0, 10.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return 2 * low


@claim("2.4")
def momentum() -> list[Check]:
    """Momentum, v ← μv + g and w ← w − lr·v, does not converge for μ ≥ 1 nor for μ ≤ −1, whatever the learning rate; on
    ½w² it converges just when |μ| < 1 and lr < 2(1 + μ)."""
    mu, lr = (axis.ravel() for axis in np.meshgrid(np.linspace(-1.45, 1.45, 30), np.linspace(0.13, 3.93, 20)))
    w, v = np.ones_like(mu), np.zeros_like(mu)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(3000):
            v = mu * v + w
            w = w - lr * v
        right = (np.abs(w) < 1e-3) == ((np.abs(mu) < 1) & (lr < 2 * (1 + mu)))
    edge = _largest(1.0, 0.1, 3000), _largest(1.05, 0.1, 3000)
    slow, fast = (_steps_to(0.01, 0.1, momentum) for momentum in (0.0, 0.5))
    ours = [_descend(lambda w: w**2 / 2, 0.1, momentum, 30) for momentum in (0.5, 1.2)]
    torchs = [_torch_sgd(0.1, momentum, 30) for momentum in (0.5, 1.2)]
    return [
        check(
            "600 pairs of μ in −1.45 … 1.45 and lr in 0.13 … 3.93, 3000 steps each",
            f"the rule is right for {int(right.sum())}",
            bool(right.all()),
        ),
        check(
            "this formula against torch.optim.SGD, 30 steps, μ = 0.5 and 1.2",
            f"w = {torchs[0]:.6f} and {torchs[1]:.6f}: the same",
            bool(np.allclose(ours, torchs, rtol=1e-12)),
        ),
        check(
            "largest |w| in 3000 steps at lr 0.1: μ = 1 and 1.05",
            f"{edge[0]:.2f}: it swings for ever; {edge[1]:.0e}: it diverges",
            0.9 < edge[0] < 2 and edge[1] > 1e6,
        ),
        check("steps to |w| < 0.01 at lr 0.1", f"{slow} with μ = 0, {fast} with μ = 0.5", fast < slow),
    ]


def _descend(cost: Callable[[Tensor], Tensor], lr: float, mu: float, steps: int) -> float:
    """w after that many steps from 1 with momentum mu."""
    w, v = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for _ in range(steps):
        at = w.requires_grad_()
        (g,) = torch.autograd.grad(cost(at), at)
        v = mu * v + g
        w = (w - lr * v).detach()
    return w.item()


def _torch_sgd(lr: float, mu: float, steps: int) -> float:
    """The same for ½w², by torch.optim.SGD."""
    w = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=lr, momentum=mu)
    for _ in range(steps):
        optimizer.zero_grad()
        (w**2 / 2).backward()
        optimizer.step()
    return w.item()


def _largest(mu: float, lr: float, steps: int) -> float:
    """The largest |w| in the last hundred of that many steps on ½w² from 1."""
    w, v, seen = 1.0, 0.0, []
    for _ in range(steps):
        v = mu * v + w
        w -= lr * v
        seen.append(abs(w))
    return max(seen[-100:])


def _steps_to(goal: float, lr: float, mu: float) -> int:
    w, v, steps = 1.0, 0.0, 0
    while abs(w) >= goal:
        v = mu * v + w
        w -= lr * v
        steps += 1
    return steps
