"""A data set of small pictures made once, by several processes, and kept in memory: the loop then waits for nothing."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from wordtree import WordTreeError

from ..hardware import as_worker

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
        self.source = source
        self.images = torch.zeros(0, dtype=torch.uint8)  # [n, 3, h, w], made once the first size is known
        self.targets: list[dict[str, Tensor]] = []
        for piece in _pieces(source, processes, stopped):
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


def _pieces(source: Any, processes: int, stopped: Callable[[], bool]) -> Iterator[Made]:
    starts = range(0, len(source), CHUNK)
    if processes < 1:
        yield from (_make(source, start) for start in starts)
        return
    # a forked child shares the pictures already read; where there is no fork, each child reads its own
    method = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    pool = ProcessPoolExecutor(processes, method, _start, (source,))
    try:
        pieces = deque(pool.submit(_make_here, start) for start in starts)
        while pieces:
            piece = pieces.popleft()
            while not piece.done() and not stopped():
                wait([piece], timeout=0.2)
            if stopped():
                raise KeyboardInterrupt
            yield piece.result()
    except BrokenProcessPool:
        raise WordTreeError(
            f"one of {processes} processes that make pictures has ended, as it does where memory is short; give fewer "
            "workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_source: Any = None  # of a child process


def _start(source: Any) -> None:
    global _source
    _source = source
    as_worker()


def _make_here(start: int) -> Made:
    return _make(_source, start)


def _make(source: Any, start: int) -> Made:
    items = (source[index] for index in range(start, min(start + CHUNK, len(source))))
    return [(image.numpy(), {key: value.numpy() for key, value in target.items()}) for image, target in items]
