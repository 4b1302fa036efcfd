"""conv_block's CUDA kernels, run by the emulator, against the float64 reference: forward and backward, each way."""

import importlib

import numpy as np
import pytest
import torch

from hw4fast.kernels import conv_block as card
from hw4fast.nn import conv_block_cuda
from tests.emulated.faces import emulated  # noqa: F401

conv_block = importlib.import_module("hw4fast.nn.conv_block")  # the package's name is the function's

SMALL = [case for case in card.cases() if np.prod(case.shape) * case.filters[0] * case.filters[1] ** 2 < 3e5]
# tiles of windows, of channels and of pairs, none of which they fill
MORE = [
    card.Case("tiles", (2, 3, 23, 37), (9, 3, 3), padding=(1, 1)),
    card.Case("chunks", (1, 19, 7, 6), (10, 5, 5), padding=(2, 2), channels_last=True),
    card.Case("pairs", (2, 20, 6, 6), (40, 3, 3), padding=(0, 2), pool=False),
    card.Case("fours", (2, 8, 10, 14), (12, 3, 3), padding=(1, 1), channels_last=True),
    card.Case("warps", (3, 20, 9, 8), (40, 5, 5), padding=(2, 2), channels_last=True),
    card.Case("warps without a pool", (2, 9, 6, 7), (20, 5, 5), padding=(2, 2), pool=False),
    card.Case("wide border", (2, 2, 5, 5), (3, 3, 3), padding=(4, 4), relu=False),
]
NEAR = {torch.float32: 2e-6, torch.float64: 1e-13, torch.bfloat16: 5e-3, torch.float16: 1e-3}


def near(found, reference, bound):
    reference = np.asarray(reference)
    size = np.linalg.norm(reference)
    assert np.isfinite(found.double().numpy()).all()
    assert np.linalg.norm(found.double().numpy() - reference) <= bound * size + 1e-30


def check(case, dtype, way):
    input, weight, bias, options = case.make(np.float64)
    x = torch.from_numpy(input).to(dtype)
    w = torch.from_numpy(weight).to(dtype)
    b = None if bias is None else torch.from_numpy(bias).to(dtype)
    exact = [None if t is None else t.double().numpy() for t in (x, w, b)]
    packed = tuple(options[name] for name in ("stride", "padding", "relu", "pool", "groups"))
    shape = card.output_shape(input.shape, weight.shape, options["stride"], options["padding"], options["pool"])
    output, code = conv_block._outputs(x, shape, True)
    output.fill_(torch.nan), code.fill_(77)
    try:
        conv_block_cuda.forward(x, w, b, packed, output, code, way)
    except ValueError as error:
        assert "can't take" in str(error)
        pytest.skip(f"not for the way {way}")
    expected, expected_code = card.reference(*exact, **options)
    near(output, expected, NEAR[dtype])
    differs = code.numpy() != expected_code  # where two of the four are nearly equal
    assert differs.sum() <= differs.size * (0.02 if dtype in (torch.bfloat16, torch.float16) else 1e-4)

    grad = torch.randn(shape, dtype=torch.float64).to(dtype)
    wanted = card.reference_backward(
        grad.double().numpy(), code.numpy(), exact[0], exact[1],
        options["stride"], options["padding"], options["pool"], options["groups"],
    )  # fmt: skip
    gradients = conv_block._gradients(x, w, (True, True, True))
    for gradient in gradients:
        gradient.fill_(torch.nan)
    conv_block_cuda.gradients_of(grad, code, x, w, packed, gradients, (True, True, True), way)
    for found, reference in zip(gradients, wanted, strict=True):
        near(found, reference, NEAR[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_any(emulated, case, dtype):  # noqa: F811
    check(case, dtype, "any")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", [*SMALL, *MORE], ids=lambda case: case.name)
def test_direct(emulated, case, dtype):  # noqa: F811
    check(case, dtype, "direct")


@pytest.mark.parametrize("case", [case for case in [*SMALL, *MORE] if case.channels_last], ids=lambda case: case.name)
def test_best_in_float16(emulated, case):  # noqa: F811
    check(case, torch.float16, "best")


@pytest.mark.parametrize("capability", [75, 86])
@pytest.mark.parametrize(
    "case",
    [
        card.Case("the homework's second", (2, 16, 14, 14), (32, 5, 5), padding=(2, 2), channels_last=True),
        card.Case("tall and narrow", (1, 9, 121, 2), (32, 5, 5), padding=(2, 2)),
    ],
    ids=lambda case: case.name,
)
def test_where_shared_memory_is_small(emulated, monkeypatch, case, capability):  # noqa: F811
    monkeypatch.setenv("HW4FAST_EMULATED_CAPABILITY", str(capability))
    check(case, torch.float32, "direct")
