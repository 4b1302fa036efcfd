"""Files that a person names: one clear line when one isn't what it should be."""

from __future__ import annotations

import stat
import unicodedata
from pathlib import Path

from hw4fast.errors import PassingError, UserError
from hw4fast.files import RUN_MODEL, RUN_RECORD


def readable_file(path: str | Path, kind: str) -> Path:
    """`path` if it is a regular file with at least one byte; `kind` ("picture", "model") names it in errors.

    Raises UserError otherwise, PassingError where the system doesn't give what may be there.
    """
    path = Path(path)
    shown = f"'{one_line(path)}'"
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UserError(f"{shown} is a folder, not a {kind} file; name the file in it")
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{shown} is no regular file (a pipe or a device); save the {kind} to a file first")
        if status.st_size == 0:
            raise UserError(f"{shown} is empty (0 bytes), so it holds no {kind}; fetch or write it again")
        with path.open("rb"):
            return path
    except FileNotFoundError:
        raise PassingError(f"there is no {kind} file {shown}; check the spelling and the folder") from None
    except OSError as error:  # no permission, a name too long
        raise PassingError(f"the {kind} file {shown} can't be read: {error.strerror or error}") from None
    except ValueError as error:  # a zero byte in the name
        raise UserError(f"the {kind} file {shown} can't be read: {error}") from None


def is_folder(path: str | Path) -> bool:
    """False, too, for what can't be a name, too long or with a zero byte in it; so is `is_file`."""
    return stat.S_ISDIR(_mode(path))


def is_file(path: str | Path) -> bool:
    return stat.S_ISREG(_mode(path))


def _mode(path: str | Path) -> int:
    """0 where nothing stands."""
    try:
        return Path(path).stat().st_mode
    except (OSError, ValueError):
        return 0


def is_model(model: str | Path) -> bool:
    """Whether something stands at that path that a model can be read from: a run folder, or anything but a folder.

    A folder that merely has a net's name (`resnet18/` with pictures) is none: then the name means the net.
    """
    path = Path(model)
    if is_folder(path):
        return any((path / name).exists() for name in (RUN_MODEL, RUN_RECORD))
    return _mode(path) != 0


def is_run(model: str | Path) -> bool:
    """Whether it is a run folder."""
    return is_folder(model) and is_model(model)


def model_file(model: str | Path) -> Path:
    """The .onnx file that `model` names: itself, or the exported model of a run folder.

    Raises UserError with the command to run when a run isn't exported yet.
    """
    path = Path(model)
    if is_folder(path):
        if (path / RUN_MODEL).exists():
            path /= RUN_MODEL
        elif (path / RUN_RECORD).exists():
            raise UserError(f"the run '{path}' isn't exported yet; first: hw4fast export {path} --onnx")
        else:
            found = f"a folder with neither {RUN_MODEL} nor {RUN_RECORD}"
            raise UserError(f"'{path}' is {found}; name an .onnx file or a run folder")
    return readable_file(path, "model")


def printable(value: object) -> str:
    """`str(value)` with � for every sign that isn't one to read: control characters (a terminal obeys them), marks
    that turn the direction of writing, line breaks. For names that come from outside, before they are shown."""
    text = str(value)
    if text.isprintable():  # most are, and every picture's name is looked at
        return text
    return "".join(sign if sign.isprintable() or unicodedata.category(sign) == "Zs" else "\ufffd" for sign in text)


def one_line(value: object, limit: int = 300) -> str:
    """`str(value)` on one line of printable characters, cut at `limit`."""
    text = str(value)
    if not text.isprintable():
        text = "".join(sign if sign.isprintable() else " " for sign in text)
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
