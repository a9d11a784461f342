"""torchvision's FCOS on a small trunk of your own, over a tree: offered in this process, trained by `yolo9000.train`.

    python examples/fcos.py             # the main job's data, jointly; the main job's table
    python examples/fcos.py --boxes     # the same scenes without the pictures that have a name alone

A trunk of your own is whatever gives maps of features; here it is the small Darknet-19 of the main job, so that two
cores train it from random weights in minutes.
"""

import argparse
from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from wordtree_torchvision import attach

import yolo9000
from wordtree import WordTree, hookimpl, plugins
from wordtree.plugins import Detector
from yolo9000.darknet19 import Darknet19

NAME = "examples/fcos"
CHANNELS = 128


class Trunk(nn.Module):
    """Images -> one map of features, 16 pixels a cell."""

    out_channels = CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.darknet = Darknet19(widths=(16, 32, 64, 128, 256), counts=(1, 1, 3, 3, 5))
        self.narrow = nn.Conv2d(self.darknet.channels, CHANNELS, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """float [b, 3, h, w] -> {"0": float [b, 128, h / 16, w / 16]}."""
        return OrderedDict({"0": self.narrow(self.darknet(images))})


def build(tree: WordTree, size: int = 160) -> nn.Module:
    """FCOS of one level over a tree. size: pixels of an image's side."""
    model = FCOS(
        Trunk(),
        num_classes=1,  # an object or none; the tree names it
        min_size=size,
        max_size=size,
        anchor_generator=AnchorGenerator(((32,),), ((1.0,),)),
        head=FCOSHead(CHANNELS, num_anchors=1, num_classes=1, num_convs=0),
    )
    return attach(model, tree)


class Plugin:
    """What a plug-in's module would hold."""

    @hookimpl
    def register_detectors(self) -> list[Detector]:
        """One detector, by name."""
        return [Detector(NAME, build, "FCOS on the small Darknet-19")]


def main() -> None:
    """Train, evaluate, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", action="store_true", help="without the pictures that have a name alone")
    parser.add_argument("--out", help="the run's folder")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--classifier-steps", type=int, default=1500, help="of names alone, which come first")
    parser.add_argument("--image-label", default="score", help="which box takes a name")
    parser.add_argument("--precision", default="auto")
    given = vars(parser.parse_args())
    joint = not given.pop("boxes")
    out = given.pop("out") or ("runs/fcos" if joint else "runs/fcos-boxes")
    plugins.register(Plugin())
    run = yolo9000.train(joint=joint, detector=NAME, out=out, sizes=[160], **given)
    for name, value in run.metrics.items():
        print(f"{name:40} {value:.3f}")


if __name__ == "__main__":
    main()
