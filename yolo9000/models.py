"""Networks: a model is a function with defaults, every number by keyword."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wordtree import WordTree, WordTreeError
from wordtree.errors import unknown

from .borrowed import Borrowed, set_loss
from .cfg import Cfg
from .classes import flat_tree, named, names_of
from .classifier import TreeClassifier
from .config import TRUNKS, Config
from .darknet19 import COUNTS, WIDTHS, ConvBlock, Darknet19, Extraction, MaxPool, Passthrough, Staged, Trunk
from .detector import Detector
from .head import RegionHead
from .loss import scales_of
from .network import CfgTrunk, check_square, split_head
from .priors import ANCHORS, TINY_ANCHORS, YOLO9000_ANCHORS, YOLOV2_ANCHORS, priors_of
from .trunks import NamedTrunk

__all__ = [
    "ANCHORS",
    "TINY_ANCHORS",
    "YOLO9000_ANCHORS",
    "YOLOV2_ANCHORS",
    "TreeClassifier",
    "build",
    "classifier",
    "darknet19",
    "from_cfg",
    "priors_of",
    "yolo9000",
    "yolov2",
    "yolov2_tiny",
]

OwnNetwork = Detector | TreeClassifier
Network = OwnNetwork | Borrowed
Classes = WordTree | Sequence[str] | int  # a tree; flat classes by name; so many flat classes
Anchors = str | Sequence[Sequence[float]]  # of `ANCHORS` by name; or width and height of each, in cells


def darknet19(
    tree: Classes = 1000,
    size: int = 224,
    widths: Sequence[int] = WIDTHS,
    counts: Sequence[int] = COUNTS,
    trunk: str = "darknet19",
    normalized: bool = True,
) -> TreeClassifier:
    """Darknet-19 as a classifier (paper sections 3 and 4), over flat classes or over a tree.

    Args:
        tree: the classes: a tree, names, or a number of flat classes. With YOLO9000's tree it is Darknet's darknet9000.
        size: pixels of the input that it is for, 224 or 448 in the paper; it takes any.
        widths, counts: the trunk's stages, see `Darknet19`.
        trunk, normalized: as `yolo9000`.

    Example:
        >>> model = darknet19(["cat", "dog"], widths=(8, 16), counts=(1, 1)).eval()
        >>> model(torch.rand(1, 3, 32, 32)).exp().sum(1).item()  # log Pr of each
        1.0...
    """
    model = classifier(_tree(tree), _trunk(trunk, widths, counts, normalized))
    model.size = _checked(size, model.trunk)
    model.options = {"network": "darknet19", "size": size, "widths": list(widths), "counts": list(counts)}
    model.options |= _changed(trunk=trunk, normalized=normalized)
    return model


def classifier(tree: WordTree, trunk: Trunk | None = None) -> TreeClassifier:
    """A tree classifier on a trunk: what the trunk learns from before it detects (paper section 3)."""
    return TreeClassifier(trunk or Darknet19(), tree)


def yolo9000(
    tree: Classes,
    anchors: Anchors = "yolo9000",
    size: int = 416,
    widths: Sequence[int] = WIDTHS,
    counts: Sequence[int] = COUNTS,
    neck: Sequence[int] = (),
    trunk: str = "darknet19",
    normalized: bool = True,
    location: str = "direct",
) -> Detector:
    """YOLO9000 (paper section 4): Darknet-19, three priors, a tree. The released network has nothing between.

    Args:
        tree: the classes: a tree, names, or a number of flat classes.
        anchors: width and height of each prior, in cells; or their name in `ANCHORS`.
        size: pixels of the square input, a multiple of the stride.
        widths, counts: the trunk's stages, see `Darknet19`.
        neck: channels of 3x3 convolutions between trunk and head.
        trunk: "darknet19"; "extraction": YOLO's network before it, as wide as the last of `widths`; or a network of
            torchvision or timm by name, such as "timm/efficientnet_lite0", see `trunks.NamedTrunk`.
        normalized: False for biases in place of batch-norm.
        location: how a box is told, see `region.decode`; "image" is without priors, so many boxes a cell as `anchors`.

    Example:
        >>> model = yolo9000(WordTree(["animal", "dog"], [-1, 0]), size=96, widths=(8, 16, 32), counts=(1, 1, 3))
        >>> sorted(model([torch.rand(3, 96, 96)], [{"labels": torch.tensor([1])}]))
        ['box', 'image_label', 'objectness', 'tree']
    """
    body = _trunk(trunk, widths, counts, normalized)
    blocks, channels = [], body.channels
    for width in neck:
        blocks.append(ConvBlock(channels, width, 3, normalized=normalized))
        channels = width
    model = _detector("yolo9000", body, nn.Sequential(*blocks), channels, tree, anchors, size, location)
    model.options |= {"widths": list(widths), "counts": list(counts), "neck": list(neck)}
    model.options |= _changed(trunk=trunk, normalized=normalized, location=location)
    return model


def yolov2(
    tree: Classes = 20,
    anchors: Anchors | None = None,
    size: int = 416,
    squeeze: int = 64,
    widths: Sequence[int] = WIDTHS,
    counts: Sequence[int] = COUNTS,
    passthrough: bool = True,
    trunk: str = "darknet19",
    normalized: bool = True,
    location: str = "direct",
) -> Detector:
    """YOLOv2 (paper section 2).

    Args:
        tree: the classes: a tree, names, or a number of flat classes; 20 are VOC's, 80 COCO's.
        anchors: width and height of each prior, in cells; or their name in `ANCHORS`. VOC's of the form if left out.
        size: pixels of the square input, a multiple of 32; Darknet's cfgs have 416, and 608 for COCO since 2017.
        squeeze: channels of the 1x1 convolution before the passthrough: 64 as Darknet's cfgs since 2017; 0 for none,
            the paper's 26 x 26 x 512 -> 13 x 13 x 2048.
        widths, counts: the trunk's stages, see `Darknet19`; the 3x3 convolutions after it are as wide as its last.
        passthrough: False for the three 3x3 convolutions alone.
        trunk, normalized, location: as `yolo9000`.

    Example:
        >>> with torch.device("meta"):
        ...     model = yolov2(80, anchors="coco-2017", size=608)
        >>> model.raw(torch.zeros(1, 3, 608, 608, device="meta")).shape
        torch.Size([1, 425, 19, 19])
    """
    body = _trunk(trunk, widths, counts, normalized)
    width = body.channels
    if passthrough and not body.passthrough_channels:
        raise WordTreeError(f"{trunk} has no features of stride {body.stride // 2} to pass through; passthrough=False")
    if passthrough:
        neck: nn.Module = Passthrough(body.passthrough_channels, width, squeeze, width, normalized)
    else:
        neck = nn.Sequential(*(ConvBlock(width, width, 3, normalized=normalized) for _ in range(3)))
    anchors = anchors or ("voc-2017" if squeeze else "voc-2016")
    model = _detector("yolov2", body, neck, width, tree, anchors, size, location)
    model.options["squeeze"] = squeeze
    if (*widths, *counts) != (*WIDTHS, *COUNTS):
        model.options |= {"widths": list(widths), "counts": list(counts)}
    model.options |= _changed(passthrough=passthrough, trunk=trunk, normalized=normalized, location=location)
    return model


def yolov2_tiny(tree: Classes = 20, anchors: Anchors = "voc-2016", size: int = 416, last: int = 1024) -> Detector:
    """YOLOv2's small form: six 3x3 stages, a pooling of stride 1, two wide convolutions.

    Args:
        tree: the classes: a tree, names, or a number of flat classes; 20 are VOC's, 80 COCO's.
        anchors: width and height of each prior, in cells; or their name in `ANCHORS` ("coco-2017" for COCO).
        size: pixels of the square input, a multiple of 32.
        last: channels of the last convolution before the head: 1024 in Darknet's VOC cfg, 512 in its COCO cfg.
    """
    trunk = Darknet19((16, 32, 64, 128, 256, 512), (1,) * 6)
    neck = nn.Sequential(MaxPool(2, 1), ConvBlock(512, 1024, 3), ConvBlock(1024, last, 3))
    model = _detector("yolov2_tiny", trunk, neck, last, tree, anchors, size)
    model.options["last"] = last
    return model


def from_cfg(
    cfg: str | Path | Cfg, tree: WordTree | None = None, names: str | Path | Sequence[str] | None = None
) -> OwnNetwork:
    """The network of a Darknet `.cfg`, with random weights: a detector where it ends in [region], else a classifier.

    Args:
        cfg: the file, or one that was read.
        tree: the classes, in place of those that the cfg names.
        names: a .names or .data file, or names, one a class.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: by file and line, what `Cfg` refuses; a tree or names that do not fit.
    """
    cfg = cfg if isinstance(cfg, Cfg) else Cfg.read(cfg)
    layers, (height, width) = cfg.layers(), cfg.size
    before, head = split_head(layers)
    if tree is None:
        tree = cfg.tree(names)
    elif names is not None:
        tree = named(tree, names_of(names, cfg.file))
    if len(tree) != cfg.classes:
        raise WordTreeError(
            f"{cfg.file}: {cfg.classes} classes, and {len(tree)} given; give a tree or names of as many"
        )
    trunk = CfgTrunk(before, width)
    options = {"network": "from_cfg", "cfg": cfg.text, "file": Path(cfg.file).name}
    section = cfg.head
    if section is None or section.kind == "softmax":
        model: OwnNetwork = TreeClassifier(trunk, tree, width)
    else:
        check_square(head, height, width)
        if "softmax" not in section.values and "tree" not in section.values:
            warnings.warn(f"{cfg.file}: no softmax=1 in [region]; the classes are one softmax here", stacklevel=2)
        priors = torch.tensor(section.numbers("anchors")).view(-1, 2)
        model = Detector(trunk, nn.Identity(), RegionHead(trunk.channels, tree, priors), width)
        model.scales = scales_of(section)
    model.options = options
    return model


def build(options: dict[str, Any], tree: WordTree) -> Network:
    """The network that a model's `options` tell of, with random weights."""
    options = dict(options)
    name = options.pop("network", "yolo9000")  # the first runs had no other
    if name == "plug-in":
        return Borrowed(tree=tree, **options)
    if name == "from_cfg":
        return from_cfg(Cfg(options["cfg"], options["file"]), tree)
    functions = {"darknet19": darknet19, "yolo9000": yolo9000, "yolov2": yolov2, "yolov2_tiny": yolov2_tiny}
    if name not in functions:
        raise unknown("network", str(name), functions)
    return functions[name](tree, **options)  # type: ignore[no-any-return, operator]


def of_config(config: Config, tree: WordTree, anchors: Anchors) -> Detector:
    """The detector of a run's numbers."""
    common: dict[str, Any] = {
        "size": config.size, "widths": config.widths, "counts": config.counts,
        "trunk": config.whole_trunk, "normalized": config.normalized, "location": config.location,
    }  # fmt: skip
    if config.network == "yolov2":
        model = yolov2(tree, anchors, squeeze=config.squeeze, passthrough=config.passthrough, **common)
    else:
        model = yolo9000(tree, anchors, **common)
    set_loss(model, config)
    return model


def _trunk(name: str, widths: Sequence[int], counts: Sequence[int], normalized: bool) -> Staged | NamedTrunk:
    if "/" in name:
        return NamedTrunk(name)
    if name not in TRUNKS:
        raise unknown("trunk", name, TRUNKS)
    return Extraction(widths[-1], normalized) if name == "extraction" else Darknet19(widths, counts, normalized)


def _changed(**options: Any) -> dict[str, Any]:
    """Those that are not as in the released networks."""
    usual = {"trunk": "darknet19", "normalized": True, "location": "direct", "passthrough": True}
    return {name: value for name, value in options.items() if value != usual[name]}


def _detector(
    network: str,
    trunk: Trunk,
    neck: nn.Module,
    channels: int,
    tree: Classes,
    anchors: Anchors,
    size: int,
    location: str = "direct",
) -> Detector:
    if isinstance(anchors, str):
        if anchors not in ANCHORS:
            raise unknown("anchors", anchors, ANCHORS)
        anchors = ANCHORS[anchors]
    priors = torch.as_tensor(anchors, dtype=torch.float32)
    model = Detector(trunk, neck, RegionHead(channels, _tree(tree), priors, location), _checked(size, trunk))
    if location == "image":  # no priors: the nearest shape predicted answers
        model.scales = replace(model.scales, bias_match=False)
    model.options = {"network": network, "anchors": [list(map(float, pair)) for pair in anchors], "size": size}
    return model


def _tree(classes: Classes) -> WordTree:
    if isinstance(classes, WordTree):
        return classes
    return flat_tree([f"class_{node}" for node in range(classes)] if isinstance(classes, int) else classes)


def _checked(size: int, trunk: Trunk) -> int:
    if size <= 0 or size % trunk.stride:
        raise WordTreeError(f"an input of {size} pixels; this trunk takes multiples of {trunk.stride}")
    return size
