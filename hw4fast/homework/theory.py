"""The part `theory`: problems 1 and 2, every statement checked; see cross_entropy.py and learning.py."""

from __future__ import annotations

import time
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast.figures import OKABE_ITO, pyplot
from hw4fast.homework import cross_entropy, learning  # noqa: F401  (cross_entropy: for the claims it registers)
from hw4fast.homework.claims import CLAIMS, CORRECTED, FAILS, HOLDS
from hw4fast.homework.parts import Options, Part, drawing, inked, save, save_csv, save_png
from hw4fast.page import INK

SIZE = (4.2, 2.9)  # inches


def run(folder: Path, options: Options) -> dict[str, Any]:
    """Checks every claim; writes theory.csv, the drawings and results.json into `folder`."""
    start = time.perf_counter()
    found = [(claim, claim.check()) for claim in map(CLAIMS.get, CLAIMS)]
    claims = [
        {"problem": claim.problem, "statement": claim.statement, "checks": [vars(check) for check in checks]}
        for claim, checks in found
    ]
    results = {"claims": claims, "seconds": time.perf_counter() - start}
    save_csv(
        folder / "theory.csv",
        [{"problem": claim.problem, **vars(check)} for claim, checks in found for check in checks],
    )
    for name, (draw, _, _) in DRAWINGS.items():
        save_png(draw("black"), folder / f"{name}.png")
    save(folder, results, options)
    return results


def counts(results: dict[str, Any]) -> dict[str, int]:
    verdicts: list[str] = [check["verdict"] for claim in results["claims"] for check in claim["checks"]]
    return {verdict: verdicts.count(verdict) for verdict in (HOLDS, CORRECTED, FAILS)}


def finding(results: dict[str, Any]) -> str:
    n = counts(results)
    text = f"{n[HOLDS]} checks of the theory hold, {n[CORRECTED]} correct the homework"
    return text + (f", {n[FAILS]} FAIL" if n[FAILS] else "") + f" ({results['seconds']:.1f} s)"


def table(results: dict[str, Any]) -> list[str]:
    lines = []
    for claim in results["claims"]:
        lines.append(f"{claim['problem']}  {claim['statement']}")
        lines += [f"     {c['verdict']}: {c['what']}: {c['measured']}" for c in claim["checks"]]
    return lines


def section(results: dict[str, Any], folder: Path) -> str:
    bodies = []
    for claim in results["claims"]:
        n = len(claim["checks"])
        for place, check in enumerate(claim["checks"]):
            statement = f"<b>{escape(claim['problem'])}</b> {escape(claim['statement'])}"
            first = f'<th scope="rowgroup" rowspan="{n}">{statement}</th>' if place == 0 else ""
            tint = "" if check["verdict"] == HOLDS else ' class="broken"'
            cells = "".join(f'<td class="spec">{escape(check[key])}</td>' for key in ("what", "measured"))
            bodies.append(f'<tr{tint}>{first}{cells}<td class="left">{escape(check["verdict"])}</td></tr>')
    cards = "".join(drawing(draw(INK), name, title, caption) for name, (draw, title, caption) in DRAWINGS.items())
    return f"""<p class="note">Every check runs in float64; where a kernel of ours computes it, the kernel is what is
checked. A tinted line corrects the homework, or fails.</p>
<div class="grid strips">{cards}</div>
<div class="numbers claims scroll" tabindex="0" role="group" aria-label="Statements and checks"><table>
<thead><tr><th scope="col" class="left">Statement</th><th scope="col" class="left">Computed</th>
<th scope="col" class="left">Measured</th><th scope="col" class="left">Verdict</th></tr></thead>
<tbody>{"".join(bodies)}</tbody></table></div>"""


# -- drawings ----------------------------------------------------------------------------------------------------


def _axes(ink: str, **labels: Any) -> tuple[Any, Any]:
    figure, axes = pyplot().subplots(figsize=SIZE, layout="constrained")
    axes.set(**labels)
    inked(axes, ink)
    return figure, axes


def _legend(axes: Any, ink: str) -> None:
    axes.legend(frameon=False, labelcolor=ink)


def draw_cost(ink: str) -> Any:
    figure, axes = _axes(ink, xlabel="activation a", ylabel="cost C(a) (nats)", ylim=(0, 3))
    a = np.linspace(0.005, 0.995, 400)
    for number, y in enumerate((0.1, 0.5, 0.8)):
        cost = -(y * np.log(a) + (1 - y) * np.log(1 - a))
        axes.plot(a, cost, marker="", label=f"y = {y:g}", linestyle=("-", "--", "-.")[number])
        axes.plot([y], [-(y * np.log(y) + (1 - y) * np.log(1 - y))], marker="o", color=OKABE_ITO[number])
    _legend(axes, ink)
    return figure


def draw_softmax(ink: str) -> Any:
    figure, axes = _axes(ink, xlabel="factor c", ylabel="softmax(c·z)", xscale="log", ylim=(-0.02, 1.02))
    c = np.logspace(-2, 2, 200)
    z = np.array([2.0, 2.0, 1.0, -1.0])
    e = np.exp(c[:, None] * (z - z.max()))
    p = e / e.sum(1, keepdims=True)
    for k, (label, style) in enumerate({"z = 2 (twice)": "-", "z = 1": "--", "z = −1": "-."}.items()):
        axes.plot(c, p[:, (0, 2, 3)[k]], marker="", linestyle=style, label=label)
    _legend(axes, ink)
    return figure


def draw_gradients(ink: str) -> Any:
    figure, axes = _axes(ink, xlabel="layer, 1 = first", ylabel="‖∂C/∂W‖", yscale="log")
    for name, gain in learning.GAIN.items():
        weights, _ = learning.backpropagate(name, gain)
        axes.plot(range(1, len(weights) + 1), weights, label=name)
    axes.set_xticks([1, 5, 10, 15, 20])
    _legend(axes, ink)
    return figure


def draw_span(ink: str) -> Any:
    figure, axes = _axes(ink, xlabel="|w|", ylabel="length of the interval of a", ylim=(0, 0.5))
    w = np.linspace(4, 40, 2000)[1:]
    axes.plot(w, learning.span(w), marker="", label="formula")
    some = np.array([4.2, 5, 6.9, 10, 15, 20, 25, 30, 35, 40])
    axes.plot(some, [learning.measured_width(x) for x in some], linestyle="", marker="o", label="bisection")
    _legend(axes, ink)
    return figure


DRAWINGS = {
    "cost": (draw_cost, "1.4: the cost is least at a = y", "Dots: a = y. The least cost is the entropy of y, not 0."),
    "softmax": (
        draw_softmax,
        "1.5: softmax grows sharp",
        "z = (2, 2, 1, −1): the two largest share the limit, ½ each.",
    ),
    "gradients": (
        draw_gradients,
        "2.2: the gradient against the layer",
        f"{learning.DEPTH} layers of {learning.WIDTH} neurons, mean of 8 nets; weights of variance 1/n, for ReLU 2/n.",
    ),
    "span": (
        draw_span,
        "2.3: where |w σ′(wa + b)| ≥ 1",
        "No a below |w| = 4; the interval is longest, 0.45, at |w| = 6.9.",
    ),
}

PART = Part(
    "theory", "Theory (problems 1 and 2)", run, section, finding, table, lambda results: not counts(results)[FAILS]
)
