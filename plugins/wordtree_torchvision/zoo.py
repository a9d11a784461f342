"""torchvision's builders, and the step from one of its detectors to one over a tree."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn
from torchvision.models import get_model
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD

from wordtree import WordTree, WordTreeError, label_maps
from wordtree.errors import unknown

from . import SUMMARIES
from .dense import DenseTreeDetector, layers_of
from .detector import TreeDetector
from .head import Knowledge, TreeHead
from .pretrained import COCO_COLUMNS, detector_weights, taken_by, trunk_weights_of
from .rcnn import TreeRCNN


def build(
    name: str,
    tree: WordTree,
    weights: Any = None,
    trunk_weights: Any = None,
    width: int = 256,
    size: int | None = None,
    **options: Any,
) -> TreeDetector:
    """One of torchvision's detectors over a tree.

    Args:
        name: torchvision's own, such as "retinanet_resnet50_fpn".
        tree: the classes.
        weights: of a detector pretrained on COCO, by torchvision's name ("DEFAULT"; torchvision downloads them), or a
            state dict in hand: trunk and boxes are kept, and the tree starts from what its classes know.
        trunk_weights: of the trunk alone, by torchvision's name ("DEFAULT"; torchvision downloads them), or a state
            dict, of the classifier that the trunk is of or of a detector's `backbone`.
        width: of the tree head's embedding.
        size: pixels of an image's shorter side, the longer 5/3 of it at most, or of each side with SSDlite;
            torchvision's where left out. SSD300 keeps to its own, to which its last layers and its anchors are bound.
            `min_size` and `max_size` win over it.
        options: torchvision's, such as min_size, max_size, trainable_backbone_layers; num_classes of weights that are
            not COCO's.

    A state dict is read as torchvision's own download would be: into a trunk with the batch-norms frozen and the layers
    trained that torchvision's weights have. An empty one gives that network, and no weights; `options` of what is
    returned has one in their place, and builds the same network again, but for `size`.

    Raises:
        WordTreeError: an unknown name or option; weights of that name that torchvision does not have, or that do not
            fit.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> model = build("ssdlite320_mobilenet_v3_large", tree).eval()
        >>> sorted(model([torch.rand(3, 90, 120)])[0])
        ['boxes', 'labels', 'objectness', 'path_probs', 'paths', 'scores']
    """
    if name not in SUMMARIES:
        raise unknown("torchvision detector", name, SUMMARIES)
    known = taken_by(name)
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, ["weights", "trunk_weights", "width", "size", *known])
    again = {"width": width, **options}
    if size is not None and not name.startswith("ssd") and not options.keys() & {"min_size", "max_size"}:
        options |= {"min_size": size, "max_size": size * 5 // 3}
    # a state dict of other classes, or of a trunk as it stands in a detector, is loaded when all is built
    coco = weights is not None and options.get("num_classes", COCO_COLUMNS) == COCO_COLUMNS
    late = {"": weights} if isinstance(weights, Mapping) and not coco else {}
    given, trunk = None if late else detector_weights(name, weights, options), trunk_weights_of(name, trunk_weights)
    if trunk is None and isinstance(trunk_weights, Mapping):
        late["backbone"] = trunk_weights
    again |= {key: {} for key, value in (("weights", given), ("trunk_weights", trunk)) if value is not None}
    if given is None:  # a column for the background, where there is one
        options.setdefault("num_classes", 2 if name.startswith(("fasterrcnn", "ssd")) else 1)
    try:
        model = get_model(name, weights=given, weights_backbone=trunk, **options)
    except (TypeError, ValueError) as error:
        raise WordTreeError(f"{name} with {options}: {error}; give what torchvision's builder takes") from error
    except RuntimeError as error:  # names and shapes of a state dict
        raise _misfit(name, " ".join(str(error).split())[:300]) from error
    for part, state in late.items():
        _load(model.get_submodule(part), state, f"the trunk of {name}" if part else name)
    if size is not None and name.startswith("ssdlite"):  # its anchors are fractions of the image, whatever its size
        model.size = model.transform.fixed_size = (size, size)
        model.transform.min_size, model.transform.max_size = (size,), size
    detector = attach(model, tree, width=width)
    detector.options = again
    return detector


def attach(
    model: nn.Module, tree: WordTree, columns: Sequence[str | None] | None = None, width: int = 256
) -> TreeDetector:
    """A tree on a torchvision detector in hand, which is kept, shared, and trained on with the tree.

    Its classes become the objectness; the tree starts from what they know where `columns` says what they mean.

    Args:
        model: a FasterRCNN, RetinaNet, FCOS or SSD (SSDlite is one), with any trunk.
        tree: the classes.
        columns: the node id of each class of the detector, None for those that mean nothing, such as a background.
            COCO's where the model has 91 classes and nothing is given; `[None] * 91` starts afresh.
        width: of the tree head's embedding.

    Raises:
        WordTreeError: another kind of model, as many columns as the model does not have, or none that is on the tree.

    Example:
        >>> from torchvision.models.detection import ssdlite320_mobilenet_v3_large
        >>> model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)  # 91 classes
        >>> tree = WordTree(["n00015388", "n00017222", "n02084071", "n02121620"], [-1, -1, 0, 0])
        >>> attach(model, tree).head.knowledge.nodes  # it knows dogs and cats, and so animals
        array([0, 2, 3])
    """
    if isinstance(model, FasterRCNN) and not model.roi_heads.has_mask() and not model.roi_heads.has_keypoint():
        score = model.roi_heads.box_predictor.cls_score
        count, inputs = score.out_features, [(score.in_features, 1)]
        kind: type[TreeDetector] = TreeRCNN
    elif isinstance(model, (RetinaNet, FCOS, SSD)):
        layers, count = layers_of(model)
        inputs = [
            (last.in_channels * last.kernel_size[0] * last.kernel_size[1], last.out_channels // count)
            for _, last in layers
        ]
        kind = DenseTreeDetector
    else:
        raise WordTreeError(
            f"a tree on a {type(model).__name__}; attach takes torchvision's FasterRCNN, RetinaNet, FCOS and SSD"
        )
    head = TreeHead(tree, inputs, knowledge_of(tree, columns, count), width)
    return kind(model, head.to(next(model.parameters())))


def knowledge_of(tree: WordTree, columns: Sequence[str | None] | None, count: int) -> Knowledge | None:
    """What a model's classes know of a tree; None where that is nothing."""
    asked = columns is not None and any(column is not None for column in columns)
    if columns is None:
        columns = coco_columns() if count == COCO_COLUMNS else [None] * count
    if len(columns) != count:
        raise WordTreeError(f"{len(columns)} columns for a model of {count} classes; give an id or None for each")
    place = {id_: node for node, id_ in enumerate(tree.ids)}
    nodes = np.array([-1 if column is None else place.get(column, -1) for column in columns], dtype=np.int64)
    if (nodes >= 0).any():
        return Knowledge(tree, nodes)
    if asked:
        named = ", ".join([column for column in columns if column is not None][:3])
        raise WordTreeError(
            f"columns {named}, ...: none is an id of {tree}; give ids of its nodes, such as {tree.ids[0]}"
        )
    return None


def coco_columns() -> list[str | None]:
    """The id of each of the 91 classes of torchvision's detectors, by the label map `coco`."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights as Weights

    coco = label_maps()["coco"]
    ids = dict(zip(coco.labels, coco.ids, strict=True))
    return [ids.get(category) for category in Weights.COCO_V1.meta["categories"]]


def _load(module: nn.Module, state: Mapping[str, Any], name: str) -> None:
    """Load a state dict whole; only the counters of batch norms may be on one side alone (frozen ones have none)."""
    try:
        odd = module.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes
        raise _misfit(name, " ".join(str(error).split())[:300]) from error
    wrong = [key for key in (*odd.missing_keys, *odd.unexpected_keys) if not key.endswith("num_batches_tracked")]
    if wrong:
        raise _misfit(name, f"{len(wrong)} names are on one side alone, such as {wrong[0]}")


def _misfit(name: str, what: str) -> WordTreeError:
    return WordTreeError(f"weights for {name} do not fit: {what}; give those of this network")
