"""softmax_xent beside torch, torch.compile and numba, one group per shape."""

import candidates
import pytest


def names():
    for shape in candidates.card.BENCHMARK_SHAPES:
        for name in (
            "hw4fast",
            "torch",
            "torch.compile",
            "numba",
            *(f"kernel {isa}" for isa in candidates.kernels.isas()),
        ):
            yield pytest.param(shape, name, marks=pytest.mark.benchmark(group=f"softmax_xent {shape[0]}×{shape[1]}"))


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.mark.parametrize(("shape", "name"), names())
def test_softmax_xent(shape, name, made, benchmark):
    if shape not in made:
        made.clear()
        made[shape] = candidates.softmax_xent(shape, everything=True)  # checks every candidate's gradient
    benchmark(made[shape][name])
