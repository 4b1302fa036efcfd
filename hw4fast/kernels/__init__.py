"""A card per kernel: contract, float64 reference, variants, test cases, cost. No torch here."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import threading
from pathlib import Path
from types import ModuleType

from hw4fast import record
from hw4fast.errors import UsageError, UserError

ISAS = ("avx512", "avx2", "baseline")  # that kernels are written for (csrc/isa.h)


def compiled() -> ModuleType:
    """The module hw4fast._C. Raises UserError when it was not built."""
    try:
        from hw4fast import _C
    except ImportError as error:
        raise UserError(
            f"the compiled kernels (hw4fast._C) can't be loaded from {Path(__file__).parents[1]}: {error}; in a source"
            " folder build them with `pip install -e .`, or go elsewhere if hw4fast is installed"
        ) from error
    return _C


def compiled_cuda() -> ModuleType:
    """The module hw4fast._cuda, GPU or not. Raises UserError when it was not built."""
    try:
        from hw4fast import _cuda  # type: ignore[attr-defined, unused-ignore]
    except ImportError as error:
        if importlib.util.find_spec("hw4fast._cuda"):
            why = f"can't be loaded: {error}"
        else:
            why = "were not built: install hw4fast from source where nvcc is (CUDA 13's, or pip's nvidia-cuda-nvcc)"
        raise UserError(f"hw4fast's CUDA kernels (hw4fast._cuda) {why}") from error
    return _cuda


def cuda_error() -> str | None:
    """Why hw4fast's CUDA kernels can't run here, and what to do; None when they can."""
    try:
        cuda = compiled_cuda()
    except UserError as error:
        return str(error)
    driver, built_with = cuda.versions()
    if not driver:
        return "there is no NVIDIA driver here: on a machine with an NVIDIA GPU install one, elsewhere use the CPU"
    if driver // 1000 < built_with // 1000:
        return (
            f"the NVIDIA driver knows CUDA {cuda_version(driver)}, hw4fast's kernels are built with"
            f" {cuda_version(built_with)}: install a newer driver"
        )
    try:
        found = cuda.devices()
    except RuntimeError as error:
        return f"no GPU can be used: {error}"
    compiled_for = [int(arch.rstrip("a")) for arch in cuda.architectures.split()]
    if not any(device["capability"] >= min(compiled_for) for device in found):
        names = ", ".join(f"{device['name']} ({device['capability'] / 10})" for device in found) or "none"
        return f"hw4fast's kernels are built for compute capability {min(compiled_for) / 10} and newer; GPUs: {names}"
    return None


def cuda_version(number: int) -> str:
    """13000 as 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"


def cuda_calls() -> dict[str, int]:
    """{kernel: calls in this process so far} of hw4fast._cuda; empty when it was not built."""
    try:
        return compiled_cuda().calls()
    except UserError:
        return {}


def ort_library() -> Path:
    """The shared library that makes onnxruntime run hw4fast's kernels where a file (`export --fused`) names them:

        options = onnxruntime.SessionOptions()
        options.register_custom_ops_library(str(hw4fast.ort_library()))

    float32 and float64 on the CPU, onnxruntime 1.19 or newer, on its own threads. `hw4fast.load` registers it itself.
    Raises UserError when it was not built.
    """
    folder = Path(__file__).parents[1]
    found = sorted(folder.glob("_ort.*"))
    if not found:
        raise UserError(
            f"the library for onnxruntime (hw4fast._ort) is not in {folder}: build it with `pip install -e .`"
        )
    return found[0]


def ort_calls() -> dict[str, int]:
    """{instruction set: convolutions that onnxruntime has run by `ort_library` in this process so far}."""
    count = ctypes.CDLL(str(ort_library())).hw4fast_ort_calls
    count.restype = ctypes.c_int64
    return {name: count(place) for place, name in enumerate(ISAS)}


def rest() -> None:
    """Lets the threads of torch's OpenMP pool go until its next call: they look for work for some milliseconds after
    each of its calls (and of our kernels', where torch is loaded), and take the cores from another pool."""
    compiled().rest()


def isas() -> list[str]:
    """Instruction sets that this processor has and this build carries, best first."""
    return compiled().isas()


def chosen_isa() -> str:
    """What a call runs on: HW4FAST_ISA, else the best. ValueError when HW4FAST_ISA can't be had."""
    return compiled().chosen_isa()


def calls() -> dict[str, dict[str, int]]:
    """{kernel: {instruction set: calls in this process so far}}: what did run, not what should have."""
    return compiled().calls()


def most_threads() -> int:
    """More than these help no one: a pool of ten thousand threads only hinders itself."""
    return max(64, 4 * record.cores())


def check_threads(threads: int, name: str = "threads") -> int:
    """`threads`; UsageError unless it lies in 1 … most_threads()."""
    if not 1 <= threads <= most_threads():
        raise UsageError(f"{name} must lie in 1 … {most_threads()}, not be {threads}; here are {record.cores()} cores")
    return threads


_here = threading.local()


def use_threads(threads: int) -> None:
    """In this thread kernels take so many where a call doesn't say: one of several workers takes one."""
    _here.threads = threads


def threads_by_default() -> int | None:
    """What `use_threads` said in this thread, else HW4FAST_THREADS; None when neither does. Raises UsageError."""
    return getattr(_here, "threads", None) or threads_from_environment()


def threads_from_environment() -> int | None:
    """HW4FAST_THREADS, None when unset. Raises UsageError unless it is a whole number in 1 … most_threads()."""
    text = os.environ.get("HW4FAST_THREADS")
    if not text:
        return None
    if not text.isdecimal():
        raise UsageError(f"HW4FAST_THREADS must be a whole number, not '{text}'")
    return check_threads(int(text), "HW4FAST_THREADS")
