"""Configurations by name, and the step from one of transformers' detectors to one over a tree."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from transformers import AutoConfig, AutoModelForObjectDetection, PreTrainedModel
from wordtree_torchvision.head import TreeHead
from wordtree_torchvision.zoo import knowledge_of

from wordtree import WordTree, WordTreeError, label_maps
from wordtree.errors import unknown

from . import SUMMARIES
from .detector import RULES, TreeQueries

PRIOR = 0.01  # of an object, at first, where a class is a sigmoid (Lin et al. 2017, section 3.3)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def _resnet(*stages: str, depths: Sequence[int] = (3, 4, 6, 3)) -> dict[str, Any]:
    return {"model_type": "resnet", "depths": list(depths), "out_features": list(stages)}


RESNET18 = {
    "model_type": "rt_detr_resnet",
    "depths": [2, 2, 2, 2],
    "hidden_sizes": [64, 128, 256, 512],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}
R18: dict[str, Any] = {
    "backbone_config": RESNET18,
    "encoder_in_channels": [128, 256, 512],
    "hidden_expansion": 0.5,
    "decoder_layers": 3,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> transformers' model type, what is not its default
    "detr-resnet-50": ("detr", {"backbone_config": _resnet("stage4")}),
    "detr-resnet-101": ("detr", {"backbone_config": _resnet("stage4", depths=(3, 4, 23, 3))}),
    "conditional-detr-resnet-50": ("conditional_detr", {"backbone_config": _resnet("stage4")}),
    "dab-detr-resnet-50": ("dab-detr", {"backbone_config": _resnet("stage4")}),
    "deformable-detr": ("deformable_detr", {"backbone_config": _resnet("stage2", "stage3", "stage4")}),
    "rtdetr_r18vd": ("rt_detr", R18),
    "rtdetr_r50vd": ("rt_detr", {}),
    "rtdetr_v2_r18vd": ("rt_detr_v2", R18),
    "rtdetr_v2_r50vd": ("rt_detr_v2", {}),
    "dfine-large": ("d_fine", {}),
    "yolos-tiny": (
        "yolos",
        {
            "hidden_size": 192,
            "num_attention_heads": 3,
            "intermediate_size": 768,
            "image_size": [800, 1333],
            "use_mid_position_embeddings": False,
        },
    ),
}


def build(
    name: str,
    tree: WordTree,
    weights: str | Path | None = None,
    size: int | None = None,
    width: int = 256,
    config: Mapping[str, Any] | None = None,
    **options: Any,
) -> TreeQueries:
    """One of transformers' detectors over a tree.

    Args:
        name: one of SUMMARIES.
        tree: the classes.
        weights: a folder that `save_pretrained` wrote, or a name that transformers downloads, such as
            "facebook/detr-resnet-50": the model is kept with its own config, and the tree starts from what its classes
            know. Random weights of the named configuration where left out.
        size: pixels of an image's shorter side, the longer 5/3 of it at most; of each side with RT-DETR, D-FINE and
            YOLOS, which have no mask for what is beyond an image. 800, 640 and 512 where left out.
        width: of the tree head's embedding.
        config: a whole config of transformers', as its `to_dict` gives it, with random weights, in place of the named.
        options: of transformers' config, such as num_queries, decoder_layers, backbone_config.

    `options` of what is returned builds the same network again, but for `size`, and reads no weights: its width, and
    its whole config in plain values.

    Raises:
        WordTreeError: an unknown name or option; options beside weights or a config; weights that cannot be read.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> small = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 5}
        >>> trunk = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8], "depths": [1]}
        >>> model = build("detr-resnet-50", tree, size=64, backbone_config=trunk, **small).eval()
        >>> sorted(model([torch.rand(3, 90, 120)])[0])
        ['boxes', 'labels', 'objectness', 'path_probs', 'paths', 'scores']
    """
    if name not in SUMMARIES:
        raise unknown("transformers detector", name, SUMMARIES)
    if (weights is not None or config is not None) and options:
        raise WordTreeError(
            f"{', '.join(options)} beside weights or a config of {name}, which say them all; leave them out"
        )
    if weights is not None and config is not None:
        raise WordTreeError(f"weights and a config of {name}; pretrained weights have their own config: give one")
    columns: list[str | None] | None = None
    if weights is not None:
        model = _pretrained(name, weights)
    elif config is not None:
        model = _of_config(name, config)
    else:
        model = AutoModelForObjectDetection.from_config(_config_of(name, size, options))
        columns = [None] * (1 + RULES[model.loss_function].background)
        if not RULES[model.loss_function].background:
            _start_rare(model)
    detector = attach(model, tree, columns, size, width)
    detector.options = {"config": json.loads(model.config.to_json_string(use_diff=False)), "width": width}
    return detector


def _config_of(name: str, size: int | None, options: dict[str, Any]) -> Any:
    """The named config with options of one's own, for a model of one class."""
    kind, own = CONFIGS[name]
    known = AutoConfig.for_model(kind).to_dict()
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    if kind != "yolos":  # which has no hidden layers to hand to it
        options = {"auxiliary_loss": True, **options}
    if "freeze_backbone_batch_norms" in known:  # random ones have nothing worth freezing
        options = {"freeze_backbone_batch_norms": False, **options}
    if size is not None and "decoder_in_channels" in known:  # which take their queries from the places of the levels
        places = sum((-(-size // stride)) ** 2 for stride in known["feat_strides"])
        options.setdefault("num_queries", min(known["num_queries"], places))
    return AutoConfig.for_model(kind, num_labels=1, **{**own, **options})


def attach(
    model: nn.Module,
    tree: WordTree,
    columns: Sequence[str | None] | None = None,
    size: int | None = None,
    width: int = 256,
) -> TreeQueries:
    """A tree on a detector of transformers in hand, which is kept, shared, and trained on with the tree.

    Its classes become the objectness; the tree starts from what they know.

    Args:
        model: one that has DETR's, Deformable DETR's, RT-DETR's or D-FINE's loss.
        tree: the classes.
        columns: the node id of each class of the model, None for those that mean nothing. By `config.id2label` where
            left out, see `columns_of`; `[None] * config.num_labels` starts afresh.
        size: as for `build`.
        width: of the tree head's embedding.

    Raises:
        WordTreeError: another kind of model, as many columns as the model does not have, or none that is on the tree.
    """
    if not isinstance(model, PreTrainedModel) or model.loss_function not in RULES:
        raise WordTreeError(
            f"a tree on a {type(model).__name__}; attach takes detectors of transformers with the loss of DETR, "
            "Deformable DETR, RT-DETR or D-FINE"
        )
    config: Any = model.config
    background = RULES[model.loss_function].background
    count = config.num_labels + background
    asked = columns is not None
    if columns is None:
        columns = columns_of([config.id2label[at] for at in range(config.num_labels)], tree)
    if len(columns) == config.num_labels and background:
        columns = [*columns, None]  # no object
    if not asked and not {column for column in columns if column is not None} & {*tree.ids}:
        columns = [None] * count
    features = getattr(config, "d_model", None) or config.hidden_size
    head = TreeHead(tree, [(features, 1)], knowledge_of(tree, columns, count), width)
    return TreeQueries(model, head.to(next(model.parameters())), _transform(config.model_type, size))


def columns_of(names: Sequence[str], tree: WordTree) -> list[str | None]:
    """The node id of each of a model's classes by its name; None where it is not plain what is meant.

    An id; an id in brackets after a name, `crane (n02012849)`; a label of COCO, where half of COCO's are among the
    names; a name that one node of the tree has, and one class. A model with COCO's 80 classes in COCO's order has them
    all, whatever it calls a few: RT-DETR says "sofa" and "tvmonitor".

    Example:
        >>> tree = WordTree(["a1", "a2", "a3"], [-1, -1, -1], ["crane", "crane", "dog"])
        >>> columns_of(["N/A", "dog", "crane (a2)", "crane", "a1"], tree)
        [None, 'a3', 'a2', None, 'a1']
    """
    coco = label_maps()["coco"]
    id_of = dict(zip(coco.labels, coco.ids, strict=True))
    shared = [at for at, name in enumerate(names) if name in id_of]
    if len(shared) < len(coco) / 2:
        id_of = {}
    elif len(names) == len(coco) and all(names[at] == coco.labels[at] for at in shared):
        return list(coco.ids)
    ids, times = {*tree.ids}, Counter(names)
    nodes = Counter(tree.names)
    by_name = {name: id_ for name, id_ in zip(tree.names, tree.ids, strict=True) if nodes[name] == 1}
    found: list[str | None] = []
    for name in names:
        bracketed = re.fullmatch(r".* \((\S+)\)", name)
        if name in ids:
            found.append(name)
        elif bracketed and bracketed[1] in ids:
            found.append(bracketed[1])
        else:
            found.append((id_of or by_name).get(name) if times[name] == 1 else None)
    return found


def _pretrained(name: str, weights: str | Path) -> Any:
    if isinstance(weights, Mapping):  # a file, as yolo9000's commands hand it over
        raise WordTreeError(
            f"weights of {name} as a state dict of {len(weights)} tensors, which have no config with them; give the "
            "folder that save_pretrained wrote, or the name of a detector"
        )
    try:
        return AutoModelForObjectDetection.from_pretrained(str(weights), dtype=torch.float32)
    except (OSError, ValueError, SafetensorError) as error:
        raise WordTreeError(
            f"weights {str(weights)!r} of transformers cannot be read ({' '.join(str(error).split())[:300]}); give a "
            "folder that save_pretrained wrote, or the name of a detector"
        ) from error


def _of_config(name: str, config: Mapping[str, Any]) -> Any:
    """A model of a whole config, from random weights."""
    try:
        rest = dict(config)
        return AutoModelForObjectDetection.from_config(AutoConfig.for_model(rest.pop("model_type"), **rest))
    except (KeyError, TypeError, ValueError) as error:
        told = " ".join(str(error).split())[:300]
        raise WordTreeError(
            f"config of {name}: {type(error).__name__}: {told}; give what `to_dict` of a config of transformers gives"
        ) from error


def _start_rare(model: nn.Module) -> None:
    """Let the one class's sigmoids begin at .01: transformers' own start, 1 / (classes + 1), is a half of one class."""
    for name, layer in model.named_modules():
        last = name.split(".")
        if isinstance(layer, nn.Linear) and {"class_embed", "class_labels_classifier", "enc_score_head"} & {*last}:
            nn.init.constant_(layer.bias, -torch.tensor(1 / PRIOR - 1).log().item())


def _transform(kind: str, size: int | None) -> GeneralizedRCNNTransform:
    """Images as the models' own processors lay them."""
    if kind in ("rt_detr", "rt_detr_v2", "d_fine"):
        side = size or 640
        return GeneralizedRCNNTransform(side, side, *PLAIN, fixed_size=(side, side))
    if kind == "yolos":
        side = size or 512
        return GeneralizedRCNNTransform(side, side, *IMAGENET, fixed_size=(side, side))
    short = size or 800
    return GeneralizedRCNNTransform(short, short * 5 // 3, *IMAGENET)
