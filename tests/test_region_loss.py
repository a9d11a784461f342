"""The losses of the region head: equal to plain loops in value and gradient, and to Darknet where the two agree."""

import math

import numpy as np
import pytest
import reference
import torch
from region_heads import (
    ANCHORS,
    ANIMAL,
    CAT,
    DOG,
    EXACT,
    OAK,
    PLANT,
    POODLE,
    SMALL,
    dense_logits,
    random_region,
    random_target,
    small_head,
)
from strategies import random_tree
from torch import Tensor, nn

from wordtree.nn import TreeLinear, tree_log_prob
from yolo9000.head import Region, RegionHead
from yolo9000.loss import region_losses


def raw_of(box: list[float], row: int, column: int, anchor: int, h: int, w: int) -> list[float]:
    """The tx, ty, tw, th with which a predictor gives exactly an xyxy box whose centre lies in its cell."""
    x, y = (box[0] + box[2]) / 2 * w - column, (box[1] + box[3]) / 2 * h - row
    width, height = (box[2] - box[0]) * w, (box[3] - box[1]) * h
    return [
        math.log(x / (1 - x)),
        math.log(y / (1 - y)),
        math.log(width / float(ANCHORS[anchor, 0])),
        math.log(height / float(ANCHORS[anchor, 1])),
    ]


def assert_equals_the_loops(head: RegionHead, region: Region, targets: list[dict[str, Tensor]]) -> None:
    """The lean losses and the plain loops over dense logits: every value and every gradient."""
    found = region_losses(head, region, targets)
    tree = head.classes.tree
    wanted = reference.region_loss(region.raw, dense_logits(head, region), targets, head.anchors, tree)
    leaves = (region.raw, region.features, head.classes.weight, head.classes.bias)
    assert found.keys() == wanted.keys()
    for name in found:
        torch.testing.assert_close(found[name].detach(), wanted[name].detach(), **EXACT)
        if wanted[name].requires_grad:
            lean = torch.autograd.grad(found[name], leaves, retain_graph=True, materialize_grads=True)
            dense = torch.autograd.grad(wanted[name], leaves, retain_graph=True, materialize_grads=True)
            for one, other in zip(lean, dense, strict=True):
                torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("seed", range(6))
def test_the_lean_losses_equal_loops_over_dense_logits_in_value_and_gradient(seed):
    random = np.random.RandomState(seed)
    tree = random_tree(14, seed, most_children=3)
    targets = [random_target(tree, boxes, random) for boxes in (3, None, 0, 5, None)]
    targets = [targets[i] for i in random.permutation(5)]
    assert_equals_the_loops(small_head(tree, seed=seed), random_region(5, 2, 3, 2, seed=seed), targets)


@pytest.mark.parametrize("seed", range(4))
def test_they_equal_the_loops_where_sources_know_a_part_of_the_tree(seed):
    random = np.random.RandomState(seed)
    tree = random_tree(14, seed, most_children=3)
    targets = [random_target(tree, boxes, random) for boxes in (2, None, 0, 1)]
    for target in targets[:3]:  # the last knows everything
        known = tree.propagate(random.randint(0, len(tree), 3)).any(0)
        target["known"] = torch.from_numpy(known)
    assert_equals_the_loops(small_head(tree, seed=seed), random_region(4, 2, 2, 2, seed=seed), targets)


def test_they_equal_the_loops_for_a_single_kind_of_target():
    random = np.random.RandomState(3)
    for kinds in ([2, 1], [None, None], [0, 0]):
        targets = [random_target(SMALL, boxes, random) for boxes in kinds]
        assert_equals_the_loops(small_head(SMALL), random_region(2, 2, 2, 2), targets)


def test_a_predictor_that_overlaps_a_truth_well_is_not_pushed_down_though_another_is_responsible():
    head = small_head(SMALL)
    box = [0.4, 0.2, 0.8, 0.55]  # its centre in row 0, column 1 of a 2 x 2 grid; its shape nearest anchor 0
    region = random_region(1, 2, 2, 2, seed=5)
    with torch.no_grad():
        region.raw[0, 0, 1, 1, :4] = torch.tensor(raw_of(box, 0, 1, 1, 2, 2))  # the other anchor gives the box itself
    targets = [{"boxes": torch.tensor([box], dtype=torch.float64), "labels": torch.tensor([DOG])}]
    assert_equals_the_loops(head, region, targets)
    losses = region_losses(head, region, targets)
    (gradient,) = torch.autograd.grad(losses["objectness"], region.raw)
    pushed = gradient[..., 4] != 0
    assert not bool(pushed[0, 0, 1, 1])
    assert int(pushed.sum()) == 7


def test_losses_are_means_over_images():
    random = np.random.RandomState(6)
    head, region = small_head(SMALL), random_region(2, 2, 2, 2)
    targets = [random_target(SMALL, 2, random), random_target(SMALL, None, random)]
    twice = Region(region.raw.repeat(2, 1, 1, 1, 1), region.features.repeat(2, 1, 1, 1))
    once = region_losses(head, region, targets)
    for name, loss in region_losses(head, twice, targets * 2).items():
        torch.testing.assert_close(loss, once[name], **EXACT)


# ---------------------------------------------------------------------- the image label


def image_label(head: RegionHead, region: Region, label: int) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of one image label; its gradient by raw and by features."""
    losses = region_losses(head, region, [{"labels": torch.tensor([label])}])
    assert [losses[name].item() for name in ("box", "objectness", "tree")] == [0.0] * 3
    return (losses["image_label"].detach(), *torch.autograd.grad(losses["image_label"], (region.raw, region.features)))


def chosen_by(gradient: Tensor) -> list[tuple[int, int]]:
    """The cells whose features a loss moves."""
    return [
        (row, column)
        for row in range(gradient.shape[1])
        for column in range(gradient.shape[2])
        if gradient[0, row, column].any()
    ]


@pytest.mark.parametrize("seed", range(8))
def test_the_label_goes_to_the_box_of_largest_objectness_times_probability(seed):
    head, region = small_head(SMALL, seed=seed), random_region(1, 3, 3, 2, seed=seed)
    odds = (
        torch.nn.functional.logsigmoid(region.raw[..., 4]) + tree_log_prob(dense_logits(head, region), SMALL)[..., DOG]
    )
    best = odds.flatten().argmax().item()
    _, _, by_features = image_label(head, region, DOG)
    assert chosen_by(by_features) == [(best // 6, best // 2 % 3)]


def test_neither_objectness_nor_probability_decides_alone():
    head, region = small_head(SMALL), random_region(1, 1, 2, 1)
    head.anchors = ANCHORS[:1]
    head.classes = TreeLinear(4, SMALL).double()
    with torch.no_grad():
        head.classes.weight.zero_()
        head.classes.weight[0, DOG, 0] = 1.0  # feature 0 is the logit of "dog"
        region.features.zero_()
        region.features[0, 0, 1, 0] = 3.0  # the second cell is likelier a dog: .95 beside .5
        region.raw[0, 0, :, 0, 4] = torch.tensor([4.0, -4.0])  # the first is far likelier an object: .98 beside .02
    assert chosen_by(image_label(head, region, DOG)[2]) == [(0, 0)]
    with torch.no_grad():
        region.raw[0, 0, :, 0, 4] = torch.tensor([0.5, 0.0])  # .62 x .5 beside .5 x .95
    assert chosen_by(image_label(head, region, DOG)[2]) == [(0, 1)]


def test_on_a_tie_the_first_box_in_order_of_row_column_anchor_is_taken():
    head = small_head(SMALL)
    with torch.no_grad():
        head.classes.weight.copy_(head.classes.weight[:1].expand_as(head.classes.weight))
        head.classes.bias.copy_(head.classes.bias[:1].expand_as(head.classes.bias))
    raw = torch.zeros(1, 2, 2, 2, 5, dtype=torch.float64)
    raw[..., 4] = -3.0
    region = Region(raw.requires_grad_(), torch.ones(1, 2, 2, 4, dtype=torch.float64, requires_grad=True))
    _, by_raw, by_features = image_label(head, region, POODLE)
    assert chosen_by(by_features) == [(0, 0)]
    assert by_raw[..., 4].nonzero().tolist() == [[0, 0, 0, 0]]
    with torch.no_grad():
        region.raw[0, 0, 1, 1, 4] = region.raw[0, 1, 0, 0, 4] = -1.0
    _, by_raw, _ = image_label(head, region, POODLE)
    assert by_raw[..., 4].nonzero().tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize(("confidence", "pulled"), [(0.02, True), (0.29, True), (0.31, False), (0.9, False)])
def test_objectness_is_pulled_up_to_the_assumed_overlap_where_it_is_below(confidence, pulled):
    head, region = small_head(SMALL), random_region(1, 2, 2, 2)
    with torch.no_grad():
        region.raw[..., 4] = math.log(confidence / (1 - confidence)) - 0.01
        region.raw[0, 1, 1, 1, 4] += 0.01
        region.features[:] = 1.0
        head.classes.weight.copy_(head.classes.weight[1:].expand_as(head.classes.weight))
        head.classes.bias.copy_(head.classes.bias[1:].expand_as(head.classes.bias))
    loss, by_raw, _ = image_label(head, region, POODLE)
    logits = dense_logits(head, region)[0, 1, 1, 1]
    expected = float(reference.cross_entropy(logits, POODLE, SMALL)) + (
        2.5 * (confidence - 0.3) ** 2 if pulled else 0.0
    )
    assert float(loss) == pytest.approx(expected)
    moved = by_raw.nonzero().tolist()  # no coordinate, and no other box's objectness
    assert moved == ([[0, 1, 1, 1, 4]] if pulled else [])
    if pulled:
        assert float(by_raw[0, 1, 1, 1, 4]) < 0  # a step against the gradient raises it


def test_an_image_label_high_in_the_tree_moves_nothing_below_it():
    head, region = small_head(SMALL), random_region(1, 2, 2, 2)
    region_losses(head, region, [{"labels": torch.tensor([ANIMAL])}])["image_label"].backward()
    assert head.classes.weight.grad[:, [ANIMAL, PLANT]].any()
    assert not head.classes.weight.grad[:, [DOG, CAT, OAK, POODLE]].any()


# ---------------------------------------------------------------------- what a source knows


def test_a_box_that_is_likely_something_the_source_does_not_know_is_hardly_pushed_down():
    head = small_head(SMALL)
    region = random_region(1, 1, 2, 2, seed=7)
    with torch.no_grad():
        region.raw[..., 4] = 0.0
    known = torch.tensor([True, False, True, False, False, False])  # this source marks every dog, and no cat or plant
    empty = {"boxes": torch.zeros(0, 4, dtype=torch.float64), "labels": torch.zeros(0).long()}
    (all_known,) = torch.autograd.grad(region_losses(head, region, [empty])["objectness"], region.raw)
    (part_known,) = torch.autograd.grad(
        region_losses(head, region, [{**empty, "known": known}])["objectness"], region.raw, retain_graph=True
    )
    dog = tree_log_prob(dense_logits(head, region), SMALL)[..., DOG].exp()
    torch.testing.assert_close(part_known[..., 4], all_known[..., 4] * dog.detach(), **EXACT)


def test_what_a_source_knows_is_a_share_and_not_a_loss_of_the_classifier():
    head, region = small_head(SMALL), random_region(1, 2, 2, 2, seed=8)
    known = torch.tensor([True, False, True, False, False, False])
    target = {"boxes": torch.zeros(0, 4, dtype=torch.float64), "labels": torch.zeros(0).long(), "known": known}
    loss = region_losses(head, region, [target])["objectness"]
    gradients = torch.autograd.grad(loss, (region.features, head.classes.weight), allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_boxes_of_tiny_objectness_need_no_logits_to_be_pushed_down():
    head, region = small_head(SMALL), random_region(1, 2, 2, 2, seed=8)
    with torch.no_grad():
        region.raw[..., 4] = -6.0  # .0025
    known = torch.tensor([True, False, True, False, False, False])
    empty = {"boxes": torch.zeros(0, 4, dtype=torch.float64), "labels": torch.zeros(0).long()}
    part, whole = (region_losses(head, region, [{**empty, **more}])["objectness"] for more in ({"known": known}, {}))
    assert float(part) == float(whole) > 0


def test_siblings_that_a_source_does_not_know_leave_the_denominator_in_its_images_alone():
    head, region = small_head(SMALL), random_region(2, 2, 2, 2, seed=9)
    known = torch.tensor([True, True, True, False, True, True])  # no cats
    box = torch.tensor([[0.1, 0.1, 0.4, 0.4]], dtype=torch.float64)
    plain = {"boxes": box, "labels": torch.tensor([DOG])}
    for targets in (
        [{**plain, "known": known}, {"labels": torch.tensor([CAT])}],
        [plain, {"labels": torch.tensor([DOG])}],
    ):
        losses = region_losses(head, region, targets)
        (gradient,) = torch.autograd.grad(losses["tree"], head.classes.weight, retain_graph=True)
        assert bool(gradient[:, CAT].any()) == ("known" not in targets[0])
        (gradient,) = torch.autograd.grad(losses["image_label"], head.classes.weight)
        assert gradient[:, [DOG, CAT]].any()


def test_labels_that_exclude_their_siblings_deny_those_that_a_source_does_not_know():
    head, region = small_head(SMALL), random_region(1, 2, 2, 2, seed=9)
    known = torch.tensor([True, True, True, False, True, True])  # no cats
    plain = {"boxes": torch.tensor([[0.1, 0.1, 0.4, 0.4]], dtype=torch.float64), "labels": torch.tensor([DOG])}
    told, whole = (
        region_losses(head, region, [{**plain, "known": known}], exclusive=True),
        region_losses(head, region, [plain]),
    )
    assert float(told["tree"]) == float(whole["tree"])
    assert float(told["objectness"]) < float(whole["objectness"])  # a cat may be anywhere else
    (gradient,) = torch.autograd.grad(told["tree"], head.classes.weight)
    assert gradient[:, CAT].any()


# ---------------------------------------------------------------------- the head


def test_the_dense_form_is_laid_out_as_darknet_lays_it_out():
    torch.manual_seed(0)
    head = RegionHead(4, SMALL, ANCHORS)
    features = torch.randn(2, 4, 3, 5)
    dense = head.dense(features)
    region = head(features)
    assert dense.shape == (2, 2 * (5 + len(SMALL)), 3, 5)
    for anchor in range(2):
        block = dense[:, anchor * (5 + len(SMALL)) :][:, : 5 + len(SMALL)]
        torch.testing.assert_close(block[:, :5], region.raw[..., anchor, :].permute(0, 3, 1, 2))
        cell = features[1, :, 2, 4] @ head.classes.weight[anchor].T + head.classes.bias[anchor]
        torch.testing.assert_close(block[1, 5:, 2, 4], cell)


def test_a_head_starts_from_a_classifier_in_every_anchor():
    torch.manual_seed(0)
    head, classifier = RegionHead(4, SMALL, ANCHORS), TreeLinear(4, SMALL)
    nn.init.normal_(classifier.bias)
    head.start_from(classifier)
    features = torch.randn(1, 4, 1, 1)
    logits = head.dense(features).view(2, -1)[:, 5:]
    for anchor in range(2):
        torch.testing.assert_close(logits[anchor], classifier(features.flatten()[None])[0])
    with torch.no_grad():
        classifier.weight.zero_()
    assert head.classes.weight.any()  # a copy, not a view
