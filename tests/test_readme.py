"""The README: its numbers are those of the records, its commands are the command line's, its links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hw4fast import cli

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
COMMANDS = [
    line.removeprefix("$ ").split("#")[0]
    for kind, block in BLOCKS
    for line in block.splitlines()
    if kind in ("sh", "") and line.removeprefix("$ ").startswith("hw4fast ")
]


def test_the_numbers_are_those_of_the_records():
    assert subprocess.run([sys.executable, ROOT / "tools" / "readme.py", "--check"]).returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command):
    assert callable(cli._parser().parse_args(shlex.split(command)[1:]).run)


def test_there_are_commands_of_every_verb_of_the_story():
    assert {command.split()[1] for command in COMMANDS} >= {"train", "export", "classify", "study", "bench"}


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", TEXT))
def test_every_link_leads_to_a_file(target):
    assert (ROOT / target).exists()


def test_the_python_example_uses_names_that_exist():
    import hw4fast

    (code,) = [block for kind, block in BLOCKS if kind == "python" and "import hw4fast\n" in block]
    compile(code, "README.md", "exec")
    for name in set(re.findall(r"hw4fast\.(\w+)", code)):
        assert hasattr(hw4fast, name), name
