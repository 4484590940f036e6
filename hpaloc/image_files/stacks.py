"""Single planes of files that hold many: OME-Zarr, and TIFFs of every layout whose axes have names."""

import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import tifffile

from hpaloc.ids import normal_text, shown
from hpaloc.image_files.decoding import (
    ImageError,
    check_intensities,
    check_mode,
    check_size,
    decode,
    errors_named,
    gunzip,
)
from hpaloc.image_files.ome_zarr import describe_zarr, zarr_images
from hpaloc.planes import Plane, is_zarr
from hpaloc.rle import MAX_PIXELS

# Axes to which a TIFF gives no name: pages one after the other.
_UNNAMED = "IQ"
# How tifffile reads pages that nothing describes, such as those of an OME-TIFF whose planes are in several files.
_NO_AXES = ("generic", "uniform")
# A header may claim any number of planes, and an OME-Zarr need not hold those that are empty.
_MOST_PLANES = 10_000
# Names of channels in a message.
_LISTED = 12
_Index = tuple[int | slice, ...]


@dataclass(frozen=True)
class _Stack:
    """One image of many planes, of an open file.

    name: of the file
    axes: a letter per axis, as tifffile has them
    names: returns the names of the channels; fewer than there are if the file does not name them
    read: returns the pixels at an index along each axis
    """

    name: str
    axes: str
    shape: tuple[int, ...]
    names: Callable[[], list[str]]
    read: Callable[[_Index], np.ndarray]

    @property
    def lengths(self) -> dict[str, int]:
        return dict(zip(self.axes, self.shape, strict=True))

    def length(self, axes: str) -> int:
        return math.prod(self.lengths.get(axis, 1) for axis in axes)


def _only(images: Sequence[Any], series: int | None, name: str) -> Any:
    """Return the one image of a file, or that of the number ``series``."""
    if series is None and len(images) > 1:
        raise ImageError(f"{name}: contains {len(images)} image series; choose one by the key series")
    return images[_number(series or 0, len(images), "series", "image series", name)]


def _number(number: int, length: int, key: str, what: str, name: str) -> int:
    if number >= length:
        raise ImageError(f"{name}: {key} {number} is out of range; the file has {length} {what}, numbered from 0")
    return number


def _ome_xml(tiff: tifffile.TiffFile, name: str) -> ElementTree.Element:
    text = tiff.ome_metadata or ""
    # OME-XML has no document type, and the entities of one could fill the memory.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ImageError(f"{name}: its OME-XML has a document type")
    return ElementTree.fromstring(text)


def _without_other_files(tiff: tifffile.TiffFile, name: str) -> str:
    """Return the OME-XML of a file of a data set of many files without the planes of the others."""
    root = _ome_xml(tiff, name)
    for pixels in root.iterfind("{*}Image/{*}Pixels"):
        for data in pixels.findall("{*}TiffData"):
            if (uuid := data.find("{*}UUID")) is not None:
                own = uuid.text == root.get("UUID") or uuid.get("FileName") == os.path.basename(name)
                (data.remove(uuid) if own else pixels.remove(data))
    return ElementTree.tostring(root, encoding="unicode")


def _ome_names(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries, name: str) -> list[str]:
    of_images = [
        [channel.get("Name", "") for channel in channels for _ in range(int(channel.get("SamplesPerPixel", "1")))]
        for channels in (image.findall("{*}Pixels/{*}Channel") for image in _ome_xml(tiff, name).iterfind("{*}Image"))
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
    count = math.prod(n for axis, n in zip(series.axes, series.shape, strict=True) if axis in f"C{_UNNAMED}")
    return [str(label) for label in ([labels] if isinstance(labels, str) else labels)[:count]]


def _tiff_reader(
    tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries, name: str
) -> tuple[int, Callable[[_Index], np.ndarray]]:
    """Return the pixels of a page, and a function that reads only the page of an index."""
    shape, start = series.keyframe.shape, series.dataoffset
    dtype = series.dtype.newbyteorder(tiff.byteorder)
    outer = series.shape[: -len(shape)]
    # Some writers store each row of an interleaved image as a page.
    paged = series.shape[-len(shape) :] == shape and math.prod(outer) == len(series)
    paged = paged and not set("YX") & set(series.axes[: len(outer)])

    @lru_cache(maxsize=1)
    def page(number: int) -> np.ndarray:
        if not paged:
            return series.asarray()
        if start is not None:
            count = math.prod(shape)
            at = start + number * count * dtype.itemsize
            return tiff.filehandle.read_array(dtype, count, at).reshape(shape)
        if (found := series[number]) is None:
            raise ImageError(f"{name}: plane {number} is in another file of its data set")
        return found.asarray()

    def read(index: _Index) -> np.ndarray:
        depth = len(outer) if paged else 0
        lead: Any = index[:depth]
        return page(int(np.ravel_multi_index(lead, outer)) if depth else 0)[index[depth:]]

    return math.prod(shape if paged else series.shape), read


def _of_tiff(tiff: tifffile.TiffFile, plane: Plane) -> _Stack:
    if not tiff.series:
        raise ImageError(f"{plane.path}: the TIFF contains no image")
    series = _only(tiff.series, plane.series, plane.path)
    if tiff.is_ome and series.kind in _NO_AXES and len(series) > 1:
        raise ImageError(f"{plane.path}: its OME-XML does not describe its {len(series)} pages; save it again")
    check_intensities(series, plane.path)
    check_mode(series, plane.path)
    pixels, read = _tiff_reader(tiff, series, plane.path)
    check_size((pixels,), MAX_PIXELS, plane.path)
    return _Stack(plane.path, series.axes, series.shape, lambda: _tiff_names(tiff, series, plane.path), read)


def _of_zarr(plane: Plane) -> _Stack:
    return _Stack(plane.path, *describe_zarr(_only(zarr_images(plane.path), plane.series, plane.path), plane.path))


@contextmanager
def _opened(plane: Plane, limit: int) -> Iterator[_Stack]:
    """Open the file of a plane; one that is neither a TIFF nor an OME-Zarr has one image."""
    with errors_named(plane.path), ExitStack() as files:
        if is_zarr(plane.path):
            stack = _of_zarr(plane)
        else:
            packed = files.enter_context(open(plane.path, "rb"))
            zipped = packed.peek(2).startswith(b"\x1f\x8b")
            file: Any = io.BytesIO(gunzip(packed.read(), plane.path)) if zipped else packed
            start = file.read(2)
            file.seek(0)
            if start in (b"II", b"MM"):
                # An OME-TIFF may name other files with its planes; files that nobody asked for are not opened.
                tiff = files.enter_context(tifffile.TiffFile(file, _multifile=False))
                if tiff.is_ome and tiff.series[0].kind in _NO_AXES:
                    xml = _without_other_files(tiff, plane.path)
                    file.seek(0)
                    tiff = files.enter_context(tifffile.TiffFile(file, _multifile=False, omexml=xml))
                stack = _of_tiff(tiff, plane)
            elif start == b"PK":
                stack = _of_zarr(plane)
            else:
                image = _only([decode(file.read(), plane.path, limit, ids=False)], plane.series, plane.path)
                stack = _Stack(plane.path, "YXS"[: image.ndim], image.shape, list, image.__getitem__)
        if 0 in stack.shape:
            raise ImageError(f"{plane.path}: has shape {stack.shape}; expected images")
        check_size([stack.length(axis) for axis in "YX"], limit, plane.path)
        yield stack


def _with_named_axes(stack: _Stack, plane: Plane) -> _Stack:
    """Return a stack whose unnamed axis is that of channels if they are asked for and there is none, else that along z.

    Raises ImageError if an axis is left from which no key chooses.
    """
    unnamed = [axis for axis in _UNNAMED if stack.length(axis) > 1]
    axes = stack.axes
    if len(unnamed) == 1 and plane.channel is not None and "C" not in axes and stack.length("S") == 1:
        axes = axes.replace(unnamed[0], "C")
    elif len(unnamed) == 1 and "Z" not in axes:
        axes = axes.replace(unnamed[0], "Z")
    named = replace(stack, axes=axes)
    if len(set(axes)) < len(axes) or not {"Y", "X"} <= set(axes):
        raise ImageError(f"{stack.name}: its axes {stack.axes} are not named; save it as OME-TIFF or by ImageJ")
    for axis in axes:
        if axis not in "TCZSYX" and named.length(axis) > 1:
            raise ImageError(
                f"{stack.name}: has {named.length(axis)} images along the axis {axis}, from which no key chooses; save "
                "each to a file of its own"
            )
    return named


def _channel_number(stack: _Stack, colour: str, channel: int | str) -> int:
    count = stack.length("CS")
    key = f"channels.{colour}"
    if isinstance(channel, str):
        names = [normal_text(name) for name in stack.names()]
        names = names if len(names) == count else []
        numbers = [number for number, name in enumerate(names) if name == normal_text(channel)]
        if len(numbers) > 1:
            raise ImageError(
                f"{stack.name}: {len(numbers)} of its channels are called {channel!r}; give {key} a number"
            )
        if numbers:
            return numbers[0]
        # Snakemake reads the numbers of --config as text.
        if not (channel.isascii() and channel.isdigit()):
            listed = ", ".join(shown(name) for name in names[:_LISTED]) + ", …" * (len(names) > _LISTED)
            known = f"its channels are {listed}" if any(names) else "it names none of its channels"
            raise ImageError(f"{stack.name}: has no channel {channel!r} ({key}); {known}")
    deep = f" ({stack.length('Z')} planes along z)" if stack.length("Z") > 1 else ""
    return _number(int(channel), count, key, f"channel{'s' * (count != 1)}{deep}", stack.name)


def _place(stack: _Stack, colour: str, plane: Plane) -> dict[str, int]:
    """Return the index of a colour along each axis but Y, X and Z; not along the samples of an RGB image either."""
    place = dict.fromkeys(set(stack.axes) - set("ZYX"), 0)
    times = stack.length("T")
    if plane.time is None and times > 1:
        raise ImageError(f"{stack.name}: has {times} time points; choose one by the key time")
    place["T"] = _number(plane.time or 0, times, "time", f"time point{'s' * (times != 1)}", stack.name)
    if plane.channel is None:
        if stack.length("C") > 1:
            raise ImageError(
                f"{stack.name}: has {stack.length('C')} channels; choose by the key channels, with images without "
                "{colour}"
            )
        place.pop("S", None)
        return place
    number = _channel_number(stack, colour, plane.channel)
    return place | dict(zip("CS", divmod(number, stack.length("S")), strict=True))


def _read(stack: _Stack, place: Mapping[str, int], plane: Plane) -> np.ndarray:
    """Read one plane of a stack, or project its planes."""

    def at(z: int) -> np.ndarray:
        chosen = {**place, "Z": z}
        image = stack.read(tuple(chosen.get(axis, slice(None)) for axis in stack.axes))
        image = image.T if stack.axes.index("X") < stack.axes.index("Y") else image
        return np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("="))

    depth = stack.length("Z")
    if plane.project is None and depth > 1:
        raise ImageError(
            f"{stack.name}: has {depth} planes along z; choose one, or how they are joined, by the key project"
        )
    if depth > _MOST_PLANES:
        raise ImageError(f"{stack.name}: has {depth} planes along z; hpaloc reads at most {_MOST_PLANES}")
    if plane.project is None or isinstance(plane.project, int):
        return at(_number(plane.project or 0, depth, "project", f"plane{'s' * (depth != 1)} along z", stack.name))
    if plane.project == "max":
        return reduce(np.maximum, map(at, range(depth)))
    first = at(0)
    total = first.astype(np.uint64)
    for z in range(1, depth):
        total += at(z)
    return ((total + depth // 2) // depth).astype(first.dtype)


def _sharpest(colour: str, plane: Plane, limit: int) -> int:
    """Return the number of the plane along z with the most structure of the size that defocus removes first."""
    with _opened(plane, limit) as stack:
        stack = _with_named_axes(stack, plane)
        place = _place(stack, colour, plane)
        structure = []
        for z in range(stack.length("Z")):
            image = _read(stack, place, replace(plane, project=z)).astype(np.float32)
            structure.append((cv2.GaussianBlur(image, (0, 0), 1) - cv2.GaussianBlur(image, (0, 0), 2)).var())
    return int(np.argmax(structure))


def read_planes(
    planes: Mapping[str, Plane], colours: Sequence[str], max_pixels: int = MAX_PIXELS
) -> dict[str, np.ndarray]:
    """Read colours of a field from files that hold many planes; each file is opened once, and no other plane is read.

    planes: by colour, also of colours that are not read
    max_pixels: a file whose header claims more for a plane is not unpacked
    Returns {colour: (H, W) uint8 or uint16, or of an RGB file, without ``channel``, with an axis of samples}.
    Raises ImageError naming the file, and the key if what is chosen is not in the file or is not unique.
    """
    limit = min(max_pixels, MAX_PIXELS)
    if any(plane.project == "sharpest" for plane in planes.values()):
        # Focus is measured in red. The plane is the same for all colours, whichever are read.
        reference = "red" if "red" in planes else next(iter(planes))
        sharpest = _sharpest(reference, planes[reference], limit)
        planes = {colour: replace(plane, project=sharpest) for colour, plane in planes.items()}
    found: dict[str, np.ndarray] = {}
    for path in dict.fromkeys(planes[colour].path for colour in colours):
        own = {colour: plane for colour, plane in planes.items() if plane.path == path}
        with _opened(next(iter(own.values())), limit) as opened:
            stacks = {colour: _with_named_axes(opened, plane) for colour, plane in own.items()}
            places = {colour: _place(stacks[colour], colour, plane) for colour, plane in own.items()}
            for colour, place in places.items():
                first = next(other for other in places if places[other] == place)
                if first != colour:
                    raise ImageError(
                        f"{path}: channels.{colour} and channels.{first} are the same channel; give each colour its own"
                    )
            for colour in colours:
                if colour in own:
                    found[colour] = _read(stacks[colour], places[colour], own[colour])
    return found
