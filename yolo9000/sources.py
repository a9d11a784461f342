"""What `detect` may be given, and the pictures that come of it: files, folders, patterns, videos, cameras, arrays."""

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from wordtree import WordTreeError

from .images import SUFFIXES, as_image
from .video import DEVICES, VIDEO_SUFFIXES, Frame, count_frames, read_camera, read_video

READ = SUFFIXES + VIDEO_SUFFIXES


class Item(NamedTuple):
    """One file, camera or picture of a source, not opened yet.

    Attributes:
        kind: "image", "video" or "camera".
        name: what results call it.
        value: a path, the number or the name of a camera, or a picture in memory.
    """

    kind: str
    name: str
    value: Any


Source = str | Path | int | np.ndarray | Tensor | Image.Image | Item


def items_of(source: Source | Sequence[Source]) -> list[Item]:
    """Everything that a source names, in order; files are looked for and not read.

    Args:
        source: a file; a folder, of which the pictures and videos are read by name; a pattern ("photos/*.jpg"); the
            number of a camera (0, "0") or its device ("v4l2:/dev/video2"); a PIL image, an array [h, w, 3], a tensor
            [3, h, w]; or a list of these.

    Raises:
        WordTreeError: no such file, a folder or pattern without pictures, an address of the net, an array that is no
            picture.

    Example:
        >>> [item.kind for item in items_of([0, np.zeros((4, 4, 3), np.uint8)])]
        ['camera', 'image']
    """
    if isinstance(source, Item):
        return [source]
    if isinstance(source, list | tuple):
        return [item for one in source for item in items_of(one)]
    if isinstance(source, str | Path):
        return _named(source)
    if isinstance(source, int | np.integer) and not isinstance(source, bool):
        if source < 0:
            raise WordTreeError(f"camera {source} asked for; cameras count from 0")
        return [Item("camera", f"camera {source}", int(source))]
    if isinstance(source, np.ndarray | Tensor | Image.Image):
        return [Item("image", "image", as_image(source))]
    raise WordTreeError(
        f"a source of type {type(source).__name__}; give a path, a pattern, a camera's number, a PIL image, "
        "an array [h, w, 3], a tensor [3, h, w], or a list of these"
    )


def frames_of(item: Item) -> Iterator[Frame]:
    """The pictures of an item, one by one: one of an image, all of a video, without an end of a camera.

    Raises:
        WordTreeError: a file that cannot be read whole; of a video, after the frames that could.
    """
    if item.kind == "video":
        return read_video(item.value)
    if item.kind == "camera":
        return read_camera(item.value)
    return (Frame(item.name, as_image(value)) for value in (item.value,))


def count_of(items: Sequence[Item]) -> int | None:
    """How many pictures there will be; None where a camera or a video does not say."""
    counts = [
        1 if item.kind == "image" else (count_frames(item.value) if item.kind == "video" else None) for item in items
    ]
    return None if None in counts else sum(count or 0 for count in counts)


def _named(source: str | Path) -> list[Item]:
    text = str(source)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):  # two letters at least, so that C:/ is a folder; Path eats a slash
        raise WordTreeError(f"address {text!r} given; nothing is fetched from a net; download it and give the file")
    if isinstance(source, str) and text.partition(":")[0] in DEVICES and ":" in text:
        return [Item("camera", text, text)]
    path = Path(source)
    if path.is_dir():
        return _files(path.iterdir(), f"folder {text!r}")
    if path.is_file():
        return [_file(path)]
    if isinstance(source, str) and text.isdecimal():
        return items_of(int(text))
    if glob.has_magic(text):
        return _files(map(Path, glob.iglob(text, recursive=True)), f"pattern {text!r}")
    raise WordTreeError(f"no image or video {text!r}; give a file that exists ({', '.join(READ)})")


def _files(paths: Iterator[Path], where: str) -> list[Item]:
    found = sorted(path for path in paths if path.suffix.lower() in READ and path.is_file())
    if not found:
        raise WordTreeError(f"no images in {where}; give one that holds {', '.join(READ)}")
    return [_file(path) for path in found]


def _file(path: Path) -> Item:
    return Item("video" if path.suffix.lower() in VIDEO_SUFFIXES else "image", str(path), path)
