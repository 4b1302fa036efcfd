"""benchmarks/serving.py: blocks are paired within their round, sessions compared before they are timed; tools/readme.py
reads what it writes, and says so when a record is older."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from hw4fast import data, record, timing
from hw4fast.inference.classifier import Classifier

ROOT = Path(__file__).parents[1]


def module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def serving(monkeypatch):
    monkeypatch.setattr(timing, "POOLS_REST_S", 0)
    return module(ROOT / "benchmarks" / "serving.py")


@pytest.fixture
def readme(monkeypatch, tmp_path):
    """Its blocks on serving, of the records in tmp_path."""
    found = module(ROOT / "tools" / "readme_serving.py")
    monkeypatch.setattr(found, "RESULTS", tmp_path)
    return found


# -- in blocks ---------------------------------------------------------------------------------------------------


class Machine:
    """Its clock, a drift that multiplies every round's times, and who was there last."""

    def __init__(self, drift=(1.0,)):
        self.now, self.last, self.order, self.drift = 0.0, "", [], itertools.cycle(drift)
        self.speed, self.rests = 1.0, 0

    def call(self, name: str, alone: float, after: dict[str, float]):
        """A call that takes `alone` seconds, and more after others."""

        def run() -> None:
            self.now += self.speed * after.get(self.last, alone)
            self.last = name
            self.order.append(name)

        return run

    def sleep(self, _seconds: float) -> None:
        if self.rests % 5 == 0:  # a round of five blocks
            self.speed = next(self.drift)
        self.rests += 1
        self.last = ""
        self.order.append("|")


def measured(serving, monkeypatch, machine: Machine, **options):
    monkeypatch.setattr(serving, "time", SimpleNamespace(perf_counter=lambda: machine.now, sleep=machine.sleep))
    torchs = machine.call("torch", 6.0, {"bare": 12.0, "ours": 9.0})
    others = {
        "bare": machine.call("bare", 2.0, {"torch": 3.0}),
        "ours": machine.call("ours", 4.0, {"torch": 5.0}),
    }
    return serving.in_blocks(torchs, others, seconds=0, **options)


def test_ratios_are_of_the_same_round_however_the_machine_drifts(serving, monkeypatch):
    found = measured(serving, monkeypatch, Machine(np.exp(np.linspace(0, 3, 7))), calls=4, at_least=21)
    ratios = {name: (row["low"], row["median"], row["high"]) for name, row in found["ratios"].items()}
    expected = {
        "bare beside torch over bare alone": 3 / 2,
        "ours beside torch over ours alone": 5 / 4,
        "torch beside bare over torch alone": 12 / 6,
        "torch beside ours over torch alone": 9 / 6,
        "ours alone over bare alone": 4 / 2,
        "ours beside torch over bare beside torch": 5 / 3,
    }
    assert ratios == {name: pytest.approx((value,) * 3) for name, value in expected.items()}
    assert {row["n"] for row in found["ratios"].values()} == {21} and found["calls"] == 4
    assert found["times"]["torch alone"]["high_s"] > 2 * found["times"]["torch alone"]["low_s"]  # as it drifts


def test_blocks_change_their_order_and_rest_before_each(serving, monkeypatch):
    machine = Machine()
    measured(serving, monkeypatch, machine, calls=2, at_least=10)
    blocks = "".join(name[0] for name in machine.order).split("|")[1:]
    assert set(blocks) == {"ttt", "bbb", "btbtbt", "ooo", "ototot"} and len(blocks) == 50  # the first calls don't count
    rounds = [tuple(blocks[i : i + 5]) for i in range(0, 50, 5)]
    assert len(set(rounds)) == 10 and all(len(set(one)) == 5 for one in rounds)
    assert len({one[0] for one in rounds}) == 5
    before = {(one, other) for both in rounds for one, other in itertools.pairwise(both) if other == "ttt"}
    assert len(before) >= 2


# -- over sessions -----------------------------------------------------------------------------------------------


@pytest.fixture
def over(serving, centroid_onnx, monkeypatch):
    classifier = Classifier(centroid_onnx)
    pictures = data.load("digits").test.images[:3]
    alternate = timing.alternate
    asked = []

    def few(calls, seconds, at_least, **options):
        asked.append((list(calls), options))
        return alternate(calls, seconds, at_least=2, **{**options, "at_most": 3})

    monkeypatch.setattr(serving.timing, "alternate", few)

    def measure(own):
        return serving.over_sessions(classifier, own, pictures, 0, 4), asked

    return measure


def session(path, **options):
    given = onnxruntime.SessionOptions()
    for name, value in options.items():
        setattr(given, name, value)
    return onnxruntime.InferenceSession(str(path), given, providers=["CPUExecutionProvider"])


def test_over_its_own_session_and_over_onnxruntimes(over, serving, centroid_onnx):
    rows, asked = over(session(centroid_onnx))
    kinds = list(itertools.product((serving.SAME, serving.OWN), ("tensors", "pictures")))
    assert [(row["over"], row["what"]) for row in rows] == kinds
    assert {row["batch"] for row in rows} == {3} and [row["times_as_long"]["n"] for row in rows] == [2] * 4
    assert [calls for calls, _ in asked] == [[one, "tensors", "pictures"] for one in (serving.SAME, serving.OWN)]
    assert asked[1][1] == {"burst": 4, "pause": timing.POOLS_REST_S} and "pause" not in asked[0][1]


def test_another_number_of_threads_or_another_answer_is_refused(over, centroid_onnx, tmp_path):
    from tests.conftest import write_linear_onnx

    with pytest.raises(AssertionError, match=r"\[1, 0\]"):
        over(session(centroid_onnx, intra_op_num_threads=1))
    write_linear_onnx(tmp_path / "other.onnx", np.ones((10, 784)), np.zeros(10), None)
    with pytest.raises(AssertionError):
        over(session(tmp_path / "other.onnx"))


def test_overhead_is_not_measured_beside_torch(serving, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", sys)
    with pytest.raises(AssertionError, match="beside torch"):
        serving.overhead(0, Path())


# -- in the README -----------------------------------------------------------------------------------------------


@pytest.fixture
def results(serving, over, centroid_onnx):
    """As main writes them, of a tiny net that bears the names of the real ones."""
    rows, _ = over(session(centroid_onnx))
    spread = {"median_s": 1.0, "low_s": 1.0, "high_s": 1.0, "n": 2}
    ratio = {"median": 2.0, "low": 1.5, "high": 2.5, "n": 2}
    others = {name: lambda: None for name in (serving.BARE, serving.SPINNING, serving.OURS)}
    return {
        "overhead": [{"net": net, **row} for net in serving.NETS for row in rows],
        "processes": {
            "hw4fast classify": spread,
            "torch and torchvision": spread,
            "ratio": ratio,
            "resnet50": {"first start": spread, "second start": spread},
        },
        "fused": {"1": {"ratio": ratio}, "100": {"ratio": ratio}},
        "torch": serving.in_blocks(lambda: None, others, 0, calls=1, at_least=2),
    }


def test_the_readme_tells_what_the_record_says(results, readme, tmp_path):
    results["torch"]["ratios"]["torch beside Classifier over torch alone"] |= {"median": 1.25, "low": 1.2, "high": 1.3}
    results["torch"]["ratios"]["Classifier alone over Classifier that spins alone"] |= {
        "median": 1.75,
        "low": 1.7,
        "high": 1.8,
    }
    results["overhead"][2]["times_as_long"] |= {"median": 0.75, "low": 0.7, "high": 0.8}  # tensors, over its own
    record.append(tmp_path / "serving.jsonl", "serving", results)
    text = readme.serving()
    assert "beside Classifier torch takes 1.25 (1.20 … 1.30) times as long as alone" in text
    assert "alone Classifier takes 1.75 (1.70 … 1.80) times as long as one whose threads spin (2 rounds)" in text
    own = next(
        line for line in text.splitlines() if line.startswith("- over `run` of a session that onnxruntime opens")
    )
    assert "squeezenet1_1 takes 0.75 (0.70 … 0.80) at batch 3 times as long; shufflenet_v2_x1_0 takes" in own


@pytest.mark.parametrize("part", ["overhead", "torch", None])
def test_an_older_record_is_refused(part, results, readme, tmp_path):
    if part == "overhead":
        results[part] = [{"what": "Classifier.logits of tensors", "batch": 1, "times_as_long": {}}]
    elif part == "torch":
        results[part] = {"torch alone": {}}
    else:
        del results["processes"]
    record.append(tmp_path / "serving.jsonl", "serving", results)
    with pytest.raises(readme.OldRecordError, match=r"measure it again: `python benchmarks/serving\.py --record`"):
        readme.serving()


def test_an_older_record_of_photographs_is_refused(readme, tmp_path):
    record.append(tmp_path / "bench-shufflenet.jsonl", "bench", {"files": [{"way": "hw4fast classify"}]})
    with pytest.raises(readme.OldRecordError, match="measure it again: `hw4fast bench shufflenet_v2_x1_0 "):
        readme.photographs()


def test_main_says_which_records_are_old_and_leaves_the_readme(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(ROOT / "tools")
    readme = module(ROOT / "tools" / "readme.py")

    def old():
        raise readme.OldRecordError("serving.jsonl: measure again")

    monkeypatch.setattr(readme, "BLOCKS", {"serving": old})
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(readme, "PAGES", ["README.md"])
    (tmp_path / "README.md").write_text("<!-- from serving -->\nold\n<!-- end -->\n", encoding="utf-8")
    for arguments in ([], ["--check"]):
        monkeypatch.setattr(sys, "argv", ["readme.py", *arguments])
        assert readme.main() == 2
        assert capsys.readouterr().err == "serving.jsonl: measure again\n"
    assert "old" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_the_readme_says_whose_answers_are_others(readme):
    rows = [{"engine": "torch eager", "same": 64, "n": 64}, {"engine": "int8", "same": 61, "n": 64}]
    assert readme.same_answers({"results": {"answers": rows}}) == (
        " On 64 pictures all give the same answers, int8 on 61 of them."
    )
    assert readme.same_answers({"results": {"answers": rows[:1]}}) == " On 64 pictures all give the same answers."
    assert readme.same_answers({"results": {}}) == ""  # an older record
