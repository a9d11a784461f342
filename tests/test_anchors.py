"""Dimension clusters beside plain loops, the form of the paper's Table 1 and Figure 2, and every data set they read."""

import csv
import itertools
import json
import math

import numpy as np
import pytest
import small_data
import torch
import yaml
from conftest import TINY
from PIL import Image

import yolo9000.cfg
import yolo9000.data.embedded
import yolo9000.shapes
from wordtree import WordTreeError
from yolo9000.anchors import (
    compared,
    curve,
    curve_csv,
    dimension_clusters,
    hand_picked,
    picked,
    run_anchors,
    told,
)
from yolo9000.shapes import Shapes, read_shapes

# ---------------------------------------------------------------------- the slow obvious form


def iou(a, b):
    overlap = min(a[0], b[0]) * min(a[1], b[1])
    return overlap / (a[0] * a[1] + b[0] * b[1] - overlap)


def mean_iou(shapes, priors):
    return sum(max(iou(shape, prior) for prior in priors) for shape in shapes) / len(shapes)


def farness(distance, a, b):
    return 1 - iou(a, b) if distance == "iou" else (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2


def slow_k_means(shapes, k, distance, random):
    """Lloyd's rule by loops, from k of the shapes: what is nearest to a prior makes its mean, until nothing moves."""
    priors = [shapes[at] for at in random.permutation(len(shapes))[:k]]
    while True:
        nearest = [min(range(k), key=lambda j: farness(distance, shape, priors[j])) for shape in shapes]
        moved = []
        for j in range(k):
            mine = [shape for shape, at in zip(shapes, nearest, strict=True) if at == j]
            moved.append([sum(side) / len(mine) for side in zip(*mine, strict=True)] if mine else priors[j])
        if moved == priors:
            return priors
        priors = moved


def scattered(n, seed):
    random = np.random.RandomState(seed)
    return np.exp(random.randn(n, 2) * 0.8 - 2).clip(0.01, 1.0)


@pytest.mark.parametrize("distance", ["iou", "squared"])
@pytest.mark.parametrize("seed", range(3))
def test_the_priors_are_a_resting_point_of_plain_k_means_and_as_good_as_its_best(distance, seed):
    shapes = scattered(60, seed)
    found, mean = dimension_clusters(torch.from_numpy(shapes), 4, seed=seed, distance=distance)
    rows, priors = shapes.tolist(), found.double().tolist()
    assert mean == pytest.approx(mean_iou(rows, priors), abs=1e-6)
    nearest = [min(range(4), key=lambda j: farness(distance, row, priors[j])) for row in rows]
    for j in range(4):
        mine = [row for row, at in zip(rows, nearest, strict=True) if at == j]
        assert priors[j] == pytest.approx([sum(side) / len(mine) for side in zip(*mine, strict=True)], rel=1e-4)
    random = np.random.RandomState(seed)

    def cost(some):
        return sum(min(farness(distance, row, prior) for prior in some) for row in rows)

    best = min(cost(slow_k_means(rows, 4, distance, random)) for _ in range(12))
    assert cost(priors) <= best * 1.03


@pytest.mark.parametrize("seed", range(3))
def test_squared_error_finds_the_best_of_all_partitions_of_a_few_shapes(seed):
    rows = scattered(7, seed).tolist()

    def spread(some):
        middle = [sum(side) / len(some) for side in zip(*some, strict=True)]
        return sum(farness("squared", row, middle) for row in some)

    partitions = itertools.product(range(2), repeat=6)
    groups = [[[row for row, at in zip(rows, (0, *one), strict=True) if at == j] for j in (0, 1)] for one in partitions]
    best = min(spread(a) + spread(b) for a, b in groups if b)
    priors, _ = dimension_clusters(torch.tensor(rows, dtype=torch.float64), 2, distance="squared")
    assert sum(min(farness("squared", row, prior) for prior in priors.tolist()) for row in rows) == pytest.approx(
        best, rel=1e-4
    )


def test_half_a_million_boxes_are_told_apart_by_shape_and_not_by_box():
    few = scattered(12, 5)
    often = torch.from_numpy(np.repeat(few, 3000, axis=0))
    priors, mean = dimension_clusters(often, 12)
    wanted = few[np.argsort(few.prod(1))]
    assert priors.tolist() == [pytest.approx(pair) for pair in wanted.tolist()]
    assert mean == pytest.approx(1.0)
    many = scattered(60_000, 6)
    all_of_them, whole = dimension_clusters(torch.from_numpy(many), 5)
    assert whole == pytest.approx(mean_iou(many[::50].tolist(), all_of_them.tolist()), abs=0.01)
    part, _ = dimension_clusters(torch.from_numpy(many[::4]), 5)  # few enough to be taken one by one
    assert mean_iou(many[::50].tolist(), part.tolist()) == pytest.approx(whole, abs=0.01)
    assert torch.equal(dimension_clusters(torch.from_numpy(many), 5)[0], all_of_them)


def test_an_unknown_distance_is_refused():
    with pytest.raises(WordTreeError, match="no distance of box shapes 'ioo'; did you mean 'iou'"):
        dimension_clusters(torch.rand(9, 2) + 0.1, 2, distance="ioo")


# ---------------------------------------------------------------------- the paper's Table 1 and Figure 2


def planted(seed=0):
    """Shapes about nine centres of many sizes, as shares of images of 800 x 600."""
    centres = np.array([(s * a, s / a) for s in (0.04, 0.15, 0.5) for a in (0.7, 1.0, 1.4)])
    jitter = np.exp(0.06 * np.random.RandomState(seed).randn(9, 80, 2))
    sides = (centres[:, None] * jitter).reshape(-1, 2)
    return centres, Shapes(sides, np.tile((800.0, 600.0), (len(sides), 1)), "planted", "")


def test_table_1_by_squared_error_by_iou_by_hand_and_with_nine():
    centres, shapes = planted()
    rows = compared(shapes, 5, [hand_picked("faster-rcnn")])
    assert [(row.how, row.k) for row in rows] == [
        ("clusters by squared error", 5),
        ("clusters by IoU", 5),
        ("faster-rcnn", 9),
        ("clusters by IoU", 9),
    ]
    squared, by_iou, theirs, nine = (row.average_iou for row in rows)
    assert squared < by_iou < nine  # the order of the paper's table: 58.7, 61.0, 67.2
    assert theirs < nine
    found, wanted = (some[np.lexsort(some.T)] for some in (rows[3].priors, centres))
    np.testing.assert_allclose(found, wanted, rtol=0.05)
    assert nine == pytest.approx(mean_iou(shapes.sides.tolist(), rows[3].priors.tolist()), abs=1e-6)


def test_faster_rcnns_nine_are_pixels_of_the_image_as_it_makes_it():
    sides = [(128 / math.sqrt(a) * s, 128 * math.sqrt(a) * s) for s in (1, 2, 4) for a in (0.5, 1, 2)]
    images = [(800, 600), (500, 375), (300, 1200), (600, 600)]
    scales = [1, 1.6, 1000 / 1200, 1]
    random = np.random.RandomState(0)
    boxes = random.rand(4, 2) * 0.8 + 0.1
    wanted = []
    for (width, height), scale, (w, h) in zip(images, scales, boxes.tolist(), strict=True):
        wanted.append(max(iou((w * width * scale, h * height * scale), prior) for prior in sides))
    shapes = Shapes(boxes, np.array(images, dtype=float), "four", "")
    assert hand_picked("faster-rcnn").average_iou(shapes) == pytest.approx(sum(wanted) / 4)
    unsaid = shapes._replace(sizes=np.full((4, 2), np.nan))
    assert math.isnan(hand_picked("faster-rcnn").average_iou(unsaid))
    half = shapes._replace(sizes=np.where(np.arange(4)[:, None] < 2, shapes.sizes, np.nan))
    assert hand_picked("faster-rcnn").average_iou(half) == pytest.approx(sum(wanted[:2]) / 2)


def test_the_curve_rises_and_its_first_point_is_the_same_by_both_distances():
    _, shapes = planted()
    rows = curve(shapes, range(1, 8))
    by_iou = [row.average_iou for row in rows if row.how == "clusters by IoU"]
    squared = [row.average_iou for row in rows if row.how != "clusters by IoU"]
    assert by_iou[0] == pytest.approx(squared[0])  # one prior is the mean of all
    assert all(one < two for one, two in itertools.pairwise(by_iou))
    assert len(by_iou) == len(squared) == 7
    table = list(csv.DictReader(curve_csv(rows).splitlines()))
    assert [row["priors"] for row in table[::2]] == ["1", "2", "3", "4", "5", "6", "7"]
    for row, line in zip(rows, table, strict=True):
        assert float(line["average_iou"]) == pytest.approx(row.average_iou, abs=1e-6)
        assert [float(word) for word in line["shares"].split()] == pytest.approx(row.priors.ravel(), abs=1e-6)


# ---------------------------------------------------------------------- priors of a person's


def test_priors_come_from_names_a_cfg_and_a_text(tmp_path):
    assert hand_picked("voc-2017").priors[0] == pytest.approx((1.3221 / 13, 1.73145 / 13))
    cfg = tmp_path / "net.cfg"
    cfg.write_text(
        "[net]\nwidth=608\nheight=608\n[convolutional]\nfilters=14\nsize=1\n"
        "[region]\nanchors=1,2, 3,4\nclasses=2\nnum=2\n"
    )
    assert hand_picked(str(cfg)).priors == (pytest.approx((1 / 19, 2 / 19)), pytest.approx((3 / 19, 4 / 19)))
    text = tmp_path / "mine.txt"
    text.write_text("pixels\n20, 40\n\n80 60\n")
    assert hand_picked(str(text), size=400).priors == (pytest.approx((0.05, 0.1)), pytest.approx((0.2, 0.15)))
    text.write_text("1,2\n")
    assert hand_picked(str(text), size=160, stride=16).priors == (pytest.approx((0.1, 0.2)),)
    _, shapes = planted()
    row = picked(shapes, hand_picked(str(text), 160, 16))
    assert row.average_iou == pytest.approx(mean_iou(shapes.sides.tolist(), [(0.1, 0.2)]))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("1,2\n3\n", "line 2: '3'"),
        ("1,x", "two numbers above 0"),
        ("1,-2", "two numbers above 0"),
        ("cells\n", "no priors in it"),
    ],
)
def test_a_text_without_pairs_is_refused_by_line(tmp_path, content, part):
    file = tmp_path / "mine.txt"
    file.write_text(content)
    with pytest.raises(WordTreeError, match=part):
        hand_picked(str(file))


def test_unknown_priors_are_refused_with_the_nearest():
    with pytest.raises(WordTreeError, match="no hand-picked priors, and no file, 'voc-2071'; did you mean 'voc-2017'"):
        hand_picked("voc-2071")


# ---------------------------------------------------------------------- what they are read from


def test_every_kind_of_data_set_gives_its_shapes(tmp_path, monkeypatch):
    found = read_shapes(small_data.coco(tmp_path / "c"))
    assert sorted(found.sides.tolist()) == [[20 / 80, 30.25 / 60], [1.0, 1.0]]
    assert sorted(found.sizes.tolist()) == [[50, 70], [80, 60]]
    assert found.told == "instances.json: 2 boxes, left out: 1 flagged"

    home = small_data.voc(tmp_path / "v")
    for path in (home, home / "Annotations"):  # both corners belong to a box
        found = read_shapes(path)
        assert sorted(found.sides.tolist()) == [[39 / 60, 39 / 50], [1.0, 1.0]]
        assert found.told.endswith("2 boxes, left out: 1 flagged")

    found = read_shapes(small_data.imagenet_det(tmp_path / "d")[0])
    assert found.sides.tolist() == [[39 / 40, 29 / 30]]

    file = small_data.yolo(tmp_path / "y")
    for path in (file, file.parent / "pets" / "labels" / "train"):
        found = read_shapes(path)
        assert sorted(found.sides.tolist()) == [pytest.approx([0.1, 0.2]), pytest.approx([0.5, 1.0])]
        assert np.isnan(found.sizes).all()

    found = read_shapes(small_data.darknet(tmp_path / "k"))  # the image label has no box
    assert found.sides.tolist() == [[0.5, 0.5]]

    found = read_shapes(small_data.openimages(tmp_path / "o")[0])  # the other is a group
    assert found.sides.tolist() == [pytest.approx([0.4, 0.4])]
    assert found.told.endswith("1 boxes, left out: 1 flagged")

    monkeypatch.setattr(yolo9000.shapes, "SCENES", 8)
    found = read_shapes("embedded")
    scenes = yolo9000.data.embedded.Pictures("boxed", 8)
    boxes = torch.cat([scenes[index][1]["boxes"] for index in range(8)])
    np.testing.assert_allclose(found.sides * 160, boxes[:, 2:] - boxes[:, :2], rtol=1e-6)


def test_a_runs_sources_are_taken_together_and_its_size_is_the_default(tmp_path):
    small_data.coco(tmp_path / "c")
    small_data.voc(tmp_path / "v")
    small_data.folders(tmp_path, (small_data.DOG,))
    (tmp_path / "pets.csv").write_text(f"label,id\ndog,{small_data.DOG}\ncat,{small_data.CAT}\n")
    run = tmp_path / "run.yaml"
    run.write_text(
        "sources:\n"
        "- {kind: coco, path: c/instances.json, images: c/images, labels: pets.csv}\n"
        "- {kind: voc, path: v/VOC2007, labels: pets.csv}\n"
        "- {kind: folder, path: names}\n"
        "- {kind: voc, path: v/VOC2007, labels: pets.csv, use: test}\n"
        "size: 64\nwidths: [8, 8, 8]\ncounts: [1, 1, 1]\nsizes: [64]\nclassifier_sizes: [32]\n"
    )
    found = read_shapes(run)
    parts = [read_shapes(tmp_path / "c" / "instances.json").sides, read_shapes(tmp_path / "v" / "VOC2007").sides]
    np.testing.assert_allclose(sorted(found.sides.tolist()), sorted(np.concatenate(parts).tolist()))
    assert found.told == "coco, voc-2, folder: 4 boxes, left out: 2 flagged"
    printed = "\n".join(run_anchors(str(run), "2"))
    assert "cells of 4 at 64" in printed
    assert "pixels at 64" in printed


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('{"images": []}', "no list of 'annotations'"),
        ('{"images": [], "annotations": []}', "no box in it"),
        ('{"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [0, 0, 4, 4]}]}', "without width"),
        ('{"images": [], "annotations": [{"id": 7, "image_id": 1, "bbox": [0, 0, 4, 4]}]}', "annotation 7"),
    ],
)
def test_a_json_without_shapes_is_refused(tmp_path, content, part):
    file = tmp_path / "instances.json"
    file.write_text(content)
    with pytest.raises(WordTreeError, match=part):
        read_shapes(file)


def test_a_box_without_an_area_is_left_out_and_counted(tmp_path):
    file = tmp_path / "instances.json"
    rows = [{"image_id": 1, "bbox": [0, 0, *sides]} for sides in ((4, 4), (4, 0))]
    file.write_text(json.dumps({"images": [{"id": 1, "width": 8, "height": 16}], "annotations": rows}))
    found = read_shapes(file)
    assert found.sides.tolist() == [[0.5, 0.25]]
    assert found.told == "instances.json: 1 boxes, left out: 1 without an area"


# ---------------------------------------------------------------------- the command


def test_the_priors_are_printed_in_both_units_and_can_be_pasted(tmp_path, here):
    _, shapes = planted()
    file = tmp_path / "instances.json"
    boxes = [(0, 0, w * 800, h * 600) for w, h in shapes.sides.tolist()]
    content = {
        "images": [{"id": 1, "width": 800, "height": 600}],
        "annotations": [{"image_id": 1, "bbox": box} for box in boxes],
    }
    file.write_text(json.dumps(content))
    done = here("anchors", "--data", file, "--k", "5", "--against", "coco-2017")
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    lines = printed.splitlines()
    assert lines[0] == "instances.json: 720 boxes"
    assert lines[1].startswith("5 priors, clusters by IoU: average IoU ")
    priors, _ = dimension_clusters(torch.from_numpy(shapes.sides), 5)
    for line, (w, h) in zip(lines[3:8], priors.tolist(), strict=True):
        cells, pixels = line[:26], line[26:]
        assert [float(one) for one in cells.split(" x ")] == pytest.approx([w * 13, h * 13], abs=1e-4)
        assert [float(one) for one in pixels.split(" x ")] == pytest.approx([w * 416, h * 416], abs=0.06)
    pasted = [float(one) for one in yaml.safe_load(lines[8].removeprefix("run.yaml:"))["priors"].split(",")]
    assert pasted == pytest.approx((priors.double() * 13).flatten().tolist(), rel=1e-4)
    (tmp_path / "net.cfg").write_text(
        "[net]\nwidth=416\nheight=416\n[convolutional]\nfilters=30\nsize=1\n[region]\nclasses=1\n"
        + "\n".join(line.removeprefix("cfg:").strip() for line in lines[9:11])
        + "\n"
    )
    cfg = yolo9000.cfg.Cfg.read(tmp_path / "net.cfg")
    assert list(cfg.head.numbers("anchors")) == pytest.approx(pasted, rel=1e-4)
    assert cfg.head.whole("num") == 5
    assert "coco-2017" in printed


def test_pasted_priors_are_those_of_the_network(tmp_path, one_thread):
    options = {**TINY, "joint": False, "steps": 2, "priors": "1.5,2, 3.25,1"}
    run = yolo9000.train(out=tmp_path, progress=False, **options)
    assert yolo9000.load(run.weights).head.anchors.tolist() == [[1.5, 2.0], [3.25, 1.0]]
    for wrong in ("1.0", "1.0,0.0", "1.0,,2"):
        with pytest.raises(WordTreeError, match=f"priors '{wrong}'"):
            yolo9000.train(out=tmp_path / "no", progress=False, priors=wrong)


def test_a_curve_leaves_a_table_and_a_plot(tmp_path, monkeypatch, here):
    monkeypatch.setattr(yolo9000.shapes, "SCENES", 20)
    words = ["--k", "1-4", "--against", "faster-rcnn", "--compare", "--out", tmp_path / "out"]
    done = here("anchors", *words)
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    with (tmp_path / "out" / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["how"], row["priors"]) for row in rows] == [
        *((how, str(k)) for k in range(1, 5) for how in ("clusters by IoU", "clusters by squared error")),
        ("faster-rcnn", "9"),
    ]
    first = f"{100 * float(rows[0]['average_iou']):.2f} %"
    assert first in printed
    assert printed.count("faster-rcnn") == 2  # beside the curve, and in the form of Table 1
    with Image.open(tmp_path / "out" / "curve.png") as image:
        assert len(image.convert("RGB").getcolors(1 << 20)) > 50


@pytest.mark.parametrize(
    ("k", "part"),
    [
        ("0", "0 anchors"),
        ("5-3", "5 anchors to 3"),
        ("x", "give how many"),
        ("1-", "give how many"),
        ("-3", "give how"),
    ],
)
def test_a_k_that_is_none_is_refused(k, part):
    with pytest.raises(WordTreeError, match=part):
        list(run_anchors("embedded", k))


def test_priors_are_told_with_their_metric():
    _, shapes = planted()
    row = curve(shapes, [2])[0]
    assert "the mean over the boxes of the IoU with the best prior" in told(row, 416, 32)
