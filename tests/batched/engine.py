"""A measurement without its page: what tests compare of batches on the CPU, and of a GPU's."""

from __future__ import annotations

import numpy as np
from PIL import Image

from hw4fast.inference.classifier import Classifier
from hw4fast.robustness.asking import Asked
from hw4fast.robustness.measure import measure
from hw4fast.robustness.points import points_of
from hw4fast.robustness.source import open_source
from hw4fast.robustness.store import Store

# random ones, such that are about reading, a chain, one without severities
SOME = ("rotate", "gaussian_blur", "jitter", "snow", "framing", "thumbnail", "blur5+jpeg30", "flip", "contrast")


def write_photos(folder):
    """Eleven of three sizes, one grey, one damaged; nine with labels."""
    rng = np.random.default_rng(0)
    for i in range(11):
        small = Image.fromarray(rng.integers(0, 256, (8, 12 + i % 3, 3), np.uint8))
        small = small.resize((96 + 8 * (i % 3), 64))
        (small.convert("L") if i == 5 else small).save(folder / f"{i:02d}.png")
    (folder / "03.png").write_bytes(b"no picture")
    lines = [f"{i:02d}.png,{i}" for i in range(9)]
    (folder / "labels.csv").write_text("\n".join(["file,label", *lines]) + "\n")
    return folder


def measured(photos, models, folder, batches, workers=2, provider="cpu", transforms=SOME):
    """Per model all that `measure` gives but the points. folder: for the store."""
    source = open_source(photos, None)
    asked = []
    for path in models:
        classifier = Classifier(path, provider, threads=1)
        asked.append(Asked(path.name, classifier, source.labels_for(classifier.card.labels)))
    options = {"seed": 1, "workers": workers, "progress": False, "breaking": 4, "batches": batches}
    found = measure(source, np.arange(11), asked, points_of(transforms), Store(folder, {}), **options)
    arrays = ("answers", "confidence", "ranks", "labels")
    others = ("names", "numbers", "failures", "sought", "reused")
    # as text: NaN is itself there
    return [
        [getattr(m, n).tolist() for n in arrays] + [repr(m.broken), *(getattr(m, n) for n in others)] for m in found
    ]
