"""softmax_xent and bce_with_logits on a GPU: every case of their cards, and how torch may call them."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hw4fast import kernels
from hw4fast.kernels import bce_with_logits as bce_card
from hw4fast.kernels import softmax_xent as card
from hw4fast.nn import binary_cross_entropy_with_logits, softmax_cross_entropy

ROUNDING = {torch.float32: 0.0, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def on_gpu(logits, target, options, dtype):
    weight = options.pop("weight", None)
    x = torch.from_numpy(logits).to(dtype)
    w = None if weight is None else torch.from_numpy(weight).to(dtype)
    return x, torch.from_numpy(target), w


def both(function, x, target, weight, options):
    """Loss and gradient on the GPU."""
    x = x.detach().cuda().clone().requires_grad_()
    scale = {} if function is softmax_cross_entropy else {"scale": options.pop("scale", 1.0)}
    given = x * scale["scale"] if scale else x
    loss = function(given, target.cuda(), None if weight is None else weight.cuda(), **options)
    loss.sum().backward()
    return loss.detach().cpu(), x.grad.cpu()


def error(values, reference):
    return float(np.max(np.abs(values.double().numpy() - reference), initial=0.0))


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("case", list(card.cases()), ids=lambda case: case.name)
def test_every_case_is_within_twice_torchs_error(case, dtype):
    logits, target, options = case.make(np.float32)
    x, target_, weight = on_gpu(logits, target, options, dtype)
    loss_ref, grad_ref = card.reference(
        x.double().numpy(), target, None if weight is None else weight.double().numpy(), **options
    )
    if not torch.isfinite(x).all():
        pytest.skip("float16 ends at 65,504")
    before = kernels.cuda_calls()["softmax_xent"]
    loss, grad = both(softmax_cross_entropy, x, target_, weight, dict(options))
    assert kernels.cuda_calls()["softmax_xent"] == before + 1
    loss_torch, grad_torch = both(F.cross_entropy, x, target_, weight, dict(options))
    eps = max(np.finfo(np.float32).eps, ROUNDING[dtype])
    for ours, theirs, reference in ((loss, loss_torch, loss_ref), (grad, grad_torch, grad_ref)):
        largest = float(np.max(np.abs(reference), initial=0.0))
        assert error(ours, reference) <= 2 * error(theirs, reference) + 2 * eps * max(1e-6, largest)


@pytest.mark.parametrize("case", [c for c in card.cases() if c.shape[0] < 38], ids=lambda case: case.name)
def test_float64(case):
    logits, target, options = case.make(np.float64)
    loss_ref, grad_ref = card.reference(logits, target, **options)
    x, target, weight = on_gpu(logits, target, options, torch.float64)
    loss, grad = both(softmax_cross_entropy, x, target, weight, options)
    np.testing.assert_allclose(loss, loss_ref, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(grad, grad_ref, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize(
    "shape",
    # a block, clusters of 2, 4, 8, rows of any length and more than a cluster holds; rows that don't start at 16 bytes
    [
        (300, 4096),
        (70, 12000),  # with static memory more than the 48 kB that a kernel has without asking; in halves the next
        (70, 24000),
        (70, 16384),
        (40, 16411),
        (37, 40001),
        (50, 65536),
        (29, 131072),
        (9, 100003),
        (5, 256000),
        (3, 300001),
    ],
    ids=str,
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_long_rows(shape, dtype, smoothing):
    generator = torch.Generator("cuda").manual_seed(0)
    x = torch.randn(shape, generator=generator, device="cuda").mul_(4).to(dtype).requires_grad_()
    target = torch.randint(0, shape[1], (shape[0],), device="cuda", generator=generator)
    target[::3] = -100
    loss = softmax_cross_entropy(x, target, label_smoothing=smoothing)
    loss.backward()
    y = x.detach().double().requires_grad_()
    F.cross_entropy(y, target, label_smoothing=smoothing).backward()
    near = max(1e-5, 2 * ROUNDING[dtype])
    torch.testing.assert_close(
        loss.double(), F.cross_entropy(y, target, label_smoothing=smoothing).detach(), rtol=near, atol=near
    )
    torch.testing.assert_close(x.grad.double(), y.grad, rtol=near, atol=near * y.grad.abs().max().item())


def test_rows_times_classes_beyond_2_to_the_31():
    free, _ = torch.cuda.mem_get_info()
    if free < 30 << 30:
        pytest.skip("needs 30 GiB of the GPU's memory")
    rows, classes = 36_000, 65_536
    x = torch.zeros((rows, classes), dtype=torch.bfloat16, device="cuda").requires_grad_()
    target = torch.full((rows,), classes - 1, device="cuda")
    loss = softmax_cross_entropy(x, target, reduction="sum")
    loss.backward()
    assert abs(loss.item() / rows / np.log(classes) - 1) < 1e-2
    assert x.grad[-1, -1].item() == pytest.approx(1 / classes - 1, rel=1e-2)
    assert x.grad[-1, :-1].float().mean().item() == pytest.approx(1 / classes, rel=1e-2)


@pytest.mark.parametrize("shape", [(100, 10), (5000, 10), (640, 1000), (16, 70000)], ids=str)
def test_the_same_bits_with_every_call(shape):
    x = torch.randn(shape, device="cuda")
    target = torch.randint(0, shape[1], (shape[0],), device="cuda")
    found = [both(softmax_cross_entropy, x, target, None, {}) for _ in range(3)]
    assert all(torch.equal(loss, found[0][0]) and torch.equal(grad, found[0][1]) for loss, grad in found)


@pytest.mark.parametrize("shape", [(100, 10), (5000, 10), (300, 4099), (16, 70000)], ids=str)
def test_in_a_cuda_graph_and_on_another_stream(shape):
    x = torch.zeros(shape, device="cuda").requires_grad_()
    target = torch.zeros(shape[0], dtype=torch.int64, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            softmax_cross_entropy(x, target).backward()
    torch.cuda.current_stream().wait_stream(stream)
    x.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = softmax_cross_entropy(x, target)
        loss.backward()
    for seed in range(3):
        torch.manual_seed(seed)
        with torch.no_grad():
            x.copy_(torch.randn(shape, device="cuda"))
        target.copy_(torch.randint(0, shape[1], (shape[0],), device="cuda"))
        graph.replay()
        y = x.detach().double().requires_grad_()
        exact = F.cross_entropy(y, target)
        exact.backward()
        torch.testing.assert_close(loss.detach().double(), exact.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(x.grad.double(), y.grad, rtol=1e-5, atol=1e-5 * y.grad.abs().max().item())


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_under_torch_compile_and_with_a_scaled_loss(reduction):
    x = torch.randn(33, 10, device="cuda").requires_grad_()
    target = torch.randint(0, 10, (33,), device="cuda")

    def step(x):
        return (softmax_cross_entropy(x * 2, target, reduction=reduction) * 3).sum()

    found = []
    for function in (step, torch.compile(step, fullgraph=True)):
        x.grad = None
        loss = function(x)
        loss.backward()
        found.append((loss.detach(), x.grad))
    y = x.detach().clone().requires_grad_()
    (F.cross_entropy(y * 2, target, reduction=reduction) * 3).sum().backward()
    for loss, grad in found:
        torch.testing.assert_close(loss, found[0][0])
        torch.testing.assert_close(grad, y.grad, rtol=1e-5, atol=1e-6)


def test_autocast_gives_float32():
    x = torch.randn(8, 10, device="cuda", dtype=torch.bfloat16)
    with torch.autocast("cuda", torch.bfloat16):
        assert softmax_cross_entropy(x, torch.zeros(8, dtype=torch.int64, device="cuda")).dtype is torch.float32


def test_tensors_on_two_devices_are_an_error():
    with pytest.raises(ValueError, match="one device"):
        softmax_cross_entropy(torch.zeros(2, 3, device="cuda"), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(TypeError, match="int32"):
        softmax_cross_entropy(torch.zeros(2, 3, device="cuda"), torch.zeros(2, dtype=torch.int32, device="cuda"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("case", list(bce_card.cases()), ids=lambda case: case.name)
def test_every_case_of_bce_with_logits(case, dtype):
    logits, target, options = case.make(dtype)
    loss_ref, grad_ref = bce_card.reference(logits, target, **options)
    given = {name: torch.from_numpy(v).cuda() if hasattr(v, "shape") else v for name, v in options.items()}
    x = torch.from_numpy(logits).cuda().requires_grad_()
    loss = binary_cross_entropy_with_logits(x, torch.from_numpy(target).cuda(), **given)
    loss.sum().backward()
    near = 3e-6 if dtype is np.float32 else 1e-12
    np.testing.assert_allclose(loss.detach().cpu(), loss_ref, rtol=near, atol=near)
    np.testing.assert_allclose(
        x.grad.cpu(), grad_ref, rtol=near, atol=near * float(np.max(np.abs(grad_ref), initial=0.0))
    )
