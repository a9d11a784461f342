"""The learning rate of each update, Darknet's policies among others, and optimisers whose decay is on weights alone."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from wordtree.errors import unknown

from .cfg import Section
from .config import POLICIES, Config
from .modes import find_mode

WARM = 0.08  # the share of the steps on which one-cycle climbs
DARKNET = tuple(name for name in POLICIES if name != "one-cycle")  # those of YOLOv2's family


def rate_of(config: Config, done: int, steps: int, classify: bool = False) -> float:
    """The rate of a run's next update.

    Args:
        config: its numbers.
        done: updates of the phase so far: 0 before the first.
        steps: updates of the phase in all.
        classify: of the phase that learns names alone.

    Example:
        >>> config = Config(rate=0.001, policy="steps", burn_in=10, steps_at=(40,), scales=(0.1,))
        >>> [f"{rate_of(config, done, 60):.2g}" for done in (4, 9, 38, 39)]
        ['6.3e-05', '0.001', '0.001', '0.0001']
    """
    rate = config.classifier_rate if classify else config.rate
    policy = config.classifier_policy if classify else config.policy
    if policy == "one-cycle":
        return rate * one_cycle(done / steps)
    return policy_rate(done + 1, rate, policy, config.burn_in, config.power, config.steps_at, config.scales, steps)


def one_cycle(done: float) -> float:
    """The share of the peak rate when `done` of the steps are done: up in a line, down in a half cosine."""
    if done < WARM:
        return 0.05 + 0.95 * done / WARM
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (done - WARM) / (1 - WARM)))


def policy_rate(
    iteration: int,
    rate: float,
    policy: str = "constant",
    burn_in: int = 0,
    power: float = 4.0,
    steps: Sequence[float] = (),
    scales: Sequence[float] = (),
    last: int = 0,
) -> float:
    """Darknet's rate of one update.

    "constant"; "steps": the rate times each of `scales` whose step has come; "poly": rate (1 - iteration / last) ^
    power. While the iteration is below `burn_in`: rate (iteration / burn_in) ^ power.

    Args:
        iteration: 1 for the first update.
        rate, policy, burn_in, power, steps, scales: as in a cfg's `[net]`.
        last: its `max_batches`, which "poly" needs.
    """
    if iteration < burn_in:
        return rate * math.pow(iteration / burn_in, power)
    if policy == "steps":
        return rate * math.prod(scale for step, scale in zip(steps, scales, strict=True) if step <= iteration)
    if policy == "poly":
        return rate * math.pow(max(0.0, 1 - iteration / last), power)
    return rate


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
    if policy not in DARKNET:
        raise net.fault("policy", str(unknown("policy", policy, DARKNET)))
    power = net.number("power", 1.0 if released else 4.0)
    burn_in = net.whole("burn_in", 0) if policy == "poly" or not released else 0
    steps, scales = (net.numbers("steps"), net.numbers("scales")) if policy == "steps" else ([], [])
    if len(steps) != len(scales):
        raise net.fault("scales", f"{len(steps)} steps and {len(scales)} scales; give a scale a step")
    last = net.whole("max_batches", least=1) if policy == "poly" else 0
    return policy_rate(iteration, rate, policy, burn_in, power, steps, scales, last)


def darknet_sgd(module: nn.Module, net: Section) -> torch.optim.SGD:
    """SGD with the momentum and decay of a cfg's `[net]`; biases and batch-norm do not decay.

    Darknet sums over a batch and divides the rate by its size, so give it the gradient of the mean over the whole batch
    (`batch=`), summed over its `subdivisions`, and set each group's "lr" by `learning_rate` before each step.
    """
    rate, momentum = net.number("learning_rate", 0.001), net.number("momentum", 0.9)
    return torch.optim.SGD(_groups(module, net.number("decay", 0.0001)), lr=rate, momentum=momentum)


def optimizer_of(module: nn.Module, config: Config) -> torch.optim.Optimizer:
    """The optimiser of a run: "sgd" is Darknet's, its decay on convolution and classifier weights only.

    A run's loss is the mean over the images of a batch, so its rates are those of a cfg for the same batch. Set each
    group's "lr" by `rate_of` before each step.
    """
    if config.optimizer == "sgd":
        return torch.optim.SGD(_groups(module, config.decay), lr=config.rate, momentum=config.momentum)
    groups = _groups(module, config.decay, True)
    return torch.optim.AdamW(groups, lr=config.rate, betas=(config.momentum, 0.99), fused=True)


def _groups(module: nn.Module, decay: float, classes: bool = False) -> list[dict[str, Any]]:
    """Weights, which decay, and biases and batch-norm, which do not; with `classes` a tree classifier's biases,
    [copies, nodes], decay too: the shipped checkpoint was trained so."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in module.named_parameters():
        groups[parameter.dim() > 1 and (classes or not name.endswith("bias"))].append(parameter)
    return [{"params": groups[True], "weight_decay": decay}, {"params": groups[False], "weight_decay": 0.0}]
