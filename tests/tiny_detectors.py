"""torchvision's four kinds of detectors on a trunk of two small convolutions, for 64-pixel images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

KINDS = ("fasterrcnn", "retinanet", "fcos", "ssd")
BACKGROUND = {"fasterrcnn": 1, "ssd": 1, "retinanet": 0, "fcos": 0}  # columns that are no class


class Trunk(nn.Module):
    """Images -> maps of strides 8 and 16."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.out_channels: Any = channels
        self.low = nn.Conv2d(3, channels, 8, stride=8)
        self.high = nn.Conv2d(channels, channels, 2, stride=2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        low = self.low(x).relu()
        return {"0": low, "1": self.high(low).relu()}


def tiny(kind: str, classes: int, seed: int = 0, spread: float = 3.0, **options: Any) -> Any:
    """One of torchvision's detectors with `classes` classes, its last layers drawn wide so that scores differ."""
    torch.manual_seed(seed)
    columns = classes + BACKGROUND[kind]
    if kind == "fasterrcnn":
        anchors = AnchorGenerator(((16,), (32,)), ((0.5, 1.0, 2.0),) * 2)
        pool = MultiScaleRoIAlign(["0", "1"], output_size=3, sampling_ratio=1)
        given = {"rpn_post_nms_top_n_train": 60, "rpn_post_nms_top_n_test": 40, "box_batch_size_per_image": 32}
        model: Any = FasterRCNN(
            Trunk(), columns, min_size=64, max_size=64, rpn_anchor_generator=anchors, box_roi_pool=pool,
            box_head=TwoMLPHead(32 * 9, 1024), **{**given, **options},
        )  # fmt: skip
        last = [model.roi_heads.box_predictor.cls_score]
    elif kind == "retinanet":
        anchors = AnchorGenerator(((16, 24), (32, 48)), ((0.5, 1.0, 2.0),) * 2)
        model = RetinaNet(Trunk(), columns, min_size=64, max_size=64, anchor_generator=anchors, **options)
        last = [model.head.classification_head.cls_logits]
    elif kind == "fcos":
        anchors = AnchorGenerator(((8,), (16,)), ((1.0,),) * 2)
        model = FCOS(Trunk(), columns, min_size=64, max_size=64, anchor_generator=anchors, **options)
        last = [model.head.classification_head.cls_logits]
    else:
        trunk = Trunk()
        trunk.out_channels = [32, 32]
        model = SSD(trunk, DefaultBoxGenerator([[2], [2, 3]]), (64, 64), columns, **options)
        last = list(model.head.classification_head.module_list)
    for layer in model.modules():  # torchvision draws towers so small that all cells would look alike
        if isinstance(layer, nn.Conv2d) and layer not in last:
            nn.init.kaiming_normal_(layer.weight)
    images = [torch.rand(3, 64, 64)]
    with torch.no_grad():
        for layer in last:
            read: list[Tensor] = []
            hook = layer.register_forward_hook(lambda module, args, out, into=read: into.append(out))
            model.eval()(images)
            hook.remove()
            layer.weight *= spread / torch.cat([out.flatten() for out in read]).std()
            layer.bias.fill_(-1.0)
    return model


def scene(labels: list[int], size: int = 64) -> dict[str, Tensor]:
    """A target with a box for each label."""
    corner = torch.arange(len(labels), dtype=torch.float32)[:, None] * 9
    boxes = torch.cat((corner + 2, corner + 3, corner + 29, corner + 33), dim=1)
    return {"boxes": boxes.clamp(max=size), "labels": torch.tensor(labels, dtype=torch.int64)}
