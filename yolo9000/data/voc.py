"""XML a picture: Pascal VOC, whose names are words, and ImageNet's, whose names are WNIDs."""

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from wordtree import LabelMap, WordTree, WordTreeError

from ..images import SUFFIXES
from .records import DIFFICULT, Fault, Mapper, Records, Table, existing, files_under


def read_voc(
    path: Path, images: Path | None, labels: LabelMap, tree: WordTree, split: str = "", name: str = "voc"
) -> Records:
    """Boxes of a VOC year, such as VOCdevkit/VOC2007. Its corners count from 1 and belong to the box.

    Args:
        path: the folder that holds Annotations, JPEGImages, ImageSets; or a folder of XML files.
        images: the folder of the images; JPEGImages where left out.
        labels, tree: the label map, and a tree that has its labels.
        split: a list of ImageSets/Main, such as trainval; all annotations where left out.
        name: of the source.

    Raises:
        WordTreeError: no such folder or list. Damaged XML and bad boxes are in `faults`.
    """
    annotations = path / "Annotations" if (path / "Annotations").is_dir() else existing(path, "folder")
    stems = None
    if split:
        listed = existing(path / "ImageSets" / "Main" / f"{split}.txt", f"list of the split {split!r},")
        stems = [line.split()[0] for line in listed.read_text().splitlines() if line.strip()]
    return _read(annotations, images or path / "JPEGImages", stems, labels, tree, name, first=1.0)


def read_imagenet_xml(
    path: Path, images: Path | None, labels: LabelMap, tree: WordTree, name: str = "imagenet-det"
) -> Records:
    """Boxes of ImageNet DET, such as Annotations/DET/train with Data/DET/train, folders within folders.

    Corners are taken as written, counted from 0.
    """
    return _read(existing(path, "folder"), images or path, None, labels, tree, name, first=0.0)


def _read(
    annotations: Path, images: Path, stems: list[str] | None, labels: LabelMap, tree: WordTree, name: str, first: float
) -> Records:
    existing(images, "folder of images")
    image_of = {os.path.splitext(os.path.relpath(file, images))[0]: str(file) for file in files_under(images, SUFFIXES)}
    if stems is None:
        stems = [
            os.path.splitext(os.path.relpath(file, annotations))[0] for file in files_under(annotations, (".xml",))
        ]
    if not stems:
        raise WordTreeError(f"no annotations in {str(annotations)!r}; give a folder that holds .xml files")
    faults: list[Fault] = []
    files, ids, sizes, counts = [], [], [], []
    names: list[str] = []
    boxes: list[list[float]] = []
    flags: list[int] = []
    for stem in stems:
        file = annotations / f"{stem}.xml"
        try:
            root = ElementTree.parse(file).getroot()
            size = root.find("size")
            found = [_object(one) for one in root.iter("object")]
            pixels = [0, 0] if size is None else [int(float(size.findtext(side) or 0)) for side in ("width", "height")]
        except FileNotFoundError:
            faults.append(Fault("files", str(file), "no such file, though the split lists it; put it there"))
            continue
        except (ElementTree.ParseError, ValueError) as fault:
            faults.append(Fault("files", str(file), f"not an annotation ({fault}); give the whole file"))
            continue
        files.append(image_of.get(stem, str(images / f"{stem}.jpg")))
        ids.append(stem)
        sizes.append(pixels)
        counts.append(len(found))
        for label, box, difficult in found:
            names.append(label)
            boxes.append(box)
            flags.append(DIFFICULT * difficult)
    image = np.repeat(np.arange(len(files)), counts)
    within = np.arange(len(names)) - np.repeat(np.cumsum(counts) - counts, counts) if names else np.zeros(0, int)
    mapper = Mapper(labels, tree)
    kinds, at = np.unique(np.array(names, dtype=str), return_inverse=True)
    faults += mapper.unmapped(str(annotations), kinds.tolist(), at)
    corners = np.array(boxes, dtype=np.float64).reshape(-1, 4) - [first, first, 0.0, 0.0]

    def where(row: int) -> str:
        return f"{annotations / ids[image[row]]}.xml, object {within[row] + 1}"

    return Table(
        name, tree, files, ids, image, corners, mapper.table(kinds.tolist())[at] if names else np.zeros(0, np.int64),
        where, np.array(flags, dtype=np.uint8), sizes=np.array(sizes, np.int64).reshape(-1, 2),
        numbers=mapper.number_of, faults=faults,
    ).records()  # fmt: skip


def _object(one: ElementTree.Element) -> tuple[str, list[float], int]:
    """An object's name, its corners as written, and whether it is difficult; its parts are not looked at."""
    box, label = one.find("bndbox"), one.findtext("name")
    if box is None or label is None:
        raise ValueError("an object without name or bndbox")
    corners = [float(box.findtext(side) or "nan") for side in ("xmin", "ymin", "xmax", "ymax")]
    return label.strip(), corners, int((one.findtext("difficult") or "0").strip() == "1")
