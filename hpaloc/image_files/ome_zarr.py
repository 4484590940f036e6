"""The images of OME-Zarr, versions 0.1 to 0.5: folders, and zip files of one."""

import os
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hpaloc.image_files.decoding import ImageError, check_size, check_unpacked
from hpaloc.image_files.stack import Index, Stack
from hpaloc.planes import list_zarr
from hpaloc.rle import MAX_PIXELS


def _ome(group: Any) -> Mapping[str, Any]:
    """Return what OME-Zarr says of a group; since 0.5 below a key of its own."""
    attributes = group.attrs.asdict()
    ome: Mapping[str, Any] = attributes.get("ome", attributes)
    return ome


def _open_group(path: str) -> Any:
    """Open the group at the top of a folder, or of a zip file whose files are images of no more than they should be."""
    try:
        import zarr
    except ImportError:
        raise ImageError(f"{path}: OME-Zarr needs the package zarr in the environment of the job") from None

    if os.path.isdir(path):
        for inside, entry in list_zarr(path):
            # Zarr reads chunks that it does not find as empty.
            if entry.is_symlink() and not os.path.exists(entry):
                raise ImageError(f"{path}: {inside} is a link to nothing; copy the folder again, with what it links to")
        store: Any = zarr.storage.LocalStore(path, read_only=True)
    else:
        with zipfile.ZipFile(path) as packed:
            for member in packed.infolist():
                check_unpacked(member.file_size, member.compress_size, path)
        store = zarr.storage.ZipStore(path, mode="r")
    try:
        return zarr.open_group(store, mode="r")
    except (FileNotFoundError, ValueError):
        raise ImageError(
            f"{path}: is not an OME-Zarr (no group at its top; zip the content of the folder, not the folder)"
        ) from None


def zarr_images(path: str) -> list[Any]:
    """Return the groups of the images of an OME-Zarr: itself, or those that bioformats2raw numbers in it.

    Raises ImageError if it has none, a link in it leads to nothing, or a file in it unpacks to far more than images do.
    """
    group = _open_group(path)
    if _ome(group).get("multiscales"):
        return [group]
    numbered = sorted((name for name in group.group_keys() if name.isdigit()), key=int)
    if not numbered:
        raise ImageError(f"{path}: is not an OME-Zarr of images (no multiscales)")
    return [group[name] for name in numbered]


def read_multiscale(group: Any) -> Mapping[str, Any]:
    """Return what the group of an image says of its levels and their axes."""
    multiscale: Mapping[str, Any] = _ome(group)["multiscales"][0]
    return multiscale


def open_zarr(group: Any, name: str) -> Stack:
    """Return the image of a group at its finest level.

    name: of the file, for messages
    Raises ImageError unless it has intensities of 8 or 16 bit.
    """
    finest = read_multiscale(group)
    try:
        array = group[finest["datasets"][0]["path"]]
    except (IndexError, KeyError):
        raise ImageError(f"{name}: lacks the array that its metadata name; copy it again") from None
    # Codecs that execute what a chunk says belong to arrays of objects.
    if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise ImageError(f"{name}: pixels are {array.dtype}, not 8- or 16-bit unsigned integers")
    check_size(array.chunks, MAX_PIXELS, name)
    axes = finest.get("axes", "tczyx"[-array.ndim :])
    letters = "".join((axis if isinstance(axis, str) else axis["name"])[:1].upper() for axis in axes)
    if len(letters) != array.ndim:
        raise ImageError(f"{name}: names {len(letters)} axes of {array.ndim}")

    def names() -> list[str]:
        return [str(channel.get("label", "")) for channel in _ome(group).get("omero", {}).get("channels", [])]

    return Stack(name, letters, array.shape, names, _reader(array, letters.find("C")), by_parts=True)


def _reader(array: Any, channels: int) -> Callable[[Index], np.ndarray]:
    """Return a function that reads a part of an array, of whose axes one, or none (-1), is that of channels."""
    together = 1 if channels < 0 else array.chunks[channels]
    kept: dict[str, np.ndarray] = {}

    def read(index: Index) -> np.ndarray:
        number = index[channels]
        if together == 1 or not isinstance(number, int):
            return np.asarray(array[index])
        # A chunk of several channels is unpacked once for all of them.
        first = number - number % together
        wanted = (*index[:channels], slice(first, first + together), *index[channels + 1 :])
        if repr(wanted) not in kept:
            kept.clear()
            kept[repr(wanted)] = np.asarray(array[wanted])
        axis = sum(isinstance(part, slice) for part in index[:channels])
        return kept[repr(wanted)].take(number - first, axis)

    return read
