"""info: everything by trying it, nothing missing is an error, no torch."""

from __future__ import annotations

import platform
import re

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


H100 = {"name": "NVIDIA H100", "capability": 90, "memory": 80 << 30, "multiprocessors": 132}


class Cuda:
    """A hw4fast._cuda of some machine."""

    architectures = "80 90a"

    def __init__(self, driver=13000, gpus=(H100,), error=""):
        self.driver, self.gpus, self.error = driver, list(gpus), error

    def versions(self):
        return self.driver, 13000

    def devices(self):
        if self.error:
            raise RuntimeError(self.error)
        return self.gpus


@pytest.mark.parametrize(
    ("cuda", "told"),
    [
        (Cuda(), "runs; built with CUDA 13.0 for compute capability 80, 90a; the driver knows CUDA 13.0"),
        (Cuda(driver=0), "no NVIDIA driver here"),
        (Cuda(driver=12040), "the NVIDIA driver knows CUDA 12.4, .* built with 13.0: install a newer driver"),
        (Cuda(error="CUDA says cudaErrorNoDevice"), "no GPU can be used: CUDA says cudaErrorNoDevice"),
        (Cuda(gpus=[H100 | {"name": "old", "capability": 75}]), r"capability 8.0 and newer; GPUs: old \(7.5\)"),
    ],
)
def test_what_the_cuda_kernels_find(cuda, told, monkeypatch):
    monkeypatch.setattr(kernels, "compiled_cuda", lambda: cuda)
    found = info()
    assert re.search(told, found.cuda)
    runs = told.startswith("runs")
    assert found.gpus == ["NVIDIA H100, compute capability 9.0, 80 GiB, 132 multiprocessors"] * runs
    assert (kernels.cuda_error() is None) == runs


def test_cuda_kernels_that_were_not_built(monkeypatch):
    def missing():
        raise UserError("hw4fast's CUDA kernels were not built: install")

    monkeypatch.setattr(kernels, "compiled_cuda", missing)
    assert info().cuda.endswith("kernels were not built: install") and info().gpus == [] and kernels.cuda_calls() == {}


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
