"""The joint sampler: several sources in one stream of batches, by ratio, from the seed and the step alone."""

from collections.abc import Iterator, Sequence

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
    """

    def __init__(
        self, lengths: Sequence[int], shares: Sequence[float], batch: int, steps: int, start: int = 0, seed: int = 0
    ) -> None:
        if not all(lengths) or len(lengths) != len(shares):
            raise WordTreeError(
                f"sources of {list(lengths)} pictures with shares {list(shares)}; a share each, and no empty data set"
            )
        self.lengths, self.batch, self.steps, self.start, self.seed = list(lengths), batch, steps, start, seed
        total = sum(shares)
        self.per_batch = [batch * share / total for share in shares]
        self._orders: dict[tuple[int, int], Tensor] = {}

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.steps):
            yield self.batch_at(step)

    def batch_at(self, step: int) -> list[tuple[int, int]]:
        """The pictures of one step."""
        picked: list[tuple[int, int]] = []
        for source in range(len(self.lengths)):
            first, after = self._drawn(source, step), self._drawn(source, step + 1)
            picked += [(source, self._index(source, draw)) for draw in range(first, after)]
        return picked

    def _drawn(self, source: int, step: int) -> int:
        """How many pictures of a source are drawn before a step; together the sources always fill the batch."""
        before = sum(self.per_batch[:source])
        return round((before + self.per_batch[source]) * step + 1e-9) - round(before * step + 1e-9)

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
