"""The tree on any classifier: a `TreeLinear` in place of its last layer, or, with no training at all, the tree read off
the outputs that it has.

Nothing of torchvision, timm or transformers is imported: a model is asked where its last layer is.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import WordTreeError
from ..tree import ROOT, WordTree
from .descent import _segment_max
from .index import ask_groups, tree_index
from .linear import TreeLinear
from .softmax import at_least_float32, propagate

PLACES = ("fc", "classifier", "head", "heads")  # where torchvision, timm and transformers keep the last layer
STRANGERS = math.log(100)  # by how much a node that no old class knows of starts below its siblings
Ids = Sequence[str | None]


class Adapted(nn.Module):
    """A classifier whose last layer is a tree's: what `adapt` gives.

    Args:
        trunk: images -> features [b, features], or a record that has them as its `logits`.
        head: the tree's layer.
    """

    def __init__(self, trunk: nn.Module, head: TreeLinear) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    @property
    def tree(self) -> WordTree:
        """The classes."""
        return self.head.tree

    def features(self, images: Any) -> Tensor:
        """What the last layer reads, float [b, features]."""
        features = _tensor_of(self.trunk(images), self.trunk)
        if features.shape[-1] != self.head.features:
            raise WordTreeError(
                f"features of shape {tuple(features.shape)} from {type(self.trunk).__name__}, whose last layer took "
                f"{self.head.features}; name the layer that comes last: adapt(model, tree, layer=...)"
            )
        return features

    def forward(self, images: Any) -> Tensor:
        """All logits, [b, nodes]: for `tree_cross_entropy`, `tree_log_prob`, `descend`."""
        return self.head(self.features(images))  # type: ignore[no-any-return]

    def loss(self, images: Any, targets: Tensor, **options: Any) -> Tensor:
        """`TreeLinear.loss`, which computes the groups on the targets' paths alone. targets: int64 [b], any node."""
        return self.head.loss(self.features(images), targets, **options)

    @torch.no_grad()
    def descend(self, images: Any, threshold: float = 0.5) -> tuple[Tensor, Tensor]:
        """The deepest node that it is sure enough of: nodes int64 [b], -1 for the root, and Pr of each, float [b]."""
        nodes, log_probs = self.head.descend(self.features(images), threshold)
        return nodes, log_probs.exp()


def adapt(
    model: nn.Module,
    tree: WordTree,
    ids: Ids | None = None,
    layer: str | None = None,
    names: Sequence[str] | None = None,
) -> Adapted:
    """Put a tree in place of a classifier's last linear layer, and start from what that layer knows.

    The layer is asked for: timm's `get_classifier()`; else the last `nn.Linear` in `fc`, `classifier`, `head` or
    `heads`; else the only one there is. Where its classes are on the tree, their nodes start from its rows, a node
    above them from the mean of the rows below it and the logarithm of their number, and a node that no class knows of
    at a hundredth of its siblings. Nodes of other groups start at random.

    Args:
        model: images -> logits. It is kept and shared: its last layer is replaced by `nn.Identity`.
        tree: the new classes.
        ids: the id of each old class, in the order of the outputs; None for one that means nothing. Where left out and
            the tree has as many leaves as the model outputs, they are the leaves in the order of their ids, which is
            the order of ImageNet's 1000 in torchvision and timm. `[None] * outputs` starts afresh.
        layer: the name of the last layer, such as "head.fc", where it cannot be found.
        names: what the model calls its outputs, such as torchvision's `weights.meta["categories"]`: checked against the
            tree's names, so that no order is mistaken for another. A model that carries names is asked for them.

    Raises:
        WordTreeError: no linear layer, or several; ids of another number, or none of them on the tree; names that are
            not those of the tree.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> adapted = adapt(model, tree)  # its three outputs are cat, dog, plant
        >>> images = torch.rand(5, 3, 2, 2)
        >>> adapted(images).shape, adapted.loss(images, torch.tensor([2, 3, 0, 1, 2])).shape
        (torch.Size([5, 4]), torch.Size([]))
    """
    name = _last_layer(model, layer)
    old = model.get_submodule(name)
    assert isinstance(old, nn.Linear)
    head = TreeLinear(old.in_features, tree).to(old.weight.device, old.weight.dtype)
    if ids is not None or len(tree.leaves) == old.out_features:
        nodes = _nodes_of(ids, tree)
        if len(nodes) != old.out_features:
            raise WordTreeError(f"{len(nodes)} ids for a layer {name!r} of {old.out_features} outputs; give one each")
        if ids is not None and any(ids) and not (nodes >= 0).any():
            raise _not_on(tree, [one for one in ids if one is not None])
        _check_names(names or _names_of(model), tree, nodes)
        if (nodes >= 0).any():
            _start(head, old, nodes)
    if name:
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, nn.Identity())
    return Adapted(model if name else nn.Identity(), head)


class Hierarchical(nn.Module):
    """A classifier's own outputs over a tree, with no training: a node has the sum of the outputs at and below it.

    This is the leaf form (Valmadre, NeurIPS 2022), and more: an output may be an inner node of the tree, and keeps what
    it has to itself. An output that means nothing on the tree stays at the root.

    Args:
        model: images -> logits, as it is; None to give it logits alone.
        tree: the classes, and what stands above them.
        ids: the id of each output, None for one that means nothing on this tree; where left out, the leaves of the tree
            in the order of their ids, which is the order of ImageNet's 1000 in torchvision and timm.
        names: what the model calls its outputs, see `adapt`.

    Attributes:
        temperature: what the logits are divided by; above 1 for a network that is surer than it should be.

    Raises:
        WordTreeError: ids that are not on the tree; names that are not those of the tree.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> hierarchical = Hierarchical(None, tree, ids=["plant", "dog", "cat"])
        >>> nodes, probs = hierarchical.descend(torch.tensor([[0.0, 2.0, 1.8], [0.0, 5.0, 1.0]]), threshold=0.8)
        >>> [tree.names[node] for node in nodes]  # dog or cat: an animal
        ['animal', 'dog']
    """

    nodes: Tensor

    def __init__(
        self,
        model: nn.Module | None,
        tree: WordTree,
        ids: Ids | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        nodes = _nodes_of(ids, tree)
        missing = [one for one, node in zip(ids or (), nodes.tolist(), strict=False) if one is not None and node < 0]
        if missing:
            raise _not_on(tree, missing)
        _check_names(names or _names_of(model), tree, nodes)
        self.model = model
        self.tree = tree
        self.temperature = 1.0
        self.register_buffer("nodes", torch.from_numpy(nodes), persistent=False)

    @torch.no_grad()
    def forward(self, x: Any) -> Tensor:
        """log Pr of every node, float [b, nodes]: for any decision, `pareto`, `why`. x: images, or logits.

        Logits are float [b, outputs], with no model float [..., outputs]; whatever else is given goes through the
        model. Nodes that no output is at or below have Pr 0.
        """
        logits = x
        if not self._are_logits(x):
            if self.model is None:
                told = tuple(getattr(x, "shape", ())) or type(x).__name__
                raise WordTreeError(f"{told} given with no model; give logits, float [..., {len(self.nodes)}]")
            logits = _tensor_of(self.model(x), self.model)
        if not self._are_logits(logits):
            raise WordTreeError(
                f"logits of shape {tuple(logits.shape)} for {len(self.nodes)} outputs; give the id of each output, "
                "such as ids=label_maps()['imagenet1k'].ids"
            )
        nodes = self.nodes.to(logits.device)
        own = (at_least_float32(logits) / self.temperature).softmax(-1)
        at = own.new_zeros(*own.shape[:-1], len(self.tree))
        at = at.index_add(-1, nodes[nodes >= 0], own[..., nodes >= 0])
        return propagate(at, self.tree).log()

    @torch.no_grad()
    def descend(self, x: Any, threshold: float = 0.5) -> tuple[Tensor, Tensor]:
        """Step to the likeliest child for as long as its Pr is above the threshold.

        Unlike `wordtree.nn.descend`, which takes it that siblings share all of their parent, this leaves to an inner
        node what is its own.

        Args:
            x: images, or logits.
            threshold: a probability, 0 to 1.

        Returns:
            nodes int64 [...], -1 for the root where no root child passed; Pr of each, float [...], 1 at the root.
        """
        log_probs = self(x)
        nodes, found = _walk_down(log_probs.reshape(-1, len(self.tree)), self.tree, threshold)
        return nodes.view(log_probs.shape[:-1]), found.exp().view(log_probs.shape[:-1])

    def _are_logits(self, x: Any) -> bool:
        fits = isinstance(x, Tensor) and x.is_floating_point() and x.dim() > 0 and x.shape[-1] == len(self.nodes)
        return fits and (x.dim() <= 2 or self.model is None)  # else they are images as wide


def _walk_down(log_probs: Tensor, tree: WordTree, threshold: float) -> tuple[Tensor, Tensor]:
    """Of log Pr [rows, nodes]: nodes int64 [rows] and their log Pr [rows]."""
    if not 0.0 <= threshold <= 1.0:
        raise WordTreeError(f"a tree threshold of {threshold}; it is a probability, 0 to 1")
    index = tree_index(tree, log_probs.device)
    limit = math.log(threshold) if threshold > 0 else -math.inf
    row = torch.arange(len(log_probs), device=log_probs.device)
    group = torch.zeros_like(row)
    nodes, found = torch.full_like(row, ROOT), log_probs.new_zeros(len(row))
    for _ in range(index.path_groups.shape[1]):
        asked = ask_groups(index, row, group)
        best, member = _segment_max(log_probs[asked.row, asked.node], asked)
        passed = best > limit
        row, member = row[passed], member[passed]
        nodes[row], found[row] = member, best[passed]
        group = index.group_below[member]
        row, group = row[group >= 0], group[group >= 0]
    return nodes, found


# ---------------------------------------------------------------------- the last layer, found by asking


def _last_layer(model: nn.Module, layer: str | None) -> str:
    """The name of the last linear layer among the model's modules; "" for the model itself."""
    linear: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    what = type(model).__name__
    if layer is not None:
        if layer not in linear:
            have = ", ".join(linear[-5:]) or "none"
            raise WordTreeError(f"no linear layer {layer!r} in {what}; its last ones: {have}")
        return layer
    places: Sequence[str] = PLACES
    asked = hasattr(model, "get_classifier")
    if asked:  # timm's; a pair where two heads are averaged
        found: Any = model.get_classifier()  # type: ignore[operator]
        own = found if isinstance(found, tuple | list) else (found,)
        places = [name for name, module in model.named_modules() if any(module is one for one in own)]
    inside = [[name for name in linear if f"{name}.".startswith(f"{place}.")] for place in places]
    linear = [names[-1] for names in inside if names] or ([] if asked else linear)
    if not linear:
        raise WordTreeError(
            f"no linear layer at the end of {what}; adapt takes a classifier that ends in an nn.Linear: replace its "
            "last layer by one, or give the features to a TreeLinear of your own"
        )
    if len(linear) > 1:
        raise WordTreeError(f"several linear layers could be {what}'s last: {', '.join(linear)}; name one with layer=")
    return linear[0]


def _tensor_of(output: Any, model: nn.Module) -> Tensor:
    """What a model gives, or its `logits` where it gives a record (transformers; torchvision's with auxiliaries)."""
    found: Any = getattr(output, "logits", output)
    if not isinstance(found, Tensor):
        raise WordTreeError(
            f"{type(model).__name__} gives a {type(output).__name__}; a classifier gives a tensor, or a record with "
            "logits: wrap it in a module that does"
        )
    return found


# ---------------------------------------------------------------------- the old classes on the tree


def _nodes_of(ids: Ids | None, tree: WordTree) -> np.ndarray:
    """int64 [outputs]: the node of each output, -1 for none."""
    if ids is None:
        return np.array(sorted(tree.leaves.tolist(), key=lambda node: tree.ids[node]), dtype=np.int64)
    place = {id_: node for node, id_ in enumerate(tree.ids)}
    return np.array([-1 if one is None else place.get(one, -1) for one in ids], dtype=np.int64)


def _not_on(tree: WordTree, missing: Sequence[str]) -> WordTreeError:
    named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    return WordTreeError(
        f"{len(missing)} classes are not on the tree: {named}; {tree} has ids such as {tree.ids[0]}: build it from "
        "these classes too, or give None for those that it is to leave out"
    )


def _names_of(model: nn.Module | None) -> list[str] | None:
    """What a model of transformers or timm calls its outputs, in their order; None where it does not say."""
    by_number = getattr(getattr(model, "config", None), "id2label", None)
    if by_number and not str(by_number.get(0, "LABEL_0")).startswith("LABEL_"):
        return [str(by_number[number]) for number in sorted(by_number)]
    told = getattr(model, "pretrained_cfg", None)
    listed = told.get("label_names") if isinstance(told, dict) else None
    return [str(name) for name in listed] if listed else None


def _check_names(names: Sequence[str] | None, tree: WordTree, nodes: np.ndarray) -> None:
    """Refuse names most of which are not those of their nodes: another order, or other classes."""
    if names is None:
        return
    if len(names) != len(nodes):
        raise WordTreeError(f"{len(names)} names for {len(nodes)} outputs; give the id of each output with ids=")
    pairs = [(name, tree.names[node]) for name, node in zip(names, nodes.tolist(), strict=True) if node >= 0]
    odd = [(name, own) for name, own in pairs if _plain(own) not in map(_plain, name.split(","))]
    if 2 * len(odd) > len(pairs):  # a few always differ: two synsets of one name
        shown = ", ".join(f"{name!r} for {own!r}" for name, own in odd[:3])
        raise WordTreeError(
            f"{len(odd)} of {len(pairs)} outputs have other names than their nodes: {shown}; give ids= in the model's "
            "own order"
        )


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", " ")


@torch.no_grad()
def _start(head: TreeLinear, old: nn.Linear, nodes: np.ndarray) -> None:
    """Let a tree's layer start from a flat one, whose outputs are `nodes`, int64 [outputs], -1 for none."""
    tree, device = head.tree, old.weight.device
    outputs = np.flatnonzero(nodes >= 0)
    at, bias = torch.from_numpy(nodes[outputs]), old.bias if old.bias is not None else old.weight.new_zeros(len(nodes))
    rows = torch.cat((old.weight, bias[:, None]), 1)[torch.from_numpy(outputs)].cpu().float()  # [outputs, features + 1]
    rows = torch.cat((rows, torch.ones(len(rows), 1)), 1)  # and how many
    sums = propagate(torch.zeros(len(tree), rows.shape[1]).index_add(0, at, rows), tree, dim=0)
    known = sums[:, -1] > 0
    start = sums[:, :-1] / sums[:, -1:].clamp(min=1)
    start[:, -1] += sums[:, -1].clamp(min=1).log()
    group = torch.from_numpy(np.array(tree.group_of))
    mean = torch.zeros(len(tree.group_start), start.shape[1]).index_add(0, group[known], start[known])
    count = torch.bincount(group[known], minlength=len(mean))
    strange = ~known & (count[group] > 0)
    start[strange] = (mean / count.clamp(min=1)[:, None])[group[strange]]
    start[strange, -1] -= STRANGERS
    started = (known | strange).to(device)
    start = start.to(device, head.weight.dtype)
    head.weight[0, started], head.bias[0, started] = start[started, :-1], start[started, -1]
