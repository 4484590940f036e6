"""Single planes of files that hold many, whatever their kind."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np

from hpaloc.ids import normal_text, shown
from hpaloc.image_files.decoding import (
    ImageError,
    check_size,
    decode,
    errors_named,
    gunzip,
)
from hpaloc.image_files.ome_zarr import open_zarr, zarr_images
from hpaloc.image_files.stack import UNNAMED, Index, Stack, check_number, only_image
from hpaloc.image_files.tiff import open_tiff_stack
from hpaloc.pixels.detector import repair_hot_pixels
from hpaloc.pixels.strips import Image, Lazily, LazyImage, as_array, cached
from hpaloc.planes import Plane, files_of, is_zarr
from hpaloc.rle import MAX_PIXELS

# A header may claim any number of planes, and an OME-Zarr need not hold those that are empty.
_MOST_PLANES = 10_000
_REORDER = "if these are its colours, make them channels in Fiji: Image › Hyperstacks › Re-order Hyperstack"
# Names of channels in a message.
_LISTED = 12


def _of_zarr(plane: Plane) -> Stack:
    images = zarr_images(plane.path)
    return replace(open_zarr(only_image(images, plane.series, plane.path), plane.path), series=len(images))


Opener = Callable[[Plane, int], AbstractContextManager[Stack]]


@contextmanager
def open_stack(plane: Plane, limit: int, lazily: Lazily | None = None) -> Iterator[Stack]:
    """Open the file of a plane, at the series that the plane has; a file that is no TIFF or OME-Zarr has one image.

    limit: the most pixels of a plane
    lazily: the planes of OME-Zarr that may have more pixels; None for none
    Raises ImageError naming the file if it cannot be read, or has several series and the plane has none.
    """
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
                stack = files.enter_context(open_tiff_stack(file, plane.series, plane.path))
            elif start == b"PK":
                stack = _of_zarr(plane)
            else:
                image = only_image([decode(file.read(), plane.path, limit, ids=False)], plane.series, plane.path)
                stack = Stack(plane.path, "YXS"[: image.ndim], image.shape, list, image.__getitem__)
        if 0 in stack.shape:
            raise ImageError(f"{plane.path}: has shape {stack.shape}; expected images")
        if lazily is not None and _is_lazy(stack, lazily):
            limit = min(lazily.max_pixels, MAX_PIXELS)
        check_size([stack.length(axis) for axis in "YX"], limit, plane.path)
        yield stack


def _with_named_axes(stack: Stack, plane: Plane) -> Stack:
    """Return a stack whose unnamed axis is that of channels if they are asked for and there is none, else that along z.

    Raises ImageError if an axis is left from which no key chooses.
    """
    unnamed = [axis for axis in UNNAMED if stack.length(axis) > 1]
    axes = stack.axes
    only_channels = plane.channel is not None and plane.project is None and plane.time is None
    if len(unnamed) == 1 and only_channels and "C" not in axes and stack.length("S") == 1:
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


def _channel_number(stack: Stack, colour: str, channel: int | str) -> int:
    count = stack.length("CS")
    key = f"channels.{colour}"
    if isinstance(channel, str):
        names = [normal_text(name) for name in stack.names()]
        known = f"it names {len(names)} of its {count} channels; give {key} a number" if any(names) else ""
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
            known = f"its channels are {listed}" if any(names) else known or "it names none of its channels"
            raise ImageError(f"{stack.name}: has no channel {channel!r} ({key}); {known}")
    along = [(axis, what) for axis, what in (("Z", "planes along z"), ("T", "time points")) if stack.length(axis) > 1]
    others = f" ({', '.join(f'{stack.length(axis)} {what}' for axis, what in along)})" if along else ""
    what = f"channel{'s' * (count != 1)}{others}"
    hint = f"; {_REORDER}" if along and count == 1 else ""
    if int(channel) >= count and str(channel) in stack.names():
        hint = "; put it in quotes to name the channel"
    return check_number(int(channel), count, key, what, stack.name, hint)


def _place(stack: Stack, colour: str, plane: Plane) -> dict[str, int]:
    """Return the index of a colour along each axis but Y, X and Z; not along the samples of an RGB image either."""
    place = dict.fromkeys(set(stack.axes) - set("ZYX"), 0)
    times = stack.length("T")
    if plane.time is None and times > 1:
        hint = f", or {_REORDER}" if plane.channel is not None and stack.length("CS") == 1 else ""
        raise ImageError(f"{stack.name}: has {times} time points; choose one by the key time{hint}")
    place["T"] = check_number(plane.time or 0, times, "time", f"time point{'s' * (times != 1)}", stack.name)
    if plane.channel is None:
        own = range(stack.length("C")) if stack.channels is None else stack.channels
        if len(own) > 1:
            raise ImageError(
                f"{stack.name}: has {len(own)} channels; choose by the key channels, with images without {{colour}}"
            )
        place.pop("S", None)
        return place | {"C": own[0]}
    number = _channel_number(stack, colour, plane.channel)
    return place | dict(zip("CS", divmod(number, stack.length("S")), strict=True))


def _read(stack: Stack, place: Mapping[str, int], plane: Plane, rows: slice = slice(None)) -> np.ndarray:
    """Read rows of one plane of a stack, or project its planes."""

    def at(z: int) -> np.ndarray:
        chosen: dict[str, int | slice] = {**place, "Z": z, "Y": rows}
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
        return at(check_number(plane.project or 0, depth, "project", f"plane{'s' * (depth != 1)} along z", stack.name))
    brightest, first = plane.project == "max", at(0)
    # The sum of the most planes of 16 bit has 30 bits.
    joined = first.copy() if brightest else first.astype(np.uint32)
    join = np.maximum if brightest else np.add
    for z in range(1, depth):
        join(joined, at(z), out=joined)
    if not brightest:
        joined += depth // 2
        joined //= depth
    return joined.astype(first.dtype, copy=False)


def _is_lazy(stack: Stack, lazily: Lazily | None) -> bool:
    return lazily is not None and stack.by_parts and max(map(stack.length, "YX")) > lazily.above


def _lazy(stack: Stack, place: Mapping[str, int], plane: Plane) -> LazyImage:
    """Return one plane of a stack, which is read when its rows are asked for."""

    def read(start: int, stop: int) -> np.ndarray:
        with errors_named(stack.name):
            return _read(stack, place, plane, slice(start, stop))

    return cached(LazyImage((stack.length("Y"), stack.length("X")), read(0, 1).dtype, read))


@contextmanager
def _open_along_z(plane: Plane, limit: int, *, opened: Opener) -> Iterator[Stack]:
    """Open the file of a plane; if each plane along z has a file of its own, these as one stack, each while it is read.

    Raises ImageError naming a file that is not like the first.
    """
    files = files_of(plane)
    single = plane if len(files) == 1 else replace(plane, project=None, others=())
    with opened(single, limit) as stack:
        if len(files) == 1:
            yield stack
            return
        first = _with_named_axes(stack, single)
        if (depth := first.length("Z")) > 1:
            raise ImageError(f"{plane.path}: has {depth} planes along z, but its field has a file for each plane")
        dtypes: set[np.dtype] = set()

        def read(index: Index) -> np.ndarray:
            place: Any = index
            path = files[place[0]]
            with opened(replace(single, path=path), limit) as stack:
                own = _with_named_axes(stack, single)
                if (own.axes, own.shape) != (first.axes, first.shape):
                    raise ImageError(f"{path}: shape {own.shape} differs from {first.shape} of {plane.path}")
                image = own.read(place[1:])
            dtypes.add(image.dtype.newbyteorder("="))
            if len(dtypes) > 1:
                raise ImageError(f"{path}: pixel type {image.dtype} differs from that of another plane of its field")
            return image

        yield replace(first, axes=f"Z{first.axes.replace('Z', 'z')}", shape=(len(files), *first.shape), read=read)


def _sharpest(colour: str, plane: Plane, limit: int, opened: Opener) -> int:
    """Return the number of the plane along z with the most structure of the size that defocus removes first."""
    with opened(plane, limit) as stack:
        stack = _with_named_axes(stack, plane)
        place = _place(stack, colour, plane)
        structure = []
        for z in range(stack.length("Z")):
            image = _read(stack, place, replace(plane, project=z))
            image = (as_array(repair_hot_pixels(image)) if image.ndim == 2 else image).astype(np.float32)
            structure.append((cv2.GaussianBlur(image, (0, 0), 1) - cv2.GaussianBlur(image, (0, 0), 2)).var())
    return int(np.argmax(structure))


def read_planes(
    planes: Mapping[str, Plane], colours: Sequence[str], max_pixels: int = MAX_PIXELS, opened: Opener = open_stack
) -> dict[str, np.ndarray]:
    """Read colours of a field from files that hold many planes, each opened once, and no other plane is read.

    Of planes along z in files of their own, one file is open at a time.

    planes: by colour, also of colours that are not read
    max_pixels: a file whose header claims more for a plane is not unpacked
    opened: opens the image of a plane's file that its series names, unless it has more pixels than a limit
    Returns {colour: (H, W) uint8 or uint16, or of an RGB file, without ``channel``, with an axis of samples}.
    Raises ImageError naming the file, and the key if what is chosen is not in the file or is not unique.
    """
    return {
        colour: as_array(image) for colour, image in _read_planes(planes, colours, max_pixels, opened, None).items()
    }


def open_planes(
    planes: Mapping[str, Plane], colours: Sequence[str], max_pixels: int, lazily: Lazily | None
) -> dict[str, Image]:
    """Read colours of a field as ``read_planes``, but planes of OME-Zarr when their rows are asked for.

    planes, colours, max_pixels: as in ``read_planes``
    lazily: of which sides, and up to how many pixels; None for none
    Returns as ``read_planes``, arrays or LazyImage.
    Raises ImageError as ``read_planes``, and a LazyImage when rows are asked for that cannot be read.
    """
    return _read_planes(planes, colours, max_pixels, partial(open_stack, lazily=lazily), lazily)


def _read_planes(
    planes: Mapping[str, Plane], colours: Sequence[str], max_pixels: int, opened: Opener, lazily: Lazily | None
) -> dict[str, Image]:
    limit, opened = min(max_pixels, MAX_PIXELS), partial(_open_along_z, opened=opened)
    # Focus is measured in red if there is red. The plane is the same for all colours, whichever are read.
    reference = next((colour for colour in ("red", "yellow", "blue") if colour in planes), next(iter(planes)))
    sharpest = None
    if any(plane.project == "sharpest" for plane in planes.values()):
        sharpest = _sharpest(reference, planes[reference], limit, opened)
        planes = {colour: replace(plane, project=sharpest) for colour, plane in planes.items()}
    found: dict[str, Image] = {}
    for path in dict.fromkeys(planes[colour].path for colour in colours):
        own = {colour: plane for colour, plane in planes.items() if plane.path == path}
        with opened(next(iter(own.values())), limit) as stack:
            stacks = {colour: _with_named_axes(stack, plane) for colour, plane in own.items()}
            places = {colour: _place(stacks[colour], colour, plane) for colour, plane in own.items()}
            for colour, place in places.items():
                first = next(other for other in places if places[other] == place)
                # Microscopes with three channels have one image for red and yellow.
                if first != colour and {first, colour} != {"red", "yellow"}:
                    raise ImageError(
                        f"{path}: channels.{colour} and channels.{first} are the same channel; give each colour its own"
                    )
            for colour in colours:
                if colour in own:
                    if sharpest is not None and sharpest >= (depth := stacks[colour].length("Z")):
                        raise ImageError(
                            f"{path}: has {depth} plane{'s' * (depth != 1)} along z, but {reference} is sharpest in "
                            f"plane {sharpest} (from 0); give every colour the same planes"
                        )
                    read: Callable[[Stack, Mapping[str, int], Plane], Image] = (
                        _lazy if _is_lazy(stack, lazily) else _read
                    )
                    found[colour] = read(stacks[colour], places[colour], own[colour])
    return found
