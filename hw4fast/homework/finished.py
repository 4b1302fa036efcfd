"""A run that `reproduce` needs: what is finished is not run again, what was interrupted goes on."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from hw4fast.errors import UsageError
from hw4fast.training import runs
from hw4fast.training.loop import Diverged
from hw4fast.training.settings import Settings
from hw4fast.training.train import train

FREE = ("threads", "init", "recipe")  # may differ between what was begun and what is asked for


def finished(folder: Path, settings: Settings, progress: bool) -> None:
    """Sees to it that the run in `folder` is over: trained now, gone on with, or left as it was finished or diverged
    before. Raises UsageError when the run there has other settings.
    """
    resume = (folder / runs.RUN_RECORD).exists()
    if resume:
        entry = runs.load_record(folder)
        begun = Settings.from_json(entry["settings"])
        for name, value in asdict(settings).items():
            if name not in FREE and value != getattr(begun, name) and (name, value) != ("lr", None):
                had = f"{folder} was begun with {name} = {getattr(begun, name)}, not {value}"
                raise UsageError(f"{had}; name another --out, or delete that folder")
        if entry["status"] in ("finished", "diverged"):
            return
    try:
        given = {"threads": settings.threads} if resume else asdict(settings)
        train(given, folder, resume=resume, progress=progress)
    except Diverged as error:
        if progress:
            print(f"hw4fast: {error}", file=sys.stderr)
