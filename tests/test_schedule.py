"""Training by the original program's arithmetic: its own updates, weight by weight, and the rates of its policies."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from oracle import needs_oracle
from torch import Tensor, nn

from wordtree import WordTreeError
from yolo9000 import models
from yolo9000.batchnorm import set_batchnorm
from yolo9000.cfg import Cfg
from yolo9000.config import Config, config_of
from yolo9000.detector import Detector
from yolo9000.loss import region_loss, region_losses
from yolo9000.schedule import darknet_sgd, learning_rate, one_cycle, optimizer_of, rate_of
from yolo9000.weights import load_weights, save_weights

# ---------------------------------------------------------------------- the original program's runs


class MicroRun:
    """One of the original program's small trainings, and our network at its start."""

    def __init__(self, name: str, folder: Path) -> None:
        self.values = oracle.values(f"train_micro_{name}")
        self.cfg = Cfg(str(self.values["cfg"]))  # the tree and map that it names are packaged
        file = folder / "start.weights"
        seen = int(self.values["seen0"])
        header = np.array([0, 1, 0, seen], dtype="<i4").tobytes()
        file.write_bytes(header + self.values["weights0"].astype("<f4").tobytes())
        model = models.from_cfg(self.cfg)
        assert isinstance(model, Detector)
        self.model = model
        load_weights(model, file)
        set_batchnorm(model.set_mode("darknet"), "darknet", momentum=0.1)  # a CPU's running average
        model.seen = seen
        self.model.train()
        self.folder = folder
        self.batch = self.cfg.net.whole("batch")
        self.mini = self.batch // self.cfg.net.whole("subdivisions", 1)
        self.images = torch.from_numpy(self.values["X"]).float() / 255
        self.truths = torch.from_numpy(self.values["truth"])
        self.labels = self.cfg.label_nodes()

    def weights(self) -> np.ndarray:
        """Our numbers in the order of a file."""
        return np.fromfile(save_weights(self.model, self.folder / "now.weights"), "<f4")[4:]

    def targets(self, rows: Tensor) -> list[dict[str, Tensor]]:
        """Darknet's rows of a mini-batch as targets, boxes in fractions: some reach out of their image."""
        found = []
        for one in rows:
            given = one[: int((one[:, 0] != 0).cumprod(0).sum())]
            if len(given) and given[0, 0] > 100000:
                found.append({"labels": given[0, 4:].long()})
                continue
            centre, half = given[:, :2], given[:, 2:4] / 2
            boxes = torch.cat((centre - half, centre + half), dim=1)
            labels = given[:, 4].long()
            found.append({"boxes": boxes, "labels": labels if self.labels is None else self.nodes[labels]})
        return found

    @property
    def nodes(self) -> Tensor:
        return torch.from_numpy(np.array(self.labels))

    def dense_loss(self, images: Tensor, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over a mini-batch, and its parts."""
        model = self.model
        raw = model.head.dense(model.neck(model.trunk(images)))
        tree = model.tree if "tree" in self.cfg.sections[-1].values else None
        loss, _, parts = region_loss(
            raw, rows, model.head.anchors, tree, "darknet", model.seen, self.labels, scales=model.scales
        )
        return loss, parts


def assert_same(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


@needs_oracle
@pytest.mark.parametrize("form", ["dense", "lean"])
@pytest.mark.parametrize("name", ["voc_seen0", "joint_seen50000"])
def test_training_goes_update_by_update_as_the_original_programs(name, form, tmp_path):
    run = MicroRun(name, tmp_path)
    model, net, values = run.model, run.cfg.net, run.values
    assert_same(run.weights(), values["weights0"])
    optimizer = darknet_sgd(model, net)
    moved = [run.weights()]
    for number in range(len(run.images) // run.mini):
        part = slice(number * run.mini, (number + 1) * run.mini)
        model.seen += run.mini
        if form == "dense":
            loss, parts = run.dense_loss(run.images[part], run.truths[part])
            assert float(parts["cost"]) == pytest.approx(float(values["loss"][number]), rel=1e-4)
        else:
            targets, region = run.targets(run.truths[part]), model.region(run.images[part])
            losses = region_losses(model.head, region, targets, model.scales, model.loss_rules, model.seen)
            loss = torch.stack(list(losses.values())).sum() * run.mini
        (loss / run.batch).backward()
        iteration = model.seen // run.batch
        assert learning_rate(net, iteration, "darknet") == pytest.approx(float(values["rate_after"][number]))
        if number == 0:
            assert_same(run.weights(), values["weights_after_minibatch1"])
        if model.seen % run.batch == 0:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(net, iteration, "darknet")
            optimizer.step()
            optimizer.zero_grad()
            update = len(moved)
            moved.append(run.weights())
            assert_same(moved[-1], values[f"weights_after_update{update}"])
    assert f"weights_after_update{len(moved)}" not in values
    steps = [np.abs(after - before).max() for before, after in itertools.pairwise(moved)]
    assert min(steps) > 1e-4  # each moved far more than the tolerance


@needs_oracle
def test_torchs_batch_norm_would_not_go_the_same_way(tmp_path):
    run = MicroRun("voc_seen0", tmp_path)
    set_batchnorm(run.model, "torch")
    optimizer = darknet_sgd(run.model, run.cfg.net)
    for part in (slice(0, 2), slice(2, 4)):
        run.model.seen += 2
        (run.dense_loss(run.images[part], run.truths[part])[0] / 4).backward()
    optimizer.step()
    assert np.abs(run.weights() - run.values["weights_after_update1"]).max() > 1e-4


# ---------------------------------------------------------------------- policies


def net_of(**values: Any) -> Any:
    return Cfg("[net]\n" + "\n".join(f"{key}={value}" for key, value in values.items()) + "\n[maxpool]").net


def test_a_constant_rate_stays_and_needs_no_policy():
    assert learning_rate(net_of(learning_rate=0.02), 1000) == 0.02
    assert learning_rate(net_of(learning_rate=0.02, policy="constant"), 1) == 0.02
    assert learning_rate(net_of(), 1) == 0.001


def test_steps_multiply_from_their_iteration_on_and_one_before_the_start_counts_at_once():
    net = net_of(learning_rate=0.001, policy="steps", steps="-1,100,80000", scales=".1,10,.1")
    rates = [learning_rate(net, iteration) for iteration in (1, 99, 100, 79999, 80000)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-3, 1e-3, 1e-4])


@pytest.mark.parametrize(("mode", "power"), [("darknet", 1), ("darknet-2018", 4)])
def test_poly_falls_to_nothing_by_its_power_which_the_releases_default_apart(mode, power):
    net = net_of(learning_rate=0.1, policy="poly", max_batches=1000)
    assert learning_rate(net, 500, mode) == pytest.approx(0.1 * 0.5**power)
    assert learning_rate(net, 1000, mode) == learning_rate(net, 1001, mode) == 0
    assert learning_rate(net_of(learning_rate=0.1, policy="poly", max_batches=1000, power=2), 500, mode) == 0.025


def test_burn_in_is_of_every_policy_since_2017_and_of_poly_alone_before():
    steps = net_of(learning_rate=0.001, burn_in=1000, policy="steps", steps="40000,60000", scales=".1,.1")
    assert learning_rate(steps, 500) == pytest.approx(0.001 * 0.5**4)
    assert learning_rate(steps, 1000) == 0.001
    assert learning_rate(steps, 500, "darknet") == 0.001
    poly = net_of(learning_rate=0.1, burn_in=100, policy="poly", power=4, max_batches=1000)
    for mode in ("darknet", "darknet-2018"):
        assert learning_rate(poly, 50, mode) == pytest.approx(0.1 * 0.5**4)


@pytest.mark.parametrize(
    ("settings", "net"),
    [
        ({"policy": "constant"}, {}),
        ({"policy": "constant", "burn_in": 7}, {"burn_in": 7}),
        (
            {"policy": "steps", "burn_in": 5, "power": 2.0, "steps_at": (10, 20), "scales": (0.1, 0.5)},
            {"policy": "steps", "burn_in": 5, "power": 2, "steps": "10,20", "scales": ".1,.5"},
        ),
        (
            {"policy": "steps", "steps_at": (-1, 9), "scales": (0.1, 10.0)},
            {"policy": "steps", "steps": "-1,9", "scales": ".1,10"},
        ),
        ({"policy": "poly", "burn_in": 3}, {"policy": "poly", "burn_in": 3, "max_batches": 30, "power": 4}),
    ],
)  # fmt: skip
def test_a_runs_rate_is_that_of_a_cfg_of_the_same_numbers_update_by_update(settings, net):
    section = net_of(learning_rate=0.1, **net)
    run = Config(rate=0.1, steps=30, **settings)
    names = Config(classifier_rate=0.1, classifier_policy=run.policy, **(settings | {"policy": run.policy}))
    for done in range(30):
        assert rate_of(run, done, 30) == learning_rate(section, done + 1)
        assert rate_of(names, done, 30, classify=True) == learning_rate(section, done + 1)


def test_one_cycle_is_what_a_run_has_where_nothing_is_said():
    config = Config()
    assert [rate_of(config, done, 200) for done in (0, 16, 199)] == [1e-3 * one_cycle(d / 200) for d in (0, 16, 199)]
    assert rate_of(config, 0, 200, classify=True) == 3e-3 * 0.05
    assert one_cycle(0.08) == pytest.approx(1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "cosine"}, "policy 'cosine'.*one-cycle"),
        ({"optimizer": "sdg"}, "sgd"),
        ({"policy": "steps"}, "give both with policy=steps"),
        ({"steps_at": [5], "scales": [0.1]}, "give both with policy=steps"),
        ({"policy": "steps", "steps_at": [5, 6], "scales": [0.1]}, "a factor above 0 for each update"),
        ({"policy": "steps", "steps_at": [5], "scales": [0.0]}, "a factor above 0 for each update"),
        ({"burn_in": 100}, "one-cycle warms up by itself"),
        ({"policy": "constant", "burn_in": -1}, "burn_in of -1"),
        ({"policy": "poly", "power": 0}, "power of 0"),
    ],
)
def test_numbers_that_are_no_schedule_are_refused(settings, message):
    with pytest.raises(WordTreeError, match=message):
        config_of(settings)


def test_sgd_of_a_run_is_that_of_a_cfg():
    torch.manual_seed(3)
    ours, theirs = (nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    config = Config(optimizer="sgd", rate=0.1, momentum=0.5, decay=0.25)
    optimizers = optimizer_of(ours, config), darknet_sgd(theirs, net_of(learning_rate=0.1, momentum=0.5, decay=0.25))
    for number in range(3):
        picture = torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(number))
        for module, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            module(picture).pow(2).sum().backward()
            optimizer.step()
    for one, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert isinstance(optimizer_of(ours, Config()), torch.optim.AdamW)


def test_what_is_no_schedule_is_refused_by_line():
    with pytest.raises(WordTreeError, match=r"line 2: .*cosine.*steps"):
        learning_rate(net_of(policy="cosine"), 1)
    with pytest.raises(WordTreeError, match=r"line 4: 2 steps and 1 scales; give a scale a step"):
        learning_rate(net_of(policy="steps", steps="1,2", scales=".1"), 1)
    with pytest.raises(WordTreeError, match="no max_batches"):
        learning_rate(net_of(policy="poly"), 1)


def test_decay_is_on_weights_and_not_on_biases_or_batch_norm():
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    optimizer = darknet_sgd(model, net_of(learning_rate=0.1, momentum=0.5, decay=0.25))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter, old * (1 - 0.1 * 0.25) if parameter.dim() > 1 else old)
    assert optimizer.param_groups[0]["momentum"] == 0.5


def test_a_cfg_sets_the_numbers_of_its_loss_and_what_it_leaves_out_is_darknets():
    start = "[net]\nheight=32\nwidth=32\n[convolutional]\nfilters=12\nactivation=linear\n[region]\nanchors=1,1,2,2\n"
    plain = models.from_cfg(Cfg(start + "classes=1\nnum=2"))
    assert isinstance(plain, Detector)
    assert (plain.scales.object, plain.scales.ignore_iou) == (1.0, 0.5)
    assert not plain.scales.rescore
    assert not plain.scales.bias_match
    given = "object_scale=5\nnoobject_scale=.5\ncoord_scale=2\nclass_scale=3\nthresh=.6\nrescore=1\nbias_match=1"
    full = models.from_cfg(Cfg(start + "classes=1\nnum=2\n" + given))
    assert isinstance(full, Detector)
    numbers = full.scales
    assert (numbers.object, numbers.no_object, numbers.box, numbers.tree) == (5.0, 0.5, 2.0, 3.0)
    assert numbers.ignore_iou == 0.6
    assert numbers.rescore
    assert numbers.bias_match
