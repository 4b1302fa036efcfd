from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from hw4fast.page import breakable
from hw4fast.robustness.across import across_models
from hw4fast.robustness.album import make_album
from hw4fast.robustness.pictures import sure
from hw4fast.robustness.points import points_of
from hw4fast.robustness.report import LARGEST, Report, render
from tests.drawings import crossing, inside
from tests.robustness.rows import measured_of

VOID = {"meta", "img", "wbr", "br", "link", "input", "hr"}
NASTY = "<script>alert(\"1\")</script> & 'x'.png"


class Page(HTMLParser):
    """Checks that tags nest, and collects what the page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def measured(n=6, size=(12, 10, 1), labels=(0, 1, 2, 0, 1, -1), transforms=("blur", "gaussian_noise", "rotate30")):
    """Answers drawn at random: the page must stand whatever they are."""
    points = points_of(transforms)
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (n, *size), dtype=np.uint8))
    answers = rng.integers(0, 3, (len(points), n), dtype=np.int32)
    answers[0] = [0, 1, 2, 0, 1, 2][:n]
    confidence = rng.uniform(0, 1, answers.shape).astype(np.float32)
    names = [NASTY, *(f"sub/{i}.png" for i in range(1, n))]
    failures = (("<b>bad</b>.png", "it's <i>broken</i>"),)
    found = measured_of(points, answers.T, labels[:n], names, failures)
    found.confidence[:] = confidence
    return found, make_album(found, lambda number: (pictures[number], {}))


def page_of(found, title="digits", labels=("zero, nought", "<one>", "two"), date="", others=()):
    return render(
        Report(
            title=title,
            model="runs/<model>.onnx",
            measured=found[0],
            album=found[1],
            rows=found[0].rows(),
            model_labels=labels,
            seed=0,
            command="hw4fast study 'a b' --model <model>.onnx",
            record=[("Seed", "0"), ("Versions", "a < b")],
            date=date,
            others=others,
            across=across_models(
                ["runs/<model>.onnx", *(name for name, _ in others)], [found[0], *(m for _, m in others)]
            ),
        )
    )


@pytest.fixture(scope="module")
def text():
    return page_of(measured())


def test_tags_are_balanced_and_ids_are_unique(text):
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [a["href"][1:] for tag, a in page.seen if tag == "a"]
    assert anchors
    assert set(anchors) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_each_further_model_has_its_plots_collapsed_on_a_screen_and_open_on_paper():
    found = measured()
    text = page_of(found, others=[("<second>.onnx", found[0]), ("third.onnx", measured()[0])])
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [a for tag, a in page.seen if tag == "details"] == [
        {"class": "model", "id": f"model-{number}"} for number in (2, 3)
    ]
    charts = [a for tag, a in page.seen if tag == "svg" and a.get("role") == "img"]
    assert len(charts) == 3 * (3 + 1)
    assert text.count('<table class="heat">') == 3
    assert "&lt;second&gt;.onnx: " in text
    across = text[text.index('id="across"') : text.index('id="heat"')]
    assert "&lt;second&gt;.onnx" in across and across.count("<tr>") == 1 + 1 + 2  # models; clean, blur, gaussian_noise
    assert across.count('class="best"') == 3 * 3  # the same answers of all
    assert "details.model::details-content { content-visibility: visible;" in text


def test_nothing_is_fetched(text):
    page = Page(text)
    for tag, attributes in page.seen:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        for key in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:image/", "#")), (tag, key, value)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


def test_what_comes_from_outside_is_escaped(text):
    for raw in ("<script", "<b>bad", "<i>broken", "<one>", "<model>"):
        assert raw not in text
    for shown in ("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;", "&lt;b&gt;bad&lt;/b&gt;.png", "&lt;one&gt;"):
        assert shown in text


def test_it_can_be_read_without_eyes_or_colours_and_on_a_phone(text):
    page = Page(text)
    assert page.seen[0] == ("html", {"lang": "en"})
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.seen
    images = [a for tag, a in page.seen if tag == "img"]
    assert images
    assert all(image["alt"] for image in images)
    charts = [a for tag, a in page.seen if tag == "svg" and a.get("role") == "img"]
    assert [chart["aria-label"].split(".")[0] for chart in charts if chart["aria-label"]]
    assert len(charts) == 3 + 1  # a curve per transform, calibration
    wrong = [a for _, a in page.seen if a.get("aria-label") in ("wrong", "not as clean")]
    off = [a for _, a in page.seen if a.get("class") == "off"]
    assert len(wrong) == len(off) > 0
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert "currentColor" in text
    assert "#010203" not in text


def test_each_transform_and_severity_has_its_pictures_and_its_numbers(text):
    for name in ("blur", "gaussian_noise", "rotate30"):
        assert f"<h3>{breakable(name)}</h3>" in text
    for point in points_of(["blur", "gaussian_noise", "rotate30"])[1:]:
        assert f'<td class="spec">{breakable(point.spec)}</td>' in text
    assert text.count("<tr class=") + text.count("<tr><") >= 12
    assert "n = 6 pictures (5 of them labelled, which accuracy counts)" in text


def test_small_pictures_are_embedded_as_they_are():
    text = page_of(measured())
    assert "data:image/png;base64," in text
    assert 'class="small"' in text
    assert "data:image/jpeg" not in text


def test_large_pictures_are_shrunk_until_the_page_is_small():
    noise = measured(
        size=(700, 700, 3), transforms=("blur", "gaussian_noise", "rotate", "contrast", "brightness", "jitter")
    )
    text = page_of(noise)
    assert len(text.encode()) < 5_000_000
    assert len(text) <= LARGEST
    assert "data:image/jpeg;base64," in text


def test_many_models_stand_upright_without_what_their_names_share():
    found = measured()
    others = [(f"runs/{place}/model.onnx", found[0]) for place in ("a/l2", "b/l2", "a/l1", "b", "c", "d")]
    text = page_of(found, others=others)
    assert '<table class="heat across many">' in text and "&lt;<wbr>" not in text
    assert "<span>&lt;model&gt;.onnx</span>" in text and "<span>a/<wbr>l2/<wbr>model.onnx</span>" in text
    assert "models.png" in text
    more = page_of(found, others=[*others, *(("x.onnx", found[0]) for _ in range(2))])
    assert "models.png" not in more and "<span>runs/<wbr>a/<wbr>l2/<wbr>model.onnx</span>" in more


def test_of_several_models_without_labels_kept_answers_are_compared():
    found = measured(labels=(-1,) * 6)
    text = page_of(found, others=[("second.onnx", found[0])])
    across = text[text.index('id="across"') : text.index('id="heat"')]
    assert "Share of answers that stay" in across and ">clean<" not in across


@pytest.mark.parametrize(
    ("labels", "said", "lines"),
    [
        ((0, 1, 2, 0, 1, -1), "No class has more than 2 pictures here", 0),
        ((0, 0, 0, 0, 0, 1), "beside. Left out: 1 class of fewer than 5 pictures. classes.csv holds all.", 1),
        ((0,) * 6, None, 0),
    ],
)
def test_of_a_class_with_few_pictures_nothing_is_said(labels, said, lines):
    text = page_of(measured(labels=labels))
    assert ('id="classes"' in text) == (said is not None)
    if said is not None:
        section = text[text.index('id="classes"') :]
        section = section[: section.index("</section>")]
        assert said in " ".join(section.split()) and section.count('scope="row"') == lines


def test_without_labels_it_speaks_of_flips_only():
    text = page_of(measured(labels=(-1,) * 6))
    Page(text)
    assert "Accuracy" not in text
    assert "as clean" in text


def test_a_single_picture_makes_a_page():
    Page(page_of(measured(n=1, transforms=("rotate30",))))


def test_dollars_in_a_name_are_no_formula(tmp_path):
    from hw4fast.robustness.figures import save_curves, save_grid

    rows = measured()[0].rows()
    save_curves(tmp_path / "a.png", rows[0], [rows[1:6]], r"a $\frac{ b$ c")
    save_grid(tmp_path / "b.png", [("$x^$", [("clean", np.zeros((4, 4, 3), np.uint8), "$_$")])], "$$")
    assert (tmp_path / "a.png").stat().st_size > 0
    assert (tmp_path / "b.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("confidence", "shown"),
    [(0.0, "< 1 %"), (0.004, "< 1 %"), (0.5, "50 %"), (0.989, "99 %"), (0.9999, "> 99 %"), (1.0, "> 99 %")],
)
def test_nothing_is_said_to_be_certain_that_only_rounds_to_it(confidence, shown):
    assert sure(np.float32(confidence)) == shown


def test_the_date_stands_on_the_page_when_there_is_one(text):
    assert "runs/&lt;model&gt;.onnx</p>" in text
    assert "runs/&lt;model&gt;.onnx · 2026-01-31</p>" in page_of(measured(n=2), date="2026-01-31")


def test_words_and_scale_are_explained_where_the_finding_stands(text):
    head = text[: text.index("</header>")]
    assert "“Breaks” means: at least 10 points less accuracy" in head
    assert "steps on each transform’s own scale" in head
    assert "Lowest mean confidence" in head


def test_no_picture_that_was_wrong_when_clean_is_shown_as_flipped():
    found = measured(labels=(1, 2, 0, 1, 2, 0))  # clean answers are 0, 1, 2, 0, 1, 2: all wrong
    page = page_of(found)
    assert "No answer to a picture that the model knew when clean changed" in page
    assert '<figure class="card"><h3>blur, severity' not in page


def test_of_few_labels_their_number_stands_beside_the_share(text):
    assert "answers that are right (of 5 labelled pictures)" in text


def test_the_table_tells_that_it_is_wider_than_a_phone(text):
    assert "swipe sideways" in text
    assert "p.swipe { display: block;" in text


LONG = "a rather long name of a folder/a rather long name of a model.onnx · n = 12345 pictures"


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are closed during a test."""
    from hw4fast.figures import pyplot

    figures = []
    monkeypatch.setattr(pyplot(), "close", figures.append)
    yield figures
    monkeypatch.undo()
    pyplot().close("all")


@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize("labels", [(0, 1, 2, 0, 1, -1), (-1,) * 6])
def test_no_text_of_the_pictures_is_cut_off(tmp_path, drawn, count, labels):
    from hw4fast.robustness.figures import save_curves, save_grid, save_models
    from hw4fast.robustness.findings import by_series

    chain = "gaussian_noise:std=0.1+rotate30+motion_blur:severity=3+defocus_blur:severity=4"
    names = ("blur", "rotate30", chain, "gaussian_noise", "contrast:factor=0.5", "brightness")[:count]
    found = measured(transforms=names, labels=labels)[0]
    rows = found.rows()
    groups = by_series(rows)
    assert len(groups) == count
    save_curves(tmp_path / "a.png", rows[0], groups, LONG)
    picture = np.zeros(((4, 4, 3), (4, 12, 1), (12, 5, 3), (1, 1, 1))[count % 4], np.uint8)
    cells = [("rotate:degrees=30,fill=black", picture, "✗ a long class name… · > 99 %")] * 2
    save_grid(tmp_path / "b.png", [(f"chromatic_aberration:std=0.1+rotate{i}", cells) for i in range(count)], LONG)
    models = [f"{LONG} {number}" for number in range(9)]
    across = across_models(models[: count + 1], [found] * (count + 1))
    assert save_models(tmp_path / "c.png", across, LONG)
    assert not save_models(tmp_path / "d.png", across_models(models, [found] * 9), LONG)
    assert [inside(figure) for figure in drawn] == [True, True, True]
    assert not [pair for figure in drawn[:2] for pair in crossing(figure)]  # these are placed by hand
