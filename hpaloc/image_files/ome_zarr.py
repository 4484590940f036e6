"""The images of OME-Zarr, versions 0.1 to 0.5: folders, and zip files of one."""

import os
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hpaloc.image_files.decoding import ImageError, check_size, check_unpacked
from hpaloc.rle import MAX_PIXELS


def _ome(group: Any) -> Mapping[str, Any]:
    """Return what OME-Zarr says of a group; since 0.5 below a key of its own."""
    attributes = group.attrs.asdict()
    ome: Mapping[str, Any] = attributes.get("ome", attributes)
    return ome


def zarr_images(path: str) -> list[Any]:
    """Return the groups of the images of an OME-Zarr: itself, or those that bioformats2raw numbers in it.

    Raises ImageError if it has none, or a file in it unpacks to far more than images do.
    """
    try:
        import zarr
    except ImportError:
        raise ImageError(f"{path}: OME-Zarr needs the package zarr in the environment of the job") from None

    if os.path.isdir(path):
        store: Any = zarr.storage.LocalStore(path, read_only=True)
    else:
        with zipfile.ZipFile(path) as packed:
            for member in packed.infolist():
                check_unpacked(member.file_size, member.compress_size, path)
        store = zarr.storage.ZipStore(path, mode="r")
    group = zarr.open_group(store, mode="r")
    if "multiscales" in _ome(group):
        return [group]
    numbered = sorted((name for name in group.group_keys() if name.isdigit()), key=int)
    if not numbered:
        raise ImageError(f"{path}: is not an OME-Zarr of images (no multiscales)")
    return [group[name] for name in numbered]


def describe_zarr(
    group: Any, name: str
) -> tuple[str, tuple[int, ...], Callable[[], list[str]], Callable[[tuple[int | slice, ...]], np.ndarray]]:
    """Describe the image of a group at its finest level.

    name: of the file, for messages
    Returns a letter per axis, its shape, what returns the names of its channels, and what reads an index along each
    axis as uint8 or uint16 (h, w) or of more axes.
    Raises ImageError unless it has intensities of 8 or 16 bit.
    """
    ome = _ome(group)
    finest = ome["multiscales"][0]
    array = group[finest["datasets"][0]["path"]]
    # Codecs that execute what a chunk says belong to arrays of objects.
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{name}: pixels are {array.dtype}, not 8- or 16-bit unsigned integers")
    check_size(array.chunks, MAX_PIXELS, name)
    axes = finest.get("axes", "tczyx"[-array.ndim :])
    letters = "".join((axis if isinstance(axis, str) else axis["name"])[:1].upper() for axis in axes)
    if len(letters) != array.ndim:
        raise ImageError(f"{name}: names {len(letters)} axes of {array.ndim}")

    def names() -> list[str]:
        return [str(channel.get("label", "")) for channel in ome.get("omero", {}).get("channels", [])]

    return letters, array.shape, names, lambda index: np.asarray(array[index])
