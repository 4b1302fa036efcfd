"""batch_norm_block's CUDA kernels, run by the emulator, against the float64 reference: forward and backward."""

import importlib

import numpy as np
import pytest
import torch

from hw4fast.kernels import batch_norm_block as card
from hw4fast.nn import batch_norm_block_cuda
from tests.emulated.faces import emulated  # noqa: F401

block = importlib.import_module("hw4fast.nn.batch_norm_block")  # the package's name is the function's

CASES = [case for case in card.cases() if np.prod(case.shape) < 60000]
CASES += [  # fours of channels: more than a block is wide, odd sides, those of a pool's last row left out
    card.Case("fours", (3, 140, 5, 7)),
    card.Case("fours without a pool", (2, 12, 9, 31), relu=False, pool=False),
    card.Case("fours as NCHW", (2, 12, 9, 31), channels_last=False),
    card.Case("several shares", (40, 8, 26, 27)),
]
NEAR = {torch.float32: 2e-6, torch.float64: 1e-12, torch.bfloat16: 4e-3, torch.float16: 5e-4}


def close(found, expected, bound, name):
    """To `bound` of the whole and a hundredfold of it of each number's own size and the largest."""
    found, expected = found.double().numpy(), np.asarray(expected)
    assert np.isfinite(found).all() or not np.isfinite(expected).all(), name
    assert np.linalg.norm(found - expected) <= bound * np.linalg.norm(expected) + 1e-30, name


def run(case, dtype):
    """Forward and backward; what comes out, and what the reference says of the same rounded inputs."""
    x, weight, bias, options = case.make(np.float64)
    accurate = torch.float64 if dtype is torch.float64 else torch.float32
    x = torch.from_numpy(x).to(dtype)
    weight, bias = torch.from_numpy(weight).to(accurate), torch.from_numpy(bias).to(accurate)
    given = [
        None if (t := options.pop(name, None)) is None else torch.from_numpy(t).to(accurate) for name in ("mean", "var")
    ]
    eps, relu, pool = options["eps"], options["relu"], options["pool"]
    training = given[0] is None
    output, code, *used = block._outputs(x, weight, *given, pool, True)
    for tensor in (output, *(used if training else ())):
        tensor.fill_(torch.nan)
    code.fill_(77)
    batch_norm_block_cuda.forward(x, weight, bias, training, eps, relu, pool, output, code, tuple(used))
    exact = [t if t is None else t.double().numpy() for t in (x, weight, bias, *given)]
    expected = card.reference(*exact, eps=eps, relu=relu, pool=pool)

    n, c, rows, cols = output.shape
    generator = torch.Generator().manual_seed(1)
    if case.channels_last:  # as the next layer's input's gradient lies
        grad = torch.randn((n, rows, cols, c), dtype=torch.float64, generator=generator).permute(0, 3, 1, 2)
    else:
        grad = torch.randn(output.shape, dtype=torch.float64, generator=generator)
    grad = grad.to(dtype)
    statistics = [t.double().numpy() for t in used]
    wanted = card.reference_backward(
        grad.double().numpy(), code.numpy(), exact[0], exact[1], *statistics, training, eps, pool
    )
    gradients = block._gradients(x, weight, (True,) * 3)
    for gradient in gradients:
        gradient.fill_(torch.nan)
    codes = code if relu or pool else None
    made = batch_norm_block_cuda.gradients_of(
        grad, codes, x, weight, *used, training, eps, pool, gradients, (True,) * 3
    )
    return (output, code, *used), expected, made, wanted


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case(emulated, case, dtype):  # noqa: F811
    if case.offset and dtype in (torch.bfloat16, torch.float16):
        pytest.skip("such numbers have no digits left for a deviation")
    (output, code, mean, var), expected, made, wanted = run(case, dtype)
    bound = NEAR[dtype]
    far = max(1.0, abs(case.offset) / 100)  # what of a float's digits the mean takes
    close(output, expected[0], bound * far, "output")
    differs = code.numpy() != expected[1]  # where two of the four are nearly equal, or one nearly zero
    assert differs.sum() <= differs.size * (0.02 if bound > 1e-5 else 2e-4 * far)
    exactly = 1e-7 if mean.dtype is torch.float32 else 1e-14
    np.testing.assert_allclose(mean.double().numpy(), expected[2], rtol=exactly, atol=2 * exactly)
    np.testing.assert_allclose(var.double().numpy(), expected[3], rtol=10 * exactly, atol=0)
    for name, found, reference in zip(("input", "weight", "bias"), made, wanted, strict=True):
        close(found, reference, bound, name)


@pytest.mark.parametrize("want", [(True, False, False), (False, True, False), (False, False, True)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_only_what_is_wanted_is_written(emulated, training, want):  # noqa: F811
    x, weight, grad = torch.randn(4, 8, 5, 6), torch.randn(8), torch.randn(4, 8, 2, 3)
    code = torch.randint(0, 5, (4, 2, 3, 8), dtype=torch.uint8)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    wanted = card.reference_backward(*(t.numpy() for t in (grad, code, x, weight, mean, var)), training)
    gradients = block._gradients(x, weight, (True,) * 3)
    for gradient in gradients:
        gradient.fill_(7)
    made = batch_norm_block_cuda.gradients_of(grad, code, x, weight, mean, var, training, 1e-5, True, gradients, want)
    for found, reference, is_wanted in zip(made, wanted, want, strict=True):
        if is_wanted:
            close(found, reference, 2e-6, str(want))
        else:
            assert (found == 7).all()


@pytest.mark.parametrize("shape", [(5, 8, 6, 6), (5, 7, 6, 6)], ids=str)
def test_a_gradient_of_any_strides(emulated, shape):  # noqa: F811
    x, weight, (n, c, h, w) = torch.randn(shape).to(memory_format=torch.channels_last), torch.randn(shape[1]), shape
    code = torch.randint(0, 5, (n, h // 2, w // 2, c), dtype=torch.uint8)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    whole = torch.randn(n, c, h // 2, w // 2)
    for grad in (whole, whole.to(memory_format=torch.channels_last), whole[:1, :, :1, :1].expand_as(whole)):
        for codes in (code, torch.cat([code.new_zeros(1), code.flatten()])[1:].view(code.shape)):  # at an odd address
            wanted = card.reference_backward(*(t.numpy() for t in (grad, codes, x, weight, mean, var)))
            gradients = block._gradients(x, weight, (True,) * 3)
            made = batch_norm_block_cuda.gradients_of(
                grad, codes, x, weight, mean, var, True, 1e-5, True, gradients, (True,) * 3
            )
            for found, reference in zip(made, wanted, strict=True):
                close(found, reference, 2e-6, "any strides")


def test_a_channel_that_is_constant_but_for_the_corners(emulated):  # noqa: F811
    x = torch.full((20, 4, 28, 28), 1.0).to(memory_format=torch.channels_last)
    x[:, :, 0, 0] = 3.0  # the origin of the sums, too
    x[:, 1] += 100
    weight, bias = torch.ones(4), torch.zeros(4)
    output, code, *used = block._outputs(x, weight, None, None, True, True)
    batch_norm_block_cuda.forward(x, weight, bias, True, 1e-5, True, True, output, code, tuple(used))
    expected, _, mean, var = card.reference(*(t.double().numpy() for t in (x, weight, bias)))
    np.testing.assert_allclose(used[0], mean, rtol=1e-7)
    np.testing.assert_allclose(used[1], var, rtol=1e-7)
    close(output, expected, 2e-6, "output")


def test_halves_may_have_parameters_of_halves(emulated):  # noqa: F811
    x = (torch.randn(4, 8, 6, 6) + 30).bfloat16()  # rounding the mean to 8 bits would show in the gradients
    weight, bias = torch.randn(8).bfloat16(), torch.randn(8).bfloat16()
    output, code, *used = block._outputs(x, weight, None, None, True, True)
    batch_norm_block_cuda.forward(x, weight, bias, True, 1e-5, True, True, output, code, tuple(used))
    expected, _, mean, var = card.reference(*(t.double().numpy() for t in (x, weight, bias)))
    assert output.dtype is torch.bfloat16 and {t.dtype for t in used} == {torch.float32}
    close(output, expected, 4e-3, "output"), close(used[0], mean, 1e-6, "mean"), close(used[1], var, 1e-6, "var")
    grad, gradients = torch.randn(output.shape).bfloat16(), block._gradients(x, weight, (True,) * 3)
    made = batch_norm_block_cuda.gradients_of(grad, code, x, weight, *used, True, 1e-5, True, gradients, (True,) * 3)
    assert {t.dtype for t in made} == {torch.bfloat16}
    exact = [t.double().numpy() for t in (grad, code, x, weight, *used)]
    exact[1] = code.numpy()
    for found, reference in zip(made, card.reference_backward(*exact), strict=True):
        close(found, reference, 4e-3, "gradients")


def test_what_is_no_number_stays_one(emulated):  # noqa: F811
    x = torch.randn(2, 4, 4, 4)
    x[1, 2, 3, 3] = torch.nan
    weight, bias = torch.ones(4), torch.zeros(4)
    output, code, *used = block._outputs(x, weight, None, None, True, True)
    batch_norm_block_cuda.forward(x, weight, bias, True, 1e-5, True, True, output, code, tuple(used))
    assert output[:, 2].isnan().all() and not output[:, [0, 1, 3]].isnan().any()
    assert used[0].isnan().tolist() == used[1].isnan().tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("shape", "training", "message"),
    [((1, 3, 1, 1), True, "one value"), ((2, 3, 1, 4), False, "too small"), ((3 << 20, 3, 32, 32), False, "2\\^31")],
)
def test_what_can_not_be_is_an_error(emulated, shape, training, message):  # noqa: F811
    x, some = torch.zeros(64), torch.zeros(64)
    pool = (shape[2] == 1 and shape[3] > 1) or shape[0] > 9
    memory, others = x.data_ptr(), [some.data_ptr()] * 4
    with pytest.raises(ValueError, match=message):
        emulated.batch_norm_block(
            0, memory, (12, 1, 3, 3), *others, training, memory, 0, memory, shape, 1e-5, True, pool, 0
        )
