"""Where the image of a colour is: a file and, if the file holds other planes too, which of them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# One of these files is in every group and array of Zarr.
_ZARR = ("zarr.json", ".zattrs", ".zgroup", ".zarray")


@dataclass(frozen=True)
class Plane(os.PathLike[str]):
    """The image of one colour in a file of channels, series or stacks; as a path, it is that of its file.

    path: the file
    channel: number from 0, or the name that the file gives it; None if the file has one channel
    series: number from 0, or, of a file that is imported, the name that it gives a scene; None if the file has one
    time: number from 0; None if the file has one
    project: along z, ``max``, ``mean``, ``sharpest`` or the number of a plane from 0; None if the file has one plane
    others: if each plane along z is in a file of its own, the files of all but the first, in order
    """

    path: str
    channel: int | str | None = None
    series: int | str | None = None
    time: int | None = None
    project: int | str | None = None
    others: Sequence[str] = ()

    def __fspath__(self) -> str:
        return self.path

    def __str__(self) -> str:
        return self.path if self.channel is None else f"{self.path} (channel {self.channel})"


def is_zarr(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a folder of Zarr, which counts as one file."""
    return os.path.isdir(path) and any(os.path.isfile(os.path.join(path, name)) for name in _ZARR)


def list_zarr(path: str | os.PathLike[str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield path and entry of each file of a Zarr folder, in the same order each time, also in folders it links to."""
    pending, seen = [""], set()
    while pending:
        inside = pending.pop()
        folder = os.path.join(path, inside)
        found = os.stat(folder)
        # A link may lead to a folder above it.
        if (found.st_dev, found.st_ino) in seen:
            continue
        seen.add((found.st_dev, found.st_ino))
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                # A link may also lead to itself, which is an error for ``entry.is_dir``.
                if os.path.isdir(entry) if entry.is_symlink() else entry.is_dir():
                    pending.append(f"{inside}{entry.name}/")
                else:
                    yield f"{inside}{entry.name}", entry


def is_zarr_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a folder of Zarr or a zip file, which holds one."""
    if os.path.isdir(path):
        return is_zarr(path)
    # What is not a regular file can be read only once.
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"PK"
    except OSError:
        return False


def files_of(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the files of a path or of a plane."""
    return os.fspath(path), *(path.others if isinstance(path, Plane) else ())


def as_plain(path: str | os.PathLike[str]) -> str | dict[str, Any]:
    """Return a path as text, or a plane as a dictionary, which a process can receive before it can import hpaloc."""
    return asdict(path) if isinstance(path, Plane) else os.fspath(path)


def from_plain(plain: str | dict[str, Any]) -> str | Plane:
    """Return the path or the plane for which ``as_plain`` returned ``plain``."""
    return plain if isinstance(plain, str) else Plane(**plain)
