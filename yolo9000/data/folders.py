"""Pictures with a name and no box: folders by label, ImageNet's tars read in place, a CSV of files and labels."""

import csv
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wordtree import LabelMap, WordTree, WordTreeError

from ..images import SUFFIXES
from .records import Fault, Mapper, Records, Table, existing, files_under


def read_folder(path: Path, labels: LabelMap, tree: WordTree, name: str = "folder") -> Records:
    """Image labels of a folder of folders: path/n02084071/x.jpg, path/dog/x.jpg.

    Raises:
        WordTreeError: no such folder, or no folders with images in it.
    """
    files = [str(file) for file in files_under(existing(path, "folder"), SUFFIXES)]
    inside = [os.path.relpath(file, path) for file in files]
    texts = [one.split(os.sep)[0] if os.sep in one else "" for one in inside]
    if not any(texts):
        raise WordTreeError(f"no folders of images in {str(path)!r}; give a folder that holds one for each label")
    return _labelled(name, tree, files, inside, texts, Mapper(labels, tree), str(path))


def read_csv(path: Path, images: Path | None, labels: LabelMap, tree: WordTree, name: str = "csv") -> Records:
    """Image labels of a CSV with the columns `file` and `label`; files are looked for in `images`.

    Raises:
        WordTreeError: no such file, or a column missing.
    """
    folder = images or path.parent
    with open(existing(path, "CSV"), newline="", encoding="utf-8-sig") as opened:
        table = csv.DictReader(opened)
        for column in ("file", "label"):
            if column not in (table.fieldnames or ()):
                have = ", ".join(table.fieldnames or ()) or "none"
                raise WordTreeError(f"{path}: no column {column!r} among {have}; give `file` and `label`")
        rows = [((row["file"] or "").strip(), (row["label"] or "").strip()) for row in table]
    return _labelled(
        name, tree, [os.path.join(folder, file) for file, _ in rows], [file for file, _ in rows],
        [label for _, label in rows], Mapper(labels, tree), str(path),
    )  # fmt: skip


def read_tars(path: Path, labels: LabelMap, tree: WordTree, name: str = "tars") -> Records:
    """Image labels of ImageNet's tars as they were downloaded: n02084071.tar, a folder of such, or a tar of such.

    Images are read where they lie; nothing is unpacked. The label is the name of the tar that holds the image.

    Raises:
        WordTreeError: no such file, no tar in the folder, or a tar that ends too soon.
    """
    tars = sorted(existing(path, "tar or folder of tars").glob("*.tar")) if path.is_dir() else [existing(path, "tar")]
    if not tars:
        raise WordTreeError(f"no .tar in {str(path)!r}; give a folder of n02084071.tar and so on")
    members = [(str(tar), member) for tar in tars for member in images_in(tar)]
    return _labelled(
        name, tree, [tar for tar, _ in members], [member.name for _, member in members],
        [member.tar for _, member in members], Mapper(labels, tree), str(path),
        np.array([(member.offset, member.length) for _, member in members], dtype=np.int64).reshape(-1, 2),
    )  # fmt: skip


class Member(NamedTuple):
    """An image in a tar, or in a tar within a tar."""

    name: str
    tar: str  # the name of the tar it lies in, without .tar
    offset: int
    length: int


def images_in(path: Path) -> Iterator[Member]:
    """The images of a tar and of the tars in it."""
    with open(path, "rb") as file:
        yield from (member for member in members_of(file, path.stem, str(path)) if _is_image(member.name))


def members_of(file: IO[bytes], tar: str, where: str) -> Iterator[Member]:
    """Every file of the tar that begins where `file` stands, and of the tars in it.

    Raises:
        WordTreeError: no tar, or one that ends too soon.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as opened:
            for one in opened:
                if one.isfile() and one.name.endswith(".tar"):
                    file.seek(one.offset_data)  # the outer tar finds its own way back
                    yield from members_of(file, Path(one.name).stem, f"{where}:{one.name}")
                elif one.isfile():
                    yield Member(one.name, tar, one.offset_data, one.size)
    except tarfile.TarError as fault:
        raise WordTreeError(f"{where}: not a whole tar ({fault}); give it undamaged") from None


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _labelled(
    name: str,
    tree: WordTree,
    files: list[str],
    ids: list[str],
    texts: list[str],
    mapper: Mapper,
    where: str,
    places: NDArray[np.int64] | None = None,
) -> Records:
    """Records of one label an image."""
    kinds, at = np.unique(np.array(texts, dtype=str), return_inverse=True)
    faults: list[Fault] = mapper.unmapped(where, kinds.tolist(), at)
    count = len(files)
    return Table(
        name, tree, files, ids, np.arange(count), np.zeros((count, 4)),
        mapper.table(kinds.tolist())[at] if count else np.zeros(0, np.int64), lambda row: files[row],
        labelled=np.ones(count, dtype=bool), places=places, numbers=mapper.number_of, faults=faults,
    ).records()  # fmt: skip
