"""Models and runs on disk: safetensors with a JSON header, never a pickle, written whole or not at all."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wordtree import LabelMap, WordTree, WordTreeError

from . import models
from .detector import Detector
from .models import Network
from .weights import Header

FORMAT = 1


def save_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> Path:
    """Write tensors and a JSON header to a new file, then put it in its place: no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    try:
        plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        save_file(plain, name, metadata={"yolo9000": json.dumps({"format": FORMAT, **header})})
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def read_tensors(path: str | Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises:
        WordTreeError: no such file, a file of another kind or cut short, or one of a newer format.
    """
    file = Path(path)
    if not file.is_file():
        raise WordTreeError(f"no weights {str(file)!r}; give a weights.safetensors that `yolo9000 train` wrote")
    try:
        with safe_open(file, framework="pt", device=device) as opened:
            header = json.loads((opened.metadata() or {}).get("yolo9000", "null"))
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as fault:
        raise WordTreeError(
            f"weights {str(file)!r} cannot be read ({fault}); give a whole safetensors file that `yolo9000 train` wrote"
        ) from None
    if header is None:
        raise WordTreeError(f"weights {str(file)!r} have no yolo9000 header; give a file that `yolo9000 train` wrote")
    if header["format"] > FORMAT:
        raise WordTreeError(
            f"weights {str(file)!r} are of format {header['format']}; this version reads up to {FORMAT}: upgrade it"
        )
    return tensors, header


def save_model(path: Path, model: Network, labels: LabelMap | None = None, about: str = "", half: bool = False) -> Path:
    """Write a detector or classifier whole: tensors, its numbers or its cfg, its tree, the labels it was trained on.

    With `half`, weight matrices are stored as float16 and read back as float32: half the file.
    """
    header = {
        "model": model.options,
        "tree": _tree_record(model.tree),
        "labels": None if labels is None else {"name": labels.name, "labels": labels.labels, "ids": labels.ids},
        "about": about,
        "origin": None if model.origin is None else [*model.origin[:3], getattr(model, "seen", 0)],
    }
    state = model.state_dict()
    if half:
        matrices = {name for name, parameter in model.named_parameters() if parameter.dim() > 1}
        state = {key: value.half() if key in matrices else value for key, value in state.items()}
    return save_tensors(path, state, header)


def load_model(path: str | Path, tree: WordTree | None = None) -> tuple[Network, dict[str, Any]]:
    """Read a detector or classifier that `save_model` wrote, ready to use; and the header.

    Raises:
        WordTreeError: as `read_tensors`; weights of another tree than the one given; a run's checkpoint instead.
    """
    tensors, header = read_tensors(path)
    if "model" not in header or "step" in header:
        raise WordTreeError(f"{str(path)!r} is a run's checkpoint; give the weights.safetensors beside it")
    own = tree_of(header["tree"])
    if tree is not None and tree != own:
        raise WordTreeError(
            f"weights {str(path)!r} were trained on a tree of {len(own)} nodes ({own.hash[:12]}), given one of "
            f"{len(tree)} ({tree.hash[:12]}); leave the tree out to use their own"
        )
    model = models.build(header["model"], own)
    whole = {key: value.float() if value.dtype == torch.float16 else value for key, value in tensors.items()}
    load_state(model, whole, str(path))
    if header.get("origin"):  # the first runs' headers have none
        model.origin = Header(*header["origin"])
        if isinstance(model, Detector):
            model.seen = model.origin.seen
    return model.eval(), header


def load_state(module: torch.nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    """`load_state_dict`, strict, with the first difference named."""
    wanted = module.state_dict()
    for key in wanted.keys() | tensors.keys():
        have, want = tensors.get(key), wanted.get(key)
        if have is None or want is None or have.shape != want.shape:
            shapes = [None if one is None else tuple(one.shape) for one in (have, want)]
            raise WordTreeError(f"{what!r} holds {key} {shapes[0]}, the model takes {shapes[1]}; use its own model")
    module.load_state_dict(tensors)


def tree_of(record: dict[str, Any]) -> WordTree:
    """The tree of a header."""
    return WordTree(record["ids"], record["parents"], record["names"], root_name=record["root_name"])


def _tree_record(tree: WordTree) -> dict[str, Any]:
    return {
        "ids": tree.ids,
        "parents": tree.parents.tolist(),
        "names": tree.names,
        "root_name": tree.root_name,
        "hash": tree.hash,
    }
