"""YOLO9000 whole again in PyTorch: a detector over a WordTree that learns from boxes and from names together.

    import yolo9000
    run = yolo9000.train(joint=True)
    found = yolo9000.detect("photo.jpg", weights=run.weights)

Torch starts with the first of these that is used, not here: `wordtree` lists this package's plug-in without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import loss, models
    from .choice import Choice
    from .evaluation import evaluate
    from .inference import fuse
    from .loading import load
    from .official import official_maps, official_tree
    from .prediction import detect, stream
    from .second import SecondLook
    from .training import train

__all__ = [
    "Choice",
    "SecondLook",
    "detect",
    "evaluate",
    "fuse",
    "load",
    "loss",
    "models",
    "official_maps",
    "official_tree",
    "stream",
    "train",
]

_HOME = {
    "Choice": "choice",
    "SecondLook": "second",
    "detect": "prediction",
    "evaluate": "evaluation",
    "fuse": "inference",
    "load": "loading",
    "official_maps": "official",
    "official_tree": "official",
    "stream": "prediction",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name in ("loss", "models"):
        return import_module(f".{name}", __name__)
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module 'yolo9000' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
