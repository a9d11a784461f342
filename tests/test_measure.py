"""Evaluations of whole runs: every kind of model and of test source, the files they leave, and what is refused."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
import small_data
import torch
import wordtree_torchvision
import yaml
from small_data import CAT, DOG, PETS, SMALL
from test_scores import devkit, direct, slow_area, slow_eleven
from torchvision.ops import box_iou, nms

import yolo9000
from wordtree import LabelMap, WordTree, WordTreeError, label_maps, plugins
from wordtree.nn import tree_log_prob
from yolo9000 import models, official_maps, official_tree
from yolo9000.borrowed import Borrowed
from yolo9000.boxfigures import _of_descent, score_boxes
from yolo9000.checkpoints import save_model
from yolo9000.classes import flat_tree
from yolo9000.confusion import Answers
from yolo9000.data.shards import write_shards
from yolo9000.evaluation import evaluate_report
from yolo9000.looking import name_boxes, score_nodes, see, suppressed
from yolo9000.measure import evaluate_run, labels_on
from yolo9000.namefigures import name_images
from yolo9000.region import decode_xyxy
from yolo9000.runfile import read_run
from yolo9000.scores import COCO_FIGURES, Found, Truths
from yolo9000.task import Task
from yolo9000.weights import save_weights

SSD = "torchvision/ssdlite320_mobilenet_v3_large"
ANIMAL, CAR, CATS, DOGS, TABBY, POODLE = range(6)


def lively(tree, size=64):
    """A detector whose objectness and names differ from cell to cell."""
    torch.manual_seed(3)
    model = models.yolo9000(tree, [[1.0, 1.5], [3.0, 2.0]], size, widths=(4, 6, 8), counts=(1, 1, 1))
    torch.nn.init.normal_(model.head.boxes.weight, std=2.0)
    torch.nn.init.normal_(model.head.classes.weight, std=2.0)
    return model.eval()


def run_file(folder, *sources, **more):
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump({"sources": list(sources), **more}))
    PETS.save(folder / "pets.csv")
    return read_run(file)


@pytest.fixture
def voc_run(tmp_path):
    small_data.voc(tmp_path)
    return run_file(tmp_path, {"kind": "voc", "path": "VOC2007", "labels": "pets.csv", "use": "test", "name": "held"})


@pytest.fixture
def ssd():
    """A plug-in's detector, where the installed distribution is older than its entry point too."""
    added = None if SSD in plugins.detectors() else plugins.register(wordtree_torchvision)
    torch.manual_seed(0)
    yield Borrowed(SSD, SMALL, 96).eval()
    if added:
        plugins.unregister(added)


# ---------------------------------------------------------------------- what boxes are called


def test_boxes_are_named_by_the_likeliest_way_down_and_suppressed_whatever_their_names():
    model = lively(SMALL)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        region = model.region(images)
        boxes = (decode_xyxy(region.raw, model.head.anchors) * 64).clamp(0, 64).flatten(1, 3)
        objectness = region.raw[..., 4].sigmoid().flatten(1)
        probs = tree_log_prob(model.head.classes(region.features), SMALL).exp().flatten(1, 3)
    for image, one in enumerate(name_boxes(model, images)):
        sure = (objectness[image] > 0.005).nonzero()[:, 0]
        kept = sure[nms(boxes[image, sure], objectness[image, sure], 0.45)][:100]
        torch.testing.assert_close(one.boxes, boxes[image, kept], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(one.objectness, objectness[image, kept])
        for row, at in enumerate(kept.tolist()):
            step, way = -1, []
            while children := SMALL.children(step):
                step = max(children, key=lambda node: float(probs[image, at, node]))
                way.append(step)
            assert one.path[row, : len(way)].tolist() == way
            torch.testing.assert_close(one.probs[row, : len(way)].float(), probs[image, at, way], rtol=1e-4, atol=1e-6)
        assert float(box_iou(one.boxes, one.boxes).fill_diagonal_(0).max()) <= 0.45
    seen = see(model, images, [1, 3])  # one pass, read twice
    for a, b in zip(suppressed(seen, [1, 3]), score_nodes(model, images, [1, 3]), strict=True):
        assert torch.equal(a.scores, b.scores)
    for a, b in zip(seen.name(), name_boxes(model, images), strict=True):
        assert torch.equal(a.probs, b.probs)


def test_a_plug_ins_boxes_are_named_too(ssd):
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    named = name_boxes(ssd, images)
    seen = see(ssd, images, [CATS, DOGS], naming=True)
    for a, b in zip(suppressed(seen, [CATS, DOGS]), score_nodes(ssd, images, [CATS, DOGS]), strict=True):
        torch.testing.assert_close(a.scores, b.scores)
    for a, b in zip(seen.name(), named, strict=True):
        torch.testing.assert_close(a.probs, b.probs)
    for one in named:
        assert 0 < len(one.boxes) == len(one.path) <= 100
        assert (one.path[:, 0] >= 0).all()
        assert (one.probs[:, 0] >= one.probs[:, 1]).all()
        assert one.objectness.tolist() == sorted(one.objectness.tolist(), reverse=True)


# ---------------------------------------------------------------------- boxes


def test_vague_answers_have_credit_above_and_none_below():
    """A dog found as animal: nothing for dog, all for animal; a poodle found as poodle: all for dog and animal."""
    box = np.array([[0.0, 0, 10, 10], [0.0, 0, 10, 10]])
    truths = Truths(np.array([0, 1]), box, np.array([DOGS, POODLE]), *np.zeros((2, 2), bool), np.full(2, 100.0))
    path, probs = np.array([[0, 3, 5], [0, 3, 5]]), np.array([[0.9, 0.4, 0.3], [0.9, 0.8, 0.7]])
    answers = Answers(np.array([0, 1]), box, np.array([0.9, 0.9]), path, probs)
    model = lively(SMALL)
    both = _of_descent(model, answers, truths, [DOGS, POODLE], Task())
    # dog: two truths, of which the poodle is one and found; poodle: found; animal, above both: both found
    assert both["descent/voc"] == pytest.approx((0.5 + 1.0) / 2)
    assert both["descent/above/voc"] == pytest.approx(1.0)
    deeper = _of_descent(model, answers, truths, [DOGS, POODLE], Task(tree_threshold=0.2))
    assert deeper["descent/voc"] == pytest.approx(1.0)  # both are poodles, and the false one is the less sure


@pytest.mark.parametrize("kind", ["own", "plug-in", "flat Darknet", "classifier"])
def test_every_kind_of_model_is_evaluated_on_a_runs_test_sources(tmp_path, voc_run, ssd, kind):
    weights, options = tmp_path / "w.safetensors", {}
    if kind == "own":
        save_model(weights, lively(SMALL))
    elif kind == "plug-in":
        save_model(weights, ssd)
    elif kind == "classifier":
        save_model(weights, models.darknet19(SMALL, 32, (8, 16), (1, 1)).eval())
        small_data.folders(tmp_path)
        voc_run = run_file(tmp_path, {"kind": "folder", "path": "names", "use": "test", "name": "held"})
    else:
        weights = tmp_path / "my.weights"
        (tmp_path / "my.cfg").write_text(CFG)
        (tmp_path / "my.names").write_text("dog\ncat\n")
        torch.manual_seed(0)
        save_weights(models.from_cfg(tmp_path / "my.cfg", names=tmp_path / "my.names"), weights)
        options = {"cfg": tmp_path / "my.cfg", "names": tmp_path / "my.names", "mode": "darknet-2018"}
    report = evaluate_report(weights, voc_run.path, progress=False, out=tmp_path / "out", threshold=0.01, **options)
    folder = tmp_path / "out" / "held"
    made = {file.name for file in folder.iterdir()}
    assert {"confusion.csv", "confusion.json", "confusion.png", "operating_curve.csv", "operating_curve.png"} <= made
    truths = json.loads((folder / "confusion.json").read_text())["truths"]
    assert truths == (4 if kind == "classifier" else 2)
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["figures"].keys() == report.metrics.keys()
    assert any("load average" in note for note in report.notes)
    if kind == "classifier":
        assert {"held/top1", "held/leaves/top1", "held/darknet/top5"} <= report.metrics.keys()
        return
    assert {"precision_recall.png", "classes.csv", "worst_and_best.txt", "results.json", "voc"} <= made
    assert {"held/AP", "held/voc", "held/voc07", "held/images_per_second"} <= report.metrics.keys()
    assert ("held/descent/voc" in report.metrics) == (kind != "flat Darknet")
    with (folder / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted((row["name"], row["truths"]) for row in rows) == [("cat", "1"), ("dog", "1")]  # one cat is difficult


CFG = """[net]
height=64
width=64
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[maxpool]
size=2
stride=2
[convolutional]
filters=7
size=1
pad=1
activation=linear
[region]
anchors=3,3
classes=2
num=1
softmax=1
"""


def test_the_files_of_a_run_score_in_pycocotools_and_the_devkit_what_the_run_says(tmp_path):
    """Objects are put where the model finds some of its boxes, so that there is something to be right about."""
    model, random = lively(SMALL), np.random.RandomState(0)
    file = small_data.coco(tmp_path)
    source = {"kind": "coco", "path": "instances.json", "images": "images", "labels": "pets.csv", "use": "test"}
    run = run_file(tmp_path, source)
    records = run.sources[0].read(PETS, SMALL)
    found = score_boxes(model, records, [CATS, DOGS])[0].found
    content = json.loads(file.read_text())
    content["annotations"] = []
    for row in random.choice(np.flatnonzero(found.image != 2), 40, replace=False).tolist():  # one image has nothing
        left, top, right, bottom = found.boxes[row].tolist()
        if right - left > 4 and bottom - top > 4:
            content["annotations"].append(
                {"id": 3 * row + 1, "image_id": int(records.ids[found.image[row]]),
                 "category_id": records.numbers[int(found.nodes[row])], "bbox": [left, top, right - left, bottom - top],
                 "area": 0.8 * (right - left) * (bottom - top), "iscrowd": int(random.rand() < 0.2)}
            )  # fmt: skip
    file.write_text(json.dumps(content))
    metrics = evaluate_run(model, run, task=Task(tmp_path / "out"))
    theirs = direct(file, json.loads((tmp_path / "out" / "coco" / "results.json").read_text())).stats
    ours = [metrics[f"coco/{name}"] for name in COCO_FIGURES]
    np.testing.assert_allclose(np.nan_to_num(ours, nan=-1), theirs, rtol=0, atol=5e-3)  # three digits of a pixel
    assert 0 < metrics["coco/AP50"] < 1
    _, truths = score_boxes(model, run.sources[0].read(PETS, SMALL), [CATS, DOGS])
    truths = dataclasses.replace(truths, ignored=truths.crowd)  # to the devkit: difficult
    areas, elevens = [], []
    for name, node in (("dog", DOGS), ("cat", CATS)):
        rows = (tmp_path / "out" / "coco" / "voc" / f"comp4_det_test_{name}.txt").read_text().splitlines()
        boxes = np.array([row.split()[2:] for row in rows], dtype=float) - [1, 1, 0, 0]
        ids = [list(records.ids).index(str(int(row.split()[0]))) for row in rows]
        read = Found(np.array(ids), boxes, np.full(len(rows), node), np.array([float(row.split()[1]) for row in rows]))
        recall, precision, _ = devkit(read, truths, node)
        areas.append(slow_area(recall, precision))
        elevens.append(slow_eleven(recall, precision))
    assert metrics["coco/voc"] == pytest.approx(np.mean(areas), abs=5e-3)
    assert metrics["coco/voc07"] == pytest.approx(np.mean(elevens), abs=5e-3)


def test_labels_of_a_flat_model_are_found_by_name_and_others_are_refused(voc_run):
    source = voc_run.sources[0]
    assert labels_on(source, flat_tree(["cat", "dog"])).nodes_on(flat_tree(["cat", "dog"])).tolist() == [1, 0]
    assert labels_on(source, SMALL).ids == (DOG, CAT)
    with pytest.raises(WordTreeError) as caught:
        evaluate_run(lively(WordTree(["n00000001"], [-1])), voc_run)
    for part in ("test source 'held'", "2 of the 2 labels", "dog", "weights that learnt these labels"):
        assert part in str(caught.value)


def test_imagenets_200_classes_are_split_and_the_papers_number_is_told(tmp_path):
    det = official_maps()["inet9k"]
    zebra, lamp = (det.ids[det.labels.index(name)] for name in ("zebra", "lamp"))
    annotations, images = tmp_path / "xml", tmp_path / "images"
    annotations.mkdir()
    for number, wnid in ((1, zebra), (2, lamp)):
        small_data.picture(images / f"ILSVRC2012_val_{number:08}.JPEG", 40, 30, seed=number)
        text = small_data.xml((40, 30), (wnid, (2, 3, 30, 25), 0)).replace("<difficult>0</difficult>", "")
        (annotations / f"ILSVRC2012_val_{number:08}.xml").write_text(text)
    run = run_file(
        tmp_path, {"kind": "imagenet-det", "path": "xml", "images": "images", "labels": "inet9k", "use": "test"}
    )
    task = Task(tmp_path / "out")
    model = lively(official_tree())
    with torch.no_grad():  # all is a zebra
        model.head.classes.bias[:, list(model.tree.path(model.tree.find(zebra)))] += 60
    metrics = evaluate_run(model, run, task=task)
    assert {"shared/AP50", "never_boxed/AP50", "no_boxed_relative/AP50"} <= {
        name.split("/", 1)[1] for name in metrics if "/" in name
    }
    told = next(note for note in task.notes if "38 of 200" in note)
    assert (metrics["imagenet-det/shared/classes"], metrics["imagenet-det/never_boxed/classes"]) == (38, 162)
    assert "57 with those above or below" in told
    assert "44 shared and 156 never boxed" in told
    folder = tmp_path / "out" / "imagenet-det"
    assert "of the 162 classes that training had no boxes of:" in (folder / "worst_and_best.txt").read_text()
    rows = np.loadtxt(folder / "det.txt", ndmin=2)
    assert set(rows[:, 0]) == {1, 2}
    assert set(rows[:, 1]) == {200}  # zebra
    with (folder / "classes.csv").open(newline="") as file:
        boxed = [row["boxed"] for row in csv.DictReader(file)]
    assert (boxed.count("yes"), boxed.count("no")) == (38, 162)


def test_open_images_is_judged_where_it_was_verified(tmp_path):
    small_data.openimages(tmp_path)
    source = {
        "kind": "openimages", "path": "train-annotations-bbox.csv", "images": "images", "labels": "pets.csv",
        "verified": "train-annotations-human-imagelabels.csv", "classes": "class-descriptions-boxable.csv",
        "use": "test",
    }  # fmt: skip
    run = run_file(tmp_path, source)
    records = run.sources[0].read(PETS, SMALL)
    starts, nodes = records.judged
    of = [set(nodes[starts[at] : starts[at + 1]].tolist()) for at in range(2)]
    # aa01: a box of a dog and one of cats, and all above; bb02: no cat, so no tabby, and nothing of animals
    assert of == [{ANIMAL, DOGS, CATS}, {CATS, TABBY}]
    assert records.take([1]).judged[1].tolist() in ([CATS, TABBY], [TABBY, CATS])
    assert score_boxes(lively(SMALL), records, [DOGS, CATS])[1].groups.tolist() == [False, True]
    assert "openimages/openimages" in evaluate_run(lively(SMALL), run)
    del source["verified"]
    assert run_file(tmp_path, source).sources[0].read(PETS, SMALL).judged is None


# ---------------------------------------------------------------------- names


def test_119_of_imagenets_1000_classes_are_inner_nodes_of_the_genuine_tree():
    tree = official_tree()
    nodes = label_maps()["imagenet1k"].nodes_on(tree)
    assert len(set(nodes.tolist())) == 1000
    assert int((tree.group_below[nodes] >= 0).sum()) == 119


def test_inner_classes_are_ranked_with_all_others_and_leaves_among_themselves(tmp_path):
    labels = LabelMap("mixed", ("dog", "poodle", "tabby", "car"), tuple(SMALL.ids[n] for n in (3, 5, 4, 1)))
    labels.save(tmp_path / "mixed.csv")
    small_data.folders(tmp_path, tuple(labels.ids), each=3)
    run = run_file(tmp_path, {"kind": "folder", "path": "names", "labels": "mixed.csv", "use": "test", "name": "held"})
    torch.manual_seed(5)
    model = models.darknet19(SMALL, 32, (8, 16), (1, 1)).eval()
    torch.nn.init.normal_(model.classes.weight, std=3.0)
    task = Task(tmp_path / "out")
    metrics = evaluate_run(model, run, task=task)
    records = run.sources[0].read(labels, SMALL)
    truths = records.nodes[records.starts[:-1]].tolist()
    log_probs, _ = name_images(model, [records.image(at) for at in range(len(records))], range(6))
    whole = np.exp(log_probs)
    for k in (1, 5):
        right = [t in sorted((1, 3, 4, 5), key=lambda n: -row[n])[:k] for row, t in zip(whole, truths, strict=True)]
        assert metrics[f"held/top{k}"] == pytest.approx(np.mean(right))
        leaves = [
            t in sorted((1, 4, 5), key=lambda n: -row[n])[:k] for row, t in zip(whole, truths, strict=True) if t != 3
        ]
        assert metrics[f"held/leaves/top{k}"] == pytest.approx(np.mean(leaves))
        own = [
            t != 3 and t in sorted((1, 4, 5), key=lambda n: -row[n])[:k] for row, t in zip(whole, truths, strict=True)
        ]
        assert metrics[f"held/darknet/top{k}"] == pytest.approx(np.mean(own))
    assert metrics["held/called/missed"] == 0.0
    assert any("1 of 4 classes are inner nodes" in note for note in task.notes)
    record = json.loads((tmp_path / "out" / "held" / "confusion.json").read_text())
    assert record["truths"] == 12
    nodes = np.array([model_answer(row, 0.5) for row in whole])
    assert record["relations"]["exact"] == int((nodes == truths).sum())


def model_answer(probs, threshold):
    """The descent of one row in a loop."""
    node = -1
    while children := SMALL.children(node):
        best = max(children, key=lambda one: probs[one])
        if probs[best] <= threshold:
            break
        node = best
    return node


def test_a_picture_in_which_nothing_is_found_is_not_named_right(tmp_path):
    small_data.folders(tmp_path)
    run = run_file(tmp_path, {"kind": "folder", "path": "names", "labels": "pets.csv", "use": "test", "name": "held"})
    model = lively(SMALL)
    torch.nn.init.zeros_(model.head.boxes.weight)
    torch.nn.init.constant_(model.head.boxes.bias, -20.0)  # objectness is 0 everywhere
    task = Task()
    figures = evaluate_run(model, run, task=task)
    assert figures["held/top1"] == figures["held/top5"] == 0.0
    assert "4 pictures: 4 missed" in task.notes[-1]


# ---------------------------------------------------------------------- the command and the embedded set


def test_the_embedded_set_is_scored_at_several_sizes_with_its_files(tiny_run, tmp_path):
    report = evaluate_report(
        tiny_run.weights, scenes=2, progress=False, device="cpu", sizes=[48, 64], out=tmp_path, threshold=0.0
    )
    assert report.metrics["unseen@48/images_per_second"] > 0
    alone = yolo9000.evaluate(tiny_run.weights, scenes=2, progress=False, device="cpu")
    some = {name: value for name, value in report.metrics.items() if "@64/" in name and "second" not in name}
    assert {name.replace("@64", ""): value for name, value in some.items()} == pytest.approx(alone, nan_ok=True)
    assert "unseen@64" in report.table
    for name in ("unseen-speed.png", "seen-64/confusion.png", "seen-48/operating_curve.csv", "evaluation.json"):
        assert (tmp_path / name).is_file()
    assert "precision_recall.png" in {file.name for file in (tmp_path / "unseen-48").iterdir()}


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"data": "{folder}/train-only.yaml"}, ["no source to test on", "use: test"]),
        ({"data": "{folder}/empty.yaml"}, ["no annotations", ".xml"]),
        ({"sizes": [50]}, ["a size of 50 pixels", "multiples of 16"]),
        ({"tree_threshold": 1.5}, ["a tree_threshold of 1.5", "0 to 1"]),
        ({"data": "voc"}, ["no data set 'voc'", "run.yaml"]),
    ],
)
def test_what_cannot_be_evaluated_is_refused_and_nothing_is_written(tiny_run, tmp_path, options, parts):
    small_data.folders(tmp_path)
    PETS.save(tmp_path / "pets.csv")
    (tmp_path / "nothing").mkdir()
    train = {"kind": "folder", "path": "names", "labels": "pets.csv"}
    LabelMap("dogs", ("dog",), (DOG,)).save(tmp_path / "dogs.csv")
    nothing = {"kind": "voc", "path": "nothing", "images": "nothing", "labels": "dogs.csv", "use": "test"}
    (tmp_path / "train-only.yaml").write_text(yaml.safe_dump({"sources": [train]}))
    (tmp_path / "empty.yaml").write_text(yaml.safe_dump({"sources": [nothing]}))
    given = {
        name: value.format(folder=tmp_path) if isinstance(value, str) else value for name, value in options.items()
    }
    with pytest.raises(WordTreeError) as caught:
        yolo9000.evaluate(tiny_run.weights, progress=False, device="cpu", out=tmp_path / "out", **given)
    for part in parts:
        assert part in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_sizes_of_a_plug_ins_detector_are_refused(tmp_path, voc_run, ssd):
    with pytest.raises(WordTreeError, match="large, built for 96; leave them out"):
        evaluate_run(ssd, voc_run, [64])
    assert not math.isnan(evaluate_run(ssd, voc_run)["held/AP50"])


# ---------------------------------------------------------------------- what is asked, and what is left as it was


def test_a_fault_of_any_test_source_is_told_before_anything_is_written(tmp_path, voc_run):
    held = {"kind": "voc", "path": "VOC2007", "labels": "pets.csv", "use": "test", "name": "held"}
    LabelMap("far", ("zebra",), ("n02391049",)).save(tmp_path / "far.csv")
    for other, told in (({"labels": "far.csv"}, "1 of the 1 labels"), ({"path": "typo"}, "typo")):
        run = run_file(tmp_path, held, {**held, "name": "late", **other})
        with pytest.raises(WordTreeError, match=told):
            evaluate_run(lively(SMALL), run, task=Task(tmp_path / "out"))
        assert not (tmp_path / "out").exists()


def test_classes_with_boxes_are_those_of_the_training_data_whatever_its_kind(tmp_path, voc_run):
    records = voc_run.sources[0].read(PETS, SMALL)
    write_shards(records, tmp_path / "boxes")
    folder = small_data.folders(tmp_path)
    names = (
        run_file(tmp_path, {"kind": "folder", "path": folder.name, "labels": "pets.csv"}).sources[0].read(PETS, SMALL)
    )
    write_shards(names, tmp_path / "alone")
    held = {"kind": "voc", "path": "VOC2007", "labels": "pets.csv", "use": "test"}
    split = {}
    for path in ("boxes", "alone", "gone"):
        task = Task()
        run = run_file(tmp_path, {"kind": "shards", "path": path, "name": "mine", "labels": "pets.csv"}, held)
        split[path] = "voc/shared/AP50" in evaluate_run(lively(SMALL), run, task=task)
        assert any("mine: not counted" in note for note in task.notes) == (path == "gone")
    assert split == {"boxes": True, "alone": False, "gone": False}


def test_a_network_in_hand_has_its_own_mode_and_tree_and_is_left_as_it_was(tmp_path, voc_run):
    model = lively(SMALL).set_mode("darknet")
    before = model.threshold
    out = tmp_path / "out"
    yolo9000.evaluate(model, data=voc_run.path, progress=False, out=out)
    assert json.loads((out / "evaluation.json").read_text())["mode"] == "darknet"
    assert model.threshold == before
    for name, value in (("mode", "paper"), ("tree", "some.tree")):
        with pytest.raises(WordTreeError, match=f"{name}='{value}' for a network in hand"):
            yolo9000.evaluate(model, data=voc_run.path, progress=False, **{name: value})


def test_what_is_no_detector_is_named_where_one_is_asked_for(ssd):
    photo = torch.zeros(3, 64, 64, dtype=torch.uint8)
    for other in (models.darknet19(SMALL, 32, (8, 16), (1, 1)), ssd.inner):
        for call in (lambda one: yolo9000.detect(photo, weights=one), lambda one: yolo9000.evaluate(one, scenes=1)):
            with pytest.raises(WordTreeError, match=f"a {type(other).__name__} in place of weights; give a Detector"):
                call(other)


def test_a_plug_ins_detector_has_one_mode(tmp_path, ssd):
    save_model(tmp_path / "w.safetensors", ssd)
    assert yolo9000.load(tmp_path / "w.safetensors").mode == "paper"
    with pytest.raises(WordTreeError, match=r"mode 'darknet' of torchvision/.*, a plug-in's, which has 'paper' alone"):
        yolo9000.load(tmp_path / "w.safetensors", mode="darknet")
