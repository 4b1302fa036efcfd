"""The house of DESIGN.md: who may import whom and torch, how long a file may be, where AVX instructions may stand."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from hw4fast import kernels

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hw4fast"

# Top of the house first; an arrow of imports only points down. One line, one floor: its rooms may know each other.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("homework",),
    ("robustness",),
    ("bench", "info"),
    ("exporter",),
    ("batched",),
    ("inference",),
    ("training",),
    ("nn",),
    ("transforms",),
    ("data",),
    ("kernels",),
    ("page",),
    ("record", "timing", "files", "paths", "stats", "figures", "registry", "errors"),
    ("_C", "_cuda"),
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
TORCH_ROOMS = {"nn", "batched", "training", "exporter", "homework", "bench"}
TORCH = {"torch", "torchvision", "safetensors"}
LATE = {
    "torch",
    "torchvision",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "matplotlib",
    "sklearn",
    "numba",
    "tqdm",
    "pyarrow",
    "pandas",
    "cv2",
}
COLD_ROOMS = {"cli", "robustness", "info", "inference", "transforms", "kernels", "data", "page", *FLOORS[-2]}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imports(path: Path) -> list[tuple[str, bool]]:
    """(full name of the module or of the name in it, whether at module level) of every import in a file."""
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for statement in tree.body for node in walk_outside_functions(statement)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [(f"{node.module}.{alias.name}", id(node) in top) for alias in node.names]
    return found


def walk_outside_functions(node: ast.AST):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from walk_outside_functions(child)


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@cache
def neighbours() -> dict[str, set[str]]:
    """Room → rooms that it imports, anywhere in its files."""
    graph: dict[str, set[str]] = defaultdict(set)
    for path in sources():
        for name, _ in imports(path):
            package, *rest = name.split(".")
            if package == "hw4fast" and rest:
                graph[room_of(path)].add(rest[0])
    return graph


def test_every_room_has_its_floor():
    rooms = {room_of(path) for path in sources()}
    assert rooms <= LEVEL.keys()
    assert {"training", "inference", "robustness", "kernels", "cli"} <= rooms
    assert set().union(*neighbours().values()) <= LEVEL.keys()


@pytest.mark.parametrize("room", LEVEL)
def test_imports_only_point_down(room):
    upward = {other for other in neighbours()[room] - {room} if LEVEL[other] < LEVEL[room]}
    assert not upward, f"hw4fast.{room} imports from above: {sorted(upward)}"


def test_the_compiled_module_has_few_faces():
    assert {room for room, others in neighbours().items() if others & {"_C", "_cuda"}} <= {"kernels", "record"}


def reached(room: str) -> set[str]:
    """All rooms that a room leads to, itself included."""
    seen, waiting = {room}, [room]
    while waiting:
        new = neighbours()[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


@pytest.mark.parametrize("room", ["robustness", "inference", "transforms", "kernels", "data", "info", "record"])
def test_rooms_without_torch_reach_none_that_has_it(room):
    assert not reached(room) & TORCH_ROOMS


def test_that_walk_arrives():
    assert {"exporter", "nn", "kernels", "errors"} <= reached("cli")


def test_torch_is_imported_where_it_is_needed_and_nowhere_else():
    found = {room_of(path) for path in sources() for name, _ in imports(path) if name.split(".")[0] in TORCH}
    assert found <= TORCH_ROOMS
    assert {"nn", "training", "exporter", "bench"} <= found  # the walk sees imports at the top and inside functions


def test_slow_imports_wait_inside_functions():
    late = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources()
        if room_of(path) in COLD_ROOMS | {"bench"}
        for name, at_the_top in imports(path)
        if at_the_top and name.split(".")[0] in LATE
    ]
    assert not late


def test_training_a_net_of_ours_needs_no_torchvision():
    script = "import sys, hw4fast.training.train as t; t.check(t.Settings()); print('torchvision' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.split() == ["False"]


def test_the_command_line_imports_nothing_but_the_standard_library_at_the_top():
    top = {name for path in (PACKAGE / "cli").glob("*.py") for name, at_the_top in imports(path) if at_the_top}
    ours = {name for name in top if name.startswith("hw4fast") and not name.startswith("hw4fast.cli")}
    assert ours == {"hw4fast.errors.UserError"}
    assert not {name.split(".")[0] for name in top} & (LATE | {"numpy", "PIL"})


def test_the_face_names_what_is_there():
    import hw4fast

    for name in ("Settings", "train", "export", "load", "classify", "Result", "Failure", "ort_library", "study"):
        assert callable(getattr(hw4fast, name)) and name in dir(hw4fast)
    assert hw4fast.nn.conv_block and hw4fast.batched.TorchBatches and {"nn", "batched"} <= set(dir(hw4fast))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        hw4fast.trian  # noqa: B018


# -- sizes -------------------------------------------------------------------------------------------------------


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_is_long():
    kinds = {".py", ".pyi", ".cpp", ".h", ".inl", ".cu", ".cuh", ".sh"}
    folders = [ROOT / name for name in ("hw4fast", "csrc", "tests", "benchmarks", "tools")]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in kinds]
    assert len(files) > 80
    assert not {str(path.relative_to(ROOT)): lines(path) for path in files if lines(path) > 400}


def test_setup_is_short_and_knows_no_torch():
    names = {name.split(".")[0] for name, _ in imports(ROOT / "setup.py")}
    assert lines(ROOT / "setup.py") < 100
    assert "setuptools" in names and not names & LATE
    assert "torch" not in (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project]")[0]


# -- instructions ------------------------------------------------------------------------------------------------

WIDE = re.compile(r"%[yz]mm\d|%xmm(?:1[6-9]|2\d|3[01])|%k[1-7]\b")  # registers that the baseline doesn't have
VEX = re.compile(r"^v[a-z0-9]+$")  # AVX's encodings of the narrow ones: vmovaps %xmm0 …


BUILT = {"_C": lambda: kernels.compiled().__file__, "_ort": lambda: str(kernels.ort_library())}


@cache
def functions_with_avx(built: str) -> dict[str, list[str]]:
    """Demangled name → the AVX instructions in it, of the built module or library."""
    missing = [tool for tool in ("objdump", "c++filt") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)} (binutils)")
    text = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", BUILT[built]()], capture_output=True, text=True, check=True
    ).stdout
    if "file format elf64-x86-64" not in text:
        pytest.skip("the built module is not x86-64")
    found: dict[str, list[str]] = defaultdict(list)
    name = ""
    for line in text.splitlines():
        if line.endswith(">:"):
            name = line.split("<", 1)[1][:-2]
        elif "\t" in line:
            instruction = line.split("\t", 1)[1]
            if WIDE.search(instruction) or VEX.match(instruction.split()[0]):
                found[name].append(instruction)
    names = subprocess.run(["c++filt"], input="\n".join(found), capture_output=True, text=True, check=True).stdout
    return dict(zip(names.splitlines(), found.values(), strict=True))


@pytest.mark.parametrize("built", BUILT)
def test_avx_stands_in_its_own_namespaces_only(built):
    """Else the module would die on an older processor before its choice at run time."""
    functions = functions_with_avx(built)
    mine = re.compile(r"hw4fast::(?:avx2|avx512)::")
    outside = {name: instructions[0] for name, instructions in functions.items() if not mine.search(name)}
    assert not outside
    assert any("hw4fast::avx2::" in name for name in functions)  # it has looked at the right file
    assert any("hw4fast::avx512::" in name for name in functions)


@pytest.mark.parametrize("built", BUILT)
def test_avx2_functions_hold_no_avx512(built):
    functions = functions_with_avx(built)
    wide = re.compile(r"%zmm|%k[1-7]\b|%[xy]mm(?:1[6-9]|2\d|3[01])")
    for name, instructions in functions.items():
        if "hw4fast::avx2::" in name:
            assert not [instruction for instruction in instructions if wide.search(instruction)], name
