"""Weights that a run begins from: a classifier's trunk and names, a detector of ours, or Darknet's files."""

import copy
import dataclasses
import hashlib
import re
from pathlib import Path

import torch
from torch import nn

from wordtree import WordTree, WordTreeError
from wordtree.nn import TreeLinear

from .checkpoints import load_model
from .classifier import TreeClassifier
from .config import Config
from .detector import Detector
from .loading import is_darknet, load, weights_path
from .models import Network, OwnNetwork
from .recipes import HIGH_CLASSIFIER
from .tables import summary
from .weights import load_weights, read_header

LOW = 224  # pixels of the paper's classifier before it is tuned at 448
PART = re.compile(r"\.conv\.(\d+)$")  # Darknet's name of the first layers of a network


def with_hash(config: Config) -> Config:
    """The config with the SHA-256 of the file it starts from.

    Raises:
        WordTreeError: no such file, or another than the hash given says.
    """
    if not config.start and not config.classifier_steps and HIGH_CLASSIFIER in config.without:
        raise WordTreeError(f"without {HIGH_CLASSIFIER} and no start; give the weights of a classifier at {LOW} pixels")
    if not config.start:
        if config.start_hash:
            raise WordTreeError(f"start_hash {config.start_hash[:12]} and no start; give the file too")
        return config
    path = weights_path(config.start)
    if not path.is_file():
        raise WordTreeError(
            f"no weights {str(path)!r} to start from; give a .safetensors, a run's folder or a .weights"
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if config.start_hash not in ("", found):
        raise WordTreeError(
            f"start {str(path)!r} has SHA-256 {found[:12]}, asked for was {config.start_hash[:12]}; give that file"
        )
    return dataclasses.replace(config, start_hash=found)


def begin(model: OwnNetwork, start: str | Path, low: bool = False) -> str:
    """Give a network the weights of a file, as far as they fit; the others stay as they were drawn.

    The trunk has to fit whole. Of a detector's file the neck and the rows of boxes are taken where their shapes agree.
    The classes are taken node by node, where the ids agree and nothing new stands between trunk and head: a
    classifier's in every anchor, a detector's where there are as many anchors. A `.weights` names no classes: they are
    this network's where the file has its size and it has a tree, else those of the published network of that size.

    Args:
        model: a detector, or a classifier.
        start: a `.safetensors` of ours or a run's folder; Darknet's `.weights`, or its first layers, `.conv.23`.
        low: whether the start has to be a classifier of 224 pixels or less, as without the high-resolution classifier.

    Returns:
        What was taken and what was not, in a sentence.

    Raises:
        WordTreeError: no such file, one that cannot be read, or of another trunk.
    """
    path = weights_path(start)
    part = PART.search(path.name)
    if part is not None:
        load_weights(model, path, int(part[1]))
        return f"start {path.name}: layers 0 to {int(part[1]) - 1}; all others fresh"
    source = _darknet(model, path) if is_darknet(path) else load_model(path)[0]
    if not isinstance(source, Detector | TreeClassifier):
        raise WordTreeError(f"start {str(path)!r} is a plug-in's detector; give a classifier or detector of ours")
    if low and (isinstance(source, Detector) or source.size > LOW):
        raise WordTreeError(
            f"without {HIGH_CLASSIFIER}, and start {str(path)!r} is of {source.size} pixels; give the weights of a "
            f"classifier at {LOW} or less"
        )
    if isinstance(source, Detector) and isinstance(model, TreeClassifier):
        raise WordTreeError(f"start {str(path)!r} is a detector's, for a classifier; give a classifier's weights")
    taken: list[str] = ["trunk"]
    fresh: list[str] = []
    _take(model.trunk, source.trunk, path)
    clear = True  # whether the classes read what they read before
    if isinstance(model, Detector):
        new = bool(_shapes(model.neck))
        clear = not new
        boxes = False
        if isinstance(source, Detector):
            clear = _shapes(model.neck) == _shapes(source.neck)
            boxes = clear and _shapes(model.head.boxes) == _shapes(source.head.boxes)
            if clear:
                model.neck.load_state_dict(source.neck.state_dict())
            if boxes:
                model.head.boxes.load_state_dict(source.head.boxes.state_dict())
        if new:
            (taken if clear else fresh).append("neck")
        (taken if boxes else fresh).append("boxes")
    mine, theirs = _classes(model), _classes(source)
    agreed = _rows(mine, theirs) if clear else 0
    nodes = len(mine.tree)
    (taken if agreed else fresh).append(f"classes of {agreed or nodes} of {nodes} nodes")
    if 0 < agreed < nodes:
        fresh.append(f"classes of {nodes - agreed} nodes")
    return f"start {path.name}: {', '.join(taken)}; fresh: {', '.join(fresh) or 'nothing'}"


def _darknet(model: OwnNetwork, path: Path) -> Network:
    """The network of a `.weights`: this one, a classifier with its trunk and tree, or a published one, by its size."""
    given = path.stat().st_size - read_header(path).size
    if not _flat(model.tree):
        own = copy.deepcopy(model)
        for twin in (own, TreeClassifier(own.trunk, model.tree, model.size)):
            if 4 * summary(twin).file_floats == given:
                load_weights(twin, path)
                return twin
    return load(path)


def _flat(tree: WordTree) -> bool:
    return bool((tree.parents < 0).all())


def _take(mine: nn.Module, theirs: nn.Module, path: Path) -> None:
    wanted, given = _shapes(mine), _shapes(theirs)
    for key in [*wanted, *given]:
        if wanted.get(key) != given.get(key):
            raise WordTreeError(
                f"start {str(path)!r} has a trunk with {key} {given.get(key)}, this run's has {wanted.get(key)}; give "
                "weights of the same trunk, or set its widths, counts and trunk"
            )
    mine.load_state_dict(theirs.state_dict())


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def _classes(model: OwnNetwork) -> TreeLinear:
    return model.head.classes if isinstance(model, Detector) else model.classes


@torch.no_grad()
def _rows(mine: TreeLinear, theirs: TreeLinear) -> int:
    """Copy the rows of nodes that both have; how many they are."""
    if mine.features != theirs.features or theirs.copies not in (1, mine.copies):
        return 0
    node = {id_: number for number, id_ in enumerate(theirs.tree.ids)}
    here = [number for number, id_ in enumerate(mine.tree.ids) if id_ in node]
    there = [node[mine.tree.ids[number]] for number in here]
    mine.weight[:, here] = theirs.weight[:, there].to(mine.weight)
    mine.bias[:, here] = theirs.bias[:, there].to(mine.bias)
    return len(here)
