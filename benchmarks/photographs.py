"""How detectors of the embedded set do on photographs of its classes, which none of them was trained on or tuned to.

    apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default*.deb stamps
    python benchmarks/photographs.py --stamps stamps/usr/share/tuxpaint/stamps            # the shipped checkpoint
    python benchmarks/photographs.py --stamps ... --weights runs/demo runs/lite0 --size 320  # runs, side by side
    python benchmarks/photographs.py --stamps ... --look timm/tf_efficientnet_lite0 \
        --look-weights efficientnet-lite0-57934424.pth --size 320                         # named by a second look

The photographs are 99 stamps of Tux Paint, of 63 of the 72 classes (`stamps.csv`): animals, fruit and things, cut
out. Most are under the GPL or of no stated licence (yolo9000/data/zoo/AUDIT.md), so they are not shipped: they are
read from where their own package has put them. They are laid on test backgrounds as the drawings of the test splits
are, so a scene is composed, not photographed whole: light, context and occlusion are still not those of nature.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import yolo9000
from yolo9000.data import embedded
from yolo9000.data.compose import pyramid
from yolo9000.detector import Detector
from yolo9000.precision import average_precision, class_agnostic_recall, look_through
from yolo9000.reports import ROWS, TEST_SEED, rows_of
from yolo9000.second import SecondLook
from yolo9000.trunks import DEFAULT, named_classifier

SIDE = 192  # pixels of a cut-out's longest side
INSTALLED = Path("/usr/share/tuxpaint/stamps")


def main() -> None:
    """Compose the scenes, score each detector on the same ones, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stamps", type=Path, default=INSTALLED, help="the folder of tuxpaint-stamps-default")
    parser.add_argument(
        "--weights", nargs="*", default=[None], help="runs or weights files; the shipped where left out"
    )
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--split", default="photographs", help="unseen: the drawings of the test family")
    parser.add_argument("--size", type=int, help="pixels of a scene, as those the detector sees where left out")
    parser.add_argument("--look", help="a classifier that names the boxes, such as timm/tf_efficientnet_lite0")
    parser.add_argument("--look-weights", default=DEFAULT, help="its weights; its package's own where left out")
    parser.add_argument("--boxes", type=int, default=30, help="how many of an image it looks at")
    given = parser.parse_args()
    add_photographs(given.stamps)
    for weights in given.weights:
        model = yolo9000.load(weights)
        if given.look:
            classifier = named_classifier(given.look, model.tree, given.look_weights)
            model = SecondLook(model, classifier, most=given.boxes).eval()
        size = given.size or model.size
        print(f"{weights or 'the shipped checkpoint'}: {given.scenes} scenes of {size} pixels")
        for name, (objects, precision, recall) in figures(model, given.scenes, size, given.split).items():
            print(f"  {name:32} {objects:5} objects  mAP@.5 {precision:.3f}  recall {recall:.3f}", flush=True)


@torch.no_grad()
def figures(model: Detector | SecondLook, scenes: int, size: int, split: str) -> dict[str, tuple[int, float, float]]:
    """By row of the table, and of all fine classes: how many objects, mAP at IoU .5, recall with 10 boxes an image."""
    labels = embedded.label_map().nodes_on(model.tree)
    nodes = sorted(set(labels.tolist()))
    data = embedded.Pictures(split, scenes, size, seed=TEST_SEED)
    said, truths = look_through(model, data, labels, nodes)
    precision = average_precision(said, truths, nodes, model.tree)
    rows = {ROWS[row]: wanted for row, wanted in rows_of(labels.tolist()).items()}
    place = dict(zip(embedded.label_map().ids, labels.tolist(), strict=True))
    rows["all fine classes"] = [place[fine.wnid] for fine in embedded.classes()]
    told = {}
    for name, wanted in rows.items():
        under = model.tree.propagate(truths.nodes)[:, wanted].any(1)
        recall = class_agnostic_recall(said, truths, wanted, model.tree)
        told[name] = int(under.sum()), float(np.nanmean([precision[node] for node in wanted])), recall
    return told


def add_photographs(folder: Path) -> None:
    """Put the stamps into the pack in memory, as its photographs of objects."""
    with (Path(__file__).parent / "stamps.csv").open() as file:
        wanted = [(row["synset"], row["stamp"]) for row in csv.DictReader(file)]
    found = {file.stem: file for file in sorted(folder.rglob("*.png"), reverse=True) if "cartoon" not in file.parts}
    missing = [stamp for _, stamp in wanted if stamp not in found]
    if missing:
        raise SystemExit(
            f"no {', '.join(missing[:5])} in {folder}; give --stamps the folder of tuxpaint-stamps-default"
        )
    wnids = {fine.synset: fine.wnid for fine in embedded.classes()}
    whole = embedded.pack()
    rows = [
        embedded.Row(f"photo/{stamp}", "photo", embedded.PHOTOGRAPHS, synset, wnids[synset]) for synset, stamp in wanted
    ]
    whole.cutouts.update({f"photo/{stamp}": pyramid(tight(found[stamp])) for _, stamp in wanted})
    extended = whole._replace(rows=(*whole.rows, *rows))
    embedded.pack = lambda: extended  # type: ignore[assignment]
    embedded.cutouts_of.cache_clear()


def tight(file: Path) -> np.ndarray:
    """uint8 [h, w, 4]: a cut-out cropped to what is not clear, its longest side at most SIDE."""
    with Image.open(file) as image:
        whole = image.convert("RGBA")
    cut = whole.crop(whole.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox())
    cut.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.array(cut)


if __name__ == "__main__":
    main()
