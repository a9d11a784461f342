"""Darknet-19's blocks (paper section 3, table 6): 3x3 convolutions that double the channels after each pooling, 1x1
convolutions between them that halve, batch-norm and leaky rectifier after each; and YOLOv2's passthrough."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .batchnorm import BatchNorm

WIDTHS = (32, 64, 128, 256, 512, 1024)
COUNTS = (1, 1, 3, 3, 5, 5)
EXTRACTION = (  # filters and window of each convolution, stage by stage
    ((64, 7),),
    ((192, 3),),
    ((128, 1), (256, 3), (256, 1), (512, 3)),
    (*((256, 1), (512, 3)) * 4, (512, 1), (1024, 3)),
    ((512, 1), (1024, 3)) * 2,
)

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=True),
    "linear": nn.Identity,
    "relu": lambda: nn.ReLU(inplace=True),
    "logistic": nn.Sigmoid,
}


class ConvBlock(nn.Sequential):
    """Convolution without bias, batch-norm, leaky rectifier of slope 0.1. [b, c_in, h, w] -> [b, c_out, h, w].

    Args:
        channels_in, channels_out, kernel: of the convolution.
        stride, padding: likewise; a padding of half the kernel where left out.
        activation: "leaky", "linear", "relu" or "logistic".
        normalized: False for a bias in place of batch-norm.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int = 1,
        padding: int | None = None,
        activation: str = "leaky",
        normalized: bool = True,
    ) -> None:
        padding = kernel // 2 if padding is None else padding
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=not normalized),
            BatchNorm(channels_out) if normalized else nn.Identity(),
            ACTIVATIONS[activation](),
        )


class MaxPool(nn.Module):
    """Darknet's pooling: `(side + 2 padding) // stride` windows, the first `padding` before the edge; what lies outside
    counts for nothing. Size 2 and stride 1, the tiny networks' last, keeps the map's size."""

    def __init__(self, size: int, stride: int, padding: int | None = None) -> None:
        super().__init__()
        self.size = size
        self.stride = stride
        self.padding = (size - 1) // 2 if padding is None else padding

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, h, w] -> [b, c, (h + 2 padding) // stride, (w + 2 padding) // stride]."""
        sides = []
        for side in (x.shape[3], x.shape[2]):
            windows = (side + 2 * self.padding) // self.stride
            sides += [self.padding, (windows - 1) * self.stride + self.size - self.padding - side]
        return nn.functional.max_pool2d(nn.functional.pad(x, sides, value=-math.inf), self.size, self.stride)

    def extra_repr(self) -> str:
        return f"size={self.size}, stride={self.stride}, padding={self.padding}"


class Trunk(nn.Module):
    """What turns an image into features.

    Attributes:
        channels: of the output.
        stride: pixels a cell of the output.
    """

    channels: int
    stride: int


class Staged(Trunk):
    """A trunk of stages, each of which halves the map but for the first of Darknet-19.

    Attributes:
        stages: in order.
        passthrough_channels: of the stage before the last, which YOLOv2's passthrough reads.
    """

    stages: nn.ModuleList
    passthrough_channels: int

    def forward(self, images: Tensor) -> Tensor:
        """float [b, 3, h, w], RGB in 0..1, h and w multiples of the stride -> [b, channels, h/stride, w/stride]."""
        return self.forward_both(images)[1]

    def forward_both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The last two stages' features: [b, passthrough_channels, 2h, 2w] and [b, channels, h, w]."""
        before = features = images
        for stage in self.stages:
            before, features = features, stage(features)
        return before, features


class Darknet19(Staged):
    """The trunk: an image in, features at stride `2 ** (stages - 1)` out.

    Args:
        widths: channels of each stage's 3x3 convolutions; 2x2 pooling stands between stages.
        counts: convolutions a stage, odd: 3x3 and 1x1 in turn.
        normalized: False for biases in place of batch-norm.

    Attributes:
        channels: of the output.
        stride: pixels a cell of the output.
        passthrough_channels: of the stage before the last pooling, which YOLOv2's passthrough reads.

    Example:
        >>> import torch
        >>> Darknet19()(torch.zeros(1, 3, 416, 416)).shape
        torch.Size([1, 1024, 13, 13])
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, counts: Sequence[int] = COUNTS, normalized: bool = True) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        channels = 3
        for width, count in zip(widths, counts, strict=True):
            blocks: list[nn.Module] = [nn.MaxPool2d(2)] if stages else []
            for position in range(count):
                wide = position % 2 == 0
                sizes = (channels, width if wide else width // 2, 3 if wide else 1)
                blocks.append(ConvBlock(*sizes, normalized=normalized))
                channels = width if wide else width // 2
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.channels = widths[-1]
        self.stride = 2 ** (len(stages) - 1)
        self.passthrough_channels = widths[-2]


class Extraction(Staged):
    """The network before Darknet-19: YOLO's, as a classifier (Darknet's extraction.cfg, 8.52 billion operations at
    224). Features at stride 32.

    Args:
        width: channels of the last convolution; the others go with it.
        normalized: False for biases in place of batch-norm.

    Example:
        >>> import torch
        >>> Extraction(64)(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 64, 2, 2])
    """

    def __init__(self, width: int = 1024, normalized: bool = True) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        channels = 3
        for layers in EXTRACTION:
            blocks: list[nn.Module] = [nn.MaxPool2d(2)] if stages else []
            for filters, kernel in layers:
                out = max(1, filters * width // 1024)
                stride = 1 if stages or blocks else 2
                blocks.append(ConvBlock(channels, out, kernel, stride, normalized=normalized))
                channels = out
            stages.append(nn.Sequential(*blocks))
            self.passthrough_channels = channels if len(stages) < len(EXTRACTION) else self.passthrough_channels
        self.stages = nn.ModuleList(stages)
        self.channels = channels
        self.stride = 32


class Passthrough(nn.Module):
    """YOLOv2's passthrough (paper section 2, "Fine-Grained Features"): the finer map, folded, beside the coarse one.

    Args:
        fine, coarse: channels of the trunk's last two stages.
        squeeze: 1x1 channels before folding (64 in Darknet's later cfgs, 0 for none as in the paper: 2048 + 1024).
        width: channels of the 3x3 convolutions.
        normalized: False for biases in place of batch-norm.
    """

    def __init__(self, fine: int, coarse: int, squeeze: int, width: int, normalized: bool = True) -> None:
        super().__init__()
        self.deep = nn.Sequential(
            ConvBlock(coarse, width, 3, normalized=normalized), ConvBlock(width, width, 3, normalized=normalized)
        )
        self.squeeze = ConvBlock(fine, squeeze, 1, normalized=normalized) if squeeze else nn.Identity()
        self.join = ConvBlock(4 * (squeeze or fine) + width, width, 3, normalized=normalized)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """[b, fine, 2h, 2w] and [b, coarse, h, w] -> [b, width, h, w]."""
        folded = darknet_reorg(self.squeeze(fine))
        return self.join(torch.cat((folded, self.deep(coarse)), dim=1))  # type: ignore[no-any-return]


def darknet_reorg(x: Tensor, stride: int = 2) -> Tensor:
    """Darknet's `reorg`: [b, c, h, w] -> [b, c * s^2, h / s, w / s]. Not space-to-depth; trained weights need it.

    The input is read as [c / s^2, h * s, w * s], folded there, and the result is read as [c * s^2, h / s, w / s].
    """
    b, c, h, w = x.shape
    s = stride
    view = x.reshape(b, c // s**2, h, s, w, s).permute(0, 3, 5, 1, 2, 4)
    return view.reshape(b, c * s * s, h // s, w // s)
