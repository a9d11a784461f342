"""Another view of each picture: jittered crops, mirrors, colours; crops of another aspect and angle for classifiers.

The distributions are Darknet's, by name (reference: its data.c and image.c); torchvision resizes and mirrors where no
exact arithmetic of Darknet's is asked for. A view depends on the picture and on a random stream of its own, so that it
is the same whichever process makes it. Colours are drawn with the view and changed later, a batch at a time on the
device that trains: on one core that would take several times as long as all else that a loader does.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from wordtree.errors import unknown

SMALLEST = 0.005  # share of a side under which a cut box is no truth any more


@dataclass(frozen=True)
class Augmentation:
    """How far a view may depart from its picture.

    Attributes:
        jitter: each side of a crop moves by up to this share of the picture, in or out.
        hue: added, up to so much, as a share of the circle.
        saturation, exposure: a factor up to this or its inverse, each half of the time (Darknet's `rand_scale`).
        mirror: left and right change places half of the time.
        angle, aspect, crop: of a classifier's crops: degrees, a factor as above, and the short side of the picture in
            crops, least and most.
        place: lay the whole picture at another aspect on grey, as Darknet since 2017-03, instead of cropping it.
        exact: Darknet's own resizing, which reads four pixels whatever the scale, instead of an antialiased one.
    """

    jitter: float = 0.0
    hue: float = 0.0
    saturation: float = 1.0
    exposure: float = 1.0
    mirror: bool = False
    angle: float = 0.0
    aspect: float = 1.0
    crop: tuple[float, float] = (1.0, 1.0)
    place: bool = False
    exact: bool = False

    @property
    def recolours(self) -> bool:
        """Whether colours change at all."""
        return (self.hue, self.saturation, self.exposure) != (0.0, 1.0, 1.0)


AUGMENTATIONS = {
    # the paper names crops, rotations, and hue, saturation and exposure shifts; the numbers are Darknet's for YOLOv2
    "paper": Augmentation(0.2, 0.1, 1.5, 1.5, True, 7.0, 0.75, (128 / 224, 2.0)),
    # yolo9000.cfg and darknet9000.cfg at the release, 2017-01
    "darknet": Augmentation(0.2, 0.1, 0.75, 0.75, True, 7.0, 0.75, (128 / 224, 2.0), exact=True),
    "darknet-2018": Augmentation(0.2, 0.1, 0.75, 0.75, True, 7.0, 0.75, (128 / 224, 2.0), place=True, exact=True),
    # by the name of their recipes: darknet19.cfg of 2016 and of 2017, darknet19_448.cfg, the cfgs of YOLOv2
    "darknet19-2016": Augmentation(mirror=True, crop=(1.0, 2.0), exact=True),
    "darknet19-2017": Augmentation(0.2, 0.1, 0.75, 0.75, True, 7.0, 0.75, (128 / 256, 448 / 256), exact=True),
    "darknet19-448": Augmentation(0.2, 0.1, 0.75, 0.75, True, 7.0, 0.75, (1.0, 512 / 448), exact=True),
    "yolov2-2016": Augmentation(0.2, 0.1, 1.5, 1.5, True, exact=True),
    "yolov2-2017": Augmentation(0.3, 0.1, 1.5, 1.5, True, place=True, exact=True),
    "none": Augmentation(),
}


def find_augmentation(name: str) -> Augmentation:
    """The augmentation of that name.

    Raises:
        WordTreeError: no such name.
    """
    if name not in AUGMENTATIONS:
        raise unknown("augmentation", name, AUGMENTATIONS)
    return AUGMENTATIONS[name]


def stream(*key: int) -> torch.Generator:
    """The random stream of a key, such as (seed, step, place in the batch)."""
    seed = 0
    for part in key:
        seed = (seed * 6_364_136_223_846_793_005 + part * 1_442_695_040_888_963_407 + 1) % 2**63
    return torch.Generator().manual_seed(seed)


def view(
    image: Tensor, boxes: Tensor, size: int, how: Augmentation, random: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """A view of a picture with boxes, in its own colours.

    Args:
        image: uint8 [3, h, w].
        boxes: float [n, 4] xyxy pixels.
        size: pixels of the square view.
        how, random: what may change, and the stream that it is drawn from.

    Returns:
        uint8 [3, size, size]; float [k, 4] the boxes still to be seen, cut at its border; int64 [k] which they are.

    Example:
        >>> image, boxes = torch.zeros(3, 40, 80, dtype=torch.uint8), torch.tensor([[8.0, 10, 40, 30]])
        >>> view(image, boxes, 20, AUGMENTATIONS["none"], stream(0))[1].tolist()
        [[2.0, 5.0, 10.0, 15.0]]
    """
    _, height, width = image.shape
    if how.place:
        left, top, w, h = _placed(width, height, size, how.jitter, random)
        picture = place_image(image, int(w), int(h), int(left), int(top), size)
        scale, shift = [w / width, h / height], [left, top]
    else:
        left, top, right, bottom = _jittered(width, height, how.jitter, random)
        if how.exact:
            picture = resize_image(_floats(crop_image(image, left, top, right - left, bottom - top)), size, size)
        else:
            picture = _cropped(image, left, top, right, bottom, size)
        scale = [size / (right - left), size / (bottom - top)]
        shift = [-left * scale[0], -top * scale[1]]
    boxes = boxes * boxes.new_tensor(scale * 2) + boxes.new_tensor(shift * 2)
    if how.mirror and _uniform(random, 0, 1) < 0.5:
        picture = tv.horizontal_flip(picture)
        boxes = torch.stack((size - boxes[:, 2], boxes[:, 1], size - boxes[:, 0], boxes[:, 3]), dim=1)
    boxes = boxes.clamp(0, size)
    seen = ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST * size).all(1).nonzero()[:, 0]
    return _bytes(picture), boxes[seen], seen


def classifier_view(image: Tensor, size: int, how: Augmentation, random: torch.Generator) -> Tensor:
    """A view of a picture with a name: a turned crop of another scale and aspect. uint8 [3, h, w] -> [3, size, size].

    Without `exact`, a picture larger than the view needs is first resized by torchvision, then turned. "none" is the
    middle square at the short side.
    """
    _, height, width = image.shape
    aspect = _rand_scale(random, how.aspect)
    low, high = (round(side * size) for side in how.crop)
    short = int(torch.randint(low, high + 1, (1,), generator=random))
    scale = short / min(height, width * aspect)
    angle = math.radians(_uniform(random, -how.angle, how.angle))
    far_x, far_y = max(0.0, (width * scale / aspect - size) / 2), max(0.0, (height * scale - size) / 2)
    moved = how.crop != (1.0, 1.0)
    dx, dy = (_uniform(random, -far, far) if moved else 0.0 for far in (far_x, far_y))
    if not how.exact and scale < 1:
        image = _resized(image, max(1, round(width * scale / aspect)), max(1, round(height * scale)))
        scale = aspect = 1.0
    picture = rotate_crop_image(_floats(image), angle, scale, size, size, dx, dy, aspect)
    if how.mirror and _uniform(random, 0, 1) < 0.5:
        picture = tv.horizontal_flip(picture)
    return _bytes(picture)


def colours(how: Augmentation, random: torch.Generator) -> Tensor:
    """float [3]: how a picture's colours change, as `distort_image` takes them: hue, saturation, exposure."""
    hue = _uniform(random, -how.hue, how.hue)
    return torch.tensor([hue, _rand_scale(random, how.saturation), _rand_scale(random, how.exposure)])


def recoloured(images: Tensor, changes: Tensor) -> Tensor:
    """Each picture in colours of its own. images: float [b, 3, h, w] in 0..1; changes: float [b, 3]."""
    return distort_image(images, *changes.T[..., None, None])


# ---------------------------------------------------------------------- Darknet's arithmetic, floats in 0..1


def crop_image(image: Tensor, dx: int, dy: int, width: int, height: int) -> Tensor:
    """The window whose corner is at dx, dy; what lies outside repeats the border."""
    _, h, w = image.shape
    x0, y0 = min(max(dx, 0), w - 1), min(max(dy, 0), h - 1)
    x1, y1 = max(min(dx + width, w), x0 + 1), max(min(dy + height, h), y0 + 1)
    left, top = min(max(x0 - dx, 0), width - 1), min(max(y0 - dy, 0), height - 1)
    return _bordered(image[:, y0:y1, x0:x1], left, top, width, height)


def resize_image(image: Tensor, width: int, height: int) -> Tensor:
    """Bilinear, corner on corner, from two rows and two columns whatever the scale."""
    batch = image[None].contiguous(memory_format=torch.channels_last)  # twice as fast on the CPU
    return torch.nn.functional.interpolate(batch, (height, width), mode="bilinear", align_corners=True)[0]


def rotate_crop_image(
    image: Tensor, angle: float, scale: float, width: int, height: int, dx: float, dy: float, aspect: float
) -> Tensor:
    """A window of width x height pixels, turned by `angle` radians about the middle and moved by dx, dy."""
    u = (torch.arange(width) - width / 2 + dx) / scale * aspect
    v = ((torch.arange(height) - height / 2 + dy) / scale)[:, None]
    cos, sin = math.cos(angle), math.sin(angle)
    return _sample(image, cos * u - sin * v + image.shape[2] / 2, sin * u + cos * v + image.shape[1] / 2)


def place_image(image: Tensor, width: int, height: int, dx: int, dy: int, size: int) -> Tensor:
    """The picture at width x height pixels, its corner at dx, dy of a grey square; what lies outside is cut."""
    _, h, w = image.shape
    # pixel i reads at i * w / width: with one more row and column on both sides, corners lie on corners
    laid = resize_image(_floats(_bordered(image, 0, 0, w + 1, h + 1)), width + 1, height + 1)
    canvas = laid.new_full((size, size, 3), 0.5).permute(2, 0, 1)
    left, top, right, bottom = max(0, dx), max(0, dy), min(size, dx + width), min(size, dy + height)
    if right > left and bottom > top:
        canvas[:, top:bottom, left:right] = laid[:, top - dy : bottom - dy, left - dx : right - dx]
    return canvas


def distort_image(image: Tensor, hue: float | Tensor, saturation: float | Tensor, exposure: float | Tensor) -> Tensor:
    """Hue moved by a share of the circle, saturation and value multiplied, in HSV; the result cut to 0..1.

    image: float [..., 3, h, w]; numbers, or tensors [..., 1, 1] for each picture.
    """
    value, delta = image.amax(-3), image.amax(-3) - image.amin(-3)
    red, green, blue = image.unbind(-3)
    safe = delta.clamp(min=1e-20)
    sixth = torch.where(
        red == value,
        (green - blue) / safe,
        torch.where(green == value, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turn = torch.where(delta > 0, sixth, 0.0) / 6 + hue
    spread = delta * saturation * exposure  # value x saturation
    k = (torch.tensor([5.0, 3.0, 1.0], device=image.device)[:, None, None] + (turn * 6).unsqueeze(-3)) % 6
    full = (value * exposure).unsqueeze(-3)
    return (full - spread.unsqueeze(-3) * torch.minimum(k, 4 - k).clamp(0, 1)).clamp(0, 1)


def _sample(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear at pixel coordinates [h, w]; outside is the border."""
    _, height, width = image.shape
    grid = torch.stack((2 * x / max(1, width - 1) - 1, 2 * y / max(1, height - 1) - 1), dim=-1)
    return torch.nn.functional.grid_sample(image[None], grid[None], "bilinear", "border", align_corners=True)[0]


# ---------------------------------------------------------------------- what is drawn


def _jittered(width: int, height: int, jitter: float, random: torch.Generator) -> tuple[int, int, int, int]:
    """The corners of a crop, which may lie outside."""
    dw, dh = int(width * jitter), int(height * jitter)
    drawn = torch.rand(4, generator=random, dtype=torch.float64).tolist()
    left, right, top, bottom = (int(-far + 2 * far * one) for far, one in zip((dw, dw, dh, dh), drawn, strict=True))
    return left, top, width - right, height - bottom


def _placed(
    width: int, height: int, size: int, jitter: float, random: torch.Generator
) -> tuple[float, float, float, float]:
    """Corner and sides of the whole picture at another aspect, within the square."""
    dw, dh = jitter * width, jitter * height
    aspect = (width + _uniform(random, -dw, dw)) / (height + _uniform(random, -dh, dh))
    w, h = (size * aspect, float(size)) if aspect < 1 else (float(size), size / aspect)
    return _uniform(random, 0, size - w), _uniform(random, 0, size - h), w, h


def _cropped(image: Tensor, left: int, top: int, right: int, bottom: int, size: int) -> Tensor:
    """A crop as a square, resized by torchvision; the part outside repeats the border."""
    _, height, width = image.shape
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, right), min(height, bottom)
    to_x, to_y = size / (right - left), size / (bottom - top)
    a, b = min(size - 1, round((x0 - left) * to_x)), min(size - 1, round((y0 - top) * to_y))
    c, d = max(a + 1, round((x1 - left) * to_x)), max(b + 1, round((y1 - top) * to_y))
    return _bordered(_resized(image[:, y0:y1, x0:x1], c - a, d - b), a, b, size, size)


def _resized(image: Tensor, width: int, height: int) -> Tensor:
    """By torchvision, antialiased, as bytes that lie pixel by pixel: that form it resizes fastest."""
    batch = image[None].contiguous(memory_format=torch.channels_last)
    return tv.resize(batch, [height, width], antialias=True)[0]  # type: ignore[no-any-return]


def _bordered(image: Tensor, left: int, top: int, width: int, height: int) -> Tensor:
    """The picture on one of width x height, its corner at left, top; what lies around it repeats its border."""
    channels, h, w = image.shape
    if (h, w) == (height, width):
        return image
    right, bottom = left + w, top + h
    whole = image.new_empty(height, width, channels).permute(2, 0, 1)
    whole[:, top:bottom, left:right] = image
    whole[:, top:bottom, :left], whole[:, top:bottom, right:] = image[:, :, :1], image[:, :, -1:]
    whole[:, :top], whole[:, bottom:] = whole[:, top : top + 1], whole[:, bottom - 1 : bottom]
    return whole


def _floats(image: Tensor) -> Tensor:
    """float in 0..1, from uint8 or from such."""
    return image if image.is_floating_point() else image.float().div_(255)


def _bytes(picture: Tensor) -> Tensor:
    """uint8, from uint8 or from float in 0..1, which is written to."""
    return picture if picture.dtype == torch.uint8 else picture.mul_(255).add_(0.5).to(torch.uint8)


def _uniform(random: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=random, dtype=torch.float64))


def _rand_scale(random: torch.Generator, most: float) -> float:
    """Darknet's factor: uniform from 1 to `most`, or one over such, each half of the time."""
    factor = _uniform(random, min(1.0, most), max(1.0, most))
    return factor if _uniform(random, 0, 1) < 0.5 else 1 / factor
