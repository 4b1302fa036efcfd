"""The sections of the page about several models: side by side, transform by transform, and each against the first."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from hw4fast.figures import MARKERS
from hw4fast.page import breakable
from hw4fast.robustness.across import LEVEL, Across
from hw4fast.robustness.analysis import Compared, ModelRow, compare
from hw4fast.robustness.findings import points, share
from hw4fast.robustness.measure import Measured
from hw4fast.robustness.sections import tint
from hw4fast.stats import FEW_PAIRS, half_up
from hw4fast.transforms.spec import shown

FEW_MODELS = 6  # of more, the heads of columns stand upright


def models_section(models: Sequence[ModelRow]) -> str:
    """All models side by side, the one that bears most first; nothing for a single one."""
    if len(models) < 2:
        return ""
    labelled = all(one.accuracy is not None for one in models)
    lines = "".join(
        f'<tr><th scope="row">{breakable(one.model)}</th>'
        + (f"<td>{share(one.clean.accuracy)}</td><td>{share(one.accuracy)}</td>" if labelled else "")
        + f"<td>{share(one.flip_rate)}</td>"
        + (f"<td>{share(one.calibration)}</td><td>{share(one.spoiled_calibration)}</td>" if labelled else "")
        + f'<td class="left">{escape(one.worst)}</td><td>{share(one.worst_area)}</td></tr>'
        for one in sorted(models, key=lambda one: (-(one.accuracy or 0), one.flip_rate))
    )
    right = '<th scope="col">Clean</th><th scope="col">Spoiled</th>' if labelled else ""
    error = '<th scope="col">ECE, clean</th><th scope="col">ECE, spoiled</th>' if labelled else ""
    explained = (
        "Spoiled: the mean accuracy over all of them; ECE: expected calibration error, how far confidence and share of "
        "right answers lie apart on average; flipped"
    )
    kept = "" if labelled else "; of answers that stay"
    return f"""<section id="models"><h2>Which model bears most</h2>
<p class="note">Every model on the same {models[0].clean.n} pictures under the same transforms.
{explained if labelled else "Flipped"} (flip rate): the mean share of answers that differ from the clean ones; worst:
the transform with the least area under its curve (mean height from clean to severity 5{kept}), and that. The
rest of this page is about {breakable(models[0].model)}, but for the plots and comparisons of the others at its end.</p>
<div class="numbers scroll" tabindex="0" role="group" aria-label="Models"><table>
<thead><tr><th scope="col" class="left">Model</th>{right}<th scope="col">Flipped</th>{error}
<th scope="col" class="left">Worst</th><th scope="col">there</th></tr></thead>
<tbody>{lines}</tbody></table></div></section>"""


def across_section(found: Across) -> str:
    """Transform by model: the areas, a tint that deepens with what a model loses, and a frame around the best."""
    top = found.lines[0].areas if found.labelled else [1.0] * len(found.models)
    rows = []
    for one in found.lines:
        cells = "".join(
            f"<td{tint((full - area) / max(full, 1e-9), 'best' if best else '')}>{half_up(100 * area, 0)}</td>"
            for area, best, full in zip(one.areas, one.best, top, strict=True)
        )
        rows.append(f'<tr><th scope="row">{breakable(one.series)}</th>{cells}</tr>')
    heads = "".join(f'<th scope="col"><span>{breakable(name)}</span></th>' for name in _apart(found.models))
    kind = "heat across many" if len(found.models) > FEW_MODELS else "heat across"
    drawn = ", models.png draws it" if len(found.models) <= len(MARKERS) else ""
    what = "Accuracy" if found.labelled else "Share of answers that stay as they were"
    some = f" that every model has a label for (of {found.whole})" if found.n < found.whole else ""
    return f"""<section id="across"><h2>Which model bears what</h2>
<p class="note">{what} in %, the mean height of the curve from clean to severity 5, on {found.n}
picture{"s" * (found.n > 1)}{some}. The deeper the tint, the more of its clean answers a model loses; framed: the best,
and those that can’t be told apart from it (paired sign-flip test, {100 * LEVEL:.0f} % for all models of a line
together). across.csv holds each model’s own 95 % interval{drawn}.</p>
<div class="map scroll" tabindex="0" role="group" aria-label="Transform by model"><table class="{kind}">
<thead><tr><th scope="col"></th>{heads}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div></section>"""


def _apart(names: Sequence[str]) -> list[str]:
    """Paths without the folders that all begin with, and without the parts that all end with."""
    parts = [name.split("/") for name in names]
    while all(len(one) > 1 for one in parts) and len({one[0] for one in parts}) == 1:
        parts = [one[1:] for one in parts]
    while all(len(one) > 1 for one in parts) and len({one[-1] for one in parts}) == 1:
        parts = [one[:-1] for one in parts]
    return ["/".join(one) for one in parts]


def alexnet_line(one: ModelRow) -> str:
    """The mean corruption error in words, and what it may be compared with; empty where it has no meaning."""
    if one.mean_corruption_error is None:
        return ""
    part = "" if one.compared_with_alexnet == 15 else f" (over {one.compared_with_alexnet} of its 15 transforms)"
    return (
        f"Its errors are {half_up(100 * one.mean_corruption_error, 0)} % of AlexNet’s published ones on "
        f"ImageNet-C{part}: its mean corruption error (mCE; a CE is one transform’s). "
        "That is comparable only for ImageNet’s validation pictures at 224 pixels; frost and elastic, which are other "
        "ones here, are left out."
    )


def comparison_section(names: Sequence[str], measured: Sequence[Measured]) -> str:
    """Each further model against the first, point by point; nothing for one model."""
    return "".join(
        _compared(names[0], name, compare(measured[0], other))
        for name, other in zip(names[1:], measured[1:], strict=True)
    )


def _compared(first: str, second: str, found: Sequence[Compared]) -> str:
    """In words of accuracy; without labels, of answers that stay as they were when clean: then clean is no test."""
    found = found if found[0].labelled else [one for one in found if one.point.chain is not None]
    if not found:
        return ""
    clear = [one.p < 0.05 / len(found) for one in found]
    lines = "".join(
        f'<tr{" class=broken" if tint else ""}><th scope="row">{breakable(one.point.spec or "clean")}</th>'
        f"<td>{points(one.difference.difference)}</td>"
        f"<td>{points(one.difference.low)}\u00a0…\u00a0{points(one.difference.high)}</td>"
        f"<td>{one.only_first}</td><td>{one.only_second}</td><td>{_p(one.p)}</td></tr>"
        for one, tint in zip(found, clear, strict=True)
    )
    more = sum(tint and one.difference.difference > 0 for one, tint in zip(found, clear, strict=True))
    names = breakable(first), breakable(second)
    counts = f"at {more} of {len(found)} points and clearly {{}} at {sum(clear) - more}"
    if found[0].labelled:
        claim = f"{names[0]} is clearly better {counts.format('worse')}. Difference of accuracy in points"
        only = "pictures that only one of them gets right"
    else:
        claim = (
            f"{names[0]} clearly keeps more of its clean answers {counts.format('fewer')}. Without labels this tells "
            "how steady a model is, not how right. Difference of the shares of kept answers in points"
        )
        only = "pictures whose clean answer only one of them keeps"
    return f"""<section class="comparison"><h2>{names[0]} against {names[1]}</h2>
<p class="note">On the same {found[0].n} pictures, {claim} with a 95 % interval (paired bootstrap; Bonett and Price’s
where fewer than {FEW_PAIRS} pictures tell the two apart); {only}; McNemar’s exact test. A tinted line is significant at
5 % after Bonferroni’s correction for {len(found)} tests.</p>
<div class="numbers halves scroll" tabindex="0" role="group" aria-label="Comparison"><table>
<thead><tr><th scope="col" class="left">Transform</th><th scope="col">Difference</th><th scope="col">95 % interval</th>
<th scope="col">Only first</th><th scope="col">Only second</th><th scope="col">p</th></tr></thead>
<tbody>{lines}</tbody></table></div></section>"""


def _p(value: float) -> str:
    return "<\u00a00.0001" if value < 0.0001 else shown(round(value, 4))
