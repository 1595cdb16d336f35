"""Normalisation folded into convolutions: the same answers, and hands off what is shared or read by others."""

import pytest
import torch
from torch import nn

from ubhpd.baselines import fsanet, ssrnet_md
from ubhpd.nn.resnets import resnet
from ubhpd.nn.tracing import fused


def trained_a_little(network, inputs):
    """The network with statistics, scales and shifts that are not those of the start."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(inputs)
    return network.eval()


def norms(network):
    return sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())


@pytest.mark.parametrize("scoring", ["1x1", "fusion"])
def test_fsanet_answers_the_same_without_a_normalisation(scoring):
    torch.manual_seed(0)
    inputs = torch.rand(8, 3, 32, 32) * 255
    network = trained_a_little(fsanet.Network(fsanet.Config(size=32, scoring=scoring)), inputs)
    quick = fused(network, inputs[:1])
    with torch.no_grad():
        found, wanted = quick(inputs), network(inputs)
    assert norms(quick) == 0 and norms(network) == 14 * len(network.members)
    for name in network.members:
        torch.testing.assert_close(found[f"{name}/places"], wanted[f"{name}/places"], rtol=1e-3, atol=1e-4)


def test_ssrnet_answers_the_same():
    torch.manual_seed(0)
    inputs = torch.rand(8, 3, 32, 32) * 255
    network = trained_a_little(ssrnet_md.Network(ssrnet_md.Config(size=32)), inputs)
    with torch.no_grad():
        found, wanted = fused(network, inputs[:1])(inputs), network(inputs)
    for name in ("p", "eta", "delta"):
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-3, atol=1e-4)


def test_a_backbone_with_shortcuts():
    torch.manual_seed(0)
    inputs = torch.rand(4, 3, 64, 64)
    network = trained_a_little(resnet(18), inputs)
    quick = fused(network, inputs[:1])
    assert norms(quick) == 0
    with torch.no_grad():
        torch.testing.assert_close(quick(inputs), network(inputs), rtol=1e-3, atol=1e-3)


class Odd(nn.Module):
    """A convolution that is read twice, one that runs twice, and a normalisation that stands first."""

    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm2d(3)
        self.read_twice, self.run_twice = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(3))
        self.plain, self.last = nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3)

    def forward(self, x):
        both = self.read_twice(self.first(x))
        x = self.norms[0](both) + self.norms[1](both)
        x = self.norms[2](self.run_twice(x)) + self.run_twice(x)
        return self.last(self.plain(x))


def test_only_what_may_be_folded_is():
    torch.manual_seed(0)
    inputs = torch.rand(4, 3, 8, 8)
    network = trained_a_little(Odd(), inputs)
    quick = fused(network, inputs[:1])
    assert norms(quick) == norms(network) - 1 and isinstance(quick.last, nn.Identity)
    with torch.no_grad():
        torch.testing.assert_close(quick(inputs), network(inputs))


class Aside(nn.Module):
    """A convolution and a normalisation, and another use of what lies between them."""

    def __init__(self, use):
        super().__init__()
        self.conv, self.norm, self.use = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), use

    def forward(self, x):
        x = self.conv(x)
        return self.use(x, self.norm)


@pytest.mark.parametrize(
    "use",
    [
        lambda x, norm: {"sum": norm(x) + x},
        lambda x, norm: {"both": torch.cat([norm(x), x], dim=1)},
        lambda x, norm: {"after": norm(x), "before": x},
        lambda x, norm: {"in place": norm(x.relu_())},
    ],
)
def test_an_output_that_is_used_beside_the_normalisation_is_left_alone(use):
    torch.manual_seed(0)
    inputs = torch.rand(4, 3, 8, 8)
    network = trained_a_little(Aside(use), inputs)
    quick = fused(network, inputs[:1])
    assert norms(quick) == 1
    with torch.no_grad():
        torch.testing.assert_close(quick(inputs), network(inputs))


def test_looking_at_the_shape_is_no_use():
    torch.manual_seed(0)
    inputs = torch.rand(4, 3, 8, 8)
    network = trained_a_little(Aside(lambda x, norm: norm(x).view(x.shape[0], -1)), inputs)
    quick = fused(network, inputs[:1])
    assert norms(quick) == 0
    with torch.no_grad():
        torch.testing.assert_close(quick(inputs), network(inputs))
