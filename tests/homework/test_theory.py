"""The theory: every claim of the homework has its checks, they hold, and a false one would be seen."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hw4fast.homework import cross_entropy, learning, theory
from hw4fast.homework.claims import CLAIMS, CORRECTED, FAILS, HOLDS, Claim, check
from hw4fast.homework.parts import Options, load
from hw4fast.homework.reproduce import reproduce

PROBLEMS = ["1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "2.1", "2.2", "2.3", "2.4"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("homework")
    return folder, reproduce(["theory"], folder, Options(progress=False))


def test_every_problem_is_there():
    assert list(CLAIMS) == PROBLEMS


def test_every_claim_holds_or_is_corrected_and_only_1_3_is_corrected(done):
    claims = done[1].results["theory"]["claims"]
    verdicts = {claim["problem"]: [found["verdict"] for found in claim["checks"]] for claim in claims}
    assert list(verdicts) == PROBLEMS and all(verdicts.values())
    assert {verdict for found in verdicts.values() for verdict in found} == {HOLDS, CORRECTED}
    assert [problem for problem, found in verdicts.items() if CORRECTED in found] == ["1.3"]
    assert all(claim["statement"] and claim["statement"][0] != " " for claim in claims)


@pytest.mark.parametrize(
    ("problem", "module", "name", "wrong"),
    [
        ("1.2", cross_entropy, "binary_cross_entropy_with_logits", lambda f: lambda *a, **k: f(*a, **k) * (1 + 1e-9)),
        ("1.3", cross_entropy, "softmax_cross_entropy", lambda f: lambda *a, **k: f(*a, **k) + 1e-9),
        ("1.4", cross_entropy, "binary_cross_entropy_with_logits", lambda f: lambda z, y, **k: f(z, 0.999 * y, **k)),
        ("1.5", cross_entropy, "softmax_cross_entropy", lambda f: lambda z, t, **k: f(0.01 * z, t, **k)),
        ("1.6", cross_entropy, "softmax_cross_entropy", lambda f: lambda *a, **k: 1.001 * f(*a, **k)),
        ("2.3", learning, "span", lambda f: lambda w: f(w) + 1e-6),
        ("2.4", learning, "_torch_sgd", lambda f: lambda lr, mu, steps: f(lr, mu + 1e-6, steps)),
    ],
)
def test_a_wrong_formula_is_seen(problem, module, name, wrong, monkeypatch):
    monkeypatch.setattr(module, name, wrong(getattr(module, name)))
    assert FAILS in [found.verdict for found in CLAIMS.get(problem).check()]


def test_a_failing_check_is_told(monkeypatch, tmp_path):
    broken = replace(CLAIMS.get("1.2"), check=lambda: [check("1 + 1", "3", False)])
    monkeypatch.setattr(CLAIMS, "_entries", {"1.2": broken})
    result = reproduce(["theory"], tmp_path, Options(progress=False))
    assert not result.works
    assert "1 FAIL" in theory.finding(result.results["theory"])
    assert "FAILS: 1 + 1: 3" in "\n".join(theory.table(result.results["theory"]))


def test_it_is_quick_and_writes_what_it_found(done):
    folder, result = done
    found = result.results["theory"]
    assert result.works and found["seconds"] < 30
    with (folder / "theory" / "theory.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == [c["verdict"] for claim in found["claims"] for c in claim["checks"]]
    assert {row["problem"] for row in rows} == set(PROBLEMS)
    assert load(folder / "theory")["claims"] == found["claims"]
    for name in theory.DRAWINGS:
        with Image.open(folder / "theory" / f"{name}.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20


def test_the_page_shows_it(done):
    page = done[1].report.read_text(encoding="utf-8")
    for problem in PROBLEMS:
        assert f"<b>{problem}</b>" in page
    assert page.count("<svg") == len(theory.DRAWINGS)
    assert page.count(CORRECTED) == 2
    assert not re.search(r'(src|href)="(http|//)', page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_numbers_of_the_homework():
    w = np.linspace(4, 40, 36_001)[1:]
    assert w[np.argmax(learning.span(w))] == pytest.approx(6.9, abs=0.05)
    assert learning.span(w).max() == pytest.approx(0.45, abs=0.005)
    assert learning.measured_width(6.9) == pytest.approx(float(learning.span(np.array(6.9))), rel=1e-9)
    assert learning.measured_width(3.99) == 0
    weights, deltas = learning.backpropagate("σ", 1.0)
    assert weights.shape == deltas.shape == (learning.DEPTH,)
    assert weights[0] < 1e-9 * weights[-1] and math.isfinite(float(weights[0]))


def test_a_claim_is_a_claim():
    assert isinstance(CLAIMS.get("1.1"), Claim)
