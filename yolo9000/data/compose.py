"""Pictures made of pictures: cut-outs laid on photographs, from a seed, byte for byte the same everywhere.

Only integer arithmetic, single float32 operations and a frozen random stream are used: no BLAS, no fused
multiply-adds, no library call whose rounding differs between processors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Levels = tuple[Pixels, ...]


def stream(*key: int) -> RandomState:
    """The random stream of a key: numpy's legacy Mersenne Twister, whose values numpy has frozen."""
    return RandomState(list(key))


def pyramid(cutout: Pixels) -> Levels:
    """RGBA uint8 [h, w, 4] -> premultiplied, each level half the last, every one with a clear border of one pixel."""
    wide = cutout.astype(np.uint32)
    wide[..., :3] = (wide[..., :3] * wide[..., 3:] + 127) // 255
    levels = []
    while True:
        levels.append(np.pad(wide, ((1, 1), (1, 1), (0, 0))).astype(np.uint8))
        if min(wide.shape[:2]) < 16:
            return tuple(levels)
        h, w = wide.shape[0] // 2 * 2, wide.shape[1] // 2 * 2
        even = wide[:h, :w]
        wide = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2] + 2) // 4


@dataclass(frozen=True)
class Look:
    """How an object or an image may vary. Ranges are symmetric about no change."""

    angle: float = 12.0  # degrees
    aspect: float = 0.1  # share of stretch
    shear: float = 0.05
    bend: float = 0.0  # share of a half side that a point may wander: bent, tapered, bulged
    gain: float = 0.12  # of brightness, and of each colour
    saturation: float = 0.2
    hue: float = 0.0  # share of each channel moved to the next
    grey: float = 0.0  # how often colour is dropped


OVERLAP = 0.25  # the share of the smaller object that another may cover
TEST_LOOK = Look()
TRAIN_LOOK = Look(angle=20.0, aspect=0.2, shear=0.12, bend=0.15, gain=0.3, saturation=0.6, hue=0.25, grey=0.1)


class Pasted(NamedTuple):
    """An object on a canvas: premultiplied float32 RGBA [h, w, 4] in 0..255, and where its visible part lies in it."""

    pixels: NDArray[np.float32]
    left: int
    top: int
    right: int
    bottom: int


def warp(levels: Levels, longest: float, look: Look, random: RandomState) -> Pasted:
    """Turn, mirror, stretch and recolour one cut-out so that its longest side is about `longest` pixels."""
    height, width = levels[0].shape[0] - 2, levels[0].shape[1] - 2
    scale = longest / max(height, width)
    angle = math.radians(_within(random, look.angle))
    cos, sin = round(math.cos(angle), 6), round(math.sin(angle), 6)  # libm may differ in the last bit
    stretch = 1.0 + _within(random, look.aspect)
    flip = -1.0 if random.random_sample() < 0.5 else 1.0
    shear = _within(random, look.shear)
    sx, sy = scale * stretch * flip, scale
    # forward, object centre to canvas centre: rotation x (shear x scale)
    a, b = cos * sx, (cos * shear - sin) * sy
    c, d = sin * sx, (sin * shear + cos) * sy
    room = 1 + look.bend
    out_w = math.ceil((abs(a) * width + abs(b) * height) * room) + 2
    out_h = math.ceil((abs(c) * width + abs(d) * height) * room) + 2
    level = min(len(levels) - 1, max(0, math.floor(0.5 - math.log2(scale))))
    source = levels[level]
    shrink = 2.0**-level
    determinant = a * d - b * c
    x = np.arange(out_w, dtype=np.float32) - np.float32((out_w - 1) / 2)
    y = (np.arange(out_h, dtype=np.float32) - np.float32((out_h - 1) / 2))[:, None]
    u = x * np.float32(d / determinant * shrink) + y * np.float32(-b / determinant * shrink)
    v = x * np.float32(-c / determinant * shrink) + y * np.float32(a / determinant * shrink)
    if look.bend:
        u, v = _bent(u, v, np.float32(2 / source.shape[1]), np.float32(2 / source.shape[0]), look.bend, random)
    pixels = _bilinear(source, u + np.float32((source.shape[1] - 1) / 2), v + np.float32((source.shape[0] - 1) / 2))
    pixels = _recolour(pixels, look, random)
    seen = pixels[..., 3] > 100
    columns, rows = np.flatnonzero(seen.any(0)), np.flatnonzero(seen.any(1))
    if not len(columns):
        return Pasted(pixels, 0, 0, out_w, out_h)
    return Pasted(pixels, int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def background(photo: Pixels, size: int, random: RandomState) -> NDArray[np.float32]:
    """A random window of a photograph, as float32 [size, size, 3] in 0..255."""
    height, width = photo.shape[:2]
    side = (0.35 + 0.65 * random.random_sample()) * min(height, width)
    left = random.random_sample() * (width - side)
    top = random.random_sample() * (height - side)
    at = np.arange(size, dtype=np.float32) * np.float32((side - 1) / max(1, size - 1))
    x, y = at + np.float32(left), (at + np.float32(top))[:, None]
    canvas = _bilinear(photo, np.broadcast_to(x, (size, size)), np.broadcast_to(y, (size, size)))
    return canvas[:, ::-1].copy() if random.random_sample() < 0.5 else canvas


def paste(canvas: NDArray[np.float32], pasted: Pasted, left: int, top: int, random: RandomState) -> None:
    """Lay an object on a canvas in place, its edge softened at random so that the edge is not the cue."""
    pixels = pasted.pixels
    if random.random_sample() < 0.5:  # 3x3 mean of colour and cover alike
        padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)))
        rows = padded[:-2] + padded[1:-1] + padded[2:]
        soft = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) * np.float32(1 / 9)
        share = np.float32(random.random_sample())
        pixels = soft * share + pixels * (np.float32(1) - share)
    height, width = pixels.shape[:2]
    y0, x0 = max(0, -top), max(0, -left)
    y1, x1 = min(height, canvas.shape[0] - top), min(width, canvas.shape[1] - left)
    if y1 <= y0 or x1 <= x0:
        return
    under = canvas[top + y0 : top + y1, left + x0 : left + x1]
    over = pixels[y0:y1, x0:x1]
    cover = over[..., 3:] * np.float32(1 / 255)
    if random.random_sample() < 0.5 and y1 - y0 > 4 and x1 - x0 > 4:  # a soft shadow down and to the right
        under[2:, 2:] *= np.float32(1) - cover[:-2, :-2] * np.float32(0.25)
    under *= np.float32(1) - cover
    under += over[..., :3]


def finish(canvas: NDArray[np.float32], look: Look, random: RandomState) -> Pixels:
    """Light, blur and grain over the whole picture; uint8 [h, w, 3]."""
    canvas = canvas * np.float32(1 + _within(random, look.gain)) + np.float32(_within(random, 40 * look.gain))
    if random.random_sample() < 0.3:
        padded = np.pad(canvas, ((1, 1), (1, 1), (0, 0)), mode="edge")
        rows = padded[:-2] + padded[1:-1] * np.float32(2) + padded[2:]
        canvas = (rows[:, :-2] + rows[:, 1:-1] * np.float32(2) + rows[:, 2:]) * np.float32(1 / 16)
    h, w = canvas.shape[:2]
    y, x = random.randint(0, _GRAIN.shape[0] - h), random.randint(0, _GRAIN.shape[1] - w)
    canvas = canvas + _GRAIN[y : y + h, x : x + w] * np.float32(random.random_sample() * 0.15)
    done: Pixels = np.clip(canvas + np.float32(0.5), 0, 255).astype(np.uint8)
    return done


def spots(objects: Sequence[Pasted], size: int, random: RandomState) -> list[tuple[int, int] | None]:
    """Where each object goes: left and top of its canvas; None for one that found no room in twelve tries.

    The visible parts lie inside the picture, and no two cover more than a quarter of the smaller.
    """
    taken: list[tuple[int, int, int, int]] = []
    places: list[tuple[int, int] | None] = []
    for one in objects:
        width, height = one.right - one.left, one.bottom - one.top
        spot = None
        for _ in range(12):
            if width > size or height > size:
                break
            left, top = random.randint(0, size - width + 1), random.randint(0, size - height + 1)
            box = (left, top, left + width, top + height)
            if all(_cover(box, other) <= OVERLAP for other in taken):
                taken.append(box)
                spot = (left - one.left, top - one.top)
                break
        places.append(spot)
    return places


def _cover(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """The share of the smaller of two boxes that the other covers."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def _within(random: RandomState, bound: float) -> float:
    return float((random.random_sample() * 2 - 1) * bound)


def _bilinear(source: Pixels, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sample uint8 [h, w, c] at float32 coordinates [...] -> float32 [..., c]; outside is the border pixel."""
    height, width, channels = source.shape
    x = np.clip(x, 0, width - 1).astype(np.float32)
    y = np.clip(y, 0, height - 1).astype(np.float32)
    x0, y0 = np.minimum(x.astype(np.int32), width - 2), np.minimum(y.astype(np.int32), height - 2)
    fx, fy = (x - x0).astype(np.float32)[..., None], (y - y0).astype(np.float32)[..., None]
    flat = source.reshape(-1, channels)
    at = y0 * width + x0
    upper = flat.take(at, 0) * (1 - fx) + flat.take(at + 1, 0) * fx
    lower = flat.take(at + width, 0) * (1 - fx) + flat.take(at + width + 1, 0) * fx
    mixed: NDArray[np.float32] = upper * (1 - fy) + lower * fy
    return mixed


def _bent(
    u: NDArray[np.float32],
    v: NDArray[np.float32],
    to_x: np.float32,
    to_y: np.float32,
    bend: float,
    random: RandomState,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Move coordinates by a random quadratic: a new pose of the same drawing. to_x, to_y take them to -1..1."""
    x, y = np.clip(u * to_x, -1, 1), np.clip(v * to_y, -1, 1)
    a, b, c, d, e, f = (np.float32(_within(random, bend / 2)) for _ in range(6))
    across = x * x * a + x * y * b + y * y * c
    down = x * x * d + x * y * e + y * y * f
    return (u + across / to_x).astype(np.float32), (v + down / to_y).astype(np.float32)


def _recolour(pixels: NDArray[np.float32], look: Look, random: RandomState) -> NDArray[np.float32]:
    """Brightness, colour balance, saturation and a shift of hue; premultiplied RGBA in and out."""
    colour, cover = pixels[..., :3], pixels[..., 3:]
    light = (colour[..., :1] * np.float32(0.3) + colour[..., 1:2] * np.float32(0.59)) + colour[..., 2:] * np.float32(
        0.11
    )
    grey = random.random_sample() < look.grey
    keep = np.float32(0.0 if grey else 1 + _within(random, look.saturation))
    colour = light + (colour - light) * keep
    shift = _within(random, look.hue)
    moved = colour[..., [1, 2, 0]] if shift > 0 else colour[..., [2, 0, 1]]
    colour = colour + (moved - colour) * np.float32(abs(shift))
    gain = np.float32(1 + _within(random, look.gain))
    balance = np.array([1 + _within(random, look.gain / 2) for _ in range(3)], dtype=np.float32)
    colour = np.clip(colour * (balance * gain) + cover * np.float32(_within(random, look.gain / 3)), 0, cover)
    return np.concatenate((colour, cover), axis=-1)


_GRAIN = (stream(9000).randint(-64, 65, (700, 700, 3)) + stream(9001).randint(-64, 65, (700, 700, 3))).astype(
    np.float32
)
