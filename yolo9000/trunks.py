"""Networks by name: features of torchvision's or timm's in place of Darknet-19's, and whole classifiers of theirs.

A network is asked for what it has: a small input is run through it, and the last features of a stride are taken.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import Normalize

from wordtree import WordTree, WordTreeError, label_maps
from wordtree.errors import unknown
from wordtree.nn import Hierarchical

from .config import STRIDES
from .darknet19 import Trunk

DEFAULT = "DEFAULT"  # the weights that the package knows of itself
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WRAPPERS = ("state_dict", "model", "model_state_dict")  # under which a file may keep its tensors
COUNTERS = "num_batches_tracked"


class Features(NamedTuple):
    """A network that gives a list of features, the finest first, and what it takes."""

    network: nn.Module
    mean: Sequence[float]  # of RGB in 0..1
    std: Sequence[float]


class NamedTrunk(Trunk):
    """A network of torchvision or timm, up to its features at a stride. It normalises images as that network takes
    them.

    Args:
        name: the package and the network's own name, "torchvision/mobilenet_v3_small", "timm/efficientnet_lite0"; with
            the stride, pixels a cell of the output, where it is not 32: "timm/efficientnet_lite0@16".

    Attributes:
        channels: of the output.
        passthrough_channels: of the last features at half the stride, which YOLOv2's passthrough reads; 0 for none.
        frozen: whether weights and batch-norm statistics stay as they are in training, see `freeze`.

    Raises:
        WordTreeError: a package that is not installed or no such network in it; one without features at that stride.

    Example:
        >>> trunk = NamedTrunk("torchvision/mobilenet_v3_small")
        >>> trunk(torch.zeros(1, 3, 96, 96)).shape, trunk.passthrough_channels
        (torch.Size([1, 576, 3, 3]), 288)
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        said, _, asked = name.partition("@")
        package, _, own = said.partition("/")
        if asked not in ("", *map(str, STRIDES)):
            raise WordTreeError(f"trunk {name!r}; give a stride of {STRIDES} after the @, or none for 32")
        stride = int(asked or 32)
        if package not in PACKAGES or not own:
            raise unknown("trunk", name, ["torchvision/mobilenet_v3_small", "timm/efficientnet_lite0"])
        self.name, self.stride, self.frozen = name, stride, False
        self.network, mean, std = PACKAGES[package](name, own, stride)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        shapes = _shapes(name, self.network, 4 * stride)
        coarse = shapes[-1]
        if coarse[2:] != (4, 4):
            raise WordTreeError(f"{name} gives {coarse} of {4 * stride} pixels; a trunk gives [b, channels, 4, 4] here")
        self.channels = coarse[1]
        self.passthrough_channels = shapes[0][1] if len(shapes) > 1 and shapes[0][2:] == (8, 8) else 0

    def forward(self, images: Tensor) -> Tensor:
        """float [b, 3, h, w], RGB in 0..1, h and w multiples of the stride -> [b, channels, h/stride, w/stride]."""
        return self._all(images)[-1]

    def forward_both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The last features at half the stride and at the stride."""
        fine, coarse = self._all(images)
        return fine, coarse

    def freeze(self) -> "NamedTrunk":
        """Keep weights and batch-norm statistics as they are, whatever is trained. Returns the trunk."""
        self.frozen = True
        self.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> "NamedTrunk":
        """As every module; a frozen one stays as for evaluation."""
        super().train(mode and not self.frozen)
        return self

    def extra_repr(self) -> str:
        return f"{self.name}, channels={self.channels}, stride={self.stride}"

    def _all(self, images: Tensor) -> list[Tensor]:
        return _listed(self.network((images - self.mean) / self.std))


def _torchvision(name: str, own: str, stride: int) -> Features:
    """By torchvision's feature extractor, which is asked for every node of the network's graph first."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nodes that training has and evaluation has not
        whole = _torchvision_with(own).eval()
        try:
            nodes = get_graph_node_names(whole)[1]
            every = create_feature_extractor(whole, {node: node for node in nodes})
            with torch.no_grad():
                found = every(torch.zeros(1, 3, 4 * stride, 4 * stride))
        except Exception as fault:  # of tracing, or of a network for one size alone: each has its own
            raise _unusable(name, fault) from None
        sides = {4: "coarse", 8: "fine"}
        last = {
            sides[value.shape[2]]: node
            for node, value in found.items()
            if isinstance(value, Tensor) and value.dim() == 4 and value.shape[2] == value.shape[3] in sides
        }
        if "coarse" not in last:
            raise WordTreeError(f"no features of stride {stride} in {name}; give another after the @, of {STRIDES}")
        asked = {last[kind]: kind for kind in ("fine", "coarse") if kind in last}
        network = create_feature_extractor(whole, asked)
    return Features(network, *_torchvision_norm(own))


def _torchvision_with(own: str) -> nn.Module:
    """The network of that name, where there is one."""
    import torchvision
    from torchvision.models import get_model, list_models

    if own not in list_models(module=torchvision.models):
        raise unknown("network of torchvision", own, list_models(module=torchvision.models))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old initialisations
        network: nn.Module = get_model(own, weights=None)
    return network


def _torchvision_norm(own: str) -> tuple[Sequence[float], Sequence[float]]:
    from torchvision.models import get_model_weights

    preset = get_model_weights(own).DEFAULT.transforms()
    return getattr(preset, "mean", IMAGENET_MEAN), getattr(preset, "std", IMAGENET_STD)


def _timm(name: str, own: str, stride: int) -> Features:
    """By timm's `features_only`, which says its strides."""
    timm = _timm_with(name, own)
    try:
        info: Any = timm.create_model(own, features_only=True).feature_info
    except Exception as fault:  # timm's own refusals are of several types
        raise _unusable(name, fault) from None
    strides: list[int] = info.reduction()
    if stride not in strides:
        raise WordTreeError(
            f"no features of stride {stride} in {name}, which has {strides}; give one of them after the @"
        )
    wanted = [one for one in (stride // 2, stride) if one in strides]
    places = [len(strides) - 1 - strides[::-1].index(one) for one in wanted]
    return Features(timm.create_model(own, features_only=True, out_indices=places), *_timm_norm(timm, own))


def _timm_with(name: str, own: str) -> Any:
    """timm, where it is installed and has that network."""
    try:
        import timm
    except ImportError:
        raise WordTreeError(
            f"{name} asked, and timm is not installed; pip install timm, or take a torchvision/ one"
        ) from None
    if not timm.is_model(own):
        raise unknown("network of timm", own, timm.list_models())
    return timm


def _timm_norm(timm: Any, own: str) -> tuple[Sequence[float], Sequence[float]]:
    given = timm.get_pretrained_cfg(own)
    return getattr(given, "mean", None) or IMAGENET_MEAN, getattr(given, "std", None) or IMAGENET_STD


PACKAGES: dict[str, Callable[[str, str, int], Features]] = {"torchvision": _torchvision, "timm": _timm}


def _unusable(name: str, fault: Exception) -> WordTreeError:
    return WordTreeError(f"no features of any size in {name} ({_told(fault)}); take a convolutional network")


def _told(fault: Exception) -> str:
    """The first line of another library's error."""
    return str(fault).strip().splitlines()[0][:120] if str(fault).strip() else type(fault).__name__


def _shapes(name: str, network: nn.Module, side: int) -> list[tuple[int, ...]]:
    training = network.training
    try:
        with torch.no_grad():
            found = _listed(network.eval()(torch.zeros(1, 3, side, side)))
    except Exception as fault:
        raise _unusable(name, fault) from None
    network.train(training)
    return [tuple(one.shape) for one in found]


def _listed(found: Any) -> list[Tensor]:
    return list(found.values()) if isinstance(found, dict) else list(found)


# ---------------------------------------------------------------------- weights


def load_trunk(trunk: Trunk, weights: str | Path) -> Trunk:
    """Give a trunk its own weights: of a file, read without running anything in it, or the package's.

    Args:
        trunk: a `NamedTrunk`.
        weights: a .safetensors, or a state dict that torch saved (.pth, .pt, .bin), of the trunk or of the whole
            classifier; "DEFAULT" for those that the package knows of, which it downloads. A file in another program's
            names does where the tensors come in the same order and shapes all the way.

    Returns:
        the trunk given.

    Raises:
        WordTreeError: another kind of trunk; no such file, none that is read without running code, or one that does not
            fit.

    Example:
        >>> load_trunk(NamedTrunk("timm/tf_efficientnet_lite0"), "efficientnet-lite0-57934424.pth")  # doctest: +SKIP
    """
    if not isinstance(trunk, NamedTrunk):
        raise WordTreeError(
            f"trunk_weights for a {type(trunk).__name__}; they are for a trunk by name, such as "
            "trunk='torchvision/mobilenet_v3_small'"
        )
    _fill(trunk.network, trunk.name, weights)
    return trunk


def _fill(network: nn.Module, name: str, weights: str | Path) -> None:
    given = _published(name) if str(weights) == DEFAULT else read_state(Path(weights))
    wanted = network.state_dict()
    try:
        found = _by_name(wanted, given) or _in_order(wanted, given)
    except KeyError as fault:
        raise WordTreeError(
            f"weights {str(weights)!r} do not fit {name}: they lack {fault.args[0]}; give those of this network"
        ) from None
    network.load_state_dict({**wanted, **found})


def _published(name: str) -> Mapping[str, Tensor]:
    package, _, own = name.partition("@")[0].partition("/")
    if package == "torchvision":
        from torchvision.models import get_model_weights

        published: Any = get_model_weights(own).DEFAULT
        found: Mapping[str, Tensor] = published.get_state_dict(progress=False, check_hash=True, weights_only=True)
        return found
    import timm

    return timm.create_model(own, pretrained=True).state_dict()


def read_state(file: Path, what: str = "trunk weights") -> Mapping[str, Tensor]:
    """A state dict of a .safetensors, or that torch saved, without running anything in it.

    Raises:
        WordTreeError: no such file, or one that is something else; `what` says in it what it was wanted for.
    """
    if not file.is_file():
        raise WordTreeError(f"no {what} {str(file)!r}; give a state dict's file, or {DEFAULT}")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as fault:  # pickle's, zip's and safetensors' own
        raise WordTreeError(
            f"{what} {str(file)!r} cannot be read without running code ({_told(fault)}); give a state dict "
            "alone, such as torch.save(model.state_dict(), path) writes"
        ) from None
    for key in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(one, Tensor) for one in found.values()):
        raise WordTreeError(f"{what} {str(file)!r} hold a {type(found).__name__}; give a state dict alone")
    return found


def _by_name(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The wanted tensors by their names (timm writes `stages_0` for `stages.0` in a list of features); None where one
    is missing or of another shape."""
    flat = {name.replace(".", "_"): value for name, value in given.items()}
    found = {name: flat.get(name.replace(".", "_")) for name in wanted}
    kept = {name: value for name, value in found.items() if value is not None and value.shape == wanted[name].shape}
    return kept if all(name in kept or name.endswith(COUNTERS) for name in wanted) else None


def _in_order(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The wanted tensors in the order of the file, each of the same kind (the last part of its name) and shape.

    Raises:
        KeyError: the first that is not.
    """
    names = [name for name in wanted if not name.endswith(COUNTERS)]
    values = [(name, value) for name, value in given.items() if not name.endswith(COUNTERS)]
    found = {}
    for name, (other, value) in zip(names, values, strict=False):
        if name.rpartition(".")[2] != other.rpartition(".")[2] or value.shape != wanted[name].shape:
            raise KeyError(f"{name} {tuple(wanted[name].shape)}")
        found[name] = value
    if len(found) < len(names):
        raise KeyError(names[len(found)])
    return found


# ---------------------------------------------------------------------- whole classifiers


def named_classifier(name: str, tree: WordTree, weights: str | Path = DEFAULT) -> Hierarchical:
    """An ImageNet classifier of torchvision or timm over a tree, on images as ours are: what a second look takes.

    Each of the 1000 classes stands for its node, or for the nearest one above it that the tree has.

    Args:
        name: the package and the network's own name, such as "timm/tf_efficientnet_lite0".
        tree: any tree of WordNet's ids.
        weights: as `load_trunk`, of the whole classifier.

    Returns:
        float [b, 3, h, w], RGB in 0..1 -> log Pr of each node, [b, nodes].

    Raises:
        WordTreeError: a package that is not installed or no such network in it; weights that do not fit; a tree that
            has none of the classes, nor anything above them.

    Example:
        >>> named_classifier("torchvision/mobilenet_v3_small", yolo9000.load().tree)  # doctest: +SKIP
    """
    package, _, own = name.partition("/")
    if package == "timm":
        timm = _timm_with(name, own)
        network, norm = timm.create_model(own), _timm_norm(timm, own)
    elif package == "torchvision":
        network, norm = _torchvision_with(own), _torchvision_norm(own)
    else:
        raise unknown("classifier", name, ["torchvision/mobilenet_v3_small", "timm/tf_efficientnet_lite0"])
    _fill(network, name, weights)
    ids = label_maps()["imagenet1k"].nearest_on(tree)
    if not any(ids):
        raise WordTreeError(f"no class of ImageNet is on {tree}, nor anything above one; take a tree of WordNet's ids")
    return Hierarchical(nn.Sequential(Normalize(norm[0], norm[1]), network), tree, ids).eval().requires_grad_(False)
