"""What a drawing must not do: let a text be cut off, or lie upon another."""

from __future__ import annotations


def inside(figure):
    """Whether all that is drawn lies within the picture, to a pixel."""
    box, whole = figure.get_tightbbox(), figure.get_size_inches()
    return box.x0 > -0.01 and box.y0 > -0.01 and box.x1 < whole[0] + 0.01 and box.y1 < whole[1] + 0.01


def crossing(figure):
    """Pairs of texts that lie upon each other."""
    from matplotlib.text import Text

    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent().shrunk(0.98, 0.9)) for text in texts]
    return [(one, other) for i, (one, a) in enumerate(boxes) for other, b in boxes[:i] if a.overlaps(b)]
