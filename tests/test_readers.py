"""Data sets in their true formats become tables: boxes in pixels, labels as nodes, faults with file and row."""

import io
import json
import os
import tarfile

import numpy as np
import pytest
import small_data
import torch
from small_data import CAR, DOG, PETS, SMALL

from wordtree import LabelMap, WordTreeError
from yolo9000.data.coco import read_coco
from yolo9000.data.folders import read_csv, read_folder, read_tars
from yolo9000.data.openimages import read_openimages
from yolo9000.data.records import CROWD, DIFFICULT, GROUP, Texts
from yolo9000.data.shards import read_shards, write_shards
from yolo9000.data.voc import read_imagenet_xml, read_voc
from yolo9000.data.yolo import darknet_label_file, label_file, read_darknet, read_yolo

CAR_TOO = LabelMap("three", ("dog", "cat", "car"), (*PETS.ids, CAR))
ANIMAL_, CAR_, CAT_, DOG_, TABBY_, POODLE_ = range(6)


def boxes_of(records, index):
    """The boxes of an image in its own pixels, with node and flags."""
    _, height, width = records.image(index).shape
    boxes, nodes, flags, _ = records.record(index, width, height)
    return list(zip(boxes.round(4).tolist(), nodes.tolist(), flags.tolist(), strict=not records.labelled[index]))


def said(error, *parts):
    for part in parts:
        assert part in str(error.value)


# ---------------------------------------------------------------------- COCO and LVIS


def test_coco_keeps_its_images_in_order_with_boxes_crowds_and_none(tmp_path):
    records = read_coco(small_data.coco(tmp_path), tmp_path / "images", PETS, SMALL)
    assert list(records.ids) == ["500", "9", "31"]
    assert boxes_of(records, 0) == [([0, 0, 50, 70], CAT_, 0)]
    assert boxes_of(records, 1) == [([10.5, 5, 30.5, 35.25], DOG_, 0), ([40, 20, 80, 60], CAT_, CROWD)]
    assert boxes_of(records, 2) == []
    assert records.faults == ()
    assert records.numbers == {DOG_: 18, CAT_: 17}
    assert records.counts().tolist() == [0, 0, 2, 1, 0, 0]
    image, target = records[1]
    assert image.shape == (3, 60, 80)
    assert target["labels"].tolist() == [DOG_]  # a crowd is no truth to learn from
    assert target["boxes"].tolist() == [[10.5, 5, 30.5, 35.25]]
    assert records[2][1]["boxes"].shape == (0, 4)


def test_what_is_wrong_in_a_coco_file_is_left_out_and_named(tmp_path):
    extra = [
        {"id": 90, "image_id": 31, "category_id": 18, "bbox": [5, 5, 0, 10]},
        {"id": 91, "image_id": 31, "category_id": 18, "bbox": [60, 5, 30, 10]},
        {"id": 92, "image_id": 31, "category_id": 18, "bbox": [5, 5, float("nan"), 10]},
        {"id": 93, "image_id": 31, "category_id": 18, "bbox": [5, 5, 10]},
        {"id": 94, "image_id": 77, "category_id": 18, "bbox": [5, 5, 10, 10]},
        {"id": 95, "image_id": 31, "category_id": 3, "bbox": [5, 5, 10, 10]},
        {"id": 96, "image_id": 31, "category_id": 99, "bbox": [5, 5, 10, 10]},
        {"id": 97, "image_id": 31, "bbox": [5, 5, 10, 10]},
        {"id": 98, "image_id": 31, "category_id": 18, "bbox": [60, 5, 5.5, 10]},  # hangs over by 1.5 pixels: cut
    ]
    file = small_data.coco(
        tmp_path,
        annotations=lambda rows: rows + extra,
        categories=lambda rows: [*rows, {"id": 3, "name": "car"}],
        images=lambda rows: [*rows, {"id": 1, "file_name": "gone.jpg", "width": 5, "height": 5}],
    )
    records = read_coco(file, tmp_path / "images", PETS, SMALL)
    assert boxes_of(records, 2) == [([60, 5, 64, 15], DOG_, 0)]
    assert len(records) == 3
    told = {(fault.kind, fault.where.rpartition("annotation ")[2].split()[0]) for fault in records.faults}
    for number in (90, 91, 92, 93):
        assert ("boxes", str(number)) in told
    kinds = [fault.kind for fault in records.faults]
    assert sorted(kinds) == ["boxes"] * 4 + ["files"] * 3 + ["images", "labels"]
    with pytest.raises(WordTreeError) as caught:
        records.raise_faults(["boxes", "files", "images"])
    said(caught, str(file), "label 'car' of 1 rows", "pets", "give it an id", "skip: [labels]")
    with pytest.raises(WordTreeError) as caught:
        records.raise_faults(["labels", "files", "images"])
    said(caught, "annotation 90 of image 31", "from 5, 5 to 5, 15", "64 x 64", "3 more")
    assert records.raise_faults(["labels", "files", "images", "boxes"]) is records
    with pytest.raises(WordTreeError, match=r"no kind of fault to skip 'boxs'; did you mean 'boxes'"):
        records.raise_faults(["boxs"])


def test_categories_are_found_by_name_by_synset_and_by_a_number_of_the_maps_own(tmp_path):
    names = lambda *names: lambda rows: [{**row, "name": name} for row, name in zip(rows, names, strict=True)]  # noqa: E731
    file = small_data.coco(tmp_path, categories=names("Hund", "Katze"))
    numbered = LabelMap("mine", PETS.labels, PETS.ids, numbers=(18, 17))
    assert read_coco(file, tmp_path / "images", numbered, SMALL).counts().tolist() == [0, 0, 2, 1, 0, 0]
    assert {one.kind for one in read_coco(file, tmp_path / "images", PETS, SMALL).faults} == {"labels"}
    file = small_data.coco(tmp_path, categories=names(DOG, "cat.n.01"))
    assert read_coco(file, tmp_path / "images", PETS, SMALL).counts().tolist() == [0, 0, 2, 1, 0, 0]


def test_lvis_knows_what_each_image_was_checked_for(tmp_path):
    records = read_coco(small_data.lvis(tmp_path), tmp_path / "images", CAR_TOO, SMALL)
    (_, target) = records[0]
    assert target["labels"].tolist() == [DOG_, CAR_]
    # dogs are there, cats are not, cars were not all marked; animals are above both
    assert target["known"].tolist() == [True, False, True, True, False, False]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"images": [', ["instances.json", "not JSON", "whole file"]),
        ('{"images": [], "annotations": []}', ["no list of 'categories'", "COCO's form"]),
        ("[]", ["no list of 'images'"]),
    ],
)
def test_a_file_that_is_no_coco_is_refused(tmp_path, text, parts):
    file = tmp_path / "instances.json"
    file.write_text(text)
    with pytest.raises(WordTreeError) as caught:
        read_coco(file, None, PETS, SMALL)
    said(caught, *parts)
    with pytest.raises(WordTreeError, match=r"no annotations '.*nowhere.json'; give a path that exists"):
        read_coco(tmp_path / "nowhere.json", None, PETS, SMALL)


# ---------------------------------------------------------------------- XML


def test_voc_counts_from_one_and_marks_what_is_difficult(tmp_path):
    home = small_data.voc(tmp_path)
    records = read_voc(home, None, PETS, SMALL, "trainval")
    assert list(records.ids) == ["000005", "000007"]
    # pixels 1 to 60 are the whole picture
    assert boxes_of(records, 0) == [([0, 0, 60, 50], DOG_, 0), ([10, 5, 30, 20], CAT_, DIFFICULT)]
    assert boxes_of(records, 1) == []
    assert records[0][1]["labels"].tolist() == [DOG_]
    assert list(read_voc(home, None, PETS, SMALL, "test").ids) == ["000009"]
    assert list(read_voc(home, None, PETS, SMALL).ids) == ["000005", "000007", "000009"]
    with pytest.raises(WordTreeError, match="no list of the split 'vla'"):
        read_voc(home, None, PETS, SMALL, "vla")


def test_imagenets_xml_names_wnids_in_folders_within_folders(tmp_path):
    annotations, images = small_data.imagenet_det(tmp_path)
    records = read_imagenet_xml(annotations, images, PETS, SMALL)
    assert list(records.ids) == [os.path.join("a", "n02084071_1")]
    assert boxes_of(records, 0) == [([0, 0, 39, 29], DOG_, 0)]


def test_damaged_xml_and_a_missing_image_are_named_and_the_rest_is_read(tmp_path):
    home = small_data.voc(tmp_path)
    whole = (home / "Annotations" / "000005.xml").read_text()
    (home / "Annotations" / "000005.xml").write_text(whole[: len(whole) // 2])
    (home / "JPEGImages" / "000007.jpg").unlink()
    bad = small_data.xml((60, 50), ("dog", (30, 10, 20, 40), 0), ("cow", (1, 1, 9, 9), 0), ("cat", (2, 2, 9, 9), 0))
    (home / "Annotations" / "000009.xml").write_text(bad)
    records = read_voc(home, None, PETS, SMALL)
    assert list(records.ids) == ["000009"]
    assert boxes_of(records, 0) == [([1, 1, 9, 9], CAT_, 0)]
    told = {fault.kind: str(fault) for fault in records.faults}
    assert set(told) == {"files", "images", "boxes", "labels"}
    assert "000005.xml: not an annotation" in told["files"]
    assert "000007.jpg: no such image" in told["images"]
    assert "000009.xml, object 1: box from 29, 9 to 20, 40" in told["boxes"]
    assert "label 'cow' of 1 rows" in told["labels"]


# ---------------------------------------------------------------------- text files


def test_a_data_yaml_gives_boxes_in_fractions_and_images_without_labels_have_none(tmp_path):
    records = read_yolo(small_data.yolo(tmp_path), PETS, SMALL)
    assert list(records.ids) == ["a", "b", "c"]
    assert boxes_of(records, 0) == [([10, 0, 30, 20], DOG_, 0), ([8, 8, 12, 12], CAT_, 0)]
    assert boxes_of(records, 1) == boxes_of(records, 2) == []
    assert boxes_of(read_yolo(tmp_path / "pets.yaml", PETS, SMALL, "val"), 0) == [([10, 5, 30, 15], CAT_, 0)]
    assert list(read_yolo(tmp_path / "pets.yaml", PETS, SMALL, "listed").ids) == ["a"]
    with pytest.raises(WordTreeError, match=r"pets.yaml: no 'test' with `names` among path, train"):
        read_yolo(tmp_path / "pets.yaml", PETS, SMALL, "test")


def test_rows_of_a_label_file_that_are_none_are_named(tmp_path):
    file = small_data.yolo(tmp_path)
    rows = [
        "0 .5 .5 .5", "0 .5 .5 .5 x", "7 .5 .5 .1 .1", "0 .5 .5 0 .1", "0 .9 .5 .4 .1", "1 .25 .5 .1 .2",
        "1.5 .5 .5 .1 .1",
    ]  # fmt: skip
    (tmp_path / "pets" / "labels" / "train" / "a.txt").write_text("\n".join(rows))
    records = read_yolo(file, PETS, SMALL)
    assert boxes_of(records, 0) == [([8, 8, 12, 12], CAT_, 0)]
    told = sorted((fault.kind, fault.where.rpartition("/")[2]) for fault in records.faults)
    assert told == [
        ("boxes", "a.txt, row 2"), ("boxes", "a.txt, row 3"), ("files", "a.txt, line 1"), ("files", "a.txt, line 2"),
        ("labels", "a.txt, row 1"), ("labels", "a.txt, row 5"),
    ]  # fmt: skip


def test_darknets_joint_list_has_boxes_by_class_and_image_labels_by_node(tmp_path):
    records = read_darknet(small_data.darknet(tmp_path), PETS, SMALL)
    assert records.labelled.tolist() == [False, True, False]
    assert boxes_of(records, 0) == [([10, 5, 30, 15], CAT_, 0)]
    assert records[1][1].keys() == {"labels"}
    assert records[1][1]["labels"].tolist() == [POODLE_]
    assert records[2][1]["boxes"].shape == (0, 4)
    (tmp_path / "labels" / "named.txt").write_text("6 0 0 0 0\n")
    (tmp_path / "labels" / "nothing.txt").unlink()
    again = read_darknet(tmp_path / "train.list", PETS, SMALL)
    assert list(again.ids) == ["boxed"]  # an image label without a node is none
    assert sorted(fault.kind for fault in again.faults) == ["files", "labels"]
    assert "node 6; they go from 0 to 5" in str(again.faults)


def test_label_files_are_found_as_each_program_finds_them():
    assert label_file("/data/images/x/images/train/a.b.jpg") == "/data/images/x/labels/train/a.b.txt"
    assert label_file("/plain/a.png") == "/plain/a.txt"
    assert darknet_label_file("/coco/images/train2014/a.jpg") == "/coco/labels/train2014/a.txt"
    assert darknet_label_file("/VOCdevkit/VOC2007/JPEGImages/1.jpg") == "/VOCdevkit/VOC2007/labels/1.txt"


# ---------------------------------------------------------------------- Open Images


def test_open_images_has_groups_and_knows_what_was_verified(tmp_path):
    boxes, verified, names = small_data.openimages(tmp_path)
    records = read_openimages(boxes, tmp_path / "images", PETS, SMALL, verified, names)
    assert list(records.ids) == ["aa01", "bb02"]
    assert boxes_of(records, 0) == [([5, 8, 25, 24], DOG_, 0), ([25, 0, 50, 40], CAT_, GROUP)]
    known = [records[index][1]["known"].tolist() for index in (0, 1)]
    assert known[0] == [True, False, True, True, False, False]  # both have boxes
    assert known[1] == [True, False, True, False, True, False]  # no cat, and so no tabby
    assert records[1][1]["boxes"].shape == (0, 4)
    by_id = LabelMap("mids", ("/m/0bt9lr", "/m/01yrx"), PETS.ids)
    assert read_openimages(boxes, tmp_path / "images", by_id, SMALL).counts().tolist() == [0, 0, 1, 1, 0, 0]
    unmapped = read_openimages(boxes, tmp_path / "images", PETS, SMALL)
    assert [(fault.kind, fault.rows) for fault in unmapped.faults] == [("labels", 1), ("labels", 1)]


@pytest.mark.parametrize(
    ("old", "new", "part"), [("XMin", "Xmin", "no column 'XMin'"), ("0.1,", "abc,", "a damaged row")]
)
def test_a_damaged_csv_of_open_images_is_refused(tmp_path, old, new, part):
    boxes, _, _ = small_data.openimages(tmp_path)
    boxes.write_text(boxes.read_text().replace(old, new))
    with pytest.raises(WordTreeError, match=part):
        read_openimages(boxes, tmp_path / "images", PETS, SMALL)


# ---------------------------------------------------------------------- image labels


def test_folders_tars_and_tables_give_image_labels(tmp_path):
    parts, whole = small_data.tars(tmp_path)
    read = {
        "folder": read_folder(small_data.folders(tmp_path), PETS, SMALL),
        "tars": read_tars(parts, PETS, SMALL),
        "tar of tars": read_tars(whole, PETS, SMALL),
        "one tar": read_tars(parts / f"{DOG}.tar", PETS, SMALL),
        "csv": read_csv(small_data.table(tmp_path), tmp_path / "pictures", PETS, SMALL),
    }
    counts = {name: records.counts()[[DOG_, CAT_]].tolist() for name, records in read.items()}
    assert counts == {"folder": [2, 2], "tars": [2, 2], "tar of tars": [2, 2], "one tar": [2, 0], "csv": [1, 1]}
    for records in read.values():
        assert records.labelled.all()
        for index in range(len(records)):
            image, target = records[index]
            assert target.keys() == {"labels"}
            assert image.shape[0] == 3
    sizes = [tuple(read["tar of tars"].image(index).shape) for index in range(4)]
    assert sizes == [(3, 30, 30), (3, 30, 31)] * 2
    assert all(torch.equal(read["tars"].image(i), read["tar of tars"].image(i)) for i in range(4))


def test_a_folder_of_an_unknown_name_is_told_and_left_out(tmp_path):
    small_data.folders(tmp_path, (DOG, "wolpertinger"))
    records = read_folder(tmp_path / "names", PETS, SMALL)
    assert len(records) == 2
    assert [(one.kind, one.rows) for one in records.faults] == [("labels", 2)]
    with pytest.raises(WordTreeError, match=r"label 'wolpertinger' of 2 rows is not in label map 'pets'"):
        records.raise_faults()
    with pytest.raises(WordTreeError, match="no folders of images"):
        read_folder(small_data.folders(tmp_path) / DOG, PETS, SMALL)


def test_a_tar_cut_short_is_refused(tmp_path):
    parts, whole = small_data.tars(tmp_path)
    whole.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(WordTreeError, match="not a whole tar"):
        read_tars(whole, PETS, SMALL)
    (parts / "n1.tar").write_text("no tar")
    with pytest.raises(WordTreeError, match=r"n1.tar: not a whole tar"):
        read_tars(parts, PETS, SMALL)


# ---------------------------------------------------------------------- shards


def all_small(folder):
    """Every kind of source, each in a folder of its own."""
    homes = {}
    for name in ("coco", "voc", "yolo", "darknet", "openimages", "folder", "tars", "lvis"):
        homes[name] = folder / name
        homes[name].mkdir()
    boxes, verified, names = small_data.openimages(homes["openimages"])
    return {
        "coco": read_coco(small_data.coco(homes["coco"]), homes["coco"] / "images", PETS, SMALL),
        "voc": read_voc(small_data.voc(homes["voc"]), None, PETS, SMALL),
        "yolo": read_yolo(small_data.yolo(homes["yolo"]), PETS, SMALL),
        "darknet": read_darknet(small_data.darknet(homes["darknet"]), PETS, SMALL),
        "openimages": read_openimages(boxes, homes["openimages"] / "images", PETS, SMALL, verified, names),
        "folder": read_folder(small_data.folders(homes["folder"]), PETS, SMALL),
        "tars": read_tars(small_data.tars(homes["tars"])[1], PETS, SMALL),
        "lvis": read_coco(small_data.lvis(homes["lvis"]), homes["lvis"] / "images", CAR_TOO, SMALL),
    }


@pytest.mark.parametrize("per_shard", [2, 1000])
def test_every_kind_of_source_comes_back_from_shards_as_it_was(tmp_path, per_shard):
    for name, records in all_small(tmp_path).items():
        shards = write_shards(records, tmp_path / "shards" / name, per_shard)
        assert len(shards) == -(-len(records) // per_shard)
        again = read_shards(tmp_path / "shards" / name, PETS, SMALL)
        assert list(again.ids) == list(records.ids), name
        for index in range(len(records)):
            assert again.read(index) == records.read(index)
            (image, target), (same, same_target) = records[index], again[index]
            assert torch.equal(image, same)
            assert target.keys() == same_target.keys(), name
            assert all(torch.equal(target[key], same_target[key]) for key in target), name
            assert boxes_of(records, index) == boxes_of(again, index)


def test_shards_are_the_same_bytes_again_and_none_is_ever_half_there(tmp_path, monkeypatch):
    records = read_folder(small_data.folders(tmp_path), PETS, SMALL)
    (shard,) = write_shards(records, tmp_path / "one")
    (same,) = write_shards(records, tmp_path / "two")
    assert shard.read_bytes() == same.read_bytes()
    monkeypatch.setattr(type(records), "read", lambda self, index: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_shards(records, tmp_path / "three")
    assert list((tmp_path / "three").iterdir()) == []
    with pytest.raises(WordTreeError, match="0 pictures a shard"):
        write_shards(records, tmp_path / "three", 0)


def test_shards_of_others_with_a_class_number_are_read_and_damaged_samples_named(tmp_path):
    data = small_data.picture(tmp_path / "a.jpg", 20, 20)
    entries = {
        "s/0001.jpg": data, "s/0001.cls": b"1", "s/0002.jpg": data, "s/0002.cls": b"9", "s/0003.jpg": data,
        "s/0003.json": b"{}", "s/0004.cls": b"0", "s/0005.jpg": data,
        "s/0006.jpg": data, "s/0006.json": json.dumps({"labels": [DOG], "boxes": []}).encode(),
    }  # fmt: skip
    with tarfile.open(tmp_path / "x-000000.tar", "w") as tar:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    records = read_shards(tmp_path / "x-*.tar", PETS, SMALL)
    assert records.counts().tolist() == [0, 0, 1, 0, 0, 0]
    assert sorted(fault.kind for fault in records.faults) == ["files"] * 4 + ["labels"]
    with pytest.raises(WordTreeError, match="no shard"):
        read_shards(tmp_path / "y-*.tar", PETS, SMALL)


# ---------------------------------------------------------------------- what all have in common


def test_an_image_of_another_size_than_annotated_is_named(tmp_path):
    file = small_data.coco(tmp_path)
    small_data.picture(tmp_path / "images" / "000000000009.jpg", 60, 80)
    records = read_coco(file, tmp_path / "images", PETS, SMALL)
    with pytest.raises(WordTreeError) as caught:
        records.image(1)
    said(caught, "000000000009.jpg", "is 60 x 80, its annotation says 80 x 60", "give the image that was annotated")


@pytest.mark.parametrize(("keep", "part"), [(0, "no known format"), (500, "cannot be read whole")])
def test_a_damaged_image_is_named(tmp_path, keep, part):
    records = read_folder(small_data.folders(tmp_path), PETS, SMALL)
    file = records.files[0]
    data = records.read(0)
    with open(file, "wb") as opened:
        opened.write(data[:keep])
    with pytest.raises(WordTreeError, match=part) as caught:
        records[0]
    said(caught, file, "give")


def test_some_of_a_source_can_be_taken_in_any_order(tmp_path):
    for name, records in all_small(tmp_path).items():
        some = records.take([len(records) - 1, 0])
        for at, index in enumerate((len(records) - 1, 0)):
            image, target = records[index]
            same, same_target = some[at]
            assert torch.equal(image, same)
            assert all(torch.equal(target[key], same_target[key]) for key in target), name


def test_texts_are_kept_as_they_are():
    given = ["", "a.jpg", "ä/ö.png", "", "b"]
    texts = Texts(given)
    assert list(texts) == given
    assert texts[1:3] == given[1:3]
    with pytest.raises(IndexError):
        texts[5]


def test_reading_is_done_in_tables_and_grows_with_the_rows_not_with_dicts(tmp_path):
    """A hundred thousand annotations: the records are arrays, and what they hold is what was written."""
    random = np.random.RandomState(0)
    images = [{"id": int(n) * 7, "file_name": "000000000009.jpg", "width": 80, "height": 60} for n in range(2000)]
    corner, size = random.randint(0, 30, (100_000, 2)), random.randint(1, 30, (100_000, 2))
    at = random.randint(0, 2000, 100_000)
    rows = [
        {"id": n, "image_id": int(at[n]) * 7, "category_id": 17, "bbox": [*corner[n].tolist(), *size[n].tolist()]}
        for n in range(100_000)
    ]
    records = read_coco(small_data.coco(tmp_path, images=images, annotations=rows), tmp_path / "images", PETS, SMALL)
    assert records.faults == ()
    mine = np.flatnonzero(at == 1234)
    boxes, nodes, _, _ = records.record(1234, 80, 60)
    np.testing.assert_array_equal(boxes, np.concatenate((corner[mine], corner[mine] + size[mine]), axis=1))
    assert set(nodes.tolist()) == {CAT_}
