"""The paper's combined data set (section 4), in one go: ImageNet's top classes, COCO, ImageNet DET -> a run.yaml.

    pictures of each WNID counted -> the top classes -> with COCO's and DET's, one tree by the paper's rule
    -> label maps, the tree, a run.yaml with four pictures by name to one with boxes; and Darknet's files of the same

Nothing of the data sets is copied or changed: the run.yaml names them where they lie, and Darknet, which looks for a
label file where `images` in a path is `labels`, gets links to the pictures.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from wordtree import LabelMap, WordTree, WordTreeError, build_tree, label_maps, wordnet
from wordtree.formats import write_map

from .data.coco import _file_of, read_coco
from .data.folders import images_in
from .data.records import Records, existing, files_under, read_json
from .data.yolo import darknet_label_file
from .files import write_text
from .images import SUFFIXES
from .runfile import _is_wnid

RATIO = 4  # pictures by name to one with boxes, as the paper oversampled COCO
SIZE, SIZES = 416, list(range(320, 609, 32))
WNID = re.compile(rb"<name>\s*(n\d{8})\s*</name>")


class Unplaced(NamedTuple):
    """A class that has no place on the tree: its data set, how it is called there, its pictures or rows, and why."""

    source: str
    label: str
    rows: int
    why: str


@dataclass(frozen=True)
class Combined:
    """What was made; `print` tells it.

    Attributes:
        run: the run.yaml.
        tree: the tree, with its report.
        maps: the label maps by source: "imagenet", "coco" and, where it was given, "det".
        counts: ImageNet's classes -> how many pictures, of those taken.
        left: how many of ImageNet's classes have too few pictures to be among the top.
        unplaced: what has no place on the tree.
        repeats: how often a line of COCO and of ImageNet stands in Darknet's list; (0, 0) without one.
        notes: what else is to be known.
    """

    run: Path
    tree: WordTree
    maps: dict[str, LabelMap]
    counts: dict[str, int]
    left: int
    unplaced: tuple[Unplaced, ...]
    repeats: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        fewest, most = min(self.counts.values()), max(self.counts.values())
        lines = [
            f"imagenet: {len(self.counts):,} classes of {sum(self.counts.values()):,} pictures, {fewest:,} to {most:,} "
            f"each; {self.left:,} classes with fewer left out"
        ]
        lines += [f"{name}: {len(labels)} classes" for name, labels in self.maps.items() if name != "imagenet"]
        lines.append(f"tree: {self.tree}")
        lines += [f"  {line}" for line in str(self.tree.report).splitlines() if not line.startswith("  ")]
        lines.append(f"without a place on the tree: {len(self.unplaced) or 'none'}")
        lines += [f"  {one.source}/{one.label} ({one.rows:,}): {one.why}" for one in self.unplaced[:20]]
        if len(self.unplaced) > 20:
            lines.append(f"  and {len(self.unplaced) - 20} more in unplaced.csv")
        if self.repeats[0]:
            lines.append(f"Darknet's list: COCO {self.repeats[0]} times, ImageNet {self.repeats[1]} times")
        lines += self.notes
        return "\n".join([*lines, f"run: yolo9000 train --data {self.run}"])


def combine(
    imagenet: str | Path,
    coco: str | Path,
    out: str | Path,
    det: str | Path | None = None,
    top: int = 9000,
    coco_images: str | Path | None = None,
    det_images: str | Path | None = None,
    rules: str = "paper",
    darknet: bool = True,
    start: Callable[[str, int | None], None] = lambda what, total: None,
    tick: Callable[[int], None] = lambda done: None,
) -> Combined:
    """Make the combined set's files in a folder.

    Args:
        imagenet: folders by WNID, a folder of tars by WNID, or the one tar of tars.
        coco: instances.json; a category is placed by its name in the label map `coco`, by its `synset`, or by its name
            where that is a noun of one sense.
        out: the folder: run.yaml, tree.json, a label map each, report.txt, unplaced.csv, darknet/.
        det: ImageNet DET's XML, such as Annotations/DET/val: it is what the run is tested on, as in the paper; its 200
            classes are on the tree.
        top: how many of ImageNet's classes, those with the most pictures; the lower WNID first on a tie.
        coco_images, det_images: the folders of the images, where they do not lie in a usual place.
        rules: of the tree, see `wordtree.build_tree`.
        darknet: also write Darknet's files: .data, .tree, .names, .labels, .map, the list and a label file a picture.
        start, tick: told what is being done, and how far it is.

    Raises:
        WordTreeError: a folder without WNIDs, a class count below 1, images that are not there, a folder that holds a
            combined set already.
    """
    imagenet, coco, out = Path(imagenet).resolve(), Path(coco).resolve(), Path(out)
    if top < 1:
        raise WordTreeError(f"the top {top} classes; give 1 or more")
    if (out / "run.yaml").exists():
        raise WordTreeError(f"{out} holds a run.yaml already; give another folder, or delete it")
    if darknet and "images" in str(out.resolve()):
        raise WordTreeError(
            f"{out.resolve()} has `images` in its path, where Darknet would look for labels; give another folder, or "
            "--no-darknet"
        )
    start("counting ImageNet", None)
    kind, found = _counted(imagenet, tick)
    unplaced = [
        Unplaced("imagenet", name, count, why) for name, count in found.items() if (why := _why_not(name)) is not None
    ]
    nowhere = {one.label for one in unplaced}
    ranked = sorted((name for name in found if name not in nowhere), key=lambda name: (-found[name], name))
    if not ranked:
        raise WordTreeError(f"no WNIDs with pictures in {str(imagenet)!r}; give folders or tars such as n02084071")
    taken = sorted(ranked[:top])
    maps = {"imagenet": LabelMap("imagenet", tuple(taken), tuple(taken))}
    maps["coco"], more = _coco_map(coco)
    unplaced += more
    images = {"coco": _images_of(coco, _first_file(coco), coco_images)}
    if det is not None:
        det = Path(det).resolve()
        maps["det"], more = _det_map(det)
        unplaced += more
        images["det"] = Path(det_images).resolve() if det_images else _det_images(det)
    tree = build_tree(*maps.values(), rules=rules)

    out.mkdir(parents=True, exist_ok=True)
    tree.save(out / "tree.json")
    for name, labels in maps.items():
        labels.save(out / f"{name}.csv")
    write_text(out / "report.txt", f"{tree.report}\n")
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\n").writerows([Unplaced._fields, *unplaced])
    write_text(out / "unplaced.csv", table.getvalue())
    notes, repeats = [], (0, 0)
    boxed = read_coco(coco, images["coco"], maps["coco"], tree)
    bad = [fault for fault in boxed.faults if fault.kind == "boxes"]
    if bad:
        notes.append(f"coco: {len(bad)} boxes are none and left out: {bad[0]}")
    if darknet and kind != "folder":
        notes.append("Darknet's list: none, it reads no tars; unpack them, or train from run.yaml")
    elif darknet:
        boxed = boxed.raise_faults(("labels", "boxes"))
        repeats = _darknet(out / "darknet", tree, maps, imagenet, taken, boxed, images["coco"], start, tick)
    sources = [
        {"kind": "coco", "path": str(coco), "images": str(images["coco"]), "labels": "coco.csv", "ratio": 1},
        {"kind": kind, "name": "imagenet", "path": str(imagenet), "labels": "imagenet.csv", "ratio": RATIO},
    ]
    for source, name in zip(sources, ("coco", "imagenet"), strict=True):
        if name == "imagenet" or any(one.source == name for one in unplaced):
            source["subset"] = True  # what has no place, or too few pictures, is left out
    if bad:
        sources[0]["skip"] = ["boxes"]
    if det is not None:
        sources.append(
            {"kind": "imagenet-det", "path": str(det), "images": str(images["det"]), "labels": "det.csv", "use": "test"}
            | ({"subset": True} if any(one.source == "det" for one in unplaced) else {})
        )
    content = {"tree": "tree.json", "model": "yolo9000", "size": SIZE, "sizes": SIZES, "anchors": 3, "sources": sources}
    head = "# YOLO9000's combined set (paper section 4), by `yolo9000 combine`: four pictures by name to one of COCO\n"
    write_text(out / "run.yaml", head + yaml.safe_dump(content, sort_keys=False))
    counts = {name: found[name] for name in taken}
    return Combined(
        out / "run.yaml", tree, maps, counts, len(ranked) - len(taken), tuple(unplaced), repeats, tuple(notes)
    )


# ---------------------------------------------------------------------- what the data sets have


def _counted(path: Path, tick: Callable[[int], None]) -> tuple[str, Counter[str]]:
    """The kind of source that ImageNet lies in, and the pictures of each class."""
    existing(path, "ImageNet")
    counts: Counter[str] = Counter()
    tars = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    if tars:
        for tar in tars:
            counts.update(member.tar for member in images_in(tar))
            tick(1)
        return "tars", counts
    for folder in sorted(one for one in path.iterdir() if one.is_dir()):
        counts[folder.name] = sum(1 for _ in files_under(folder, SUFFIXES))
        tick(1)
    return "folder", +counts  # without those that have none


def _why_not(name: str) -> str | None:
    """Why a class of ImageNet has no place; None where it has one."""
    if not _is_wnid(name):
        return "not a WNID"
    return None if name in wordnet.candidates(name) else "WordNet 3.0 has no such noun"


def _coco_map(path: Path) -> tuple[LabelMap, list[Unplaced]]:
    """The categories of a JSON of COCO's form, in order of their ids, that have a place; and the others."""
    content = read_json(path)
    given = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(given, list) or not isinstance(content.get("annotations"), list):
        raise WordTreeError(f"{path}: no list of 'categories' with 'annotations'; give COCO's instances.json")
    rows = Counter(one.get("category_id") for one in content["annotations"])
    id_of = dict(zip(label_maps()["coco"].labels, label_maps()["coco"].ids, strict=True))
    placed: list[tuple[str, str, int]] = []
    unplaced = []
    for one in sorted(given, key=lambda one: int(one["id"])):
        name = str(one["name"])
        ids = [id_of[name]] if name in id_of else wordnet.candidates(str(one.get("synset") or name))
        if len(ids) == 1:
            placed.append((name, ids[0], int(one["id"])))
        else:
            senses = ", ".join(map(wordnet.synset_name, ids))
            why = f"a word of several senses ({senses})" if ids else "WordNet 3.0 has no such noun"
            unplaced.append(Unplaced("coco", name, rows[one["id"]], why))
    if not placed:
        raise WordTreeError(f"{path}: none of its {len(given)} categories has a place; give COCO's instances.json")
    labels, found, numbers = zip(*placed, strict=True)
    return LabelMap("coco", labels, found, numbers), unplaced


def _det_map(path: Path) -> tuple[LabelMap, list[Unplaced]]:
    """ImageNet DET's 200 classes, and what else the annotations name."""
    counts: Counter[str] = Counter()
    for file in files_under(existing(path, "ImageNet DET"), (".xml",)):
        counts.update(name.decode() for name in WNID.findall(file.read_bytes()))
    if not counts:
        raise WordTreeError(f"no WNIDs in the .xml of {str(path)!r}; give a folder such as Annotations/DET/val")
    own = label_maps()["imagenet_det"]
    others = sorted(counts.keys() - set(own.ids))
    placed = tuple(name for name in others if _why_not(name) is None)
    lost = [Unplaced("det", name, counts[name], _why_not(name) or "") for name in others if name not in placed]
    return LabelMap("det", own.labels + placed, own.ids + placed), lost


def _first_file(coco: Path) -> str:
    pictures = read_json(coco).get("images") or []
    if not pictures:
        raise WordTreeError(f"{coco}: no images in it; give COCO's instances.json")
    return _file_of(pictures[0])


def _images_of(coco: Path, file: str, given: str | Path | None) -> Path:
    """The folder of COCO's images: as given, or beside the annotations as they are unpacked."""
    split = coco.stem.removeprefix("instances_")
    usual = [coco.parent, *(base / part for base in (coco.parent, coco.parent.parent)
                            for part in (split, "images", f"images/{split}"))]  # fmt: skip
    folders = [Path(given).resolve()] if given else usual
    for folder in folders:
        if (folder / file).is_file():
            return folder
    looked = ", ".join(map(str, folders))
    raise WordTreeError(f"no {file!r} of {coco.name} in {looked}; give --coco-images, the folder of COCO's images")


def _det_images(det: Path) -> Path:
    """Annotations/DET/val -> Data/DET/val where that is there."""
    parts = list(det.parts)
    for at in reversed([at for at, part in enumerate(parts) if part == "Annotations"]):
        beside = Path(*parts[:at], "Data", *parts[at + 1 :])
        if beside.is_dir():
            return beside
    return det


# ---------------------------------------------------------------------- Darknet


def _darknet(
    folder: Path,
    tree: WordTree,
    maps: dict[str, LabelMap],
    imagenet: Path,
    taken: list[str],
    boxed: Records,
    coco_images: Path,
    start: Callable[[str, int | None], None],
    tick: Callable[[int], None],
) -> tuple[int, int]:
    """Darknet's files as combine9k.data names them; how often COCO and ImageNet stand in the list."""
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    tree.save(folder / "combine.tree")
    write_text(folder / "combine.labels", "".join(f"{id_}\n" for id_ in tree.ids))
    for name in ("coco", "det"):
        if name in maps:
            write_map(maps[name].nodes_on(tree), folder / f"{name}.map")
    write_text(folder / "coco.names", "".join(f"{label}\n" for label in maps["coco"].labels))
    lines = {
        "classes": len(tree), "train": folder / "combine.train.list", "labels": folder / "combine.labels",
        "names": folder / "combine.names", "backup": "backup/", "results": "results",
    }  # fmt: skip
    if "det" in maps:
        lines |= {"map": folder / "det.map", "eval": "imagenet"}
    write_text(folder / "combine.data", "".join(f"{key} = {value}\n" for key, value in lines.items()))

    start("writing COCO's labels", len(boxed))
    of_coco = []
    for place, text in _coco_rows(boxed, maps["coco"], coco_images):
        of_coco.append(_laid(folder / "images" / "coco" / place, coco_images / place, text))
        tick(1)
    start("writing ImageNet's labels", len(taken))
    of_imagenet = []
    for name, node in zip(taken, maps["imagenet"].nodes_on(tree).tolist(), strict=True):
        for file in files_under(imagenet / name, SUFFIXES):
            place = os.path.relpath(file, imagenet)
            of_imagenet.append(_laid(folder / "images" / "imagenet" / place, file, f"{node} 0 0 0 0\n"))
        tick(1)
    repeats = repeated(len(of_coco), len(of_imagenet))
    listed = [*of_coco * repeats[0], *of_imagenet * repeats[1]]
    write_text(folder / "combine.train.list", "".join(f"{file}\n" for file in listed))
    return repeats


def repeated(boxed: int, named: int) -> tuple[int, int]:
    """How often each line of two lists stands in one, so that as nearly as may be `RATIO` of the second come to one.

    Darknet draws lines at random from one list; a whole number of repeats is all that it takes.

    Example:
        >>> repeated(boxed=117_000, named=10_000_000), repeated(boxed=100, named=100)
        ((21, 1), (1, 4))
    """
    if named >= RATIO * boxed:
        return max(1, round(named / (RATIO * boxed))), 1
    return 1, max(1, round(RATIO * boxed / named))


def _coco_rows(boxed: Records, labels: LabelMap, images: Path) -> Iterator[tuple[str, str]]:
    """Each image's place below the folder of images, and its label file; crowds are left out."""
    class_of = {node: row for row, node in reversed(list(enumerate(labels.nodes_on(boxed.tree).tolist())))}
    for index in range(len(boxed)):
        width, height = boxed.sizes[index].tolist()
        if not width:
            width, height = boxed.image(index).shape[:0:-1]
        boxes, nodes, flags, _ = boxed.record(index, width, height)
        centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        rows = np.concatenate((centre, sides), axis=1) / [width, height, width, height]
        text = "".join(
            f"{class_of[node]} {' '.join(f'{number:.8g}' for number in row)}\n"
            for node, row, flag in zip(nodes.tolist(), rows.tolist(), flags.tolist(), strict=True)
            if not flag
        )
        yield os.path.relpath(boxed.files[index], images), text


def _laid(link: Path, picture: Path, text: str) -> Path:
    """A link to a picture with its label file where Darknet looks for it."""
    for file in (link, Path(darknet_label_file(str(link)))):
        file.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(picture)
    Path(darknet_label_file(str(link))).write_text(text)
    return link
