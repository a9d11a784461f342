"""A detector made fast for detection alone: batch-norm folded into the convolutions, features channels last."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wordtree import WordTreeError
from wordtree.errors import unknown

from .batchnorm import EPSILON, BatchNorm
from .detector import Detector
from .hardware import home_of
from .trunks import NamedTrunk

PLAIN = (nn.BatchNorm2d, BatchNorm)  # others, such as timm's, do more than normalise
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def own(model: nn.Module, asked: str) -> Detector:
    """The detector itself, where it is one of ours: of a plug-in's nothing is known but the contract.

    Raises:
        WordTreeError: a plug-in's detector, or no detector.
    """
    if not isinstance(model, Detector):
        name = getattr(model, "name", type(model).__name__)
        raise WordTreeError(
            f"{asked} of {name}, which is no detector of ours; give one of ours, or do it with the module inside"
        )
    return model


def fuse(model: Detector, precision: str = "float32", compile: bool | str = False) -> Detector:
    """Make a detector fast, in place: it detects as before and can no longer be trained or saved.

    Every convolution takes in the batch-norm and the leaky rectifier behind it (of either arithmetic, torch's or
    Darknet's), and features lie channels last. On a processor the weights are laid out once as its convolution reads
    them, with the first image.

    Args:
        model: any detector.
        precision: of the convolutions; boxes and class logits are computed in float32 in any case. "bfloat16" or
            "float16" where the device has units for it. A trunk by name stays in float32.
        compile: compile the network with `torch.compile`, on a GPU into CUDA graphs. The first image of each size waits
            for it. On a processor the fused network is no slower without. Or the name of a compiler's backend.

    The batch-norm's arithmetic is that of this moment: set a mode that changes it before, as `yolo9000.load` does.

    Returns:
        the model given. One that is fused already stays as it is.

    Raises:
        WordTreeError: an unknown precision, a plug-in's detector.

    Example:
        >>> from yolo9000 import models
        >>> tree = WordTree(["animal", "dog"], [-1, 0])
        >>> model = fuse(models.yolo9000(tree, size=96, widths=(8, 16, 32), counts=(1, 1, 3)))
        >>> len(model([torch.rand(3, 96, 96)]))
        1
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    model = own(model, "fuse")
    by_name = isinstance(model.trunk, NamedTrunk)  # of which not every convolution is found: it stays in one precision
    _fold_inside(model.trunk, torch.float32 if by_name else PRECISIONS[precision])
    _fold_inside(model.neck, PRECISIONS[precision])
    if isinstance(model.head.boxes, nn.Conv2d):
        model.head.boxes = FusedConv(model.head.boxes)  # type: ignore[assignment]
    if compile:
        on_gpu = home_of(model).type == "cuda"
        options: dict[str, Any] = {"mode": "reduce-overhead"} if on_gpu else {}
        options = {"backend": compile} if isinstance(compile, str) else options
        object.__setattr__(model, "region", torch.compile(model.region, **options))
    return model.eval()


class FusedConv(nn.Module):
    """A convolution with what stands behind it, batch-norm and leaky rectifier, in one pass over the features.

    Args:
        convolution: its weight is read, not shared.
        norm: folded into weight and bias; its `arithmetic` says whose it is, torch's where it has none.
        slope: of the leaky rectifier; None for none.
        dtype: in which it computes; features of another are cast.
    """

    def __init__(
        self,
        convolution: nn.Conv2d,
        norm: nn.BatchNorm2d | None = None,
        slope: float | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        weight, bias = folded(convolution, norm)
        weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
        self.stride, self.padding = convolution.stride, convolution.padding
        self.dilation, self.groups = convolution.dilation, convolution.groups
        self.slope = slope
        self._packed: Tensor | None = None  # the weight as the processor's convolution reads it

    def extra_repr(self) -> str:
        out, in_, *kernel = self.weight.shape
        return f"{in_ * self.groups}, {out}, kernel_size={tuple(kernel)}, slope={self.slope}, {self.weight.dtype}"

    def forward(self, x: Tensor) -> Tensor:
        """[b, c_in, h, w] -> [b, c_out, h, w], channels last."""
        x = x.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
        if self._packs(x):
            return self._forward_packed(x)
        x = nn.functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return x if self.slope is None else nn.functional.leaky_relu(x, self.slope)

    def _packs(self, x: Tensor) -> bool:
        """Whether oneDNN's fused convolution takes it: on a processor, outside of a traced graph and without
        gradients."""
        if x.device.type != "cpu" or torch.compiler.is_compiling() or x.requires_grad:
            return False
        return isinstance(self.padding, tuple) and _onednn_takes(x.dtype)

    def _forward_packed(self, x: Tensor) -> Tensor:
        ops: Any = torch.ops.mkldnn
        shape = self.padding, self.stride, self.dilation, self.groups
        with torch.no_grad():
            if self._packed is None:
                self._packed = ops._reorder_convolution_weight(self.weight, *shape, list(x.shape))
            after = ("none", [], "") if self.slope is None else ("leaky_relu", [self.slope], "")
            return ops._convolution_pointwise(x, self._packed, self.bias, *shape, *after)  # type: ignore[no-any-return]

    def _apply(self, fn: Any, recurse: bool = True) -> "FusedConv":
        before = self.weight.data_ptr(), self.weight.dtype
        super()._apply(fn, recurse)
        if (self.weight.data_ptr(), self.weight.dtype) != before:  # `.to` where it is already leaves it packed
            self._packed = None
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}  # a copy packs its own

    def train(self, mode: bool = True) -> "FusedConv":
        """Refuses to train: the statistics of its batch-norm are gone."""
        if mode:
            raise WordTreeError("a fused detector asked to train; it detects alone: train the model as it was loaded")
        return super().train(mode)


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does the work of both, in float32; computed in float64.

    Batch-norm is y = gain (x - mean) / deviation + bias, the deviation sqrt(var + eps), or Darknet's sqrt(var) + 1e-6.
    """
    weight = convolution.weight.detach().double()
    bias = weight.new_zeros(len(weight)) if convolution.bias is None else convolution.bias.detach().double()
    if norm is not None:
        mean, var = norm.running_mean, norm.running_var
        assert mean is not None
        assert var is not None
        darknet = getattr(norm, "arithmetic", "torch") == "darknet"
        deviation = var.double().sqrt() + EPSILON if darknet else (var.double() + norm.eps).sqrt()
        gain = (norm.weight.detach().double() if norm.affine else torch.ones_like(deviation)) / deviation
        shift = norm.bias.detach().double() if norm.affine else 0.0
        weight, bias = weight * gain[:, None, None, None], (bias - mean.double()) * gain + shift
    return weight.float(), bias.float()


def _fold_inside(module: nn.Module, dtype: torch.dtype) -> None:
    """Fold each convolution of a module's sequences with what follows it."""
    for child in module.children():
        _fold_inside(child, dtype)
    if not isinstance(module, nn.Sequential):
        return
    for at, convolution in enumerate(module):
        if type(convolution) is not nn.Conv2d:  # timm's own pad by themselves
            continue
        norm, slope, last = None, None, at
        for follows in list(module)[at + 1 :]:
            if isinstance(follows, nn.BatchNorm2d) and type(follows) in PLAIN and norm is None and slope is None:
                norm = follows
            elif isinstance(follows, nn.LeakyReLU | nn.ReLU) and slope is None:
                slope = getattr(follows, "negative_slope", 0.0)
            elif not isinstance(follows, nn.Identity):
                break
            last += 1
        module[at] = FusedConv(convolution, norm, slope, dtype)
        for place in range(at + 1, last + 1):
            module[place] = nn.Identity()


def _onednn_takes(dtype: torch.dtype) -> bool:
    ops: Any = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and hasattr(ops, "_convolution_pointwise")):
        return False
    if dtype == torch.bfloat16:
        return bool(ops._is_mkldnn_bf16_supported())
    return dtype == torch.float32


class Graphed:
    """Work on a batch of one shape, captured as a CUDA graph: launched at once, without Python between its kernels.

    Anywhere but on a GPU it is the work itself.

    Args:
        work: takes the batch, gives tensors; it waits for nothing and its shapes are fixed, as those of
            `forms.GatedForm` with reads="whole" are.
        batch: an example.
    """

    def __init__(self, work: Callable[[Tensor], Any], batch: Tensor) -> None:
        self._work = work
        self._graph: torch.cuda.CUDAGraph | None = None
        if batch.device.type != "cuda":
            return
        self._batch = batch.clone(memory_format=torch.preserve_format)
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside), torch.no_grad():
            for _ in range(3):  # libraries choose and allocate before the capture
                work(self._batch)
        torch.cuda.current_stream().wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph), torch.no_grad():
            self._out = work(self._batch)

    def __call__(self, batch: Tensor) -> Any:
        """What the work gives; on a GPU in tensors that the next call writes over."""
        if self._graph is None:
            with torch.no_grad():
                return self._work(batch)
        self._batch.copy_(batch)
        self._graph.replay()
        return self._out
