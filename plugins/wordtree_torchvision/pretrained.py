"""What a torchvision detector starts from: weights by torchvision's name, or a state dict in their place."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchvision.models import get_model, get_model_builder, get_model_weights
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from wordtree.errors import unknown

COCO_COLUMNS = 91  # the background, 80 classes, and ten numbers that COCO left free
KINDS = {"fasterrcnn": FasterRCNN, "fcos": FCOS, "retinanet": RetinaNet, "ssd300": SSD, "ssdlite320": SSD}
# SSD300 takes pixels up to 255, as these of VGG-16's weights do, and the classifier's do not
TRUNKS = {"resnet50": "DEFAULT", "mobilenet_v3_large": "DEFAULT", "vgg16": "IMAGENET1K_FEATURES"}
CLASSIFIER = ("fc.", "classifier.")  # names of the last layers that a trunk leaves behind
OURS = ("self", "backbone", "weights", "weights_backbone", "kwargs")  # of the signatures, what `build` does not pass on

State = Mapping[str, Tensor]


class InHand:
    """Weights of torchvision's with other tensors: its builder makes the network that goes with them, and loads these.

    A builder asks whether weights are of its own enumeration, for their classes, and for a state dict.
    """

    def __init__(self, like: Any, state: State) -> None:
        self.like, self.state = like, state

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self.like)

    def __eq__(self, other: object) -> bool:
        return bool(self.like == other)

    def __hash__(self) -> int:
        return hash(self.like)

    @property
    def meta(self) -> dict[str, Any]:
        """Of the weights that these stand for."""
        return self.like.meta  # type: ignore[no-any-return]

    def get_state_dict(self, **options: Any) -> dict[str, Tensor]:
        """The tensors in hand."""
        return dict(self.state)


def taken_by(name: str) -> list[str]:
    """The options that a builder of torchvision takes by name; itself it passes over those that it does not know."""
    places = (get_model_builder(name), KINDS[name.partition("_")[0]], GeneralizedRCNNTransform)
    taken = [option for place in places for option in inspect.signature(place).parameters]
    return [option for option in dict.fromkeys(taken) if option not in OURS]


def detector_weights(name: str, weights: Any, options: Mapping[str, Any]) -> Any:
    """What torchvision's builder takes for `weights`: a name of its own, or a state dict; None for none.

    Raises:
        WordTreeError: a name that torchvision does not have.
    """
    published = get_model_weights(name)
    if not isinstance(weights, Mapping):
        return _named(f"weights of {name}", weights, published)
    plain = {key: value for key, value in options.items() if key not in ("num_classes", "trainable_backbone_layers")}
    return InHand(published.DEFAULT, weights or blank(name, weights_backbone=None, num_classes=COCO_COLUMNS, **plain))


def trunk_weights_of(name: str, weights: Any) -> Any:
    """What torchvision's builder takes for `weights_backbone`; None for none, and for a state dict of a `backbone`.

    Raises:
        WordTreeError: a name that torchvision does not have.
    """
    trunk = next(trunk for trunk in TRUNKS if trunk in name)
    published = get_model_weights(trunk)
    if not isinstance(weights, Mapping):
        asked = _named(f"trunk_weights of {name}", weights, published)
        return published[TRUNKS[trunk]] if asked == "DEFAULT" else asked
    if weights and not any(key.startswith(CLASSIFIER) for key in weights):
        return None
    return InHand(published[TRUNKS[trunk]], weights or blank(trunk))


def blank(name: str, **options: Any) -> dict[str, Tensor]:
    """The names and shapes of a network's state dict, without the memory: nothing is drawn, fetched or read."""
    with torch.device("meta"):
        state = get_model(name, weights=None, **options).state_dict()
    return {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in state.items()}


def _named(what: str, weights: Any, published: Any) -> Any:
    names = ["DEFAULT", *(one.name for one in published)]
    if isinstance(weights, str) and weights not in names:
        raise unknown(what, weights, names)
    return weights
