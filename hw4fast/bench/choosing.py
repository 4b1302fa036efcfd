"""Which pictures a bench answers: of a folder those that can be read, found out before anything is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hw4fast.data.folder import pictures_below
from hw4fast.data.images import read_picture
from hw4fast.errors import UserError
from hw4fast.paths import is_run

FILES = 128


@dataclass(frozen=True)
class Chosen:
    """files: what can be read, in the order of their names; fitted: uint8 [n, h, w, c], the same as the model reads
    them; broken: of each that stood between them why it can't be."""

    files: tuple[Path, ...]
    fitted: np.ndarray
    broken: tuple[str, ...]

    def count(self) -> str:
        """How many are broken of those that were looked at."""
        return f"{len(self.broken)} of {len(self.files) + len(self.broken)} pictures"

    def reason(self) -> str:
        return self.broken[0] + ("" if len(self.broken) == 1 else f"; and {len(self.broken) - 1} more")


def choose(folder: Path, fit: Callable[[np.ndarray], np.ndarray]) -> Chosen:
    """The first FILES pictures below `folder` that can be read and that `fit` takes, see Classifier.fit. Raises
    UserError when there is none."""
    files, fitted, broken = [], [], []
    for file in sorted(pictures_below(folder)):
        try:
            fitted.append(fit(read_picture(file)))
            files.append(file)
        except UserError as error:
            broken.append(str(error))
        if len(files) == FILES:
            break
    if not files:
        raise UserError(f"'{folder}' holds no picture to read" + (f": {broken[0]}" if broken else ""))
    return Chosen(tuple(files), np.stack(fitted), tuple(broken))


def some_files(model: str | Path, folder: Path) -> Path:
    """Writes FILES pictures to the new `folder`: of a run the test pictures of its data set as PNG, else photographs as
    JPEG (see exporter.source)."""
    from PIL import Image

    from hw4fast.exporter.source import photographs
    from hw4fast.training import runs

    folder.mkdir()
    if is_run(model):
        images = runs.load_data(runs.load_record(Path(model))).test.images
        for number in range(FILES):
            image = images[number % len(images)]
            Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(folder / f"{number:03}.png")
        return folder
    contents = photographs()
    for number in range(FILES):
        (folder / f"{number:03}.jpg").write_bytes(contents[number % len(contents)])
    return folder
