"""The figures of the table: known answers on cases made by hand, ancestor credit, and pycocotools called directly."""

import math

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import box_iou

import yolo9000
from wordtree import WordTree, WordTreeError
from wordtree.nn import tree_log_prob
from yolo9000.detector import Detector
from yolo9000.looking import Said, gather, score_nodes
from yolo9000.precision import average_precision, class_agnostic_recall, look_through
from yolo9000.region import decode_xyxy
from yolo9000.scores import Found, Truths

#      animal  plant
#     /  |        \
#  dog  cat       oak
#   |
# poodle
SMALL = WordTree(["animal", "plant", "dog", "cat", "oak", "poodle"], [-1, -1, 0, 0, 1, 2])
ANIMAL, PLANT, DOG, CAT, OAK, POODLE = range(6)

A, B, C = [0.0, 0, 10, 10], [20.0, 20, 40, 40], [50.0, 0, 60, 30]
HALF_A = [0.0, 0, 10, 5.0]  # IoU .5 with A
SHIFTED_B = [22.0, 22, 42, 42]  # IoU .68 with B


Box = tuple[list[float], int, float]


def scored(*rows: Box) -> list[Box]:
    """The boxes of an image, with a node and a score each; by objectness alone the same boxes."""
    return list(rows)


def truth(*rows: tuple[list[float], int]) -> list[tuple[list[float], int]]:
    """The objects of an image."""
    return list(rows)


def precision_of(found, truths, nodes):
    return average_precision(said_of(found), there(truths), nodes, SMALL)


def recall_of(found, truths, wanted, most=10):
    return class_agnostic_recall(said_of(found), there(truths), wanted, SMALL, most)


def said_of(found: list[list[Box]]) -> Said:
    image = np.repeat(np.arange(len(found)), [len(one) for one in found])
    rows = [row for one in found for row in one]
    boxes = np.array([box for box, _, _ in rows], dtype=np.float64).reshape(-1, 4)
    nodes = np.array([node for _, node, _ in rows], dtype=np.int64)
    scores = np.array([score for *_, score in rows], dtype=np.float64)
    by_name, whatever = (Found(image, boxes, one, scores) for one in (nodes, np.zeros_like(nodes)))
    return Said(by_name, whatever, gather([], SMALL), len(found), 0.0)


def there(truths: list[list[tuple[list[float], int]]]) -> Truths:
    rows = [row for one in truths for row in one]
    boxes = np.array([box for box, _ in rows], dtype=np.float64).reshape(-1, 4)
    no = np.zeros(len(rows), dtype=bool)
    image = np.repeat(np.arange(len(truths)), [len(one) for one in truths])
    nodes = np.array([node for _, node in rows], dtype=np.int64)
    return Truths(image, boxes, nodes, no, no, (boxes[:, 2:] - boxes[:, :2]).prod(1))


# ---------------------------------------------------------------------- average precision


def test_perfect_boxes_score_one_and_missing_ones_their_share():
    found = [scored((A, DOG, 0.9), (B, CAT, 0.8)), scored((A, DOG, 0.7))]
    truths = [truth((A, DOG), (B, CAT)), truth((A, DOG))]
    assert precision_of(found, truths, [DOG, CAT]) == pytest.approx({DOG: 1.0, CAT: 1.0})
    missed = precision_of([found[0], scored()], truths, [DOG, CAT])
    assert missed[DOG] == pytest.approx(51 / 101)  # recalls 0 to .5 of COCO's 101 points have precision 1
    assert missed[CAT] == pytest.approx(1.0)


def test_a_false_box_above_a_true_one_halves_its_precision_and_one_below_costs_nothing():
    truths = [truth((A, DOG))]
    assert precision_of([scored((B, DOG, 0.9), (A, DOG, 0.8))], truths, [DOG])[DOG] == pytest.approx(0.5)
    assert precision_of([scored((B, DOG, 0.7), (A, DOG, 0.8))], truths, [DOG])[DOG] == pytest.approx(1.0)


def test_a_second_box_on_one_object_is_false():
    truths = [truth((A, DOG), (B, DOG))]
    found = [scored((A, DOG, 0.9), (A, DOG, 0.8), (B, DOG, 0.7))]
    # precision 1 up to recall .5, then 2/3
    assert precision_of(found, truths, [DOG])[DOG] == pytest.approx((51 + 50 * 2 / 3) / 101)


@pytest.mark.parametrize(("box", "counts"), [(HALF_A, True), ([0.0, 0, 10, 4.9], False), ([0.0, 0, 10, 10], True)])
def test_a_box_counts_from_an_overlap_of_a_half(box, counts):
    assert precision_of([scored((box, DOG, 0.9))], [truth((A, DOG))], [DOG])[DOG] == pytest.approx(float(counts))


def test_a_truth_counts_for_its_ancestors_and_not_the_other_way_round():
    truths = [truth((A, POODLE), (B, DOG))]
    as_dogs = [scored((A, DOG, 0.9), (B, DOG, 0.8))]
    assert precision_of(as_dogs, truths, [DOG, POODLE]) == pytest.approx({DOG: 1.0, POODLE: 0.0})
    as_poodles = [scored((A, POODLE, 0.9), (B, POODLE, 0.8))]
    found = precision_of(as_poodles, truths, [DOG, POODLE, ANIMAL])
    assert found == pytest.approx({DOG: 0.0, POODLE: 1.0, ANIMAL: 0.0})
    both = [scored((A, ANIMAL, 0.9), (B, ANIMAL, 0.9), (A, POODLE, 0.5))]
    assert precision_of(both, truths, [ANIMAL, POODLE, PLANT])[ANIMAL] == pytest.approx(1.0)


def test_a_node_without_a_truth_has_no_figure_even_where_it_was_found():
    found = precision_of([scored((A, DOG, 0.9))], [truth((B, CAT))], [DOG, CAT])
    assert math.isnan(found[DOG])
    assert found[CAT] == 0.0


def test_nothing_found_is_zero_and_nothing_there_is_no_figure():
    assert precision_of([scored(), scored()], [truth((A, DOG)), truth()], [DOG]) == {DOG: 0.0}
    assert math.isnan(precision_of([scored((A, DOG, 0.9))], [truth()], [DOG])[DOG])
    assert math.isnan(precision_of([scored()], [truth()], [DOG])[DOG])
    assert math.isnan(precision_of([], [], [DOG])[DOG])


def test_nodes_may_be_asked_for_in_any_order():
    found = [scored((A, DOG, 0.9), (B, OAK, 0.8))]
    truths = [truth((A, DOG), (B, CAT), (C, OAK))]
    expected = {DOG: 1.0, CAT: 0.0, OAK: 0.0}
    for nodes in ([DOG, CAT, OAK], [OAK, DOG, CAT]):
        assert precision_of(found, truths, nodes) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_what_pycocotools_says_when_it_is_called_directly(seed):
    random = np.random.RandomState(seed)

    def boxes(count):
        low = random.rand(count, 2) * 60
        return np.concatenate((low, low + 5 + random.rand(count, 2) * 30), axis=1).astype(np.float32)

    nodes = [DOG, CAT, OAK]
    found, truths, annotations, results = [], [], [], []
    for image in range(6):
        objects, labels = boxes(4), random.choice(nodes, 4)
        near = np.concatenate((objects + random.randn(4, 4).astype(np.float32) * 2, boxes(5)))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        said, scores = np.concatenate((labels, random.choice(nodes, 5))), random.rand(9).astype(np.float32)
        truths.append(list(zip(objects.tolist(), labels.tolist(), strict=True)))
        found.append(scored(*zip(near.tolist(), said.tolist(), scores.tolist(), strict=True)))
        for box, label in zip(objects.astype(float), labels, strict=True):
            size = [box[2] - box[0], box[3] - box[1]]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": int(label), "iscrowd": 0,
                 "bbox": [box[0], box[1], *size], "area": size[0] * size[1]}
            )  # fmt: skip
        for box, label, score in zip(near.astype(float), said, scores, strict=True):
            results.append(
                {"image_id": image, "category_id": int(label), "score": float(score),
                 "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
            )  # fmt: skip
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": image} for image in range(6)],
        "categories": [{"id": node} for node in nodes],
        "annotations": annotations,
    }
    coco.createIndex()
    by_node, by_recall = {}, {}
    for node in nodes:
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.catIds = [node]
        evaluation.evaluate()
        evaluation.accumulate()
        by_node[node] = evaluation.eval["precision"][0, :, 0, 0, -1].mean()  # IoU .5, all areas, 100 boxes
    assert precision_of(found, truths, nodes) == pytest.approx(by_node)
    assert 0 < min(by_node.values()) < max(by_node.values()) < 1
    evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
    evaluation.params.useCats = 0
    evaluation.params.maxDets = [1, 3, 5]
    evaluation.evaluate()
    evaluation.accumulate()
    by_recall = {most: evaluation.eval["recall"][0, 0, 0, column] for column, most in enumerate((1, 3, 5))}
    for most, recall in by_recall.items():
        assert recall_of(found, truths, nodes, most) == pytest.approx(recall)
    assert by_recall[1] < by_recall[5]


# ---------------------------------------------------------------------- recall


def test_recall_counts_objects_under_the_wanted_nodes_whatever_they_are_called():
    found = [scored((A, OAK, 0.9), (SHIFTED_B, PLANT, 0.2))]
    truths = [truth((A, POODLE), (B, CAT), (C, OAK))]
    assert recall_of(found, truths, [DOG]) == 1.0  # the poodle
    assert recall_of(found, truths, [ANIMAL]) == 1.0
    assert recall_of(found, truths, [OAK]) == 0.0
    assert recall_of(found, truths, [ANIMAL, OAK]) == pytest.approx(2 / 3)


def test_recall_looks_at_the_likeliest_boxes_alone():
    many = [([70.0 + i, 70, 75 + i, 75], OAK, 0.9) for i in range(10)]
    truths = [truth((A, DOG))]
    assert recall_of([scored(*many, (A, DOG, 0.5))], truths, [DOG], most=10) == 0.0
    assert recall_of([scored(*many, (A, DOG, 0.5))], truths, [DOG], most=11) == 1.0
    assert recall_of([scored(*many[1:], (A, DOG, 0.5))], truths, [DOG], most=10) == 1.0


def test_recall_of_nothing():
    assert recall_of([scored()], [truth((A, DOG))], [DOG]) == 0.0
    assert math.isnan(recall_of([scored((A, DOG, 0.9))], [truth()], [DOG]))
    assert math.isnan(recall_of([scored((A, DOG, 0.9))], [truth((A, CAT))], [DOG]))


# ---------------------------------------------------------------------- a model's boxes


def lively_model(tree: WordTree = SMALL) -> Detector:
    torch.manual_seed(1)
    model = yolo9000.models.yolo9000(tree, [[1.0, 1.5], [3.0, 2.0]], 32, widths=(4, 6, 8), counts=(1, 1, 1))
    torch.nn.init.normal_(model.head.boxes.weight, std=2.0)
    torch.nn.init.normal_(model.head.classes.weight, std=2.0)
    return model.eval()


def test_a_box_scores_objectness_times_probability_for_every_node_asked_for():
    model, nodes = lively_model(), [DOG, OAK, ANIMAL]
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    results = score_nodes(model, images, nodes)
    with torch.no_grad():
        region = model.region(images)
        boxes = (decode_xyxy(region.raw, model.head.anchors) * 32).clamp(0, 32).flatten(1, 3)
        objectness = region.raw[..., 4].sigmoid().flatten(1)
        probs = tree_log_prob(model.head.classes(region.features), SMALL).exp().flatten(1, 3)  # [b, boxes, nodes]
    assert len(results) == 2
    for image, one in enumerate(results):
        assert set(one.nodes.tolist()) <= set(nodes)
        assert bool((one.scores > 0.005).all())
        for box, node, score in zip(one.boxes, one.nodes.tolist(), one.scores, strict=True):
            at = int((boxes[image] - box).abs().sum(1).argmin())
            assert float(score) == pytest.approx(float(objectness[image, at] * probs[image, at, node]), rel=1e-4)
        for node in nodes:  # suppressed per node, and siblings or ancestors survive beside it
            mine = one.boxes[one.nodes == node]
            overlaps = box_iou(mine, mine).fill_diagonal_(0)
            assert float(overlaps.max()) <= 0.45
        assert float(box_iou(one.any_boxes, one.any_boxes).fill_diagonal_(0).max()) <= 0.45
        assert one.any_scores.tolist() == sorted(one.any_scores.tolist(), reverse=True)
        assert float(one.any_scores[0]) == pytest.approx(float(objectness[image].max()), rel=1e-5)


def test_a_data_set_is_scored_image_by_image_with_its_labels_as_nodes():
    model = lively_model()
    generator = torch.Generator().manual_seed(0)
    data = [
        (
            torch.randint(256, (3, 32, 32), dtype=torch.uint8, generator=generator),
            {"boxes": torch.tensor([A]), "labels": torch.tensor([number % 2])},
        )
        for number in range(5)
    ]
    ticks: list[int] = []
    said, truths = look_through(model, data, np.array([DOG, OAK]), [DOG, OAK], batch=2, tick=ticks.append)
    assert ticks == [2, 2, 1]
    assert (truths.image.tolist(), truths.nodes.tolist()) == ([0, 1, 2, 3, 4], [DOG, OAK, DOG, OAK, DOG])
    assert truths.boxes.tolist() == [A] * 5
    (alone,) = score_nodes(model, data[4][0][None].float() / 255, [DOG, OAK])
    last = said.found.at(said.found.image == 4)
    np.testing.assert_allclose(last.boxes, alone.boxes.numpy(), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(last.scores, alone.scores.numpy(), rtol=1e-4, atol=1e-5)
    assert (said.places.nodes == 0).all()
    assert (said.places.image == 4).sum() == len(alone.any_boxes)


@pytest.mark.parametrize(("options", "part"), [({"data": "coco"}, "no data set 'coco'"), ({"scenes": 0}, "0 scenes")])
def test_an_evaluation_that_cannot_be_had_is_refused(options, part):
    with pytest.raises(WordTreeError, match=part):
        yolo9000.evaluate("anything.safetensors", **options)
