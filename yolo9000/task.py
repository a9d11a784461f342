"""What an evaluation is asked for, and how it goes through a data set."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wordtree import WordTreeError

from .data.records import Records
from .hardware import as_worker, loaded
from .models import Network
from .reports import Progress

BATCH = 16


@dataclass(frozen=True)
class Task:
    """What an evaluation is asked for, beside the model and the run.

    Attributes:
        out: a folder for result files, plots and the classes' figures; nothing is written where None.
        processes: how many read pictures.
        threshold, tree_threshold: of the confusion along the tree and the descent; the model's own where None.
        bar: a progress bar.
        notes: lines for a person to read are added here.
    """

    out: Path | None = None
    processes: int = 0
    threshold: float | None = None
    tree_threshold: float | None = None
    bar: Progress | None = None
    notes: list[str] = field(default_factory=list)


def descent_of(model: Network, task: Task) -> tuple[float, str]:
    """The tree threshold and the rule; a flat model has no descent, and names its likeliest class."""
    if len(model.tree.group_start) == 1:
        return 0.0, "path"
    own = getattr(model, "tree_threshold", 0.5)
    return own if task.tree_threshold is None else task.tree_threshold, getattr(model, "rule", "path")


class _Images(Dataset[Tensor | str]):
    """The images; of one that cannot be read what is wrong, which a worker's error would tell with its traceback."""

    def __init__(self, records: Records) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return self.records.image(index)
        except WordTreeError as fault:
            return str(fault)


def batches(records: Records, processes: int, bar: Progress | None, title: str) -> Iterator[tuple[int, list[Tensor]]]:
    """The images of a data set, uint8 [3, h, w] each, several at a time, with the number of the first.

    Raises:
        WordTreeError: an image that cannot be read.
    """
    if bar is not None:
        bar.start(title, total=len(records))
    loader: DataLoader[Any] = DataLoader(
        _Images(records), BATCH, num_workers=processes, collate_fn=list, worker_init_fn=as_worker
    )
    first = 0
    for images in loaded(loader):
        for image in images:
            if isinstance(image, str):
                raise WordTreeError(image)
        yield first, images
        first += len(images)
        if bar is not None:
            bar.advance(steps=len(images))
