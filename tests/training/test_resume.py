"""--resume in one process: what goes on, what is refused, what damaged files say. See test_kill.py for real kills."""

from __future__ import annotations

import csv
import json
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import hw4fast.data as datasets
import hw4fast.training.train as train_module
from hw4fast import kernels
from hw4fast.errors import Interrupted, UsageError, UserError
from hw4fast.files import alone, write_json
from hw4fast.training.runs import load_model, load_record, load_state, new_folder
from hw4fast.training.settings import Settings
from hw4fast.training.train import train
from tests.training.conftest import NARROW, other_data

HARD = [
    {"optimizer": "sgd", "momentum": 0.9, "batch_norm": True},
    {"optimizer": "adam", "l1": 1e-4},
    {"optimizer": "adagrad"},
    {"optimizer": "sgd", "kernels": "torch"},
]


def weights(folder):
    return (folder / "weights.safetensors").read_bytes()


def epochs_in_metrics(folder):
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def interrupt_in_step(ctrl_c_in_step, quick, step, **settings):
    """A run that Ctrl-C stops in that step (5 steps make an epoch); the message."""
    with ctrl_c_in_step(step), pytest.raises(Interrupted) as caught:
        quick(**settings)
    assert caught.value.exit_code == 130
    return str(caught.value)


@pytest.mark.parametrize("settings", HARD, ids=lambda value: "-".join(map(str, value.values())))
def test_interrupted_and_resumed_is_uninterrupted(settings, quick, tmp_path, ctrl_c_in_step):
    settings = {**settings, "epochs": 4}
    message = interrupt_in_step(ctrl_c_in_step, quick, 13, **settings)  # in the third epoch
    folder = tmp_path / "run"
    assert shlex.quote(str(folder)) in message and "--resume" in message
    assert epochs_in_metrics(folder) == [1, 2]
    assert load_record(folder)["status"] == "running"
    resumed = quick(resume=True, **settings)
    assert resumed.folder == folder and epochs_in_metrics(folder) == [1, 2, 3, 4]
    whole = quick(**settings)
    assert weights(folder) == weights(whole.folder) and whole.folder != folder
    assert (resumed.correct, resumed.cost, resumed.kernels) == (whole.correct, whole.cost, whole.kernels)
    one, other = load_record(folder), load_record(whole.folder)
    for key in ("settings", "result", "kernels_that_ran", "status", "data"):
        assert one[key] == other[key]
    assert len(one["sessions"]) == 2 and len(other["sessions"]) == 1


def test_interrupted_before_the_first_checkpoint(quick, tmp_path, ctrl_c_in_step):
    interrupt_in_step(ctrl_c_in_step, quick, 2)
    assert load_state(tmp_path / "run") is None
    assert weights(quick(resume=True).folder) == weights(quick().folder)


def test_interrupted_while_the_pictures_are_drawn(quick, tmp_path, monkeypatch):
    def ctrl_c(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_module.pictures, "contact_sheet", ctrl_c)
        with pytest.raises(Interrupted, match="--resume"):
            quick()
    assert load_record(tmp_path / "run")["status"] == "running"
    assert weights(quick(resume=True).folder) == weights(quick().folder)


def test_the_command_survives_a_blank_in_the_path(quick, tmp_path, ctrl_c_in_step):
    out = tmp_path / "my runs" / "it's one"
    message = interrupt_in_step(ctrl_c_in_step, quick, 2, out=out)
    assert shlex.split(message.split("go on with: ")[1]) == [
        "hw4fast", "train", "digits", "--resume", "--out", str(out),
    ]  # fmt: skip


def test_killed_between_metrics_and_checkpoint(quick, tmp_path, monkeypatch):
    def killed(*_):
        raise SystemExit

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(train_module.runs, "save_file", killed)
        with pytest.raises(SystemExit):
            quick(epochs=1)
    assert quick(resume=True, epochs=1).folder == folder
    assert epochs_in_metrics(folder) == [1]


# -- what may differ ---------------------------------------------------------------------------------------------


def test_more_epochs_go_on(quick, tiny):
    short = quick(epochs=2)
    assert weights(quick(resume=True, epochs=5).folder) == weights(quick(epochs=5).folder)
    assert epochs_in_metrics(short.folder) == [1, 2, 3, 4, 5]
    assert load_record(short.folder)["settings"]["epochs"] == 5


def test_the_default_number_of_epochs_can_be_asked_for(quick, tmp_path):
    quick(epochs=2)
    assert train({"epochs": Settings.epochs}, tmp_path / "run", resume=True, progress=False).settings.epochs == 10
    assert epochs_in_metrics(tmp_path / "run") == list(range(1, 11))


def test_a_finished_run_gives_the_same_result_again(quick):
    first = quick()
    before = weights(first.folder)
    again = quick(resume=True)
    assert (again.correct, again.n, again.cost, again.seconds) == (first.correct, first.n, first.cost, first.seconds)
    assert again.settings == first.settings
    steps, blocks, tests = 10, 2, 2
    calls = {"softmax_xent": steps, "conv_block": blocks * (steps + tests), "conv_block_backward": blocks * steps}
    assert again.kernels == first.kernels == {name: {kernels.chosen_isa(): n} for name, n in calls.items()}
    assert weights(first.folder) == before and load_record(first.folder)["status"] == "finished"


def test_nothing_said_is_what_it_was_begun_with(quick, tmp_path):
    begun = quick(momentum=0.5, seed=3, batch_norm=True).settings
    assert train(None, tmp_path / "run", resume=True, progress=False).settings == begun
    same = {"seed": 3, "lr": 0.1, "channels": NARROW["channels"]}
    assert train(same, tmp_path / "run", resume=True, progress=False).settings == begun


@pytest.mark.parametrize(
    "said",
    [
        {"seed": 1},
        {"seed": Settings.seed},  # a default that is said out loud is said, too
        {"batch_size": Settings.batch_size},
        {"lr": 0.2},
        {"optimizer": "adam"},
        {"channels": (2, 4)},
        {"dropout": 0.0},
        {"batch_norm": True},
        {"kernels": "torch"},
        {"dataset": "mnist"},
    ],
    ids=str,
)
def test_what_contradicts_the_run_is_refused(said, quick, tmp_path):
    quick(seed=5)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")}
    (name,) = said
    with pytest.raises(UsageError, match=f"was begun with {name} = "):
        train(said, tmp_path / "run", resume=True, progress=False)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")} == before


def test_it_may_go_on_with_other_threads(quick, tmp_path):
    quick()
    before = load_record(tmp_path / "run")
    train({"epochs": 3, "threads": 2}, tmp_path / "run", resume=True, progress=False)
    entry = load_record(tmp_path / "run")
    assert [session["threads"] for session in entry["sessions"]] == [1, 2]
    assert entry["settings"] == before["settings"] | {"epochs": 3, "threads": 2}


def test_fewer_epochs_than_done_are_refused(quick, tmp_path):
    quick(epochs=3)
    with pytest.raises(UsageError, match="has done 3 epochs already"):
        quick(resume=True, epochs=2)
    assert load_record(tmp_path / "run")["settings"]["epochs"] == 3


def test_other_data_are_refused(quick, tiny, tmp_path, monkeypatch):
    quick()
    changed = other_data(tiny)
    monkeypatch.setattr(datasets, "load", lambda *_: changed)
    with pytest.raises(UserError, match="no longer what"):
        quick(resume=True, epochs=9)
    assert load_record(tmp_path / "run")["settings"]["epochs"] == 2


def test_a_run_that_goes_on_is_not_finished(quick, tiny, tmp_path, ctrl_c_in_step):
    quick(epochs=1)
    load_model(tmp_path / "run", tiny)
    interrupt_in_step(ctrl_c_in_step, quick, 2, resume=True, epochs=3)
    with pytest.raises(UserError, match=r"not finished; go on with: hw4fast train digits --resume --out "):
        load_model(tmp_path / "run", tiny)


# -- what is not there, or broken --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nothing", "folder", "file"])
def test_no_run(kind, quick, tmp_path):
    if kind == "folder":
        (tmp_path / "run").mkdir()
    if kind == "file":
        (tmp_path / "run").write_text("not a run")
    with pytest.raises(UserError, match=r"is no run folder \(it has no run.json\); `hw4fast train` makes one"):
        quick(resume=True)


BROKEN_RECORDS = {
    "empty": "",
    "cut": '{"settings": {"epo',
    "list": "[1, 2]",
    "no-settings": '{"data": {"name": "digits", "fingerprint": "0"}}',
    "settings-is-a-text": '{"settings": "all", "data": {"name": "digits", "fingerprint": "0"}}',
    "not-utf8": b"\xff\xfe{}",
    "no-data": None,
    "epochs-is-a-text": {"epochs": "six"},
    "epochs-is-true": {"epochs": True},
    "channels-is-a-number": {"channels": 5},
    "channels-are-texts": {"channels": ["a", "b"]},
    "lr-is-a-text": {"lr": "fast"},
}


@pytest.mark.parametrize("name", BROKEN_RECORDS)
def test_a_damaged_record(name, quick, tmp_path):
    path, content = quick().folder / "run.json", BROKEN_RECORDS[name]
    record = json.loads(path.read_text(encoding="utf-8"))
    if content is None:
        del record["data"]
    elif isinstance(content, dict):
        record["settings"].update(content)
    if isinstance(content, str | bytes):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    else:
        path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        train(None, tmp_path / "run", resume=True, progress=False)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def forget_metadata(path):
    save_file(load_file(path), path)


def change(**edits):
    """Takes tensors whose name ends in the key out (None), or cuts them."""

    def edit(path):
        state = load_state(path.parent)
        tensors = load_file(path)
        for name in list(tensors):
            if name.endswith(edits["ends"]):
                tensor = tensors.pop(name)
                if edits["cut"]:
                    tensors[name] = tensor[:1].clone()
        history = json.dumps([vars(epoch) for epoch in state.history])
        save_file(tensors, path, {"history": history, "kernels": "{}"})

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        forget_metadata,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 64),
        change(ends="conv1.weight", cut=False),
        change(ends="conv1.weight", cut=True),
        change(ends="0/momentum_buffer", cut=False),
        change(ends="0/momentum_buffer", cut=True),
    ],
    ids=["truncated", "metadata", "empty", "noise", "weight-missing", "weight-cut", "momentum-missing", "momentum-cut"],
)
def test_a_damaged_checkpoint(damage, quick):
    damage(quick(momentum=0.9).folder / "checkpoint.safetensors")
    with pytest.raises(UserError, match=r"checkpoint\.safetensors is damaged \(.*\); start the run again") as caught:
        quick(momentum=0.9, resume=True, epochs=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [truncate, lambda path: path.write_bytes(b""), change(ends="conv1.bias", cut=False)])
def test_damaged_weights(damage, quick, tiny):
    folder = quick().folder
    damage(folder / "weights.safetensors")
    with pytest.raises(UserError, match=r"weights\.safetensors is damaged"):
        load_model(folder, tiny)


def test_a_run_that_went_on_takes_its_old_export_away(quick, tmp_path):
    """`classify` and `study` would answer with the weights of before."""
    from hw4fast.exporter import export

    folder = quick(epochs=1).folder
    assert export(folder).path == folder / "model.onnx"
    quick(epochs=1, resume=True)
    assert (folder / "model.onnx").exists()  # the same weights
    quick(epochs=2, resume=True)
    assert not (folder / "model.onnx").exists()


def test_a_session_on_other_threads_is_told(quick, capsys):
    folder = quick(epochs=1).folder
    record = load_record(folder)
    record["sessions"][-1]["threads"] += 1
    write_json(folder / "run.json", record)
    capsys.readouterr()
    train({"epochs": 2}, folder, resume=True)
    assert "threads changed since this run's last session" in capsys.readouterr().err


def test_runs_that_begin_at_once_get_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda number: new_folder(tmp_path / "runs" / "a", {"number": number}), range(24)))
    assert len(set(folders)) == 24
    found = {json.loads((folder / "run.json").read_text(encoding="utf-8"))["number"] for folder in folders}
    assert found == set(range(24)) and len(list((tmp_path / "runs").iterdir())) == 24


def test_a_run_that_another_process_trains_is_left_alone(quick, tmp_path):
    folder = quick(epochs=1).folder
    with alone(folder, "training"), pytest.raises(UserError, match="another process is training"):
        train({"epochs": 2}, folder, resume=True, progress=False)
    assert train({"epochs": 2}, folder, resume=True, progress=False).settings.epochs == 2


def test_an_empty_folder_is_taken_and_a_full_one_is_told(quick, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    assert quick(epochs=1).folder == tmp_path / "run"
    other = train(replace(Settings(), **{**NARROW, "epochs": 1}), tmp_path / "run").folder
    assert other == tmp_path / "run-2"
    assert f"{tmp_path / 'run'} is there already; this run goes to {other}" in capsys.readouterr().err


def test_a_net_too_large_for_the_memory_leaves_nothing(tmp_path, monkeypatch):
    def too_large(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(train_module.runs, "build_model", too_large)
    with pytest.raises(UserError, match="not enough memory"):
        train(out=tmp_path / "run", progress=False)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_last_checkpoint(quick, monkeypatch, tmp_path):
    folder = quick(epochs=1).folder
    before = (folder / "checkpoint.safetensors").read_bytes()

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(train_module.runs, "save_file", full)
        with pytest.raises(UserError, match="No space left on device"):
            train({"epochs": 2}, folder, resume=True, progress=False)
    assert (folder / "checkpoint.safetensors").read_bytes() == before
    assert train({"epochs": 2}, folder, resume=True, progress=False).settings.epochs == 2
