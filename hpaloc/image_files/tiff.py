"""The images of TIFFs of every layout whose axes have names."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, BinaryIO
from xml.etree import ElementTree

import cv2
import numpy as np
import tifffile

from hpaloc.ids import shown
from hpaloc.image_files.decoding import (
    NO_AXES,
    ImageError,
    check_complete,
    check_intensities,
    check_mode,
    check_segments,
    check_size,
    open_tiff,
    read_ome_xml,
)
from hpaloc.image_files.stack import UNNAMED, Index, Stack, only_image
from hpaloc.pixels.strips import spans
from hpaloc.rle import MAX_PIXELS

# Samples of pixels that are separated at a time.
_AT_ONCE = 2**18


@contextmanager
def open_tiff_stack(file: BinaryIO, series: int | str | None, name: str) -> Iterator[Stack]:
    """Open the image of a TIFF that is the only one, or of the number ``series``.

    name: of the file, for messages
    Raises ImageError if it is not complete, or its images are not intensities, or there are several and none is chosen.
    """
    with open_tiff(file) as tiff:
        if not (tiff.is_ome and tiff.series[0].kind in NO_AXES):
            yield _image_of(tiff, series, name)
            return
        xml = _without_other_files(tiff, name)
    file.seek(0)
    with open_tiff(file, omexml=xml) as tiff:
        yield _image_of(tiff, series, name)


def _without_other_files(tiff: tifffile.TiffFile, name: str) -> str:
    """Return the OME-XML of a file of a data set of many files without the planes of the others."""
    root = read_ome_xml(tiff, name)
    for pixels in root.iterfind("{*}Image/{*}Pixels"):
        for data in pixels.findall("{*}TiffData"):
            if (uuid := data.find("{*}UUID")) is not None:
                own = (uuid.text or "") == root.get("UUID") or uuid.get("FileName") == os.path.basename(name)
                (data.remove(uuid) if own else pixels.remove(data))
    return ElementTree.tostring(root, encoding="unicode")


def _ome_names(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries, name: str) -> list[str]:
    of_images = [
        [channel.get("Name", "") for channel in channels for _ in range(int(channel.get("SamplesPerPixel", "1")))]
        for image in read_ome_xml(tiff, name).iterfind("{*}Image")
        for channels in [image.findall("{*}Pixels/{*}Channel")]
    ]
    if len(of_images) == len(tiff.series):
        return of_images[tiff.series.index(series)]
    # Images in other files of a data set mostly have the same channels.
    return of_images[0] if all(names == of_images[0] for names in of_images) else []


def _tiff_names(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries, name: str) -> list[str]:
    if tiff.is_ome:
        return _ome_names(tiff, series, name)
    labels = (tiff.imagej_metadata or {}).get("Labels", [])
    # There is a label for each plane, and channels change first.
    count = math.prod(n for axis, n in zip(series.axes, series.shape, strict=True) if axis in f"C{UNNAMED}")
    return [str(label) for label in ([labels] if isinstance(labels, str) else labels)[:count]]


def _tiff_reader(
    tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries, name: str
) -> tuple[int, Callable[[Index], np.ndarray]]:
    """Return the pixels of a page, and a function that reads only the page of an index."""
    shape, start = series.keyframe.shape, series.dataoffset
    dtype = series.dtype.newbyteorder(tiff.byteorder)
    native = dtype.newbyteorder("=")
    outer = series.shape[: -len(shape)]
    # Some writers store each row of an interleaved image as a page.
    paged = series.shape[-len(shape) :] == shape and (start is not None or math.prod(outer) == len(series))
    paged = paged and not set("YX") & set(series.axes[: len(outer)])

    def decoded(number: int) -> np.ndarray:
        if not paged:
            check_segments(series, name)
            return series.asarray()
        if start is not None:
            return rows_at(number, 0, shape[0])
        if (found := series[number]) is None:
            raise ImageError(
                f"{name}: plane {number} is not in the file: the recording stopped early, or it is in another file"
            )
        check_segments([found], name)
        return found.asarray()

    def rows_at(number: int, top: int, bottom: int) -> np.ndarray:
        of_row = math.prod(shape[1:])
        at = (start or 0) + (number * shape[0] + top) * of_row * dtype.itemsize
        return tiff.filehandle.read_array(dtype, (bottom - top) * of_row, at).reshape(-1, *shape[1:])

    page = lru_cache(maxsize=1)(decoded)

    @lru_cache(maxsize=1)
    def samples(number: int) -> Sequence[np.ndarray]:
        # All at once, and of an uncompressed page rows that fit in the cache: every pass over all pixels takes time.
        if start is None or not paged:
            return cv2.split(decoded(number).astype(native, copy=False))
        planes = np.empty((shape[2], *shape[:2]), native)
        for top, bottom in spans(shape[0], max(1, _AT_ONCE // math.prod(shape[1:]))):
            planes[:, top:bottom] = cv2.split(rows_at(number, top, bottom).astype(native, copy=False))
        return list(planes)

    def read(index: Index) -> np.ndarray:
        depth = len(outer) if paged else 0
        lead: Any = index[:depth]
        number = int(np.ravel_multi_index(lead, outer)) if depth else 0
        *place, last = index[depth:]
        if isinstance(last, int) and len(place) == 2:
            return samples(number)[last][tuple(place)]
        return page(number)[(*place, last)]

    return math.prod(shape if paged else series.shape), read


def _own_channels(series: tifffile.TiffPageSeries) -> tuple[int, ...] | None:
    """Return the channels of which a file of a data set has planes; None if it has some of all."""
    outer = series.shape[: -len(series.keyframe.shape)]
    if None not in list(series) or "C" not in series.axes[: len(outer)] or math.prod(outer) != len(series):
        return None
    found = np.reshape([page is not None for page in series], outer).nonzero()[series.axes.index("C")]
    return tuple(np.unique(found).tolist())


def _image_of(tiff: tifffile.TiffFile, number: int | str | None, name: str) -> Stack:
    if not tiff.series:
        raise ImageError(f"{name}: the TIFF contains no image")
    check_complete(tiff, name)
    series = only_image(tiff.series, number, name)
    # A description that lacks its end is not OME-XML for tifffile.
    if series.kind in NO_AXES and len(series) > 1 and "<OME" in tiff.pages.first.description:
        companion = read_ome_xml(tiff, name).find("{*}BinaryOnly") if tiff.is_ome else None
        if companion is not None:
            other = shown(companion.get("MetadataFile", "another file"))
            raise ImageError(f"{name}: its OME-XML is in {other}; save it as an OME-TIFF that holds its own")
        raise ImageError(f"{name}: its OME-XML does not describe its {len(series)} pages; save it again")
    check_intensities(series, name)
    check_mode(series, name)
    pixels, read = _tiff_reader(tiff, series, name)
    check_size((pixels,), MAX_PIXELS, name)
    names = partial(_tiff_names, tiff, series, name)
    return Stack(name, series.axes, series.shape, names, read, _own_channels(series), len(tiff.series))
