"""Scores of VOC, COCO and ImageNet: against the devkit's arithmetic in slow loops, and pycocotools called directly."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
import small_data
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small_data import PETS, SMALL

from wordtree import WordTreeError
from yolo9000 import official_maps, official_tree
from yolo9000.data.coco import read_coco
from yolo9000.scores import (
    COCO_FIGURES,
    Curve,
    Found,
    Truths,
    coco_by_class,
    coco_evaluation,
    coco_figures,
    plot_precision_recall,
    split_by_boxes,
    top_k,
    voc_area,
    voc_curve,
    voc_eleven,
    worst_and_best,
    write_coco_results,
    write_voc_results,
)

ANIMAL, CAR, CAT, DOG, TABBY, POODLE = range(6)


def found_of(*rows):
    """Detections; a row: image, box, node, score."""
    image, boxes, nodes, scores = zip(*rows, strict=True) if rows else ([], [], [], [])
    return Found(
        np.array(image, dtype=np.int64), np.array(boxes, dtype=float).reshape(-1, 4), np.array(nodes, dtype=np.int64),
        np.array(scores, dtype=float),
    )  # fmt: skip


def truths_of(*rows):
    """Objects; a row: image, box, node, and whether it is ignored."""
    image, boxes, nodes, ignored = zip(*rows, strict=True) if rows else ([], [], [], [])
    box = np.array(boxes, dtype=float).reshape(-1, 4)
    return Truths(
        np.array(image, dtype=np.int64), box, np.array(nodes, dtype=np.int64), np.zeros(len(box), bool),
        np.array(ignored, dtype=bool), (box[:, 2:] - box[:, :2]).prod(1),
    )  # fmt: skip


def scene(seed: int, images: int = 5, nodes: tuple[int, ...] = (DOG, CAT)) -> tuple[Found, Truths]:
    """Random objects, some ignored, and random boxes, many near them; whole pixels, as VOC has."""
    random = np.random.RandomState(seed)
    there, said = [], []
    for image in range(images):
        for _ in range(random.randint(0, 5)):
            low = random.randint(0, 50, 2)
            box = [*low, *(low + random.randint(5, 40, 2))]
            node = int(random.choice(nodes))
            there.append((image, box, node, bool(random.rand() < 0.2)))
            for _ in range(random.randint(0, 3)):
                near = np.array(box) + random.randint(-6, 7, 4)
                near[2:] = np.maximum(near[2:], near[:2] + 1)
                said.append((image, near.tolist(), int(random.choice(nodes)), float(random.rand())))
        for _ in range(random.randint(0, 3)):
            low = random.randint(0, 50, 2)
            said.append((image, [*low, *(low + random.randint(5, 40, 2))], int(random.choice(nodes)), random.rand()))
    return found_of(*said), truths_of(*there)


# ---------------------------------------------------------------------- VOC


def devkit(found: Found, truths: Truths, node: int, least: float = 0.5) -> tuple[list[float], list[float], int]:
    """VOCevaldet.m in loops: corners that count from 1 and belong to the box, one detection after the other."""
    objects: dict[int, list[dict]] = {}
    positives = 0
    for row in np.flatnonzero(truths.nodes == node):
        corners = truths.boxes[row] + [1, 1, 0, 0]
        objects.setdefault(int(truths.image[row]), []).append(
            {"box": corners, "difficult": bool(truths.ignored[row]), "detected": False}
        )
        positives += not truths.ignored[row]
    right = wrong = 0
    recall, precision = [], []
    for row in sorted(np.flatnonzero(found.nodes == node), key=lambda row: -found.scores[row]):
        box = found.boxes[row] + [1, 1, 0, 0]
        best, most = None, -math.inf
        for other in objects.get(int(found.image[row]), []):
            truth = other["box"]
            inner = [max(box[0], truth[0]), max(box[1], truth[1]), min(box[2], truth[2]), min(box[3], truth[3])]
            width, height = inner[2] - inner[0] + 1, inner[3] - inner[1] + 1
            if width > 0 and height > 0:
                area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
                area += (truth[2] - truth[0] + 1) * (truth[3] - truth[1] + 1) - width * height
                if width * height / area > most:
                    best, most = other, width * height / area
        if most >= least:
            if not best["difficult"]:
                if not best["detected"]:
                    right += 1
                    best["detected"] = True
                else:
                    wrong += 1
            else:
                continue
        else:
            wrong += 1
        recall.append(right / positives if positives else math.nan)
        precision.append(right / (right + wrong))
    return recall, precision, positives


def slow_area(recall: list[float], precision: list[float]) -> float:
    """VOCap.m in loops."""
    r, p = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for at in range(len(p) - 2, -1, -1):
        p[at] = max(p[at], p[at + 1])
    return sum((r[at] - r[at - 1]) * p[at] for at in range(1, len(r)) if r[at] != r[at - 1])


def slow_eleven(recall: list[float], precision: list[float]) -> float:
    """VOC 2007's mean over eleven recalls, in loops."""
    total = 0.0
    for tenth in range(11):
        best = [p for r, p in zip(recall, precision, strict=True) if r >= tenth * 0.1]
        total += max(best, default=0.0) / 11
    return total


@given(st.integers(0, 100_000))
@settings(max_examples=150)
def test_voc_is_the_development_kits_arithmetic(seed):
    found, truths = scene(seed)
    for node in (DOG, CAT):
        recall, precision, positives = devkit(found, truths, node)
        curve = voc_curve(found, truths, node)
        assert curve.truths == positives
        if positives:
            np.testing.assert_allclose(curve.recall, recall)
            np.testing.assert_allclose(curve.precision, precision)
            assert voc_area(curve) == pytest.approx(slow_area(recall, precision))
            assert voc_eleven(curve) == pytest.approx(slow_eleven(recall, precision))
        else:
            assert math.isnan(voc_area(curve))
            assert math.isnan(voc_eleven(curve))


def test_hand_made_cases_of_voc():
    a, b = [0, 0, 10, 10], [20, 20, 40, 40]
    truths = truths_of((0, a, DOG, False), (0, b, DOG, False))
    perfect = voc_curve(found_of((0, a, DOG, 0.9), (0, b, DOG, 0.8)), truths, DOG)
    assert voc_area(perfect) == voc_eleven(perfect) == 1.0
    half = voc_curve(found_of((0, a, DOG, 0.9)), truths, DOG)
    assert voc_area(half) == 0.5
    assert voc_eleven(half) == pytest.approx(6 / 11)  # recalls 0 to .5
    twice = voc_curve(found_of((0, a, DOG, 0.9), (0, a, DOG, 0.8), (0, b, DOG, 0.7)), truths, DOG)
    assert voc_area(twice) == pytest.approx(0.5 + 0.5 * 2 / 3)
    difficult = truths_of((0, a, DOG, False), (0, b, DOG, True))
    aside = voc_curve(found_of((0, b, DOG, 0.9), (0, b, DOG, 0.85), (0, a, DOG, 0.8)), difficult, DOG)
    assert (voc_area(aside), aside.truths) == (1.0, 1)  # what is found of a difficult object is neither right nor wrong
    nothing = voc_curve(found_of(), truths, DOG)
    assert voc_area(nothing) == voc_eleven(nothing) == 0.0
    other_image = voc_curve(found_of((1, a, DOG, 0.9)), truths, DOG)
    assert voc_area(other_image) == 0.0


# ---------------------------------------------------------------------- COCO


def direct(file, results: list[dict]) -> COCOeval:
    """pycocotools on files, as its own demo calls it."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(4))
def test_coco_is_what_pycocotools_says_when_it_is_called_directly_on_the_file(tmp_path, seed):
    """Images of several sizes, objects with areas of their own, crowds, holes in the ids."""
    random = np.random.RandomState(seed)
    small_data.picture(tmp_path / "images" / "x.jpg", 200, 180)
    ids = sorted(random.choice(1000, 6, replace=False).tolist())
    annotations, results = [], []
    for id_ in ids:
        for _ in range(random.randint(0, 6)):
            low = random.rand(2) * 80
            size = 4 + random.rand(2) * 95
            box = [*low.tolist(), *size.tolist()]
            number = int(random.choice([17, 18]))
            crowd = int(random.rand() < 0.2)
            area = float(size.prod() * (0.5 + random.rand() / 2))
            annotations.append(
                {"id": len(annotations) + 1, "image_id": id_, "category_id": number, "bbox": box, "area": area,
                 "iscrowd": crowd}
            )  # fmt: skip
            near = np.array(box) + random.randn(4) * 4
            near[2:] = np.maximum(near[2:], 1)
            said = int(random.choice([17, 18, number]))
            results.append({"image_id": id_, "category_id": said, "bbox": near.tolist(), "score": random.rand()})
    file = small_data.coco(
        tmp_path, annotations=annotations,
        images=[{"id": id_, "file_name": "x.jpg", "width": 200, "height": 180} for id_ in ids],
    )  # fmt: skip
    theirs = direct(file, results)
    records = read_coco(file, tmp_path / "images", PETS, SMALL).raise_faults()
    image_of = {id_: at for at, id_ in enumerate(records.ids)}
    node_of = {18: DOG, 17: CAT}
    image = np.repeat(np.arange(len(records)), np.diff(records.starts))
    crowd = records.flags > 0
    truths = Truths(image, records.boxes, records.nodes, crowd, np.zeros_like(crowd), records.areas)
    rows = [
        (image_of[str(one["image_id"])], [*one["bbox"][:2], *np.add(one["bbox"][:2], one["bbox"][2:])],
         node_of[one["category_id"]], one["score"])
        for one in results
    ]  # fmt: skip
    ours = coco_evaluation(found_of(*rows), truths, len(records), [DOG, CAT])
    np.testing.assert_allclose(ours.stats, theirs.stats, rtol=0, atol=1e-12)
    figures = coco_figures(ours)
    assert figures.keys() == set(COCO_FIGURES)
    assert 0 < figures["AP50"] < 1
    by_class = coco_by_class(ours)
    for category, node in node_of.items():
        column = theirs.params.catIds.index(category)
        expected = theirs.eval["precision"][0, :, column, 0, -1]
        assert by_class[node] == pytest.approx(expected.mean()) or (expected == -1).all()
    # and the file of results, read back by pycocotools, says the same
    path = write_coco_results(tmp_path / "results.json", found_of(*rows), list(records.ids), records.numbers)
    again = direct(file, json.loads(path.read_text()))
    np.testing.assert_allclose(again.stats, theirs.stats, rtol=0, atol=5e-3)  # three digits of a pixel


def test_nothing_found_and_nothing_there():
    truths = truths_of((0, [0, 0, 10, 10], DOG, False))
    assert coco_figures(coco_evaluation(found_of(), truths, 1, [DOG]))["AP"] == 0.0
    none = coco_evaluation(found_of((0, [0, 0, 10, 10], DOG, 0.5)), truths_of(), 1, [DOG])
    assert math.isnan(coco_figures(none)["AP"])
    assert math.isnan(coco_by_class(none)[DOG])


def test_expansion_lets_a_truth_count_for_what_stands_above_it():
    truths = truths_of((0, [0, 0, 10, 10], POODLE, False), (0, [20, 20, 40, 40], CAT, False))
    more = truths.expanded(SMALL, [DOG, CAT, ANIMAL])
    assert sorted(more.nodes.tolist()) == sorted([DOG, ANIMAL, CAT, ANIMAL])
    found = found_of((0, [0, 0, 10, 10], DOG, 0.9), (0, [20, 20, 40, 40], ANIMAL, 0.8))
    assert voc_area(voc_curve(found, more, DOG)) == 1.0
    assert voc_area(voc_curve(found, more, ANIMAL)) == 0.5
    assert voc_curve(found, truths, DOG).truths == 0


# ---------------------------------------------------------------------- ImageNet


def test_classes_are_split_by_what_training_had_boxes_of():
    assert split_by_boxes([DOG, CAT, CAR], [DOG], SMALL) == ((DOG,), (CAR, CAT))
    assert split_by_boxes([ANIMAL, POODLE, TABBY, CAR], [DOG], SMALL, related=True) == ((ANIMAL, POODLE), (CAR, TABBY))
    tree, maps = official_tree(), official_maps()
    det, coco = (maps[name].nodes_on(tree).tolist() for name in ("inet9k", "coco9k"))
    assert [len(part) for part in split_by_boxes(det, coco, tree)] == [38, 162]


def test_the_worst_and_the_best_classes_are_told():
    text = worst_and_best({DOG: 0.61, CAT: 0.0, CAR: 0.52, TABBY: math.nan}, SMALL, count=2)
    lines = text.splitlines()
    assert lines[1].split() == ["cat", "0.0", "car", "52.0"]
    assert lines[2].split() == ["car", "52.0", "dog", "61.0"]


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=50)
def test_top_k_ranks_the_label_sets_nodes_and_no_other(seed, k):
    random = np.random.RandomState(seed)
    nodes = sorted(random.choice(20, 8, replace=False).tolist())
    scores, truths = random.rand(30, 20), random.choice(nodes, 30)
    right = 0
    for row, truth in zip(scores, truths, strict=True):
        ranked = sorted(nodes, key=lambda node: -row[node])
        right += int(truth) in ranked[:k]
    assert top_k(scores, truths, nodes, (k,))[k] == pytest.approx(right / 30)
    with pytest.raises(WordTreeError, match="none of the 7 nodes ranked"):
        top_k(scores, [nodes[0]] * 30, nodes[1:])


# ---------------------------------------------------------------------- files


def test_vocs_result_files_have_a_row_a_detection_and_corners_from_one(tmp_path):
    found = found_of((1, [0, 5, 10, 12.5], DOG, 0.25), (0, [3, 4, 5, 6], DOG, 0.5))
    files = write_voc_results(tmp_path / "voc", found, ["000005", "000007"], PETS, SMALL)
    assert [file.name for file in files] == ["comp4_det_test_dog.txt", "comp4_det_test_cat.txt"]
    assert files[0].read_text().splitlines() == [
        "000007 0.250000 1.000000 6.000000 10.000000 12.500000",
        "000005 0.500000 4.000000 5.000000 5.000000 6.000000",
    ]
    assert files[1].read_text() == ""


def test_cocos_result_file_has_the_data_sets_own_numbers(tmp_path):
    found = found_of((1, [0, 5, 10, 12.5], DOG, 0.25))
    path = write_coco_results(tmp_path / "r.json", found, ["9", "42"], {DOG: 18})
    assert json.loads(path.read_text()) == [
        {"image_id": 42, "category_id": 18, "bbox": [0.0, 5.0, 10.0, 7.5], "score": 0.25}
    ]
    with pytest.raises(WordTreeError, match="no COCO ids"):
        write_coco_results(tmp_path / "r.json", found, ["9", "42"], {CAT: 17})
    with pytest.raises(WordTreeError, match="no COCO ids"):
        write_coco_results(tmp_path / "r.json", found, ["9", "img_42"], {DOG: 18})


def test_curves_are_drawn(tmp_path):
    from PIL import Image

    curves = {"dog": Curve(np.array([0.5, 1.0]), np.array([1.0, 0.6]), 2), "none": Curve(np.zeros(0), np.zeros(0), 0)}
    with Image.open(plot_precision_recall(tmp_path / "deep" / "pr.png", curves)) as image:
        assert min(image.size) > 200
    plot_precision_recall(tmp_path / "empty.png", {})
