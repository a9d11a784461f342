"""Small data sets in the true formats, as they lie on people's disks."""

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from wordtree import LabelMap, WordTree

DOG, CAT, CAR, TREE = "n02084071", "n02121620", "n02958343", "n13104059"
POODLE, TABBY = "n02113335", "n02123045"
PETS = LabelMap("pets", ("dog", "cat"), (DOG, CAT))
#            0 animal  1 car  2 cat  3 dog  4 tabby  5 poodle
IDS = ("n00015388", CAR, CAT, DOG, TABBY, POODLE)
SMALL = WordTree(IDS, [-1, -1, 0, 0, 2, 3], ["animal", "car", "cat", "dog", "tabby", "poodle"])
COLOURS = {"dog": (220, 40, 40), "cat": (40, 60, 220), "car": (40, 200, 60)}


def picture(path: Path, width: int, height: int, objects: Any = (), seed: int = 0) -> bytes:
    """A JPEG of noise with coloured boxes; objects: (name, left, top, right, bottom). Returns its bytes."""
    noise = np.random.RandomState(seed).randint(60, 110, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    for name, *box in objects:
        ImageDraw.Draw(image).rectangle([box[0], box[1], box[2] - 1, box[3] - 1], fill=COLOURS[name])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="JPEG", quality=92)
    return path.read_bytes()


def coco(folder: Path, **changes: Any) -> Path:
    """Three images, one without annotations; ids with holes; a crowd; a class that is not in PETS where asked for."""
    for number, (width, height) in {9: (80, 60), 31: (64, 64), 500: (50, 70)}.items():
        picture(folder / "images" / f"{number:012}.jpg", width, height, seed=number)
    content: dict[str, Any] = {
        "images": [
            {"id": 500, "file_name": "000000000500.jpg", "width": 50, "height": 70},
            {"id": 9, "file_name": "000000000009.jpg", "width": 80, "height": 60},
            {"id": 31, "file_name": "000000000031.jpg", "width": 64, "height": 64},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
        "annotations": [
            {"id": 7, "image_id": 9, "category_id": 18, "bbox": [10.5, 5, 20, 30.25], "area": 605, "iscrowd": 0},
            {"id": 8, "image_id": 500, "category_id": 17, "bbox": [0, 0, 50, 70], "area": 3500, "iscrowd": 0},
            {"id": 21, "image_id": 9, "category_id": 17, "bbox": [40, 20, 40, 40], "area": 1600, "iscrowd": 1},
        ],
    }
    for key, value in changes.items():
        content[key] = value(content[key]) if callable(value) else value
    file = folder / "instances.json"
    file.write_text(json.dumps(content))
    return file


def lvis(folder: Path) -> Path:
    """One image with a dog, checked for cats too and not for all cars; coco_url in place of a file name."""
    picture(folder / "images" / "train2017" / "000000000042.jpg", 60, 40)
    content = {
        "images": [
            {"id": 42, "coco_url": "http://images.cocodataset.org/train2017/000000000042.jpg", "width": 60,
             "height": 40, "neg_category_ids": [2], "not_exhaustive_category_ids": [3]},
        ],
        "categories": [
            {"id": 1, "name": "hound", "synset": "dog.n.01"}, {"id": 2, "name": "cat", "synset": "cat.n.01"},
            {"id": 3, "name": "car", "synset": "car.n.01"},
        ],
        "annotations": [
            {"id": 1, "image_id": 42, "category_id": 1, "bbox": [1, 2, 30, 20], "area": 600},
            {"id": 2, "image_id": 42, "category_id": 3, "bbox": [5, 5, 10, 10], "area": 100},
        ],
    }  # fmt: skip
    file = folder / "lvis.json"
    file.write_text(json.dumps(content))
    return file


def xml(size: tuple[int, int], *objects: tuple[str, tuple[float, float, float, float], int]) -> str:
    """An annotation as VOC's; objects: name, corners, difficult."""
    rows = "".join(
        f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>"
        f"<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
        "</object>"
        for name, box, difficult in objects
    )
    sides = f"<width>{size[0]}</width><height>{size[1]}</height><depth>3</depth>"
    return f"<annotation><size>{sides}</size>{rows}</annotation>"


def voc(folder: Path) -> Path:
    """VOC2007 of three images in two splits; one object is difficult."""
    home = folder / "VOC2007"
    for stem in ("000005", "000007", "000009"):
        picture(home / "JPEGImages" / f"{stem}.jpg", 60, 50, seed=int(stem))
    (home / "Annotations").mkdir()
    write = {
        "000005": xml((60, 50), ("dog", (1, 1, 60, 50), 0), ("cat", (11, 6, 30, 20), 1)),
        "000007": xml((60, 50)),
        "000009": xml((60, 50), ("cat", (2, 3, 40, 41), 0)),
    }
    for stem, text in write.items():
        (home / "Annotations" / f"{stem}.xml").write_text(text)
    (home / "ImageSets" / "Main").mkdir(parents=True)
    (home / "ImageSets" / "Main" / "trainval.txt").write_text("000005\n000007\n")
    (home / "ImageSets" / "Main" / "test.txt").write_text("000009\n")
    return home


def imagenet_det(folder: Path) -> tuple[Path, Path]:
    """Annotations and images in folders within folders; names are WNIDs."""
    picture(folder / "Data" / "DET" / "train" / "a" / "n02084071_1.JPEG", 40, 30)
    file = folder / "Annotations" / "DET" / "train" / "a" / "n02084071_1.xml"
    file.parent.mkdir(parents=True)
    file.write_text(xml((40, 30), (DOG, (0, 0, 39, 29), 0)).replace("<difficult>0</difficult>", ""))
    return folder / "Annotations" / "DET" / "train", folder / "Data" / "DET" / "train"


def yolo(folder: Path) -> Path:
    """A data YAML with images and labels side by side; one image has no label file, one has an empty one."""
    home = folder / "pets"
    for split, stems in {"train": ("a", "b", "c"), "val": ("d",)}.items():
        for stem in stems:
            picture(home / "images" / split / f"{stem}.jpg", 40, 20)
        (home / "labels" / split).mkdir(parents=True)
    (home / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.5 1.0\n1 0.25 0.5 0.1 0.2\n")
    (home / "labels" / "train" / "b.txt").write_text("\n")
    (home / "labels" / "val" / "d.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    (home / "list.txt").write_text("./images/train/a.jpg\n")
    file = folder / "pets.yaml"
    file.write_text("path: pets\ntrain: images/train\nval: images/val\nlisted: list.txt\nnames: {0: dog, 1: cat}\n")
    return file


def darknet(folder: Path) -> Path:
    """A joint list: a picture with boxes by class, one with an image label by node, one with nothing to be seen."""
    for stem in ("boxed", "named", "nothing"):
        picture(folder / "images" / f"{stem}.jpg", 40, 20)
    (folder / "labels").mkdir()
    (folder / "labels" / "boxed.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    (folder / "labels" / "named.txt").write_text("5 0 0 0 0\n")
    (folder / "labels" / "nothing.txt").write_text("")
    file = folder / "train.list"
    file.write_text("".join(f"{folder}/images/{stem}.jpg\n" for stem in ("boxed", "named", "nothing")))
    return file


def openimages(folder: Path) -> tuple[Path, Path, Path]:
    """Boxes, verified image labels, class descriptions."""
    for stem in ("aa01", "bb02"):
        picture(folder / "images" / f"{stem}.jpg", 50, 40)
    boxes = folder / "train-annotations-bbox.csv"
    head = (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    )
    boxes.write_text(
        f"{head}\naa01,xclick,/m/0bt9lr,1,0.1,0.5,0.2,0.6,0,0,0,0,0\naa01,activemil,/m/01yrx,1,0.5,1,0,1,0,0,1,0,0\n"
    )
    verified = folder / "train-annotations-human-imagelabels.csv"
    verified.write_text(
        "ImageID,Source,LabelName,Confidence\naa01,verification,/m/0bt9lr,1\nbb02,verification,/m/01yrx,0\n"
    )
    names = folder / "class-descriptions-boxable.csv"
    names.write_text("/m/0bt9lr,dog\n/m/01yrx,cat\n")
    return boxes, verified, names


def folders(folder: Path, names: tuple[str, ...] = (DOG, CAT), each: int = 2) -> Path:
    """Pictures in a folder for each label."""
    colour = {DOG: "dog", CAT: "cat", CAR: "car"}
    for name in names:
        for number in range(each):
            box = (5 + number % 4, 6, 35, 32)
            picture(
                folder / "names" / name / f"{name}_{number}.JPEG", 44, 40, [(colour.get(name, "car"), *box)], number
            )
    return folder / "names"


def tars(folder: Path) -> tuple[Path, Path]:
    """ImageNet as it was downloaded: a tar for each WNID; and one tar of these tars."""
    parts = folder / "tars"
    parts.mkdir()
    for wnid in (DOG, CAT):
        with tarfile.open(parts / f"{wnid}.tar", "w") as tar:
            for number in range(2):
                data = picture(folder / "scratch.jpg", 30 + number, 30, seed=number)
                entry = tarfile.TarInfo(f"{wnid}_{number}.JPEG")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    whole = folder / "ILSVRC2012_img_train.tar"
    with tarfile.open(whole, "w") as tar:
        for part in sorted(parts.glob("*.tar")):
            tar.add(part, part.name)
    return parts, whole


def table(folder: Path) -> Path:
    """A CSV of files and labels."""
    for stem in ("x", "y"):
        picture(folder / "pictures" / f"{stem}.jpg", 30, 30)
    file = folder / "labels.csv"
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([("file", "label"), ("x.jpg", "dog"), ("y.jpg", CAT)])
    return file
