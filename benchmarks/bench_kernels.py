"""Our kernels beside torch, torch.compile and numba, one group per kernel and case."""

import candidates
import pytest


def parameters():
    for kernel, comparison in candidates.COMPARISONS.items():
        for case in comparison.cases:
            for name in (*comparison.names, *comparison.more):
                mark = pytest.mark.benchmark(group=f"{kernel} {case}")
                yield pytest.param(kernel, case, name, marks=mark, id=f"{kernel}-{case}-{name}")


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.mark.parametrize(("kernel", "case", "name"), parameters())
def test_kernel(kernel, case, name, made, benchmark):
    if (kernel, case) not in made:
        made.clear()
        comparison = candidates.COMPARISONS[kernel]
        made[kernel, case] = comparison.make(comparison.cases[case], everything=True)  # checks every candidate
    if name not in made[kernel, case]:
        pytest.skip(f"there is no {name} for {case}")
    benchmark(made[kernel, case][name])
