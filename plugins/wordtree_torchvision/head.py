"""The tree's classifier of boxes: it stands beside a detector's own, and is evaluated where it is asked for."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from wordtree import WordTree
from wordtree.nn import TreeLinear

UNKNOWN_SHARE = 0.01  # of a group, left to the nodes that the columns do not know


class TreeHead(nn.Module):
    """What the detector's own last layer reads of a box -> a row for `TreeLinear`.

    A row is a small embedding of those features, the same for all anchors of a cell but for a bias, and, where the
    detector was pretrained, what its own columns say about the tree. So the tree costs its nodes once, not once an
    anchor, and no logit is computed before a row is asked for it.

    Args:
        tree: the classes.
        inputs: (features, anchors) of each level that has layers of its own; one where all levels share them.
        knowledge: what the detector's own columns know of the tree; None where they know nothing.
        width: of the embedding.
    """

    def __init__(
        self,
        tree: WordTree,
        inputs: Sequence[tuple[int, int]],
        knowledge: "Knowledge | None" = None,
        width: int = 256,
    ) -> None:
        super().__init__()
        self.embed = nn.ModuleList(
            nn.Sequential(nn.Linear(features, width), nn.LayerNorm(width)) for features, _ in inputs
        )
        self.anchors = nn.ParameterList(torch.zeros(anchors, width) for _, anchors in inputs)
        self.knowledge = knowledge
        self.classes = TreeLinear(width + (len(knowledge.nodes) if knowledge else 0), tree)
        nn.init.normal_(self.classes.weight, std=0.01)
        if knowledge:
            knowledge.start(self.classes)

    def forward(self, level: int, features: Tensor, anchor: Tensor, columns: Tensor) -> Tensor:
        """Rows for `classes`, of one level.

        Args:
            level: which of them.
            features: float [rows, features].
            anchor: int64 [rows], which anchor of its cell each is.
            columns: float [rows, columns], the detector's own logits there.

        Returns:
            float [rows, features of `classes`].
        """
        level = min(level, len(self.embed) - 1)
        x = (self.embed[level](features) + self.anchors[level][anchor]).relu()
        return x if self.knowledge is None else torch.cat((x, self.knowledge(columns)), dim=1)


class Knowledge(nn.Module):
    """What a softmax over flat columns says about a tree: log Pr(node | parent), at nodes with a column at or below.

    Args:
        tree: the tree.
        column_nodes: int64 [columns], the node that each column means; -1 for none.

    Attributes:
        nodes: int64 [known], the nodes with a column at or below.
    """

    columns: Tensor
    below: Tensor
    together: Tensor

    def __init__(self, tree: WordTree, column_nodes: np.ndarray) -> None:
        super().__init__()
        columns = np.flatnonzero(column_nodes >= 0)
        marks = np.asarray(tree.propagate(column_nodes[columns]))  # [columns, nodes]: the node is at or above
        self.nodes = np.flatnonzero(marks.any(0))
        groups = tree.group_of[self.nodes]
        below, together = marks[:, self.nodes], groups[:, None] == groups
        self.register_buffer("columns", torch.from_numpy(columns), persistent=False)
        self.register_buffer("below", torch.from_numpy(below).float(), persistent=False)  # [columns, known]
        self.register_buffer("together", torch.from_numpy(together).float(), persistent=False)  # [known, known]

    def forward(self, columns: Tensor) -> Tensor:
        """float [rows, columns] logits -> float [rows, known], which sum to 1 over each group when raised."""
        exact = torch.promote_types(columns.dtype, torch.float32)
        with torch.autocast(columns.device.type, enabled=False):
            share = columns[:, self.columns].to(exact).softmax(1)
            mass = (share @ self.below.to(exact)).clamp(min=1e-30)
            return (mass / (mass @ self.together.to(exact))).log()

    @torch.no_grad()
    def start(self, classes: TreeLinear) -> None:
        """Let `classes`, whose last features are these, start from them: siblings that no column knows share 1 %."""
        tree, known = classes.tree, torch.from_numpy(self.nodes)
        own = classes.features - len(known)
        inside = np.isin(tree.group_of, np.unique(tree.group_of[self.nodes]))  # nodes of a group that is known of
        strange = inside & ~np.isin(np.arange(len(tree)), self.nodes)
        strangers = np.bincount(tree.group_of[strange], minlength=len(tree.group_start))[tree.group_of]
        weight, bias = classes.weight[0], classes.bias[0]
        weight[:, own:] = 0.0
        weight[torch.from_numpy(inside)] = 0.0
        weight[known, own + torch.arange(len(known))] = 1.0
        bias[torch.from_numpy(strange)] = torch.from_numpy(np.log(UNKNOWN_SHARE / strangers[strange])).float()


def patches(maps: Tensor, image: Tensor, row: Tensor, column: Tensor, kernel: int) -> Tensor:
    """What a convolution reads at some cells. maps: float [b, c, h, w] -> [rows, kernel * kernel * c], 0 outside."""
    if kernel == 1:
        return maps[image, :, row, column]
    height, width = maps.shape[2:]
    reach = torch.arange(kernel, device=maps.device) - kernel // 2
    down, across = (offset.flatten() for offset in torch.meshgrid(reach, reach, indexing="ij"))
    rows, columns = row[:, None] + down, column[:, None] + across  # [rows, kernel * kernel]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    read = maps.permute(0, 2, 3, 1)[image[:, None], rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
    return (read * inside[..., None]).flatten(1)
