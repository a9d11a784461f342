"""Priors by name: Darknet's, as its cfgs have them, and Faster R-CNN's nine; or numbers as a cfg has them."""

import math
from collections.abc import Sequence

from wordtree import WordTreeError
from wordtree.errors import unknown

# in pixels of the image as Faster R-CNN makes it: areas of 128, 256 and 512 squared, at 1:2, 1:1 and 2:1
FASTER_RCNN = tuple(
    (side / math.sqrt(ratio), side * math.sqrt(ratio)) for side in (128, 256, 512) for ratio in (2.0, 1.0, 0.5)
)
# in cells of stride 32, from Darknet's cfgs: of 2016 with the 2048-channel passthrough, since 2017 with the 256-channel
YOLO9000_ANCHORS = ((0.77871, 1.14074), (3.00525, 4.31277), (9.22725, 9.61974))
YOLOV2_ANCHORS = ((1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892), (9.47112, 4.84053), (11.2364, 10.0071))
TINY_ANCHORS = ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52))
ANCHORS: dict[str, Sequence[Sequence[float]]] = {
    "voc-2016": TINY_ANCHORS,
    "voc-2017": YOLOV2_ANCHORS,
    "coco-2016": (
        (0.738768, 0.874946), (2.42204, 2.65704), (4.30971, 7.04493), (10.246, 4.59428), (12.6868, 11.8741),
    ),
    "coco-2017": (
        (0.57273, 0.677385), (1.87446, 2.06253), (3.33843, 5.47434), (7.88282, 3.52778), (9.77052, 9.16828),
    ),
    "yolo9000": YOLO9000_ANCHORS,
    # Faster R-CNN's nine on VOC's usual image at 800 x 600, in cells of 1/13
    "hand-picked": tuple((round(13 * width / 800, 5), round(13 * height / 600, 5)) for width, height in FASTER_RCNN),
}  # fmt: skip


def priors_of(text: str) -> list[list[float]]:
    """The priors that a text names: a name of `ANCHORS`, or numbers with commas, in cells, as a cfg has them.

    Example:
        >>> priors_of("1.08,1.19,  3.42,4.41")
        [[1.08, 1.19], [3.42, 4.41]]
    """
    if text in ANCHORS:
        return [list(map(float, pair)) for pair in ANCHORS[text]]
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        raise unknown("priors", text, ANCHORS) from None
    if len(numbers) % 2 or not all(0 < number < math.inf for number in numbers):
        raise WordTreeError(f"priors {text!r}; give widths and heights above 0, in cells, such as 1.08,1.19, 3.42,4.41")
    return [numbers[at : at + 2] for at in range(0, len(numbers), 2)]
