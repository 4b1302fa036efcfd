from __future__ import annotations

from hw4fast.robustness.findings import by_series, details, headline, labelled_part, meaning, share
from hw4fast.robustness.metrics import Row
from hw4fast.robustness.points import CLEAN as CLEAN_POINT
from tests.robustness.rows import row


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def curve(series, n, correct, clean=None):
    """Five severities; as many answers changed as were lost of the `clean` right ones."""
    clean = max(correct) if clean is None else clean
    return [row(series, severity, n, clean - right, right) for severity, right in enumerate(correct, start=1)]


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


def test_what_is_the_same_under_another_name_is_said_once():
    gaussian = curve("gaussian_blur", 1000, [970, 500, 400, 300, 200])
    trick = curve("trick", 1000, [986, 980, 975, 970, 960])
    rows = [CLEAN, *ROTATE, *NOISE, *BLUR, *gaussian, *trick]
    assert headline(rows).startswith("gaussian_blur breaks this model soonest")
    said = [plain(text) for text in details(rows)]
    assert said == [
        "Then comes noise at severity 4 (70.0 %).",
        "No severity of rotate clearly takes 10 points off the accuracy.",
    ]
    first = curve("blur", 1000, [500, 400, 300, 200, 100])
    assert headline([CLEAN, *NOISE, *gaussian, *first]).startswith("Blur breaks")
    assert [plain(text) for text in details([CLEAN, *NOISE, *gaussian, *first])] == said[:1]
    held = curve("gaussian_blur", 1000, [986, 985, 980, 975, 970])
    assert [plain(text) for text in details([CLEAN, *NOISE, *BLUR, *held, *ROTATE, *trick])] == said
    assert [plain(text) for text in details([CLEAN, *NOISE, *held, *trick])] == [
        "No severity of trick clearly takes 10 points off the accuracy."
    ]


def test_nothing_breaks():
    assert plain(headline([CLEAN, *ROTATE])) == (
        "Rotate doesn’t break this model; rotate at severity 5 did the most harm: 96.0 % right after 98.6 % clean."
    )
    noise = curve("noise", 1000, [986, 985, 980, 975, 970])
    assert plain(headline([CLEAN, *ROTATE, *noise])) == (
        "No transform breaks this model; rotate at severity 5 did the most harm: 96.0 % right after 98.6 % clean."
    )
    assert details([CLEAN, *ROTATE]) == []


def test_too_few_pictures_claim_nothing():
    rows = [row("clean", 0, 3, 0, 3), *curve("blur", 3, [3, 3, 3, 2, 2])]
    assert plain(headline(rows)) == (
        "Too few pictures to tell whether blur breaks this model: with n = 3 a loss of up to 80 points can’t be "
        "excluded; blur at severity 4 did the most harm: 66.7 % right after 100.0 % clean."
    )


def test_ten_pictures_speak_alike_of_nine_right_and_of_seven():
    clean = row("clean", 0, 10, 0, 10)
    for right, bound in ((9, 41), (7, 61)):
        words = plain(headline([clean, row("blur3", None, 10, 10 - right, right)]))
        assert words.startswith(
            f"Too few pictures to tell whether blur3 breaks this model: with n = 10 a loss of up to {bound} points can"
        )


def test_when_nothing_changed_it_says_so():
    ten, many = row("clean", 0, 10, 0, 10), row("clean", 0, 1000, 0, 986)
    assert plain(headline([ten, row("blur3", None, 10, 0, 10)])) == (
        "Not one answer changed, but with n = 10 a loss of up to 28 points can’t be excluded."
    )
    assert plain(headline([row("clean", 0, 10, 0, None), row("blur3", None, 10, 0, None)])) == (
        "Not one answer changed, but with n = 10 a change of up to 28 % of the answers can’t be excluded."
    )
    assert (
        headline([many, row("blur3", None, 1000, 0, 986)]) == "blur3 doesn’t break this model: not one answer changed."
    )
    assert headline([many, row("blur3", None, 1000, 20, 990)]) == (
        "blur3 doesn’t break this model: no loss of accuracy was found."
    )


def test_a_model_that_is_bad_on_clean_pictures_is_not_called_unbroken():
    rows = [row("clean", 0, 1000, 0, 120), row("blur3", None, 1000, 30, 100)]
    assert plain(headline(rows)) == (
        "This model gets only 12.0 % of the 1000 clean pictures right: little is left for a transform to break."
    )
    assert [plain(text) for text in details(rows)] == ["blur3 did the most harm: 10.0 % right after 12.0 % clean."]
    few = [row("clean", 0, 10, 0, 1), row("blur3", None, 10, 0, 1)]
    assert [plain(text) for text in details(few)] == [
        "Not one answer changed, but with n = 10 a loss of up to 28 points can’t be excluded."
    ]


def test_what_part_of_the_pictures_is_labelled_is_told():
    clean = Row(CLEAN_POINT, 10, 0, 1, 1, 0.5)
    changed = Row(row("blur3", None, 10, 2, 0).point, 10, 2, 1, 0, 0.5)
    words = plain(headline([clean, changed]))
    assert "with n = 1 labelled a loss of up to 100 points" in words
    assert words.endswith("0.0 % right after 100.0 % clean (of 1 labelled picture).")
    assert labelled_part(CLEAN) == ""


def test_what_breaking_means_is_told():
    assert meaning([CLEAN, row("blur3", None, 1000, 0, 986)]) == (
        "“Breaks” means: at least 10 points less accuracy than on clean pictures, and 95 % intervals that lie apart."
    )
    assert "the same number is not the same strength" in meaning([CLEAN, *BLUR, *NOISE])
    assert meaning([row("clean", 0, 9, 0, None), row("blur3", None, 9, 0, None)]).startswith("“Changes its mind” means")


def test_what_stands_aside_where_transforms_are_taken_together_is_told():
    gaussian, trick = (curve(name, 1000, [986, 985, 980, 975, 970]) for name in ("gaussian_blur", "trick"))
    fixed, other = row("blur51", None, 1000, 0, 986), row("rotate30", None, 1000, 0, 986)
    assert "taken together" not in meaning([CLEAN, *BLUR, *NOISE, other])
    for rows, said in (
        ([*BLUR, *gaussian], "blur (the same as gaussian_blur, on another scale) is left out."),
        ([*trick, *BLUR, *gaussian], "trick and blur (the same as gaussian_blur, on another scale) are left out."),
        ([*BLUR, fixed], "blur51 (a strength of what is counted already) is left out."),
        ([*BLUR, *trick, fixed, *ROTATE, other], "trick (the same as blur, on another scale) and blur51 and rotate30"),
    ):
        assert f" Where transforms are taken together, {said}" in meaning([CLEAN, *rows])


def test_the_most_harmful_of_what_bears_is_named_first():
    fog = curve("fog", 1000, [900, 500, 400, 300, 200])
    gaussian = curve("gaussian_blur", 1000, [986, 985, 980, 975, 930])
    blur = curve("blur", 1000, [986, 985, 985, 985, 985])
    assert [plain(text) for text in details([CLEAN, *fog, *gaussian, *ROTATE, *blur])] == [
        "No severity of gaussian_blur or rotate clearly takes 10 points off the accuracy."
    ]


def test_without_labels_the_changed_answers_are_told():
    rows = [row("clean", 0, 100, 0, None), *[row("blur", s, 100, 20 * s, None) for s in range(1, 6)]]
    rows += [row("noise", s, 100, s, None) for s in range(1, 6)]
    assert plain(headline(rows)) == (
        "Blur changes this model’s mind soonest: at severity 1 of 5, 20.0 % of its answers differ from those to the "
        "clean pictures."
    )
    assert details(rows) == ["No severity of noise clearly changes one answer in ten."]
    strong = [row("contrast", s, 100, 15 * s, None) for s in range(1, 6)]
    assert [plain(text) for text in details([*rows[:6], *strong, row("rotate30", None, 100, 12, None)])] == [
        "Then comes contrast at severity 1 (15.0 % changed).",
        "As given, rotate30 gives 12.0 % changed.",
    ]


def test_a_strength_of_the_users_own_is_told_apart():
    rows = [CLEAN, *BLUR, row("rotate30", None, 1000, 400, 580)]
    assert plain(headline([CLEAN, rows[-1]])) == "rotate30 breaks this model: accuracy falls from 98.6 % to 58.0 %."
    assert plain(headline(rows)).startswith("Blur breaks this model soonest")
    assert [plain(text) for text in details(rows)] == ["As given, rotate30 leaves 58.0 %."]


def test_shares():
    assert plain(share(0.5)) == "50.0 %"
    assert share(None) == "–"
    assert [plain(share(value)) for value in (1.0, 0.9996, 0.0, 0.0004)] == ["100.0 %", "> 99.9 %", "0.0 %", "< 0.1 %"]


def test_of_strengths_of_the_users_own_the_most_harmful_leads():
    rows = [CLEAN, row("blur51", None, 1000, 400, 700), row("rotate30", None, 1000, 400, 580)]
    assert plain(headline(rows)) == "rotate30 breaks this model most: accuracy falls from 98.6 % to 58.0 %."
    assert [plain(text) for text in details(rows)] == ["As given, blur51 leaves 70.0 %."]
