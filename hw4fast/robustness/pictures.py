"""Pictures of a study as pieces of a page: the picture itself, and below it what the model answered."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from hw4fast.robustness.album import Album
from hw4fast.robustness.measure import Measured
from hw4fast.robustness.metrics import NO_LABEL
from hw4fast.stats import half_up

SMALL = 64  # pixels: pictures up to here are embedded as they are and enlarged without smoothing


@dataclass(frozen=True)
class Prints:
    """Draws pictures of `measured` for a page, the larger ones shrunk to `side` pixels.

    model_labels: the name of each answer; seed: of the study, so that chance falls as it fell.
    """

    measured: Measured
    album: Album
    model_labels: Sequence[str]
    seed: int
    side: int

    def array(self, number: int, at: int) -> np.ndarray:
        """uint8 [h, w, c]: picture `number` at point `at`, as the model saw it."""
        fitted, read = self.album.pictures[number]
        return self.measured.points[at].apply(fitted, self.seed, **read)

    def answer(self, number: int, at: int) -> str:
        """The first of the names that a label lists: `tench, Tinca tinca` is `tench`."""
        return short(self.model_labels[self.measured.answers[at, number]])

    def off(self, number: int, at: int) -> bool:
        """Whether the answer is wrong; for a picture without label, whether it differs from the clean answer."""
        label, answers = self.measured.labels[number], self.measured.answers
        return bool(answers[at, number] != (answers[0, number] if label == NO_LABEL else label))

    def mark(self, number: int, at: int) -> str:
        """✓ or ✗; = or ≠ where only the clean answer is there to compare with."""
        return (("=", "≠") if self.measured.labels[number] == NO_LABEL else ("✓", "✗"))[self.off(number, at)]

    def line(self, number: int, at: int) -> str:
        """`✗ 3 · 48 %`"""
        answer = textwrap.shorten(self.answer(number, at), 18, placeholder="…")
        return f"{self.mark(number, at)} {answer} · {sure(self.measured.confidence[at, number])}"

    def html(self, number: int, at: int) -> str:
        """An `<img>` and its caption. Put it into an element of class `off` where `off()` says so."""
        answer, confidence = self.answer(number, at), self.measured.confidence[at, number]
        mark = self.mark(number, at)
        point = self.measured.points[at]
        told = f"{self.measured.names[number]}, {point.spec or 'clean'}: {answer}"
        picture = self.array(number, at)
        small = ' class="small"' if max(picture.shape) <= SMALL else ""
        meaning = {"✓": "right", "✗": "wrong", "=": "as clean", "≠": "not as clean"}[mark]
        return (
            f'<img{small} src="{data_uri(picture, self.side)}" width="{picture.shape[1]}" height="{picture.shape[0]}" '
            f'loading="lazy" alt="{escape(told)}"><span class="answer"><span class="mark" role="img" '
            f'aria-label="{meaning}">{mark}</span> {escape(answer)} <small>{escape(sure(confidence))}</small></span>'
        )


def short(label: str) -> str:
    return label.partition(",")[0].strip() or label


def sure(confidence: float) -> str:
    """`62 %`; never `100 %` or `0 %`: no softmax is that sure, only float32 rounds to it."""
    percent = 100 * float(confidence)
    return "> 99 %" if percent > 99 else "< 1 %" if percent < 1 else f"{half_up(percent, 0)} %"


def data_uri(picture: np.ndarray, side: int) -> str:
    """PNG where the picture is small, else JPEG with the longer side at most `side` pixels."""
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    file = io.BytesIO()
    if max(image.size) <= SMALL:
        image.save(file, "PNG", optimize=True)
        kind = "png"
    else:
        image.thumbnail((side, side))
        image.save(file, "JPEG", quality=80)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
