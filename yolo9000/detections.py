"""What was found in one image: boxes, names, and the path from the root with how sure each step was."""

import base64
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from html import escape
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wordtree import WordTree, WordTreeError
from wordtree.nn import suppress_relatives

from .plots import Label, draw, sure_step

ROWS = ("boxes", "scores", "labels", "objectness", "node_probs")  # the fields with a row a box


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """The detections of one image, best first.

    Numbers are tensors; `numpy()` gives the same with arrays. `found[0]`, `found[2:5]`, `found[found.scores > 0.5]` and
    `found[rows]` are Detections of those boxes; iterating gives one record a box, as `to_json` writes them.

    Attributes:
        boxes: float [n, 4] left, top, right, bottom, pixels of the image as given.
        scores: float [n], objectness x Pr(node); in Darknet's modes objectness alone, with a tree.
        labels: int64 [n], nodes of `tree`; -1, the root, where not even a root child passed the tree threshold.
        objectness: float [n].
        paths: a tuple of nodes a box, from the root child to the label; empty for -1.
        path_probs: a tuple of Pr(node) a box, beside `paths`.
        tree: the tree.
        image: uint8 [3, h, w], the picture.
        source: its name.
        node_probs: float [n, nodes], Pr(node) of every node, where it was asked for.
        frame, time, rate: of a video: which frame, from 0; its seconds; frames a second. None for a still.

    Other names of the same: `xyxy` and `xywh` in pixels, `xyxyn` and `xywhn` in fractions of the image (x and y of the
    centre in those with w and h), `conf` for scores, `cls` for labels.

    Example:
        >>> tree = WordTree(["animal", "dog"], [-1, 0])
        >>> found = Detections(
        ...     boxes=torch.tensor([[8.0, 4.0, 24.0, 12.0], [0.0, 0.0, 9.0, 9.0]]),
        ...     scores=torch.tensor([0.72, 0.5]), labels=torch.tensor([1, -1]), objectness=torch.tensor([0.9, 0.5]),
        ...     paths=((0, 1), ()), path_probs=((0.95, 0.8), ()), tree=tree,
        ...     image=torch.zeros(3, 16, 32, dtype=torch.uint8), source="photo.jpg")
        >>> print(found)
        photo.jpg: 2 found
          dog 0.72  [8 4 24 12]  animal 0.95 > dog 0.80
          root 0.50  [0 0 9 9]
        >>> found[0].names, found[found.scores < 0.6].ids, found.at(0.85).names
        (('dog',), ('root',), ('animal', 'root'))
        >>> found.xywh[0].tolist()
        [16.0, 8.0, 16.0, 8.0]
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    objectness: Tensor
    paths: tuple[tuple[int, ...], ...]
    path_probs: tuple[tuple[float, ...], ...]
    tree: WordTree
    image: Tensor
    source: str
    node_probs: Tensor | None = None
    frame: int | None = None
    time: float | None = None
    rate: float | None = None

    @classmethod
    def of(cls, image: Tensor, found: dict[str, Any], tree: WordTree, source: str, **moment: Any) -> "Detections":
        """From a detector's own result for one image (`Detector.detect`). moment: frame, time, rate."""
        paths = tuple(found["paths"])
        steps = found["path_probs"].tolist()
        probs = tuple(tuple(row[: len(path)]) for row, path in zip(steps, paths, strict=True))
        rows = {name: found[name].cpu() for name in ROWS if found.get(name) is not None}
        return cls(paths=paths, path_probs=probs, tree=tree, image=image.cpu(), source=source, **rows, **moment)

    # ------------------------------------------------------------------ rows

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Any) -> "Detections":
        """Some boxes: an index, a slice, a mask bool [n], or rows int64 [k] in the order wanted.

        Raises:
            IndexError: a row that is not there, a mask of another length.
        """
        if isinstance(rows, Tensor):
            rows = rows.cpu().numpy()
        elif isinstance(rows, list):
            rows = np.array(rows, dtype=None if rows else np.int64)
        try:
            at = np.atleast_1d(np.arange(len(self))[rows])
            if at.ndim > 1:
                raise IndexError(f"an index of {at.ndim} dimensions")
        except IndexError as fault:
            raise IndexError(f"{len(self)} detections, {fault}; give an index, a slice, a mask or rows") from None
        return self.take(torch.from_numpy(at.copy()))

    def take(self, rows: Tensor) -> "Detections":
        """Only some boxes. rows: int64 [k], in the order wanted."""
        at = rows.tolist()
        return replace(
            self,
            paths=tuple(self.paths[row] for row in at),
            path_probs=tuple(self.path_probs[row] for row in at),
            **self._numbers(lambda values: values[at]),
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """One record a box: box, score, objectness, id, name, path."""
        plain = self.numpy()
        rows = zip(plain.boxes, plain.scores, plain.objectness, self.ids, self.names, strict=True)
        for (box, score, objectness, id_, name), path, probs in zip(rows, self.paths, self.path_probs, strict=True):
            yield {
                "box": [_short(side) for side in box],
                "score": _short(score),
                "objectness": _short(objectness),
                "id": id_,
                "name": name,
                "path": [
                    {"id": self.tree.ids[node], "name": self.tree.names[node], "prob": _short(prob)}
                    for node, prob in zip(path, probs, strict=True)
                ],
            }

    # ------------------------------------------------------------------ names

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of each box's node; the root's name for -1."""
        return tuple(self.tree.ids[node] if node >= 0 else self.tree.root_name for node in self.labels.tolist())

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each box's node; the root's name for -1."""
        return tuple(self.tree.names[node] if node >= 0 else self.tree.root_name for node in self.labels.tolist())

    @property
    def id2label(self) -> dict[int, str]:
        """A name for each node of the tree that no other node has: "crane (wading bird)" where there are two cranes."""
        return unique_names(self.tree)

    # ------------------------------------------------------------------ boxes in other forms

    @property
    def xyxy(self) -> Tensor:
        """float [n, 4] left, top, right, bottom, pixels."""
        return self.boxes

    @property
    def xywh(self) -> Tensor:
        """float [n, 4] centre x, centre y, width, height, pixels."""
        low, high = self.boxes[:, :2], self.boxes[:, 2:]
        if isinstance(self.boxes, np.ndarray):
            return np.concatenate(((low + high) / 2, high - low), axis=1)
        return torch.cat(((low + high) / 2, high - low), dim=1)

    @property
    def xyxyn(self) -> Tensor:
        """`xyxy` in fractions of the image's width and height."""
        return self._fractions(self.xyxy)

    @property
    def xywhn(self) -> Tensor:
        """`xywh` in fractions of the image's width and height."""
        return self._fractions(self.xywh)

    @property
    def conf(self) -> Tensor:
        """`scores`."""
        return self.scores

    @property
    def cls(self) -> Tensor:
        """`labels`."""
        return self.labels

    def _fractions(self, boxes: Any) -> Tensor:
        height, width = self.image.shape[1:]
        sides: Any = np.array([width, height, width, height], dtype=np.float32)
        if not isinstance(boxes, np.ndarray):
            sides = torch.from_numpy(sides).to(boxes.device)
        fractions: Tensor = boxes / sides
        return fractions

    # ------------------------------------------------------------------ where the numbers lie

    def to(self, device: str | torch.device) -> "Detections":
        """Tensors on a device; of arrays, tensors again. The picture stays in main memory."""
        image = torch.as_tensor(self.image)
        return replace(self, image=image, **self._numbers(lambda values: torch.as_tensor(values).to(device)))

    def cpu(self) -> "Detections":
        """Tensors in main memory."""
        return self.to("cpu")

    def numpy(self) -> "Detections":
        """The same with arrays in place of tensors, the picture's too."""
        return replace(self, image=_array(self.image), **self._numbers(_array))

    def _numbers(self, change: Callable[[Any], Any]) -> dict[str, Any]:
        """The fields with a row a box, each changed."""
        return {name: change(getattr(self, name)) for name in ROWS if getattr(self, name) is not None}

    # ------------------------------------------------------------------ coarser names, without another run

    def at(self, tree_threshold: float) -> "Detections":
        """As a higher tree threshold would name them: each box by the last step of its path that is likelier.

        The score goes up with the name's probability. Relatives that now share an object are one detection. What the
        score threshold left out does not come back, nor do names below those found: for a lower threshold, run again.

        Args:
            tree_threshold: 0..1.
        """
        return self._cut([sum(1 for _ in takewhile(lambda p: p > tree_threshold, row)) for row in self.path_probs])

    def level(self, level: int) -> "Detections":
        """Each box by the name at a depth of its path, where the path goes so deep. 0 is a child of the root, as in
        `tree.depths`."""
        if level < 0:
            raise WordTreeError(f"a level of {level}; the root's children are at depth 0, and deeper is more")
        return self._cut([min(level + 1, len(path)) for path in self.paths])

    def _cut(self, lengths: Sequence[int]) -> "Detections":
        """Paths cut to some steps each."""
        if all(length == len(path) for length, path in zip(lengths, self.paths, strict=True)):
            return self
        paths = tuple(path[:length] for path, length in zip(self.paths, lengths, strict=True))
        probs = tuple(row[:length] for row, length in zip(self.path_probs, lengths, strict=True))
        plain = self.cpu()
        labels = torch.tensor([path[-1] if path else -1 for path in paths])
        likely = torch.tensor([row[-1] if row else 1.0 for row in probs])
        # where the score is objectness alone it stays: Darknet's, and that of a path as sure as can be
        scores = torch.where(plain.scores == plain.objectness, plain.scores, plain.objectness * likely)
        kept = suppress_relatives(plain.boxes, scores, labels, self.tree)
        lifted = replace(plain, labels=labels, scores=scores, paths=paths, path_probs=probs).take(kept)
        return lifted.numpy() if isinstance(self.boxes, np.ndarray) else lifted.to(self.boxes.device)

    # ------------------------------------------------------------------ to look at

    def __str__(self) -> str:
        where = self.source if self.frame is None else f"{self.source} frame {self.frame}"
        lines = [f"{where}: {len(self)} found" if len(self) else f"{where}: nothing found"]
        for box, score, name, path, probs in zip(
            self.boxes.tolist(), self.scores.tolist(), self.names, self.paths, self.path_probs, strict=True
        ):
            steps = " > ".join(f"{self.tree.names[node]} {prob:.2f}" for node, prob in zip(path, probs, strict=True))
            left, top, right, bottom = (round(side) for side in box)
            lines.append(f"  {name} {score:.2f}  [{left} {top} {right} {bottom}]  {steps}".rstrip())
        return "\n".join(lines)

    def __repr__(self) -> str:
        shown = [f"{name} {score:.2f}" for name, score in zip(self.names[:5], self.scores[:5].tolist(), strict=True)]
        shown += [f"{len(self) - 5} more"] * (len(self) > 5)
        return f"Detections({self.source!r}, {len(self)} found{': ' * bool(shown)}{', '.join(shown)})"

    def _repr_png_(self) -> bytes:
        return _encoded(self.plot(), "PNG")

    def _repr_html_(self) -> str:
        picture = base64.b64encode(self._repr_png_()).decode()
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{score:.2f}</td><td>"
            f"{escape(' > '.join(self.tree.names[node] for node in path))}</td></tr>"
            for name, score, path in zip(self.names, self.scores.tolist(), self.paths, strict=True)
        )
        head = "<tr><th>name</th><th>score</th><th>path</th></tr>"
        return f'<img alt="" style="max-width:100%" src="data:image/png;base64,{picture}"><table>{head}{rows}</table>'

    def plot(self, scale: float | None = None) -> Image.Image:
        """The picture with boxes; each says its name, score, and above them the last step of its path that is sure.

        Args:
            scale: enlarge the picture first; enough for 480 pixels of width where left out.
        """
        picture = self._picture()
        if scale is None:
            scale = max(1.0, min(480 / picture.width, 1920 / picture.height))
        if scale != 1:
            size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        labels = []
        for box, score, name, node, path, probs in zip(
            self.boxes.tolist(), self.scores.tolist(), self.names, self.labels.tolist(), self.paths, self.path_probs,
            strict=True,
        ):  # fmt: skip
            left, top, right, bottom = (side * scale for side in box)
            above = sure_step([self.tree.names[step] for step in path], probs)
            labels.append(Label((left, top, right, bottom), f"{name} {score:.2f}", above, node))
        return draw(picture, labels)

    def crops(self) -> list[Image.Image]:
        """What lies in each box, whole pixels, at least one."""
        picture = self._picture()
        cut = []
        for left, top, right, bottom in self.boxes.tolist():
            x, y = min(math.floor(left), picture.width - 1), min(math.floor(top), picture.height - 1)
            cut.append(picture.crop((x, y, max(x + 1, math.ceil(right)), max(y + 1, math.ceil(bottom)))))
        return cut

    def _picture(self) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(_array(self.image).transpose(1, 2, 0)))

    # ------------------------------------------------------------------ to keep

    def to_json(self) -> str:
        """The detections as JSON: source, width, height, of a video frame and time, detections.

        A number is the shortest text that reads back as the same float32.
        """
        height, width = self.image.shape[1:]
        moment = {} if self.frame is None else {"frame": self.frame, "time": self.time}
        head = {"source": self.source, "width": width, "height": height}
        return json.dumps({**head, **moment, "detections": list(self)})

    def to_supervision(self) -> Any:
        """As a `supervision.Detections`: class_id holds nodes, data holds class_name, id, objectness and path.

        Raises:
            WordTreeError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError:
            raise WordTreeError(
                "to_supervision() makes an object of the package supervision, which is not installed; "
                "pip install supervision, or use numpy()"
            ) from None
        plain: Any = self.numpy()
        return supervision.Detections(
            xyxy=plain.boxes,
            confidence=plain.scores,
            class_id=plain.labels,
            data={
                "class_name": np.array(self.names, dtype=str),
                "id": np.array(self.ids, dtype=str),
                "objectness": plain.objectness,
                "path": np.array([" > ".join(self.tree.names[n] for n in path) for path in self.paths], dtype=str),
            },
        )

    def save(self, path: str | Path, scale: float | None = None) -> Path:
        """Write `plot()` to an image file, whole or not at all; the suffix says the format.

        Raises:
            WordTreeError: a suffix of no known format.
        """
        return save_picture(self.plot(scale), Path(path))

    def save_crops(self, folder: str | Path, stem: str | None = None) -> list[Path]:
        """Write each crop to `folder/NAME/STEM-ROW.png`, NAME as in `id2label`.

        Args:
            folder: made where it is not there.
            stem: the first part of the file names; the source's own name where left out.
        """
        moment = "" if self.frame is None else f"-{self.frame:06d}"
        stem = f"{file_name(Path(self.source).stem)}{moment}" if stem is None else stem
        named = {**self.id2label, -1: self.tree.root_name}
        return [
            save_picture(crop, Path(folder) / file_name(named[node]) / f"{stem}-{row}.png")
            for row, (node, crop) in enumerate(zip(self.labels.tolist(), self.crops(), strict=True))
        ]


def unique_names(tree: WordTree) -> dict[int, str]:
    """A readable name for each node of a tree that no other node has.

    The node's own where it is the only one, else with the parent's in brackets, else with its id.

    Example:
        >>> tree = WordTree(["a", "b", "c", "d"], [-1, -1, 0, 1], ["bird", "machine", "crane", "crane"])
        >>> unique_names(tree)
        {0: 'bird', 1: 'machine', 2: 'crane (bird)', 3: 'crane (machine)'}
    """
    return dict(enumerate(_unique_names(tree.ids, tree.names, tuple(tree.parents.tolist()), tree.root_name)))


@lru_cache(maxsize=4)
def _unique_names(ids: tuple[str, ...], names: tuple[str, ...], parents: tuple[int, ...], root: str) -> tuple[str, ...]:
    often = Counter(names)
    longer = [f"{name} ({names[up] if up >= 0 else root})" for name, up in zip(names, parents, strict=True)]
    longer_often = Counter(long for long, name in zip(longer, names, strict=True) if often[name] > 1)
    taken = {name for name in names if often[name] == 1}
    unique = []
    for id_, name, long in zip(ids, names, longer, strict=True):
        if often[name] > 1:
            name = long if longer_often[long] == 1 else f"{name} ({id_})"
            while name in taken:  # what stands in brackets may be some other node's name
                name += f" ({id_})"
            taken.add(name)
        unique.append(name)
    return tuple(unique)


def file_name(text: str) -> str:
    """A text as a name that any file system takes."""
    return re.sub(r"[^\w ().,'-]", "_", text).strip(". ") or "_"


def save_picture(picture: Image.Image, path: Path) -> Path:
    """Write a picture to a file that is there whole or not at all; the suffix says the format."""
    format = Image.registered_extensions().get(path.suffix.lower())
    if format is None or format not in Image.SAVE:
        raise WordTreeError(f"no picture format for {str(path)!r}; give a suffix such as .png, .jpg or .webp")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        temporary.write_bytes(_encoded(picture, format))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _encoded(picture: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format)
    return buffer.getvalue()


def _array(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def _short(value: float) -> float:
    """The number with the fewest digits that is the same float32."""
    return float(str(np.float32(value)))
