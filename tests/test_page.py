"""What every page shares."""

from __future__ import annotations

import pytest

from hw4fast.page import breakable, page


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("models/a_b.onnx", "models/<wbr>a_<wbr>b.onnx"),
        ("interpolation:kind=none", "interpolation:<wbr>kind=none"),
        ("blur51+rotate30", "blur51+<wbr>rotate30"),
        ("a, b: c / d_", "a, b: c / d_"),
        ("x__y", "x__<wbr>y"),
        ("<b>/&", "&lt;b&gt;/<wbr>&amp;"),
        ("", ""),
    ],
)
def test_long_names_break_where_their_parts_end(text, html):
    assert breakable(text) == html


def test_a_heading_of_names_is_escaped_and_breaks_on_a_phone():
    text = page("t", "k", "normalisation:kind=<none> breaks it", "", "")
    assert "<h1>normalisation:<wbr>kind=&lt;none&gt; breaks it</h1>" in text
    assert "overflow-wrap: anywhere" not in text[text.index("h1 {") : text.index(".lede")]


def test_paper_keeps_headings_with_what_they_head():
    text = page("t", "k", "h", "", "")
    paper = text[text.index("@media print") :]
    assert "h2, h3, summary, p.note, .legend, thead { break-after: avoid; }" in paper
    assert ".card, .facts, figure, tr," in paper
