"""The detector's contract is torchvision's, whatever the images and targets; and no tensor is anchors x nodes large."""

import functools
import itertools
import math

import oracle
import pytest
import reference
import torch
from oracle import needs_oracle
from strategies import random_tree
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.ops import box_iou

import yolo9000
from wordtree import WordTree, WordTreeError
from wordtree.nn import descend, tree_log_prob
from yolo9000.darknet19 import Darknet19, darknet_reorg
from yolo9000.detector import Detector
from yolo9000.head import Region
from yolo9000.images import Placement
from yolo9000.modes import MODES
from yolo9000.region import decode_xyxy

#      animal  plant
#     /  |        \
#  dog  cat       oak
#   |
# poodle
SMALL = WordTree(["animal", "plant", "dog", "cat", "oak", "poodle"], [-1, -1, 0, 0, 1, 2])
ANIMAL, PLANT, DOG, CAT, OAK, POODLE = range(6)


def lively(model: Detector) -> Detector:
    """Random weights with which boxes, objectness and names differ from cell to cell."""
    nn.init.normal_(model.head.boxes.weight, std=0.5)
    nn.init.normal_(model.head.classes.weight, std=1.5)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_var, 0.05, 0.5)
    return model.eval()


def small_model(tree: WordTree = SMALL, seed: int = 0, size: int = 32) -> Detector:
    """A detector of stride 4."""
    torch.manual_seed(seed)
    return lively(yolo9000.models.yolo9000(tree, [[1.0, 1.5], [3.0, 2.0]], size, widths=(4, 6, 8), counts=(1, 1, 1)))


def pictures(*sizes: tuple[int, int], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, height, width, generator=generator) for height, width in sizes]


def boxed(*boxes: list[float], labels: list[int]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


# ---------------------------------------------------------------------- training


def test_training_gives_a_dict_of_losses_that_reach_every_parameter():
    model = small_model().train()
    targets = [boxed([2, 3, 20, 30], [5, 5, 9, 12], labels=[POODLE, PLANT]), {"labels": torch.tensor([OAK])}]
    losses = model(pictures((40, 30), (32, 32)), targets)
    assert set(losses) == {"box", "objectness", "tree", "image_label"}
    assert all(loss.shape == () and torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(
    "targets",
    [
        pytest.param([boxed(labels=[]), boxed(labels=[])], id="no objects at all"),
        pytest.param([{"labels": torch.tensor([DOG])}] * 2, id="labels alone"),
        pytest.param([boxed([0, 0, 32, 32], labels=[DOG]), boxed(labels=[])], id="one without objects"),
    ],
)
def test_any_mixture_of_targets_trains(targets):
    model = small_model().train()
    losses = model(pictures((32, 32), (32, 32)), targets)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_boxes_are_pixels_of_their_own_image():
    model = small_model().train()
    model.trunk = Blank(model.trunk)  # sees no picture, so that only the targets count
    small = model(pictures((32, 32)), [boxed([4, 4, 12, 20], labels=[DOG])])
    wide = model(pictures((64, 96)), [boxed([12, 8, 36, 40], labels=[DOG])])
    for name in small:
        torch.testing.assert_close(wide[name], small[name])


def test_boxes_given_as_whole_numbers_are_pixels_too():
    model = small_model().train()
    model.trunk = Blank(model.trunk)
    target = boxed([4, 4, 12, 20], labels=[DOG])
    plain = model(pictures((32, 32)), [target])
    whole = model(pictures((32, 32)), [{**target, "boxes": target["boxes"].long()}])
    assert {name: loss.item() for name, loss in whole.items()} == {name: loss.item() for name, loss in plain.items()}


def test_a_box_of_which_nothing_lies_inside_the_image_is_refused_however_near_it_is():
    with pytest.raises(WordTreeError, match="target 0: box 0 is 32"):
        small_model().train()(pictures((32, 32)), [boxed([32, 4, 32.02, 9], labels=[DOG])])


class Blank(Darknet19):
    """The same features whatever the picture."""

    def __init__(self, trunk: Darknet19) -> None:
        nn.Module.__init__(self)
        self.channels, self.stride = trunk.channels, trunk.stride

    def forward(self, images: Tensor) -> Tensor:
        b, _, h, w = images.shape
        return torch.linspace(-1, 1, self.channels).view(1, -1, 1, 1).expand(b, -1, h // self.stride, w // self.stride)


def test_a_stacked_batch_keeps_its_size_and_a_list_is_laid_on_the_models():
    model = small_model(size=32)
    assert model.place(torch.zeros(2, 3, 64, 48))[0].shape == (2, 3, 64, 48)
    assert model.place(pictures((64, 48), (10, 20)))[0].shape == (2, 3, 32, 32)
    assert model.place(torch.zeros(2, 3, 50, 50))[0].shape == (2, 3, 32, 32)  # no multiple of the stride


@pytest.mark.parametrize("mode", MODES)
def test_a_stack_of_images_is_laid_as_each_is_alone(mode):
    model = small_model().set_mode(mode)
    images = pictures((40, 30), (40, 30), (40, 30))
    batch, placed = model.place(torch.stack(images))
    for image, laid, placement in zip(images, batch, placed, strict=True):
        (alone,), (own,) = model.place([image])
        assert torch.equal(laid, alone)
        assert placement == own


@pytest.mark.parametrize(
    ("targets", "parts"),
    [
        ([boxed([0, 0, 5, 5], labels=[DOG]), boxed([0, 0, 41, 5], labels=[DOG])], ["target 1", "41", "40 x 20"]),
        ([boxed([0, 0, 5, 5], labels=[DOG]), boxed([9, 9, 3, 12], labels=[DOG])], ["target 1", "right > left"]),
        ([boxed([0, 0, 5, float("nan")], labels=[DOG])] * 2, ["target 0", "nan"]),
        ([boxed([0, 0, 5, float("inf")], labels=[DOG])] * 2, ["target 0", "inf"]),
        ([{"boxes": torch.zeros(4), "labels": torch.tensor([1])}] * 2, ["target 0", "(4,)", "[n, 4]"]),
        ([{"boxes": torch.zeros(1, 5), "labels": torch.tensor([1])}] * 2, ["target 0", "(1, 5)", "[n, 4]"]),
        ([boxed([0, 0, 5, 5], labels=[DOG]), {"boxes": torch.zeros(0, 4)}], ["target 1", "'boxes'", "labels"]),
        ([boxed([0, 0, 5, 5], labels=[DOG, CAT])] * 2, ["target 0", "1 boxes", "2 labels"]),
        ([{"labels": torch.zeros(0).long()}] * 2, ["target 0", "no boxes and no label"]),
        ([boxed([0, 0, 5, 5], labels=[DOG])], ["2 images", "1 targets"]),
        ([boxed([0, 0, 5, 5], labels=[6]), {"labels": torch.tensor([OAK])}], ["target 0", "6", "0 to 5"]),
        ([boxed([0, 0, 5, 5], labels=[DOG]), {"labels": torch.tensor([17])}], ["target 1", "17", "0 to 5"]),
        ([{"labels": torch.tensor([DOG]), "known": torch.ones(4, dtype=torch.bool)}] * 2, ["target 0", "known", "6"]),
    ],
)
def test_a_bad_target_is_named(targets, parts):
    model = small_model().train()
    with pytest.raises(WordTreeError) as caught:
        model(pictures((20, 40), (20, 40)), targets)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(4, 9, 9),
        torch.rand(1, 9, 9),
        torch.rand(9, 9),
        torch.rand(3, 0, 9),
        torch.zeros(3, 9, 9, dtype=torch.uint8),
    ],
)
def test_what_is_no_image_is_named_alone_and_in_a_stack(image):
    model = small_model().eval()
    for images in ([image], image[None]):
        with pytest.raises(WordTreeError, match=r"an image of shape .*; give float \[3, h, w\] in 0..1"):
            model(images)


def test_training_without_targets_and_a_call_without_images_are_refused():
    with pytest.raises(WordTreeError, match="no targets given"):
        small_model().train()(pictures((32, 32)))
    with pytest.raises(WordTreeError, match="no images given"):
        small_model()([])


@pytest.mark.parametrize("size", [0, -32, 30, 33])
def test_an_input_that_the_trunk_cannot_take_is_refused(size):
    with pytest.raises(WordTreeError, match="multiples of 4"):
        small_model(size=size)


# ---------------------------------------------------------------------- detection


def test_detections_are_boxes_inside_their_own_image_with_nodes_and_scores():
    model = small_model()
    sizes = [(40, 30), (17, 90), (32, 32), (1, 1)]
    found = model(pictures(*sizes))
    assert len(found) == 4
    assert sum(len(one["boxes"]) for one in found) > 10
    for one, (height, width) in zip(found, sizes, strict=True):
        n = len(one["boxes"])
        paths = one.pop("paths")
        shapes = {key: tuple(value.shape) for key, value in one.items()}
        depth = int(SMALL.depths.max()) + 1
        assert shapes == {"boxes": (n, 4), "labels": (n,), "scores": (n,), "objectness": (n,), "path_probs": (n, depth)}
        assert one["labels"].dtype == torch.int64
        left, top, right, bottom = one["boxes"].T
        assert bool((left >= 0).all() and (top >= 0).all() and (right <= width).all() and (bottom <= height).all())
        assert bool((one["scores"] > model.threshold).all())
        assert bool((one["scores"] <= one["objectness"]).all())
        assert one["scores"].tolist() == sorted(one["scores"].tolist(), reverse=True)
        for label, score, objectness, steps in zip(
            one["labels"].tolist(), one["scores"], one["objectness"], one["path_probs"], strict=True
        ):
            path = SMALL.path(label)
            assert paths.pop(0) == path
            taken = steps[: len(path)]
            assert bool(steps[len(path) :].isnan().all())
            assert bool((taken > model.tree_threshold).all())
            assert taken.tolist() == sorted(taken.tolist(), reverse=True)
            assert float(score) == pytest.approx(float(objectness) * (float(taken[-1]) if path else 1.0))


def test_detection_is_the_dense_output_descended_and_suppressed():
    model = small_model(random_tree(30, seed=1, most_children=4), seed=1)
    model.tree_threshold, model.detections = 0.2, 1000
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    (found,) = model(image)
    with torch.no_grad():
        dense = model.head.dense(model.trunk(image)).view(2, 5 + len(model.tree), 8, 8)
        dense = dense.permute(2, 3, 0, 1)  # [h, w, a, 5 + nodes]
    nodes, log_probs = descend(dense[..., 5:], model.tree, 0.2)
    scores = dense[..., 4].sigmoid() * log_probs.exp()
    passed = scores > model.threshold
    boxes = (decode_xyxy(dense[None, ..., :5], model.head.anchors)[0] * 32).clamp(0, 32)[passed]
    kept = reference.suppress(
        boxes.tolist(), scores[passed].float().tolist(), nodes[passed].tolist(), model.tree, model.iou
    )
    assert 3 < len(kept) < int(passed.sum())
    assert found["labels"].tolist() == nodes[passed][kept].tolist()
    torch.testing.assert_close(found["boxes"], boxes[kept], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["scores"], scores[passed][kept].float())


def test_a_batch_gives_what_its_images_give_alone():
    model = small_model()
    images = pictures((40, 30), (17, 90), (32, 32))
    together = model(images)
    for image, one in zip(images, together, strict=True):
        (alone,) = model([image])
        assert alone["labels"].tolist() == one["labels"].tolist()
        for key in ("boxes", "scores", "path_probs"):
            torch.testing.assert_close(alone[key], one[key], rtol=1e-4, atol=1e-4, equal_nan=True)


class Waits(TorchDispatchMode):
    """Counts the operations for which a program waits on its device."""

    KINDS = (
        "aten::nonzero",
        "aten::_local_scalar_dense",
        "aten::equal",
        "aten::repeat_interleave",
        "aten::masked_select",
    )

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        indices = args[1] if func.name() == "aten::index.Tensor" else ()
        by_mask = any(one is not None and one.dtype == torch.bool for one in indices)
        self.count += by_mask or func.name().split(".")[0] in self.KINDS
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tree", [SMALL, WordTree(["a", "b", "c"], [-1] * 3)], ids=["tree", "flat"])
def test_a_batch_waits_for_the_device_as_often_as_one_image(mode, tree):
    model = small_model(tree).set_mode(mode)
    model.threshold = 0.2
    counts = []
    for images in (1, 7):
        region = model.region(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(5)))
        region = Region(*(part.expand(images, *part.shape[1:]).contiguous() for part in region))
        with Waits() as waits:
            found = model.detect(region, [Placement(0.0, 0.0, 1.0, 1.0, 32, 32)] * images)
        assert [len(one["labels"]) for one in found] == [len(found[0]["labels"])] * images
        assert len(found[0]["labels"]) > 3
        counts.append(waits.count)
    assert counts[0] == counts[1] > 0


def test_no_more_candidates_are_looked_at_than_asked_and_they_are_the_likeliest():
    model = small_model()
    model.threshold, model.iou, model.detections = 0.0, 1.0, None
    (everything,) = model(pictures((32, 32)))
    assert len(everything["labels"]) == 2 * 8 * 8
    model.candidates = 20
    for one in model(pictures((32, 32), (32, 32))):
        assert len(one["labels"]) == 20
    (found,) = model(pictures((32, 32)))
    assert sorted(found["objectness"].tolist()) == sorted(everything["objectness"].tolist())[-20:]


def test_the_classes_of_a_flat_model_are_listed_one_by_one_and_suppressed_class_by_class():
    tree = WordTree(["a", "b", "c"], [-1] * 3)
    model = small_model(tree)
    model.threshold, model.candidates = 0.1, None
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        dense = model.head.dense(model.trunk(image)).view(2, 5 + 3, 8, 8).permute(2, 3, 0, 1)  # [h, w, a, 5 + nodes]
    boxes = (decode_xyxy(dense[None, ..., :5], model.head.anchors)[0] * 32).clamp(0, 32)
    for mode in MODES:
        model.set_mode(mode)
        model.threshold, model.iou, model.candidates = 0.1, 0.45, None
        if mode != "paper":  # whole boxes are compared there
            boxes = decode_xyxy(dense[None, ..., :5], model.head.anchors)[0] * 32
        rows = []
        for row, column, anchor in itertools.product(range(8), range(8), range(2)):
            probs = dense[row, column, anchor, 5:].softmax(0)
            for node in range(3):
                score = float(dense[row, column, anchor, 4].sigmoid() * probs[node])
                if score > 0.1:
                    rows.append((boxes[row, column, anchor].tolist(), score, node, float(probs[node])))
        listed, scores, nodes, probs = zip(*rows, strict=True)
        kept = reference.suppress_among(listed, scores, nodes, [0] * len(rows), 0.45, "same")
        kept = kept[: model.detections]
        (found,) = model(image)
        assert 3 < len(kept) < len(rows)
        assert found["labels"].tolist() == [nodes[k] for k in kept]
        assert found["scores"].tolist() == pytest.approx([scores[k] for k in kept], rel=1e-5)
        assert found["path_probs"][:, 0].tolist() == pytest.approx([probs[k] for k in kept], rel=1e-5)
        assert found["paths"] == [(nodes[k],) for k in kept]
        wanted = torch.tensor([listed[k] for k in kept]).clamp(0, 32)
        torch.testing.assert_close(found["boxes"], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tree", [SMALL, WordTree(["a", "b", "c"], [-1] * 3)], ids=["tree", "flat"])
def test_features_of_half_precision_are_classified_in_the_heads_own(tree):
    model = small_model(tree)
    model.threshold = 0.1
    region = model.region(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(5)))
    half = Region(region.raw, region.features.bfloat16())
    rounded = Region(region.raw, region.features.bfloat16().float())
    placed = [Placement(0.0, 0.0, 1.0, 1.0, 32, 32)]
    (found,), (wanted,) = model.detect(half, placed), model.detect(rounded, placed)
    assert len(found["labels"]) > 3
    assert torch.equal(found["labels"], wanted["labels"])
    assert torch.equal(found["scores"], wanted["scores"])


@pytest.mark.parametrize(("mode", "among"), [("darknet", "all"), ("darknet-2018", "same")])
@pytest.mark.parametrize("seed", range(4))
def test_darknets_readings_equal_loops_over_boxes(mode, among, seed):
    tree = random_tree(30, seed=seed, most_children=4)
    model = small_model(tree, seed=seed).set_mode(mode)
    model.tree_threshold = 0.2
    model.threshold = 0.3
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        dense = model.head.dense(model.trunk(image)).view(2, 5 + len(tree), 8, 8).permute(2, 3, 0, 1)
    boxes, scores, nodes = [], [], []
    for at in itertools.product(range(8), range(8), range(2)):
        x = dense[at]
        if x[4].sigmoid() > 0.3:
            boxes.append(reference.decode(x[:4].tolist(), *at[:2], 8, 8, model.head.anchors[at[2]].tolist()))
            scores.append(float(x[4].sigmoid()))
            nodes.append(reference.descend(x[5:].double(), tree, 0.2, mode)[0])
    kept = reference.suppress_among(boxes, scores, nodes, [0] * len(boxes), model.iou, among)
    (found,) = model(image)
    assert 3 < len(kept) < len(boxes)
    assert found["labels"].tolist() == [nodes[k] for k in kept]
    assert found["scores"].tolist() == pytest.approx([scores[k] for k in kept])
    assert torch.equal(found["scores"], found["objectness"])  # Pr(node) has no part in it
    wanted = torch.tensor([boxes[k] for k in kept]).mul(32).clamp(0, 32)
    torch.testing.assert_close(found["boxes"], wanted, rtol=1e-4, atol=1e-4)


def test_no_two_relatives_overlap_and_there_are_no_more_than_asked():
    model = small_model()
    (found,) = model(pictures((32, 32)))
    overlaps = box_iou(found["boxes"], found["boxes"])
    labels = found["labels"].tolist()
    for i in range(len(labels)):
        for j in range(i):
            assert float(overlaps[i, j]) <= model.iou or not reference.relatives(labels[i], labels[j], SMALL)
    model.detections = 3
    (few,) = model(pictures((32, 32)))
    assert torch.equal(few["boxes"], found["boxes"][:3])


def test_nothing_found_is_an_empty_result_of_the_same_form():
    model = small_model()
    model.threshold = 1.0
    (found,) = model(pictures((20, 20)))
    assert found.pop("paths") == []
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        "boxes": (0, 4), "labels": (0,), "scores": (0,), "objectness": (0,), "path_probs": (0, 3),
    }  # fmt: skip
    assert found["labels"].dtype == torch.int64


def test_a_higher_tree_threshold_names_no_deeper_and_the_root_where_nothing_passes():
    model = small_model()
    model.threshold = 0.0
    depths = []
    for threshold in (0.0, 0.4, 0.8, 1.0):
        model.tree_threshold = threshold
        (found,) = model(pictures((32, 32)))
        depths.append(max(len(SMALL.path(node)) for node in found["labels"].tolist()))
    assert depths[0] == 3
    assert depths == sorted(depths, reverse=True)
    assert found["labels"].unique().tolist() == [-1]


def test_detection_makes_no_graph():
    (found,) = small_model()(pictures((32, 32)))
    tensors = [value for value in found.values() if isinstance(value, Tensor)]
    assert len(tensors) == 5
    assert not any(value.requires_grad for value in tensors)


# ---------------------------------------------------------------------- no dense tensor


class Largest(TorchDispatchMode):
    """Watches every operation, backward passes too, and remembers the largest tensor that one made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.maker = ""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.numel() > self.elements:
                self.elements, self.maker = leaf.numel(), f"{func} {tuple(leaf.shape)}"
        return out


def vast_trees() -> list:
    return [
        pytest.param(functools.partial(random_tree, 6000, 5, 12), id="random-6000"),
        pytest.param(oracle.tree_9418, id="yolo9000-9418", marks=needs_oracle),
    ]


def vast_model(tree: WordTree) -> Detector:
    torch.manual_seed(0)
    anchors = [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    return lively(yolo9000.models.yolo9000(tree, anchors, size=64, widths=(4, 4, 8), counts=(1, 1, 1)))


def dense_elements(model: Detector, batch: int, cells: int) -> int:
    return batch * len(model.head.anchors) * len(model.tree) * cells


@pytest.mark.parametrize("make", vast_trees())
def test_a_training_step_makes_no_dense_tensor(make):
    model = vast_model(make()).train()
    optimizer = torch.optim.AdamW(model.parameters())
    nodes = len(model.tree)
    some = [nodes - 1 - 37 * k for k in range(8)]
    targets = [
        boxed([2, 3, 20, 30], [30, 30, 60, 62], labels=some[:2]),
        boxed([10, 10, 30, 30], labels=some[2:3]),
        {"labels": torch.tensor(some[3:4])},
        {"labels": torch.tensor(some[4:5])},
    ]
    with Largest() as watch:
        losses = model(torch.rand(4, 3, 64, 64), targets)
        sum(losses.values()).backward()
        optimizer.step()
    limit = dense_elements(model, batch=4, cells=16 * 16)
    assert watch.elements < limit / 10, watch.maker
    assert model.head.classes.weight.grad.any()


@pytest.mark.parametrize("make", vast_trees())
def test_detection_makes_no_dense_tensor(make):
    model = vast_model(make()).eval()
    with torch.no_grad():
        model.head.boxes.bias[4::5] = -3.0  # few boxes pass objectness, as in a trained model
        model.head.boxes.weight[4::5] *= 10
        model.head.classes.weight *= 10  # and the classifier is sure
    model.threshold, model.tree_threshold = 0.1, 0.05
    with Largest() as watch:
        found = model(torch.rand(2, 3, 64, 64))
    assert sum(len(one["labels"]) for one in found) > 3
    assert max(len(model.tree.path(node)) for one in found for node in one["labels"].tolist()) > 3
    assert watch.elements < dense_elements(model, batch=2, cells=16 * 16) / 10, watch.maker


@pytest.mark.parametrize("make", vast_trees())
def test_detection_makes_no_dense_tensor_even_where_every_box_passes_and_descends_to_a_leaf(make):
    model = vast_model(make()).eval()
    with torch.no_grad():
        model.head.boxes.bias[4::5] = 9.0
    model.threshold, model.tree_threshold, model.iou, model.detections = 0.0, 0.0, 1.0, 10_000
    with Largest() as watch:
        found = model(torch.rand(2, 3, 64, 64))
    leaves = set(model.tree.leaves.tolist())
    assert sum(len(one["labels"]) for one in found) == 2 * 3 * 16 * 16
    assert all(node in leaves for one in found for node in one["labels"].tolist())
    assert watch.elements < dense_elements(model, batch=2, cells=16 * 16), watch.maker


@pytest.mark.parametrize("make", vast_trees())
def test_the_watch_does_see_a_dense_tensor(make):
    model = vast_model(make())
    features = torch.rand(2, 8, 16, 16)
    with Largest() as watch:
        model.head.dense(features)
    assert watch.elements >= dense_elements(model, batch=2, cells=16 * 16)
    seen = watch.elements
    with Largest() as watch:  # in a backward pass too
        logits = features.flatten(2).mT.requires_grad_()
        tree_log_prob(model.head.classes(logits), model.tree).sum().backward()
    assert watch.elements >= dense_elements(model, batch=2, cells=16 * 16)
    assert seen


# ---------------------------------------------------------------------- networks


def test_darknet19_is_table_6_of_the_paper():
    trunk = Darknet19()
    convolutions = [(m.out_channels, m.kernel_size[0]) for m in trunk.modules() if isinstance(m, nn.Conv2d)]
    assert convolutions == [
        (32, 3), (64, 3), (128, 3), (64, 1), (128, 3), (256, 3), (128, 1), (256, 3), (512, 3), (256, 1), (512, 3),
        (256, 1), (512, 3), (1024, 3), (512, 1), (1024, 3), (512, 1), (1024, 3),
    ]  # fmt: skip
    assert (trunk.channels, trunk.stride, trunk.passthrough_channels) == (1024, 32, 512)


def test_the_networks_hold_as_many_numbers_as_the_released_files():
    def released_bytes(model: nn.Module) -> int:  # Darknet's file: 16 bytes, then every float32, batch-norm's too
        return 16 + 4 * sum(
            v.numel() for key, v in model.state_dict().items() if not key.endswith(("tracked", "anchors"))
        )

    def flat(nodes: int) -> WordTree:
        return WordTree([str(node) for node in range(nodes)], [-1] * nodes)

    with torch.device("meta"):
        assert released_bytes(yolo9000.models.darknet19(flat(1000))) == 83_427_120
        assert released_bytes(yolo9000.models.yolov2(flat(20))) == 202_704_260
    assert released_bytes(yolo9000.models.yolo9000(flat(9418))) == 195_230_020


@needs_oracle
def test_reorg_is_darknets():
    case = oracle.values("util")
    found = darknet_reorg(torch.from_numpy(case["reorg_in"]))
    assert torch.equal(found, torch.from_numpy(case["reorg_out"]).view_as(found))


def test_a_classifier_learns_labels_at_any_depth_and_says_log_probabilities():
    torch.manual_seed(0)
    model = yolo9000.models.classifier(SMALL, Darknet19((4, 8), (1, 1)))
    losses = model(torch.rand(3, 3, 16, 16), [{"labels": torch.tensor([node])} for node in (POODLE, ANIMAL, OAK)])
    assert set(losses) == {"image_label"}
    losses["image_label"].backward()
    log_probs = model.eval()(torch.rand(2, 3, 16, 16))
    assert log_probs.shape == (2, len(SMALL))
    assert log_probs[:, [ANIMAL, PLANT]].exp().sum(1).tolist() == pytest.approx([1, 1])


def test_yolov2_reads_the_finer_map_too():
    with torch.device("meta"):
        model = yolo9000.models.yolov2(SMALL)
        fine, coarse = model.trunk.forward_both(torch.zeros(1, 3, 416, 416))
        assert (fine.shape, coarse.shape) == ((1, 512, 26, 26), (1, 1024, 13, 13))
        assert model.region(torch.zeros(1, 3, 416, 416)).features.shape == (1, 13, 13, 1024)


# ---------------------------------------------------------------------- GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="waits for a CUDA device")
def test_a_detector_trains_and_detects_on_a_gpu():
    model = small_model().cuda().train()
    images = [image.cuda() for image in pictures((40, 30), (32, 32))]
    targets = [boxed([2, 3, 20, 30], labels=[POODLE]), {"labels": torch.tensor([OAK])}]
    targets = [{key: value.cuda() for key, value in target.items()} for target in targets]
    losses = model(images, targets)
    sum(losses.values()).backward()
    assert all(math.isfinite(float(loss)) for loss in losses.values())
    on_gpu = model.eval()(images)
    on_cpu = model.cpu()([image.cpu() for image in images])
    for one, other in zip(on_gpu, on_cpu, strict=True):
        assert one["labels"].is_cuda
        assert abs(len(one["labels"]) - len(other["labels"])) <= 1  # one may stand on a threshold
