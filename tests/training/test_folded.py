"""Batch normalisation folded into convolutions: known again, and undone without a change of what the net answers."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from hw4fast.training.models.folded import is_folded, unfold

NETS = ("shufflenet_v2_x1_0", "mobilenet_v3_small")


def trained(name):
    """A net with statistics and coefficients as if it had been trained."""
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, weights=None)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    net.train()
    for _ in range(30):
        net(pictures(8))
    return net.eval()


def pictures(n):
    return torch.randn(n, 3, 64, 64) * 0.7 + 0.3


def fold(net):
    """The same function with means 0 and variances 1, as a net that came by way of ONNX has them."""
    net = copy.deepcopy(net)
    layers = list(net.modules())
    for conv, norm in pairwise(layers):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            weight, bias = fuse_conv_bn_weights(
                conv.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            conv.weight = weight
            nn.init.constant_(norm.weight, (1 + norm.eps) ** 0.5)
            norm.bias = bias
            norm.reset_running_stats()
    return net


@pytest.mark.parametrize("name", NETS)
def test_the_answers_stay_and_training_normalises_as_evaluation_does(name):
    whole = trained(name)
    folded = fold(whole)
    assert is_folded(folded) and not is_folded(whole)
    x, probe = pictures(64), pictures(16)
    before = folded(probe).detach()
    torch.testing.assert_close(before, whole(probe), rtol=1e-3, atol=1e-4)

    def drift(net):
        """How far training mode is from evaluation mode, in standard deviations of the logits."""
        net = copy.deepcopy(net)
        for layer in net.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        answers = net.eval()(x).detach()
        return float((net.train()(x).detach() - answers).std() / answers.std())

    far = drift(folded)
    unfold(folded, x.split(24))
    assert not is_folded(folded) and not folded.training
    torch.testing.assert_close(folded(probe), before, rtol=1e-3, atol=1e-4)
    assert far > 0.3 and drift(folded) < 0.05
    first, stem = (next(m for m in folded.modules() if isinstance(m, kind)) for kind in (nn.BatchNorm2d, nn.Conv2d))
    read = stem(x).detach().double()
    torch.testing.assert_close(first.running_mean.double(), read.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.running_var.double(), read.var((0, 2, 3), correction=0), rtol=1e-4, atol=1e-5)


def test_a_channel_that_is_always_the_same_stays_finite():
    net = nn.Sequential(nn.BatchNorm2d(2))
    x = torch.stack([torch.full((4, 5, 5), 3.0), torch.randn(4, 5, 5)], 1)
    before = net.eval()(x).detach()
    unfold(net, [x])
    torch.testing.assert_close(net.eval()(x), before, rtol=1e-4, atol=1e-4)
    assert torch.isfinite(net.train()(x)).all() and float(net[0].running_var[0].detach()) < 1e-6


def test_nets_without_batch_normalisation_are_not_folded():
    assert not is_folded(torchvision.models.get_model("squeezenet1_1", weights=None))
    assert not is_folded(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)))
    assert not is_folded(nn.Sequential(nn.BatchNorm2d(3, affine=False)))


def test_a_net_that_was_never_trained_is_left_alone():
    assert not is_folded(torchvision.models.get_model("mobilenet_v3_small", weights=None))


class Detour(nn.Module):
    """A net with a layer that its evaluation doesn't come by, as the auxiliary losses of some nets are."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.BatchNorm2d(2), nn.BatchNorm2d(2)

    def forward(self, x):
        return self.used(x)


def test_a_layer_that_the_net_does_not_come_by_is_left_alone():
    net = Detour()
    unfold(net, [pictures(4)[:, :2]])
    assert (
        torch.equal(net.unused.running_var, torch.ones(2)) and float((net.used.running_var - 0.49).abs().max()) < 0.05
    )
