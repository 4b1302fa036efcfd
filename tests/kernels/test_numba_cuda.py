"""The numba-cuda variants without a GPU: in numba's simulator, and what they say where there is none."""

import os
import subprocess
import sys

import pytest

KERNELS = ("softmax_xent", "bce_with_logits", "gaussian_blur", "resize", "conv_block")


def python(*arguments, **environment):
    """A process of its own, for numba reads NUMBA_ENABLE_CUDASIM when it is imported."""
    inherited = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=inherited | environment)


@pytest.mark.parametrize("kernel", KERNELS)
def test_in_the_simulator_they_match_the_references_and_refuse_bad_input(kernel):
    run = python("-m", "tests.kernels.simulated", kernel, NUMBA_ENABLE_CUDASIM="1")
    assert run.returncode == 0 and run.stdout == "all is well\n", run.stdout + run.stderr


def test_without_gpu_and_simulator_they_say_what_to_do():
    code = (
        "import numpy as np; from hw4fast.errors import UserError; from hw4fast.kernels import numba_cuda as n\n"
        "import sys; assert 'numba' not in sys.modules\n"
        "try: n.bce_with_logits_numba_cuda(np.zeros(3, np.float32), np.zeros(3, np.float32))\n"
        "except UserError as error: print(error)"
    )
    run = python("-c", code, CUDA_VISIBLE_DEVICES="", NUMBA_DISABLE_CUDA="1")
    assert run.returncode == 0, run.stderr
    assert "numba finds no NVIDIA GPU" in run.stdout and "NUMBA_ENABLE_CUDASIM=1" in run.stdout


def test_a_numba_cuda_that_does_not_fit_says_so():
    """Beside NumPy 2.5 numba-cuda's first compilation failed at an import, on a GPU machine."""
    code = (
        "from numba import cuda; cuda.is_available = lambda: True; import importlib\n"
        "from hw4fast.errors import UserError; from hw4fast.kernels import numba_cuda_kernels as gpu\n"
        "def fail(name): raise AttributeError(\"module 'numpy' has no attribute 'row_stack'\")\n"
        "importlib.import_module = fail\n"
        "try: gpu.load()\n"
        "except UserError as error: print(error)"
    )
    run = python("-c", code)
    assert run.returncode == 0, run.stderr
    reason = "module 'numpy' has no attribute 'row_stack'"
    assert run.stdout == f"numba-cuda doesn't fit this numba or NumPy ({reason}): install a newer one\n"
