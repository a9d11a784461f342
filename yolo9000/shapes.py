"""The shapes of a data set's boxes, read without its images or its labels: what dimension clusters are made of."""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wordtree import WordTreeError

from .data.records import Records, existing, files_under, read_json

SCENES = 300  # of the embedded set


class Shapes(NamedTuple):
    """Boxes' sides.

    Attributes:
        sides: float64 [n, 2] width and height, shares of their image.
        sizes: float64 [n, 2] width and height of each box's image in pixels, NaN where the data set does not say.
        name: of the data set.
        told: what was read and what was left out, in words.
    """

    sides: NDArray[np.float64]
    sizes: NDArray[np.float64]
    name: str
    told: str


def read_shapes(source: str | Path) -> Shapes:
    """The shapes of a data set's boxes.

    Flagged boxes (crowds, difficult ones, groups) are left out, and boxes without an area; `told` counts both.

    Args:
        source: "embedded"; a run.yaml, all its training sources; a data YAML of YOLO's, its `train`; a JSON of COCO's
            or LVIS's form; the box CSV of Open Images; a folder of VOC's or ImageNet's XML (a year with Annotations in
            it, too); a folder of YOLO's text files; a Darknet list of pictures.

    Raises:
        WordTreeError: no such data set, none of these, or no box in it.
    """
    if str(source) == "embedded":
        return _embedded()
    path = existing(Path(source), "data set")
    if path.is_dir():
        xml = path / "Annotations" if (path / "Annotations").is_dir() else path
        files = list(files_under(xml, (".xml",)))
        return _of_xml(files, path.name) if files else _of_texts(list(files_under(path, (".txt",))), path.name)
    if path.suffix in (".yaml", ".yml"):
        return _of_yaml(path)
    if path.suffix == ".json":
        return _of_coco(path)
    if path.suffix == ".csv":
        return _of_openimages(path)
    if path.suffix in (".txt", ".list"):
        return _of_list(path)
    raise WordTreeError(
        f"{path}: no data set with boxes; give a run.yaml, COCO's .json, Open Images' .csv, a folder of .xml or .txt, "
        "or a list of pictures"
    )


def of_records(*sources: Records) -> Shapes:
    """The shapes of data sets that are read; images are opened where the annotations do not say their size."""
    sides, sizes, flagged = [np.zeros((0, 2))], [np.zeros((0, 2))], 0
    for records in sources:
        image = np.repeat(np.arange(len(records)), np.diff(records.starts))
        box = ~records.labelled[image]
        flagged += int((box & (records.flags > 0)).sum())
        rows = np.flatnonzero(box & (records.flags == 0))
        known = records.sizes.astype(np.float64)
        if not records.relative:
            for index in np.unique(image[rows][(known[image[rows]] == 0).any(1)]).tolist():
                known[index] = records.image(index).shape[:0:-1]
        pixels = known[image[rows]]
        mine = records.boxes[rows, 2:] - records.boxes[rows, :2]
        sides.append(mine if records.relative else mine / pixels)
        sizes.append(pixels)
    return _shapes(np.concatenate(sides), np.concatenate(sizes), ", ".join(one.name for one in sources), flagged)


def _shapes(sides: NDArray[np.float64], sizes: NDArray[np.float64], name: str, flagged: int) -> Shapes:
    """Those with an area, counted; sizes of 0 are not said."""
    good = (sides > 0).all(1) & np.isfinite(sides).all(1)
    left = [
        f"{count:,} {what}" for count, what in ((flagged, "flagged"), (int((~good).sum()), "without an area")) if count
    ]
    if not good.any():
        raise WordTreeError(f"{name}: no box in it ({', '.join(left) or 'none at all'}); give a data set with boxes")
    told = f"{name}: {int(good.sum()):,} boxes" + (f", left out: {', '.join(left)}" if left else "")
    sizes = np.where(sizes > 0, sizes, np.nan)
    return Shapes(sides[good], sizes[good], name, told)


# ---------------------------------------------------------------------- readers


def _embedded() -> Shapes:
    from .data.embedded import Pictures

    scenes = Pictures("boxed", SCENES)
    boxes = np.concatenate([scenes[index][1]["boxes"].numpy() for index in range(SCENES)]).astype(np.float64)
    sizes = np.full((len(boxes), 2), float(scenes.size))
    return _shapes((boxes[:, 2:] - boxes[:, :2]) / scenes.size, sizes, f"embedded, {SCENES} scenes", 0)


def _of_yaml(path: Path) -> Shapes:
    """Of a run.yaml or a data YAML."""
    import yaml

    from .runfile import read_run

    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise WordTreeError(f"{path}: not YAML ({fault}); give a run.yaml or a data YAML") from None
    if isinstance(content, dict) and "sources" in content:
        run = read_run(path)
        maps = dict(zip(run.sources, run.labels(), strict=True))
        tree = run.built_tree([*maps.values()])
        return of_records(*(one.read(maps[one], tree).raise_faults(one.skip) for one in run.used("train")))
    from wordtree import LabelMap

    from .classes import flat_tree
    from .data.yolo import read_yolo

    names = content.get("names") if isinstance(content, dict) else None
    texts = list(map(str, names.values() if isinstance(names, dict) else names or ()))
    if not texts:
        raise WordTreeError(f"{path}: neither `sources` of a run.yaml nor `names` of a data YAML; give one of them")
    texts = [*dict.fromkeys(texts)]
    records = read_yolo(path, LabelMap("own", tuple(texts), tuple(texts)), flat_tree(texts), name=path.name)
    return of_records(records.raise_faults())


def _of_coco(path: Path) -> Shapes:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list) or "images" not in content:
        raise WordTreeError(f"{path}: no list of 'annotations' with 'images'; give a file of COCO's form")
    size_of = {one["id"]: (one.get("width") or 0, one.get("height") or 0) for one in content["images"]}
    boxes, sizes, flagged = [], [], 0
    for row in content["annotations"]:
        if row.get("iscrowd"):
            flagged += 1
        elif row.get("image_id") in size_of and len(row.get("bbox", ())) == 4:
            boxes.append(row["bbox"][2:])
            sizes.append(size_of[row["image_id"]])
        else:
            what = f"image_id {row.get('image_id')!r}, bbox {row.get('bbox')!r}"
            raise WordTreeError(
                f"{path}, annotation {row.get('id')}: {what}; give four numbers and an image of the file"
            )
    pixels = np.array(sizes, dtype=np.float64).reshape(-1, 2)
    if (pixels == 0).any():
        raise WordTreeError(f"{path}: images without width and height; give them, or name the source in a run.yaml")
    return _shapes(np.array(boxes, dtype=np.float64).reshape(-1, 2) / pixels, pixels, path.name, flagged)


def _of_xml(files: Sequence[Path], name: str) -> Shapes:
    """VOC's corners belong to the box, ImageNet's do not; its names are WNIDs."""
    from .data.voc import _object
    from .runfile import _is_wnid

    sides, sizes, flagged = [], [], 0
    for file in files:
        try:
            root = ElementTree.parse(file).getroot()
            image = [float(root.findtext(f"size/{side}") or 0) for side in ("width", "height")]
            for label, (left, top, right, bottom), difficult in map(_object, root.iter("object")):
                flagged += difficult
                if not difficult:
                    last = 0.0 if _is_wnid(label) else 1.0
                    sides.append((right - left + last, bottom - top + last))
                    sizes.append(image)
        except (ElementTree.ParseError, ValueError) as fault:
            raise WordTreeError(f"{file}: not an annotation ({fault}); give the whole file") from None
    pixels = np.array(sizes, dtype=np.float64).reshape(-1, 2)
    if (pixels == 0).any():
        raise WordTreeError(f"{name}: annotations without the size of their image; name the source in a run.yaml")
    return _shapes(np.array(sides, dtype=np.float64).reshape(-1, 2) / pixels, pixels, name, flagged)


def _of_texts(files: Sequence[Path], name: str) -> Shapes:
    """Of YOLO's and Darknet's label files; a row of `node 0 0 0 0` is an image label and has no box."""
    from .data.records import Fault
    from .data.yolo import _rows

    if not files:
        raise WordTreeError(f"{name}: neither .xml nor .txt in it; give a folder of annotations")
    faults: list[Fault] = []
    found = [_rows(str(file), True, faults) for file in files]
    if faults:
        raise WordTreeError(str(faults[0]))
    rows = np.concatenate([np.zeros((0, 5)), *(one for one in found if one is not None)])
    rows = rows[(rows[:, 1:] != 0).any(1)]
    return _shapes(rows[:, 3:], np.full((len(rows), 2), np.nan), name, 0)


def _of_list(path: Path) -> Shapes:
    from .data.yolo import darknet_label_file

    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    images = [line if os.path.isabs(line) or os.path.exists(line) else str(path.parent / line) for line in lines]
    return _of_texts([Path(darknet_label_file(one)) for one in images], path.name)


def _of_openimages(path: Path) -> Shapes:
    from .data.openimages import BOXES, _column, _has, _table

    rows = _table(path, BOXES)
    group = _column(path, "IsGroupOf") > 0 if _has(path, "IsGroupOf") else np.zeros(len(rows), bool)
    sides = np.stack((rows["XMax"] - rows["XMin"], rows["YMax"] - rows["YMin"]), axis=1)[~group]
    return _shapes(sides, np.full((len(sides), 2), np.nan), path.name, int(group.sum()))
