"""The layers of a `.cfg` as one module."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wordtree import WordTreeError

from .cfg import Layer
from .darknet19 import ConvBlock, MaxPool, Trunk, darknet_reorg


class Reorg(nn.Module):
    """`darknet_reorg` of one stride."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, h, w] -> [b, c * s^2, h / s, w / s]."""
        return darknet_reorg(x, self.stride)


class CfgTrunk(Trunk):
    """The layers of a cfg before its head, in the order of the file.

    Args:
        layers: with their shapes, as `Cfg.layers` gives them.
        width: pixels of the input that the shapes are for.
    """

    def __init__(self, layers: Sequence[Layer], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_module(layer) for layer in layers)
        self.routes = {layer.number: layer.sources for layer in layers if layer.kind == "route"}
        self.kept = {source for sources in self.routes.values() for source in sources}
        self.channels = layers[-1].channels if layers else 3
        self.stride = width // layers[-1].width if layers else 1

    def forward(self, images: Tensor) -> Tensor:
        """float [b, 3, h, w], RGB in 0..1 -> [b, channels, h/stride, w/stride]."""
        kept: dict[int, Tensor] = {}
        x = images
        for number, layer in enumerate(self.layers):
            if number in self.routes:
                read = [kept[source] for source in self.routes[number]]
                x = read[0] if len(read) == 1 else torch.cat(read, 1)
            else:
                x = layer(x)
            if number in self.kept:
                kept[number] = x
        return x


def _module(layer: Layer) -> nn.Module:
    if layer.kind == "convolutional":
        sizes = (layer.channels_in, layer.channels, layer.size, layer.stride, layer.padding)
        return ConvBlock(*sizes, layer.activation, layer.normalized)
    if layer.kind == "maxpool":
        plain = layer.padding == 0 and layer.size == layer.stride
        return nn.MaxPool2d(layer.size) if plain else MaxPool(layer.size, layer.stride, layer.padding)
    if layer.kind == "reorg":
        return Reorg(layer.stride)
    if layer.kind in ("route", "dropout"):  # a route is in `forward`; dropout does nothing once trained
        return nn.Identity()
    raise layer.section.fault(None, f"[{layer.kind}] inside the network; it stands at the end alone")


def split_head(layers: Sequence[Layer]) -> tuple[Sequence[Layer], Layer]:
    """A whole network's layers: those of the trunk, and the 1x1 convolution that its head reads.

    Raises:
        WordTreeError: by file and line, an end that is neither a detector's nor a classifier's.
    """
    before = [layer for layer in layers if layer.kind != "cost"]
    last = before.pop()
    if last.kind not in ("region", "softmax"):
        what = f"the network ends in [{last.kind}]; a detector ends in [region], a classifier in [avgpool] [softmax]"
        raise last.section.fault(None, what)
    if last.kind == "softmax" and (not before or before.pop().kind != "avgpool"):
        raise last.section.fault(None, "[softmax] without [avgpool] before it; a classifier has it there")
    while before and before[-1].kind == "dropout":
        before.pop()
    head = before.pop() if before else last
    plain = (head.kind, head.size, head.stride, head.padding, head.normalized, head.activation)
    if plain != ("convolutional", 1, 1, 0, False, "linear"):
        what = f"[{head.kind}] of size {head.size}, {head.activation}, before [{last.kind}]"
        raise head.section.fault(None, f"{what}; it is a convolution of size 1, linear, without batch_normalize")
    return before, head


def check_square(head: Layer, height: int, width: int) -> None:
    """A detector's input is square and a multiple of its stride."""
    stride = width // head.width
    if height != width or width != stride * head.width:
        what = f"an input of {width} x {height} pixels"
        raise WordTreeError(f"{head.section.file}: {what}; a detector of this stride takes squares of {stride} n")
