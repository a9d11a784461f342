"""Weights from one kind of file to another: Darknet's `.weights` and our own `.safetensors`, parts, and a start."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from wordtree import WordTree, WordTreeError
from wordtree.formats import check_folder

from . import models
from .borrowed import Borrowed
from .cfg import Cfg
from .checkpoints import save_model
from .detector import Detector
from .files import write_text
from .loading import is_darknet, load, weights_path
from .models import Network
from .official import official_tree
from .tables import cfg_of
from .weights import Header, save_weights, start_from_classifier


def convert(
    source: str | Path,
    out: str | Path,
    cfg: str | Path | None = None,
    tree: WordTree | str | Path | None = None,
    names: str | Path | Sequence[str] | None = None,
    upto: int | None = None,
    start: bool = False,
) -> list[Path]:
    """Write weights as another kind of file, by the suffix of `out`; nothing is written where something is wrong.

    A `.safetensors` holds its network and its tree. A `.weights` holds numbers alone, so that its `.cfg` is written
    beside it, and the `.tree` and `.names` that this names; files of these names that say something else are refused.

    Args:
        source: as `yolo9000.load` takes it, with cfg, tree and names.
        out: a .safetensors; a .weights; or, for a part, another name of Darknet's, such as darknet19_448.conv.23.
        upto: write the first layers alone, 0 to upto - 1, without a cfg.
        start: the source is a tree classifier's .weights; write the detector of `cfg` (YOLO9000 where left out) that
            starts from it, as the released one did.

    Returns:
        The files written, `out` first.

    Raises:
        WordTreeError: as `yolo9000.load`; a suffix or a combination that cannot be.

    Example:
        >>> convert("yolo9000.weights", "yolo9000.safetensors")  # doctest: +SKIP
        [PosixPath('yolo9000.safetensors')]
    """
    source, out = weights_path(source), Path(out)
    if out.suffix != ".safetensors" and not is_darknet(out):
        raise WordTreeError(f"{str(out)!r} to write; give a .safetensors, a .weights, or a part such as net.conv.23")
    if upto is not None and (out.suffix == ".safetensors" or start):
        raise WordTreeError(f"upto={upto} for {str(out)!r}; a part is Darknet's: give upto with a .weights or .conv.N")
    check_folder(out)
    if out.exists() and source.exists() and out.samefile(source):
        raise WordTreeError(f"{str(out)!r} is the source; give another file to write")
    if start:
        own_tree = WordTree.load(tree) if isinstance(tree, str | Path) else tree
        model: Network = _started(source, cfg, own_tree, names)
    else:
        model = load(source, cfg, tree, names)
    if out.suffix == ".safetensors":
        return [save_model(out, model, about=_about(source.name, model.origin))]
    if isinstance(model, Borrowed):
        raise WordTreeError(f"{str(source)!r} is {model.name}'s, which no cfg can say; give a .safetensors to write")
    if isinstance(model, Detector) and model.head.location != "direct":
        raise WordTreeError(
            f"{str(source)!r} tells boxes by {model.head.location!r}, which no cfg can say; give a .safetensors"
        )
    if upto is not None:
        return [save_weights(model, out, upto)]
    beside = _write_beside(model, out)
    return [save_weights(model, out), *beside]


def _started(
    source: Path, cfg: str | Path | None, tree: WordTree | None, names: str | Path | Sequence[str] | None
) -> Detector:
    if not is_darknet(source):
        raise WordTreeError(f"{str(source)!r} to start from; give a classifier's .weights: convert it first")
    model = models.yolo9000(tree or official_tree(), size=544) if cfg is None else models.from_cfg(cfg, tree, names)
    if not isinstance(model, Detector):
        raise WordTreeError(f"{str(cfg)!r} is a classifier's cfg; give the cfg of the detector that is to start")
    start_from_classifier(model, source)
    return model


def _about(name: str, origin: Sequence[int] | None) -> str:
    if origin is None:
        return f"From {name}."
    header = Header(*origin)
    return f"From {name}, version {header.major}.{header.minor}.{header.revision}, {header.seen:,} images seen."


def _write_beside(model: Network, out: Path) -> list[Path]:
    """Write the cfg of a network, and the tree or names that it needs; those that are there already may stay."""
    tree, flat = model.tree, bool((model.tree.parents < 0).all())
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=".convert-"))
    try:
        text = cfg_of(model)
        if not flat:
            known = (
                tree == official_tree() and tree.names == official_tree().names
            )  # packaged, so that no file need be there
            text = _naming(text, "data/9k.tree" if known else f"{out.stem}.tree")
            if not known:
                tree.save(folder / f"{out.stem}.tree")
        elif any(name != f"class_{node}" for node, name in enumerate(tree.names)):
            write_text(folder / f"{out.stem}.names", "".join(f"{name}\n" for name in tree.names))
        write_text(folder / f"{out.stem}.cfg", text)
        made = sorted(folder.iterdir())
        for file in made:
            there = out.parent / file.name
            if there.exists() and there.read_bytes() != file.read_bytes():
                raise WordTreeError(f"{str(there)!r} is there and says something else; give {out.name!r} another name")
        return [Path(shutil.move(file, out.parent / file.name)) for file in made]
    finally:
        shutil.rmtree(folder)


def _naming(text: str, tree: str) -> str:
    """A cfg that names this tree: first in its last section, as of a key given twice the first counts."""
    head = Cfg(text).head
    assert head is not None
    lines = text.splitlines()
    return "\n".join([*lines[: head.line], f"tree={tree}", *lines[head.line :], ""])
