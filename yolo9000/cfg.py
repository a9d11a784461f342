"""Darknet's `.cfg` files: what they say, and the shapes that follow from it. No torch here.

Syntax, defaults and arithmetic of shapes are those of the release that YOLO9000 came with (2017-01): spaces are
removed, `#` and `;` begin comment lines, of a key given twice the first counts.
"""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wordtree import WordTree, WordTreeError
from wordtree.errors import unknown

from .classes import flat_tree, map_of, named, names_of, pairs_of, text_of, tree_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALIASES = {"network": "net", "conv": "convolutional", "max": "maxpool", "avg": "avgpool", "soft": "softmax"}
# the layers that we build, with the keys that Darknet reads in each
KEYS = {
    "convolutional": "batch_normalize filters size stride pad padding activation dontload dontloadscales",
    "maxpool": "size stride padding",
    "route": "layers",
    "reorg": "stride",
    "avgpool": "",
    "dropout": "probability",
    "softmax": "groups temperature tree",
    "cost": "type scale ratio",
    "region": "anchors classes num coords softmax tree map thresh object_scale noobject_scale class_scale coord_scale "
    "bias_match rescore jitter random absolute max log sqrt classfix",
}
# what another network than ours would say with a key: the one value that we build
FIXED = {
    "convolutional": {"groups": "1", "dilation": "1", "flipped": "0", "binary": "0", "xnor": "0"},
    "reorg": {"reverse": "0", "flatten": "0", "extra": "0"},
    "softmax": {"groups": "1", "temperature": "1", "spatial": "0"},
    "region": {"coords": "4", "softmax": "1", "background": "0"},
}
OTHER_LAYERS = [
    "shortcut",
    "crop",
    "detection",
    "yolo",
    "iseg",
    "local",
    "deconv",
    "deconvolutional",
    "activation",
    "logistic",
    "l2norm",
    "crnn",
    "gru",
    "lstm",
    "rnn",
    "conn",
    "connected",
    "lrn",
    "normalization",
    "batchnorm",
    "upsample",
    "Gaussian_yolo",
    "reorg3d",
    "reorg_old",
    "sam",
    "scale_channels",
]
ACTIVATIONS = ("leaky", "linear", "relu", "logistic")
SUFFIXES = (".weights", ".safetensors", ".jpg", ".png", ".data", ".names", ".tree", ".map")


@dataclass(frozen=True)
class Section:
    """One `[section]`: its values as written, and where each stands."""

    kind: str
    file: str
    line: int
    values: dict[str, str]
    lines: dict[str, int]

    def fault(self, key: str | None, what: str) -> WordTreeError:
        """An error with the file and the line of a key, or of the section."""
        return WordTreeError(f"{self.file}, line {self.lines.get(key or '', self.line)}: {what}")

    def whole(self, key: str, default: int | None = None, least: int = 0) -> int:
        """A whole number."""
        if key not in self.values and default is not None:
            return default
        value = self._given(key)
        try:
            number = int(value)
        except ValueError:
            raise self.fault(key, f"{key}={value}; {key} of [{self.kind}] is a whole number") from None
        if number < least:
            raise self.fault(key, f"{key}={value}; {key} of [{self.kind}] is {least} or more")
        return number

    def numbers(self, key: str) -> list[float]:
        """Numbers parted by commas."""
        value = self._given(key)
        try:
            numbers = [float(part) for part in value.split(",")]
        except ValueError:
            numbers = [math.nan]
        if not all(map(math.isfinite, numbers)):
            raise self.fault(key, f"{key}={value}; {key} of [{self.kind}] takes numbers parted by commas")
        return numbers

    def number(self, key: str, default: float) -> float:
        """One number."""
        numbers = self.numbers(key) if key in self.values else [default]
        if len(numbers) != 1:
            raise self.fault(key, f"{key}={self.values[key]}; {key} of [{self.kind}] is one number")
        return numbers[0]

    def _given(self, key: str) -> str:
        if key not in self.values:
            raise self.fault(None, f"[{self.kind}] has no {key}; give it one, such as {key}=1")
        return self.values[key]


@dataclass(frozen=True)
class Layer:
    """One layer with the shapes that a cfg gives it; `number` counts from 0 after [net], as Darknet's does.

    Attributes:
        sources: the layers read, -1 for the image.
        channels_in: of the input; of a route, those of all its sources.
        channels, height, width: of the output.
        size, stride, padding: of the window; padding on every side.
    """

    number: int
    section: Section
    sources: tuple[int, ...]
    channels_in: int
    channels: int
    height: int
    width: int
    size: int = 1
    stride: int = 1
    padding: int = 0
    normalized: bool = False
    activation: str = "linear"

    @property
    def kind(self) -> str:
        return self.section.kind

    @property
    def matrix(self) -> int:
        """How many weights the convolution has."""
        return self.channels * self.channels_in * self.size**2 if self.kind == "convolutional" else 0

    @property
    def learnable(self) -> int:
        """Learnt numbers: weights, and a bias, or batch-norm's scale and bias, a channel."""
        return self.matrix + self.channels * (1 + self.normalized) if self.matrix else 0

    @property
    def floats(self) -> int:
        """Numbers in a .weights file: the learnt ones, and batch-norm's mean and variance."""
        return self.learnable + 2 * self.channels * (self.normalized and bool(self.matrix))

    @property
    def flops(self) -> int:
        """Two a multiplication with its addition, convolutions only, as Darknet counts them."""
        return 2 * self.matrix * self.height * self.width


class Cfg:
    """A network file: `[net]`, then layers.

    Args:
        text: the file's text.
        file: its path, for messages, and for files that it names.

    Attributes:
        net: the first section.
        sections: the others.

    Raises:
        WordTreeError: by file and line, text that is no cfg, an unknown section, a layer that YOLOv2's family has not.

    Example:
        >>> cfg = Cfg("[net]\\nheight=32\\nwidth=32\\nchannels=3\\n[convolutional]\\nfilters=8\\nsize=3\\npad=1\\n"
        ...           "activation=leaky\\n[maxpool]\\nsize=2\\nstride=2")
        >>> [(layer.kind, layer.channels, layer.width) for layer in cfg.layers()]
        [('convolutional', 8, 32), ('maxpool', 8, 16)]
    """

    def __init__(self, text: str, file: str | Path = "a cfg") -> None:
        self.text = text
        self.file = str(file)
        sections = list(_sections(text, self.file))
        if not sections:
            raise WordTreeError(f"{self.file}: no [section] in it; a .cfg begins with [net] and lists layers")
        for section in sections[1:]:
            _known(section)
        self.net, self.sections = sections[0], sections[1:]
        if self.net.kind != "net":
            raise self.net.fault(None, f"[{self.net.kind}] comes first; a .cfg begins with [net], its input's size")
        if not self.sections:
            raise self.net.fault(None, "[net] and no layer; a network has layers after it, such as [convolutional]")

    @classmethod
    def read(cls, path: str | Path) -> Cfg:
        """Read a file.

        Raises:
            FileNotFoundError: no such file.
            WordTreeError: as the class.
        """
        if Path(path).suffix in SUFFIXES:
            raise WordTreeError(f"{path} given as a cfg; give a network file, such as yolo9000.cfg")
        return cls(text_of(path, "cfg"), path)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.net.whole("height", least=1), self.net.whole("width", least=1)

    @property
    def head(self) -> Section | None:
        """The [region] or [softmax] that the network ends in, a [cost] after it left out; None for a bare trunk."""
        last = [section for section in self.sections if section.kind != "cost"][-1:]
        return last[0] if last and last[0].kind in ("region", "softmax") else None

    def layers(self, height: int | None = None, width: int | None = None) -> list[Layer]:
        """The layers with their shapes, on an input of the cfg's size or of another.

        Raises:
            WordTreeError: by file and line, a value that is no number, shapes that do not fit, a route to no layer.
        """
        if self.net.whole("channels", 3) != 3:
            raise self.net.fault("channels", f"channels={self.net.values['channels']}; images have 3, red green blue")
        own_height, own_width = self.size
        image = (3, height or own_height, width or own_width)
        layers: list[Layer] = []
        for number, section in enumerate(self.sections):
            before = (layers[-1].channels, layers[-1].height, layers[-1].width) if layers else image
            layers.append(_layer(section, number, before, layers))
        for layer in layers:
            if layer.kind in ("region", "softmax") and layer.section is not self.head:
                what = f"[{layer.kind}] is layer {layer.number} of {len(layers)}; it is the last but for [cost]"
                raise layer.section.fault(None, what)
        return layers

    def tree(self, names: str | Path | Sequence[str] | None = None) -> WordTree:
        """The classes of the head: the tree that it names, else a flat tree.

        Args:
            names: a .names or .data file, or the names; where left out, those beside the tree's file, or class_0 ...
        """
        head = self.head
        if head is None:
            raise WordTreeError(f"{self.file}: no [region] or [softmax] at its end; one of them says what classes are")
        count = self.classes
        given = None if names is None else names_of(names, self.file)
        if "tree" not in head.values:
            flat = flat_tree([f"class_{node}" for node in range(count)])
            return flat if given is None else named(flat, given)
        tree = tree_of(head.values["tree"], self.file, given, head.lines["tree"])
        if len(tree) != count:
            what = f"tree={head.values['tree']} has {len(tree)} nodes, the head {count} classes; they are the same"
            raise head.fault("tree", what)
        return tree

    @property
    def classes(self) -> int:
        """How many classes the head has."""
        head = self.head
        if head is not None and head.kind == "region":
            return head.whole("classes", 20, least=1)
        return self.layers()[-1].channels

    def label_nodes(self) -> NDArray[np.int64] | None:
        """int64 [labels]: the `map=` of [region], the node of each class of the data set trained on; None without."""
        head = self.head
        if head is None or "map" not in head.values:
            return None
        return map_of(head.values["map"], self.file, head.lines["map"])


def _layer(section: Section, number: int, before: tuple[int, int, int], layers: Sequence[Layer]) -> Layer:
    """One layer after others; `before` is the output that it reads, channels, height, width."""
    channels, height, width = before
    kind, here = section.kind, (number - 1,)
    if kind == "convolutional":
        size, stride = section.whole("size", 1, 1), section.whole("stride", 1, 1)
        padding = size // 2 if section.whole("pad", 0) else section.whole("padding", 0)
        filters, normal = section.whole("filters", 1, 1), section.whole("batch_normalize", 0) > 0
        activation = section.values.get("activation", "logistic")
        if activation not in ACTIVATIONS:
            raise section.fault("activation", str(unknown("activation", activation, ACTIVATIONS)))
        h, w = ((side + 2 * padding - size) // stride + 1 for side in (height, width))
        _fits(section, size, h, w, height, width)
        return Layer(number, section, here, channels, filters, h, w, size, stride, padding, normal, activation)
    if kind == "maxpool":
        stride = section.whole("stride", 1, 1)
        size = section.whole("size", stride, 1)
        padding = section.whole("padding", (size - 1) // 2)
        h, w = ((side + 2 * padding) // stride for side in (height, width))
        _fits(section, size, h, w, height, width)
        if padding >= size or (h - 1) * stride - padding >= height or (w - 1) * stride - padding >= width:
            what = f"pooling of size {size}, stride {stride} and padding {padding} on {width} x {height}"
            raise section.fault("padding", f"{what} has windows outside the map; give a smaller padding=")
        return Layer(number, section, here, channels, channels, h, w, size, stride, padding)
    if kind == "reorg":
        s = section.whole("stride", 1, 1)
        if height % s or width % s or channels % s**2:
            what = f"reorg of stride {s} on {width} x {height} x {channels}; it takes sides that {s} divides"
            raise section.fault("stride", f"{what} and channels that {s**2} divides")
        return Layer(number, section, here, channels, channels * s**2, height // s, width // s, s, s)
    if kind == "route":
        return _route(section, number, layers)
    if kind == "region":
        anchors, classes = section.whole("num", 1, 1), section.whole("classes", 20, 1)
        if channels != anchors * (5 + classes):
            what = f"[region] of {anchors} anchors and {classes} classes on {channels} channels"
            raise section.fault(None, f"{what}; filters={anchors * (5 + classes)} before it would do")
        priors = section.numbers("anchors")
        if len(priors) != 2 * anchors or min(priors) <= 0:
            what = f"{len(priors)} anchor numbers and num={anchors}; give a width and a height above 0 an anchor"
            raise section.fault("anchors", what)
    if kind == "avgpool":
        height = width = 1
    return Layer(number, section, here, channels, channels, height, width)


def _fits(section: Section, size: int, h: int, w: int, height: int, width: int) -> None:
    if h < 1 or w < 1:
        what = f"a window of {size} on a map of {width} x {height} leaves nothing"
        raise section.fault(None, f"{what}; give a larger input or fewer strides")


def _route(section: Section, number: int, layers: Sequence[Layer]) -> Layer:
    sources = []
    for value in section.numbers("layers"):
        index = int(value) + number if value < 0 else int(value)
        if value != int(value) or not 0 <= index < number:
            what = f"route to layer {value:g}"
            raise section.fault("layers", f"{what}; this is layer {number}, which reads 0 to {number - 1}, or -1 back")
        sources.append(index)
    shapes = [(layers[index].width, layers[index].height) for index in sources]
    if len({*shapes}) > 1:
        what = ", ".join(f"layer {index} is {w} x {h}" for index, (w, h) in zip(sources, shapes, strict=True))
        raise section.fault("layers", f"route over maps of several sizes: {what}; they are to be one size")
    channels = sum(layers[index].channels for index in sources)
    return Layer(number, section, tuple(sources), channels, channels, shapes[0][1], shapes[0][0])


# ---------------------------------------------------------------------- reading


def _sections(text: str, file: str) -> Iterator[Section]:
    section: Section | None = None
    for number, key, value in pairs_of(text, file):
        if value is None:
            if section is not None:
                yield section
            section = Section(ALIASES.get(key, key), file, number, {}, {})
        elif section is None:
            raise WordTreeError(f"{file}, line {number}: {key}={value} before any [section]; a .cfg begins with [net]")
        elif key not in section.values:  # of a key given twice the first counts
            section.values[key], section.lines[key] = value, number
    if section is not None:
        yield section


def _known(section: Section) -> None:
    """Refuse a layer that we do not build, and keys that make another layer of it."""
    if section.kind in OTHER_LAYERS:
        what = f"[{section.kind}] is a layer of Darknet's that YOLOv2's family has not; known: {', '.join(KEYS)}"
        raise section.fault(None, what)
    if section.kind not in KEYS:
        raise section.fault(None, str(unknown("layer", section.kind, KEYS)))
    fixed, known = FIXED.get(section.kind, {}), KEYS[section.kind].split()
    for key, value in section.values.items():
        if key in fixed:
            if value not in (fixed[key], f"{fixed[key]}.", f"{fixed[key]}.0"):
                what = (
                    f"{key}={value} in [{section.kind}]; YOLOv2's family has {key}={fixed[key]}, and no other is built"
                )
                raise section.fault(key, what)
        elif key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it reads {', '.join(known) or 'none'}"
            said = f"{section.file}, line {section.lines[key]}: {key}={value} says nothing in [{section.kind}]; {hint}"
            warnings.warn(said, stacklevel=2)
