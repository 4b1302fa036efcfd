"""tools/cuda_check.py: a note that a file has no faults holds for what was compiled then, and for nothing else."""

import sys

from tools import cuda_check


def test_a_note_is_of_all_that_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    texts = {
        "a.cu": '#include "b.cuh"\n#include <b>\n',
        "b.cuh": '#pragma once\n#include "c.cuh"\n',
        "c.cuh": "int c;\n",
    }
    for name, text in {**texts, "d.cuh": "int d;\n"}.items():
        (tmp_path / name).write_text(text)
    source, command = tmp_path / "a.cu", [sys.executable, "-O3", "-I/somewhere"]
    assert {path.name for path in cuda_check.sources_of(source)} == set(texts)

    note = cuda_check._note(source, command)
    assert note == cuda_check._note(source, [*command[:2], "-I/elsewhere"])
    assert note != cuda_check._note(source, [command[0], "-O1"])
    for name, text in texts.items():
        (tmp_path / name).write_text(text + "// changed\n")
        assert note != cuda_check._note(source, command), name
        (tmp_path / name).write_text(text)
    (tmp_path / "d.cuh").write_text("int e;\n")  # which it does not read
    assert note == cuda_check._note(source, command)


def test_without_a_virtual_environment_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert cuda_check._note(tmp_path / "a.cu", [sys.executable]) is None


def test_what_spills_is_a_fault_but_for_cold_kernels():
    told = (
        "ptxas info : Compiling entry function '{}' for 'sm_90a'\n    {} bytes stack frame, {} bytes spill stores, 0\n"
        "ptxas info : Used 64 registers, {} bytes smem\n"
    )
    assert cuda_check.spills(told.format("hot", 0, 32, 512), "x.cu") == []
    assert len(cuda_check.spills(told.format("hot", 40, 56, 512), "x.cu")) == 1
    assert len(cuda_check.spills(told.format("hot", 0, 0, 20_000), "x.cu")) == 1
    assert cuda_check.spills(told.format("conv_any_forward", 40, 56, 512), "x.cu") == []
