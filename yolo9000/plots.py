"""Boxes with labels on a picture: the name, and above it the last step of its path that is sure."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

SURE = 0.5  # a step likelier than not
CROWD = 0.25  # of the picture under labels
GOLDEN = 0.6180339887  # hues this far apart fall evenly, however many there are
Box = tuple[float, float, float, float]


class Label(NamedTuple):
    """A box to draw, pixels, and what stands at it: `text`, `above` in smaller letters or "", `node` for the colour."""

    box: Box
    text: str
    above: str
    node: int


def sure_step(names: Sequence[str], probs: Sequence[float]) -> str:
    """The last step above the end of a path that is likelier than not, as "dog 0.92 >"; "" where none is.

    Example:
        >>> sure_step(["animal", "dog", "poodle"], [0.99, 0.92, 0.31])
        '... dog 0.92 >'
    """
    sure = [step for step, prob in enumerate(probs[:-1]) if prob > SURE]
    if not sure:
        return ""
    return f"{'... ' if sure[-1] else ''}{names[sure[-1]]} {probs[sure[-1]]:.2f} >"


class Tag(NamedTuple):
    """A label in its place: its pixels, its lines from the top down with the size of their letters."""

    box: Box
    lines: list[tuple[str, int]]


def draw(picture: Image.Image, labels: Sequence[Label]) -> Image.Image:
    """Draw boxes and labels on a picture, RGB, in place; the first label lies on top and chooses its place first.

    Letters and lines grow with the picture. In a crowd only names are written.
    """
    pen = ImageDraw.Draw(picture)
    size = _letters(picture.size)
    line = max(2, round(size / 6))
    rim = max(1, line // 4)  # parts the line from a background of its own colour
    for label in reversed(labels):
        left, top, right, bottom = label.box
        pen.rectangle((left - rim, top - rim, right + rim, bottom + rim), outline="black", width=rim)
        pen.rectangle(label.box, outline=colour_of(label.node), width=line)
    for label, tag in reversed(list(zip(labels, layout(labels, picture.size), strict=True))):
        left, top, right, bottom = tag.box
        colour = colour_of(label.node)
        pen.rectangle((left, top, right - 1, bottom - 1), fill=colour)
        for text, letters in tag.lines:
            middle = top + _height(letters) / 2
            pen.text((left + size // 4, middle), text, fill=ink_on(colour), font=_font(letters), anchor="lm")
            top += _height(letters)
    return picture


def colour_of(node: int) -> tuple[int, int, int]:
    """The colour of a node, the same in every picture; grey for -1, the root.

    Neighbours in the tree's order lie far apart in hue, in three shades of one lightness each (OKLCH).
    """
    if node < 0:
        return 128, 128, 128
    hue, light = 2 * math.pi * (node * GOLDEN % 1), (0.72, 0.58, 0.84)[node % 3]
    return _from_oklch(light, 0.16, hue)


def ink_on(colour: tuple[int, int, int]) -> str:
    """Black or white, whichever has more contrast with a colour (WCAG's relative luminance)."""
    linear = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "white"


def layout(labels: Sequence[Label], picture: tuple[int, int]) -> list[Tag]:
    """Each label in its place, at its box and in the picture, on no other where that can be avoided.

    Args:
        labels: the first chooses first.
        picture: width and height, pixels.
    """
    tags = _tags(labels, _letters(picture), picture)
    if sum(_area(tag.box) for tag in tags) > CROWD * picture[0] * picture[1]:
        tags = _tags([label._replace(above="") for label in labels], _letters(picture), picture)
    return tags


def _letters(picture: tuple[int, int]) -> int:
    """Pixels of a name's letters: a 38th of the side of a square as large as the picture."""
    return max(12, round(math.sqrt(picture[0] * picture[1]) / 38))


def _tags(labels: Sequence[Label], size: int, picture: tuple[int, int]) -> list[Tag]:
    tags: list[Tag] = []
    for label in labels:
        taken = [tag.box for tag in tags]
        for above in dict.fromkeys((label.above, "")):  # the path gives way where there is no room
            lines = [(above, max(10, round(size * 0.75)))] * bool(above) + [(label.text, size)]
            lines = [(_fitted(text, letters, picture[0] - size // 2), letters) for text, letters in lines]
            width = max(_font(letters).getlength(text) for text, letters in lines) + size // 2
            box = _place(label.box, width, sum(_height(letters) for _, letters in lines), picture, taken)
            if not _covered(box, taken):
                break
        tags.append(Tag(box, lines))
    return tags


def _place(box: Box, width: float, height: float, picture: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Above the box, else inside, below, at its foot or along its sides: the first free spot, or the freest."""
    left, top, right, bottom = box
    spots = [(x, y) for y in (top - height, top, bottom, bottom - height) for x in (left, right - width)]
    spots += [(x, top + step * height) for step in range(1, 6) for x in (left, right, left - width)]
    tags = []
    for x, y in spots:
        x = min(max(0.0, x), max(0.0, picture[0] - width))
        y = min(max(0.0, y), max(0.0, picture[1] - height))
        tags.append((x, y, x + width, y + height))
    return min(tags, key=lambda tag: _covered(tag, taken))


def _covered(box: Box, others: Sequence[Box]) -> float:
    """How many pixels of a box lie in others, each counted."""
    common = ((max(box[0], o[0]), max(box[1], o[1]), min(box[2], o[2]), min(box[3], o[3])) for o in others)
    return sum(_area(one) for one in common)


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _height(letters: int) -> int:
    return round(letters * 1.3)


@lru_cache(maxsize=16)
def _font(letters: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(letters)
    assert isinstance(font, ImageFont.FreeTypeFont)  # as any wheel of Pillow has it
    return font


def _fitted(text: str, letters: int, width: float) -> str:
    """A text, its middle left out where it is wider than the picture."""
    short, cut = text, len(text)
    while _font(letters).getlength(short) > width and cut > 4:
        cut -= 1
        short = f"{text[: (cut + 1) // 2]}...{text[-(cut // 2) :]}"
    return short


def _from_oklch(light: float, chroma: float, hue: float) -> tuple[int, int, int]:
    """OKLCH -> sRGB bytes, clipped (Ottosson, "A perceptual color space for image processing", 2020)."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    red, green, blue = (_byte(value) for value in linear)
    return red, green, blue


def _byte(linear: float) -> int:
    value = min(1.0, max(0.0, linear))
    return round(255 * (12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055))
