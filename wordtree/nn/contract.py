"""What every detector on the contract asks of its images and targets, whatever it is made of."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import WordTreeError
from ..tree import WordTree

WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)  # types that labels may be of


def check_image(image: Tensor, channels: int = 3) -> None:
    """Refuse what is no image of that many channels.

    Raises:
        WordTreeError: another shape, no pixel, or whole numbers.
    """
    if image.dim() != 3 or image.shape[0] != channels or not image.numel() or not image.is_floating_point():
        raise WordTreeError(
            f"an image of shape {tuple(image.shape)}, {_type(image)}; give float [{channels}, h, w] in 0..1, of a "
            "pixel at least"
        )


def checked_target(target: Mapping[str, Tensor], number: int, tree: WordTree) -> dict[str, Tensor]:
    """A target with its labels as int64; its boxes are its detector's to check.

    Args:
        target: `labels`, whole numbers, with `boxes` [n] nodes, alone one or a scalar; optionally `known`.
        number: of the target in its batch, for messages.
        tree: the classes.

    Raises:
        WordTreeError: no labels, or neither boxes nor a label; labels or `known` of another type or shape; a label that
            is no node, which is looked at on the CPU alone.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> nothing = {"boxes": torch.zeros(0, 4), "labels": torch.tensor([])}  # which torch makes of floats
        >>> checked_target(nothing, 0, tree)["labels"].dtype
        torch.int64
    """
    if "labels" not in target:
        raise WordTreeError(f"target {number} has {sorted(target)}; it takes labels, and boxes where known")
    labels, known, nodes = target["labels"], target.get("known"), len(tree)
    if not labels.numel() and "boxes" not in target:
        raise WordTreeError(f"target {number} has no boxes and no label; give one of them")
    flat = labels.dim() == 1 or (labels.dim() == 0 and "boxes" not in target)
    if not flat or (labels.numel() and labels.dtype not in WHOLE):
        raise WordTreeError(
            f"target {number} has labels of shape {tuple(labels.shape)}, {_type(labels)}; give int64 [n], nodes"
        )
    # on the CPU alone: elsewhere a look would wait for the device
    if labels.device.type == "cpu" and bool(((labels < 0) | (labels >= nodes)).any()):
        raise WordTreeError(f"target {number} has labels {labels.tolist()}; nodes are 0 to {nodes - 1}")
    if known is not None and (known.shape != (nodes,) or known.dtype != torch.bool):
        raise WordTreeError(
            f"target {number} has known of shape {tuple(known.shape)}, {_type(known)}; give bool [{nodes}]"
        )
    return {**target, "labels": labels.long()}


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
