"""`yolo9000 train --data run.yaml --check`: everything read once, what is wrong listed, a sheet of samples drawn."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.utils.data import DataLoader, Dataset

from wordtree import WordTree, WordTreeError

from ..files import whole
from ..hardware import as_worker, loaded
from ..runfile import RunFile
from .augment import Augmentation, classifier_view, colours, distort_image, find_augmentation, stream, view
from .records import FAULTS, Fault, Records

SAMPLES = 16  # pictures on the sheet
TILE = 240  # pixels of one


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        tree: the run's tree.
        sources: the data sets, in order.
        faults: of each source, what was wrong: rows and files, damaged images among them.
        sheet: where the samples are drawn.
    """

    tree: WordTree
    sources: tuple[Records, ...]
    faults: tuple[tuple[Fault, ...], ...]
    sheet: Path

    @property
    def sound(self) -> bool:
        """Whether nothing was wrong."""
        return not any(self.faults)

    def to_record(self) -> dict[str, object]:
        """The report for JSON."""
        return {
            "nodes": len(self.tree),
            "tree": self.tree.hash,
            "sources": [
                {
                    "name": records.name,
                    "images": len(records),
                    "image_labels": int(records.labelled.sum()),
                    "boxes": int((~records.labelled[_image_of(records)]).sum()),
                    "flagged": int((records.flags > 0).sum()),
                    "counts": {self.tree.ids[node]: int(count) for node, count in enumerate(records.counts()) if count},
                    "faults": [fault._asdict() for fault in faults],
                }
                for records, faults in zip(self.sources, self.faults, strict=True)
            ],
        }

    def __str__(self) -> str:
        lines = [f"tree: {self.tree}"]
        for records, faults in zip(self.sources, self.faults, strict=True):
            boxes = int((~records.labelled[_image_of(records)]).sum())
            empty = int(((np.diff(records.starts) == 0) & ~records.labelled).sum())
            lines.append(
                f"{records.name}: {len(records)} images, {boxes} boxes ({int((records.flags > 0).sum())} flagged), "
                f"{int(records.labelled.sum())} image labels, {empty} images with nothing to be seen"
            )
            counts = records.counts()
            for node in np.argsort(-counts, kind="stable")[: int((counts > 0).sum())].tolist():
                lines.append(f"  {counts[node]:9,}  {self.tree.names[node]} ({self.tree.ids[node]})")
            kinds = Counter(fault.kind for fault in faults)
            for kind in FAULTS:
                if kinds[kind]:
                    lines.append(f"  {kinds[kind]} {TOLD[kind]}:")
                    lines += [f"    {fault}" for fault in faults if fault.kind == kind][:20]
                    if kinds[kind] > 20:
                        lines.append(f"    and {kinds[kind] - 20} more")
        lines.append(f"samples: {self.sheet}")
        return "\n".join(lines)


TOLD = {"labels": "unmapped labels", "boxes": "bad boxes", "images": "bad images", "files": "bad files or rows"}


def check(
    run: RunFile,
    folder: Path,
    processes: int = 0,
    start: Callable[[str, int], None] = lambda name, total: None,
    tick: Callable[[int], None] = lambda done: None,
) -> Report:
    """Read every source of a run whole, every image decoded.

    Args:
        run: the run file.
        folder: where samples.png goes.
        processes: how many decode.
        start: called with a source's name and how many images it has.
        tick: called with the number of images looked at.

    Raises:
        WordTreeError: a source that cannot be read at all.
    """
    maps = run.labels()
    tree = run.built_tree(maps)
    sources = tuple(source.read(labels, tree) for source, labels in zip(run.sources, maps, strict=True))
    faults = []
    for records in sources:
        start(records.name, len(records))
        looks: DataLoader[Any] = DataLoader(
            _Looks(records), 32, num_workers=processes, collate_fn=list, worker_init_fn=as_worker
        )
        damaged = []
        for batch in loaded(looks):
            damaged += [what for what in batch if what]
            tick(len(batch))
        faults.append((*records.faults, *(Fault("images", *what.split("\n", 1)) for what in damaged)))
    sheet = folder / "samples.png"
    bad = {fault.where for some in faults for fault in some if fault.kind == "images"}
    draw_samples(sources, tree, find_augmentation(run.augment), sheet, bad)
    return Report(tree, sources, tuple(faults), sheet)


class _Looks(Dataset[Any]):
    """What is wrong with each image: its name and the fault, or nothing."""

    def __init__(self, records: Records) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> str:
        try:
            self.records.image(index)
        except WordTreeError as fault:
            return f"{self.records.where(index)}\n{fault}"
        return ""


def draw_samples(
    sources: Sequence[Records], tree: WordTree, how: Augmentation, target: Path, bad: set[str] | None = None
) -> None:
    """A sheet of pictures of every source as training sees them, with boxes, names, and what is flagged."""
    tiles = []
    each = max(1, SAMPLES // max(1, len(sources)))
    for number, records in enumerate(sources):
        order = torch.randperm(len(records), generator=stream(number)).tolist()
        sound = [index for index in order if records.where(index) not in (bad or set())][:each]
        tiles += [_tile(records, index, tree, how, stream(number, index)) for index in sound]
    columns = min(4, max(1, len(tiles)))
    sheet = Image.new("RGB", (columns * TILE, max(1, -(-len(tiles) // columns)) * TILE), "white")
    for at, tile in enumerate(tiles):
        sheet.paste(tile, (at % columns * TILE, at // columns * TILE))
    with whole(target) as part:
        sheet.save(part)


def _tile(records: Records, index: int, tree: WordTree, how: Augmentation, random: torch.Generator) -> Image.Image:
    image = records.image(index)
    boxes, nodes, flags, _ = records.record(index, image.shape[2], image.shape[1])
    labelled = bool(records.labelled[index])
    if labelled:
        picture, seen, kept = classifier_view(image, TILE, how, random), torch.zeros(0, 4), torch.zeros(0).long()
    else:
        picture, seen, kept = view(image, torch.from_numpy(boxes).float(), TILE, how, random)
    picture = (distort_image(picture.float() / 255, *colours(how, random).tolist()) * 255 + 0.5).to(torch.uint8)
    tile = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(12)
    for box, row in zip(seen.tolist(), kept.tolist(), strict=True):
        flagged = bool(flags[row])
        draw.rectangle(box, outline="grey" if flagged else "red", width=2)
        _write(draw, (box[0], box[1]), tree.names[int(nodes[row])] + (" (flagged)" if flagged else ""), font)
    caption = f"{records.name}: {', '.join(tree.names[node] for node in nodes.tolist())}" if labelled else records.name
    _write(draw, (2, TILE - 16), caption, font)
    return tile


def _write(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, font: object) -> None:
    draw.rectangle(draw.textbbox(at, text, font), fill="black")  # type: ignore[arg-type]
    draw.text(at, text, fill="white", font=font)  # type: ignore[arg-type]


def _image_of(records: Records) -> np.ndarray:
    """int64 [rows]: the image of each row."""
    return np.repeat(np.arange(len(records)), np.diff(records.starts))
