"""The page's drawings as small `<svg>` elements in the page's own colours: curves, histograms, calibration.

Each has axes with units, and reads without colour: lines differ in dashes and marks, bars in height, and what is drawn
is told in words to those who listen. Files for other uses (PNG, SVG) are drawn by figures.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from hw4fast.robustness.analysis import Breaking, median_rank
from hw4fast.robustness.metrics import Row
from hw4fast.robustness.scales import axis_name, round_ticks, share_of
from hw4fast.stats import CalibrationBin
from hw4fast.transforms.spec import Sweep

WIDTH, HEIGHT = 320, 196
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 8, 38
BARS = 16  # of a histogram


@dataclass(frozen=True)
class _Plane:
    """Axes from (0, 0) to (1, 1) on a drawing of WIDTH × HEIGHT."""

    def x(self, share: float) -> float:
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, share: float) -> float:
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def axes(
        self, across: Sequence[tuple[float, str]], up: Sequence[tuple[float, str]], below: str, beside: str
    ) -> str:
        """Grid lines and numbers at (share, text) of each axis, and what they are."""
        left, right, low = self.x(0), self.x(1), self.y(0)
        lines = [f'<path d="M{left} {self.y(at)}H{right}" class="grid-line"/>' for at, _ in up]
        lines += [f'<text x="{left - 5}" y="{self.y(at) + 3.5}" text-anchor="end">{escape(t)}</text>' for at, t in up]
        lines += [f'<text x="{self.x(at)}" y="{low + 14}" text-anchor="middle">{escape(t)}</text>' for at, t in across]
        lines.append(f'<path d="M{left} {TOP}V{low}H{right}" class="axis"/>')
        centre = (TOP + low) / 2
        lines.append(f'<text x="{(left + right) / 2}" y="{HEIGHT - 5}" text-anchor="middle">{escape(below)}</text>')
        turned = f'transform="rotate(-90 10 {centre})"'
        lines.append(f'<text x="10" y="{centre}" text-anchor="middle" {turned}>{escape(beside)}</text>')
        return "".join(lines)

    def line(self, points: Sequence[tuple[float, float]], kind: str, dashes: str = "") -> str:
        path = "M" + "L".join(f"{self.x(a)} {self.y(b)}" for a, b in points)
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        return f'<path d="{path}" fill="none" stroke="var(--{kind})" stroke-width="1.8"{dashed}/>'

    def whisker(self, at: float, low: float, high: float, kind: str) -> str:
        return f'<path d="M{self.x(at)} {self.y(low)}V{self.y(high)}" stroke="var(--{kind})" class="whisker"/>'

    def mark(self, at: float, value: float, kind: str) -> str:
        """A circle for accuracy, a square for what else there is."""
        x, y = self.x(at), self.y(value)
        if kind == "accuracy":
            return f'<circle cx="{x}" cy="{y}" r="3.2" fill="var(--{kind})"/>'
        return f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="var(--{kind})"/>'


PLANE = _Plane()
PERCENT = [(share / 4, str(25 * share)) for share in range(5)]


def _svg(body: str, told: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" class="plot" role="img" aria-label="{escape(told)}">{body}</svg>'


def curve(clean: Row, rows: Sequence[Row], told: str) -> str:
    """Accuracy and flip rate in % against severity, clean at the left, with 95 % Wilson intervals as whiskers."""
    points = [clean, *rows]
    places = [(at + 0.5) / len(points) for at in range(len(points))]
    graded = rows[0].point.severity is not None
    below = "severity" if graded else ""
    body = PLANE.axes(list(zip(places, (p.point.label for p in points), strict=True)), PERCENT, below, "% of pictures")
    kinds = [("flips", "5 3", [(p.flip_rate, p.flip_interval) for p in points])]
    if clean.accuracy is not None:
        level = PLANE.y(clean.accuracy)
        body += f'<path d="M{PLANE.x(0)} {level}H{PLANE.x(1)}" class="reference"/>'
        kinds.append(("accuracy", "", [(p.accuracy or 0.0, p.accuracy_interval or (0, 1)) for p in points]))
    for kind, dashes, values in kinds:
        shift = 0.008 if kind == "accuracy" else -0.008  # whiskers beside each other
        where = [at + shift for at in places]
        body += "".join(PLANE.whisker(at, low, high, kind) for at, (_, (low, high)) in zip(where, values, strict=True))
        middle = [(at, value) for at, (value, _) in zip(where, values, strict=True)]
        body += PLANE.line(middle, kind, dashes) + "".join(PLANE.mark(at, value, kind) for at, value in middle)
    return _svg(body, told)


def histogram(found: Breaking, sweep: Sweep, told: str) -> str:
    """How many of the pictures break in each part of the sweep, in %, and at the right those that never do."""
    counts, _ = np.histogram(found.shares, BARS, (0, 1))
    heights = [*(counts / found.n), found.never / found.n]
    top = max(0.05, 1.15 * max(heights))
    step = next(s for s in (0.02, 0.05, 0.1, 0.2, 0.25) if top / s <= 5)
    up = [(s * step / top, f"{100 * s * step:.0f}") for s in range(int(top / step) + 1)]
    wide = 0.82  # of the sweep; the rest is for "never"
    ticks = [(wide * share_of(sweep, value), f"{value:g}") for value in round_ticks(sweep)]
    body = PLANE.axes([*ticks, (0.955, "never")], up, axis_name(found.parameter, found.unit), "% of pictures")
    for at, height in enumerate(heights):
        begin = wide * at / BARS if at < BARS else 0.92
        end = wide * (at + 0.88) / BARS if at < BARS else 0.99
        x, y = PLANE.x(begin), PLANE.y(height / top)
        kind = ' class="never"' if at == BARS else ""
        if height:
            body += f'<rect x="{x}" y="{y}" width="{PLANE.x(end) - x:.1f}" height="{PLANE.y(0) - y:.1f}"{kind}/>'
    if found.median is not None:
        place = wide * found.shares[(found.n - 1) // 2]
        body += f'<path d="M{PLANE.x(place)} {PLANE.y(0)}V{TOP}" class="median"/>'
        if median_rank(found.n) is not None:
            low, high = (wide * (1.0 if end is None else share_of(sweep, end)) for end in found.interval)
            body += f'<path d="M{PLANE.x(low)} {TOP + 4}H{PLANE.x(high)}" class="median-interval"/>'
    return _svg(f'<g class="bars">{body}</g>', told)


def calibration(series: Sequence[tuple[str, Sequence[CalibrationBin]]], told: str) -> str:
    """Accuracy of the answers against the confidence in them, in %, with the bins' 95 % intervals; on the diagonal a
    model is as often right as it thinks. series: (`accuracy` or `flips`, its bins)."""
    body = PLANE.axes(PERCENT, PERCENT, "confidence, %", "% right")
    body += f'<path d="M{PLANE.x(0)} {PLANE.y(0)}L{PLANE.x(1)} {PLANE.y(1)}" class="reference"/>'
    for kind, bins in series:
        points = [(b.confidence, b.accuracy, b.interval) for b in bins if b.n]
        shown = [(c, a, i) for c, a, i in points if c is not None and a is not None]
        body += "".join(PLANE.whisker(c, *interval, kind) for c, _, interval in shown if interval is not None)
        if len(shown) > 1:
            body += PLANE.line([(c, a) for c, a, _ in shown], kind, "" if kind == "accuracy" else "5 3")
        body += "".join(PLANE.mark(c, a, kind) for c, a, _ in shown)
    return _svg(body, told)


CSS = """
.plot { font-size: 10.5px; overflow: visible; }
.plot text { fill: currentColor; }
.plot .grid-line { stroke: currentColor; stroke-opacity: .16; stroke-width: .7; fill: none; }
.plot .axis { stroke: currentColor; stroke-opacity: .7; fill: none; }
.plot .reference { stroke: currentColor; stroke-dasharray: 1.5 3; stroke-width: 1; fill: none; }
.plot .whisker { stroke-width: 4; stroke-opacity: .28; fill: none; }
.plot .bars rect { fill: var(--accuracy); }
.plot .bars rect.never { fill: none; stroke: currentColor; stroke-dasharray: 2 2; }
.plot .median { stroke: currentColor; stroke-width: 1.4; fill: none; }
.plot .median-interval { stroke: currentColor; stroke-width: 3.5; fill: none; }
.map { width: fit-content; max-width: 100%; }
.heat { border-collapse: separate; border-spacing: 2px; width: auto; font-size: .85rem; }
.heat th { font-weight: 500; padding: .1rem .5rem .1rem 0; text-align: left; white-space: nowrap; }
.heat thead th { text-align: center; color: var(--soft); font-size: .78rem; padding: 0 .3rem; }
.heat td {
  min-width: 3.2rem; padding: .18rem .4rem; text-align: right; border-radius: .2rem;
  background: color-mix(in srgb, var(--flips) var(--harm), transparent);
}
@media screen and (prefers-color-scheme: dark) { .heat td.deep { color: #101215; } }
.heat td.best { outline: 2px solid var(--ink); outline-offset: -2px; font-weight: 600; }
.across thead th { vertical-align: bottom; max-width: 6rem; white-space: normal; overflow-wrap: anywhere; }
.across.many thead th { max-width: none; padding: .2rem 0; }
.across.many thead th span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; }
.across.many td { min-width: 2rem; }
.heat td.broken { outline: 2px solid var(--ink); outline-offset: -2px; }
@media (max-width: 30rem) {
  .map { width: auto; }
  .heat { width: 100%; font-size: .78rem; border-spacing: 1px; }
  .heat th { padding-right: .2rem; }
  .heat td { min-width: 0; padding: .18rem .2rem; }
  .heat thead th { padding: 0 .1rem; }
}
@media print {
  .map { width: auto; }
  .heat, .heat thead th { font-size: 6.5pt; line-height: 1.25; }
  .heat { border-spacing: 1px; width: 100%; }
  .heat th, .heat thead th { padding: 0 .3rem 0 0; }
  .heat td { min-width: 0; padding: .06rem .25rem; border-radius: 0; }
  .heat td.broken, .heat td.best { outline-width: 1px; outline-offset: -1px; }
}
"""
