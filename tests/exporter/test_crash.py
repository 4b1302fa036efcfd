"""A net on which onnxruntime crashes."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from hw4fast.errors import UserError
from hw4fast.exporter import export
from hw4fast.inference import checked


@pytest.mark.parametrize("kind, flags", [("float16", {"fp16": True}), ("int8", {"int8": True})])
def test_a_net_on_which_onnxruntime_crashes_is_refused(kind, flags, small_run, tmp_path, monkeypatch):
    """As it does on vit_b_16 in float16: in the process that tries the file, and not in ours."""

    def crashes(command, **options):
        return subprocess.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"], **options)

    stand_in = SimpleNamespace(run=crashes, TimeoutExpired=subprocess.TimeoutExpired, DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr(checked, "subprocess", stand_in)
    words = f"onnxruntime crashes on the net in {kind} .SIGSEGV., so it can't be checked, and no file was written"
    with pytest.raises(UserError, match=words):
        export(small_run, tmp_path / "other.onnx", **flags)
    assert list(tmp_path.iterdir()) == []
