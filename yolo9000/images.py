"""Pictures in, and their place on the network's square: how an image is laid on the input, and the way back."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from wordtree import WordTreeError
from wordtree.errors import unknown

PLACEMENTS = ("stretch", "darknet-stretch", "darknet-letterbox")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
Picture = str | Path | np.ndarray | Tensor | Image.Image


def read_image(path: str | Path) -> Tensor:
    """An image file as uint8 [3, h, w], RGB, upright where the file says which side is up (EXIF).

    Raises:
        WordTreeError: no such file, not an image, or an image that ends too soon.
    """
    file = Path(path)
    if not file.is_file():
        raise WordTreeError(f"no image {str(file)!r}; give a file that exists ({', '.join(SUFFIXES)})")
    try:
        with Image.open(file) as image:
            return _to_tensor(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError:
        raise WordTreeError(f"image {str(file)!r} is in no known format; give one of {', '.join(SUFFIXES)}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as fault:
        raise WordTreeError(f"image {str(file)!r} cannot be read whole ({fault}); give an undamaged file") from None


def as_image(source: Picture) -> Tensor:
    """A path, a PIL image, an array [h, w, 3] or a tensor [3, h, w] as uint8 [3, h, w], RGB.

    Arrays and tensors are uint8 in 0..255 or float in 0..1.
    """
    if isinstance(source, str | Path):
        return read_image(source)
    if isinstance(source, Image.Image):
        return _to_tensor(source.convert("RGB"))
    tensor = torch.from_numpy(np.ascontiguousarray(source)) if isinstance(source, np.ndarray) else source
    if isinstance(source, np.ndarray) and tensor.dim() == 3:
        tensor = tensor.permute(2, 0, 1)
    if tensor.dim() != 3 or tensor.shape[0] != 3 or 0 in tensor.shape:
        raise WordTreeError(
            f"an image of shape {tuple(source.shape)}; give a tensor [3, h, w] or an array [h, w, 3], not empty"
        )
    if tensor.is_floating_point():
        if not bool(torch.isfinite(tensor).all()) or float(tensor.min()) < 0 or float(tensor.max()) > 1.001:
            raise WordTreeError("an image of floats outside 0..1 or not finite; give floats in 0..1 or uint8 in 0..255")
        return (tensor * 255).round().to(torch.uint8)
    if tensor.dtype != torch.uint8:
        raise WordTreeError(f"an image of type {tensor.dtype}; give uint8 in 0..255 or floats in 0..1")
    return tensor


class Placement(NamedTuple):
    """Where an image lies on the network's input, in fractions of that input; and its own size in pixels."""

    left: float
    top: float
    width: float
    height: float
    image_width: int
    image_height: int


def place(image: Tensor, size: int, placement: str = "stretch") -> tuple[Tensor, Placement]:
    """Lay an image, or several of one size, on the network's square input.

    Args:
        image: float [..., 3, h, w] in 0..1.
        size: pixels of the square.
        placement: "stretch": to the whole square, anti-aliased where it shrinks. "darknet-stretch": the same as
            Darknet's `resize_image` does it, bilinear between the corner pixels. "darknet-letterbox": so resized with
            its aspect kept, on a ground of .5 (Darknet since 2017-03).

    Returns:
        float [..., 3, size, size], and where the image lies on it.

    Raises:
        WordTreeError: an unknown placement.
    """
    if placement not in PLACEMENTS:
        raise unknown("placement", placement, PLACEMENTS)
    height, width = image.shape[-2:]
    new_width = new_height = size
    if placement == "darknet-letterbox":
        longer = max(width, height)
        new_width, new_height = max(1, width * size // longer), max(1, height * size // longer)
    resized = _resize(image, new_height, new_width, antialias=placement == "stretch")
    over_x, over_y = size - new_width, size - new_height
    if over_x or over_y:
        canvas = image.new_full((*image.shape[:-2], size, size), 0.5)
        canvas[..., over_y // 2 : over_y // 2 + new_height, over_x // 2 : over_x // 2 + new_width] = resized
        resized = canvas
    # boxes go back from half of what is over, as Darknet's do, though the picture lies on whole pixels
    where = Placement(over_x / 2 / size, over_y / 2 / size, new_width / size, new_height / size, width, height)
    return resized, where


def _resize(image: Tensor, height: int, width: int, antialias: bool) -> Tensor:
    """Anti-aliased by areas, or Darknet's bilinear between corners, which reads at most four pixels."""
    before = tuple(image.shape[-2:])
    if before == (height, width):
        return image
    options = {"antialias": height < before[0] or width < before[1]} if antialias else {"align_corners": True}
    images = image.reshape(-1, *image.shape[-3:])
    resized = torch.nn.functional.interpolate(images, size=(height, width), mode="bilinear", **options)
    return resized.view(*image.shape[:-2], height, width)


def place_back(boxes: Tensor, placement: Placement) -> Tensor:
    """xyxy boxes [n, 4] in fractions of the input -> pixels of the original image, clipped to it."""
    numbers = torch.tensor(placement, dtype=torch.float64).to(boxes)
    return clip(unplace(boxes, numbers), numbers)


def unplace(boxes: Tensor, placements: Tensor) -> Tensor:
    """`place_back` of whole boxes, not clipped. placements: float [6], of all boxes, or [n, 6], of each."""
    left, top, width, height, image_width, image_height = placements[..., None].unbind(-2)
    x = (boxes[:, 0::2] - left) / width * image_width
    y = (boxes[:, 1::2] - top) / height * image_height
    return torch.stack((x, y), dim=-1).flatten(1)


def clip(boxes: Tensor, placements: Tensor) -> Tensor:
    """xyxy boxes [n, 4] in pixels, cut to their images; placements as `unplace` takes them."""
    return boxes.clamp(min=0).minimum(placements[..., 4:].tile(2))


def place_boxes(boxes: Tensor, placement: Placement) -> Tensor:
    """The undo of `place_back`: xyxy pixels of the image [n, 4] -> fractions of the input."""
    left, top, width, height, image_width, image_height = placement
    scale = boxes.new_tensor([width / image_width, height / image_height] * 2)
    return boxes * scale + boxes.new_tensor([left, top] * 2)


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
