"""What the command `detect` leaves behind: pictures and clips with boxes, and crops."""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from .detections import Detections, file_name
from .video import VideoWriter


class Outputs:
    """Writes detections as they come. No two of a run share a file, and no file that is read is written over.

    Args:
        pictures: a folder for pictures and clips with boxes; None for none.
        crops: a folder for what lies in each box, a folder a name in it; None for none.
        inputs: the files that are read.
    """

    def __init__(self, pictures: Path | None, crops: Path | None, inputs: Iterable[str]) -> None:
        self.pictures, self.crops = pictures, crops
        self.taken = {Path(name).resolve() for name in inputs}
        self.video: VideoWriter | None = None
        self.source = ""  # of the clip that is being written
        self.stems: set[str] = set()
        self.stem = ""

    def add(self, found: Detections) -> Path | None:
        """Write one image or frame; the file, where it is a new one."""
        if self.pictures is None and self.crops is None:
            return None
        begins = found.frame is None or found.frame == 0 or self.source != found.source
        if begins:
            self.close()
            self.source, self.stem = found.source, self._stem(file_name(Path(found.source).stem))
        if self.crops is not None:
            found.save_crops(self.crops, self.stem if found.frame is None else f"{self.stem}-{found.frame:06d}")
        if self.pictures is None:
            return None
        if found.frame is None:
            return found.save(self.pictures / f"{self.stem}.png")
        if self.video is None:
            self.video = VideoWriter(self.pictures / f"{self.stem}.mp4")
        self.video.write(found.plot(scale=1), found.time or 0.0, found.rate)
        return self.video.path if begins else None

    def close(self, keep: bool = True) -> None:
        """End the clip that is being written."""
        if self.video is not None:
            video, self.video = self.video, None
            video.close(keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(keep=kind is None or issubclass(kind, KeyboardInterrupt))

    def _stem(self, stem: str) -> str:
        """A name that is free: itself, or with the lowest number that makes it so."""
        number, name = 1, stem
        while name in self.stems or any(self._written(name, suffix) in self.taken for suffix in (".png", ".mp4")):
            number += 1
            name = f"{stem}-{number}"
        self.stems.add(name)
        return name

    def _written(self, name: str, suffix: str) -> Path | None:
        return None if self.pictures is None else (self.pictures / f"{name}{suffix}").resolve()
