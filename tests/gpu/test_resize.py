"""resize on a GPU: the CPU's bytes and numbers, in batches, lists, graphs and under compile."""

import numpy as np
import pytest
import torch

from hw4fast import kernels
from hw4fast.kernels import resize as card
from hw4fast.nn import resize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("case", [*card.cases(), *card.BENCHMARK_CASES], ids=lambda case: case.name)
def test_it_is_the_cpus(case):
    picture, options = case.make()
    x = torch.from_numpy(picture)[None]
    before = kernels.cuda_calls()["resize"]
    found = resize(x.cuda(), **options)
    assert kernels.cuda_calls()["resize"] == before + 1
    assert np.array_equal(found[0].cpu().numpy(), card.resize(picture, **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_what_a_net_reads(dtype, interpolation):
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (9, 375, 500, 3), np.uint8))
    options = {"size": (256, 341), "box": (16, 58, 224, 224), "interpolation": interpolation}
    options |= {"mean": MEAN, "std": STD}
    found = resize(x.cuda(), **options, dtype=dtype)
    assert found.dtype is dtype and torch.equal(found.cpu(), resize(x, **options).to(dtype))


def test_pictures_of_several_sizes_and_views():
    rng = np.random.default_rng(1)
    several = [torch.from_numpy(rng.integers(0, 256, (h, w, 3), np.uint8)) for h, w in ((300, 400), (64, 999), (5, 5))]
    on_gpu = [one.cuda() for one in several]
    assert torch.equal(resize(on_gpu, (224, 224)).cpu(), resize(several, (224, 224)))
    for view in (several[0][::2], several[0][:, ::3], several[0].transpose(0, 1), several[0][10:200, 20:300]):
        assert torch.equal(resize([view.cuda()], (50, 60)).cpu(), resize([view], (50, 60)))
    view = on_gpu[0][10:200, 20:300]
    assert torch.equal(resize([view], (50, 60)).cpu(), resize([several[0][10:200, 20:300]], (50, 60)))
    with pytest.raises(ValueError, match="on one device"):
        resize([on_gpu[0], several[1]], (224, 224))


def test_in_a_graph_and_under_compile():
    x = torch.randint(0, 256, (4, 120, 90, 3), dtype=torch.uint8, device="cuda")
    expected = resize(x, (64, 48), mean=MEAN, std=STD)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = resize(x, (64, 48), mean=MEAN, std=STD)
    for side in range(20, 400):
        resize(x, (side, 48), mean=MEAN, std=STD)
    graph.replay()
    assert torch.equal(captured, expected)
    compiled = torch.compile(lambda t: resize(t, (64, 48), mean=MEAN, std=STD), fullgraph=True)
    assert torch.equal(compiled(x), expected)
