"""Make the tables that are Darknet's facts: YOLO9000's own tree with its two maps, and ImageNet-22k's list of ids.

    python tools/make_darknet.py path/to/darknet/data

The folder is Darknet's `data`; Debian's package `darknet` has the same as /usr/share/darknet/data. The files must be
Darknet's to the byte. Writes `yolo9000/data/official/` and the table of `imagenet21k`: ids and parents as numbers, and
of the names only those that WordNet does not give. The same input gives the same bytes.
"""

import argparse
import csv
import hashlib
import io
from pathlib import Path

import numpy as np
from make_wordnet import archive  # type: ignore[import-not-found]  # its neighbour

from wordtree import LabelMap, wordnet

SHA256 = {
    "9k.tree": "124b05033e928707069995e1b61823c80f10fc14d82f84c9cd5575443b61be54",
    "9k.names": "ec9d79f248c0faff73e84b1980eb0b0ef56ad46005ba0b61bf8ab1d7f844f038",
    "coco9k.map": "c0c1dad8d73734d881d21ec3237788b5f1033ec690f42839a3587752f9b637bb",
    "inet9k.map": "065b8f891b22cc2f4530abc47da3f01c775338a92c361400f7a2668d0a7ecce9",
    "imagenet.labels.list": "862f0b616543c2467bf66c967c173ef748c4d11244ee223ffd13e6591735ca0b",
}
ROOT = Path(__file__).resolve().parent.parent
OFFICIAL = ROOT / "yolo9000" / "data" / "official"
DATASETS = ROOT / "plugins" / "wordtree_datasets"
TEDDY = "n04399382"  # Darknet's list is ImageNet-22k and the teddy, which ImageNet has among the 1000 alone


def read(path: Path) -> list[str]:
    """The lines of one of Darknet's files, refused unless the bytes are Darknet's."""
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256[path.name]:
        raise SystemExit(f"{path}: sha256 {found} is not Darknet's {SHA256[path.name]}; give Darknet's own file")
    return data.decode("ascii").splitlines()


def table(rows: list[tuple[str, str]]) -> bytes:
    """A label map as the plug-ins' tables are written."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([("label", "id"), *rows])
    return out.getvalue().encode()


def unique_labels(ids: list[str]) -> list[str]:
    """The first word of each synset; the synset's name where two have the same first word."""
    names = [wordnet.name_of(id_) for id_ in ids]
    count: dict[str, int] = {}
    for name in names:
        count[name] = count.get(name, 0) + 1
    return [name if count[name] == 1 else wordnet.synset_name(id_) for name, id_ in zip(names, ids, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="Darknet's data folder")
    parser.add_argument("--out", type=Path, help="one folder to write to, instead of the two homes")
    given = parser.parse_args()
    lines = {name: read(given.data / name) for name in SHA256}

    ids, parents = zip(*(line.split() for line in lines["9k.tree"]), strict=True)
    other = {id_: name for id_, name in zip(ids, lines["9k.names"], strict=True) if name != wordnet.name_of(id_)}
    kept = "\n".join(f"{id_} {name}" for id_, name in other.items())
    tree = {
        "numbers": np.array([int(id_[1:]) for id_ in ids], dtype=np.uint32),
        "parents": np.array(parents, dtype=np.int16),
        "other_names": np.frombuffer(kept.encode(), dtype=np.uint8),
    }
    coco, inet = ([ids[int(line)] for line in lines[f"{name}9k.map"]] for name in ("coco", "inet"))
    coco_labels, det = (LabelMap.read(DATASETS / f"{name}.csv") for name in ("coco", "imagenet_det"))
    label_of = dict(zip(det.ids, det.labels, strict=True))  # joined on the id: lists of the 200 differ in order
    all_ids = sorted({*lines["imagenet.labels.list"]} - {TEDDY})
    made = {
        OFFICIAL / "9k.npz": archive(tree),
        OFFICIAL / "coco9k.csv": table(list(zip(coco_labels.labels, coco, strict=True))),
        OFFICIAL / "inet9k.csv": table([(label_of[id_], id_) for id_ in inet]),
        DATASETS / "imagenet21k.csv": table(list(zip(unique_labels(all_ids), all_ids, strict=True))),
    }
    for path, data in made.items():
        path = given.out / path.name if given.out else path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"{path.name}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
