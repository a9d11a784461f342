"""Files that are there whole or not at all, and what is said where a disk is full or a folder cannot be written."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from wordtree import WordTreeError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


class CannotWrite(WordTreeError):
    """A full disk, or a folder that cannot be written; nothing half-written is left."""


@contextlib.contextmanager
def whole(path: Path, need: int = 0) -> Iterator[Path]:
    """Where to write a file that takes the place of `path` when it is finished and safe on the disk.

    What is yielded has the same name, in a folder of its own beside it: `NAME.part`, which is gone afterwards. A
    process that is killed leaves that folder; the next to write the same file removes it.

    Args:
        path: the file; its folder is made where there is none.
        need: bytes that it will take, for the message; 0 where nobody knows.

    Raises:
        CannotWrite: a full disk or a read-only folder; what stood there before stands there still.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "notes.txt"
        >>> with whole(path) as part:
        ...     _ = part.write_text("all of it")
        >>> path.read_text(), len(list(path.parent.iterdir()))
        ('all of it', 1)
    """
    home = part_of(path)
    written = 0
    try:
        _remove(home)
        home.mkdir(parents=True)
        try:
            yield home / path.name
            sync(home / path.name)
            os.replace(home / path.name, path)
            sync(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                written = (home / path.name).stat().st_size
            raise
        finally:
            _remove(home)
    except Exception as fault:
        raise named(fault, path, max(need, written)) from None


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; errors as `whole`."""
    data = text.encode()
    with whole(path, len(data)) as part:
        part.write_bytes(data)


def append(path: Path, text: str) -> None:
    """Add to a text file all of a text, or, where there is no room, nothing of it."""
    data, before = text.encode(), path.stat().st_size
    try:
        with path.open("ab", buffering=0) as file:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    except OSError as fault:
        with contextlib.suppress(OSError):
            os.truncate(path, before)
        raise named(fault, path, len(data)) from None


def part_of(path: Path) -> Path:
    """The folder in which a file is made before it takes its place."""
    return path.with_name(f"{path.name}.part")


def clean(paths: list[Path]) -> None:
    """Remove what a killed process has left of files that it was writing."""
    for path in paths:
        with contextlib.suppress(OSError):  # of a read-only folder; the first file written says so
            _remove(part_of(path))


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk and not in memory alone."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as fault:
        if fault.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that have no such thing for folders
            raise
    finally:
        os.close(handle)


def named(fault: Exception, path: Path | str, need: int = 0) -> Exception:
    """The error as people read it, where it is one of a full disk or a closed folder; else the error itself.

    safetensors hands on an error of the system as a text.
    """
    told = re.search(r"\(os error (\d+)\)", str(fault))
    number = fault.errno if isinstance(fault, OSError) else int(told[1]) if told else None
    if number not in (*FULL, *CLOSED):
        return fault
    what = f"cannot write {str(path)!r}"
    if number in CLOSED:
        return CannotWrite(f"{what}: {os.strerror(number)}; give a folder that may be written, out=")
    told_need = f", {size(need)}" if need else ""
    return CannotWrite(
        f"{what}{told_need}: {os.strerror(number)}, {size(_free(Path(path)))} are free there; make room, and the same "
        "command goes on from the last checkpoint, which stands as it was"
    )


def size(count: int) -> str:
    """Bytes as people read them.

    Example:
        >>> size(812), size(3_500_000)
        ('812 bytes', '3.34 MiB')
    """
    value, unit = float(count), 0
    while value >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{count} bytes" if not unit else f"{value:.3g} {UNITS[unit]}"


def _free(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
