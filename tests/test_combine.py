"""The combined set in one go, from small data in the true formats: what it writes, reads back, and trains."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_data
import yaml
from small_data import CAR, CAT, DOG, POODLE, TABBY

import yolo9000
from wordtree import LabelMap, WordTree, WordTreeError, build_tree, label_maps
from wordtree.formats import read_map
from yolo9000.classes import Data
from yolo9000.combine import combine, repeated
from yolo9000.data.check import check
from yolo9000.data.coco import read_coco
from yolo9000.data.yolo import read_darknet
from yolo9000.runfile import read_run

ZEBRA = "n02391049"


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """COCO with a word of several senses and one of none; ImageNet with two folders that are none of its; DET."""
    folder = tmp_path_factory.mktemp("disk")
    small_data.coco(
        folder,
        categories=lambda rows: [
            *rows,
            {"id": 3, "name": "crane"},
            {"id": 4, "name": "qwertz"},
            {"id": 5, "name": "zebra"},
        ],
        annotations=lambda rows: [
            *rows,
            {"id": 30, "image_id": 31, "category_id": 3, "bbox": [1, 1, 5, 5], "area": 25},
            {"id": 31, "image_id": 31, "category_id": 5, "bbox": [2, 4, 32, 40], "area": 1280},
        ],
    )
    for count, name in enumerate((TABBY, CAR, POODLE, CAT, "n99999999", "misc"), 1):
        small_data.folders(folder / "inet", (name,), each=count)
    small_data.imagenet_det(folder / "det")
    annotations = folder / "det" / "Annotations" / "DET" / "train"
    (annotations / "b.xml").write_text(
        small_data.xml((40, 30), (POODLE, (1, 1, 20, 20), 0), ("n99999998", (1, 1, 9, 9), 0))
    )
    small_data.picture(folder / "det" / "Data" / "DET" / "train" / "b.JPEG", 40, 30)
    return folder


def made(disk: Path, out: Path, **options):
    options = {"det": disk / "det" / "Annotations" / "DET" / "train", "top": 3, **options}
    return combine(disk / "inet" / "names", disk / "instances.json", out, **options)


def test_the_classes_with_most_pictures_are_taken_and_the_tree_is_of_all_three(disk, tmp_path):
    found = made(disk, tmp_path / "combined")
    assert found.counts == {CAT: 4, POODLE: 3, CAR: 2}  # not the one tabby, not what is no WNID
    assert found.left == 1
    det = label_maps()["imagenet_det"]
    wanted = build_tree([CAT, POODLE, CAR], [DOG, CAT, ZEBRA], det, [POODLE])
    assert found.tree == wanted == WordTree.load(tmp_path / "combined" / "tree.json")
    assert found.maps["coco"].labels == ("zebra", "cat", "dog")  # in order of their ids
    labels = LabelMap.read(tmp_path / "combined" / "coco.csv")
    assert dict(zip(labels.labels, labels.ids, strict=True)) == {"dog": DOG, "cat": CAT, "zebra": ZEBRA}
    assert dict(zip(labels.labels, labels.numbers, strict=True)) == {"dog": 18, "cat": 17, "zebra": 5}
    assert (tmp_path / "combined" / "report.txt").read_text() == f"{found.tree.report}\n"


def test_what_has_no_place_is_said_with_its_reason(disk, tmp_path):
    found = made(disk, tmp_path / "combined")
    why = {(one.source, one.label): (one.rows, one.why) for one in found.unplaced}
    assert why.keys() == {
        ("imagenet", "n99999999"), ("imagenet", "misc"), ("coco", "crane"), ("coco", "qwertz"), ("det", "n99999998"),
    }  # fmt: skip
    assert why["imagenet", "n99999999"] == (5, "WordNet 3.0 has no such noun")
    assert why["imagenet", "misc"] == (6, "not a WNID")
    assert why["coco", "crane"][0] == 1
    assert "several senses (" in why["coco", "crane"][1]
    assert "crane.n.04" in why["coco", "crane"][1]
    assert why["coco", "qwertz"] == (0, "WordNet 3.0 has no such noun")
    with (tmp_path / "combined" / "unplaced.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["source"], row["label"]): (int(row["rows"]), row["why"]) for row in rows} == why
    told = str(found)
    assert "without a place on the tree: 5" in told
    assert "coco/crane (1): a word of several senses" in told
    assert "1 classes with fewer left out" in told


def test_the_run_passes_its_check_and_trains_two_steps(disk, tmp_path, one_thread):
    found = made(disk, tmp_path / "combined")
    content = yaml.safe_load(found.run.read_text())
    assert [source.get("ratio") for source in content["sources"]] == [1, 4, None]
    run = read_run(found.run)
    report = check(run, tmp_path / "checked")
    assert report.sound, str(report)
    assert [len(records) for records in report.sources] == [3, 9, 2]
    assert report.sources[1].labelled.all()
    assert set(np.unique(report.sources[1].nodes)) == set(
        LabelMap("t", (CAT, POODLE, CAR), (CAT, POODLE, CAR)).nodes_on(found.tree)
    )
    trained = yolo9000.train(
        data=found.run, out=tmp_path / "run", progress=False, steps=2, batch=5, classifier_steps=1, classifier_batch=2,
        size=64, sizes=[64], classifier_sizes=[32], widths=[8] * 5, counts=[1] * 5, anchors=1, workers=0,
        precision="float32",
    )  # fmt: skip
    assert trained.weights.exists()
    assert yolo9000.load(trained.weights).tree == found.tree
    assert any(name.startswith("imagenet-det/") for name in trained.metrics)


def test_darknets_files_read_back_to_the_same_data(disk, tmp_path):
    found = made(disk, tmp_path / "combined")
    folder = tmp_path / "combined" / "darknet"
    data = Data.read(folder / "combine.data")
    assert int(data.values["classes"]) == len(found.tree)
    assert data.names() == list(found.tree.names)
    assert data.label_nodes().tolist() == found.maps["det"].nodes_on(found.tree).tolist()
    assert WordTree.load(folder / "combine.tree") == found.tree
    assert Path(data.values["labels"]).read_text().split() == list(found.tree.ids)
    assert read_map(folder / "coco.map").tolist() == found.maps["coco"].nodes_on(found.tree).tolist()

    listed = Path(data.values["train"]).read_text().splitlines()
    assert found.repeats == (1, 1)  # 3 pictures of COCO and 9 of ImageNet: once each is the nearest to 1 : 4
    assert len(listed) == 12
    records = read_darknet(Path(data.values["train"]), found.maps["coco"], found.tree).raise_faults()
    assert records.labelled.sum() == 9
    boxed = read_coco(disk / "instances.json", disk / "images", found.maps["coco"], found.tree)
    for index in range(3):
        width, height = boxed.sizes[index].tolist()
        wanted = boxed.record(index, width, height)
        read = records.record(index, width, height)
        plain = wanted.flags == 0
        np.testing.assert_allclose(read.boxes, wanted.boxes[plain], atol=1e-5)
        assert read.nodes.tolist() == wanted.nodes[plain].tolist()
    names = {
        Path(records.files[index]).parent.name: int(records.target(index, 9, 9)["labels"]) for index in range(3, 12)
    }
    assert {name: found.tree.ids[node] for name, node in names.items()} == {name: name for name in found.counts}
    label = folder / "labels" / "imagenet" / POODLE / f"{POODLE}_0.txt"
    assert label.read_text() == f"{found.tree.find(POODLE)} 0 0 0 0\n"  # as the original's loader takes it
    assert records.image(5).shape[0] == 3  # the links lead to pictures


def test_a_box_of_coco_without_an_area_is_left_out_by_the_run_and_said(disk, tmp_path):
    content = json.loads((disk / "instances.json").read_text())
    content["annotations"].append({"id": 77, "image_id": 31, "category_id": 18, "bbox": [3, 3, 0, 5], "area": 0})
    (tmp_path / "instances.json").write_text(json.dumps(content))
    found = combine(disk / "inet" / "names", tmp_path / "instances.json", tmp_path / "c", coco_images=disk / "images")
    assert "coco: 1 boxes are none" in str(found)
    assert "annotation 77" in str(found)
    run = read_run(found.run)
    assert run.sources[0].skip == ("boxes",)
    assert len(run.sources[0].read(found.maps["coco"], found.tree).raise_faults(("boxes",))) == 3


def test_nothing_is_written_beside_the_data(disk, tmp_path):
    before = sorted(disk.rglob("*"))
    made(disk, tmp_path / "combined")
    assert sorted(disk.rglob("*")) == before


@pytest.mark.parametrize(
    ("boxed", "named", "wanted"),
    [(100, 400, (1, 1)), (100, 4000, (10, 1)), (100, 100, (1, 4)), (3, 9, (1, 1)), (1, 6, (2, 1)), (10, 1, (1, 40))],
)
def test_lines_are_repeated_until_four_pictures_by_name_come_to_one_with_boxes(boxed, named, wanted):
    assert repeated(boxed, named) == wanted


def test_tars_are_taken_where_they_lie_and_darknet_gets_no_list(disk, tmp_path):
    parts, whole = small_data.tars(tmp_path)
    for number, imagenet in enumerate((parts, whole)):
        out = tmp_path / f"combined{number}"
        found = combine(imagenet, disk / "instances.json", out)
        assert found.counts == {DOG: 2, CAT: 2}
        assert not (out / "darknet").exists()
        assert "it reads no tars" in str(found)
        report = check(read_run(out / "run.yaml"), tmp_path / f"checked{number}")
        assert report.sound, str(report)
        assert [len(records) for records in report.sources] == [3, 4]


def test_the_command_says_what_it_made(disk, tmp_path, here):
    words = [
        "combine",
        "--imagenet",
        disk / "inet" / "names",
        "--coco",
        disk / "instances.json",
        "--out",
        tmp_path / "c",
    ]
    done = here(*words, "--top", "2", "--no-darknet")
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    assert "imagenet: 2 classes of 7 pictures, 3 to 4 each; 2 classes with fewer left out" in printed
    assert "labels, taxonomy 'wordnet', rules 'paper'" in printed
    assert f"yolo9000 train --data {tmp_path / 'c' / 'run.yaml'}" in printed
    assert not (tmp_path / "c" / "darknet").exists()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"top": 0}, "the top 0 classes"),
        ({"imagenet": "nowhere"}, "no ImageNet"),
        ({"imagenet": "images"}, "no WNIDs with pictures"),
        ({"coco_images": "inet"}, "--coco-images"),
        ({"det": "inet"}, "no WNIDs in the .xml"),
        ({"out": "my-images"}, "has `images` in its path"),
    ],
)
def test_what_is_not_there_is_named_and_nothing_is_written(disk, tmp_path, change, part):
    given = {"imagenet": disk / "inet" / "names", "coco": disk / "instances.json", "out": tmp_path / "c"}
    given |= {
        key: value if key == "top" else (tmp_path if key == "out" else disk) / value for key, value in change.items()
    }
    with pytest.raises(WordTreeError, match=part):
        combine(**given)
    assert not list(tmp_path.iterdir())


def test_a_combined_set_is_not_written_over(disk, tmp_path):
    made(disk, tmp_path / "c", darknet=False)
    with pytest.raises(WordTreeError, match=r"holds a run\.yaml already"):
        made(disk, tmp_path / "c", darknet=False)
    (tmp_path / "c" / "run.yaml").unlink()
    made(disk, tmp_path / "c")
    (tmp_path / "c" / "run.yaml").unlink()
    made(disk, tmp_path / "c")  # what an interrupted one left is no hindrance


def test_coco_is_found_where_it_is_unpacked(disk, tmp_path):
    (tmp_path / "annotations").mkdir()
    shutil.copytree(disk / "images", tmp_path / "train2017")
    file = tmp_path / "annotations" / "instances_train2017.json"
    file.write_text((disk / "instances.json").read_text())
    found = combine(disk / "inet" / "names", file, tmp_path / "c", darknet=False)
    source = yaml.safe_load(found.run.read_text())["sources"][0]
    assert source["images"] == str(tmp_path / "train2017")
    assert source["subset"] is True
    assert json.loads(file.read_text())["categories"]  # as it was
