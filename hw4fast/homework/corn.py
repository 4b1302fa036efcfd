"""The part `corn`: problem 5.2, the picture of corn that a blur turned into something else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast.data.folder import read_folder
from hw4fast.data.images import read_picture
from hw4fast.errors import UserError
from hw4fast.exporter import export
from hw4fast.files import data_folder
from hw4fast.homework import corn_page as page
from hw4fast.homework.parts import Options, Part, save, save_csv
from hw4fast.inference.classifier import Classifier
from hw4fast.kernels.gaussian_blur import gaussian_blur
from hw4fast.transforms import parse

ARCHITECTURE, PRESET = "shufflenet_v2_x1_0", "stretch"  # the homework stretched its pictures to 224×224
PHOTO = Path("photos/imagenet-sample/n12144580_corn.JPEG")
CORN, HOT_POT = "corn", "hot pot"
SIZE = 51  # of the blur's kernel, as in the homework
SIGMAS = np.geomspace(0.1, 20, 47)  # the grid on which changes are counted
CLOSE = 1e-3  # how far, relatively, the breaking point is bisected
SHOWN = 6  # pictures that are drawn
DRAWN = ("clean", "trick", "blur51:sigma=0.5", "blur51:sigma=1", "blur51:sigma=2", "blur51")


@dataclass(frozen=True)
class Broken:
    """How soon a blur changes the answer to a picture.

    sigma: the smallest that does, None if none up to the grid's end; before, after: what is answered on either side of
    it; changes: how often the answer turns from the clean one or back to it on the grid of SIGMAS (1: it broke once).
    """

    sigma: float | None
    before: str
    after: str
    changes: int


def run(folder: Path, options: Options) -> dict[str, Any]:
    """Classifies the photo (or every picture of the folder) clean, under the trick and under blurs, and finds the
    smallest blur that changes the answer. Writes corn.csv, a drawing per picture, and results.json."""
    photos = find_photos(options.photo)
    classifier = model(folder, options.progress)
    found, unreadable = [], []
    for number, photo in enumerate(_with_bar(photos, options.progress)):
        try:
            picture = classifier.fit(read_picture(photo))
        except UserError as error:
            unreadable.append({"photo": photo.name, "reason": str(error)})
            continue
        found.append(_one(classifier, photo, picture))
        if number < SHOWN:
            found[-1]["drawing"] = f"{number}-{photo.stem}.png"
            page.save_row(folder / found[-1]["drawing"], picture, found[-1])
    if not found:
        raise UserError(f"no picture could be read: {unreadable[0]['reason']}")
    results = {
        "model": f"{ARCHITECTURE}, {classifier.card.provenance['weights']}",
        "preset": PRESET,
        "photos": found,
        "unreadable": unreadable,
    }
    save_csv(folder / "corn.csv", [_flat(entry) for entry in found])
    save(folder, results, options)
    return results


def find_photos(asked: str | None) -> list[Path]:
    """The picture or the folder's pictures; the corn of HW4FAST_DATA when None. UserError when there is none."""
    if asked is None:
        data = data_folder()
        if data is None or not (data / PHOTO).is_file():
            where = f"{data / PHOTO} is not there" if data else "HW4FAST_DATA is not set"
            raise UserError(f"the photo of corn can't be had: {where}; name a picture or a folder with --photo")
        return [data / PHOTO]
    path = Path(asked)
    return list(read_folder(path).files) if path.is_dir() else [path]


def model(folder: Path, progress: bool) -> Classifier:
    """The pretrained net with the homework's preprocessing, exported once into the part's folder."""
    path = folder / f"{ARCHITECTURE}-{PRESET}.onnx"
    if not path.is_file():
        if progress:
            print(f"hw4fast: exporting {ARCHITECTURE} to {path}", file=sys.stderr)
        export(ARCHITECTURE, path, preprocess=PRESET)
    return Classifier(path)


def _with_bar(photos: Sequence[Path], progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(photos, unit="img", disable=None if progress else True)


def _one(classifier: Classifier, photo: Path, picture: np.ndarray) -> dict[str, Any]:
    views = [picture, *(parse(spec)(picture) for spec in DRAWN[1:])]
    answers = {
        name: page.best(row, classifier.card.labels)
        for name, row in zip(DRAWN, classifier.probabilities(np.stack(views)), strict=True)
    }
    grid = classifier.probabilities(np.stack([gaussian_blur(picture, SIZE, float(sigma)) for sigma in SIGMAS]))
    labels = classifier.card.labels
    at = labels.index(HOT_POT)
    peak = int(grid[:, at].argmax())
    return {
        "photo": photo.name,
        "answers": answers,
        "broken": asdict(breaking_point(classifier, picture, grid.argmax(1))),
        "sigmas": [round(float(sigma), 4) for sigma in SIGMAS],
        "labels": [labels[index] for index in grid.argmax(1)],
        "hot_pot": {
            "largest": float(grid[peak, at]),
            "sigma": float(SIGMAS[peak]),
            "first": int((grid.argmax(1) == at).sum()),
        },
    }


def breaking_point(classifier: Classifier, picture: np.ndarray, on_grid: np.ndarray) -> Broken:
    """The smallest sigma of a blur of SIZE pixels that changes the answer, bisected between two neighbours on the grid
    of SIGMAS, on_grid being the answers there; the change between the two is taken to be one."""
    labels = classifier.card.labels
    clean = int(classifier.logits(picture[None]).argmax())
    same = np.concatenate([[True], on_grid == clean])
    changes = int((same[1:] != same[:-1]).sum())
    if same.all():
        return Broken(None, labels[clean], labels[clean], 0)
    first = int(np.argmin(same))  # place of the first change in (clean, SIGMAS…)
    low, high = (0.01 if first == 1 else float(SIGMAS[first - 2])), float(SIGMAS[first - 1])
    after = int(on_grid[first - 1])
    while high - low > CLOSE * high:
        middle = (low + high) / 2
        answer = int(classifier.logits(gaussian_blur(picture, SIZE, middle)[None]).argmax())
        if answer == clean:
            low = middle
        else:
            high, after = middle, answer
    return Broken(high, labels[clean], labels[after], changes)


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    """A photo as one line of a CSV: its answers, and where it breaks."""
    tops = {
        f"{name} {what}": entry["answers"][name][0][place]
        for name in DRAWN
        for place, what in enumerate(("label", "p"))
    }
    broken = {f"broken_{key}": value for key, value in entry["broken"].items()}
    return {"photo": entry["photo"]} | tops | broken


PART = Part("corn", "Corn (problem 5.2)", run, page.section, page.finding, page.table)
