"""Models and runs on disk: safetensors with a JSON header, never a pickle, written whole or not at all."""

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wordtree import LabelMap, WordTree, WordTreeError, __version__

from . import models
from .detector import Detector
from .files import whole
from .models import Network
from .weights import Header

FORMAT = 2  # 1 had no checksum


def save_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> Path:
    """Write tensors and a JSON header to a new file, then put it in its place: no reader ever sees half of it.

    The header gets `format` and `sha256`, the hash of all the rest, by which a damaged file is known. Tensors that
    share memory, as tied weights do, are each written whole.

    Raises:
        CannotWrite: a full disk or a read-only folder; what stood at `path` stands there still.
    """
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in tensors.items():
        value = value.detach().cpu().contiguous()
        memory = value.untyped_storage().data_ptr()
        plain[key] = value.clone() if memory in seen else value  # safetensors refuses what shares memory
        seen.add(memory)
    header = {**header, "format": FORMAT}
    header["sha256"] = _hash(plain, header)
    with whole(path, sum(value.nbytes for value in plain.values())) as part:
        save_file(plain, part, metadata={"yolo9000": json.dumps(header)})
        os.chmod(part, 0o644)
    return path


def _hash(tensors: dict[str, Tensor], header: dict[str, Any]) -> str:
    """The SHA-256 of a file's content, apart from itself."""
    digest = hashlib.sha256(json.dumps({**header, "sha256": ""}).encode())
    for key in sorted(tensors):
        value = tensors[key]
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises:
        WordTreeError: no such file, a file of another kind, cut short or damaged, or one of a newer format.
    """
    file = Path(path)
    if not file.is_file():
        raise WordTreeError(f"no weights {str(file)!r}; give a weights.safetensors that `yolo9000 train` wrote")
    try:
        with safe_open(file, framework="pt") as opened:
            text = (opened.metadata() or {}).get("yolo9000", "null")
            header = json.loads(text)
            # copies: what lies in the file itself would keep it open, and its space on the disk taken
            tensors = {key: opened.get_tensor(key).clone() for key in opened.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as fault:
        raise _unreadable(file, str(fault)) from None
    if header is None:
        raise WordTreeError(f"weights {str(file)!r} have no yolo9000 header; give a file that `yolo9000 train` wrote")
    version = header.get("format") if isinstance(header, dict) else None
    if type(version) is not int or version < 1:
        raise _unreadable(file, "its header is damaged")
    if version > FORMAT:
        raise WordTreeError(
            f"weights {str(file)!r} are of format {version}; this version reads up to {FORMAT}: upgrade it"
        )
    if version > 1:
        cpu = {key: value.cpu() for key, value in tensors.items()}
        if header.get("sha256") != _hash(cpu, header) or text != json.dumps(header):
            raise _unreadable(file, "its checksum does not match its content: it was damaged or changed")
    return tensors, header


def peek(path: Path) -> dict[str, Any]:
    """The header of what `save_tensors` wrote, in a moment: nothing is checked; {} where there is none to be read."""
    try:
        with safe_open(path, framework="pt") as opened:
            header = json.loads((opened.metadata() or {})["yolo9000"])
    except (SafetensorError, OSError, ValueError, KeyError):
        return {}
    return header if isinstance(header, dict) else {}


def _unreadable(file: Path, why: str) -> WordTreeError:
    return WordTreeError(
        f"weights {str(file)!r} cannot be read ({why}); give a whole safetensors file that `yolo9000 train` wrote"
    )


def versions() -> dict[str, str | int]:
    """What a result depends on beside its settings, to the last bit: versions, threads, the processor's instructions.

    Example:
        >>> sorted(versions())
        ['processor', 'python', 'threads', 'torch', 'torchvision', 'yolo9000']
    """
    return {
        "yolo9000": __version__,
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }


def save_model(
    path: Path,
    model: Network,
    labels: LabelMap | None = None,
    about: str = "",
    half: bool = False,
    more: dict[str, Any] | None = None,
) -> Path:
    """Write a detector or classifier whole: tensors, its numbers or its cfg, its tree, the labels it was trained on.

    With `half`, weight matrices are stored as float16 and read back as float32: half the file. `more` is added to the
    header, such as what it was trained with.
    """
    header = {
        "model": model.options,
        "tree": tree_record(model.tree),
        "labels": None if labels is None else {"name": labels.name, "labels": labels.labels, "ids": labels.ids},
        "about": about,
        "origin": None if model.origin is None else [*model.origin[:3], getattr(model, "seen", 0)],
        **(more or {}),
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


def tree_record(tree: WordTree) -> dict[str, Any]:
    return {
        "ids": tree.ids,
        "parents": tree.parents.tolist(),
        "names": tree.names,
        "root_name": tree.root_name,
        "hash": tree.hash,
    }
