"""`yolo9000.load`: weights of our own, and Darknet's with or without their cfg, as a network ready to use."""

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from torch import nn

from wordtree import WordTree, WordTreeError, label_maps

from . import models
from .batchnorm import set_batchnorm
from .borrowed import AnyDetector, Borrowed
from .checkpoints import load_model
from .classes import flat_tree, named, names_of
from .detector import Detector
from .models import Network, OwnNetwork
from .modes import Mode, batchnorm_of, find_mode
from .official import official_maps, official_tree
from .weights import KNOWN, Known, check_known, load_weights, read_header

SHIPPED = "zoo.safetensors"


class Published(NamedTuple):
    """A network whose weights were published, found by the size of its file."""

    title: str
    build: Callable[[WordTree, str], OwnNetwork]  # from the classes and the file's name
    tree: Callable[[], WordTree]


def _coco() -> WordTree:
    return flat_tree(official_maps()["coco9k"].labels)


def _voc() -> WordTree:
    return flat_tree(label_maps()["voc"].labels)


PUBLISHED = {  # by the floats of the file
    48_807_501: Published("YOLO9000", lambda tree, _: models.yolo9000(tree, size=544), official_tree),
    50_676_061: Published("YOLOv2 on VOC", lambda tree, _: models.yolov2(tree), _voc),
    50_983_561: Published("YOLOv2 on COCO", lambda tree, _: models.yolov2(tree, "coco-2017", 608), _coco),
    67_158_109: Published("YOLOv2 of 2016 on VOC", lambda tree, _: models.yolov2(tree, squeeze=0), _voc),
    67_465_609: Published("YOLOv2 of 2016 on COCO", lambda tree, _: models.yolov2(tree, "coco-2016", squeeze=0), _coco),
    15_867_885: Published("tiny YOLOv2 on VOC", lambda tree, _: models.yolov2_tiny(tree), _voc),
    11_237_145: Published(
        "tiny YOLOv2 on COCO", lambda tree, _: models.yolov2_tiny(tree, "coco-2017", last=512), _coco
    ),
    20_856_776: Published(
        "Darknet-19",
        lambda tree, name: models.darknet19(tree, 448 if "448" in name else 256),
        lambda: flat_tree([f"class_{node}" for node in range(1000)]),
    ),
    29_485_226: Published("Darknet-19 on YOLO9000's tree", lambda tree, _: models.darknet19(tree, 448), official_tree),
}


def load(
    weights: str | Path | None = None,
    cfg: str | Path | None = None,
    tree: WordTree | str | Path | None = None,
    names: str | Path | Sequence[str] | None = None,
    mode: str = "paper",
) -> Network:
    """A network ready to use: a `Detector`; a `TreeClassifier` where the weights are a classifier's; a `Borrowed` where
    they are of a plug-in's detector.

    Args:
        weights: Darknet's `.weights`; our own `.safetensors`, or a run's folder; the shipped checkpoint where left out.
        cfg: Darknet's network file of these weights. Where left out, a file of a published size is that network: of
            195,230,020 bytes it is YOLO9000, on its own tree and an input of 544.
        tree: the classes, a tree or its file, in place of those that the cfg names; for our own files, the tree that
            they have to have.
        names: a `.names` or `.data` file of Darknet's, or the names, one a class.
        mode: "paper", "darknet" (the release of 2017-01) or "darknet-2018". It sets batch-norm too: in the Darknet
            modes, and for files of a header below 0.2, the original's arithmetic; else torch's.

    Raises:
        WordTreeError: an unknown mode, or one of Darknet's for a plug-in's detector; weights that are none, or do not
            fit; a cfg without weights.

    Example:
        >>> model = load("yolo9000.weights", mode="darknet")  # doctest: +SKIP
        >>> model.tree  # doctest: +SKIP
        WordTree(9418 nodes, 1846 groups, 7573 leaves)
    """
    reading = find_mode(mode)
    if weights is None and cfg is not None:
        raise WordTreeError(
            f"a cfg, {str(cfg)!r}, and no weights; give the .weights file of it too. "
            "yolo9000.models.from_cfg(cfg) builds the network with random weights"
        )
    path = weights_path(weights)
    if path.suffix == ".cfg":
        raise WordTreeError(f"{str(path)!r} given as weights; give the .weights file, and this as its cfg=")
    if path.suffix == ".safetensors" and (cfg is not None or names is not None):
        raise WordTreeError(
            f"cfg= or names= for {str(path)!r}, a file of our own that says its network and its names; leave them out, "
            "or give Darknet's .weights"
        )
    own_tree = WordTree.load(tree) if isinstance(tree, str | Path) else tree
    model: Network
    if cfg is not None or is_darknet(path):
        model = _darknet(path, cfg, own_tree, names)
    else:
        model = load_model(path, own_tree)[0]
    return set_reading(model.eval(), reading)


def load_detector(
    weights: str | Path | None = None,
    cfg: str | Path | None = None,
    tree: WordTree | str | Path | None = None,
    names: str | Path | Sequence[str] | None = None,
    mode: str = "paper",
) -> AnyDetector:
    """`load`, for those who need boxes: a classifier's weights are refused."""
    model = load(weights, cfg, tree, names, mode)
    if not isinstance(model, AnyDetector):
        raise WordTreeError(f"weights {str(weights)!r} are a classifier's, which has no boxes; give a detector's")
    return model


def in_hand(network: nn.Module) -> AnyDetector:
    """A network that a caller gives in place of weights, where it is a detector.

    Raises:
        WordTreeError: a classifier, or a module that is neither ours nor `Borrowed`.
    """
    if not isinstance(network, AnyDetector):
        raise WordTreeError(
            f"a {type(network).__name__} in place of weights; give a Detector, a SecondLook, or of a plug-in's "
            "yolo9000.borrowed.Borrowed(name, tree, size)"
        )
    return network


def set_reading(model: Network, mode: Mode) -> Network:
    """Set how a network is read: a detector's thresholds and rules, and the batch-norm that its weights are for."""
    if isinstance(model, Borrowed):
        if mode.name != model.mode:
            raise WordTreeError(f"mode {mode.name!r} of {model.name}, a plug-in's, which has {model.mode!r} alone")
        return model
    set_batchnorm(model, batchnorm_of(mode, model.origin))
    return model.set_mode(mode) if isinstance(model, Detector) else model


def weights_path(weights: str | Path | None) -> Path:
    """The file of a weights argument: of a run's folder its weights, of nothing the shipped checkpoint."""
    if weights is None:
        shipped = Path(str(files(__package__) / SHIPPED))
        if not shipped.is_file():
            raise WordTreeError("no shipped checkpoint in this installation; train one: yolo9000 train --joint")
        return shipped
    path = Path(weights)
    return path / "weights.safetensors" if path.is_dir() else path


def is_darknet(path: Path) -> bool:
    """Whether a file is of Darknet's kinds by its name: .weights, .backup, or darknet19_448.conv.23."""
    return path.suffix in (".weights", ".backup") or ".conv." in path.name


def _darknet(
    path: Path, cfg: str | Path | None, tree: WordTree | None, names: str | Path | Sequence[str] | None
) -> OwnNetwork:
    header = read_header(path)  # a page or a pointer is named as such before any cfg is read
    if cfg is not None:
        model = models.from_cfg(cfg, tree, names)
    else:
        given = path.stat().st_size
        published = PUBLISHED.get((given - header.size) // 4) if (given - header.size) % 4 == 0 else None
        if published is None:
            known = KNOWN.get(path.name)
            hint = f"the published {path.name} has {_bytes(known)}" if known else f"known sizes: {_known_sizes()}"
            raise WordTreeError(f"{str(path)!r} has {given:,} bytes, no published network's; give its cfg=; {hint}")
        classes = published.tree() if tree is None else tree
        if len(classes) != len(published.tree()):
            raise WordTreeError(
                f"{str(path)!r} is {published.title} of {len(published.tree())} classes, the tree given has "
                f"{len(classes)} nodes; give one of as many, or the cfg= of these weights"
            )
        classes = classes if names is None else named(classes, names_of(names))
        model = published.build(classes, path.name)
    load_weights(model, path)
    check_known(path)
    return model


def _bytes(known: Known) -> str:
    return f"{16 + 4 * known.floats:,} bytes"


def _known_sizes() -> str:
    return ", ".join(f"{16 + 4 * floats:,} ({published.title})" for floats, published in PUBLISHED.items())
