"""A data set of small pictures made once, by several processes, and kept in memory: the loop then waits for nothing."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

CHUNK = 32  # pictures a piece of work


class InMemory(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Every picture of a data set, made now.

    Args:
        source: a data set of (uint8 [3, h, w], {name: tensor}), all of one size.
        processes: how many make pictures; 0 makes them here.
        tick: called with the number of pictures made, as they are.
        stopped: asked between pieces of work; KeyboardInterrupt is raised where it says yes.
    """

    def __init__(
        self,
        source: Any,
        processes: int = 0,
        tick: Callable[[int], None] = lambda made: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.images = torch.zeros(0, dtype=torch.uint8)  # [n, 3, h, w], made once the first size is known
        self.targets: list[dict[str, Tensor]] = []
        for piece in _pieces(source, processes):
            for image, target in piece:
                if not len(self.images):
                    self.images = torch.empty(len(source), *image.shape, dtype=torch.uint8)
                self.images[len(self.targets)] = torch.from_numpy(image)
                self.targets.append({key: torch.from_numpy(value) for key, value in target.items()})
            tick(len(piece))
            if stopped():
                raise KeyboardInterrupt

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.images[index], self.targets[index]


Made = list[tuple[np.ndarray, dict[str, np.ndarray]]]


def _pieces(source: Any, processes: int) -> Iterator[Made]:
    starts = range(0, len(source), CHUNK)
    if processes < 1:
        yield from (_make(source, start) for start in starts)
        return
    # a forked child shares the pictures already read; where there is no fork, each child reads its own
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    with multiprocessing.get_context(method).Pool(processes, _start, (source,)) as pool:
        yield from pool.imap(_make_here, starts)


_source: Any = None  # of a child process


def _start(source: Any) -> None:
    global _source
    _source = source
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["OMP_NUM_THREADS"] = "1"


def _make_here(start: int) -> Made:
    return _make(_source, start)


def _make(source: Any, start: int) -> Made:
    items = (source[index] for index in range(start, min(start + CHUNK, len(source))))
    return [(image.numpy(), {key: value.numpy() for key, value in target.items()}) for image, target in items]
