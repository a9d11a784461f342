"""Darknet's `.weights` files, both ways.

A header, then float32 numbers, little-endian, convolution by convolution in the order of the cfg: bias; with batch-norm
scale, mean and variance; weights [out, in, y, x]. Nothing for other layers, and nothing that says which network it is.
"""

import hashlib
import os
import struct
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from wordtree import WordTreeError
from wordtree.formats import check_folder
from wordtree.nn import TreeLinear

from .batchnorm import BatchNorm
from .cfg import Cfg, Layer
from .classifier import TreeClassifier
from .darknet19 import ConvBlock
from .detector import Detector
from .head import RegionHead
from .tables import cfg_of

OwnNetwork = Detector | TreeClassifier


class Header(NamedTuple):
    """What a file begins with.

    Attributes:
        major, minor, revision: of the format; from 0.2 on `seen` is 64 bits wide, before it 32.
        seen: images that the weights were trained on.
    """

    major: int
    minor: int
    revision: int
    seen: int

    @property
    def size(self) -> int:
        """Bytes."""
        return 20 if self.major * 10 + self.minor >= 2 else 16


class Known(NamedTuple):
    """A published file."""

    floats: int
    sha256: str | None = None


KNOWN = {  # names under which files were published; sums where two sources agree on one
    "yolo9000.weights": Known(48_807_501, "6a3d93b9d0ffafc5bcb39bfc0e4fb554234a6e3afd9f0158b818b5689daae05d"),
    "yolov2-voc.weights": Known(50_676_061),
    "yolov2.weights": Known(50_983_561),
    "yolo-voc.weights": Known(67_158_109),
    "yolo.weights": Known(67_465_609),
    "yolov2-tiny-voc.weights": Known(15_867_885),
    "yolov2-tiny.weights": Known(11_237_145),
    "darknet19.weights": Known(20_856_776),
    "darknet19_448.weights": Known(20_856_776),
    "darknet9000.weights": Known(29_485_226),
}
POINTER = b"version https://git-lfs.github.com/spec"


def read_header(path: str | Path) -> Header:
    """The header of a `.weights` file.

    Raises:
        WordTreeError: no such file; one that is none: a web page, a Git-LFS pointer, another format; one of transposed
            layers.
    """
    file = Path(path)
    if not file.is_file():
        raise WordTreeError(f"no weights {str(path)!r}; give a .weights file that exists")
    with open(file, "rb") as opened:
        head = opened.read(512)
    given = f"{str(path)!r}, {file.stat().st_size:,} bytes,"
    if head.startswith(POINTER):
        size = next((line.split()[1] for line in head.decode(errors="replace").split("\n") if line[:5] == "size "), "?")
        raise WordTreeError(
            f"{given} is a Git-LFS pointer to a file of {size} bytes, not weights; `git lfs pull` brings the file"
        )
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<":
        raise WordTreeError(
            f"{given} is a web page, not weights: the site it came from has moved; give the file itself{_should(file)}"
        )
    if len(head) < 16:
        raise WordTreeError(f"{given} is shorter than a header of 16; give a whole .weights file{_should(file)}")
    major, minor, revision = struct.unpack("<3i", head[:12])
    if 1000 < max(major, minor) < 3000 and min(major, minor, revision) >= 0:
        raise WordTreeError(
            f"{given} has version {major}.{minor}, which marks transposed connected layers; networks of convolutions "
            "have none: give a file written by Darknet itself"
        )
    if not (0 <= major <= 1000 and 0 <= minor <= 1000 and 0 <= revision <= 1000):
        raise WordTreeError(
            f"{given} begins with version {major}.{minor}.{revision}; give a .weights file of Darknet's"
        )
    header = Header(major, minor, revision, 0)
    if len(head) < header.size:
        raise WordTreeError(f"{given} is shorter than its header of {header.size}; give a whole .weights file")
    (seen,) = struct.unpack("<q" if header.size == 20 else "<i", head[12 : header.size])
    return header._replace(seen=seen)


def load_weights(model: OwnNetwork, path: str | Path, upto: int | None = None) -> Header:
    """Read a `.weights` file into a network; nothing is changed where it does not fit.

    Args:
        model: a detector or classifier of `models`, in any memory format and precision.
        path: the file.
        upto: read layers 0 to upto - 1 alone, counted as a cfg's sections are: 23 for `darknet19_448.conv.23`. The
            file may hold more. The other layers stay as they are.

    Returns:
        The header. It is kept as `model.origin` too, where the whole file was read.

    Raises:
        WordTreeError: as `read_header`; a file too short or too long, with bytes expected and given and the layer it
            ends in; numbers that are not finite, a variance below 0; a layer beyond the network.
    """
    header = read_header(path)
    _read(Path(path), header, _blocks(model, upto), upto)
    if upto is None:
        _came_from(model, header)
    return header


def save_weights(model: OwnNetwork, path: str | Path, upto: int | None = None, header: Header | None = None) -> Path:
    """Write a network as a `.weights` file, whole or not at all.

    Args:
        model: a detector or classifier of `models`.
        path: the file.
        upto: write layers 0 to upto - 1 alone, with `seen` 0: `darknet19_448.conv.23` is upto=23 of darknet19_448.
        header: where left out, that of the file the weights came from, else 0.2.0, and the images the model has seen.
    """
    path = Path(path)
    check_folder(path)
    if header is None:
        header = Header(*(model.origin or (0, 2, 0, 0)))
        header = header._replace(seen=model.seen) if isinstance(model, Detector) else header
    header = header if upto is None else header._replace(seen=0)
    if header.size == 16 and not -(2**31) <= header.seen < 2**31:
        raise WordTreeError(f"{header.seen} images seen do not fit a header of version 0.1; give one of 0.2.0")
    blocks = _blocks(model, upto)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(struct.pack("<3iq" if header.size == 20 else "<4i", *header))
            for _, module in blocks:
                for _, parts in _tensors(module):
                    whole = torch.cat([part.detach().float().cpu() for part in parts], 1)
                    whole.contiguous().numpy().astype("<f4", copy=False).tofile(file)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def start_from_classifier(model: Detector, path: str | Path, seed: int = 0) -> Header:
    """Start a detector from a tree classifier's `.weights`, as the released YOLO9000 was (Darknet 2017-01, `oneoff`).

    The trunk is the classifier's; its last layer becomes the classes of every anchor; the rows of boxes and objectness
    are the same small random ones in every anchor; biases of these are 0, and no images are seen.

    Args:
        model: a detector whose trunk and classes are those of the classifier.
        path: the classifier's file, such as darknet9000.weights.
        seed: of the random rows.
    """
    if list(model.neck.parameters()):
        raise WordTreeError(
            "a detector with layers between trunk and head; a classifier starts one without, as YOLO9000"
        )
    head, blocks = model.head, _blocks(model, None)
    classes = TreeLinear(head.classes.features, model.tree)
    header = read_header(path)
    _read(Path(path), header, [*blocks[:-1], (blocks[-1][0], classes)], None)
    head.start_from(classes.to(head.classes.weight.device))
    with torch.no_grad():
        channels = head.boxes.in_channels
        rows = torch.rand(5, channels, 1, 1, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        head.boxes.weight.copy_((rows * 0.1 * (2 / channels) ** 0.5).repeat(len(head.anchors), 1, 1, 1))
        nn.init.zeros_(head.boxes.bias)  # type: ignore[arg-type]
    _came_from(model, header._replace(seen=0))
    return header


def _came_from(model: OwnNetwork, header: Header) -> None:
    model.origin = header
    if isinstance(model, Detector):
        model.seen = header.seen


def check_known(path: str | Path) -> None:
    """Warn where a file has a published file's name and size, but not its content, as far as that is known."""
    file = Path(path)
    known = KNOWN.get(file.name)
    if known is None or known.sha256 is None or file.stat().st_size not in _sizes(known):
        return
    with open(file, "rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != known.sha256:
        warnings.warn(
            f"{str(path)!r} has the published file's name and size, but other content (SHA-256 {found[:16]}..., "
            f"published {known.sha256[:16]}...); it is read as it is",
            stacklevel=2,
        )


def _sizes(known: Known) -> tuple[int, int]:
    return 16 + 4 * known.floats, 20 + 4 * known.floats


def _should(file: Path) -> str:
    """What is known of a published file of this name, for a message."""
    known = KNOWN.get(file.name)
    if known is None:
        return ""
    sum_ = f" and SHA-256 {known.sha256}" if known.sha256 else ""
    return f"; the published {file.name} has {_sizes(known)[0]:,} bytes{sum_}"


# ---------------------------------------------------------------------- which number goes where

Block = tuple[Layer, nn.Module]


def _blocks(model: OwnNetwork, upto: int | None) -> list[Block]:
    """The convolutions of a network in its file's order, each with its layer, of the first `upto` layers."""
    layers = Cfg(cfg_of(model), "the model's cfg").layers()
    if upto is not None and not 1 <= upto <= len(layers):
        raise WordTreeError(f"upto={upto} of a network of {len(layers)} layers; give 1 to {len(layers)}")
    convolutions = [layer for layer in layers if layer.kind == "convolutional"]
    modules = [module for module in model.modules() if isinstance(module, ConvBlock)]
    head = model.head if isinstance(model, Detector) else model.classes
    blocks = list(zip(convolutions, [*modules, head], strict=True))
    return [(layer, module) for layer, module in blocks if upto is None or layer.number < upto]


def _tensors(module: nn.Module) -> list[tuple[str, list[Tensor]]]:
    """A convolution's arrays in its file's order: each the parts [copies, rows, ...] that lie side by side in dim 1."""
    if isinstance(module, RegionHead):
        anchors, boxes, classes = len(module.anchors), module.boxes, module.classes
        assert boxes.bias is not None
        rows = boxes.weight[:, :, 0, 0].view(anchors, 5, -1)
        return [("bias", [boxes.bias.view(anchors, 5), classes.bias]), ("weights", [rows, classes.weight])]
    if isinstance(module, TreeLinear):
        return [("bias", [module.bias]), ("weights", [module.weight])]
    assert isinstance(module, ConvBlock)
    conv, norm = module[0], module[1]
    assert isinstance(conv, nn.Conv2d)
    if isinstance(norm, BatchNorm):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        arrays = [
            ("bias", norm.bias),
            ("scale", norm.weight),
            ("mean", norm.running_mean),
            ("variance", norm.running_var),
        ]
    else:
        assert conv.bias is not None
        arrays = [("bias", conv.bias)]
    return [(what, [array.detach()[None]]) for what, array in [*arrays, ("weights", conv.weight)]]


def _arrays(blocks: Sequence[Block]) -> Iterator[tuple[Layer, str, list[Tensor]]]:
    """The arrays that a file holds for these, but for those that the cfg says it does not hold."""
    for layer, module in blocks:
        if layer.section.whole("dontload", 0):
            continue
        scales = not layer.section.whole("dontloadscales", 0)
        for what, parts in _tensors(module):
            if scales or what in ("bias", "weights"):
                yield layer, what, parts


def _read(file: Path, header: Header, blocks: Sequence[Block], upto: int | None) -> None:
    """Check a whole file, then copy it: each number is read from the file's pages to its place, once."""
    arrays = [(layer, what, parts, sum(part.numel() for part in parts)) for layer, what, parts in _arrays(blocks)]
    _check_size(file, header, [(layer, count) for layer, _, _, count in arrays], upto)
    if not arrays:  # a part without a convolution
        return
    values = np.memmap(file, "<f4", "c", header.size, (sum(count for *_, count in arrays),))
    pieces = torch.from_numpy(values).split([count for *_, count in arrays])
    for (layer, what, _, _), piece in zip(arrays, pieces, strict=True):
        # a sum is not finite where one of its numbers is not; it takes no memory
        if not bool(piece.sum().isfinite()) and not bool(piece.isfinite().all()):
            raise _bad(file, layer, f"{what} that are NaN or infinite")
        if what == "variance" and bool((piece < 0).any()):
            raise _bad(file, layer, f"a variance of {float(piece.min()):g}")
    with torch.no_grad():
        for (_, _, parts, _), piece in zip(arrays, pieces, strict=True):
            rows = [part.shape[1] for part in parts]
            whole = piece.view(len(parts[0]), sum(rows), *parts[0].shape[2:])
            for part, one in zip(parts, whole.split(rows, 1), strict=True):
                part.copy_(one)


def _check_size(file: Path, header: Header, counts: Sequence[tuple[Layer, int]], upto: int | None) -> None:
    given = file.stat().st_size
    expected = header.size + 4 * sum(count for _, count in counts)
    if given == expected or (upto is not None and given > expected):
        return
    what = f"{str(file)!r} has {given:,} bytes, this network takes {expected:,} after a header {header[0]}.{header[1]}"
    if given > expected:
        raise WordTreeError(f"{what}: {given - expected:,} too many; give the cfg of this file{_should(file)}")
    ends = list(accumulate((4 * count for _, count in counts), initial=header.size))
    layer = next(layer for (layer, _), end in zip(counts, ends[1:], strict=True) if end > given)
    if given in ends and layer.number and ends.index(given) and counts[ends.index(given) - 1][0] is not layer:
        what += f": whole layers up to {layer.number - 1}; upto={layer.number} reads those"
    else:
        what += f": it ends in layer {layer.number}, [convolutional] of {layer.channels} filters"
    raise WordTreeError(f"{what}; else give a whole file, or the cfg of this one{_should(file)}")


def _bad(file: Path, layer: Layer, what: str) -> WordTreeError:
    return WordTreeError(
        f"{str(file)!r}, layer {layer.number}, [convolutional] of {layer.channels} filters, has {what}; "
        "the file is damaged, or of another cfg: give a whole one"
    )
