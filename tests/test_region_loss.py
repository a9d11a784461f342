"""The losses of the region head: equal to plain loops in value and gradient, and to Darknet where the two agree."""

import math
import re
from typing import Any, NamedTuple

import darknet_region
import numpy as np
import oracle
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import needs_oracle
from strategies import random_tree, seeds, trees
from torch import Tensor, nn

from wordtree import LabelMap, WordTree, WordTreeError
from wordtree.formats import read_map
from wordtree.nn import TreeLinear, tree_log_prob
from yolo9000 import models
from yolo9000.boxes import xyxy_to_cxcywh
from yolo9000.head import Region, RegionHead
from yolo9000.loss import find_rules, region_loss, region_losses

EXACT = {"rtol": 1e-9, "atol": 1e-9}
ANCHORS = torch.tensor([[0.8, 0.7], [1.4, 1.1]], dtype=torch.float64)
#      animal  plant
#     /  |        \
#  dog  cat       oak
#   |
# poodle
SMALL = WordTree(["animal", "plant", "dog", "cat", "oak", "poodle"], [-1, -1, 0, 0, 1, 2])
ANIMAL, PLANT, DOG, CAT, OAK, POODLE = range(6)


def small_head(tree: WordTree, channels: int = 4, anchors: Tensor = ANCHORS, seed: int = 0) -> RegionHead:
    torch.manual_seed(seed)
    head = RegionHead(channels, tree, anchors).double()
    head.anchors = anchors  # the buffer was rounded to float32
    nn.init.normal_(head.classes.bias)
    return head


def random_region(b: int, h: int, w: int, a: int, channels: int = 4, seed: int = 0) -> Region:
    random = np.random.RandomState(seed)
    raw = torch.from_numpy(random.randn(b, h, w, a, 5)).requires_grad_()
    return Region(raw, torch.from_numpy(random.randn(b, h, w, channels)).requires_grad_())


def random_target(tree: WordTree, boxes: int | None, random: np.random.RandomState) -> dict[str, Tensor]:
    """A target in fractions of the input: `boxes` boxes, or an image label where None."""
    if boxes is None:
        return {"labels": torch.from_numpy(random.randint(0, len(tree), 1))}
    low = random.rand(boxes, 2) * 0.7
    high = low + 0.05 + random.rand(boxes, 2) * 0.25
    corners = torch.from_numpy(np.concatenate((low, high), axis=1))
    return {"boxes": corners, "labels": torch.from_numpy(random.randint(0, len(tree), boxes))}


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


def dense_logits(head: RegionHead, region: Region) -> Tensor:
    """[b, h, w, anchors, nodes]"""
    return head.classes(region.features).view(*region.raw.shape[:-1], -1)


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
    assert float(losses["box"]) == float(losses["objectness"]) == float(losses["tree"]) == 0.0
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


# ---------------------------------------------------------------------- Darknet


MODES = ("paper", "darknet", "darknet-2018")
RELEASED = {"darknet": "delta_old", "darknet-2018": "delta_master"}
CASES = [
    *("voc_seen0", "voc_seen50000", "voc_seen50000_rescore0", "voc_seen50000_biasmatch0"),
    *("tree_det_seen0", "tree_det_seen50000", "tree_cls_leaf_seen0", "tree_cls_leaf_seen50000"),
    *("tree_cls_internal_seen50000", "tree_cls_lowobj_seen50000", "tree_joint_seen50000"),
]


def oracle_loss(name: str, mode: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, dict[str, Any], Any]:
    """Our delta and parts on one case of the original program's, and the case."""
    case = oracle.values(f"region_{name}")
    tree = oracle.tree_9418() if case["tree"] else None
    mapped = read_map(oracle.FOLDER / "data" / "coco9k.map") if case["map"] else None
    raw, truths, anchors = (torch.from_numpy(case[key]) for key in ("x", "truth", "anchors"))
    switches = {"rescore": bool(case["rescore"]), "bias_match": bool(case["bias_match"])}
    _, delta, parts = region_loss(
        raw.to(dtype), truths, anchors, tree, mode, seen=int(case["seen"]), label_map=mapped, **switches
    )
    return delta, parts, case


@needs_oracle
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", RELEASED)
@pytest.mark.parametrize("name", CASES)
def test_delta_equals_the_original_programs(name, mode, dtype):
    delta, _, case = oracle_loss(name, mode, dtype)
    wanted = torch.from_numpy(case[RELEASED[mode]]).view_as(delta)
    torch.testing.assert_close(delta, wanted.to(dtype), rtol=0, atol=2e-6)


@needs_oracle
@pytest.mark.parametrize("mode", RELEASED)
@pytest.mark.parametrize("name", CASES)
def test_the_parts_hold_what_the_original_program_prints(name, mode):
    _, parts, case = oracle_loss(name, mode)
    release = {"darknet": "old", "darknet-2018": "master"}[mode]
    numbers = re.findall(r"(-?nan|-?[\d.]+)(?:,|$)", str(case[f"log_{release}"]).removeprefix("Region "))
    wanted = [abs(float(number)) for number in numbers]
    found = [float(parts[name]) for name in ("avg_iou", "class", "obj", "no_obj", "avg_recall", "count")]
    assert found == pytest.approx(wanted, abs=2e-6, nan_ok=True)
    assert float(parts["cost"]) == pytest.approx(float(case[f"cost_{release}"]), rel=1e-4)


@needs_oracle
@pytest.mark.parametrize("name", ["voc_seen50000", "tree_det_seen50000"])
def test_losses_of_boxes_in_the_papers_reading_equal_darknets_after_its_warm_up(name):
    delta, _, case = oracle_loss(name, "paper")
    wanted = torch.from_numpy(case["delta_old"]).view_as(delta)
    assert torch.equal(delta != 0, wanted != 0)
    torch.testing.assert_close(delta, wanted, rtol=1e-4, atol=2e-6)


@needs_oracle
@pytest.mark.parametrize("name", ["tree_cls_leaf_seen0", "tree_cls_internal_seen50000"])
def test_an_image_label_moves_the_classes_and_the_box_that_darknet_moves_and_pushes_no_other_down(name):
    delta, _, case = oracle_loss(name, "paper")
    delta = delta.view(3, -1, *delta.shape[2:])  # [a, 5 + n, h, w]
    wanted = torch.from_numpy(case["delta_old"]).view_as(delta)
    torch.testing.assert_close(delta[:, 5:], wanted[:, 5:], rtol=1e-4, atol=2e-6)
    assert torch.equal(delta[:, 5:] != 0, wanted[:, 5:] != 0)
    anchor, row, column = (int(at) for at in wanted[:, 5:].abs().sum(1).nonzero()[0])
    assert float(delta[anchor, 4, row, column]) == pytest.approx(float(wanted[anchor, 4, row, column]), rel=1e-4)
    delta[anchor, 4, row, column] = 0
    assert not delta[:, :5].any()  # the released code pushes these down; the paper leaves them alone


# ---------------------------------------------------------------------- the dense form, in every reading


class Case(NamedTuple):
    """One batch in Darknet's layout."""

    raw: Tensor  # float64 [b, a * (5 + n), h, w]
    truths: Tensor  # float64 [b, rows, 5]
    anchors: Tensor  # float64 [a, 2]
    tree: WordTree | None
    options: dict[str, Any]


@st.composite
def cases(draw: st.DrawFn, image_labels: bool = True) -> Case:
    """Batches in which truths meet on one predictor, lists have holes, and predictions lie on truths."""
    tree = draw(st.none() | trees(most_groups=5))
    nodes = len(tree) if tree else draw(st.integers(1, 4))
    b, h, w, a = (draw(st.integers(1, most)) for most in (3, 3, 3, 3))
    random = np.random.RandomState(draw(seeds))
    anchors = np.round(random.rand(a, 2) * 2 + 0.3, 2)
    raw = random.randn(b, a, 5 + nodes, h, w) * 2
    truths = np.zeros((b, 6, 5))
    labels = draw(st.integers(1, 5))
    label_map = random.randint(0, nodes, labels) if draw(st.booleans()) else None
    mode = draw(st.sampled_from(MODES))
    for image in range(b):
        for row in range(draw(st.integers(0, 6))):
            kind = draw(st.sampled_from(["box", "box", "near", "same", "same", "far", "hole", "label"]))
            label = random.randint(0, nodes if label_map is None else labels)
            centre, shape = random.rand(2) * 0.99 + 0.005, random.rand(2) * 0.6 + 0.02
            if kind == "far":
                centre[random.randint(2)] = 1.0
            if kind == "near":  # a predictor of its cell gives nearly this box
                i, j, n = int(centre[0] * w), int(centre[1] * h), random.randint(a)
                offset = centre * (w, h) - (i, j)
                raw[image, n, :2, j, i] = np.log(offset / (1 - offset)) + random.randn(2) * 0.1
                raw[image, n, 2:4, j, i] = np.log(shape * (w, h) / anchors[n]) + random.randn(2) * 0.1
            if kind == "label" and image_labels and (tree is not None or mode == "paper"):
                truths[image, row] = 999999, 999999, 999999, 999999, random.randint(0, nodes)
            elif kind == "same" and 0 < truths[image, row - 1, 0] < 2:  # the box of the row before, of another class
                truths[image, row] = *truths[image, row - 1, :4], label
            elif kind != "hole":
                truths[image, row] = *centre, *shape, label
    options = {
        "mode": mode,
        "seen": draw(st.sampled_from([0, 12799, 12800])),
        "label_map": label_map,
        "rescore": draw(st.booleans()),
        "bias_match": draw(st.booleans()),
    }
    flat = torch.from_numpy(raw.reshape(b, -1, h, w))
    return Case(flat, torch.from_numpy(truths), torch.from_numpy(anchors), tree, options)


def by_loops(case: Case) -> Tensor:
    parents = None if case.tree is None else case.tree.parents.tolist()
    layer = darknet_region.Layer(case.raw.numpy(), case.anchors.tolist(), parents, **case.options)
    return torch.from_numpy(layer.run(case.truths.numpy()))


def library(case: Case) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    return region_loss(case.raw, case.truths, case.anchors, case.tree, **case.options)


@settings(max_examples=300)
@given(cases())
def test_delta_equals_loops_over_cells_truths_and_anchors_in_every_reading(case):
    _, delta, _ = library(case)
    torch.testing.assert_close(delta, by_loops(case), **EXACT)


@settings(max_examples=30)
@given(cases())
def test_the_gradient_of_the_loss_is_minus_delta_and_the_parts_add_up_to_it(case):
    raw = case.raw.clone().requires_grad_()
    loss, delta, parts = library(case._replace(raw=raw))
    assert not delta.requires_grad
    (3 * loss).backward()
    assert torch.equal(raw.grad, -3 * delta)
    total = sum(float(parts[name]) for name in ("box", "objectness", "tree", "image_label"))
    assert float(loss) == pytest.approx(total)


@settings(max_examples=30)
@given(cases(), seeds)
def test_delta_is_minus_the_slope_of_the_objective_whose_aims_are_held(case, seed):
    """A small step along a direction changes the loss by -delta times it, but for what the step does to the aims."""
    if case.options["rescore"]:  # with it the aims move
        case.options["rescore"] = False
    _, delta, _ = library(case)
    step = torch.from_numpy(np.random.RandomState(seed).randn(*case.raw.shape)) * 1e-6
    before, after = (float(library(case._replace(raw=case.raw + sign * step))[0]) for sign in (-1, 1))
    assert after - before == pytest.approx(-2 * float((delta * step).sum()), abs=1e-8)


def rows_of_targets(targets: list[dict[str, Tensor]]) -> Tensor:
    """Targets in fractions of the input as Darknet's rows. float64 [b, rows, 5]"""
    rows = torch.zeros(len(targets), 30, 5, dtype=torch.float64)
    for image, target in enumerate(targets):
        labels = target["labels"].double()
        if "boxes" in target:
            boxes = xyxy_to_cxcywh(target["boxes"])
            rows[image, : len(labels)] = torch.cat((boxes, labels[:, None]), dim=1)
        else:
            rows[image, 0] = torch.tensor([999999.0] * 4 + [float(labels[0])])
    return rows


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(4))
def test_the_losses_of_the_head_equal_the_dense_form_in_value_and_gradient(mode, seed):
    random = np.random.RandomState(seed)
    tree = SMALL if seed else WordTree(["a", "b", "c"], [-1] * 3)
    kinds = (7, None, 0, 5) if seed or mode == "paper" else (7, 2, 0, 5)  # so many boxes meet on 2 x 3 cells
    targets = [random_target(tree, boxes, random) for boxes in kinds]
    head, region = small_head(tree, seed=seed), random_region(4, 2, 3, 2, seed=seed)
    leaves = (region.raw, region.features, head.classes.weight, head.classes.bias)
    lean = region_losses(head, region, targets, rules=find_rules(mode), seen=64 + 50000 * (seed % 2))
    dense = torch.cat((region.raw, dense_logits(head, region)), dim=-1).permute(0, 3, 4, 1, 2).flatten(1, 2)
    flat = tree is not SMALL
    loss, _, parts = region_loss(
        dense, rows_of_targets(targets), ANCHORS, None if flat else tree, mode, 64 + 50000 * (seed % 2)
    )
    for name, value in lean.items():
        torch.testing.assert_close(value.detach(), parts[name] / 4, **EXACT)
    by_head = torch.autograd.grad(torch.stack(list(lean.values())).sum(), leaves, retain_graph=True)
    for one, other in zip(by_head, torch.autograd.grad(loss / 4, leaves), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("mode", MODES)
def test_a_detector_trains_by_the_rules_it_is_given(mode):
    torch.manual_seed(0)
    model = models.yolo9000(SMALL, size=64, widths=(4, 4, 8), counts=(1, 1, 1)).train()
    model.loss_rules, model.seen = find_rules(mode), 64
    images = torch.rand(2, 3, 64, 64)
    boxes = torch.tensor([[4.0, 4.0, 40.0, 30.0], [5.0, 6.0, 38.0, 32.0]])  # on one predictor
    targets = [{"boxes": boxes, "labels": torch.tensor([DOG, OAK])}, {"labels": torch.tensor([CAT])}]
    losses = model(images, targets)
    with torch.no_grad():
        dense = model.head.dense(model.neck(model.trunk(images)))
    rows = rows_of_targets([{**targets[0], "boxes": boxes.double() / 64}, targets[1]])
    _, _, parts = region_loss(dense, rows.float(), model.head.anchors, SMALL, mode, seen=64)
    for name, value in losses.items():
        assert float(value.detach()) == pytest.approx(float(parts[name]) / 2, rel=1e-5)


# ---------------------------------------------------------------------- one rule at a time


def one_label(mode: str, raw: Tensor, label: int = POODLE) -> Tensor:
    """Delta of the class logits of one image label. float [a, n, h, w]"""
    truths = torch.tensor([[[999999.0, 999999.0, 999999.0, 999999.0, label], [0.0] * 5]], dtype=torch.float64)
    _, delta, _ = region_loss(raw, truths, ANCHORS, SMALL, mode)
    return delta.view(2, 11, *raw.shape[2:])[:, 5:]


@pytest.mark.parametrize(("mode", "first"), [("paper", [1, 0, 0]), ("darknet", [1, 0, 0]), ("darknet-2018", [0, 1, 0])])
def test_of_equal_boxes_the_first_in_the_readings_order_takes_an_image_label(mode, first):
    raw = torch.zeros(1, 2, 11, 2, 2, dtype=torch.float64)
    raw[0, 1, 4, 0, 0] = raw[0, 0, 4, 1, 0] = 1.0  # the second anchor of the first cell; the first of the third cell
    delta = one_label(mode, raw.flatten(1, 2))
    assert delta.abs().sum(1).nonzero().tolist() == [first]  # anchor, row, column


@pytest.mark.parametrize("mode", MODES)
def test_where_all_odds_underflow_the_released_code_takes_the_first_box_and_the_paper_the_likeliest(mode):
    raw = torch.zeros(1, 2, 11, 2, 2, dtype=torch.float64)
    raw[0, :, 5 + POODLE] = 0.0
    raw[0, :, 5 + PLANT] = 200.0  # Pr(animal) is e^-200, far below float32's range
    raw[0, 1, 5 + PLANT, 1, 1] = 199.0
    delta = one_label(mode, raw.flatten(1, 2))
    wanted = [1, 1, 1] if mode == "paper" else [0, 0, 0]
    assert delta.abs().sum(1).nonzero().tolist() == [wanted]


@pytest.mark.parametrize("mode", MODES)
def test_a_hole_among_the_rows_hides_the_later_ones_from_the_released_code_alone(mode):
    box = [0.5, 0.5, 0.3, 0.3, DOG]
    truths = torch.tensor([[[0.2, 0.2, 0.3, 0.3, CAT], [0.0] * 5, box]], dtype=torch.float64)
    raw = torch.zeros(1, 22, 3, 3, dtype=torch.float64)
    _, _, parts = region_loss(raw, truths, ANCHORS, SMALL, mode)
    assert float(parts["count"]) == (2 if mode == "paper" else 1)


@pytest.mark.parametrize("mode", MODES)
def test_what_a_lost_truth_wrote_in_other_groups_stays_in_the_released_code_alone(mode):
    rows = [[0.5, 0.5, 0.3, 0.3, POODLE], [0.5, 0.5, 0.3, 0.3, OAK], [0.5, 0.5, 0.3, 0.3, ANIMAL]]
    raw = torch.randn(1, 22, 1, 1, dtype=torch.float64)
    _, delta, parts = region_loss(raw, torch.tensor([rows], dtype=torch.float64), ANCHORS, SMALL, mode, seen=50000)
    classes = delta.view(2, 11)[:, 5:]
    at = int(classes.abs().sum(1).argmax())
    moved = classes[at].abs() > 1e-12
    assert moved[[ANIMAL, PLANT]].all()  # the last truth's group
    assert moved[[DOG, CAT]].all() == moved[[DOG, CAT]].any() == (mode != "paper")
    assert not moved[[OAK, POODLE]].any()  # groups of one
    assert classes[at, ANIMAL] > 0
    assert classes[at, PLANT] < 0
    if mode != "paper":
        assert classes[at, DOG] > 0
        assert classes[at, CAT] < 0
    assert float(parts["count"]) == 3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(20))
def test_truths_that_meet_on_one_predictor_share_their_paths_to_any_depth(mode, seed):
    random = np.random.RandomState(seed)
    tree = WordTree([str(node) for node in range(14)], [-1, -1, 0, 0, 2, 2, 4, 4, 6, 6, 7, 7, 5, 5])
    truths = torch.tensor([[[0.5, 0.5, 0.3, 0.3, label] for label in random.randint(0, 14, 4)]], dtype=torch.float64)
    options = {"mode": mode, "seen": 50000, "label_map": None, "rescore": True, "bias_match": True}
    case = Case(torch.from_numpy(random.randn(1, 38, 1, 1)), truths, ANCHORS, tree, options)
    _, delta, _ = library(case)
    torch.testing.assert_close(delta, by_loops(case), **EXACT)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rows", [0, 3])
def test_an_image_without_truths_has_its_objectness_pushed_down_and_nothing_else(mode, rows):
    raw = torch.randn(2, 22, 2, 3, dtype=torch.float64)
    _, delta, parts = region_loss(raw, torch.zeros(2, rows, 5), ANCHORS, SMALL, mode, seen=50000)
    entries = delta.view(2, 2, 11, 2, 3)
    assert (entries[:, :, 4] < 0).all()
    entries[:, :, 4] = 0
    assert not entries.any()
    assert float(parts["count"]) == 0
    assert math.isnan(float(parts["avg_iou"]))
    _, delta, _ = region_loss(raw, torch.zeros(2, rows, 5), ANCHORS, SMALL, mode, seen=12799)
    assert bool(delta.view(2, 2, 11, 2, 3)[:, :, :4].any()) == (mode != "paper")


def test_a_label_map_is_for_boxes_and_an_image_label_is_a_node_already():
    truths = torch.tensor([[[0.5, 0.5, 0.3, 0.3, 0.0]], [[999999.0, 999999.0, 999999.0, 999999.0, OAK]]])
    raw = torch.randn(2, 22, 2, 2)
    for label_map in ([CAT], np.array([CAT]), torch.tensor([CAT]), LabelMap("one", ["cat"], ["cat"])):
        _, delta, _ = region_loss(raw, truths, ANCHORS, SMALL, "darknet", label_map=label_map, seen=50000)
        moved = delta.view(2, 2, 11, 2, 2)[:, :, 5:].abs().sum((1, 3, 4)) > 0
        assert moved.tolist() == [[True, True, True, True, False, False], [True, True, False, False, False, False]]


def test_a_dense_output_in_half_precision_gives_a_delta_in_single():
    raw = torch.randn(1, 22, 2, 2).bfloat16()
    truths = torch.tensor([[[0.5, 0.5, 0.3, 0.3, DOG]]])
    loss, delta, _ = region_loss(raw, truths, ANCHORS, SMALL)
    other, wanted, _ = region_loss(raw.float(), truths, ANCHORS, SMALL)
    assert torch.equal(delta, wanted)
    assert torch.equal(loss, other)


BOX, LABEL = [0.5, 0.5, 0.3, 0.3, 0.0], [999999.0, 999999.0, 999999.0, 999999.0, 0.0]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"raw": torch.full((1, 22, 2, 2), math.nan)}, "raw output with 88 numbers that are not finite; give"),
        ({"raw": torch.zeros(1, 22, 2, 2).index_fill(1, torch.tensor(7), -math.inf)}, "raw output with 4 numbers"),
        ({"raw": torch.zeros(1, 21, 2, 2)}, r"\(1, 21, 2, 2\) for 2 anchors; give \[b, 2 \* \(11\), h, w\]"),
        ({"raw": torch.zeros(22, 2, 2)}, r"raw output of \(22, 2, 2\)"),
        ({"truths": torch.tensor([[[0.5, math.nan, 0.3, 0.3, 0.0]]])}, "truths with 1 numbers that are not finite"),
        ({"truths": torch.zeros(2, 1, 5)}, r"truths of \(2, 1, 5\) for 1 images; give \[1, rows, 5\]"),
        (
            {"truths": torch.tensor([[BOX, [0.5, 1.5, 0.3, 0.3, 0.0]]])},
            "truth 1 of image 0 is .*; a box has its centre",
        ),
        ({"truths": torch.tensor([[[0.5, 0.5, 0.0, 0.3, 0.0]]])}, "truth 0 of image 0 .* a width and a height above 0"),
        ({"truths": torch.tensor([[[*BOX[:4], 6.0]]])}, "class 6 of a box; classes are 0 to 5"),
        ({"truths": torch.tensor([[[*LABEL[:4], -1.0]]])}, "class -1 of an image; classes are 0 to 5"),
        ({"label_map": [1, 2], "truths": torch.tensor([[[*BOX[:4], 2.0]]])}, "class 2 of a box; classes are 0 to 1"),
        ({"label_map": [1, 6]}, r"label map of \(2,\), torch.int64; give the node of each label, .* 0 to 5"),
        ({"label_map": [0.5]}, "label map of .* torch.float32; give the node"),
        ({"mode": "dark"}, "dark.*darknet"),
        ({"tree": None, "mode": "darknet", "truths": torch.tensor([[LABEL]])}, "6 flat classes; .*: give a tree"),
    ],
)
def test_what_does_not_fit_is_refused_in_three_parts(change, parts):
    given = {"raw": torch.zeros(1, 22, 2, 2), "truths": torch.tensor([[BOX]]), "tree": SMALL, **change}
    with pytest.raises(WordTreeError, match=parts):
        region_loss(anchors=ANCHORS, **given)
