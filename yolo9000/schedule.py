"""Darknet's optimiser: the learning rate of each update, and SGD whose decay is on convolutions' weights alone."""

import math
from typing import Any

import torch
from torch import nn

from wordtree.errors import unknown

from .cfg import Section
from .modes import find_mode

POLICIES = ("constant", "steps", "poly")  # those of YOLOv2's family


def learning_rate(net: Section, iteration: int, mode: str = "darknet-2018") -> float:
    """The rate of one update by a cfg's `[net]`.

    "constant"; "steps": the rate times each of `scales` whose step has come; "poly": rate (1 - iteration /
    max_batches) ^ power. While the iteration is below `burn_in` the rate grows as (iteration / burn_in) ^ power: by any
    policy since 2017-03, by "poly" alone in the release before.

    Args:
        net: the section.
        iteration: whole batches that the network was trained on, that of this update included: 1 for the first.
        mode: "darknet" for the release of 2017-01; the other modes take the later.

    Raises:
        WordTreeError: a policy that YOLOv2's family has not, or a missing key, by file and line.

    Example:
        >>> from yolo9000.cfg import Cfg
        >>> text = "[net]\\nlearning_rate=.1\\npolicy=steps\\nsteps=2,3\\nscales=.5,.1\\n[maxpool]"
        >>> [round(learning_rate(Cfg(text).net, iteration), 3) for iteration in (1, 2, 3)]
        [0.1, 0.05, 0.005]
    """
    released = find_mode(mode).name == "darknet"
    rate, policy = net.number("learning_rate", 0.001), net.values.get("policy", "constant")
    if policy not in POLICIES:
        raise net.fault("policy", str(unknown("policy", policy, POLICIES)))
    power = net.number("power", 1.0 if released else 4.0)
    burn_in = net.whole("burn_in", 0)
    if iteration < burn_in and (policy == "poly" or not released):
        return rate * math.pow(iteration / burn_in, power)
    if policy == "steps":
        steps, scales = net.numbers("steps"), net.numbers("scales")
        if len(steps) != len(scales):
            raise net.fault("scales", f"{len(steps)} steps and {len(scales)} scales; give a scale a step")
        return rate * math.prod(scale for step, scale in zip(steps, scales, strict=True) if step <= iteration)
    if policy == "poly":
        return rate * math.pow(max(0.0, 1 - iteration / net.whole("max_batches", least=1)), power)
    return rate


def darknet_sgd(module: nn.Module, net: Section) -> torch.optim.SGD:
    """SGD with the momentum and decay of a cfg's `[net]`; biases and batch-norm do not decay.

    Darknet sums over a batch and divides the rate by its size, so give it the gradient of the mean over the whole batch
    (`batch=`), summed over its `subdivisions`, and set each group's "lr" by `learning_rate` before each step.
    """
    matrices = [parameter for parameter in module.parameters() if parameter.dim() > 1]
    plain = [parameter for parameter in module.parameters() if parameter.dim() <= 1]
    decay = net.number("decay", 0.0001)
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": decay}, {"params": plain}]
    return torch.optim.SGD(groups, lr=net.number("learning_rate", 0.001), momentum=net.number("momentum", 0.9))
