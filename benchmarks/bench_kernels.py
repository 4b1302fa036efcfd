"""Our kernels beside torch, torch.compile and numba, one group per kernel and case."""

import candidates
import pytest

PARAMETERS = [
    pytest.param(
        kernel, case, name, marks=pytest.mark.benchmark(group=f"{kernel} {case}"), id=f"{kernel}-{case}-{name}"
    )
    for kernel, comparison in candidates.COMPARISONS.items()
    for case in comparison.cases
    for name in (*comparison.names, *comparison.more)
]


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.mark.parametrize(("kernel", "case", "name"), PARAMETERS)
def test_kernel(kernel, case, name, made, benchmark):
    if (kernel, case) not in made:
        made.clear()
        comparison = candidates.COMPARISONS[kernel]
        made[kernel, case] = comparison.make(comparison.cases[case], everything=True)  # checks every candidate
    if name not in made[kernel, case]:
        pytest.skip(f"there is no {name} for {case}")
    benchmark(made[kernel, case][name])
