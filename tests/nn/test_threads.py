"""One pool for torch and for us: our kernels start no threads beside torch's, and use no more than they are told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TASKS = Path("/proc/self/task")
CODE = """
import os, sys, torch
import hw4fast.nn as hn
from hw4fast import kernels
from hw4fast.kernels.resize import resize
from hw4fast.kernels.sample import warp
from hw4fast.transforms import TRANSFORMS
torch.set_num_threads(int(sys.argv[1]))
a = torch.rand(512, 512)
x, w = torch.rand(32, 16, 14, 14), torch.rand(32, 16, 5, 5)
torch.relu(torch.nn.functional.conv2d(x, w) @ torch.rand(10, 10)).sum()  # torch's pool is up
a @ a
tasks = lambda: set(os.listdir("/proc/self/task"))
before = tasks()
for _ in range(3):
    for pool in (True, False):
        block = hn.conv_block(x.requires_grad_(), w.requires_grad_(), padding=2, pool=pool)
        block.sum().backward()
    hn.conv_block(x, torch.rand(16, 1, 3, 3), groups=16).sum().backward()
    hn.BatchNormBlock(16)(x).sum().backward()
    logits = torch.rand(4096, 1000, requires_grad=True)
    hn.softmax_cross_entropy(logits, torch.zeros(4096, dtype=torch.int64)).backward()
    hn.binary_cross_entropy_with_logits(logits, torch.rand(4096, 1000)).backward()
    hn.gaussian_blur(torch.rand(8, 3, 224, 224), 51)
    picture = torch.zeros(500, 400, 3, dtype=torch.uint8).numpy()
    resize(picture, (224, 224), threads=int(sys.argv[1]))
    warp(picture, torch.eye(3, dtype=torch.float64).numpy(), threads=int(sys.argv[1]))
    for name in TRANSFORMS:
        if not TRANSFORMS.get(name).reads:
            TRANSFORMS.get(name)(picture)
assert all(sum(counts.values()) for counts in kernels.calls().values()), kernels.calls()
print(len(before), len(tasks() - before))
"""


@pytest.mark.skipif(not TASKS.exists(), reason="needs /proc/self/task to count threads")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_no_kernel_starts_threads_beside_torchs(threads):
    environment = {name: value for name, value in os.environ.items() if name != "HW4FAST_THREADS"}
    run = subprocess.run(
        [sys.executable, "-c", CODE, str(threads)], capture_output=True, text=True, check=True, env=environment
    )
    there, new = map(int, run.stdout.split())
    assert there >= threads and new == 0  # torch's pool was up, or ours would have had to start its threads
