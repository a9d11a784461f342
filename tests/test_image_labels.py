"""Which box takes an image label, by name: each rule beside plain loops, in our detector and in plug-ins'."""

import math

import numpy as np
import pytest
import reference
import small_data
import torch
from conftest import TINY
from region_heads import DOG, EXACT, SMALL, dense_logits, random_region, random_target, small_head
from safetensors.torch import load_file
from strategies import random_tree
from test_torchvision import IMAGES, TREE, best_by_hand
from tiny_detectors import KINDS, tiny
from wordtree_torchvision import attach
from wordtree_torchvision.detector import pull

import yolo9000
from wordtree import WordTree, WordTreeError, hookimpl, plugins
from yolo9000 import models
from yolo9000.config import config_of
from yolo9000.loss import largest, region_losses
from yolo9000.lossrules import IMAGE_LABELS, RULES, with_image_label
from yolo9000.training import Trainer

NAMES = tuple(IMAGE_LABELS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_each_rule_equals_the_loops_in_value_and_gradient(name, seed):
    random = np.random.RandomState(seed)
    tree = random_tree(14, seed, most_children=3)
    head, region = small_head(tree, seed=seed), random_region(4, 3, 2, 2, seed=seed)
    targets = [random_target(tree, boxes, random) for boxes in (None, 2, None, None)]
    found = region_losses(head, region, targets, rules=with_image_label(RULES["paper"], name))
    wanted = reference.region_loss(region.raw, dense_logits(head, region), targets, head.anchors, tree, name)
    leaves = (region.raw, region.features, head.classes.weight, head.classes.bias)
    for loss in found:
        torch.testing.assert_close(found[loss].detach(), wanted[loss].detach(), **EXACT)
        ours = torch.autograd.grad(found[loss], leaves, retain_graph=True, materialize_grads=True)
        plain = torch.autograd.grad(wanted[loss], leaves, retain_graph=True, materialize_grads=True)
        for one, other in zip(ours, plain, strict=True):
            torch.testing.assert_close(one, other, **EXACT)


def test_the_rules_choose_differently_and_the_papers_is_the_default():
    assert config_of({}).image_label == ""  # as `loss` has it, the paper's
    assert with_image_label(RULES["paper"], "score") == RULES["paper"]
    assert with_image_label(RULES["darknet"], "darknet") == RULES["darknet"]
    head, region = small_head(SMALL), random_region(3, 3, 3, 2, seed=4)
    targets = [{"labels": torch.tensor([DOG])}] * 3
    plain = region_losses(head, region, targets)["image_label"]
    losses = [
        region_losses(head, region, targets, rules=with_image_label(RULES["paper"], name))["image_label"]
        for name in NAMES
    ]
    assert torch.equal(losses[0], plain)
    assert len({float(loss.detach()) for loss in losses}) == len(NAMES) == 4


def test_the_largest_is_looked_for_among_the_likeliest_and_cut_at_the_images_edge():
    torch.manual_seed(0)
    objectness = torch.rand(1, 300)
    corners = torch.rand(1, 300, 4) * 0.2
    corners[..., 2:] += corners[..., :2]
    order = objectness[0].argsort(descending=True)
    corners[0, order[200]] = torch.tensor([0.0, 0.0, 1.0, 1.0])  # the largest, but no likely object
    corners[0, order[100]] = torch.tensor([0.125, 0.125, 0.875, 0.75])
    assert largest(corners, objectness).tolist() == [int(order[100])]
    corners[0, order[127]] = torch.tensor([0.0, 0.125, 0.75, 0.75])  # as large and less likely
    assert largest(corners, objectness).tolist() == [int(order[100])]
    assert largest(torch.zeros(2, 5, 4), torch.zeros(2, 5)).tolist() == [0, 0]  # all alike: the first

    head, region = small_head(SMALL), random_region(1, 2, 2, 2)
    with torch.no_grad():  # a box that is huge beyond the edge shows little inside
        region.raw[..., :4] = 0.0
        region.raw[0, 0, 0, 0, :4] = torch.tensor([-9.0, -9.0, 4.0, -4.0])  # as wide as 22 images, and low
        region.raw[0, 1, 0, 1, 2:4] = torch.tensor([0.3, 0.3])
    losses = region_losses(
        head, region, [{"labels": torch.tensor([DOG])}], rules=with_image_label(RULES["paper"], "area")
    )
    (moved,) = torch.autograd.grad(losses["image_label"], region.features)
    assert moved.abs().sum((0, 3)).nonzero().tolist() == [[1, 0]]


def test_an_unknown_rule_is_refused_with_the_nearest():
    for ask in (lambda: with_image_label(RULES["paper"], "scores"), lambda: config_of({"image_label": "scores"})):
        with pytest.raises(WordTreeError, match=r"no image.label.* 'scores'; did you mean 'score'"):
            ask()


# ---------------------------------------------------------------------- in a run


def test_a_run_trains_by_the_rule_that_it_names(tmp_path, one_thread):
    for name in NAMES:
        trainer = Trainer(config_of({**TINY, "image_label": name}), tmp_path / name)
        assert trainer.model.loss_rules == with_image_label(RULES["paper"], name)
    options = {**TINY, "joint": True, "steps": 2, "classifier_steps": 1, "test_scenes": 1}
    runs = [
        yolo9000.train(out=tmp_path / f"run-{number}", progress=False, **options, **given)
        for number, given in enumerate(({}, {"image_label": "score"}, {"image_label": "area"}))
    ]
    plain, score, area = (load_file(run.weights) for run in runs)
    assert all(torch.equal(plain[key], score[key]) for key in plain)  # the default is the paper's, bit for bit
    assert not all(torch.equal(plain[key], area[key]) for key in plain)


def test_a_mode_sets_its_own_rule_again():
    model = models.yolo9000(SMALL, size=64, widths=(4, 4), counts=(1, 1))
    assert model.set_image_label("area").loss_rules.largest
    assert model.set_mode("darknet").loss_rules == RULES["darknet"]


# ---------------------------------------------------------------------- plug-ins' detectors


@pytest.mark.parametrize("kind", KINDS)
def test_torchvisions_detectors_know_the_largest_box_too(kind):
    ours = attach(tiny(kind, 1), TREE).train()
    ours.head.classes.weight.data *= 300
    label = 5
    log_objectness, log_prob = best_by_hand(ours, IMAGES[0], label)
    with torch.no_grad():
        batch, features, _ = ours.look([IMAGES[0]])
        if hasattr(ours, "match"):
            seen = ours.see(batch, features)
            _, at = ours.best(seen.log_objectness, seen.levels, -1.0)
            boxes = ours.decode(seen, batch, torch.zeros_like(at), at)
        else:
            boxes = ours.propose(batch, features, [], [])[0][0][:32]
            at = torch.arange(len(boxes))
    likeliest = sorted(range(len(at)), key=lambda row: -float(log_objectness[at[row]]))[:128]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in boxes.tolist()]
    best = int(at[max(likeliest, key=lambda row: areas[row])])
    ours.image_label = "area"
    losses = ours([IMAGES[0]], [{"labels": torch.tensor([label])}])
    torch.testing.assert_close(losses["image_label"], pull(log_objectness[best]) - log_prob[best], rtol=1e-4, atol=1e-4)
    assert best != int((log_objectness + log_prob).argmax())  # another box than the paper's
    ours.image_label = "objectness"
    surest = int(log_objectness.argmax())
    losses = ours([IMAGES[0]], [{"labels": torch.tensor([label])}])
    wanted = pull(log_objectness[surest]) - log_prob[surest]
    torch.testing.assert_close(losses["image_label"], wanted, rtol=1e-4, atol=1e-4)
    ours.image_label = "darknet"
    with pytest.raises(WordTreeError, match=r"no image-label rule 'darknet'; .*known: score, area"):
        ours([IMAGES[0]], [{"labels": torch.tensor([label])}])


class Plain(torch.nn.Module):
    """A stranger's detector, which knows nothing of rules."""

    def forward(self, images, targets=None):
        return {}


class Strangers:
    @hookimpl
    def register_detectors(self):
        return [
            plugins.Detector("strangers/plain", lambda tree: Plain(), ""),
            plugins.Detector("strangers/two", lambda tree: attach(tiny("retinanet", 1), tree), ""),
        ]


def test_a_rule_that_a_plug_ins_detector_does_not_know_is_refused_and_the_others_are_passed_on():
    plugins.register(Strangers())
    try:
        tree = WordTree(small_data.IDS, small_data.SMALL.parents)
        borrowed = yolo9000.borrowed.Borrowed("strangers/two", tree, 64)
        borrowed.set_image_label("area")
        assert borrowed.inner.image_label == "area"
        with pytest.raises(WordTreeError, match=r"no image-label rule of strangers/two 'darknet'; .*score, area"):
            borrowed.set_image_label("darknet")
        plain = yolo9000.borrowed.Borrowed("strangers/plain", tree, 64)
        plain.set_image_label("score")
        with pytest.raises(WordTreeError, match=r"known: score$"):
            plain.set_image_label("area")
    finally:
        plugins.unregister("Strangers")


def test_objectness_under_each_rule_is_pulled_up_to_three_tenths():
    for name in NAMES:
        head, region = small_head(SMALL), random_region(1, 1, 1, 2)
        with torch.no_grad():
            region.raw[..., 4] = math.log(0.1 / 0.9)
        losses = region_losses(
            head, region, [{"labels": torch.tensor([DOG])}], rules=with_image_label(RULES["paper"], name)
        )
        (moved,) = torch.autograd.grad(losses["image_label"], region.raw)
        assert float(moved[..., 4].min()) < 0  # a step against the gradient raises it
