"""The region loss in each reading: Darknet's own values, loops over cells and truths, and the head's lean form."""

import math
import re
from typing import Any, NamedTuple

import darknet_region
import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import needs_oracle
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
from strategies import seeds, trees
from torch import Tensor

from wordtree import LabelMap, WordTree, WordTreeError
from wordtree.formats import read_map
from yolo9000 import models
from yolo9000.boxes import xyxy_to_cxcywh
from yolo9000.loss import find_rules, region_loss, region_losses

# ---------------------------------------------------------------------- the original program

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
    assert float(loss.detach()) == pytest.approx(total)


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


# ---------------------------------------------------------------------- GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="waits for a CUDA device")
@pytest.mark.parametrize("mode", MODES)
def test_a_gpu_gives_the_delta_that_the_processor_gives(mode):
    random = np.random.RandomState(0)
    truths = rows_of_targets([random_target(SMALL, boxes, random) for boxes in (7, None, 0, 5)])
    raw = torch.randn(4, 22, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss, delta, parts = region_loss(raw, truths, ANCHORS, SMALL, mode, 64, list(range(6)))
    leaf = raw.cuda().requires_grad_()
    on_gpu = region_loss(leaf, truths, ANCHORS, SMALL, mode, 64, list(range(6)))
    on_gpu[0].backward()
    torch.testing.assert_close(on_gpu[0].cpu(), loss)
    torch.testing.assert_close(leaf.grad.cpu(), -delta)
    for name, part in on_gpu[2].items():
        torch.testing.assert_close(part.cpu(), parts[name], equal_nan=True)
    model = models.yolo9000(SMALL, size=64, widths=(4, 4, 8), counts=(1, 1, 1)).cuda().train().set_mode(mode)
    targets = [{"boxes": torch.tensor([[4.0, 4.0, 40.0, 30.0]] * 2), "labels": torch.tensor([DOG, OAK])}]
    targets.append({"labels": torch.tensor([CAT])})
    losses = model(torch.rand(2, 3, 64, 64).cuda(), [{k: v.cuda() for k, v in target.items()} for target in targets])
    assert all(bool(value.isfinite()) and value.is_cuda for value in losses.values())
