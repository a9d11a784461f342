"""A detector as a file that other programs run, its tree inside: ONNX, or torch.export's .pt2."""

import copy
import json
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wordtree import WordTreeError
from wordtree.errors import unknown
from wordtree.formats import check_folder

from .borrowed import AnyDetector
from .checkpoints import tree_record
from .detector import Detector
from .forms import Dense, DenseForm, Gated, GatedForm
from .inference import fuse, own

if TYPE_CHECKING:
    import onnx

FORMAT = 1
FORMS = {"dense": Dense._fields, "gated": Gated._fields}
SUFFIXES = (".onnx", ".pt2")
KEY = "yolo9000"  # of the metadata
SETTINGS = ("mode", "threshold", "tree_threshold", "iou", "rule", "placement", "score", "suppression", "clip")
LARGEST = 2**31 - 2**20  # bytes of an ONNX file, which protobuf bounds


def export_model(
    model: AnyDetector,
    path: str | Path,
    form: str = "gated",
    candidates: int = 300,
    size: int | None = None,
    half: bool = False,
) -> Path:
    """Write a detector as ONNX (`.onnx`) or as a program of torch.export (`.pt2`), whole or not at all.

    The file takes images float [batch, 3, size, size], RGB in 0..1, any batch. docs/export.md says which form to use.

    Args:
        model: any detector of ours; its thresholds at this moment are kept in the file. It stays as it is.
        path: the file.
        form: "dense": boxes, objectness and log Pr of every node, for all boxes. "gated": the boxes that objectness
            ranks first, each with its node, score and whether it is kept: nothing is left to do.
        candidates: boxes an image that the gated form looks at.
        size: pixels of the square input; the model's own where left out.
        half: store weights as float16: half the file, computed in float32 all the same. ONNX only.

    Raises:
        WordTreeError: a plug-in's detector, an unknown form or suffix, no onnx, a size that does not fit, weights too
            large for one file.
        FileNotFoundError: no such folder.
    """
    path, model = Path(path), own(model, "an export")
    if form not in FORMS:
        raise unknown("form", form, FORMS)
    if path.suffix not in SUFFIXES:
        raise WordTreeError(f"an export to {path.name!r}; a file ends in one of {', '.join(SUFFIXES)}")
    if half and path.suffix != ".onnx":
        raise WordTreeError(f"half asked of {path.name!r}; it is for .onnx alone, whose weights are cast as it loads")
    check_folder(path)
    size = model.size if size is None else size
    if size <= 0 or size % model.trunk.stride:
        raise WordTreeError(f"an input of {size} pixels; this network takes multiples of {model.trunk.stride}")
    classes = model.head.classes  # by far the largest part, and only read
    shared = {id(classes): classes} if classes.weight.device.type == "cpu" else {}
    fused = fuse(copy.deepcopy(model, shared).cpu())
    whole = DenseForm(fused) if form == "dense" else GatedForm(fused, candidates)
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}{path.suffix}")
    try:
        _write(whole.eval(), beside, FORMS[form], size, json.dumps(describe(model, form, size)), half)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return path


def describe(model: Detector, form: str, size: int) -> dict[str, Any]:
    """What the file says about itself, under the key "yolo9000" as JSON."""
    return {
        "format": FORMAT,
        "form": form,
        "size": size,
        **{name: getattr(model, name) for name in SETTINGS},
        "tree": tree_record(model.tree),
    }


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What an exported file says about itself: form, size, thresholds, tree.

    Raises:
        WordTreeError: no such file, or none of ours.
    """
    file = Path(path)
    if not file.is_file():
        raise WordTreeError(f"no file {str(file)!r}; give one that `yolo9000 export` wrote")
    try:
        text = _about_program(file) if file.suffix == ".pt2" else _about_onnx(file)
    except Exception as fault:  # each format has errors of its own
        told = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise WordTreeError(f"{str(file)!r} cannot be read ({told}); give a whole .onnx or .pt2") from None
    if not text:
        raise WordTreeError(f"{str(file)!r} says nothing of a tree; give a file that `yolo9000 export` wrote")
    return json.loads(text)  # type: ignore[no-any-return]


def _about_onnx(file: Path) -> str:
    import onnx

    props = onnx.load(str(file), load_external_data=False).metadata_props
    return next((prop.value for prop in props if prop.key == KEY), "")


def _about_program(file: Path) -> str:
    extra: dict[str, Any] = {f"{KEY}.json": ""}
    torch.export.load(str(file), extra_files=extra)
    return str(extra[f"{KEY}.json"])


class _Named(nn.Module):
    """A form whose outputs are a dict, as a file keeps their names."""

    def __init__(self, form: DenseForm | GatedForm) -> None:
        super().__init__()
        self.form = form

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.form(images)._asdict()  # type: ignore[no-any-return]


@torch.no_grad()
def _write(whole: DenseForm | GatedForm, file: Path, names: tuple[str, ...], size: int, about: str, half: bool) -> None:
    """Trace the graph for any batch and write it."""
    example = torch.rand(2, 3, size, size)  # of two: a batch of one is taken for a constant
    batch = {"images": {0: torch.export.Dim("batch", min=1, max=1024)}}
    program = torch.export.export(_Named(whole), (example,), dynamic_shapes=batch)
    if file.suffix == ".pt2":
        with warnings.catch_warnings():  # it warns of weights that lie channels last, and keeps them all the same
            warnings.filterwarnings("ignore", "No complete tensor", UserWarning)
            torch.export.save(program, str(file), extra_files={f"{KEY}.json": about})
        return
    import onnx

    options: dict[str, Any] = {"input_names": ["images"], "output_names": list(names), "verbose": False}
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of each empty list of axes
    exported = torch.onnx.export(program, (), dynamo=True, **options)
    assert exported is not None
    proto = exported.model_proto
    if half:
        _store_half(proto)
    if proto.ByteSize() > LARGEST:
        much = f"an ONNX file of {proto.ByteSize() / 2**30:.1f} GiB"
        raise WordTreeError(f"{much}; one file holds 2: give half=True, a .pt2, or a smaller tree")
    onnx.helper.set_model_props(proto, {KEY: about})
    file.write_bytes(proto.SerializeToString())


def _store_half(proto: "onnx.ModelProto") -> None:
    """Store weights as float16, each cast to float32 before its use; a runtime does that once, as it loads the file."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for stored in proto.graph.initializer:
        if stored.data_type != TensorProto.FLOAT or len(stored.dims) < 2:
            continue
        name, values = stored.name, numpy_helper.to_array(stored)
        stored.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    for node in reversed(casts):
        proto.graph.node.insert(0, node)
