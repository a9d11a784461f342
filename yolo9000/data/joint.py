"""The joint sampler: several sources in one stream of batches, by ratio, from the seed and the step alone."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from wordtree import WordTreeError

Item = tuple[Tensor, dict[str, Tensor]]


class Joint(Dataset[Item]):
    """Several data sets as one, addressed by (source, index); each source's labels become nodes on the way out.

    Args:
        sources: data sets of (image, target), whose labels are indices into their own label map.
        nodes: int64 [labels] of each source, `LabelMap.nodes_on(tree)`.
    """

    def __init__(self, sources: Sequence[Dataset[Item]], nodes: Sequence[Tensor]) -> None:
        self.sources = list(sources)
        self.nodes = [torch.as_tensor(table) for table in nodes]

    def __getitem__(self, at: tuple[int, int]) -> Item:
        source, index = at
        image, target = self.sources[source][index]
        return image, {**target, "labels": self.nodes[source][target["labels"]]}


class JointSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (source, index), the same for a step whatever came before it: a run resumes anywhere.

    Source s gives `batch * share[s] / sum(share)` pictures of each batch; the remainder goes round, so that the ratio
    holds over batches. Each source walks through its own shuffled order, epoch by epoch.

    Args:
        lengths: pictures a source.
        shares: how many of each source a batch is made of, by ratio, such as (1, 4).
        batch: pictures a batch.
        steps: batches, first to last; `start` skips those already done.
        rank, ranks: which part of each batch is made here: `slots`. A part's sources stand in the batch's ratio.

    Attributes:
        slots: the places of the batch that are made here, rank, rank + ranks, ...

    Example:
        >>> batch = JointSampler([3, 9], [1, 1], batch=4, steps=1).batch_at(0)
        >>> ranks = [JointSampler([3, 9], [1, 1], batch=4, steps=1, rank=rank, ranks=2) for rank in (0, 1)]
        >>> [list(one) for one in ranks] == [[batch[0::2]], [batch[1::2]]]
        True
    """

    def __init__(
        self,
        lengths: Sequence[int],
        shares: Sequence[float],
        batch: int,
        steps: int,
        start: int = 0,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        good = len(lengths) == len(shares) > 0 and all(lengths) and all(0 < share < math.inf for share in shares)
        if not good:
            raise WordTreeError(
                f"sources of {list(lengths)} pictures with shares {list(shares)}; "
                "give a share above 0 each, and no empty data set"
            )
        self.lengths, self.batch, self.steps, self.start, self.seed = list(lengths), batch, steps, start, seed
        self.slots = range(rank, batch, ranks)
        exact = [Fraction(share) for share in shares]
        # each source's part of what the sources before it leave: its count then never falls from a step to the next
        self.parts = [share / sum(exact[source:]) for source, share in enumerate(exact)]
        self._orders: dict[tuple[int, int], Tensor] = {}

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.steps):
            picked = self.batch_at(step)
            yield [picked[slot] for slot in self.slots]

    def batch_at(self, step: int) -> list[tuple[int, int]]:
        """The pictures of one step, of all ranks together."""
        before, after = self._drawn(step), self._drawn(step + 1)
        picked: list[tuple[int, int]] = []
        for source in range(len(self.lengths)):
            picked += [(source, self._index(source, draw)) for draw in range(before[source], after[source])]
        return picked

    def _drawn(self, step: int) -> list[int]:
        """How many pictures of each source come before a step; together the sources fill every batch."""
        left = self.batch * step
        drawn = []
        for part in self.parts:
            drawn.append(math.floor(part * left + Fraction(1, 2)))
            left -= drawn[-1]
        return drawn

    def _index(self, source: int, draw: int) -> int:
        length = self.lengths[source]
        epoch, at = divmod(draw, length)
        if (source, epoch) not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key[0] != source}
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + source * 10_007 + epoch)
            self._orders[source, epoch] = torch.randperm(length, generator=generator)
        return int(self._orders[source, epoch][at])


def collate(items: list[Item]) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Stack pictures of one size: uint8 [b, 3, h, w], and their targets."""
    return torch.stack([image for image, _ in items]), [target for _, target in items]
