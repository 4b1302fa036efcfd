"""The registry: order, duplicates, nearest names, and a folder that registers itself."""

from __future__ import annotations

import sys

import pytest

from hw4fast.errors import UsageError
from hw4fast.registry import Registry, import_folder


@pytest.fixture
def shapes() -> Registry[int]:
    registry: Registry[int] = Registry("shape")
    for sides, name in enumerate(("triangle", "square", "pentagon"), 3):
        registry.add(name, sides)
    return registry


def test_entries_in_order(shapes):
    assert list(shapes) == ["triangle", "square", "pentagon"]
    assert shapes.get("square") == 4 and "square" in shapes and "circle" not in shapes


def test_the_decorator_gives_its_thing_back():
    registry = Registry("function")

    @registry.register("one")
    def one() -> int:
        return 1

    assert one() == 1 and registry.get("one") is one


def test_a_duplicate_raises(shapes):
    with pytest.raises(ValueError, match="shape 'square' is registered already"):
        shapes.add("square", 5)
    assert shapes.get("square") == 4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sqare", "unknown shape 'sqare'; did you mean square?"),
        ("hexagon", r"unknown shape 'hexagon'; did you mean pentagon"),
        ("zzz", "unknown shape 'zzz'; known: triangle, square, pentagon"),
        ("", "unknown shape ''; known: triangle, square, pentagon"),
    ],
)
def test_an_unknown_name_is_told_its_neighbours(name, words, shapes):
    with pytest.raises(UsageError, match=words):
        shapes.get(name)


def test_a_new_file_registers_itself(tmp_path, monkeypatch):
    package = tmp_path / "shapes_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from hw4fast.registry import Registry, import_folder\nSHAPES = Registry('shape')\n"
        "import_folder(__name__, __path__)\n"
    )
    for name in ("circle", "line"):
        (package / f"{name}.py").write_text(f"from shapes_of_a_test import SHAPES\nSHAPES.add('{name}', 0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    import shapes_of_a_test

    assert list(shapes_of_a_test.SHAPES) == ["circle", "line"]
    import_folder("shapes_of_a_test", shapes_of_a_test.__path__)  # twice does no harm
    for name in [name for name in sys.modules if name.startswith("shapes_of_a_test")]:
        del sys.modules[name]
