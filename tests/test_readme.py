"""The README and the page of its numbers: these are the records', commands are the command line's, links lead on."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hw4fast import cli

ROOT = Path(__file__).parents[1]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "benchmarks/README.md")}
TEXT = "\n".join(PAGES.values())
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
COMMANDS = [
    line.removeprefix("$ ").split("#")[0]
    for kind, block in BLOCKS
    for line in block.splitlines()
    if kind in ("sh", "") and line.removeprefix("$ ").startswith("hw4fast ")
]


spec = importlib.util.spec_from_file_location("readme", ROOT / "tools" / "readme.py")
sys.path.insert(0, str(ROOT / "tools"))  # as for a script there
readme = importlib.util.module_from_spec(spec)
spec.loader.exec_module(readme)


def test_the_numbers_are_those_of_the_records():
    assert subprocess.run([sys.executable, ROOT / "tools" / "readme.py", "--check"]).returncode == 0


def test_every_record_is_quoted_once_and_filling_in_keeps_the_rest():
    """A block that is empty ends at its own end, not at the next block's."""
    assert PAGES.keys() == set(readme.PAGES)
    quoted = re.findall(r"^<!-- from (\w+) -->$", TEXT, re.MULTILINE)
    assert sorted(quoted) == sorted(readme.BLOCKS)
    for text in PAGES.values():
        emptied = re.sub(r"(<!-- from \w+ -->\n).*?(<!-- end -->)", r"\1\2", text, flags=re.DOTALL)
        assert len(emptied) < len(text)
        assert readme.filled(emptied) == readme.filled(text) == text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command):
    assert callable(cli._parser().parse_args(shlex.split(command)[1:]).run)


def test_there_are_commands_of_every_verb_of_the_story():
    assert {command.split()[1] for command in COMMANDS} >= {"train", "export", "classify", "study", "bench"}


@pytest.mark.parametrize(
    ("page", "target"),
    [(page, target) for page, text in PAGES.items() for target in re.findall(r"\]\(([^)]+)\)", text)],
)
def test_every_link_leads_to_a_file_or_a_heading(page, target):
    file, _, anchor = target.partition("#")
    path = ((ROOT / page).parent / file if file else ROOT / page).resolve()
    assert path.exists()
    if anchor:
        headings = re.findall(r"^#+ (.*)$", PAGES[path.relative_to(ROOT).as_posix()], re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "code", [block for kind, block in BLOCKS if kind == "python" and block.startswith("import hw4fast\n")]
)
def test_the_python_examples_use_names_that_exist(code):
    import hw4fast

    compile(code, "README.md", "exec")
    for name in set(re.findall(r"hw4fast\.(\w+)", code)):
        assert hasattr(hw4fast, name), name


def test_the_transform_of_ones_own_does_what_it_says():
    """As a file of the user's, in a process of its own: a name is registered once."""
    (code,) = [block for kind, block in BLOCKS if kind == "python" and "hw4fast.transform(" in block]
    code += "\nimport numpy as np\nfrom hw4fast.transforms import parse\n"
    code += "picture = np.zeros((4, 4, 3), np.uint8)\nprint(parse('tint0.4')(picture)[0, 0].tolist(), picture.max())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[102, 0, 0] 0\n"


def test_the_first_table_names_every_rival_the_nearest_first():
    side_by_side = sys.modules["readme_side_by_side"]
    candidates = {"hw4fast": {"median_us": 1500.0}, "copy of as many bytes": {"median_us": 1.0}}
    candidates |= {name: {"ratio_to_ours": ratio} for name, ratio in (("far, in a graph", 12.345), ("near", 0.98))}
    found = {"cases": [{"case": "other", "candidates": {}}, {"case": "it", "candidates": candidates}]}
    assert side_by_side.kernel("what", found, "it") == ["what", "1.50 ms", "near 0.98×, far + in a graph 12.3×"]


def test_a_row_of_a_gpu_that_the_record_lacks_is_told(monkeypatch):
    side_by_side = sys.modules["readme_side_by_side"]
    monkeypatch.setattr(side_by_side, "ON_A_GPU", {"a": "in words", "b": "others"})
    rows = [
        [
            "a",
            "2.0 µs, the kernel alone 1.9 µs",
            "torch 8.0 µs; copy 1.0 µs",
            "4.00× (3.9 … 4.1); 50 % of the copy",
            "",
        ],
        ["a", "2.0 µs", "torch, CUDA graph 1.5 µs", "0.75×", ""],
        ["c", "1/s", "torch 2/s", "0.50×", ""],
    ]
    with pytest.raises(side_by_side.OldRecordError, match=r"gpu_check\.sh` \(gpu\.jsonl lacks b\)"):
        side_by_side.on_a_gpu(rows)
    del side_by_side.ON_A_GPU["b"]
    assert side_by_side.on_a_gpu(rows) == [["in words", "2.0 µs", "torch + CUDA graph 0.75×, torch 4.00×"]]
