"""What the kernels' tests share: how far a result is from the reference, and which variant ran."""

import numpy as np

from hw4fast import kernels


def error(values, reference):
    return float(np.max(np.abs(values.astype(np.float64) - reference), initial=0.0))


def calls_during(kernel, call):
    """{instruction set: calls of `kernel` that call() made}"""
    before = kernels.calls()[kernel]
    call()
    after = kernels.calls()[kernel]
    return {isa: after[isa] - before[isa] for isa in after}
