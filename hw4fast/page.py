"""A page: one self-contained HTML file that fetches nothing; light and dark, desk, phone and paper; system fonts."""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

from hw4fast.figures import OKABE_ITO

INK = "#010203"  # in a drawing: the page's text colour
FOOTER = "Written by hw4fast. This page is one file and fetches nothing."


def page(title: str, kicker: str, headline: str, header: str, main: str, css: str = "") -> str:
    """The whole page. title, headline: text; kicker (the line above the headline), header (what stands between it and
    the sections) and main (the sections): HTML. css: for what this page alone has."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{CSS}{css}</style>
</head>
<body>
<header>
<p class="kicker">{kicker}</p>
<h1>{breakable(headline)}</h1>
{header}
</header>
<main>
{main}
</main>
<footer>{FOOTER}</footer>
</body>
</html>
"""


def breakable(text: str) -> str:
    """`text`, escaped, with places to break long names at: after `_`, `/`, `:`, `+` and `,`."""
    return "<wbr>".join(map(escape, re.split(r"(?<=[_/:+,])(?=[^\s_/:+,])", text)))


def repeat(command: str, record: list[tuple[str, str]]) -> str:
    """The section that says how to repeat it: the command, then (name, value) pairs."""
    pairs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in record)
    return f"""<section id="repeat"><h2>How to repeat it</h2>
<pre>{escape(command)}</pre>
<dl class="record">{pairs}</dl></section>"""


def svg(figure: Any, name: str, description: str) -> str:
    """A matplotlib figure as an `<svg>` element: transparent, INK and the first two colours of the palette in the
    page's own, ids prefixed by `name`. description: HTML, read out instead of the drawing."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    text = drawn.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text).groups()  # type: ignore[union-attr]
    body = text[text.index(">") + 1 :]
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = body.replace("url(#", f"url(#{name}-")
    for colour, variable in (
        (INK, "currentColor"),
        (OKABE_ITO[0], "var(--accuracy)"),
        (OKABE_ITO[1], "var(--flips)"),
    ):
        body = body.replace(colour.lower(), variable)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{description}">{body.strip()}'


CSS = """
:root {
  color-scheme: light dark;
  --paper: #faf9f6; --card: #ffffff; --ink: #1a1c20; --soft: #5d626b; --line: #dfdcd4;
  --accuracy: #0072b2; --flips: #d55e00; --tint: #f1efe9;
  --row: rgb(120 105 60 / .1); --shade: rgb(0 0 0 / .3);
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131519; --card: #1b1e23; --ink: #e9e7e2; --soft: #a0a5ae; --line: #32363d;
    --accuracy: #56b4e9; --flips: #f08a3c; --tint: #23272d;
    --row: rgb(255 255 255 / .06); --shade: rgb(255 255 255 / .4);
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
}
header, main, footer { max-width: 74rem; margin: 0 auto; padding: 0 clamp(1rem, 4vw, 2.5rem); }
header { padding-top: clamp(1.5rem, 5vw, 3.5rem); }
.kicker { margin: 0; color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
.kicker b { color: var(--ink); }
h1 {
  font-size: clamp(1.4rem, 4.2vw, 2.6rem); line-height: 1.18; letter-spacing: -.018em; font-weight: 680;
  max-width: 25em; margin: .5rem 0 .8rem; text-wrap: balance; overflow-wrap: break-word;
}
.lede { font-size: 1.08rem; max-width: 42em; margin: 0 0 1.5rem; overflow-wrap: break-word; }
h2 {
  font-size: 1.35rem; letter-spacing: -.01em; line-height: 1.25; margin: 3.2rem 0 .4rem; overflow-wrap: break-word;
}
h3 { font-size: 1rem; margin: 0; overflow-wrap: break-word; }
p.note, figcaption, .soft { color: var(--soft); font-size: .875rem; }
figcaption { overflow-wrap: break-word; }
p.note { max-width: 48em; margin: 0 0 1.1rem; overflow-wrap: break-word; }
a { color: inherit; text-underline-offset: .2em; text-decoration-color: var(--soft); }
a:focus-visible, .scroll:focus-visible { outline: 2px solid var(--accuracy); outline-offset: 2px; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: 1.6rem 0 0; font-size: .925rem; }
.facts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 1px; margin: 0;
  background: var(--line); border: 1px solid var(--line); border-radius: .6rem; overflow: hidden;
}
.facts div { background: var(--card); padding: .8rem 1rem; min-width: 0; }
.facts dt { color: var(--soft); font-size: .8rem; }
.facts dd { margin: 0; font-size: 1.3rem; font-weight: 640; line-height: 1.3; overflow-wrap: break-word; }
.facts small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); line-height: 1.35; }
.grid { display: grid; gap: 1rem; }
.grid.charts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.grid.strips { grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); }
.grid.flips { grid-template-columns: repeat(auto-fill, minmax(min(100%, 15.5rem), 1fr)); }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .9rem 1rem 1rem;
  margin: 0; min-width: 0;
}
.card > .soft { margin: .1rem 0 .6rem; line-height: 1.4; }
svg { display: block; width: 100%; height: auto; max-width: 30rem; margin: 0 auto; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif !important; }
.legend {
  display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; margin: 0 0 1rem; padding: 0; list-style: none;
  font-size: .9rem;
}
.legend li { display: flex; gap: .5rem; }
.legend svg { flex: none; width: 2.6rem; height: .9rem; margin: .3rem 0 0; }
.scroll { /* a shadow at an edge beyond which there is more: the covers move with the content, the shadows stay */
  overflow-x: auto;
  background:
    linear-gradient(to right, var(--card) 40%, transparent) left / 2.5rem 100% local,
    linear-gradient(to left, var(--card) 40%, transparent) right / 2.5rem 100% local,
    radial-gradient(farthest-side at 0 50%, var(--shade), transparent) left / .9rem 100% scroll,
    radial-gradient(farthest-side at 100% 50%, var(--shade), transparent) right / .9rem 100% scroll,
    var(--card);
  background-repeat: no-repeat;
}
.card .scroll { margin: 0 -1rem -.2rem; padding: 0 1rem .2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.strip { table-layout: fixed; }
.strip.wide { min-width: 31rem; }
.strip th {
  font-weight: 600; font-size: .8rem; line-height: 1.25; padding: 0 .15rem .35rem; vertical-align: top;
}
.strip th small {
  display: block; font-weight: 400; color: var(--soft); font-size: .68rem; letter-spacing: -.01em;
  overflow-wrap: anywhere;
}
.strip td { padding: 0 .15rem .45rem; vertical-align: top; text-align: center; }
.strip tbody th { text-align: left; }
img {
  display: block; width: 100%; height: auto; border-radius: .25rem; border: 1px solid var(--line);
  background: var(--tint);
}
img.small { image-rendering: pixelated; }
.answer { display: block; font-size: .78rem; line-height: 1.3; margin-top: .15rem; overflow-wrap: break-word; }
.answer small { font-size: .95em; color: var(--soft); white-space: nowrap; }
.off img { border: 2px solid var(--flips); }
.off .answer { font-weight: 700; }
.mark { font-weight: 700; }
.off .mark { color: var(--flips); }
.pair { display: grid; grid-template-columns: 1fr auto 1fr; gap: .5rem; align-items: start; margin-top: .5rem; }
.pair > .arrow { align-self: center; color: var(--soft); font-size: 1.2rem; padding-bottom: 2rem; }
.numbers { margin-top: 1rem; border: 1px solid var(--line); border-radius: .6rem; }
.swipe { display: none; }
.sheet { min-width: 44rem; border: 0; border-radius: 0; }
.wide svg { max-width: none; min-width: 40rem; }
.claims tbody th { font-weight: 400; max-width: 22rem; }
.claims b { font-weight: 680; }
.model > summary { cursor: pointer; font-weight: 600; margin-top: 1rem; overflow-wrap: break-word; }
.model h3.plots { font-size: 1.1rem; margin: 1.6rem 0 .3rem; }
.paper { display: none; }
ul.why { padding-left: 1.2rem; max-width: 56em; }
.numbers table { font-size: .9rem; min-width: 44rem; }
.numbers + * { margin-top: 1.5rem; }
.numbers th, .numbers td { padding: .34rem .8rem; text-align: right; white-space: nowrap; }
.numbers thead th {
  color: var(--soft); font-weight: 600; font-size: .8rem; border-bottom: 1px solid var(--line);
  vertical-align: bottom;
}
.numbers tbody th { vertical-align: top; font-weight: 640; max-width: 14rem; }
.numbers tbody th, .numbers td.spec { white-space: normal; overflow-wrap: break-word; min-width: 8rem; }
.numbers td.spec { color: var(--soft); max-width: 14rem; }
.numbers .left, .numbers tbody th, .numbers td.spec { text-align: left; }
.numbers tbody { border-top: 1px solid var(--line); }
.numbers tr.broken td { background: var(--row); font-weight: 600; }
.numbers tr.broken td.spec { font-weight: 400; }
.bar {
  display: inline-block; width: 4.5rem; height: .55rem; margin-left: .6rem; background: var(--tint);
  border-radius: 1px;
}
.bar i { display: block; height: 100%; background: var(--accuracy); border-radius: 1px; }
.bar.f i { background: var(--flips); }
tr.broken .bar { background: var(--line); }
pre {
  background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .9rem 1rem;
  margin: .6rem 0 1rem;
  font: .875rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
.record {
  display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; font-size: .9rem;
  margin: 0;
}
.record dt { color: var(--soft); }
.record dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
.failures { font-size: .9rem; padding-left: 1.2rem; overflow-wrap: anywhere; }
footer { margin-top: 3rem; padding-bottom: 3rem; color: var(--soft); font-size: .85rem; }
@media screen and (max-width: 50rem) {
  p.swipe { display: block; margin-bottom: .5rem; }
  .numbers th, .numbers td { padding: .34rem .55rem; }
  .bar { width: 2rem; margin-left: .4rem; }
  .numbers td.spec { white-space: nowrap; max-width: none; }
  .numbers td.spec wbr { display: none; }
  .numbers tbody th, .numbers thead th:first-child {
    position: sticky; left: 0; background: var(--card); min-width: 6.8rem; max-width: 8.5rem;
  }
}
@media (max-width: 30rem) {
  .card { padding: .75rem .8rem .85rem; }
  .card .scroll { margin: 0 -.8rem; padding: 0 .8rem; }
  .facts { grid-template-columns: 1fr 1fr; }
  .facts div { padding: .6rem .7rem; }
  .grid.flips { grid-template-columns: 1fr 1fr; gap: .6rem; }
  .grid.flips h3 { font-size: .875rem; }
  .grid.flips .card { padding: .6rem; }
  .pair { gap: .25rem; }
  .facts div:last-child:nth-child(odd) { grid-column: span 2; }
  .record { grid-template-columns: 1fr; gap: 0; }
  .record dd { margin-bottom: .5rem; }
}
@media print {
  @page { margin: 11mm 10mm; }
  :root {
    --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; --tint: #eee;
    --accuracy: #0072b2; --flips: #d55e00;
  }
  body { font-size: 9pt; line-height: 1.35; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  header, main, footer { max-width: none; padding: 0; }
  h1 { font-size: 19pt; }
  .lede { font-size: 9pt; max-width: none; margin-bottom: .5rem; }
  .kicker { font-size: 8pt; }
  h2 { font-size: 13pt; margin: 1.1rem 0 .2rem; }
  h3 { font-size: 8pt; }
  p.note, figcaption, .soft { font-size: 7.5pt; line-height: 1.3; }
  p.note { max-width: none; margin-bottom: .4rem; }
  nav, p.swipe { display: none; }
  .paper { display: inline; }
  .card, .facts, figure, tr, pre, .record, p, h2, h3 { break-inside: avoid; }
  h2, h3, summary, p.note, .legend, thead { break-after: avoid; }
  .card { border-radius: .3rem; padding: .3rem .4rem; }
  .scroll, .card .scroll { overflow: visible; background: none; margin: 0; padding: 0; }
  .facts { border-radius: .3rem; grid-template-columns: repeat(auto-fit, minmax(28mm, 1fr)); }
  .facts div { padding: .4rem .6rem; }
  .facts dd { font-size: 12pt; }
  .facts dt, .facts small { font-size: 7.5pt; }
  .legend { font-size: 8pt; margin-bottom: .4rem; }
  .charts figcaption { font-size: 5.5pt; line-height: 1.2; }
  .model h3.plots { font-size: 10pt; margin: .5rem 0 .2rem; }
  .grid { gap: 1.6mm; }
  .grid.charts { grid-template-columns: repeat(5, 1fr); }
  .grid.strips { grid-template-columns: repeat(2, 1fr); }
  .grid.flips { grid-template-columns: repeat(6, 1fr); }
  .strip.wide { min-width: 0; }
  .strip th, .strip th small, .answer { font-size: 5.5pt; line-height: 1.15; }
  .strip th { padding: 0 .1rem .1rem; }
  .strip td { padding: 0 .1rem .15rem; }
  .strip thead ~ tbody tr:nth-child(n + 3) { display: none; } /* two of the pictures tell as much as four */
  .card > .soft { margin: 0 0 .15rem; font-size: 6.5pt; line-height: 1.2; }
  .pair { gap: .15rem; margin-top: .15rem; }
  .pair > .arrow { font-size: 8pt; padding-bottom: .6rem; }
  .grid.flips figcaption { font-size: 5.5pt; line-height: 1.15; margin-top: .1rem; }
  .grid.flips h3 { font-size: 6.5pt; }
  .numbers { margin-top: .3rem; border: 0; border-radius: 0; }
  .numbers table { min-width: 0; font-size: 7pt; line-height: 1.2; }
  .numbers th, .numbers td { padding: .06rem .22rem; }
  .numbers thead th { font-size: 6.5pt; white-space: normal; }
  .numbers tbody th, .numbers td.spec { min-width: 0; max-width: none; }
  .halves { columns: 2; column-gap: 6mm; }
  .numbers td.spec { white-space: nowrap; font-size: 6pt; }
  .numbers td.spec wbr, .halves wbr { display: none; }
  .halves table { font-size: 5.6pt; line-height: 1.12; }
  .halves thead th { font-size: 5.6pt; }
  .halves th, .halves td { padding: .04rem .15rem; }
  .halves tbody th { white-space: nowrap; font-weight: 400; }
  .strip tbody th ~ td img { max-width: 11mm; margin: 0 auto; }
  .bar { width: 1.2rem; height: .35rem; margin-left: .25rem; }
  .record, pre { font-size: 7.5pt; }
  details.model::details-content { content-visibility: visible; display: block; height: auto; }
  details.model > summary { list-style: none; }
  footer { margin-top: 1rem; padding-bottom: 0; }
}
"""
