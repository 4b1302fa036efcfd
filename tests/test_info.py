"""info: everything by trying it, nothing missing is an error, no torch."""

from __future__ import annotations

import platform

import pytest

from hw4fast import info as info_module
from hw4fast import kernels
from hw4fast.errors import UserError
from hw4fast.inference.session import PROVIDERS, explain_provider
from hw4fast.info import info


def test_what_this_machine_can_run():
    found = info()
    assert found.isas == kernels.isas() and found.cores >= 1 and found.processor
    assert (
        found.variants == dict.fromkeys(kernels.calls(), f"cpp-{kernels.chosen_isa()}") and found.kernels_error is None
    )
    assert found.providers == {name: explain_provider(name) for name in PROVIDERS}
    assert found.providers["cpu"] is None
    assert found.versions["python"] == platform.python_version() and "torch" in found.versions


def test_a_forced_instruction_set_is_what_is_shown(monkeypatch):
    monkeypatch.setenv("HW4FAST_ISA", "baseline")
    assert info().variants == dict.fromkeys(kernels.calls(), "cpp-baseline")
    assert "softmax_xent" in info().variants
    monkeypatch.setenv("HW4FAST_ISA", "mmx")
    found = info()
    assert found.variants == {} and "mmx" in (found.kernels_error or "") and found.providers["cpu"] is None


def test_threads_that_can_not_be_had_are_said_as_a_forced_instruction_set_is(monkeypatch):
    monkeypatch.setenv("HW4FAST_THREADS", "abc")
    found = info()
    assert found.isas and found.variants == {} and "HW4FAST_THREADS" in (found.kernels_error or "")


def test_kernels_that_were_not_built(monkeypatch):
    def missing():
        raise UserError("hw4fast._C can't be loaded; build them")

    monkeypatch.setattr(kernels, "compiled", missing)
    found = info()
    assert found.isas == [] and found.variants == {} and "can't be loaded" in (found.kernels_error or "")


@pytest.mark.parametrize("name", ["HW4FAST_DATA", "HW4FAST_CACHE"])
def test_folders(name, tmp_path, monkeypatch):
    key = {"HW4FAST_DATA": "HW4FAST_DATA", "HW4FAST_CACHE": "cache"}[name]
    monkeypatch.setenv(name, str(tmp_path / "gone"))
    assert info_module.info().folders[key] == f"{tmp_path / 'gone'} (does not exist)"
    (tmp_path / "gone").mkdir()
    assert info_module.info().folders[key] == f"{tmp_path / 'gone'}: empty"
    (tmp_path / "gone" / "mnist").mkdir()
    (tmp_path / "gone" / "models").mkdir()
    (tmp_path / "gone" / "models" / "net.onnx").write_text("")
    assert info_module.info().folders[key] == f"{tmp_path / 'gone'}: mnist, models; models: net"


def test_no_data_folder(monkeypatch):
    monkeypatch.delenv("HW4FAST_DATA", raising=False)
    assert info().folders["HW4FAST_DATA"] == "not set"
