"""Batch normalisation in two arithmetics: torch's, and the original program's, whose weights were trained with it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wordtree import WordTreeError
from wordtree.errors import unknown

ARITHMETICS = ("torch", "darknet")
EPSILON = 1e-6  # Darknet's forward pass, beside the root
BACKWARD_EPSILON = 1e-5  # its backward pass, beside the root in one term and under it in the others


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, same state, with the arithmetic as an attribute to be set at any time.

    Attributes:
        arithmetic: "torch" is `nn.BatchNorm2d` itself, y = scale (x - mean) / sqrt(var + eps) + bias. "darknet" is the
            original program on its CPU: y = scale (x - mean) / (sqrt(var) + 1e-6) + bias, `eps` unused; in training
            with the batch's mean and unbiased variance (n - 1), and a backward pass that is nearly its derivative.
        momentum: the weight of the batch in the running statistics: .1 in the 2017-01 release on a CPU, .01 on a GPU
            and in later releases.

    Errors: an unknown arithmetic; in training with "darknet", one value a channel, which has no variance.

    Example:
        >>> norm = BatchNorm(4).eval()
        >>> norm.arithmetic = "darknet"
        >>> bool((norm(torch.ones(1, 4, 2, 2)) < 1).all())
        True
    """

    arithmetic = "torch"

    def forward(self, x: Tensor) -> Tensor:
        """float [b, channels, h, w] -> the same shape."""
        if self.arithmetic == "torch":
            return super().forward(x)
        if self.arithmetic != "darknet":
            raise unknown("batch-norm arithmetic", self.arithmetic, ARITHMETICS)
        if self.training:
            return self._train(x)
        var = (self._var().sqrt() + EPSILON) ** 2
        # not by nn.functional, which refuses an eps of 0 in some versions: it is in the variance
        return torch.batch_norm(
            x, self.weight, self.bias, self.running_mean, var, False, 0.0, 0.0, torch.backends.cudnn.enabled
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, arithmetic={self.arithmetic}"

    def _var(self) -> Tensor:
        assert self.running_var is not None
        return self.running_var

    def _train(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)  # sums in half precision would be of no use
        count = x.numel() // x.shape[1]
        if count < 2:
            raise WordTreeError(
                f"{count} value a channel to train batch-norm on, from {tuple(x.shape)}; give more or larger images"
            )
        with torch.no_grad():
            var, mean = torch.var_mean(x, (0, 2, 3), correction=1)
            assert self.running_mean is not None
            assert self.momentum is not None
            assert self.num_batches_tracked is not None
            self.running_mean.lerp_(mean, self.momentum)
            self._var().lerp_(var, self.momentum)
            self.num_batches_tracked += 1
        return _Darknet.apply(x, self.weight, self.bias, mean, var)  # type: ignore[no-any-return]


class _Darknet(torch.autograd.Function):
    """The training pass of Darknet's 2017-01 CPU code (mean_delta_cpu, variance_delta_cpu, normalize_delta_cpu).

    Its derivative by the variance is that of the biased one, and its epsilons differ from the forward pass's.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale, mean, var)
        return _wide(scale / (var.sqrt() + EPSILON)) * (x - _wide(mean)) + _wide(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, mean, var = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        centred = x - _wide(mean)
        of_bias = grad.sum((0, 2, 3))
        along = (grad * centred).sum((0, 2, 3))
        root = (var + BACKWARD_EPSILON).sqrt()
        of_x = grad * _wide(scale / (var.sqrt() + BACKWARD_EPSILON))
        of_x -= centred * _wide(scale * along / (count * root**3))
        of_x -= _wide(scale * of_bias / (count * root))
        return of_x, along / (var.sqrt() + EPSILON), of_bias, None, None


def _wide(values: Tensor) -> Tensor:
    """[channels] -> [channels, 1, 1]"""
    return values[:, None, None]


def set_batchnorm(model: nn.Module, arithmetic: str, momentum: float | None = None) -> None:
    """Give every `BatchNorm` of a model this arithmetic and, where given, this weight of a batch in the running
    statistics.

    Raises:
        WordTreeError: an unknown arithmetic.

    Example:
        >>> from yolo9000.darknet19 import Darknet19
        >>> set_batchnorm(Darknet19((8, 8), (1, 1)), "darknet", momentum=0.01)
    """
    if arithmetic not in ARITHMETICS:
        raise unknown("batch-norm arithmetic", arithmetic, ARITHMETICS)
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.arithmetic = arithmetic
            module.momentum = module.momentum if momentum is None else momentum
