"""What stands around a captured step's net, run by the emulator, against the tensor code that it stands for."""

import pytest
import torch

from hw4fast.nn.training_step import gather_batch, tally_step
from tests.emulated.faces import emulated  # noqa: F401


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch(emulated, channels):  # noqa: F811
    pictures = torch.randint(0, 256, (11, 5, 4, channels), dtype=torch.uint8)
    labels, order = torch.arange(100, 111), torch.randperm(11)
    mean, std = torch.rand(channels), torch.rand(channels) + 0.1
    for at, size in ((0, 4), (1, 4), (2, 3)):
        x, y = gather_batch(pictures, labels, order, torch.tensor([at]), size, 4, mean, std)
        rows = order[at * 4 : at * 4 + size]
        expected = pictures[rows].to(torch.float32).div_(255).sub_(mean).div_(std).permute(0, 3, 1, 2)
        assert torch.equal(x, expected) and torch.equal(y, labels[rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [3, 100, 1500])
def test_an_account(emulated, size, dtype):  # noqa: F811
    rates, rate = torch.tensor([0.1, 0.2, 0.3]), torch.tensor(0.1)
    at, bad, right, last = (torch.zeros(1, dtype=torch.int64) for _ in range(4))
    cost, expected_right, expected_cost = torch.zeros((), dtype=torch.float64), 0, 0.0
    for step, loss in enumerate((1.5, torch.nan, torch.inf), 1):
        logits, y = torch.randn(size, 10).to(dtype), torch.randint(0, 10, (size,))
        tally_step(logits, y, torch.tensor(loss), rates, rate, at, cost, right, last, bad)
        found = int((logits.argmax(1) == y).sum())
        expected_right += found
        expected_cost += loss * size
        assert (int(at), int(last), int(right)) == (step, found, expected_right)
        assert int(bad) == (0 if step == 1 else 2)
        assert rate == rates[min(step, 2)]
        torch.testing.assert_close(cost.item(), expected_cost, equal_nan=True)
