"""What was found in one image: boxes, names, and the path from the root with how sure each step was."""

import colorsys
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from wordtree import WordTree


@dataclass(frozen=True)
class Detections:
    """The detections of one image, best first.

    Attributes:
        boxes: float [n, 4] left, top, right, bottom, pixels of the image as given.
        scores: float [n], objectness x Pr(node).
        labels: int64 [n], nodes of `tree`; -1 where not even a root child passed the tree threshold.
        objectness: float [n].
        paths: a tuple of nodes a box, from the root child to the label; empty for -1.
        path_probs: a tuple of Pr(node) a box, beside `paths`.
        tree: the tree.
        image: uint8 [3, h, w], the picture.
        source: its name.
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

    @classmethod
    def of(cls, image: Tensor, found: dict[str, Any], tree: WordTree, source: str) -> "Detections":
        """From a detector's own result for one image (`Detector.detect`)."""
        paths = tuple(found["paths"])
        steps = found["path_probs"].tolist()
        probs = tuple(tuple(row[: len(path)]) for row, path in zip(steps, paths, strict=True))
        boxes, scores, labels, objectness = (found[key].cpu() for key in ("boxes", "scores", "labels", "objectness"))
        return cls(boxes, scores, labels, objectness, paths, probs, tree, image.cpu(), source)

    def take(self, rows: Tensor) -> "Detections":
        """Only some boxes. rows: int64 [k], in the order wanted."""
        at = rows.tolist()
        return replace(
            self,
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            labels=self.labels[rows],
            objectness=self.objectness[rows],
            paths=tuple(self.paths[row] for row in at),
            path_probs=tuple(self.path_probs[row] for row in at),
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """One record a box: box, score, id, name, path."""
        for row in range(len(self)):
            yield {
                "box": [round(side, 2) for side in self.boxes[row].tolist()],
                "score": round(float(self.scores[row]), 4),
                "id": self.ids[row],
                "name": self.names[row],
                "path": [
                    {"id": self.tree.ids[node], "name": self.tree.names[node], "prob": round(prob, 4)}
                    for node, prob in zip(self.paths[row], self.path_probs[row], strict=True)
                ],
            }

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of each box's node; the root's name for -1."""
        return tuple(self.tree.ids[node] if node >= 0 else self.tree.root_name for node in self.labels.tolist())

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each box's node; the root's name for -1."""
        return tuple(self.tree.names[node] if node >= 0 else self.tree.root_name for node in self.labels.tolist())

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self)} found" if len(self) else f"{self.source}: nothing found"]
        for row in range(len(self)):
            steps = " > ".join(
                f"{self.tree.names[node]} {prob:.2f}"
                for node, prob in zip(self.paths[row], self.path_probs[row], strict=True)
            )
            left, top, right, bottom = (round(side) for side in self.boxes[row].tolist())
            lines.append(f"  {self.names[row]} {self.scores[row]:.2f}  [{left} {top} {right} {bottom}]  {steps}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The detections as JSON: source, width, height, detections."""
        height, width = self.image.shape[1:]
        return json.dumps({"source": self.source, "width": width, "height": height, "detections": list(self)})

    def plot(self, scale: float | None = None) -> Image.Image:
        """The picture with boxes; each says its name, score, and the two steps of its path above the name.

        Args:
            scale: enlarge the picture first; enough for 480 pixels of width where left out.
        """
        height, width = self.image.shape[1:]
        factor = scale or max(1.0, 480 / width)
        picture = Image.fromarray(self.image.permute(1, 2, 0).contiguous().numpy())
        picture = picture.resize((round(width * factor), round(height * factor)), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(picture)
        size = max(11, round(min(picture.size) / 32))
        font = ImageFont.load_default(size)
        for row in reversed(range(len(self))):  # the best on top
            colour = _colour(self.paths[row])
            box = [side * factor for side in self.boxes[row].tolist()]
            draw.rectangle(box, outline=colour, width=max(2, size // 6))
            above = [self.tree.names[node] for node in self.paths[row][:-1]][-2:]
            lines = [f"{self.names[row]} {self.scores[row]:.2f}", *([" > ".join(above) + " >"] if above else [])][::-1]
            widest = max(draw.textlength(line, font) for line in lines)
            left = min(max(0.0, box[0]), max(0.0, picture.width - widest - 4))
            top = box[1] - (size + 3) * len(lines)
            top = top if top >= 0 else box[1]
            draw.rectangle([left, top, left + widest + 4, top + (size + 3) * len(lines)], fill=colour)
            for number, line in enumerate(lines):
                draw.text((left + 2, top + number * (size + 3)), line, fill="white", font=font)
        return picture

    def save(self, path: str | Path) -> Path:
        """Write `plot()` to an image file."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.plot().save(target)
        return target


def _colour(path: tuple[int, ...]) -> tuple[int, int, int]:
    """One colour a node, stable; dark enough for white text."""
    hue = (path[-1] * 0.6180339887) % 1 if path else 0.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 0.6)
    return round(red * 255), round(green * 255), round(blue * 255)
