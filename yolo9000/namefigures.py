"""The figures of a source of pictures with names: top-1 and top-5 in several readings, and of the confusion."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .confusion import MISSED, Confusion
from .data.augment import AUGMENTATIONS, classifier_view, stream
from .data.records import Records
from .hardware import home_of
from .looking import Named, gather, see, way_down
from .models import Network, TreeClassifier
from .resultfiles import leave_confusion
from .scores import among, darknet_ranks, ranks
from .task import Task, batches, descent_of


def figures_of_names(model: Network, records: Records, nodes: list[int], name: str, task: Task) -> dict[str, float]:
    """Top-1 and top-5 over the label set's nodes and over its leaves alone, of a classifier also as Darknet has them;
    and the confusion along the tree."""
    tree = model.tree
    truths = records.nodes[records.starts[:-1]]
    columns = np.searchsorted(nodes, truths)
    leaves = np.array([node for node in nodes if tree.group_below[node] < 0], dtype=np.int64)
    leaf = tree.group_below[truths] < 0
    found: dict[str, list[np.ndarray]] = {"": [], "leaves/": [], "darknet/": []}
    parts: list[Named] = []
    for first, images in batches(records, task.processes, task.bar, f"testing {records.name} at {model.size}"):
        at = slice(first, first + len(images))
        log_probs, named = name_images(model, images, nodes)
        own = log_probs[:, nodes] if isinstance(model, TreeClassifier) else log_probs
        found[""].append(ranks(own, columns[at]))
        some = np.isin(nodes, leaves)
        place = np.searchsorted(leaves, truths[at][leaf[at]])
        found["leaves/"].append(ranks(own[leaf[at]][:, some], place))
        if isinstance(model, TreeClassifier):
            found["darknet/"].append(darknet_ranks(log_probs, truths[at], tree))
        parts += named
    figures: dict[str, float] = {}
    inner = len(nodes) - len(leaves)
    for kind, some_ranks in found.items():
        if some_ranks:
            figures |= {f"{kind}top{k}": value for k, value in among(np.concatenate(some_ranks)).items()}
    if inner:
        told = (
            f"{name}: {inner} of {len(nodes)} classes are inner nodes of the tree; leaves/ scores the pictures of the "
            f"others, {int(leaf.sum())} of {len(leaf)}, among themselves"
        )
        darknet = "; darknet/ takes no answer for an inner node" if isinstance(model, TreeClassifier) else ""
        task.notes.append(told + darknet)
    return figures | _confused_names(model, parts, truths, name, task)


def _confused_names(
    model: Network, parts: Sequence[Named], truths: np.ndarray, name: str, task: Task
) -> dict[str, float]:
    tree_threshold, rule = descent_of(model, task)
    threshold = 0.0
    if not isinstance(model, TreeClassifier):
        threshold = model.threshold if task.threshold is None else task.threshold
    answers = gather(parts, model.tree)
    said, probs = answers.said(tree_threshold, rule)
    product = getattr(model, "score", "product") == "product"
    sure = answers.objectness * (probs if product else 1.0) > threshold
    called = np.full(len(truths), MISSED)
    called[answers.image[sure]] = said[sure]
    nothing = np.zeros(0, np.int64)
    settings = {"threshold": threshold, "tree_threshold": tree_threshold}
    confusion = Confusion(model.tree, truths, called, nothing, nothing, settings)
    task.notes.append(f"{name}: {confusion.summary(0 if '@' in name else 8, 'pictures')}")
    if task.out is not None:
        title = f"{name}: {len(answers.image)} pictures"
        leave_confusion(task.out, name, confusion, answers, truths[answers.image], rule, title)
    return confusion.figures()


@torch.no_grad()
def name_images(model: Network, images: Sequence[Tensor], nodes: Sequence[int]) -> tuple[np.ndarray, list[Named]]:
    """log Pr of every node, float64 [images, nodes of the tree], of a classifier; of a detector of each of `nodes`,
    -inf where it found no box. And the way down of each picture: of a detector that of its surest box."""
    if isinstance(model, TreeClassifier):
        log_probs = model(_views(model, images))
        path, probs = way_down(log_probs, model.tree)
        whole = torch.zeros(1, 4), torch.ones(1)
        named = [Named(*whole, path[at : at + 1], probs[at : at + 1]) for at in range(len(images))]
        return log_probs.double().cpu().numpy(), named
    batch = [image.to(home_of(model)).float() / 255 for image in images]
    seen = see(model, batch, nodes, naming=True)
    none = torch.zeros(1, len(nodes), device=home_of(model))  # for an image without a box
    most = [torch.cat((none, objectness[:, None] * probs)).amax(0) for _, objectness, probs in seen.told]
    with np.errstate(divide="ignore"):
        scores = np.log(torch.stack(most).double().cpu().numpy())
    return scores, [Named(*(part[:1] for part in one)) for one in seen.name()]


def _views(model: TreeClassifier, images: Sequence[Tensor]) -> Tensor:
    """The middle squares of pictures on a classifier's input."""
    views = [classifier_view(image, model.size, AUGMENTATIONS["none"], stream(0)) for image in images]
    return torch.stack(views).to(home_of(model)).float() / 255
