"""Confusion along the tree and operating points: against descents and matchings in slow loops, and cases by hand."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from PIL import Image
from small_data import SMALL
from strategies import trees

from wordtree.metrics import RELATIONS, hierarchical_scores, operating_curve
from wordtree.nn import descend, tree_log_prob
from yolo9000.charts import plot_confusion, plot_operating_points, plot_sizes
from yolo9000.confusion import (
    MISSED,
    SHADES,
    Answers,
    Confusion,
    confuse,
    match,
    operating_points,
    write_points,
)
from yolo9000.looking import way_down
from yolo9000.scores import Truths

ANIMAL, CAR, CAT, DOG, TABBY, POODLE = range(6)
A, B, C = [0.0, 0, 10, 10], [20.0, 20, 40, 40], [60.0, 0, 80, 30]
seeds = st.integers(0, 2**31 - 1)


def answers_of(*rows, tree=SMALL):
    """Boxes; a row: image, box, objectness, the end of the way down, Pr of each step."""
    depth = int(tree.depths.max()) + 1
    path, probs = np.full((len(rows), depth), -1), np.zeros((len(rows), depth))
    for at, (_, _, _, end, steps) in enumerate(rows):
        path[at, : len(steps)], probs[at, : len(steps)] = tree.path(end), steps
    image, boxes, objectness = zip(*(row[:3] for row in rows), strict=True) if rows else ([], [], [])
    return Answers(
        np.array(image, dtype=np.int64), np.array(boxes, dtype=float).reshape(-1, 4), np.array(objectness, dtype=float),
        path, probs,
    )  # fmt: skip


def truths_of(*rows):
    """Objects; a row: image, box, node, and "" or "difficult" or "crowd"."""
    image, boxes, nodes, flag = zip(*rows, strict=True) if rows else ([], [], [], [])
    box = np.array(boxes, dtype=float).reshape(-1, 4)
    return Truths(
        np.array(image, dtype=np.int64), box, np.array(nodes, dtype=np.int64),
        np.array([one == "crowd" for one in flag], dtype=bool),
        np.array([one == "difficult" for one in flag], dtype=bool), (box[:, 2:] - box[:, :2]).prod(1),
    )  # fmt: skip


# ---------------------------------------------------------------------- the way down


@given(trees(), seeds, st.sampled_from(["path", "darknet", "darknet-2018"]), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9]))
@hypothesis(max_examples=80)
def test_a_way_down_cut_off_at_a_threshold_is_the_descent_at_it(tree, seed, rule, threshold):
    logits = torch.randn(7, len(tree), generator=torch.Generator().manual_seed(seed % 1000), dtype=torch.float64) * 2
    log_probs = tree_log_prob(logits, tree)
    path, probs = (part.numpy() for part in way_down(log_probs, tree))
    for row, way in enumerate(path.tolist()):
        steps = [node for node in way if node >= 0]
        assert tuple(steps) == tree.path(steps[-1])
        assert steps[-1] in tree.leaves
        np.testing.assert_allclose(probs[row, : len(steps)], log_probs[row, steps].exp())
        assert (probs[row, len(steps) :] == 0).all()
    answers = Answers(np.arange(7), np.zeros((7, 4)), np.ones(7), path, probs)
    nodes, said = answers.said(threshold, rule)
    wanted, wanted_log_probs = descend(logits, tree, threshold, rule)
    assert nodes.tolist() == wanted.tolist()
    np.testing.assert_allclose(said, wanted_log_probs.exp().numpy())


def test_a_detector_that_tells_one_path_alone_goes_down_it():
    probs = torch.zeros(2, 6)
    probs[0, [ANIMAL, DOG, POODLE]] = torch.tensor([0.8, 0.6, 0.3])
    probs[1, CAR] = 0.5
    path, said = way_down(probs.log(), SMALL)
    assert path.tolist() == [[ANIMAL, DOG, POODLE], [CAR, -1, -1]]
    torch.testing.assert_close(said, torch.tensor([[0.8, 0.6, 0.3], [0.5, 0, 0]], dtype=said.dtype))
    vague, _ = way_down(torch.tensor([[0.8, 0.0, 0.0, 0.6, 0.0, 0.0]]).log(), SMALL)
    assert vague.tolist() == [[ANIMAL, DOG, -1]]  # told no further


# ---------------------------------------------------------------------- matching by place


def iou(a, b):
    side = [min(a[2 + k], b[2 + k]) - max(a[k], b[k]) for k in (0, 1)]
    both = max(side[0], 0) * max(side[1], 0)
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return both / (area[0] + area[1] - both), both / area[0]


def slow_match(answers, scores, truths):
    """One box after the other, the best first."""
    taken, truth = set(), [-1] * len(scores)
    counts = [row for row in range(len(truths.image)) if not (truths.ignored[row] or truths.crowd[row])]
    there = {
        (box, row): iou(answers.boxes[box], truths.boxes[row])
        for box in range(len(scores))
        for row in range(len(truths.image))
        if answers.image[box] == truths.image[row]
    }
    for box in sorted(range(len(scores)), key=lambda box: -scores[box]):
        free = [row for row in counts if row not in taken and there.get((box, row), (0, 0))[0] >= 0.5]
        if free:
            truth[box] = max(free, key=lambda row: there[box, row][0])
            taken.add(truth[box])
    again, aside = [], []
    for box, own in enumerate(truth):
        over = {row for row in range(len(truths.image)) if there.get((box, row), (0, 0))[0] >= 0.5}
        inside = {row for row in np.flatnonzero(truths.crowd).tolist() if there.get((box, row), (0, 0))[1] >= 0.5}
        again.append(own < 0 and bool(over & set(counts)))
        aside.append(own < 0 and not again[-1] and bool((over - set(counts)) | inside))
    return truth, again, aside


@given(seeds)
@hypothesis(max_examples=120)
def test_boxes_take_objects_as_a_loop_from_the_best_score_down_would(seed):
    random = np.random.RandomState(seed)
    said, there = [], []
    for image in range(4):
        for _ in range(random.randint(0, 5)):
            low = random.randint(0, 30, 2)
            box = [*low, *(low + random.randint(8, 25, 2))]
            there.append((image, box, int(random.randint(6)), random.choice(["", "", "", "difficult", "crowd"])))
            for _ in range(random.randint(0, 3)):
                near = np.array(box) + random.randint(-3, 4, 4)
                said.append((image, near, random.randint(1, 5) / 5, DOG, [0.9, 0.5]))
    answers, truths = answers_of(*said), truths_of(*there)
    scores = answers.objectness + np.linspace(0, 1e-6, len(said))  # no ties
    found = match(answers, scores, truths)
    truth, again, aside = slow_match(answers, scores, truths)
    assert found.truth.tolist() == truth
    assert found.again.tolist() == again
    assert found.aside.tolist() == aside


# ---------------------------------------------------------------------- confusion


def example() -> Confusion:
    truths = truths_of(
        (0, A, POODLE, ""), (0, B, DOG, ""), (0, C, TABBY, ""), (1, A, CAR, ""), (1, B, CAT, "difficult"),
        (2, A, POODLE, ""), (2, B, CAT, ""),
    )  # fmt: skip
    answers = answers_of(
        (0, A, 0.9, POODLE, [0.9, 0.8, 0.3]),  # a poodle called dog
        (0, B, 0.8, POODLE, [0.9, 0.8, 0.7]),  # a dog called poodle
        (0, C, 0.7, POODLE, [0.9, 0.4, 0.3]),  # a tabby called animal
        (1, A, 0.9, TABBY, [0.9, 0.8, 0.6]),  # a car called tabby
        (1, B, 0.9, TABBY, [0.9, 0.8, 0.6]),  # a difficult cat: neither way
        (1, C, 0.9, CAR, [0.8]),  # nothing is there
        (2, A, 0.9, TABBY, [0.9, 0.8, 0.6]),  # a poodle called tabby
        (2, B, 0.2, CAT, [0.9, 0.8]),  # too unsure: the cat is missed
        (2, [0.0, 0, 10, 6], 0.6, POODLE, [0.9, 0.8, 0.7]),  # a second box on the poodle
    )
    return confuse(answers, truths, SMALL, threshold=0.25, tree_threshold=0.5)


def test_a_confusion_made_by_hand_is_counted_as_it_is():
    found = example()
    assert found.truths.tolist() == [POODLE, DOG, TABBY, CAR, POODLE, CAT]
    assert found.answers.tolist() == [DOG, POODLE, ANIMAL, TABBY, TABBY, MISSED]
    assert (found.background.tolist(), found.second.tolist()) == ([CAR], [POODLE])
    record = found.to_record()
    assert record["relations"] == {
        "exact": 0, "ancestor": 2, "descendant": 1, "sibling": 0, "cousin": 1, "unrelated": 1, "unnamed": 0,
        "missed": 1,
    }  # fmt: skip
    assert record["ancestor_by_steps"] == {"1": 1, "2": 1}
    assert record["descendant_by_steps"] == {"1": 1}
    assert record["cousin_through"] == {"n00015388 animal": 1}
    assert (record["truths"], record["background"], record["second"]) == (6, 1, 1)
    assert found.figures() == pytest.approx({"called/exact": 0, "called/correct": 2 / 6, "called/missed": 1 / 6})
    text = found.summary()
    first = "6 objects: 2 by a node above, 1 by one below, 1 by a cousin, 1 by something unrelated, 1 missed"
    assert text.splitlines()[0] == f"{first}; boxes on nothing: 1; second boxes on an object: 1"
    assert "  tabby called animal: 1  (2 steps above)" in text.splitlines()
    assert "  poodle called tabby: 1  (cousin through animal)" in text.splitlines()
    assert "  dog called poodle: 1  (1 step below)" in text.splitlines()
    assert "  car called tabby: 1  (unrelated)" in text.splitlines()


def test_a_box_is_as_sure_as_what_it_is_called_or_as_its_objectness_alone():
    truths, sure = truths_of((0, A, DOG, "")), answers_of((0, A, 0.5, DOG, [0.9, 0.6]))
    assert confuse(sure, truths, SMALL, 0.4, 0.5).answers.tolist() == [MISSED]  # .5 x .6
    assert confuse(sure, truths, SMALL, 0.4, 0.8).answers.tolist() == [ANIMAL]  # .5 x .9
    assert confuse(sure, truths, SMALL, 0.4, 0.95).answers.tolist() == [-1]
    assert confuse(sure, truths, SMALL, 0.4, 0.5, product=False).answers.tolist() == [DOG]
    assert confuse(sure, truths, SMALL, 0.4, 0.95).to_record()["relations"]["unnamed"] == 1


def test_the_files_of_a_confusion_hold_its_counts(tmp_path):
    found = example()
    found.write(tmp_path)
    assert json.loads((tmp_path / "confusion.json").read_text()) == found.to_record()
    with (tmp_path / "confusion.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["count"]) for row in rows) == 6 + 1 + 1
    by_pair = {(row["truth"], row["answer"], row["relation"]): row for row in rows}
    cousin = by_pair["poodle", "tabby", "cousin"]
    assert (cousin["up"], cousin["down"], cousin["common"], cousin["truth_id"]) == ("2", "2", "animal", "n02113335")
    assert by_pair["cat", "", "missed"]["count"] == by_pair["", "car", "background"]["count"] == "1"
    assert by_pair["", "poodle", "second"]["count"] == "1"


@given(trees(), seeds)
@hypothesis(max_examples=80)
def test_relations_matrix_and_groups_count_every_truth_once(tree, seed):
    random = np.random.RandomState(seed)
    truths, answers = random.randint(0, len(tree), 30), random.randint(-2, len(tree), 30)
    background = random.randint(-1, len(tree), 5)
    found = Confusion(tree, truths, answers, background, background[:2], {})
    named = answers != MISSED
    assert (found.shades == SHADES.index("missed")).tolist() == (~named).tolist()
    right = np.isin(found.shades[named], [SHADES.index(name) for name in ("exact", "ancestor", "unnamed")])
    scores = hierarchical_scores(answers[named], truths[named], tree, partial=False)
    assert right.mean() == pytest.approx(scores.correct, nan_ok=True)
    assert sum(row["count"] for row in found.rows()) == 30 + 5 + 2
    groups, matrix = found.matrix()
    assert matrix[:-1].sum() == 30
    assert matrix[-1].sum() == 5
    assert matrix[:-1, -1].sum() == (~named).sum()
    for truth in truths.tolist():  # every truth lies in one group
        assert len(set(tree.path(truth)) & set(groups)) == 1
    for at, group in enumerate(groups):
        rows = [group in tree.path(truth) for truth in truths.tolist()]
        assert matrix[at].sum() == sum(rows)
        same = [a >= 0 and group in tree.path(a) for a in answers[rows].tolist()]
        assert matrix[at, at] == sum(same)
    assert len(groups) <= max(10, len({tree.path(truth)[0] for truth in truths.tolist()}))


# ---------------------------------------------------------------------- operating points


@given(trees(), seeds)
@hypothesis(max_examples=30)
def test_operating_points_are_the_scores_of_descents_and_lie_on_the_operating_curve(tree, seed):
    generator = torch.Generator().manual_seed(seed % 1000)
    log_probs = tree_log_prob(torch.randn(12, len(tree), generator=generator, dtype=torch.float64) * 2, tree)
    path, probs = (part.numpy() for part in way_down(log_probs, tree))
    truths = np.random.RandomState(seed).randint(0, len(tree), 12)
    answers = Answers(np.arange(12), np.zeros((12, 4)), np.ones(12), path, probs)
    thresholds = np.array([0.0, 0.2, 0.5, 0.8, 1.0])
    points = operating_points(answers, truths, tree, thresholds=thresholds)
    whole = tree.information[truths].sum()
    for at, threshold in enumerate(thresholds.tolist()):
        nodes = descend(log_probs, tree, threshold)[0].numpy()
        scores = hierarchical_scores(nodes, truths, tree)
        assert points.correct[at] == pytest.approx(scores.correct)
        assert points.exact[at] == pytest.approx(scores.exact)
        assert points.recall[at] == pytest.approx(scores.recall)
        assert points.depth[at] == pytest.approx(np.mean([len(tree.path(n)) if n >= 0 else 0 for n in nodes.tolist()]))
        told = sum(tree.information[one] for one in tree_common(nodes, truths, tree) if one >= 0)
        assert points.information[at] == pytest.approx(told / whole if whole else math.nan, nan_ok=True)
    assert points.correct[-1] == 1.0 or (probs >= 1).any()
    curve = operating_curve(path, np.where(path >= 0, probs, -np.inf), truths, tree)
    for threshold, correct, recall in zip(thresholds[1:], points.correct[1:], points.recall[1:], strict=True):
        last = (curve.threshold > threshold).nonzero()[0][-1]
        assert correct == pytest.approx(curve.correct[last])
        assert recall == pytest.approx(curve.recall[last], nan_ok=True)


def tree_common(nodes, truths, tree):
    """The deepest node on both paths, one row at a time."""
    for node, truth in zip(nodes.tolist(), truths.tolist(), strict=True):
        shared = set(tree.path(node) if node >= 0 else ()) & set(tree.path(truth))
        yield max(shared, key=lambda one: tree.depths[one], default=-1)


def test_points_are_written_a_row_a_threshold(tmp_path):
    answers = answers_of((0, A, 1.0, POODLE, [0.9, 0.8, 0.3]), (1, A, 1.0, CAR, [0.7]))
    points = operating_points(answers, np.array([POODLE, CAT]), SMALL, thresholds=np.array([0.0, 0.5, 1.0]))
    with write_points(tmp_path / "points.csv", points).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["tree_threshold"] for row in rows] == ["0", "0.5", "1"]
    assert [row["correct"] for row in rows] == ["0.5", "0.5", "1"]
    assert [row["exact"] for row in rows] == ["0.5", "0", "0"]
    assert [row["depth"] for row in rows] == ["2", "1.5", "0"]
    empty = operating_points(answers.at([]), np.zeros(0, np.int64), SMALL)
    assert np.isnan(empty.correct).all()
    write_points(tmp_path / "empty.csv", empty)


# ---------------------------------------------------------------------- charts


def test_charts_are_pictures_and_take_nothing_too(tmp_path):
    found = example()
    none = np.zeros(0, np.int64)
    empty = Confusion(SMALL, none, none, none, none, {"tree_threshold": 0.5})
    points = operating_points(answers_of(), none, SMALL)
    some = operating_points(answers_of((0, A, 1.0, POODLE, [0.9, 0.8, 0.3])), np.array([POODLE]), SMALL)
    made = [
        plot_confusion(tmp_path / "a.png", found, "pets"),
        plot_confusion(tmp_path / "b.png", empty, "nothing"),
        plot_operating_points(tmp_path / "c.png", points, "nothing", 0.5),
        plot_operating_points(tmp_path / "d.png", some, "one"),
        plot_sizes(tmp_path / "e" / "speed.png", {288: (90.0, 0.69), 544: (40.0, 0.786)}, "mAP", "a machine"),
    ]
    for path in made:
        with Image.open(path) as image:
            assert min(image.size) > 200
    assert empty.summary() == "0 objects: none"
    assert all(math.isnan(value) for value in empty.figures().values())
    assert len(RELATIONS) + 1 == len(SHADES)
