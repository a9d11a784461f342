"""WebDataset shards: tars in which a picture and what is known of it stand side by side, under one key.

    000000017.jpg   the image file as it was
    000000017.json  {"id": "9", "labels": ["n02084071"], "boxes": [[48.2, 20.1, 91.0, 66.4]], "flags": [0]}

Ids are those of the tree; boxes are pixels, or fractions under `"relative": true`; an image label has no `boxes`;
`known` lists what the image was checked for. Shards of others that give a class number, `.cls`, are read too. Pictures
are read where they lie, in any order.
"""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wordtree import LabelMap, WordTree, WordTreeError

from ..files import whole
from ..images import SUFFIXES
from .folders import Member, members_of
from .records import Fault, Mapper, Records, Table

PER_SHARD = 1000


def write_shards(
    records: Records,
    folder: str | Path,
    per_shard: int = PER_SHARD,
    tick: Callable[[int], None] = lambda written: None,
) -> list[Path]:
    """Write a data set as shards, `name-000000.tar` and on; each is there whole or not at all.

    Args:
        records: the data set.
        folder: where they go.
        per_shard: pictures a shard.
        tick: called with the number of pictures of each finished shard.

    Returns:
        The shards, in order. The same data set gives the same bytes.

    Raises:
        WordTreeError: fewer than one picture a shard, an image that cannot be read, or a full disk.
    """
    if per_shard < 1:
        raise WordTreeError(f"{per_shard} pictures a shard; give 1 or more")
    folder = Path(folder)
    written = []
    for number, first in enumerate(range(0, len(records), per_shard)):
        target = folder / f"{records.name}-{number:06}.tar"
        with whole(target) as part, tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
            for index in range(first, min(first + per_shard, len(records))):
                name = records.files[index] if records.places is None else records.ids[index]
                suffix = os.path.splitext(name)[1].lower() or ".jpg"
                _add(tar, f"{index:09}{suffix}", records.read(index))
                _add(tar, f"{index:09}.json", json.dumps(_sample(records, index)).encode())
        written.append(target)
        tick(min(first + per_shard, len(records)) - first)
    return written


def _sample(records: Records, index: int) -> dict[str, Any]:
    """What is known of one picture, as a shard has it."""
    ids = records.tree.ids
    boxes, nodes, flags, known = records.record(index, 1, 1)
    sample: dict[str, Any] = {"id": records.ids[index], "labels": [ids[node] for node in nodes.tolist()]}
    if not records.labelled[index]:
        sample |= {"boxes": boxes.tolist(), "flags": flags.tolist()}
        sample |= {"relative": True} if records.relative else {"size": records.sizes[index].tolist()}
    if known is not None:
        sample["known"] = [ids[node] for node in np.flatnonzero(known).tolist()]
    return sample


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def read_shards(path: Path, labels: LabelMap, tree: WordTree, name: str = "shards") -> Records:
    """The data set of some shards.

    Args:
        path: a shard, a folder of shards, or a pattern such as shards/coco-*.tar.
        labels: for `.cls`, whose numbers are those of the map, and for labels written as the map's.
        tree: a tree that has the ids.
        name: of the source.

    Raises:
        WordTreeError: no such shard, a tar that ends too soon, or shards of fractions beside shards of pixels. A
            damaged sample is in `faults`.
    """
    shards = sorted(path.glob("*.tar")) if path.is_dir() else sorted(path.parent.glob(path.name))
    if not shards:
        raise WordTreeError(f"no shard {str(path)!r}; give a .tar, a folder of them or a pattern such as coco-*.tar")
    mapper = Mapper(labels, tree)
    node_of = {id_: node for node, id_ in enumerate(tree.ids)}
    of_number = dict(zip(labels.numbers, labels.nodes_on(tree).tolist(), strict=True))
    faults: list[Fault] = []
    samples: list[tuple[str, Member, dict[str, Any]]] = []
    for shard in shards:
        with open(shard, "rb") as file:
            groups: dict[str, dict[str, Member]] = {}
            for member in list(members_of(file, shard.stem, str(shard))):
                key, _, suffix = member.name.rpartition("/")[2].partition(".")
                groups.setdefault(key, {})["." + suffix.lower()] = member
            for key, group in groups.items():
                where = f"{shard}:{key}"
                picture = next((group[suffix] for suffix in SUFFIXES if suffix in group), None)
                if picture is None:
                    faults.append(Fault("files", where, "no image beside it; give a .jpg and a .json under one key"))
                    continue
                try:
                    samples.append((str(shard), picture, _read_sample(file, group)))
                except (ValueError, KeyError, TypeError) as fault:
                    what = f"not a sample ({type(fault).__name__}: {fault}); give a .json with labels, or a .cls"
                    faults.append(Fault("files", where, what))
    texts: list[str | int] = [label for _, _, sample in samples for label in sample["labels"]]
    image = np.repeat(np.arange(len(samples)), [len(sample["labels"]) for _, _, sample in samples])
    kinds = list(dict.fromkeys(texts))
    row_of = {kind: row for row, kind in enumerate(kinds)}
    at = np.array([row_of[text] for text in texts], dtype=np.int64)
    found = [
        of_number.get(kind, -1) if isinstance(kind, int) else node_of.get(kind, mapper.node(kind)) for kind in kinds
    ]
    table = np.array(found, dtype=np.int64)
    lost = [kind for kind, node in zip(kinds, found, strict=True) if node < 0]
    for kind in lost:
        rows = int((at == row_of[kind]).sum())
        what = f"label {kind!r} of {rows} rows is neither on the tree nor in label map {labels.name!r}; give it an id"
        faults.append(Fault("labels", str(path), what, rows))
    relative = {bool(sample.get("relative")) for _, _, sample in samples if "boxes" in sample}
    if len(relative) > 1:
        raise WordTreeError(f"{path}: shards of fractions beside shards of pixels; make two sources of them")
    empty = np.zeros((0, 4))
    boxes = [
        np.array(sample["boxes"], float).reshape(-1, 4) if "boxes" in sample else np.zeros((len(sample["labels"]), 4))
        for _, _, sample in samples
    ]
    flags = [flag for _, _, sample in samples for flag in sample.get("flags", [0] * len(sample["labels"]))]
    known = [[node_of[id_] for id_ in sample.get("known", ()) if id_ in node_of] for _, _, sample in samples]
    checked = None
    if any("known" in sample for _, _, sample in samples):
        checked = (
            np.repeat(np.arange(len(known)), [len(some) for some in known]),
            np.array([node for some in known for node in some], dtype=np.int64),
        )
    return Table(
        name, tree, [shard for shard, _, _ in samples], [str(sample["id"]) for _, _, sample in samples], image,
        np.concatenate([empty, *boxes]), table[at] if len(at) else np.zeros(0, np.int64),
        lambda row: f"{samples[image[row]][0]}:{samples[image[row]][1].name}", np.array(flags, dtype=np.uint8),
        np.array(["boxes" not in sample for _, _, sample in samples], dtype=bool),
        np.array([sample.get("size", (0, 0)) for _, _, sample in samples], np.int64).reshape(-1, 2),
        True in relative, np.array([(one.offset, one.length) for _, one, _ in samples], np.int64).reshape(-1, 2),
        checked, mapper.number_of, faults,
    ).records()  # fmt: skip


def _read_sample(file: io.BufferedReader, group: dict[str, Member]) -> dict[str, Any]:
    """The record of one key: its .json, or its .cls."""

    def read(member: Member) -> bytes:
        file.seek(member.offset)
        return file.read(member.length)

    key = next(iter(group.values())).name.partition(".")[0]
    if ".json" not in group:
        return {"id": key, "labels": [int(read(group[".cls"]))]}
    sample = json.loads(read(group[".json"]))
    rows = len(sample["labels"])
    if "boxes" in sample and (len(sample["boxes"]) != rows or len(sample.get("flags", sample["boxes"])) != rows):
        raise ValueError(f"{rows} labels and {len(sample['boxes'])} boxes")
    np.array(sample.get("boxes", ()), dtype=float).reshape(-1, 4)
    return {"id": key, **sample}
