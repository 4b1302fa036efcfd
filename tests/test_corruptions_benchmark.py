"""benchmarks/corruptions.py with a stand-in for imagecorruptions: what it calls equal, the same chance and a ratio, and
what it does when theirs raises; tools/readme_corruptions.py reads what it writes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hw4fast import record

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "corruptions.py"

STAND_IN = '''
"""Ours under their names, but for what a test changes."""
import zlib
import numpy as np
from . import corruptions

def corrupt(image, severity=1, corruption_name=None):
    from hw4fast.transforms import at_severity
    print("a note of a library")
    seed = int(np.random.randint(2**31))
    result = at_severity(corruption_name, severity)(image, seed=seed, key=b"theirs")
    {change}
    return result
'''
OLD_NAMES = """
import numpy as np
def gaussian(image, sigma, channel_axis=None):
    assert channel_axis == -1, channel_axis
"""
CHANGES = {  # indented as in the stand-in
    "none": "pass",
    "three": """
    if corruption_name == "contrast" and severity == 2:
        result = np.where(result < 128, result + 3, result - 3).astype(np.uint8)
    if corruption_name == "jpeg_compression":
        result[..., 0] = np.where(result[..., 0] < 128, result[..., 0] + 2, result[..., 0] - 2)
""",
    "raises": """
    if corruption_name == "zoom_blur" or (corruption_name, severity) == ("contrast", 5):
        raise IndexError("far\\n\\tout")
""",
    "mended": """
    if corruption_name == "fog":
        np.float_
    if corruption_name == "glass_blur":
        corruptions.gaussian(image, sigma=1, multichannel=True)
""",
    "brighter": """
    if corruption_name == "snow":
        result = np.minimum(result, 249) + np.uint8(np.random.randint(5))
""",
    "dies": """
    if corruption_name == "saturate":
        import os, sys
        sys.stderr.write("no more\\n")
        sys.stderr.flush()
        os._exit(9)
""",
}  # fmt: skip


def module(path: Path, monkeypatch):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, found)  # where dataclasses look
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def benchmark_module(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return module(SCRIPT, monkeypatch)


@pytest.fixture
def chance(monkeypatch):
    return module(SCRIPT.with_name("corruptions_chance.py"), monkeypatch)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A data folder with smooth pictures."""
    folder = tmp_path_factory.mktemp("data") / "photos" / "nips2017"
    folder.mkdir(parents=True)
    for number in range(2):
        noise = np.random.Generator(np.random.PCG64(number)).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(noise).resize((240, 200), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder.parents[1]


@pytest.fixture
def run(photos, tmp_path):
    """The script against a stand-in with that change; gives the process and the record."""

    def start(change: str, *arguments: str) -> tuple[subprocess.CompletedProcess, dict]:
        package = tmp_path / "packages" / "imagecorruptions"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(STAND_IN.format(change=CHANGES[change].strip()), encoding="utf-8")
        (package / "corruptions.py").write_text(OLD_NAMES, encoding="utf-8")
        out = tmp_path / "corruptions.jsonl"
        command = [sys.executable, SCRIPT, *arguments, "--python", sys.executable, "--quick", "--out", out]
        path = os.pathsep.join([str(package.parent), str(ROOT)])
        environment = {**os.environ, "HW4FAST_DATA": str(photos), "PYTHONPATH": path}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert "Traceback" not in ran.stderr, ran.stderr
        return ran, record.read(out)[-1]["results"] if out.exists() else {}

    return start


# -- with a stand-in ---------------------------------------------------------------------------------------------


def test_the_same_is_called_equal_and_the_same_chance(run, benchmark_module):
    ran, found = run("none")
    assert ran.returncode == 0 and ran.stderr == ""
    equal = {(row["corruption"], row["severity"]): row for row in found["equal"]}
    fixed = [name for name, kind in benchmark_module.CORRUPTIONS.items() if kind == benchmark_module.FIXED]
    assert set(equal) == {(name, severity) for name in fixed for severity in (1, 2, 3, 4, 5)}
    assert {(row["close"], row["worst"], row["values"]) for row in equal.values()} == {(1.0, 0, 2 * 224 * 224 * 3)}
    drawn = {(row["corruption"], row["severity"]): row for row in found["chance"]}
    assert set(drawn) == {(name, 3) for name, kind in benchmark_module.CORRUPTIONS.items() if kind == "with chance"} | {
        ("spatter", 5)
    }
    assert all(row["same"] for row in drawn.values())
    assert drawn["snow", 3]["draws"] == 40 and drawn["glass_blur", 3]["draws"] == 20
    assert drawn["snow", 3]["statistics"]["mean"]["theirs"] != drawn["snow", 3]["statistics"]["mean"]["ours"]
    rows = found["time"]["rows"]
    assert [row["corruption"] for row in rows] == list(benchmark_module.CORRUPTIONS) and len(rows) == 19
    assert all(row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"] for row in rows)
    (total,) = found["time"]["totals"]
    assert total["corruptions"] == 19 and 0.2 < total["ratio"]["median"] < 5
    assert total["theirs_ms"] == pytest.approx(sum(row["theirs_ms"]["median"] for row in rows))
    assert found["mended"] == {} and found["pictures"] == 2 and found["isas"]


def test_three_grey_levels_are_told(run):
    ran, found = run("three", "equal")
    assert ran.returncode == 3
    assert ran.stderr == "contrast, severity 2: only 0.00 % within 2 grey levels, worst 3\n"
    bad = [(row["corruption"], row["severity"], row["close"]) for row in found["equal"] if row["worst"] > 2]
    assert bad == [("contrast", 2, 0.0)]
    assert {row["worst"] for row in found["equal"] if row["corruption"] == "jpeg"} == {2}
    assert "chance" not in found and "time" not in found


def test_what_raises_is_told_and_the_rest_is_measured(run):
    ran, found = run("raises", "equal", "time")
    assert ran.returncode == 3
    assert ran.stderr.splitlines() == [
        *(f"zoom_blur, severity {n}: imagecorruptions raises IndexError: far out" for n in range(1, 6)),
        "contrast, severity 5: imagecorruptions raises IndexError: far out",
    ]
    assert sum("raises" in row for row in found["equal"]) == 6
    raised = [row["corruption"] for row in found["time"]["rows"] if "raises" in row]
    assert raised == ["zoom_blur"] and found["time"]["totals"][0]["corruptions"] == 18


def test_what_is_mended_is_not_in_the_total(run):
    ran, found = run("mended", "time")
    assert ran.returncode == 0
    assert list(found["mended"]) == ["glass_blur", "fog"]
    assert found["mended"]["fog"].startswith("AttributeError: `np.float_` was removed")
    rows = {row["corruption"]: row for row in found["time"]["rows"]}
    counted = [row["theirs_ms"]["median"] for name, row in rows.items() if name not in found["mended"]]
    (total,) = found["time"]["totals"]
    assert total["corruptions"] == len(counted) == 17 and total["theirs_ms"] == pytest.approx(sum(counted))
    assert ran.stdout.count("(mended)") == 2 and "mended: glass_blur, TypeError" in ran.stdout


def test_another_chance_is_told(run):
    ran, found = run("brighter", "chance", "--draws", "200")
    assert ran.returncode == 3
    (line,) = ran.stderr.splitlines()
    assert line.startswith("snow, severity 3: another chance, mean ")
    (snow,) = [row for row in found["chance"] if not row["same"]]
    assert snow["corruption"] == "snow" and snow["statistics"]["mean"]["z"] < -4
    assert "same" in ran.stdout and "z = -" in ran.stdout


def test_a_process_that_ends_is_one_line(run):
    ran, found = run("dies", "time")
    assert (ran.returncode, found, ran.stdout) == (1, {}, "")
    assert ran.stderr == "corruptions.py: the process with imagecorruptions gave no answer (exit code 9): no more\n"


def started(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("python", "message"),
    [
        (sys.executable, "can't import imagecorruptions (ModuleNotFoundError: No module named 'imagecorruptions')"),
        ("no/such/python", "'no/such/python' can't be started: No such file or directory; give it as --python"),
        ("true", "gave no answer (exit code"),
    ],
)
def test_an_interpreter_without_it_is_one_line(python, message, monkeypatch, photos):
    monkeypatch.setenv("HW4FAST_DATA", str(photos))
    ran = started("--python", python, "--quick")
    assert ran.returncode == 1 and message in ran.stderr and ran.stderr.count("\n") == 1
    assert "setuptools<80" in ran.stderr or python != sys.executable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tim"], "no such part: tim"),
        (["--severities", "3,6"], "--severities takes numbers from 1 to 5"),
        (["--pairs", "1"], "--pairs must be at least 2"),
        (["--draws", "19"], "--draws must be at least 20"),
        (["--record", "--quick"], "the README's record is of all parts"),
        (["time", "--record"], "the README's record is of all parts"),
    ],
)
def test_wrong_usage(arguments, message):
    ran = started(*arguments, "--python", sys.executable)
    assert ran.returncode == 2 and message in ran.stderr


# -- by themselves -----------------------------------------------------------------------------------------------


def test_differences_of_known_arrays(benchmark_module):
    theirs = np.array([0, 255, 100, 7], np.uint8).reshape(1, 2, 2, 1)
    ours = np.array([2, 250, 100, 10], np.uint8).reshape(1, 2, 2, 1)
    assert benchmark_module.differences(theirs, ours) == {"values": 4, "close": 0.5, "worst": 5}


def test_the_ratio_of_totals_weighs_by_time(benchmark_module):
    rng = np.random.Generator(np.random.PCG64(1))
    noise = 1 + 0.01 * rng.standard_normal((2, 40, 2))
    slow, fast = np.array([9.0, 1.0]) * noise[0], np.array([1.0, 1.0]) * noise[1]
    found = benchmark_module.ratio([slow, fast])
    assert found.median == pytest.approx(5, rel=0.01) and found.low < found.median < found.high and found.n == 40
    assert found.high - found.low < 0.1
    assert benchmark_module.ratio([slow, fast]) == found
    same = benchmark_module.ratio([np.full((10, 2), [6.0, 3.0])])
    assert (same.median, same.low, same.high, same.n) == (2, 2, 2, 10)


def test_statistics_of_known_changes(chance):
    picture = np.full((40, 60, 3), 100, np.uint8)
    assert chance.statistics(picture, picture).tolist() == [0.0] * 6
    assert chance.statistics(picture, picture + np.uint8(7)).tolist() == [7.0] + [0.0] * 5
    stripes = picture.copy()
    stripes[:, ::2] += 10  # upright, of one pixel
    mean, std, *rest = chance.statistics(picture, stripes)
    assert (mean, std) == (5, 5) and rest == pytest.approx([-1, 1, 1, 1])


def test_statistics_are_those_of_a_plain_sum(chance):
    rng = np.random.Generator(np.random.PCG64(0))
    picture, result = rng.integers(0, 256, (2, 50, 40, 3), np.uint8)
    change = result.astype(float) - picture
    d = change - change.mean((0, 1))
    expected = [change.mean(), change.std()]
    expected += [((d[:, k:] * d[:, :-k]).mean((0, 1)) / (d * d).mean((0, 1))).mean() for k in (1, 4)]
    expected += [((d[k:] * d[:-k]).mean((0, 1)) / (d * d).mean((0, 1))).mean() for k in (1, 4)]
    assert chance.statistics(picture, result) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def samples(shift=0.0, scale=1.0, n=1000, level=10.0):
    rng = np.random.Generator(np.random.PCG64(3))
    theirs, ours = rng.standard_normal((2, n, 6))
    return theirs + level, level + shift + scale * ours


@pytest.mark.parametrize(
    ("changes", "agrees", "spread_agrees"),
    [
        ({}, True, True),
        ({"shift": 0.3}, False, True),
        ({"scale": 1.2}, True, False),
        ({"shift": 0.3, "level": 1000.0}, True, True),  # less than half a percent
        ({"shift": 0.3, "n": 20}, True, True),
    ],
)
def test_two_samples_compared(changes, agrees, spread_agrees, chance):
    found = chance.compare(*samples(**changes))
    assert list(found) == list(chance.NAMES)
    row = found["std"]
    assert (row["agrees"], row["spread_agrees"]) == (agrees, spread_agrees)
    assert chance.same(found) == (agrees and spread_agrees and not changes.get("level"))
    words = " ".join(chance.disagreements(found))
    assert ("std 10.2" in words) == (not agrees) and ("spread of std 1." in words) == (not spread_agrees)


def test_a_mean_must_be_near_in_grey_levels_too(chance):
    theirs, ours = samples(shift=0.3, level=1000.0)
    assert not chance.compare(theirs, ours)["mean"]["agrees"]
    assert chance.compare(theirs, theirs + 0.04)["mean"]["agrees"]


def test_statistics_that_never_change_have_finite_answers(chance):
    same, other = np.zeros((5, 6)), np.ones((5, 6))
    assert chance.same(chance.compare(same, same))
    found = chance.compare(same, other)
    assert found["mean"]["z"] == 1e6 and found["mean"]["relative"] is None and not chance.same(found)
    varied = np.arange(30.0).reshape(5, 6)
    assert not chance.compare(varied, other)["mean"]["spread_agrees"]


def test_photographs_are_there_without_a_data_folder(benchmark_module, monkeypatch):
    monkeypatch.delenv("HW4FAST_DATA", raising=False)
    pictures = benchmark_module.photographs(3)
    assert pictures.shape == (3, 224, 224, 3) and pictures.dtype == np.uint8 and pictures.std() > 20


# -- in the README -----------------------------------------------------------------------------------------------


@pytest.fixture
def readme(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    found = module(ROOT / "tools" / "readme_corruptions.py", monkeypatch)
    monkeypatch.setattr(found, "RESULTS", tmp_path)
    return found


def cells(text: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows[2:]}


def test_the_readme_tells_what_the_record_says(run, readme, tmp_path):
    _, found = run("mended", "--severities", "2,3")
    for row in found["equal"]:
        if (row["corruption"], row["severity"]) == ("contrast", 4):
            row |= {"close": 0.8802, "worst": 4}
        if (row["corruption"], row["severity"]) == ("jpeg", 4):
            row |= {"worst": 1}
    snow = next(row for row in found["chance"] if row["corruption"] == "snow")
    snow["statistics"]["mean"]["agrees"] = snow["statistics"]["std"]["spread_agrees"] = snow["same"] = False
    timed = {(row["corruption"], row["severity"]): row for row in found["time"]["rows"]}
    timed["fog", 3] |= {"ratio": {"median": 5.5, "low": 5.25, "high": 5.75, "n": 4}}
    timed["fog", 3]["theirs_ms"]["median"], timed["fog", 3]["ours_ms"]["median"] = 2.0, 0.3634
    timed["frost", 3] |= {"ratio": {"median": 60, "low": 5, "high": 1700, "n": 4}}
    found["theirs"]["imagecorruptions"] = "1.1.2"
    record.append(tmp_path / "corruptions.jsonl", "corruptions", found)
    text = readme.corruptions()
    rows = cells(text)
    assert len(rows) == 20 and rows["the 17 that run as they are".join(["**"] * 2)][3] == ""
    assert rows["fog"] == ["(2.00 ms)", "(0.363 ms)", "(5.50 (5.25 … 5.75))", "the same chance, 40 draws"]
    assert rows["frost"][2:] == ["60.0 (5.00 … 1,700)", readme.ANOTHER_PICTURE["frost"]]
    assert rows["contrast"][3] == "within 2 grey levels: 88.02 % at severity 4; at most 4 beside"
    assert rows["jpeg"][3] == "equal within 1 grey level" and rows["pixelate"][3] == "equal"
    assert rows["snow"][3] == "another chance at severity 3: mean, spread of std"
    assert (
        "In brackets: glass_blur and fog raise with these packages" in text and "imagecorruptions 1.1.2, numpy" in text
    )


def test_the_readme_tells_what_raises(run, readme, tmp_path):
    _, found = run("raises")
    record.append(tmp_path / "corruptions.jsonl", "corruptions", found)
    rows = cells(readme.corruptions())
    assert rows["zoom_blur"] == ["raises", "", "", "theirs raises IndexError: far out"]
    assert rows["contrast"][3] == "theirs raises IndexError: far out"


def test_a_record_of_some_parts_is_refused(readme, tmp_path):
    record.append(tmp_path / "corruptions.jsonl", "corruptions", {"equal": [], "time": {"rows": []}})
    with pytest.raises(Exception, match=r"measure it again: `python benchmarks/corruptions\.py --python … --record`"):
        readme.corruptions()
