"""What a network is, layer by layer: its Darknet `.cfg`, and the table of shapes, parameters and FLOPs that follows."""

from dataclasses import dataclass

from torch import nn

from wordtree import WordTreeError

from .batchnorm import BatchNorm
from .cfg import Cfg, Layer
from .classifier import TreeClassifier
from .darknet19 import ConvBlock, MaxPool, Passthrough, Staged
from .detector import Detector
from .head import RegionHead
from .loss import LossScales
from .network import CfgTrunk

HEADER = 16  # bytes before the floats of a .weights file of a version below 0.2; 20 from there on
ACTIVATIONS = {nn.LeakyReLU: "leaky", nn.Identity: "linear", nn.ReLU: "relu", nn.Sigmoid: "logistic"}


@dataclass(frozen=True)
class Summary:
    """A network's layers and their sums.

    Attributes:
        layers: in Darknet's order and count.
        learnable: numbers that are learnt.
        file_floats, file_bytes: of its .weights file: batch-norm's statistics too, and a header of 16 bytes.
        flops: two a multiplication with its addition, convolutions only, as Darknet counts.
        output: width, height and channels of the last layer.
    """

    layers: tuple[Layer, ...]

    @property
    def learnable(self) -> int:
        return sum(layer.learnable for layer in self.layers)

    @property
    def file_floats(self) -> int:
        return sum(layer.floats for layer in self.layers)

    @property
    def file_bytes(self) -> int:
        return HEADER + 4 * self.file_floats

    @property
    def flops(self) -> int:
        return sum(layer.flops for layer in self.layers)

    @property
    def output(self) -> tuple[int, int, int]:
        last = self.layers[-1]
        return last.width, last.height, last.channels

    def __str__(self) -> str:
        rows = [f"{'layer':<18} {'window':>8} {'output':>18} {'learnable':>12} {'BFLOPs':>8}"]
        for layer in self.layers:
            window = f"{layer.size} / {layer.stride}" if layer.kind in ("convolutional", "maxpool") else ""
            output = f"{layer.width} x {layer.height} x {layer.channels}"
            counts = f"{layer.learnable:>12,} {layer.flops / 1e9:>8.3f}" if layer.matrix else ""
            rows.append(f"{layer.number:>3} {layer.kind:<14} {window:>8} {output:>18} {counts}".rstrip())
        sums = f"{self.learnable:,} learnable, {self.file_floats:,} floats in a file of {self.file_bytes:,} bytes"
        return "\n".join([*rows, f"{sums}, {self.flops / 1e9:.3f} BFLOPs"])


def summary(model: nn.Module, size: int | None = None) -> Summary:
    """The table of a network.

    Args:
        model: a detector or classifier of `models`.
        size: pixels of the square input; the model's own where left out.

    Example:
        >>> from yolo9000.models import yolov2_tiny
        >>> with torch.device("meta"):
        ...     table = summary(yolov2_tiny())
        >>> table.learnable, table.file_bytes, round(table.flops / 1e9, 3), table.output
        (15861773, 63471556, 6.971, (13, 13, 125))
    """
    side = size or getattr(model, "size", None)
    return Summary(tuple(Cfg(cfg_of(model), "the model's cfg").layers(side, side)))


def cfg_of(model: nn.Module, tree: str | None = None) -> str:
    """The text of a Darknet cfg of this network: the one that it was built from, or one written for it.

    Args:
        model: a detector or classifier of `models`.
        tree: the file to name as its `tree=`; left out for flat classes.

    Raises:
        WordTreeError: a model with a layer that Darknet's v2 networks have not.
    """
    if isinstance(model, Detector | TreeClassifier):
        if isinstance(model.trunk, CfgTrunk):
            return str(model.options["cfg"])
        lines = ["[net]", f"height={model.size}", f"width={model.size}", "channels=3"]
        if isinstance(model, Detector):
            parts = [model.trunk, model.neck]
            end = _region(model.head, model.scales)
        else:
            parts, end = [model.trunk], _softmax(model)
        # a passthrough reads what the last stage read: back over its own two layers and that stage, pooling and all
        back = 3 + len([*model.trunk.stages[-1].children()]) if isinstance(model.trunk, Staged) else 0
        for part in parts:
            lines += _lines(part, back)
        return "\n".join([*lines, *end, *([f"tree={tree}"] if tree else []), ""])
    raise WordTreeError(f"a {type(model).__name__}; give a detector or a classifier that `models` built")


def _lines(module: nn.Module, back: int = 0) -> list[str]:
    if isinstance(module, ConvBlock):
        return _conv(module)
    if isinstance(module, nn.MaxPool2d | MaxPool):
        padding = [f"padding={module.padding}"] if isinstance(module, MaxPool) else []
        return ["[maxpool]", f"size={module.kernel_size if isinstance(module, nn.MaxPool2d) else module.size}",
                f"stride={module.stride}", *padding]  # fmt: skip
    if isinstance(module, Passthrough):
        squeeze = _lines(module.squeeze)
        route = ["[route]", f"layers=-{back}", *squeeze, "[reorg]", "stride=2", "[route]"]
        join = f"layers=-1,-{4 if squeeze else 3}"
        return [*_lines(module.deep), *route, join, *_lines(module.join)]
    if isinstance(module, nn.Sequential | nn.ModuleList | Staged | nn.Identity):
        return [line for child in module.children() for line in _lines(child)]
    raise WordTreeError(f"a {type(module).__name__} in the network; Darknet's v2 networks have no such layer")


def _conv(block: ConvBlock) -> list[str]:
    conv, norm, activation = block[0], block[1], block[2]
    if not isinstance(conv, nn.Conv2d):
        raise WordTreeError("a fused network, whose batch-norm is no more to be had; save it before yolo9000.fuse")
    size, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    return [
        "[convolutional]",
        *(["batch_normalize=1"] if isinstance(norm, BatchNorm) else []),
        f"filters={conv.out_channels}",
        f"size={size}",
        f"stride={stride}",
        "pad=1" if padding == size // 2 else f"padding={padding}",
        f"activation={ACTIVATIONS[type(activation)]}",
    ]


def _region(head: RegionHead, scales: LossScales) -> list[str]:
    anchors, classes = len(head.anchors), len(head.classes.tree)
    # printed as Darknet's own cfgs print them; a model on no device, for its table alone, has no numbers to print
    numbers = [1.0] * (2 * anchors) if head.anchors.is_meta else head.anchors.flatten().tolist()
    return [
        *_linear(anchors * (5 + classes)),
        "[region]",
        "anchors=" + ",".join(f"{number:.6g}" for number in numbers),
        f"classes={classes}",
        f"num={anchors}",
        "coords=4",
        "softmax=1",
        f"bias_match={scales.bias_match:d}",
        f"rescore={scales.rescore:d}",
        f"object_scale={scales.object:g}",
        f"noobject_scale={scales.no_object:g}",
        f"class_scale={scales.tree:g}",
        f"coord_scale={scales.box:g}",
        f"thresh={scales.ignore_iou:g}",
    ]


def _softmax(model: TreeClassifier) -> list[str]:
    return [*_linear(len(model.tree)), "[avgpool]", "[softmax]"]


def _linear(filters: int) -> list[str]:
    return ["[convolutional]", f"filters={filters}", "size=1", "stride=1", "pad=1", "activation=linear"]
