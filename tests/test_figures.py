"""How pictures look: the palette stays apart for the colour-blind and in grey; pyplot comes late and quietly."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations

import numpy as np
from matplotlib.colors import to_rgb

from hw4fast.figures import MARKERS, OKABE_ITO, pyplot, wrapped

# Machado, Oliveira, Fernandes, "A physiologically-based model for simulation of color vision deficiency" (2009),
# severity 1.0, linear RGB: protanopia, deuteranopia
BLIND = (
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
)


def linear(colour: str) -> np.ndarray:
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def test_colours_stay_apart():
    assert len(set(OKABE_ITO)) == len(OKABE_ITO) == len(MARKERS) == len(set(MARKERS)) == 8
    for matrix in (np.eye(3), *map(np.array, BLIND)):
        seen = [matrix @ linear(colour) for colour in OKABE_ITO]
        assert min(np.abs(a - b).max() for a, b in combinations(seen, 2)) > 0.08


def test_pyplot_draws_without_a_screen_in_our_style():
    plt = pyplot()
    assert plt.get_backend().lower() == "agg"
    figure, axes = plt.subplots()
    lines = [axes.plot([1, 2])[0] for _ in range(3)]
    assert [line.get_color() for line in lines] == list(OKABE_ITO[:3])
    assert [line.get_marker() for line in lines] == list(MARKERS[:3])
    assert not axes.spines["top"].get_visible()
    plt.close(figure)


def test_matplotlib_comes_on_first_use():
    code = "import sys, hw4fast.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_text_is_wrapped_to_the_width_it_has():
    text = "a line that is longer than the two inches that it has to stand in"
    figure = pyplot().figure(figsize=(2, 2))
    drawn = figure.text(0, 0, wrapped(text, 2), fontsize=10)
    assert drawn.get_window_extent().width <= 2 * figure.dpi
    assert wrapped(text, 20) == text
    pyplot().close(figure)
