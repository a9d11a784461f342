"""Detectors of plug-ins in yolo9000's own commands: built by name, trained, scored, saved and loaded like our own."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wordtree import WordTree, WordTreeError, plugins
from wordtree.errors import unknown

from .choice import Choice
from .config import WEIGHT_OPTIONS, Config, is_weight_file
from .detector import Detector
from .lossrules import RULES
from .trunks import read_state

OWN = "yolo9000"
LOSSES = ("tree", "image_label")  # by their own names; of the others those of boxes are one, and the rest objectness


class Borrowed(nn.Module):
    """A plug-in's detector, with what the commands ask of one beside the contract.

    Args:
        name: of the detector, such as "torchvision/ssdlite320_mobilenet_v3_large".
        tree: the classes.
        size: pixels of an image's side, for detectors that take one.
        options: of its builder. Those of WEIGHT_OPTIONS that name a file reach it as the state dict in the file.

    A detector that starts from weights is built again without them when what was made of it is loaded: with the options
    that it gives as its own `options`, or with those given here but for the weights.

    Raises:
        WordTreeError: an option that the builder does not take; weights that cannot be read, or with which it makes
            another network than without.

    Attributes, to be set at any time:
        threshold: on the score, objectness x Pr(node).
        tree_threshold: how sure each step of the descent must be.
    """

    origin = None  # of Darknet's files
    mode = "paper"

    def __init__(self, name: str, tree: WordTree, size: int, options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        given = dict(options or {})
        self.inner = _built(name, tree, size, {key: _read(name, key, value) for key, value in given.items()})
        self.name, self.tree, self.size = name, tree, size
        self.options = {"network": "plug-in", "name": name, "size": size}
        if any(isinstance(given.get(key), str) for key in WEIGHT_OPTIONS):
            without = {key: value for key, value in given.items() if key not in WEIGHT_OPTIONS}
            told = getattr(self.inner, "options", None)
            given = dict(told) if isinstance(told, Mapping) else without
            _check_again(name, self.inner, _built(name, tree, size, given))
        if given:
            self.options["options"] = given
        self.threshold, self.tree_threshold = 0.25, 0.5

    def forward(
        self,
        images: Sequence[Tensor] | Tensor,
        targets: Sequence[dict[str, Tensor]] | None = None,
        choice: Choice | None = None,
    ) -> Any:
        """As the contract has it; losses under the names of our own: box, objectness, tree, image_label."""
        if self.training:
            return self._grouped(self.inner(list(images), targets))
        if choice is not None and choice != Choice(choice.tree_threshold):
            raise WordTreeError(
                f"level, only, collapse, allowed or node_probs of {self.name}; it takes a tree_threshold"
            )
        sure = None if choice is None else choice.tree_threshold
        return self._detect(images, self.threshold, self.tree_threshold if sure is None else sure)

    @property
    def trunk(self) -> Any:
        """What of the detector learns names before boxes: its `image_trunk`, a module with `channels`, images float
        [b, 3, h, w] in 0..1 -> maps [b, channels, h', w']; None of a detector that offers none."""
        return getattr(self.inner, "image_trunk", None)

    @property
    def exclusive(self) -> bool:
        """Whether a label denies the siblings that its source does not know, of a detector that asks."""
        return bool(getattr(self.inner, "exclusive", False))

    @exclusive.setter
    def exclusive(self, value: bool) -> None:
        if hasattr(self.inner, "exclusive"):
            self.inner.exclusive = value

    def set_image_label(self, name: str) -> None:
        """Train on image labels by another rule, of those that the detector names in `image_labels`.

        Raises:
            WordTreeError: a rule that it does not know; one without `image_labels` has the paper's alone, "score".
        """
        offered = getattr(self.inner, "image_labels", ("score",))
        if name not in offered:
            raise unknown(f"image-label rule of {self.name}", name, offered)
        if hasattr(self.inner, "image_label"):
            self.inner.image_label = name

    @torch.no_grad()
    def score_nodes(
        self, images: Sequence[Tensor] | Tensor, nodes: Sequence[int], threshold: float
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Each image's boxes [n, 4] in its pixels, their objectness [n], and Pr of each of `nodes`, [n, nodes].

        By the detector's own `score_nodes`; of one that has none, by the likeliest path of each of its detections.
        """
        if hasattr(self.inner, "score_nodes"):
            return self.inner.score_nodes(images, nodes, threshold)  # type: ignore[no-any-return]
        wanted = np.asarray(nodes, dtype=np.int64)
        steps = torch.from_numpy(self.tree.depths[wanted].astype(np.int64))
        found = []
        for one in self._detect(images, threshold, 0.0):
            on_path = torch.from_numpy(self.tree.propagate(one["labels"].cpu().numpy())[:, wanted])
            told = one["path_probs"].cpu()
            told = nn.functional.pad(told, (0, int(self.tree.depths.max()) + 1))  # every step is there
            found.append((one["boxes"], one["objectness"], torch.where(on_path, told[:, steps], 0.0).to(one["boxes"])))
        return found

    def _detect(self, images: Sequence[Tensor] | Tensor, threshold: float, tree_threshold: float) -> Any:
        own = [(name, getattr(self.inner, name, None)) for name in ("threshold", "tree_threshold")]
        self.inner.threshold, self.inner.tree_threshold = threshold, tree_threshold
        try:
            return [self._whole(one) for one in self.inner(list(images))]
        finally:
            for name, value in own:
                setattr(self.inner, name, value)

    def _whole(self, found: dict[str, Any]) -> dict[str, Any]:
        """One image's boxes, labels and scores, with the fields beside them that the detector leaves out."""
        labels, scores = found["labels"], found["scores"]
        objectness = found.get("objectness", scores)
        paths = found.get("paths") or [self.tree.path(node) for node in labels.tolist()]
        probs = found.get("path_probs")
        if probs is None:  # of every step that of the label: it is all that the score tells
            longest = max(map(len, paths), default=0)
            probs = (scores / objectness.clamp_min(torch.finfo(scores.dtype).tiny))[:, None].expand(-1, longest)
        return {**found, "objectness": objectness, "paths": paths, "path_probs": probs}

    def _grouped(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        zero = torch.stack(list(losses.values())).sum() * 0.0
        grouped = dict.fromkeys(("box", "objectness", *LOSSES), zero)
        for name, loss in losses.items():
            kind = name if name in LOSSES else "box" if "box" in name else "objectness"
            grouped[kind] = grouped[kind] + loss
        return grouped


AnyDetector = Detector | Borrowed


def borrowed_of(config: Config, tree: WordTree, before: Mapping[str, Any] | None = None) -> Borrowed:
    """The detector of a run's numbers. A run that goes on reads no weights again.

    before: the `options` of the detector that its checkpoint holds; None for a run that begins.
    """
    before = before or {}
    options = before.get("options") if before.get("name") == config.detector else config.detector_options
    model = Borrowed(config.detector, tree, config.size, options)
    set_loss(model, config)
    return model


def set_loss(model: AnyDetector, config: Config) -> None:
    """Let a detector train by a run's reading of the loss, its rule for image labels, and what its labels deny."""
    if isinstance(model, Detector):
        model.loss_rules = RULES[config.loss]
    if config.image_label or isinstance(model, Borrowed):
        model.set_image_label(config.image_label or "score")
    model.exclusive = config.exclusive


def _built(name: str, tree: WordTree, size: int, options: dict[str, Any]) -> Any:
    build: Callable[..., Any] = plugins.detectors()[name].build
    takes = inspect.signature(build).parameters
    whatever = any(one.kind is one.VAR_KEYWORD for one in takes.values())
    names = [key for key in list(takes)[1:] if key != "size"]  # the first is the tree
    for key in options:
        if key == "size":
            raise WordTreeError(f"size={options[key]!r} as an option of {name}; give it as the run's size")
        if key not in names and not whatever:
            raise unknown(f"option of {name}", key, names)
    sized = {"size": size} if whatever or "size" in takes else {}
    try:
        return build(tree, **sized, **options)
    except TypeError as fault:
        if not options:
            raise
        told = ", ".join(options)
        what = " ".join(str(fault).split())
        raise WordTreeError(f"{name} with {told}: {what}; give options that its builder takes") from fault


def _read(name: str, key: str, value: Any) -> Any:
    """An option as the builder gets it: weights in a file as the state dict that it holds."""
    return read_state(Path(value), f"{key} of {name}") if is_weight_file(key, value) else value


def _check_again(name: str, made: nn.Module, again: nn.Module) -> None:
    """Refuse what could not be loaded when it is trained: weights with which a builder makes another network."""
    one, other = ({key: tuple(value.shape) for key, value in each.state_dict().items()} for each in (made, again))
    for key in [*one, *other]:
        if one.get(key) != other.get(key):
            raise WordTreeError(
                f"weights for {name}: with them it has {key} {one.get(key)}, without {other.get(key)}, and what is "
                "trained could not be loaded; its plug-in has to say by `options` how it is built again"
            )
