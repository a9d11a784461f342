"""torchvision's detectors over a tree: their own code on the problem of one class, the tree beside it."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import wordtree_torchvision
from hypothesis import given, settings
from strategies import seeds, trees
from tiny_detectors import BACKGROUND, KINDS, scene, tiny
from torch.nn import functional
from wordtree_torchvision import SUMMARIES, attach
from wordtree_torchvision.detector import deepest, log_sigmoid, pull, softened
from wordtree_torchvision.head import Knowledge, TreeHead, patches
from wordtree_torchvision.pretrained import TRUNKS, InHand
from wordtree_torchvision.zoo import build, coco_columns

from wordtree import WordTree, WordTreeError, build_tree, plugins
from wordtree.nn import tree_log_prob

ROOT = Path(__file__).parent.parent
TREE = WordTree(["animal", "plant", "dog", "cat", "oak", "poodle", "boxer"], [-1, -1, 0, 0, 1, 2, 2])
ONE = WordTree(["thing"], [-1])
IMAGES = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]


def flat(leaves: int) -> WordTree:
    return WordTree([f"c{leaf}" for leaf in range(leaves)], [-1] * leaves)


def shown(model, images, threshold=0.01):
    """What a model detects, of everything that it has not thrown away."""
    model.eval()
    if isinstance(model, wordtree_torchvision.zoo.TreeDetector):
        model.threshold = threshold
    return model(images)


# ---------------------------------------------------------------------- flat trees give the original


@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_of_one_node_is_torchvisions_detector_of_one_class(kind):
    own = tiny(kind, 1)
    ours = attach(own, ONE)
    targets = [scene([0, 0]), scene([0]), scene([])]
    shifted = [{**target, "labels": target["labels"] + BACKGROUND[kind]} for target in targets]
    torch.manual_seed(1)  # Faster R-CNN samples
    wanted = own.train()(IMAGES, shifted)
    torch.manual_seed(1)
    losses = ours.train()(IMAGES, targets)
    for name, loss in wanted.items():
        torch.testing.assert_close(losses[name], loss)
    assert set(losses) == {*wanted, "tree", "image_label"}
    assert losses["tree"] == 0
    assert losses["image_label"] == 0
    found, wanted = ours.eval()(IMAGES), own.eval()(IMAGES)
    assert sum(len(one["boxes"]) for one in wanted) > 20
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one["boxes"], other["boxes"])
        torch.testing.assert_close(one["scores"], other["scores"])
        assert (one["labels"] == 0).all()


@pytest.mark.parametrize("kind", ["fasterrcnn", "ssd"])
def test_a_flat_tree_on_a_softmax_with_a_background_is_that_softmax(kind):
    own = tiny(kind, 5)
    if kind == "fasterrcnn":  # one box a proposal: the stock detector has one a class
        layer = own.roi_heads.box_predictor.bbox_pred
        with torch.no_grad():
            layer.weight.copy_(layer.weight[:4].repeat(6, 1))
            layer.bias.copy_(layer.bias[:4].repeat(6))
    tree = flat(5)
    ours = attach(own, tree, [None, *tree.ids])
    targets = [scene([0, 3]), scene([4]), scene([1, 2, 2])]
    shifted = [{**target, "labels": target["labels"] + 1} for target in targets]
    torch.manual_seed(1)
    wanted = own.train()(IMAGES, shifted)
    torch.manual_seed(1)
    losses = ours.train()(IMAGES, targets)
    name = "loss_classifier" if kind == "fasterrcnn" else "classification"
    torch.testing.assert_close(losses[name] + losses["tree"], wanted[name])  # the softmax in two factors
    assert losses["tree"] > 0.1
    box = "loss_box_reg" if kind == "fasterrcnn" else "bbox_regression"
    torch.testing.assert_close(losses[box], wanted[box])
    found, wanted = ours.eval()(IMAGES), own.eval()(IMAGES)
    assert sum(len(one["boxes"]) for one in wanted) > 20
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one["boxes"], other["boxes"], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(one["scores"], other["scores"], rtol=1e-4, atol=1e-6)
        assert (one["labels"] + 1 == other["labels"]).all()
        assert one["paths"] == [(node,) for node in one["labels"].tolist()]


@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_a_flat_tree_on_sigmoids_is_objectness_times_a_softmax(kind):
    """The stated equivalent: torchvision's own post-processing, of sigmoids that are objectness x Pr(class)."""
    own, tree = tiny(kind, 4), flat(4)
    ours = attach(own, tree, list(tree.ids))
    targets = [scene([0, 3]), scene([1]), scene([2, 2])]
    losses = ours.train()(IMAGES, targets)
    batch, features, placed = ours.look(IMAGES, targets)
    seen = ours.see(batch, features)
    total, shares = 0.0, []
    for image, target in enumerate(placed):
        match = ours.match(seen, image, target)
        at = match >= 0
        shares.append(int(at.sum()))
        loss = functional.cross_entropy(seen.columns[image, at], target["labels"][match[at]], reduction="sum")
        total = total + (loss / len(IMAGES) / shares[-1] if kind == "retinanet" else loss)
    assert min(shares) > 0
    torch.testing.assert_close(losses["tree"], total if kind == "retinanet" else total / sum(shares))

    ours.eval()
    with torch.no_grad():
        batch, features, _ = ours.look(IMAGES)
        seen = ours.see(batch, features)
        probs = seen.columns.amax(-1, keepdim=True).sigmoid() * seen.columns.softmax(-1)
        if (
            kind == "fcos"
        ):  # the detector multiplies by the centredness and takes the root; ours has it in the objectness
            probs = probs * seen.columns.softmax(-1)
        outputs = {"cls_logits": probs.logit(), **seen.boxes}
        split = {name: list(part.split(seen.levels, 1)) for name, part in outputs.items()}
        anchors = [list(part.split(seen.levels)) for part in seen.anchors]
        wanted = own.postprocess_detections(split, anchors, batch.image_sizes)
    found = ours(IMAGES)
    assert sum(len(one["boxes"]) for one in wanted) > 20
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one["scores"], other["scores"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(one["boxes"], other["boxes"], rtol=1e-4, atol=1e-3)
        assert torch.equal(one["labels"], other["labels"])


# ---------------------------------------------------------------------- the lean head


@pytest.mark.parametrize("kernel", [1, 3])
def test_gathered_patches_are_what_a_convolution_reads(kernel):
    maps = torch.randn(2, 5, 4, 6)
    weight = torch.randn(7, 5, kernel, kernel)
    dense = functional.conv2d(maps, weight, padding=kernel // 2)
    image, row, column = (dense[:, 0] != torch.inf).nonzero(as_tuple=True)
    read = patches(maps, image, row, column, kernel)
    flat_weight = weight.permute(2, 3, 1, 0).flatten(0, 2)  # [kernel * kernel * channels, 7]
    torch.testing.assert_close(read @ flat_weight, dense[image, :, row, column], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_detections_are_the_descent_of_the_dense_logits_at_the_kept_boxes(kind):
    ours = attach(tiny(kind, 1), TREE).eval()
    ours.head.classes.weight.data *= 300
    ours.threshold, ours.iou = 0.05, 1.0  # nothing suppressed
    ours.detections = 10_000
    batch, features, _ = ours.look(IMAGES)
    kept = ours.keep(batch, features, 0.05)
    log_prob = tree_log_prob(ours.head.classes(kept.x).double(), TREE)
    found = ours(IMAGES)
    for image, one in enumerate(found):
        mine = kept.image == image
        scores = torch.zeros(int(mine.sum()), dtype=torch.float64)
        nodes = []
        for row, probs in enumerate(log_prob[mine].exp().tolist()):
            node, at = -1, TREE.children()
            while at:
                best = max(at, key=probs.__getitem__)
                if probs[best] <= 0.5:
                    break
                node, at = best, TREE.children(best)
            nodes.append(node)
            scores[row] = float(kept.objectness[mine][row].detach()) * (probs[node] if node >= 0 else 1.0)
        order = [row for row in torch.argsort(scores, descending=True).tolist() if scores[row] > 0.05]
        torch.testing.assert_close(one["scores"].double(), scores[order], rtol=1e-4, atol=1e-5)
        assert one["labels"].tolist() == [nodes[row] for row in order]
        assert one["paths"] == [TREE.path(nodes[row]) for row in order]
        deep = one["labels"] >= 0
        last = torch.tensor([len(path) - 1 for path in one["paths"]], dtype=torch.int64)[deep]
        ends = one["path_probs"][deep].gather(1, last[:, None])[:, 0]
        torch.testing.assert_close(one["objectness"][deep] * ends.float(), one["scores"][deep], rtol=1e-4, atol=1e-5)
    assert len({node for one in found for node in one["labels"].tolist()}) > 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_higher_tree_threshold_never_goes_deeper(kind):
    ours = attach(tiny(kind, 1), TREE).eval()
    ours.head.classes.weight.data *= 300
    ours.iou, ours.threshold = 1.0, 0.01
    depths = []
    for ours.tree_threshold in (0.0, 0.5, 0.9, 1.0):
        depths.append(sum(len(path) for one in ours(IMAGES) for path in one["paths"]))
    assert depths == sorted(depths, reverse=True)
    assert depths[0] > depths[-1] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_no_logit_of_the_tree_is_computed_where_nothing_is_kept(kind, monkeypatch):
    asked = []
    forward = TreeHead.forward
    monkeypatch.setattr(TreeHead, "forward", lambda self, *args: asked.append(len(args[1])) or forward(self, *args))
    ours = attach(tiny(kind, 1), TREE)
    ours.eval().threshold = 1.0
    (found,) = ours(IMAGES[:1])
    assert sum(asked) == len(found["boxes"]) == 0
    assert found["path_probs"].shape[0] == 0
    ours.train()(IMAGES[:1], [scene([5])])
    if kind == "fasterrcnn":  # of the proposals that it samples: each may be a background of another class
        assert 0 < sum(asked) <= ours.model.roi_heads.fg_bg_sampler.batch_size_per_image
    else:
        anchors = sum(ours.see(*ours.look(IMAGES[:1])[:2]).levels)
        assert 0 < sum(asked) < anchors / 5


# ---------------------------------------------------------------------- joint training


def best_by_hand(ours, image, label):
    """log objectness, log Pr(label) of every box of an image; rows for the classifier."""
    with torch.no_grad():
        batch, features, _ = ours.look([image])
        if hasattr(ours, "match"):
            seen = ours.see(batch, features)
            at = torch.arange(seen.logits.shape[1])
            x, log_objectness = ours.rows(seen, torch.zeros_like(at), at), seen.log_objectness[0]
        else:
            proposals, _ = ours.propose(batch, features, [], [])
            read, columns, logits, _ = ours.see(batch, features, [proposals[0][:32]])
            x, log_objectness = ours.rows(read, columns), log_sigmoid(logits)
        return log_objectness, tree_log_prob(ours.head.classes(x), TREE)[:, label]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("faint", [False, True])
def test_an_image_label_teaches_its_likeliest_box_alone(kind, faint):
    ours = attach(tiny(kind, 1), TREE).train()
    ours.head.classes.weight.data *= 300
    if faint:  # nothing is thought to be an object: the objectness is pulled up
        for name, parameter in ours.model.named_parameters():
            if "cls_logits" in name or "cls_score" in name or "classification_head.module_list" in name:
                parameter.data *= 0.1
                if name.endswith("bias"):
                    parameter.data[BACKGROUND[kind] :: 1 + BACKGROUND[kind]] -= 6
    label = 5
    log_objectness, log_prob = best_by_hand(ours, IMAGES[0], label)
    best = int((log_objectness + log_prob).argmax())
    losses = ours([IMAGES[0]], [{"labels": torch.tensor([label])}])
    cost = pull(log_objectness[best])
    assert (cost > 0.1) if faint else (cost >= 0)
    torch.testing.assert_close(losses["image_label"], cost - log_prob[best], rtol=1e-4, atol=1e-4)
    assert all(float(loss.detach()) == 0 for name, loss in losses.items() if name != "image_label")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", ["boxes", "label", "nothing", "both"])
def test_every_parameter_gets_a_gradient_from_every_kind_of_batch(kind, targets):
    ours = attach(tiny(kind, 3), TREE, [*[None] * BACKGROUND[kind], "dog", "cat", "oak"]).train()
    label = {"labels": torch.tensor([5])}
    given = {"boxes": [scene([2, 5])], "label": [label], "nothing": [scene([])], "both": [scene([0]), label]}[targets]
    losses = ours(IMAGES[: len(given)], given)
    total = sum(losses.values())
    assert total.isfinite()
    total.backward()
    assert [name for name, parameter in ours.named_parameters() if parameter.grad is None] == []
    assert all(parameter.grad.isfinite().all() for parameter in ours.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_steps_learn_boxes_and_names(kind):
    torch.manual_seed(0)
    ours = attach(tiny(kind, 1, spread=0.5), TREE).train()
    optimizer = torch.optim.Adam(ours.parameters(), lr=2e-3)
    targets = [scene([5]), scene([4]), {"labels": torch.tensor([3])}]
    history = []
    for _ in range(60):
        losses = ours(IMAGES, targets)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(losses)
    assert history[-1]["tree"] < history[0]["tree"] / 2
    assert history[-1]["image_label"] < history[0]["image_label"] / 2
    ours.eval().threshold = 0.1
    found = ours(IMAGES)
    assert [int(one["labels"][0]) for one in found[:2]] == [5, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_that_knows_everything_is_one_that_says_nothing(kind):
    ours = attach(tiny(kind, 1), TREE).train()
    torch.manual_seed(1)
    plain = ours(IMAGES[:1], [scene([2, 5])])
    torch.manual_seed(1)
    known = ours(IMAGES[:1], [{**scene([2, 5]), "known": torch.ones(len(TREE), dtype=torch.bool)}])
    for name, loss in plain.items():
        torch.testing.assert_close(known[name], loss)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_source_does_not_know_is_no_negative(kind):
    """Siblings it does not know leave the softmax; objects that may be of such a class are pushed down less."""
    ours = attach(tiny(kind, 1), TREE).train()
    with torch.no_grad():  # every box looks like a plant, and the source knows only animals
        ours.head.classes.bias[0, 1] = 8.0
    known = torch.tensor([True, False, True, False, False, False, False])
    name = "loss_classifier" if kind == "fasterrcnn" else "classification"
    torch.manual_seed(1)
    plain = ours(IMAGES[:1], [scene([2])])
    torch.manual_seed(1)
    partial = ours(IMAGES[:1], [{**scene([2]), "known": known}])
    assert partial[name] < 0.8 * plain[name]
    assert float(partial["tree"].detach()) == pytest.approx(0.0, abs=1e-6)  # no sibling is left
    assert plain["tree"] > 0.3
    ours.zero_grad()
    partial["tree"].backward()
    assert float(ours.head.classes.bias.grad.abs().sum()) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("kind", ["retinanet", "fcos", "ssd"])
def test_a_network_that_went_astray_has_a_loss_that_is_no_number(kind):
    """The training loop tells of that, and keeps the last good weights; nothing else fails before."""
    ours = attach(tiny(kind, 1), TREE).train()
    with torch.no_grad():
        for parameter in ours.model.backbone.parameters():
            parameter.fill_(torch.nan)
    losses = ours(IMAGES[:2], [scene([2]), {"labels": torch.tensor([5])}])
    assert losses["image_label"].isnan()
    assert [len(one["boxes"]) for one in ours.eval()(IMAGES[:1])] == [0]


@given(seed=seeds)
@settings(max_examples=20)
def test_softening_a_logit_scales_its_cost_as_background_and_the_slope(seed):
    random = torch.Generator().manual_seed(seed)
    objectness = (torch.randn(30, generator=random, dtype=torch.float64) * 6).requires_grad_()
    share = torch.rand(30, generator=random, dtype=torch.float64).clamp(min=1e-3)
    cost = functional.softplus(softened(objectness, share))
    torch.testing.assert_close(cost, share * functional.softplus(objectness))
    (slope,) = torch.autograd.grad(cost.sum(), objectness)
    torch.testing.assert_close(slope, share * objectness.sigmoid())
    torch.testing.assert_close(softened(objectness, torch.ones(30, dtype=torch.float64)), objectness)


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.03, 0.5, 1.0])
def test_softening_is_finite_wherever_a_logit_is(share):
    """float32 loses what a logarithm is taken of from -87 on, and a slope that is no number is one times 0 too."""
    objectness = torch.linspace(-200, 200, 4001).requires_grad_()
    soft = softened(objectness, torch.full_like(objectness, share))
    (slope,) = torch.autograd.grad(soft.sum(), objectness)
    assert soft.isfinite().all()
    assert slope.isfinite().all()
    plain = objectness.detach().double().requires_grad_()
    cost = functional.softplus(plain) * max(share, 1e-4)
    exact = cost + (-(-cost).expm1()).log()
    (exact_slope,) = torch.autograd.grad(exact.sum(), plain)
    near = plain > -30
    torch.testing.assert_close(soft[near], exact[near].float(), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(slope[near], exact_slope[near].float())
    torch.testing.assert_close(functional.softplus(soft), functional.softplus(exact).float(), atol=1e-12, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", [None, "known"])
def test_the_head_is_of_the_models_type_and_where_it_is(kind, columns):
    model = tiny(kind, 2).double()
    ids = [None] * BACKGROUND[kind] + [None, TREE.ids[3]]
    ours = attach(model, TREE, ids if columns else None, width=8)
    assert {value.dtype for value in ours.parameters()} == {torch.float64}
    assert ours.head.classes.features == 8 + (len(ours.head.knowledge.nodes) if columns else 0)
    images = [image.double() for image in IMAGES[:2]]
    losses = ours(images, [scene([2]), {"labels": torch.tensor([5])}])
    sum(losses.values()).backward()
    ours.eval().threshold = 0.0
    assert ours(images)[0]["scores"].dtype == torch.float64
    far = attach(tiny(kind, 2).to("meta"), TREE, ids if columns else None)
    assert {value.device.type for value in (*far.parameters(), *far.buffers())} == {"meta"}


def test_the_pull_of_an_image_label_ends_at_the_papers_overlap():
    objectness = torch.tensor([1e-4, 0.1, 0.29, 0.3, 0.6, 1.0], dtype=torch.float64).requires_grad_()
    cost = pull(objectness.log())
    aim = torch.tensor(0.3, dtype=torch.float64)
    wanted = functional.binary_cross_entropy(objectness[:3], aim.expand(3), reduction="none")
    wanted = wanted - functional.binary_cross_entropy(aim, aim)
    torch.testing.assert_close(cost[:3], wanted)
    assert (cost[3:] == 0).all()
    (slope,) = torch.autograd.grad(cost.sum(), objectness)
    assert (slope[:3] < 0).all()
    assert (slope[3:] == 0).all()


def test_labels_that_exclude_their_siblings_deny_those_that_a_source_does_not_know():
    ours = attach(tiny("retinanet", 3), TREE, ["dog", "cat", "oak"]).train()
    known = torch.tensor([True, False, True, True, False, True, True])
    targets = [{**scene([2, 5]), "known": known}]
    whole = ours(IMAGES[:1], [scene([2, 5])])["tree"]
    assert float(ours(IMAGES[:1], targets)["tree"].detach()) != float(whole.detach())
    ours.exclusive = True
    assert float(ours(IMAGES[:1], targets)["tree"].detach()) == float(whole.detach())


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_to_bfloat16_trains_and_keeps_boxes_and_scores_in_float32(kind):
    ours = attach(tiny(kind, 3), TREE, [*[None] * BACKGROUND[kind], "dog", "cat", "oak"]).train()
    known = torch.tensor([True, False, True, True, False, True, True])
    targets = [{**scene([2, 5]), "known": known}, {"labels": torch.tensor([3])}]
    losses = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(ours(IMAGES[:2], targets))
    for name, loss in losses[0].items():
        torch.testing.assert_close(losses[1][name].float(), loss, rtol=0.1, atol=0.1)
    sum(losses[1].values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in ours.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        found = shown(ours, IMAGES, 0.05)
    assert {one[name].dtype for one in found for name in ("boxes", "scores", "objectness")} == {torch.float32}


# ---------------------------------------------------------------------- what a pretrained detector knows


@given(tree=trees(), seed=seeds)
@settings(max_examples=60)
def test_the_tree_starts_from_what_the_columns_know(tree, seed):
    """Shares inside a group are those of the columns below its members; strangers share 1 % of each group."""
    random = np.random.RandomState(seed)
    columns = random.randint(-1, len(tree), size=6)
    columns[random.randint(6)] = random.randint(len(tree))
    knowledge = Knowledge(tree, columns)
    head = TreeHead(tree, [(4, 1)], knowledge, width=8)
    logits = torch.from_numpy(random.randn(3, 6)).float()
    x = head(0, torch.randn(3, 4), torch.zeros(3, dtype=torch.int64), logits)
    probs = tree_log_prob(head.classes(x).detach(), tree).exp().double().numpy()
    share = torch.from_numpy(np.where(columns >= 0, logits, -np.inf)).softmax(1).numpy()  # [3, columns]
    mass = np.zeros((3, len(tree)))
    for column, node in enumerate(columns):
        if node >= 0:
            mass[:, list(tree.path(node))] += share[:, [column]]
    for node in range(len(tree)):
        parent = int(tree.parents[node])
        siblings = list(tree.children(parent))
        known = mass[:, siblings].sum(1)
        if (known > 0).all():
            strangers = sum(mass[0, sibling] == 0 for sibling in siblings)
            above = probs[:, parent] if parent >= 0 else 1.0
            wanted = mass[:, node] / known if mass[0, node] > 0 else np.full(3, 0.01 / max(1, strangers))
            np.testing.assert_allclose(probs[:, node] / above, wanted / (1.01 if strangers else 1.0), rtol=2e-3)


def tau(a, b):
    """The share of pairs in one order in both, less the share of pairs that are not (Kendall)."""
    upper = np.triu_indices(len(a), 1)
    return float(np.mean(np.sign(np.subtract.outer(a, a)[upper]) * np.sign(np.subtract.outer(b, b)[upper])))


COCO = build_tree("coco")


def best_scores(own, ours, images):
    """Of every box, the stock detector's best score; our objectness; and that times Pr(likeliest leaf)."""
    kind = type(own).__name__
    with torch.no_grad():
        batch, features, _ = ours.look(images)
        if kind == "FasterRCNN":
            proposals, _ = own.rpn(batch, features)
            read, columns, logits, _ = ours.see(batch, features, proposals)
            x, objectness = ours.rows(read, columns), logits.sigmoid()
        else:
            seen = ours.see(batch, features)
            at = torch.arange(seen.logits.shape[1])
            columns, objectness = seen.columns[0], seen.log_objectness[0].exp()
            x = ours.rows(seen, torch.zeros_like(at), at)
        if kind in ("FasterRCNN", "SSD"):
            best = columns.softmax(1)[:, 1:].amax(1)
        else:
            best = columns.sigmoid().amax(1)
        if kind == "FCOS":
            best = (best * seen.boxes["bbox_ctrness"][0, :, 0].sigmoid()).sqrt()
        leaf = tree_log_prob(ours.head.classes(x), ours.tree)[:, torch.tensor(ours.tree.leaves)].exp().amax(1)
    return best.numpy(), objectness.numpy(), (objectness * leaf).numpy()


@pytest.mark.parametrize(("kind", "least"), [("fasterrcnn", 0.94), ("ssd", 0.86), ("retinanet", 0.7), ("fcos", 0.25)])
def test_the_order_of_a_pretrained_detectors_boxes_is_kept_at_step_0(kind, least):
    own = tiny(kind, 91 - BACKGROUND[kind], spread=1.5).double()
    ours = attach(own, COCO).double().eval()
    assert len(ours.head.knowledge.nodes) == len(COCO)
    best, objectness, score = best_scores(own, ours, [IMAGES[0].double()])
    if kind in ("retinanet", "fcos"):
        assert tau(best, objectness) == 1.0  # the objectness is the best class
    print(f"{kind}: tau {tau(best, objectness):.2f} by objectness, {tau(best, score):.2f} by score")  # the page says it
    assert tau(best, score) > least


# ---------------------------------------------------------------------- odd inputs


@pytest.mark.parametrize("kind", KINDS)
def test_odd_images_are_taken(kind):
    ours = attach(tiny(kind, 1), TREE)
    images = [torch.rand(3, 5, 200), torch.rand(3, 1500, 1000), torch.rand(3, 1, 1)]
    found = shown(ours, images, 0.05)
    for image, one in zip(images, found, strict=True):
        height, width = image.shape[1:]
        assert (one["boxes"] >= 0).all()
        assert (one["boxes"] <= torch.tensor([width, height, width, height]) + 1e-3).all()
    stacked = torch.rand(2, 3, 64, 64)
    assert len(shown(ours, stacked)) == 2
    losses = ours.train()(
        [images[1]], [{"boxes": torch.tensor([[100.0, 100, 900, 1400]]), "labels": torch.tensor([5])}]
    )
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize(
    ("images", "targets", "told"),
    [
        ([], [], "no images"),
        ([torch.rand(3, 5, 900)], [scene([1])], "900 x 5 pixels is too thin"),
        ([torch.rand(3, 0, 5)], [scene([])], r"an image of shape \(3, 0, 5\), float32; give float \[3, h, w\]"),
        ([torch.rand(64, 64)], [scene([])], r"an image of shape \(64, 64\)"),
        ([torch.zeros(3, 9, 9, dtype=torch.uint8)], [scene([])], r"\(3, 9, 9\), uint8; give float \[3, h, w\] in 0..1"),
        ([torch.rand(4, 9, 9)], [scene([])], r"\(4, 9, 9\), float32; give float \[3, h, w\]"),
        ([torch.rand(1, 9, 9)], [scene([])], r"\(1, 9, 9\), float32; give float \[3, h, w\]"),
        (IMAGES[:1], None, "no targets"),
        (IMAGES[:1], [], "1 images and 0 targets"),
        (IMAGES[:1], [{}], "it takes labels"),
        (IMAGES[:1], [{"labels": torch.zeros(0, dtype=torch.int64)}], "no boxes and no label"),
        (IMAGES[:1], [{"labels": torch.tensor([7])}], "nodes are 0 to 6"),
        (IMAGES[:1], [{**scene([1]), "known": torch.ones(3).bool()}], r"bool \[7\]"),
        (IMAGES[:1], [{**scene([1]), "labels": torch.tensor([1, 2])}], "1 boxes and 2 labels"),
        (IMAGES[:1], [{"boxes": torch.ones(1, 5), "labels": torch.tensor([1])}], r"give \[n, 4\]"),
        (IMAGES[:1], [{"boxes": torch.tensor([[9.0, 9, 9, 20]]), "labels": torch.tensor([1])}], "right > left"),
    ],
)
def test_wrong_input_is_named(images, targets, told):
    ours = attach(tiny("retinanet", 1), TREE).train()
    with pytest.raises(WordTreeError, match=told):
        ours(images, targets)


def test_wrong_models_columns_and_weights_are_named():
    with pytest.raises(WordTreeError, match="a tree on a Linear"):
        attach(torch.nn.Linear(2, 2), TREE)
    mask = torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    with pytest.raises(WordTreeError, match="a tree on a MaskRCNN"):
        attach(mask, TREE)
    with pytest.raises(WordTreeError, match="2 columns for a model of 4 classes"):
        attach(tiny("retinanet", 4), TREE, ["dog", "cat"])
    with pytest.raises(WordTreeError, match="none is an id of"):
        attach(tiny("retinanet", 1), TREE, ["hund"])
    with pytest.raises(WordTreeError, match="no torchvision detector 'yolo'"):
        build("yolo", TREE)
    with pytest.raises(WordTreeError, match="COCO_V1"):
        build("ssdlite320_mobilenet_v3_large", TREE, weights="COCO_V9")
    with pytest.raises(WordTreeError, match=r"do not fit.*; give those of this network"):
        build("ssdlite320_mobilenet_v3_large", TREE, weights={"nothing": torch.zeros(1)})


# ---------------------------------------------------------------------- torchvision's own builders

SMALL = {
    "fasterrcnn": {"min_size": 64, "max_size": 64, "box_batch_size_per_image": 8, "rpn_post_nms_top_n_test": 8},
    "fcos": {"min_size": 64, "max_size": 64},
    "retinanet": {"min_size": 64, "max_size": 64},
    "ssd300": {},
    "ssdlite320": {},
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_each_of_torchvisions_builders_trains_and_detects_over_a_tree(name):
    ours = build(name, TREE, **SMALL[name.split("_")[0]])
    image = [torch.rand(3, 64, 64)] * (1 if name == "ssd300_vgg16" else 2)  # 300 pixels through VGG take seconds
    losses = ours.train()(image, [scene([5]), {"labels": torch.tensor([3])}][: len(image)])
    sum(losses.values()).backward()
    assert [key for key, one in ours.named_parameters() if one.requires_grad and one.grad is None] == []
    trunk = ours.eval().image_trunk
    assert (trunk is None) == (name == "ssd300_vgg16")
    if trunk is not None:
        assert trunk(torch.rand(1, 3, 64, 64)).shape == (1, trunk.channels, 2, 2)  # what names are learned on
    ours.threshold = 0.001
    (found,) = ours(image[:1])
    assert set(found) == {"boxes", "labels", "scores", "objectness", "paths", "path_probs"}


def test_a_size_is_that_of_ssdlite_and_ssd300_keeps_its_own():
    name = "ssdlite320_mobilenet_v3_large"
    ours = build(name, TREE, size=96).eval()
    batch, _ = ours.lay([torch.rand(3, 50, 120), torch.rand(3, 200, 96)])
    assert batch.tensors.shape[-2:] == (96, 96)
    ours.threshold = 0.0
    (found,) = ours([torch.rand(3, 192, 96)])
    assert found["boxes"][:, 3].max() > 150  # placed back on the image
    assert build(name, TREE).transform.fixed_size == (320, 320)
    assert build("ssd300_vgg16", TREE, size=96).transform.fixed_size == (300, 300)


def test_the_records_are_torchvisions_builders_with_a_tree():
    names = set(torchvision.models.list_models(torchvision.models.detection))
    assert names - set(SUMMARIES) == {"keypointrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"}
    assert set(SUMMARIES) <= names
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["wordtree"]
    loaded = plugins.load([EntryPoint("torchvision", table["torchvision"], "wordtree")])
    offered = loaded.collect("register_detectors", "detector", plugins.Detector)
    assert set(offered) == {f"torchvision/{name}" for name in SUMMARIES}
    model = offered["torchvision/ssdlite320_mobilenet_v3_large"].build(TREE)
    assert model.tree is TREE


def test_the_plug_in_is_listed_without_torch():
    code = "import sys, wordtree_torchvision as p; p.register_detectors(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_weights_in_hand_keep_trunk_and_boxes():
    name = "ssdlite320_mobilenet_v3_large"
    pretrained = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    ours = build(name, COCO, weights=pretrained.state_dict())
    for key, value in pretrained.state_dict().items():
        assert torch.equal(ours.model.state_dict()[key], value), key
    assert len(ours.head.knowledge.nodes) == len(COCO)
    assert ours.image_trunk is None  # to learn names from whole pictures would spoil what it knows of boxes
    trunk = build(name, COCO, trunk_weights=pretrained.backbone.state_dict())
    for key, value in pretrained.backbone.state_dict().items():
        assert torch.equal(trunk.model.backbone.state_dict()[key], value), key
    assert trunk.head.knowledge is None
    assert attach(pretrained, COCO).model is pretrained


def test_weights_by_name_are_torchvisions_and_keep_what_they_know(monkeypatch):
    name = "ssdlite320_mobilenet_v3_large"
    state = torchvision.models.get_model(name, weights=None, weights_backbone=None).state_dict()
    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", lambda self, *args, **kwargs: state)
    ours = build(name, COCO, weights="DEFAULT")
    assert torch.equal(
        ours.model.state_dict()["backbone.features.0.0.0.weight"], state["backbone.features.0.0.0.weight"]
    )
    assert len(ours.head.knowledge.nodes) == len(COCO)


def test_coco_columns_are_torchvisions_categories():
    columns = coco_columns()
    assert len(columns) == 91
    assert sum(column is not None for column in columns) == 80
    assert columns[0] is None
    assert columns[18] == "n02084071"  # dog


def test_a_state_dict_round_trip_gives_the_same_detections():
    ours = attach(tiny("ssd", 3), TREE, [None, "dog", "cat", "oak"])
    other = attach(tiny("ssd", 3, seed=5), TREE, [None, "dog", "cat", "oak"])
    other.load_state_dict(ours.state_dict())
    one, two = shown(ours, IMAGES), shown(other, IMAGES)
    assert all(torch.equal(a["scores"], b["scores"]) for a, b in zip(one, two, strict=True))


# ---------------------------------------------------------------------- the seams

PLACES = "torchvision.models.detection"
SEAMS = {
    "anchor_utils.AnchorGenerator.forward": ("self", "image_list", "feature_maps"),
    "anchor_utils.DefaultBoxGenerator.forward": ("self", "image_list", "feature_maps"),
    "faster_rcnn.FastRCNNPredictor.forward": ("self", "x"),
    "faster_rcnn.TwoMLPHead.forward": ("self", "x"),
    "fcos.FCOS.compute_loss": ("self", "targets", "head_outputs", "anchors", "num_anchors_per_level"),
    "fcos.FCOSHead.compute_loss": ("self", "targets", "head_outputs", "anchors", "matched_idxs"),
    "fcos.FCOSRegressionHead.forward": ("self", "x"),
    "retinanet.RetinaNetHead.compute_loss": ("self", "targets", "head_outputs", "anchors", "matched_idxs"),
    "retinanet.RetinaNetRegressionHead.forward": ("self", "x"),
    "roi_heads.RoIHeads.has_keypoint": ("self",),
    "roi_heads.RoIHeads.has_mask": ("self",),
    "roi_heads.RoIHeads.select_training_samples": ("self", "proposals", "targets"),
    "roi_heads.fastrcnn_loss": ("class_logits", "box_regression", "labels", "regression_targets"),
    "rpn.RPNHead.forward": ("self", "x"),
    "rpn.RegionProposalNetwork.forward": ("self", "images", "features"),
    "rpn.RegionProposalNetwork.assign_targets_to_anchors": ("self", "anchors", "targets"),
    "rpn.RegionProposalNetwork.compute_loss": (
        "self",
        "objectness",
        "pred_bbox_deltas",
        "labels",
        "regression_targets",
    ),
    "rpn.RegionProposalNetwork.filter_proposals": (
        "self",
        "proposals",
        "objectness",
        "image_shapes",
        "num_anchors_per_level",
    ),
    "rpn.concat_box_prediction_layers": ("box_cls", "box_regression"),
    "ssd.SSD.compute_loss": ("self", "targets", "head_outputs", "anchors", "matched_idxs"),
    "ssd.SSDScoringHead.forward": ("self", "x"),
    "transform.GeneralizedRCNNTransform.forward": ("self", "images", "targets"),
    "transform.GeneralizedRCNNTransform.postprocess": ("self", "result", "image_shapes", "original_image_sizes"),
    "image_list.ImageList.__init__": ("self", "tensors", "image_sizes"),
    "_utils.Matcher.__call__": ("self", "match_quality_matrix"),
    "_utils.BoxCoder.encode": ("self", "reference_boxes", "proposals"),
    "_utils.BoxCoder.decode": ("self", "rel_codes", "boxes"),
    "_utils.BoxCoder.decode_single": ("self", "rel_codes", "boxes"),
    "_utils.BoxLinearCoder.decode": ("self", "rel_codes", "boxes"),
}
LAYING = "transform.min_size transform.max_size transform.fixed_size transform.image_mean transform.image_std"
DENSE = f"""{LAYING} backbone anchor_generator head.regression_head box_coder score_thresh nms_thresh detections_per_img
    topk_candidates"""
SIGMOIDS = "head.classification_head.conv head.classification_head.cls_logits head.classification_head.num_classes"
PARTS = {
    "fasterrcnn": f"""{LAYING} backbone rpn.head rpn.anchor_generator rpn.box_coder roi_heads.box_roi_pool
    roi_heads.box_head roi_heads.box_predictor.cls_score roi_heads.box_coder roi_heads.score_thresh roi_heads.nms_thresh
    roi_heads.fg_bg_sampler.batch_size_per_image roi_heads.detections_per_img""",
    "retinanet": f"{DENSE} {SIGMOIDS} proposal_matcher",
    "fcos": f"{DENSE} {SIGMOIDS} center_sampling_radius",
    "ssd": f"{DENSE} head.classification_head.module_list head.classification_head.num_columns proposal_matcher",
}


@pytest.mark.parametrize("seam", SEAMS)
def test_each_seam_of_torchvision_is_where_it_was(seam):
    module, *names = seam.split(".")
    found = importlib.import_module(f"{PLACES}.{module}")
    for name in names:
        assert hasattr(found, name), f"torchvision {torchvision.__version__} has no {seam}"
        found = getattr(found, name)
    parameters = tuple(inspect.signature(found).parameters)
    assert parameters[: len(SEAMS[seam])] == SEAMS[seam], f"torchvision {torchvision.__version__} changed {seam}"


@pytest.mark.parametrize("kind", KINDS)
def test_each_part_of_a_detector_is_where_it_was(kind):
    model = tiny(kind, 2)
    for path in PARTS[kind].split():
        found = model
        for name in path.split("."):
            assert hasattr(found, name), f"torchvision {torchvision.__version__}: {kind} has no {path}"
            found = getattr(found, name)


@pytest.mark.parametrize("name", SUMMARIES)
def test_each_builder_asks_of_weights_what_stands_in_for_them(name):
    parameters = inspect.signature(torchvision.models.get_model_builder(name)).parameters
    trunk = torchvision.models.get_model_weights(next(trunk for trunk in TRUNKS if trunk in name))
    for option, published in (("weights", torchvision.models.get_model_weights(name)), ("weights_backbone", trunk)):
        assert option in parameters, f"torchvision {torchvision.__version__}: {name} has no {option}"
        one = InHand(published.DEFAULT, {"a": torch.zeros(1)})
        assert published.verify(one) is one
        assert one == published.DEFAULT
        assert one.meta is published.DEFAULT.meta
        assert set(one.get_state_dict(progress=False, check_hash=True)) == {"a"}
    assert {"num_classes", "trainable_backbone_layers"} <= set(parameters)


MODULES = ["__init__", "dense", "detector", "head", "pretrained", "rcnn", "zoo"]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_plug_ins_docstrings_run(name):
    module = importlib.import_module(f"wordtree_torchvision.{name}" if name != "__init__" else "wordtree_torchvision")
    torch.manual_seed(0)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS, extraglobs={"torch": torch, "WordTree": WordTree})
    assert result.failed == 0


def test_deepest_known_nodes_do_not_overlap():
    known = torch.tensor([True, False, True, False, False, True, False])
    assert deepest(known, TREE) == [5]
    assert deepest(torch.ones(7).bool(), TREE) == [3, 4, 5, 6]


@pytest.mark.slow
def test_the_benchmark_of_cost_runs_and_counts_a_naive_head():
    """Its smallest form; RetinaNet's naive head is the one that motivates the lean one."""
    words = ["--size", "64", "--batch", "2", "--boxes", "5", "--no-memory", "--rounds"]
    lines = {}
    for name, rounds in (("ssdlite320_mobilenet_v3_large", "1"), ("retinanet_resnet50_fpn", "0")):
        script = [sys.executable, str(ROOT / "benchmarks" / "torchvision_cost.py"), name, *words, rounds]
        done = subprocess.run(script, capture_output=True, text=True, check=True)
        lines[name] = done.stdout.splitlines()[-1]
    assert "195 M, 7.59 GB" in lines["retinanet_resnet50_fpn"]
    assert re.search(r"large +\d+ +\d+ +\d\.\d\d +\d+ +\d+ +\d\.\d\d", lines["ssdlite320_mobilenet_v3_large"])


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning", "ignore:SSD always returns:UserWarning")
def test_the_detector_inside_can_still_be_scripted():
    """The descent follows the data, so a detector over a tree cannot; the page says to export what is inside."""
    ours = attach(tiny("ssd", 1), TREE).eval()
    scripted = torch.jit.script(ours.model)
    _, found = scripted(IMAGES[:1])
    torch.testing.assert_close(found[0]["boxes"], ours.model(IMAGES[:1])[0]["boxes"])
    with pytest.raises((RuntimeError, torch.jit.frontend.NotSupportedError)):
        torch.jit.script(ours)
