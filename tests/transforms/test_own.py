"""A user's own transforms: the decorator, and files that are imported."""

from __future__ import annotations

import importlib
import linecache
import sys
import textwrap

import numpy as np
import pytest

from hw4fast.errors import UsageError, UserError
from hw4fast.transforms import TRANSFORMS, Parameter, at_level, at_severity, own, parse
from hw4fast.transforms.own import import_transforms, transform

FIVE = (0.1, 0.2, 0.3, 0.4, 0.5)
PICTURE = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)


@pytest.fixture(autouse=True)
def registry_of_its_own(monkeypatch):
    monkeypatch.setattr(TRANSFORMS, "_entries", dict(TRANSFORMS._entries))


def write(folder, text, name="mine.py"):
    path = folder / name
    path.write_text("import numpy as np\nfrom hw4fast.transforms import transform, Parameter\n" + textwrap.dedent(text))
    return path


TINT = '''
    @transform(severities=(0.1, 0.2, 0.3, 0.4, 0.5))
    def tint(picture, rng, amount):
        """Moves red towards white.

        Much more text.
        """
        picture[..., 0] += ((255 - picture[..., 0]) * amount).astype("uint8")
        return picture
'''


# -- the decorator -----------------------------------------------------------------------------------------------


def test_a_function_becomes_a_transform_and_stays_a_function():
    @transform(FIVE, sweep=(0, 1))
    def darken(picture, amount, by=0):
        """Darker.

        And more.
        """
        picture[:] = (picture * (1 - amount)).astype(np.uint8) + np.uint8(by)  # it may write into its input
        return picture

    made = TRANSFORMS.get("darken")
    assert (made.summary, made.family, made.random, made.level) == ("Darker.", "own", False, "amount")
    before = PICTURE.copy()
    result = at_severity("darken", 2)(PICTURE)
    assert np.array_equal(result, (PICTURE * 0.8).astype(np.uint8)) and np.array_equal(PICTURE, before)
    assert np.array_equal(darken(PICTURE.copy(), 0.2), result)
    assert parse("darken").name == "darken0.3" and parse("darken0.3:by=2").name == "darken0.3:by=2"
    assert parse("darken0.3:by=0").name == "darken0.3"
    assert parse("darken:severity=1+blur3").name == "darken0.1+blur3"
    assert at_level(made, made.sweep.at(0.5)).name == "darken0.5"
    assert np.array_equal(parse("darken0")(PICTURE), PICTURE)


def test_a_transform_with_chance():
    @transform(FIVE, name="sprinkle", summary="Dots.")
    def anything(picture, rng, amount):
        return np.where(rng.random(picture.shape) < amount, 255, picture).astype(np.uint8)

    assert TRANSFORMS.get("sprinkle").random and TRANSFORMS.get("sprinkle").summary == "Dots."
    chain = at_severity("sprinkle", 4)
    assert chain.name == "sprinkle:severity=4" and parse(chain.name) == chain
    assert np.array_equal(chain(PICTURE, seed=3), chain(PICTURE, seed=3))
    assert not np.array_equal(chain(PICTURE, seed=3), chain(PICTURE, seed=4))
    few, many = (at_level(TRANSFORMS.get("sprinkle"), amount)(PICTURE) for amount in (0.2, 0.3))
    assert np.array_equal(many[(few == 255) & (PICTURE < 255)], few[(few == 255) & (PICTURE < 255)])


def test_severities_may_set_several_parameters():
    rows = tuple({"amount": amount, "colour": colour} for amount, colour in zip(FIVE, "rgrgr", strict=True))
    ranges = {
        "amount": Parameter(0, 1),
        "colour": Parameter(choices=("r", "g", "b")),
        "twice": Parameter(0, 9, whole=True),
    }

    @transform(rows, parameters=ranges)
    def paint(picture, amount, colour, twice=2):
        assert isinstance(twice, int)
        picture[..., "rgb".index(colour)] = int(255 * amount)
        return picture

    assert at_severity("paint", 2).name == "paint0.2:colour=g"
    assert (at_severity("paint", 2)(PICTURE)[..., 1] == 51).all()
    assert parse("paint:twice=3").links[0].parameters == {"amount": 0.3, "colour": "r", "twice": 3}
    assert parse("paint").links[0].parameters["twice"] == 2  # the function's own default
    with pytest.raises(UsageError, match="twice must be a whole number"):
        parse("paint:twice=2.5")
    with pytest.raises(UsageError, match="amount must lie in 0 … 1"):
        parse("paint2")


def test_a_fixed_one():
    @transform(({"by": 1},))
    def roll(picture, by):
        return np.roll(picture, int(by), 1)

    assert np.array_equal(parse("roll")(PICTURE), np.roll(PICTURE, 1, 1))
    with pytest.raises(UsageError, match="has no severities"):
        at_severity("roll", 3)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (lambda: 0, {}, "a picture and at least one parameter"),
        (lambda picture: picture, {}, "a picture and at least one parameter"),
        (lambda picture, rng: picture, {}, "a picture and at least one parameter"),
        (lambda picture, *amounts: picture, {}, "given by name"),
        (lambda picture, amount, **more: picture, {}, "given by name"),
        (lambda picture, amount, width: picture, {}, "width needs a default, or a value at every severity"),
        (lambda picture, amount: picture, {"severities": (0.1, 0.2)}, "5 severities"),
        (lambda picture, amount: picture, {"severities": (0.1, 0.2, 0.3, 0.4, "5")}, "amount must be a number"),
        (lambda picture, amount: picture, {"severities": (0.1, 0.2, 0.3, 0.4, float("nan"))}, "must be a number"),
        (lambda picture, amount: picture, {"severities": ({"amuont": 1},) * 5}, "no parameter 'amuont'"),
        (lambda picture, amount, by=1: picture, {"severities": ({"by": 1},) * 5}, "doesn't set the level"),
        (lambda picture, amount: picture, {"parameters": {"by": Parameter(0, 1)}}, "no parameter 'by'"),
        (lambda picture, amount: picture, {"parameters": {"amount": Parameter(1, 2)}}, "amount must lie in 1 … 2"),
        (lambda picture, amount: picture, {"sweep": (0, float("inf"))}, "ends of a sweep must lie in"),
        (lambda picture, severity: picture, {}, "every transform's"),
        (lambda picture, amount: picture, {"name": "blur"}, "registered already"),
        (lambda picture, amount: picture, {"name": "gray"}, "another name of grey"),
        (lambda picture, amount: picture, {"name": "my tint"}, "lower-case"),
        (lambda picture, amount: picture, {"name": None}, "lower-case"),  # <lambda>
        (np.flip, {}, "a transform is a function"),
    ],
)
def test_functions_that_are_no_transforms(function, options, message):
    known = list(TRANSFORMS)
    with pytest.raises(ValueError, match=message):
        transform(**{"severities": FIVE, "name": "tint", **options})(function)
    assert list(TRANSFORMS) == known


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda p: p[1:], r"it made uint8 \[11, 10, 3\] of uint8 \[12, 10, 3\]"),
        (lambda p: p / 255, "it made float64"),
        (lambda p: None, "it gave NoneType"),
        (lambda p: 1 / 0, "test_own.py, line .*ZeroDivisionError: division by zero"),
    ],
)
def test_a_wrong_result_is_caught(result, message):
    @transform(FIVE)
    def spoil(picture, amount):
        return result(picture)

    with pytest.raises(UserError, match=rf"spoil failed with amount=0.3 on a picture of \[12, 10, 3\]: .*{message}"):
        parse("spoil")(PICTURE)


# -- files -------------------------------------------------------------------------------------------------------


def test_a_file_of_the_users(tmp_path):
    path = write(tmp_path, TINT)
    assert import_transforms(path) == ["tint"]
    assert TRANSFORMS.get("tint").summary == "Moves red towards white."
    result = parse("tint1")(PICTURE)
    assert (result[..., 0] == 255).all() and np.array_equal(result[..., 1:], PICTURE[..., 1:])


def test_a_file_that_is_imported_again_takes_its_own_place(tmp_path):
    path = write(tmp_path, TINT)
    import_transforms(path)
    mark = TRANSFORMS.get("tint").fingerprint
    assert import_transforms(path) == ["tint"] and TRANSFORMS.get("tint").fingerprint == mark
    write(tmp_path, TINT.replace("tint", "shade"))
    assert import_transforms(path) == ["shade"] and "tint" not in TRANSFORMS
    for broken in (TINT + "\n1 / 0\n", "x = 1"):
        write(tmp_path, broken)
        with pytest.raises((UserError, UsageError)):
            import_transforms(path)
        assert "shade" in TRANSFORMS and "tint" not in TRANSFORMS
    other = tmp_path / "other.py"
    other.write_text(write(tmp_path, TINT.replace("tint", "shade")).read_text())
    with pytest.raises(UserError, match="can't be imported: ValueError: transform 'shade' is registered already"):
        import_transforms(other)


def test_modules_beside_a_file_are_a_part_of_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    helper = tmp_path / "helper_of_mine.py"
    path = write(
        tmp_path,
        "import helper_of_mine\n"
        + textwrap.dedent(TINT).replace("return", "picture[:] = helper_of_mine.CODE\n    return"),
    )
    marks = []
    for code in (1, 1, 22):
        helper.write_text(f"CODE = {code}\n")
        import_transforms(path)
        marks.append(TRANSFORMS.get("tint").fingerprint)
        assert (parse("tint1")(PICTURE) == code).any()
    assert marks[0] == marks[1] != marks[2] and len(marks[0]) == 16


HELPED = textwrap.dedent(TINT).replace("return", "picture[:] = helper.CODE\n    return")


@pytest.fixture
def helped(tmp_path, monkeypatch):
    """write(name of a module, its code) → a file with the transform `name`, which gives that code."""
    monkeypatch.syspath_prepend(tmp_path)

    def file(name, code, transform=None, more=""):
        (tmp_path / f"{name}.py").write_text(f"CODE = {code}\n")
        text = f"import {name} as helper\n{more}\n" + HELPED.replace("tint", transform or name)
        return write(tmp_path, text, f"with_{transform or name}.py")

    return file


def seen(name):
    return int(parse(f"{name}1")(PICTURE).max()), TRANSFORMS.get(name).fingerprint


def test_what_a_failed_import_brought_in_is_read_anew(helped):
    with pytest.raises(UserError, match="ZeroDivisionError"):
        import_transforms(helped("half_done", 1, more="1 / 0"))
    assert "half_done" not in sys.modules and "hw4fast_own_with_half_done" not in sys.modules
    import_transforms(helped("half_done", 22))
    assert seen("half_done")[0] == 22


def test_a_failed_import_leaves_the_modules(helped):
    import_transforms(helped("kept", 1))
    before, mark = sys.modules["kept"], seen("kept")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        import_transforms(helped("kept", 22, more="1 / 0"))
    assert sys.modules["kept"] is before and seen("kept") == mark
    import_transforms(helped("kept", 22))
    assert seen("kept")[0] == 22 and seen("kept")[1] != mark[1]


def test_a_module_that_two_files_import(helped):
    """The second one was given the first one's, changed or not, and the new text's fingerprint."""
    first, second = helped("shared", 1, "one"), helped("shared", 1, "two")
    import_transforms(first)
    import_transforms(second)
    old = seen("one"), seen("two")
    helped("shared", 22, "one")
    import_transforms(second)
    assert seen("one") == old[0] and seen("two")[0] == 22 and seen("two")[1] != old[1][1]
    import_transforms(first)
    assert seen("one")[0] == 22


def test_a_module_that_was_there_before_counts_as_it_is_in_memory(helped):
    path = helped("theirs", 1)
    importlib.import_module("theirs")
    import_transforms(path)
    before = seen("theirs")
    helped("theirs", 22)
    import_transforms(path)
    assert seen("theirs") == before  # what runs is as it was
    del sys.modules["theirs"]  # another process
    import_transforms(path)
    assert seen("theirs")[0] == 22 and seen("theirs")[1] != before[1]


def test_neither_other_files_of_transforms_nor_the_standard_library_are_beside_one(helped, tmp_path, monkeypatch):
    path = helped("alone", 1)
    import_transforms(path)
    mark = seen("alone")
    import_transforms(helped("another", 1))
    import_transforms(path)
    assert seen("alone") == mark
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))  # an own file in the folder around it
    assert own._beside(path) == {}


def test_a_file_may_hold_dataclasses_helpers_and_several_transforms(tmp_path):
    text = """
        from __future__ import annotations
        from dataclasses import dataclass
        import numpy as np
        from hw4fast.transforms import transform

        @dataclass
        class Grain:
            size: int = 2

        for name in ("one", "two"):
            @transform(severities=(1, 2, 3, 4, 5), name=name)
            def grain(picture, by):
                return picture + np.uint8(by * Grain().size)
    """
    path = tmp_path / "several.py"
    path.write_text(textwrap.dedent(text))
    assert import_transforms(str(path)) == ["one", "two"]
    assert np.array_equal(parse("two3")(PICTURE), PICTURE + np.uint8(6))


def test_the_fingerprint_is_of_the_whole_file(tmp_path, monkeypatch):
    marks = []
    for extra in ("", "", "\nHELPER = 1\n"):
        monkeypatch.setattr(TRANSFORMS, "_entries", {k: v for k, v in TRANSFORMS._entries.items() if k != "tint"})
        linecache.clearcache()
        import_transforms(write(tmp_path, textwrap.dedent(TINT) + extra))
        marks.append(TRANSFORMS.get("tint").fingerprint)
    assert marks[0] == marks[1] != marks[2] and len(marks[0]) == 16
    assert TRANSFORMS.get("blur").fingerprint == ""


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("x = 1", UsageError, "registers no transform; put @hw4fast.transform"),
        ("", UsageError, "registers no transform"),
        ("def (", UserError, "can't be imported: SyntaxError"),
        ("import nothing_like_this", UserError, "can't be imported: ModuleNotFoundError: No module named"),
        ("1 / 0", UserError, "can't be imported: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", UserError, "can't be imported: SystemExit: 3"),
        ("raise RuntimeError('one\\ntwo')", UserError, "can't be imported: RuntimeError: one"),
        ("@transform(severities=(1, 2))\ndef few(picture, by): return picture", UserError, "ValueError: few: 5 sev"),
        ("@transform(severities=3)\ndef few(picture, by): return picture", UserError, "can't be imported: TypeError"),
        ("@transform(severities=(1,2,3,4,5))\ndef blur(picture, by): return picture", UserError, "registered already"),
        ("@transform\ndef bare(picture, by): return picture", UsageError, "registers no transform"),
    ],
)
def test_files_that_are_none(tmp_path, text, kind, message):
    with pytest.raises(kind) as caught:
        import_transforms(write(tmp_path, text))
    assert message in str(caught.value) and "mine.py" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_not_there_or_no_python(tmp_path):
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "notes.txt").write_text("x = 1")
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00x")
    for name in ("nowhere.py", "folder.py", "notes.txt", "", "nowhere"):
        with pytest.raises(UserError, match=r"is no Python file \(NAME.py\) that could be imported"):
            import_transforms(tmp_path / name)
    with pytest.raises(UserError, match="can't be imported"):
        import_transforms(tmp_path / "bytes.py")
