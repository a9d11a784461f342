"""Batch normalisation in Darknet's arithmetic, by loops written from its description, and torch's left as it is."""

import math

import pytest
import torch
from torch import Tensor, nn

from wordtree import WordTreeError
from yolo9000.batchnorm import BatchNorm, set_batchnorm
from yolo9000.darknet19 import ConvBlock, Darknet19

EXACT = {"rtol": 1e-11, "atol": 1e-11}


def darknet_norm(channels: int, momentum: float = 0.1, seed: int = 0) -> BatchNorm:
    generator = torch.Generator().manual_seed(seed)
    norm = BatchNorm(channels).double()
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.copy_(torch.randn(channels, generator=generator))
        norm.running_var.copy_(torch.rand(channels, generator=generator) + 0.01)
    set_batchnorm(norm, "darknet", momentum)
    return norm


def channel_by_loops(x: list[float], grad: list[float], scale: float, bias: float) -> dict[str, float | list[float]]:
    """One channel of the 2017-01 release on a CPU: its forward and its backward pass, value by value."""
    n = len(x)
    mean = sum(x) / n
    var = sum((value - mean) ** 2 for value in x) / (n - 1)
    normal = [(value - mean) / (math.sqrt(var) + 1e-6) for value in x]
    delta = [one * scale for one in grad]
    mean_delta = sum(delta) * (-1 / math.sqrt(var + 1e-5))
    var_delta = sum(one * (value - mean) for one, value in zip(delta, x)) * -0.5 * (var + 1e-5) ** -1.5
    return {
        "mean": mean,
        "var": var,
        "y": [scale * value + bias for value in normal],
        "of_scale": sum(one * value for one, value in zip(grad, normal)),
        "of_bias": sum(grad),
        "of_x": [
            one / (math.sqrt(var) + 1e-5) + var_delta * 2 * (value - mean) / n + mean_delta / n
            for one, value in zip(delta, x)
        ],
    }


@pytest.mark.parametrize("momentum", [0.1, 0.01])
@pytest.mark.parametrize("spread", [1e-3, 1.0])
def test_training_equals_darknets_passes_value_by_value(momentum, spread):
    torch.manual_seed(1)
    norm = darknet_norm(3, momentum)
    before = norm.running_mean.clone(), norm.running_var.clone()
    x = (torch.randn(2, 3, 4, 5, dtype=torch.float64) * spread + 0.3).requires_grad_()
    grad = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    y = norm(x)
    found = torch.autograd.grad(y, (x, norm.weight, norm.bias), grad)

    def row(tensor: Tensor, channel: int) -> list[float]:
        return tensor.detach()[:, channel].flatten().tolist()

    for channel in range(3):
        scale, bias = norm.weight[channel].item(), norm.bias[channel].item()
        wanted = channel_by_loops(row(x, channel), row(grad, channel), scale, bias)
        assert row(y, channel) == pytest.approx(wanted["y"], rel=1e-11, abs=1e-11)
        assert row(found[0], channel) == pytest.approx(wanted["of_x"], rel=1e-9, abs=1e-10)
        assert float(found[1][channel]) == pytest.approx(wanted["of_scale"], rel=1e-10)
        assert float(found[2][channel]) == pytest.approx(wanted["of_bias"], rel=1e-10)
        for name, old, now in (("mean", before[0], norm.running_mean), ("var", before[1], norm.running_var)):
            rolled = (1 - momentum) * float(old[channel]) + momentum * wanted[name]
            assert float(now[channel]) == pytest.approx(rolled, rel=1e-12)
    assert int(norm.num_batches_tracked) == 1


def test_evaluation_adds_its_epsilon_to_the_deviation():
    norm = darknet_norm(4).eval()
    with torch.no_grad():
        norm.running_var[0] = 1e-12  # both epsilons are of the deviation's size here
        norm.running_var[1] = 0.0
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    wide = (slice(None), None, None)
    deviation = norm.running_var.sqrt()[wide] + 1e-6
    wanted = norm.weight[wide] * (x - norm.running_mean[wide]) / deviation + norm.bias[wide]
    torch.testing.assert_close(norm(x), wanted, rtol=1e-9, atol=1e-9)
    assert int(norm.num_batches_tracked) == 0


def test_torchs_arithmetic_is_torchs_layer_with_torchs_state():
    torch.manual_seed(0)
    ours, theirs = BatchNorm(5), nn.BatchNorm2d(5)
    x = torch.randn(3, 5, 4, 4)
    for train in (True, False):
        ours.train(train)
        theirs.train(train)
        assert torch.equal(ours(x), theirs(x))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(ours.state_dict().values(), theirs.state_dict().values()))


def test_half_precision_is_summed_in_the_layers_own():
    norm = darknet_norm(3).float()
    x = torch.randn(2, 3, 4, 4).bfloat16()
    y = norm(x)
    assert y.dtype == torch.float32
    again = darknet_norm(3).float()
    assert torch.equal(y, again(x.float()))


def test_the_arithmetic_of_a_whole_model_is_set_and_others_are_refused():
    trunk = Darknet19((8, 8), (1, 3))
    blocks = [module for module in trunk.modules() if isinstance(module, ConvBlock)]
    set_batchnorm(trunk, "darknet")
    assert {(block[1].arithmetic, block[1].momentum) for block in blocks} == {("darknet", 0.1)}
    set_batchnorm(trunk, "torch", momentum=0.01)
    assert {(block[1].arithmetic, block[1].momentum) for block in blocks} == {("torch", 0.01)}
    with pytest.raises(WordTreeError, match=r"darnet.*darknet"):
        set_batchnorm(trunk, "darnet")
    blocks[0][1].arithmetic = "cudnn"
    with pytest.raises(WordTreeError, match="cudnn"):
        trunk(torch.zeros(1, 3, 4, 4))


def test_one_value_a_channel_has_no_variance_and_is_refused():
    with pytest.raises(WordTreeError, match=r"1 value a channel.*\(1, 3, 1, 1\); give more or"):
        darknet_norm(3)(torch.zeros(1, 3, 1, 1, dtype=torch.float64))
