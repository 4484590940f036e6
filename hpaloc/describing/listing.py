"""The image files below a folder, listed without opening any."""

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from hpaloc.endings import OWN, READERS
from hpaloc.ids import shown
from hpaloc.planes import is_zarr

# What hpaloc reads itself, and what rule import_images reads for it; of packed files, only those that hold images.
_PLAIN = "|".join(re.escape(ending) for ending in OWN if ending not in (".zip", ".gz"))
_IMPORTED = "|".join(map(re.escape, READERS))
_IMAGE = re.compile(rf"(?:(?:\.ome)?(?:\.tiff?\.gz|\.zarr\.zip|{_PLAIN})|{_IMPORTED})$", re.IGNORECASE)
# A folder may have any number of files and of folders in each other.
MOST_FILES, MOST_LEVELS = 1_000_000, 10
_WILD = re.compile(r"[*?\[]|\{\w+\}")


class DescriptionError(ValueError):
    """There is nothing to describe; the message names the folder and says what to do."""


@dataclass(frozen=True)
class Listing:
    """The files of a folder.

    folder: as it was given, "" for the working folder
    paths: of the images, relative to it, in order; an OME-Zarr is one file
    others: {ending: number} of the files that are not images
    complete: whether every folder and file was listed
    """

    folder: str
    paths: list[str]
    others: dict[str, int]
    complete: bool = True


def image_ending(path: str) -> str:
    """Return the ending of an image, such as ``.ome.tif``, as it is written; "" for an image without one."""
    found = _IMAGE.search(path)
    return found[0] if found else ""


def _is_plate(folder: str) -> bool:
    """Return whether a Zarr folder is a plate, a row or a well of OME-Zarr, whose images are folders in it."""
    attributes = {}
    for name in ("zarr.json", ".zattrs"):
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                attributes = json.load(file)
            attributes = attributes.get("attributes", attributes)
            attributes = attributes.get("ome", attributes)
        except (OSError, ValueError, AttributeError):
            continue
    # The row of a plate is a group that says nothing.
    return bool({"plate", "well"} & set(attributes)) or not (attributes or image_ending(folder))


def _walk(top: str, inside: str = "", level: int = 0) -> Iterator[tuple[str, bool]]:
    """Yield the path of each file below ``top``, relative to it, and whether it is an OME-Zarr; "" for one not listed.

    Hidden files and folders are left out, and so are links to folders, which may lead back.
    """
    try:
        with os.scandir(os.path.join(top, inside)) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        yield "", False
        return
    for entry in found:
        if entry.name.startswith(".") or entry.name == "Thumbs.db":
            continue
        path = f"{inside}{entry.name}"
        # A link may also lead to itself, which is an error for ``entry.is_dir``.
        if not (os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()):
            yield path, False
        elif is_zarr(entry.path) and not _is_plate(entry.path):
            yield path, True
        elif entry.is_symlink() or level == MOST_LEVELS:
            yield "", False
        else:
            yield from _walk(top, f"{path}/", level + 1)


def _start(images: str) -> tuple[str, Iterator[tuple[str, bool]]]:
    """Return the folder of what was given, and an iterator over its files."""
    if os.path.isdir(images) and not (is_zarr(images) and not _is_plate(images)):
        folder = images.rstrip("/") or "/"
        return ("" if folder == "." else folder), _walk(folder)
    if os.path.exists(images):
        folder, name = os.path.split(images.rstrip("/"))
        return folder, iter([(name, is_zarr(images))])
    if not _WILD.search(images):
        raise DescriptionError(f"config key images: no such file or folder: {shown(images)}")
    # The first part of the path that differs between files begins the names.
    folder = images[: _WILD.search(images).start()].rpartition("/")[0]  # type: ignore[union-attr]
    pattern = re.sub(r"\{\w+\}", "*", images)
    found = sorted(glob.glob(pattern, recursive=True))
    inside = (os.path.relpath(path, folder or ".") for path in found if os.path.isfile(path) or is_zarr(path))
    return folder, ((path, is_zarr(os.path.join(folder, path))) for path in inside)


def list_images(images: str) -> Listing:
    """List the images of a folder and of the folders in it; none is opened.

    images: a folder, a file, or a pattern with ``*``, ``?``, ``[...]`` or names in braces
    Raises DescriptionError if there is none.
    """
    folder, files = _start(os.path.expanduser(images))
    paths: list[str] = []
    others: Counter[str] = Counter()
    complete = True
    for path, zarr in files:
        if len(paths) == MOST_FILES:
            complete = False
            break
        if not path:
            complete = False
        elif not path.isprintable():
            others["a name that is not text"] += 1
        elif zarr or image_ending(path):
            paths.append(path)
        else:
            others[os.path.splitext(path)[1].lower() or "no ending"] += 1
    if not paths:
        seen = ", ".join(f"{count} x {ending}" for ending, count in sorted(others.items()))
        raise DescriptionError(
            f"config key images: no image in {shown(images)}{f' (but {seen})' if seen else ', which has no files'}; "
            "name a folder of PNG, TIFF, JPEG, OME-Zarr or of a microscope's own files"
        )
    return Listing(folder, paths, dict(sorted(others.items(), key=lambda item: -item[1])), complete)
