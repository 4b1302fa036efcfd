"""How torch may call a block: what the tests of each share. A block is a function of (x, weight, bias)."""

import torch


def step(given, function):
    """The block's output and the gradients of Σ output²."""
    y = function(*given)
    # detached: the inputs' nodes of the graph, which remember a stream, end with the call
    return y.detach(), torch.autograd.grad((y * y).sum(), given)


def compare_with_torch(given, ours, theirs, near):
    """near: (relative, absolute) of the output, and of the gradients relative to their largest."""
    (y, gradients), (y_torch, gradients_torch) = step(given, ours), step(given, theirs)
    torch.testing.assert_close(y, y_torch, rtol=near[0][0], atol=near[0][1])
    for found, expected in zip(gradients, gradients_torch, strict=True):
        torch.testing.assert_close(found, expected, rtol=near[1][0], atol=near[1][1] * expected.abs().max().item())


def call_every_way(given, ours):
    """The same bits in a CUDA graph, under torch.compile and on another stream."""
    expected, gradients = step(given, ours)
    compiled = torch.compile(ours, fullgraph=True)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = [step(given, ours), step(given, compiled)]
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(given, ours)
    graph.replay()
    for y, others in (*found, captured):
        assert torch.equal(y, expected)
        for one, other in zip(others, gradients, strict=True):
            assert torch.equal(one, other)
