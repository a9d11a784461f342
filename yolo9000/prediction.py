"""From pictures to detections: `yolo9000.detect` and `yolo9000.stream`."""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from wordtree import WordTreeError

from .borrowed import AnyDetector
from .checkpoints import load_model, peek
from .choice import Choice, Nodes, check_thresholds
from .detections import Detections
from .detector import Detector
from .inference import fuse
from .loading import in_hand, load, load_detector, weights_path
from .sources import Item, Source, frames_of, items_of
from .video import Frame

__all__ = ["OnError", "about", "detect", "load", "stream"]

OnError = Callable[[WordTreeError], object]


def about(weights: str | Path | None = None) -> str:
    """What a checkpoint says it knows and cannot know."""
    path = weights_path(weights)
    header = peek(path) or load_model(path)[1]  # which says what is wrong with a file without a header
    return str(header.get("about", ""))


def detect(
    source: Source | Sequence[Source],
    weights: str | Path | AnyDetector | None = None,
    threshold: float | None = None,
    tree_threshold: float | None = None,
    device: str = "auto",
    batch: int = 1,
    mode: str | None = None,
    level: int | None = None,
    only: Nodes | None = None,
    collapse: Nodes | None = None,
    allowed: Nodes | None = None,
    node_probs: bool = False,
    on_error: OnError | None = None,
) -> list[Detections]:
    """Box and name what is in pictures.

    Args:
        source: a file, a folder, a pattern ("photos/*.jpg"), a video, a PIL image, an array [h, w, 3], a tensor
            [3, h, w], or a list of these. For a camera, which has no end, and for a long video use `stream`.
        weights: a run's folder or weights file, Darknet's too; or a loaded model or a `SecondLook`, which is moved to
            the device and set to evaluation; the shipped checkpoint where left out.
        threshold: on the score, objectness x Pr(node), 0..1; the model's own, by its mode, where left out.
        tree_threshold: how sure each step down the tree must be, 0..1: lower says "poodle", higher stays at "dog"; the
            model's own where left out.
        device: "auto", "cpu" or "cuda".
        batch: images in one pass of the network.
        mode: "paper", "darknet" or "darknet-2018", see `yolo9000.load`; "paper" where left out, or the loaded model's.
        level, only, collapse, allowed, node_probs: what may be answered, see `yolo9000.choice.Choice`.
        on_error: called with the error of a picture or video that cannot be read whole; the rest goes on. Where left
            out the error is raised.

    Returns:
        One `Detections` an image or frame, in order.

    Raises:
        WordTreeError: a missing or damaged image, weights that do not fit, a threshold outside 0..1, a camera, a node
            that is not on the tree.

    Example:
        >>> found = detect(torch.zeros(3, 64, 64, dtype=torch.uint8))
        >>> found[0].names
        ()
    """
    items = items_of(source)
    endless = [item.name for item in items if item.kind == "camera"]
    if endless:
        raise WordTreeError(f"detect() of {endless[0]}, which has no end; take one frame at a time from stream()")
    choices = (level, only, collapse, allowed, node_probs)
    return list(stream(items, weights, threshold, tree_threshold, device, batch, mode, *choices, on_error))


def stream(
    source: Source | Sequence[Source],
    weights: str | Path | AnyDetector | None = None,
    threshold: float | None = None,
    tree_threshold: float | None = None,
    device: str = "auto",
    batch: int = 1,
    mode: str | None = None,
    level: int | None = None,
    only: Nodes | None = None,
    collapse: Nodes | None = None,
    allowed: Nodes | None = None,
    node_probs: bool = False,
    on_error: OnError | None = None,
) -> Iterator[Detections]:
    """`detect`, one image or frame at a time, cameras too; arguments are checked and weights read before the first.

    No more than a batch is in memory. What was found before a damaged picture or frame comes before its error.
    """
    choice = Choice(tree_threshold, level, only, collapse, allowed, node_probs)
    check_thresholds(threshold=threshold)
    if batch < 1:
        raise WordTreeError(f"a batch of {batch} images; give 1 or more")
    from .hardware import device_of

    where = device_of(device)
    items = items_of(source)
    model = in_hand(weights) if isinstance(weights, nn.Module) else load_detector(weights, mode=mode or "paper")
    if model is not weights and isinstance(model, Detector):
        model = fuse(model)
    if mode not in (None, model.mode):
        raise WordTreeError(f"mode {mode!r} for a model loaded in mode {model.mode!r}; load it with mode={mode!r}")
    model = copy.copy(model.to(where).eval())  # the same parameters; the threshold of this run is its own
    if threshold is not None:
        model.threshold = threshold
    choice.scope(model.tree, where)  # a node that is not on the tree is said before the first image
    return (found for frames in _batches(items, batch, on_error) for found in _found(model, frames, where, choice))


def _batches(items: Sequence[Item], size: int, on_error: OnError | None) -> Iterator[list[Frame]]:
    """The frames of all items, some at a time; an error comes after what was read before it."""
    group: list[Frame] = []
    for item in items:
        frames = frames_of(item)
        while True:
            try:
                frame = next(frames, None)
            except WordTreeError as fault:
                if on_error is None:
                    if group:
                        yield group
                    raise
                on_error(fault)
                break
            if frame is None:
                break
            group.append(frame)
            if len(group) == size:
                yield group
                group = []
    if group:
        yield group


@torch.no_grad()
def _found(model: AnyDetector, frames: Sequence[Frame], device: torch.device, choice: Choice) -> list[Detections]:
    results = model([frame.image.to(device).float() / 255 for frame in frames], choice=choice)
    return [
        Detections.of(
            frame.image, found, model.tree, frame.source, frame=frame.number, time=frame.time, rate=frame.rate
        )
        for frame, found in zip(frames, results, strict=True)
    ]
