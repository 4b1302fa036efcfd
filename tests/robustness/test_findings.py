from __future__ import annotations

from hw4fast.robustness.findings import by_series, details, headline, share
from tests.robustness.rows import row


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def curve(series, n, correct):
    return [row(series, severity, n, 0, right) for severity, right in enumerate(correct, start=1)]


CLEAN = row("clean", 0, 1000, 0, 986)
BLUR = curve("blur", 1000, [980, 611, 400, 300, 200])
NOISE = curve("noise", 1000, [986, 980, 975, 700, 500])
ROTATE = curve("rotate", 1000, [986, 980, 975, 970, 960])


def test_what_breaks_soonest_leads():
    rows = [CLEAN, *ROTATE, *NOISE, *BLUR]
    assert plain(headline(rows)) == (
        "Blur breaks this model soonest: at severity 2 of 5, accuracy falls from 98.6 % to 61.1 %."
    )
    assert [plain(text) for text in details(rows)] == [
        "Then comes noise at severity 4 (70.0 %).",
        "No severity of rotate clearly takes 10 points off the accuracy.",
    ]
    assert [group[0].point.series for group in by_series(rows)] == ["blur", "noise", "rotate"]


def test_nothing_breaks():
    assert plain(headline([CLEAN, *ROTATE])) == (
        "No transform breaks this model; rotate at severity 5 did the most harm: 96.0 % right after 98.6 % clean."
    )
    assert details([CLEAN, *ROTATE]) == []


def test_too_few_pictures_claim_nothing():
    rows = [row("clean", 0, 3, 0, 3), *curve("blur", 3, [3, 3, 3, 2, 2])]
    assert plain(headline(rows)) == (
        "3 pictures are too few to be sure of anything; blur at severity 4 did the most harm: "
        "66.7 % right after 100.0 % clean."
    )


def test_without_labels_the_changed_answers_are_told():
    rows = [row("clean", 0, 100, 0, None), *[row("blur", s, 100, 20 * s, None) for s in range(1, 6)]]
    rows += [row("noise", s, 100, 0, None) for s in range(1, 6)]
    assert plain(headline(rows)) == (
        "Blur changes this model’s mind soonest: at severity 1 of 5, 20.0 % of its answers differ from those to the "
        "clean pictures."
    )
    assert details(rows) == ["No severity of noise clearly changes one answer in ten."]


def test_a_strength_of_the_users_own_is_told_apart():
    rows = [CLEAN, *BLUR, row("rotate30", None, 1000, 400, 580)]
    assert plain(headline([CLEAN, rows[-1]])) == "rotate30 breaks this model: accuracy falls from 98.6 % to 58.0 %."
    assert plain(headline(rows)).startswith("Blur breaks this model soonest")
    assert [plain(text) for text in details(rows)] == ["As given, rotate30 leaves 58.0 %."]


def test_shares():
    assert plain(share(0.5)) == "50.0 %"
    assert share(None) == "–"


def test_of_strengths_of_the_users_own_the_most_harmful_leads():
    rows = [CLEAN, row("blur51", None, 1000, 400, 700), row("rotate30", None, 1000, 400, 580)]
    assert plain(headline(rows)) == "rotate30 breaks this model most: accuracy falls from 98.6 % to 58.0 %."
    assert [plain(text) for text in details(rows)] == ["As given, blur51 leaves 70.0 %."]
