"""Scores of VOC, COCO and ImageNet: against the devkit's arithmetic in slow loops, and pycocotools called directly."""

import contextlib
import dataclasses
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
from strategies import trees

from wordtree import WordTreeError
from yolo9000 import official_maps, official_tree
from yolo9000.charts import plot_precision_recall
from yolo9000.data.coco import read_coco
from yolo9000.scores import (
    COCO_FIGURES,
    Curve,
    Found,
    Truths,
    among,
    coco_by_class,
    coco_evaluation,
    coco_figures,
    darknet_ranks,
    openimages_curve,
    ranks,
    split_by_boxes,
    voc_area,
    voc_curve,
    voc_eleven,
    worst_and_best,
    write_coco_results,
    write_imagenet_results,
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
    """Random objects, some ignored, some twice; and random boxes, many near them, some twice, of every other scene many
    of one score. Whole pixels, as VOC has."""
    random = np.random.RandomState(seed)
    there, said = [], []

    def score() -> float:
        return float(random.randint(1, 5) / 5 if seed % 2 else random.rand())

    for image in range(images):
        for _ in range(random.randint(0, 5)):
            low = random.randint(0, 50, 2)
            box = [*low, *(low + random.randint(5, 40, 2))]
            node = int(random.choice(nodes))
            there += [(image, box, node, bool(random.rand() < 0.2))] * random.choice([1, 1, 1, 2])
            for _ in range(random.randint(0, 3)):
                near = np.array(box) + random.randint(-6, 7, 4)
                near[2:] = np.maximum(near[2:], near[:2] + 1)
                said += [(image, near.tolist(), int(random.choice(nodes)), score())] * random.choice([1, 1, 2])
        for _ in range(random.randint(0, 3)):
            low = random.randint(0, 50, 2)
            said.append((image, [*low, *(low + random.randint(5, 40, 2))], int(random.choice(nodes)), score()))
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
    for _ in range(150):  # more of one class than the hundred that count, some of them before the others
        box = [*(random.rand(2) * 80).tolist(), *(4 + random.rand(2) * 95).tolist()]
        results.append({"image_id": ids[0], "category_id": 18, "bbox": box, "score": random.rand()})
    ids.append(2000)  # without annotations, and one false box
    results.append({"image_id": 2000, "category_id": 17, "bbox": [1, 2, 30, 40], "score": random.rand()})
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
    more = coco_evaluation(found_of(*rows, (0, [0, 0, 9, 9], CAR, 0.9)), truths, len(records), [DOG, CAT, CAR])
    np.testing.assert_allclose(more.stats, theirs.stats, rtol=0, atol=1e-12)  # a class without truths does not count
    assert math.isnan(coco_by_class(more)[CAR])
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


def test_the_twelve_figures_are_of_four_areas_and_three_numbers_of_boxes():
    """Boxes of 10, 50 and 200 pixels, each found by the 1st, 5th and 50th likeliest of 120."""
    sides, places = (10, 50, 200), {0: 0, 1: 4, 2: 49}
    truths = truths_of(*((image, [0, 0, side, side], DOG, False) for image, side in enumerate(sides)))
    said = []
    for image, side in enumerate(sides):
        for place in range(120):
            right = place == places[image]
            box = [0, 0, side, side] if right else [300, 300, 300 + side, 300 + side]
            said.append((image, box, DOG, 1 - (place + image / 4) / 1000))
    figures = coco_figures(coco_evaluation(found_of(*said), truths, 3, [DOG]))
    assert [figures[f"AR{most}"] for most in (1, 10, 100)] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert [figures[f"AR{area}"] for area in ("small", "medium", "large")] == [1.0, 1.0, 1.0]
    aps = [figures[f"AP{area}"] for area in ("small", "medium", "large")]
    assert aps == pytest.approx([1.0, 1 / 5, 1 / 50])


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


def darknet_top_k(values, k):
    """top_k of Darknet's utils.c, line by line."""
    index = [-1] * k
    for at in range(len(values)):
        current = at
        for slot in range(k):
            if index[slot] < 0 or values[current] > values[index[slot]]:
                current, index[slot] = index[slot], current
                if current < 0:
                    break
    return index


@given(trees(), st.integers(0, 10_000))
@settings(max_examples=80)
def test_of_a_tie_the_lower_column_ranks_first(tree, seed):
    random = np.random.RandomState(seed)
    scores, truths = random.randint(0, 4, (12, len(tree))) / 4, random.randint(0, len(tree), 12)
    for row, truth, rank in zip(scores.tolist(), truths.tolist(), ranks(scores, truths).tolist(), strict=True):
        assert sorted(range(len(row)), key=lambda node: (-row[node], node))[rank] == truth
    assert among(ranks(scores, truths), (len(tree),)) == {len(tree): 1.0}


@given(trees(), st.integers(0, 10_000))
@settings(max_examples=80)
def test_darknets_way_is_its_top_k_over_absolute_probabilities_of_leaves_alone(tree, seed):
    random = np.random.RandomState(seed)
    scores, truths = random.permutation(12 * len(tree)).reshape(12, -1) + 1.0, random.randint(0, len(tree), 12)
    only_leaves = scores * np.isin(np.arange(len(tree)), tree.leaves)  # hierarchy_predictions(..., only_leaves=1)
    found = darknet_ranks(np.log(scores), truths, tree)
    for k in range(1, min(6, len(tree.leaves)) + 1):
        theirs = [t in darknet_top_k(row, k) for row, t in zip(only_leaves, truths, strict=True)]
        assert (found < k).tolist() == theirs
    assert ((found < len(tree.leaves)) == np.isin(truths, tree.leaves)).all()  # inner nodes are never right


def test_what_was_not_answered_is_not_right():
    scores = np.full((2, 3), -np.inf)
    assert among(ranks(scores, np.array([0, 1])), (1, 5)) == {1: 0.0, 5: 0.0}
    constant = among(ranks(np.zeros((4, 2)), np.array([0, 1, 1, 1])), (1,))
    assert constant == {1: 0.25}  # right by chance


# ---------------------------------------------------------------------- Open Images


def slow_open_images(found: Found, truths: Truths, node: int, judged=None) -> tuple[list[float], list[float], int]:
    """The challenge's evaluator in loops: single objects, then groups by the share of the detection inside."""
    rows = [row for row in np.flatnonzero(found.nodes == node) if judged is None or judged[found.image[row]]]
    objects = [row for row in np.flatnonzero(truths.nodes == node) if truths.groups[row] or not truths.ignored[row]]
    done: set[int] = set()
    right = wrong = 0
    recall, precision = [], []

    def overlap(row, other):
        a, b = found.boxes[row], truths.boxes[other]
        both = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
        area, other_area = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
        return both / (area + other_area - both), both / area

    for row in sorted(rows, key=lambda row: -found.scores[row]):
        here = [one for one in objects if truths.image[one] == found.image[row]]
        single = [(overlap(row, one)[0], -one) for one in here if not truths.groups[one]]
        group = [(overlap(row, one)[1], -one) for one in here if truths.groups[one]]
        if single and max(single)[0] >= 0.5:
            best = -max(single)[1]
            right, wrong = (right + 1, wrong) if best not in done else (right, wrong + 1)
            done.add(best)
        elif group and max(group)[0] >= 0.5:
            best = -max(group)[1]
            if best in done:
                continue
            right += 1
            done.add(best)
        else:
            wrong += 1
        recall.append(right / len(objects) if objects else math.nan)
        precision.append(right / (right + wrong))
    return recall, precision, len(objects)


@given(st.integers(0, 100_000))
@settings(max_examples=100)
def test_open_images_is_the_challenges_arithmetic(seed):
    found, truths = scene(seed)
    random = np.random.RandomState(seed)
    groups = truths.ignored & (random.rand(len(truths.image)) < 0.7)  # the others are difficult
    truths = dataclasses.replace(truths, groups=groups)
    for judged in (None, random.rand(5) < 0.7):
        for node in (DOG, CAT):
            recall, precision, count = slow_open_images(found, truths, node, judged)
            curve = openimages_curve(found, truths, node, judged)
            assert curve.truths == count
            np.testing.assert_allclose(curve.recall, recall)
            np.testing.assert_allclose(curve.precision, precision)


def test_a_group_is_one_truth_and_unverified_images_say_nothing():
    truths = dataclasses.replace(
        truths_of((0, [0, 0, 100, 100], DOG, True), (0, [200, 0, 210, 10], DOG, False)), groups=np.array([True, False])
    )
    rows = [(0, [0, 0, 20, 20], DOG, 0.9), (0, [50, 50, 90, 90], DOG, 0.8), (0, [200, 0, 210, 10], DOG, 0.7),
            (1, [0, 0, 20, 20], DOG, 0.95)]  # fmt: skip
    curve = openimages_curve(found_of(*rows), truths, DOG, np.array([True, False]))
    assert (curve.recall.tolist(), curve.precision.tolist(), curve.truths) == ([0.5, 1.0], [1.0, 1.0], 2)
    assert voc_area(openimages_curve(found_of(*rows), truths, DOG)) == pytest.approx(2 / 3)  # image 1 counts: wrong
    assert voc_curve(found_of(*rows), truths, DOG).truths == 1  # for VOC and COCO the group counts neither way
    expanded = truths.expanded(SMALL, [ANIMAL])
    assert openimages_curve(found_of((0, [0, 0, 20, 20], ANIMAL, 0.9)), expanded, ANIMAL).truths == 2


def test_detections_expand_as_truths_do():
    found = found_of((0, [0, 0, 10, 10], POODLE, 0.9), (0, [5, 5, 10, 10], CAR, 0.8)).expanded(SMALL, [DOG, ANIMAL])
    assert sorted(found.nodes.tolist()) == [ANIMAL, DOG]
    assert found.scores.tolist() == [0.9, 0.9]
    assert found.boxes.tolist() == [[0, 0, 10, 10]] * 2


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


@pytest.mark.parametrize("competition", ["comp3", "comp4"])
def test_vocs_files_read_as_the_devkit_reads_them_score_what_we_score(tmp_path, competition):
    """textread(file, '%s %f %f %f %f %f') of VOCevaldet.m, and its arithmetic on corners that count from 1."""
    found, truths = scene(7)
    ids = [f"{image:06}" for image in range(5)]
    files = write_voc_results(tmp_path, found, ids, PETS, SMALL, "val", competition)
    assert [file.name for file in files] == [f"{competition}_det_val_{name}.txt" for name in PETS.labels]
    for file, node in zip(files, PETS.nodes_on(SMALL).tolist(), strict=True):
        rows = [line.split(" ") for line in file.read_text().splitlines()]
        assert {len(row) for row in rows} == {6}
        corners = np.array([row[2:] for row in rows], dtype=float)
        again = found_of(
            *((ids.index(row[0]), [x - 1, y - 1, r, b], node, float(row[1]))
              for row, (x, y, r, b) in zip(rows, corners.tolist(), strict=True))
        )  # fmt: skip
        recall, precision, _ = devkit(again, truths, node)
        assert slow_area(recall, precision) == pytest.approx(voc_area(voc_curve(found, truths, node)))
    with pytest.raises(WordTreeError, match="no competition of VOC's detection 'comp5'"):
        write_voc_results(tmp_path, found, ids, PETS, SMALL, competition="comp5")


def test_imagenets_result_file_has_images_and_classes_counted_from_one(tmp_path):
    det = official_maps()["inet9k"]
    tree = official_tree()
    zebra, accordion = (det.nodes_on(tree)[det.labels.index(name)] for name in ("zebra", "accordion"))
    found = found_of((1, [0, 5, 10, 12.5], zebra, 0.25), (0, [3, 4, 5, 6], accordion, 0.5))
    path = write_imagenet_results(tmp_path / "det.txt", found, det, tree)
    assert path.read_text().splitlines() == [
        "2 200 0.250000 0.00 5.00 10.00 12.50", "1 1 0.500000 3.00 4.00 5.00 6.00",
    ]  # fmt: skip
    rows = np.loadtxt(path)  # image, class, confidence, xmin, ymin, xmax, ymax
    assert rows.shape == (2, 7)
    assert [det.labels[int(row[1]) - 1] for row in rows] == ["zebra", "accordion"]


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
