"""From a picture to detections: `yolo9000.detect` and `yolo9000.load`."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import torch

from wordtree import WordTree, WordTreeError
from wordtree.errors import unknown

from .checkpoints import load_model
from .detections import Detections
from .detector import Detector
from .images import Source, as_image, sources_of

SHIPPED = "zoo.safetensors"
MODES = ("paper",)


def load(
    weights: str | Path | None = None,
    cfg: str | Path | None = None,
    tree: WordTree | None = None,
    names: str | Path | None = None,
    mode: str = "paper",
) -> Detector:
    """A detector ready to detect.

    Args:
        weights: a weights.safetensors that `yolo9000 train` wrote, or a run's folder; the shipped checkpoint where left
            out.
        cfg, names: for Darknet's own files, which this version does not read yet.
        tree: refuse weights of any other tree.
        mode: "paper".

    Raises:
        WordTreeError: as `checkpoints.load_model`; Darknet's files; an unknown mode.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    path = _weights_path(weights)
    if cfg is not None or names is not None or path.suffix in (".weights", ".cfg"):
        raise WordTreeError(
            f"Darknet files given ({cfg or names or path}); this version reads the weights.safetensors of its own runs"
        )
    return load_model(path, tree)[0]


def about(weights: str | Path | None = None) -> str:
    """What a checkpoint says it knows and cannot know."""
    return str(load_model(_weights_path(weights))[1].get("about", ""))


def detect(
    source: Source | Sequence[Source],
    weights: str | Path | Detector | None = None,
    threshold: float = 0.25,
    tree_threshold: float = 0.5,
    device: str = "auto",
) -> list[Detections]:
    """Box and name what is in pictures.

    Args:
        source: a path, a folder, an array [h, w, 3], a tensor [3, h, w], or a list of these.
        weights: a run's folder or weights file, or a loaded model; the shipped checkpoint where left out.
        threshold: on the score, objectness x Pr(node), 0..1.
        tree_threshold: how sure each step down the tree must be, 0..1: lower says "poodle", higher stays at "dog".
        device: "auto", "cpu" or "cuda".

    Returns:
        One `Detections` an image, in order.

    Raises:
        WordTreeError: a missing or damaged image, weights that do not fit, a threshold outside 0..1.

    Example:
        >>> found = detect(torch.zeros(3, 64, 64, dtype=torch.uint8))  # doctest: +SKIP
        >>> found[0].names  # doctest: +SKIP
        ()
    """
    return list(stream(source, weights, threshold, tree_threshold, device))


def stream(
    source: Source | Sequence[Source],
    weights: str | Path | Detector | None = None,
    threshold: float = 0.25,
    tree_threshold: float = 0.5,
    device: str = "auto",
) -> Iterator[Detections]:
    """`detect`, one image at a time; arguments and errors are checked before the first."""
    for name, value in (("threshold", threshold), ("tree_threshold", tree_threshold)):
        if not 0 <= value <= 1:
            raise WordTreeError(f"a {name} of {value}; it is a probability, 0 to 1")
    from .hardware import device_of

    where = device_of(device)
    pictures = [(name, as_image(one)) for name, one in sources_of(source)]
    model = weights if isinstance(weights, Detector) else load(weights)
    model = model.to(where).eval()
    model.threshold, model.tree_threshold = threshold, tree_threshold
    return (_one(model, name, image, where) for name, image in pictures)


@torch.no_grad()
def _one(model: Detector, name: str, image: torch.Tensor, device: torch.device) -> Detections:
    (found,) = model([image.to(device).float() / 255])
    return Detections.of(image, found, model.tree, name)


def _weights_path(weights: str | Path | None) -> Path:
    if weights is None:
        shipped = Path(str(files(__package__) / SHIPPED))
        if not shipped.is_file():
            raise WordTreeError("no shipped checkpoint in this installation; train one: yolo9000 train --joint")
        return shipped
    path = Path(weights)
    return path / "weights.safetensors" if path.is_dir() else path
