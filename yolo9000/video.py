"""Moving pictures through PyAV: files and cameras in, one frame at a time; clips out, whole or not at all."""

import contextlib
import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wordtree import WordTreeError

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
DEVICES = ("v4l2", "avfoundation", "dshow", "lavfi")  # libavdevice's formats; lavfi makes pictures of its own
TICKS = 90_000  # a second: every common rate, 30000/1001 too, is a whole number of them
MISSING = 1.0  # seconds of a clip that may lack at its end before it counts as cut off


class Frame(NamedTuple):
    """One picture of a source.

    Attributes:
        source: the name of the file or camera; "image" for what is in memory.
        image: uint8 [3, h, w], RGB.
        number: which frame of a video, from 0; None for a still.
        time: seconds since the first frame of a video.
        rate: frames a second of a video.
    """

    source: str
    image: Tensor
    number: int | None = None
    time: float | None = None
    rate: float | None = None


def count_frames(path: str | Path) -> int | None:
    """How many frames a video says it has, where it does; for a progress bar, not to be trusted."""
    try:
        with pyav().open(str(path)) as container:
            return container.streams.video[0].frames or None
    except (OSError, ValueError, IndexError, WordTreeError):  # reading it will say what is wrong
        return None


def read_video(path: str | Path) -> Iterator[Frame]:
    """The frames of a video file, upright, one by one.

    Raises:
        WordTreeError: no video, or a damaged one: after the frames before the damage, with the number of the frame.
    """
    name = str(path)
    remedy = "give an undamaged file in one of " + ", ".join(VIDEO_SUFFIXES)
    return _read(name, f"video {name!r}", name, remedy)


def read_camera(camera: int | str) -> Iterator[Frame]:
    """The frames of a camera, without an end.

    Args:
        camera: its number, or libavdevice's format and device: "v4l2:/dev/video2", "avfoundation:0",
            "dshow:video=Integrated Camera"; "lavfi:testsrc=size=160x120:rate=10" is a camera without a camera.

    Raises:
        WordTreeError: no such camera, or it stops.
    """
    if isinstance(camera, int):
        name = what = f"camera {camera}"
        format, device = _device(camera)
    else:
        name, what = camera, f"camera {camera!r}"
        format, device = camera.split(":", 1)
    return _read(name, what, device, "give the number of a camera of this machine, such as 0", format)


def _device(number: int) -> tuple[str, str]:
    """libavdevice's format and device for the camera of a number on this system."""
    if sys.platform == "darwin":
        return "avfoundation", str(number)
    if sys.platform == "win32":
        cameras = [one for one in pyav().enumerate_input_devices("dshow") if "video" in one.media_types]
        if not number < len(cameras):
            raise WordTreeError(f"no camera {number}; this machine has {len(cameras)}; the first is 0")
        return "dshow", f"video={cameras[number].description}"
    return "v4l2", f"/dev/video{number}"


def _read(name: str, what: str, file: str, remedy: str, device: str | None = None) -> Iterator[Frame]:
    """The frames of a file, or of a device of a format; `what` and `remedy` are for errors."""
    av = pyav()
    options = {"framerate": "30"} if device == "avfoundation" else {}  # its own default, 29.97, no camera takes
    number, first, end = 0, 0.0, 0.0
    try:
        with av.open(file, format=device, options=options) as container:
            stream = container.streams.best("video")  # no cover picture, where there is more
            if stream is None:
                raise WordTreeError(f"{what} has no pictures in it; {remedy}")
            stream.thread_type = "AUTO"
            rate = float(stream.average_rate or stream.guessed_rate or 0) or None
            for number, decoded in enumerate(_decoded(container, stream, av), 1):
                time = decoded.time if decoded.time is not None else end
                first = time if number == 1 else first  # a camera counts from when the machine started
                end = time + _seconds(decoded.duration, decoded.time_base)
                turns = round(decoded.rotation / 90) % 4  # counterclockwise, as a phone held upright writes them
                pixels = np.ascontiguousarray(np.rot90(decoded.to_ndarray(format="rgb24"), turns))
                yield Frame(name, torch.from_numpy(pixels).permute(2, 0, 1), number - 1, time - first, rate)
            length = _length(container, stream) if device is None else 0.0
    except WordTreeError:
        raise
    except (av.FFmpegError, ValueError) as fault:
        read = f"is damaged at frame {number}; the {number} before it were read" if number else "cannot be read"
        raise WordTreeError(f"{what} {read} ({fault}); {remedy}") from None
    if not number:
        raise WordTreeError(f"{what} has no pictures in it; {remedy}")
    if end - first < length - max(MISSING, 2 / (rate or 25)):
        read = f"at {end - first:.1f} of {length:.1f} seconds"
        raise WordTreeError(f"{what} is cut off at frame {number}, {read}; those were read; {remedy}")


def _length(container: Any, stream: Any) -> float:
    """Seconds that a file says its pictures last; 0 where it says nothing of them alone."""
    if stream.duration is None and len(container.streams) == 1:
        return _seconds(container.duration, Fraction(1, 1_000_000))
    return _seconds(stream.duration, stream.time_base)


def _decoded(container: Any, stream: Any, av: Any) -> Iterator[Any]:
    """The decoder's frames; where a packet is damaged, first those that it still held back."""
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            with contextlib.suppress(av.FFmpegError):
                yield from stream.codec_context.decode(None)
            raise
        yield from frames


def _seconds(ticks: int | None, base: Fraction | None) -> float:
    return float(ticks * base) if ticks and base else 0.0


class VideoWriter:
    """An MP4 written frame by frame beside its place, and moved there when it is whole.

    Left by an error it leaves nothing; left by Ctrl-C it keeps a clip that plays, up to there.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with VideoWriter(folder / "clip.mp4") as video:
        ...     for number in range(3):
        ...         video.write(Image.new("RGB", (64, 48), (80 * number, 0, 0)), number / 10, rate=10)
        >>> [frame.image.shape for frame in read_video(folder / "clip.mp4")] == [(3, 48, 64)] * 3
        True
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
        self.container: Any = None
        self.stream: Any = None
        self.last = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(keep=kind is None or issubclass(kind, KeyboardInterrupt))

    def write(self, picture: Image.Image, time: float, rate: float | None) -> None:
        """Add a picture that is shown from `time`, seconds. H.264 wants even sides: an odd one grows by a pixel."""
        av = pyav()
        pixels = np.asarray(picture.convert("RGB"))
        pixels = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), "edge")
        if self.container is None:
            if "libx264" not in av.codecs_available:
                raise WordTreeError("this build of av has no libx264 to write videos with; install av from its wheel")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.container = av.open(str(self.temporary), "w", format="mp4")
            self.stream = self.container.add_stream("libx264", rate=Fraction(rate or 25).limit_denominator(1001))
            self.stream.height, self.stream.width = pixels.shape[:2]
            self.stream.pix_fmt = "yuv420p"
            self.stream.options = {"preset": "veryfast", "crf": "20"}
            self.stream.codec_context.time_base = Fraction(1, TICKS)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        self.last = max(self.last + 1, round(time * TICKS))  # two frames of one time would be refused
        frame.pts, frame.time_base = self.last, Fraction(1, TICKS)
        self.container.mux(self.stream.encode(frame))

    def close(self, keep: bool = True) -> None:
        """End the file and move it to its place; where it is not to be kept, remove it."""
        if self.container is None:
            return
        container, self.container = self.container, None
        try:
            if keep:
                container.mux(self.stream.encode())
            container.close()
            if keep:
                os.replace(self.temporary, self.path)
        finally:
            self.temporary.unlink(missing_ok=True)


def pyav() -> Any:
    """The package `av`, which only videos and cameras need.

    Raises:
        WordTreeError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise WordTreeError(
            "videos and cameras are read with PyAV, which is not installed; pip install av, or give pictures"
        ) from None
    return av
