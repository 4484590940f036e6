"""Reading the channels of a field as grey images, whatever files they are in."""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from hpaloc.classes import COLOURS
from hpaloc.image_files.decoding import ImageError, read_image
from hpaloc.image_files.stacks import open_planes
from hpaloc.pixels.detector import repair_hot_pixels, repair_lines
from hpaloc.pixels.strips import Image, Lazily, LazyImage, as_array, lazy_view, strips
from hpaloc.planes import Plane, is_zarr_file
from hpaloc.rle import MAX_PIXELS

# px; no cell fits into less at any pixel size.
MIN_SIDE = 16
# Two stains of one field correlate less: 0.82 was the most of 25 real and simulated fields.
_REPEATS = 0.98

# The RGB channels that carry each colour in the tinted JPEG files of the public Human Protein Atlas.
TINT = {"red": (0,), "green": (1,), "blue": (2,), "yellow": (0, 1)}
TINTED = {channels: colour for colour, channels in TINT.items()}

# JPEG's chroma compression leaks a little of the informative channel into the others: a channel with less than this
# share of the strongest one's energy is leakage.
_LEAK = 0.25
# In a JPEG without a level above this (of 255), a field without staining, rounding and quantisation leak as much as
# there is signal; its tint is that of its strongest channel.
_DARK = 16


def strong_channels(image: np.ndarray) -> list[int]:
    """Return the channels of an RGB image that are not leakage of others, the strongest first.

    image: (H, W, 3) uint8 or uint16
    """
    # Energy rather than mean: the dim background of a JPEG leaks relatively more than its bright structures.
    energy = np.square(image.reshape(-1, 3), dtype=np.float32).sum(axis=0, dtype=np.float64)
    order = np.argsort(-energy, kind="stable")
    return [int(channel) for channel in order if energy[channel] > _LEAK * energy.max()]


def _grey(image: np.ndarray, colour: str, name: str) -> np.ndarray:
    """Reduce an (H, W, 2 to 4) image to the one channel that carries information; with 2 or 4 the last is alpha."""
    if image.shape[2] in (2, 4):
        if image[..., -1].min() < np.iinfo(image.dtype).max:
            raise ImageError(f"{name}: has transparent pixels")
        image = image[..., :-1]
    if image.shape[2] == 1:
        return np.ascontiguousarray(image[..., 0])
    if np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 1], image[..., 2]):
        return np.ascontiguousarray(image[..., 0])
    strong = strong_channels(image)
    found = tuple(sorted(strong))
    dark = image.dtype == np.uint8 and image.max() <= _DARK
    if dark and found not in TINTED and strong[0] in TINT[colour]:
        found = TINT[colour]
    if found != TINT[colour]:
        seen = f"is tinted {TINTED[found]}" if found in TINTED else "is an RGB image of several colours"
        raise ImageError(f"{name}: {seen}, but was given as the {colour} channel")
    return np.ascontiguousarray(image[..., found].max(axis=2))


def read_channel(path: str | os.PathLike[str], colour: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read one channel file, or one plane of a file, as a grey image.

    path: a PNG, JPEG or TIFF (any compression that tifffile reads, OME-TIFF, gzip'd ``.tif.gz``), 8 or 16 bit; an RGB
    file if its three channels are equal, or if it is tinted with ``colour`` like the public Human Protein Atlas files;
    an OME-Zarr, also a zip file of one; or a ``Plane`` of such a file
    max_pixels: a file whose header claims more is not unpacked
    Returns (H, W) uint8 or uint16, as stored.
    Raises ImageError naming the file if it is missing, broken, of another kind, too large, or tinted with another
    colour, and ValueError for a ``colour`` that is not one of the four.
    """
    if colour not in COLOURS:
        raise ValueError(f"unknown colour {colour!r}, expected one of {', '.join(COLOURS)}")
    return as_array(_read_one(path, colour, max_pixels, None))


def _read_one(path: str | os.PathLike[str], colour: str, max_pixels: int, lazily: Lazily | None) -> Image:
    if isinstance(path, Plane) or is_zarr_file(path):
        plane = path if isinstance(path, Plane) else Plane(os.fspath(path))
        return _as_grey(open_planes({colour: plane}, [colour], max_pixels, lazily)[colour], colour, str(path))
    return _as_grey(read_image(path, max_pixels), colour, os.fspath(path))


def _as_grey(image: Image, colour: str, name: str) -> Image:
    if isinstance(image, LazyImage):
        return image
    if image.ndim == 3:
        if image.shape[0] in (3, 4) and image.shape[2] not in (3, 4):
            image = np.moveaxis(image, 0, 2)
        if image.shape[2] not in (2, 3, 4):
            raise ImageError(f"{name}: contains a stack of shape {image.shape}; expected one image")
        image = _grey(image, colour, name)
    if image.ndim != 2:
        raise ImageError(f"{name}: has shape {image.shape}; expected one image")
    return image


def _read_each(
    paths: Mapping[str, str | os.PathLike[str]], colours: Sequence[str], max_pixels: int, lazily: Lazily | None
) -> Iterator[tuple[str, Image]]:
    """Yield each colour and its image; files that hold several planes are opened once."""
    planes = {colour: path for colour, path in paths.items() if isinstance(path, Plane)}
    chosen = [colour for colour in colours if colour in planes]
    read = open_planes(planes, chosen, max_pixels, lazily) if planes else {}
    for colour in colours:
        if colour in planes:
            yield colour, _as_grey(read.pop(colour), colour, str(planes[colour]))
        else:
            yield colour, _read_one(paths[colour], colour, max_pixels, lazily)


def read_field(
    paths: Mapping[str, str | os.PathLike[str]], colours: Sequence[str] | None = None, max_pixels: int = MAX_PIXELS
) -> dict[str, np.ndarray]:
    """Read the channels of one field, without their hot pixels.

    paths: the file, or the ``Plane`` of a file, of each colour
    colours: those to read; None reads all that there are
    max_pixels: a file whose header claims more is not unpacked
    Returns ``{colour: (H, W) uint8 or uint16}`` in the order of ``colours``, or of COLOURS.
    Raises ImageError naming the file that cannot be read, or both files if two channels differ in size or bit depth.
    """
    colours = colours or [colour for colour in COLOURS if colour in paths]
    return {colour: as_array(image) for colour, image in open_field(paths, colours, max_pixels).items()}


def open_field(
    paths: Mapping[str, str | os.PathLike[str]],
    colours: Sequence[str],
    max_pixels: int = MAX_PIXELS,
    lazily: Lazily | None = None,
) -> dict[str, Image]:
    """Read the channels of one field as ``read_field``, but large ones, without their hot pixels, strip by strip.

    paths, colours, max_pixels: as in ``read_field``
    lazily: which images are read when their rows are asked for; of these, only OME-Zarr is not held as a whole, and may
    have more than ``max_pixels``. None for none
    Returns ``{colour: (H, W) uint8 or uint16}`` for ``colours``, arrays or ``LazyImage``.
    Raises ImageError as ``read_field``; a LazyImage also when rows are asked for that cannot be read.
    """
    images: dict[str, Image] = {}
    for colour, image in _read_each(paths, colours, max_pixels, lazily):
        if lazily and isinstance(image, np.ndarray) and max(image.shape) > lazily.above:
            image = lazy_view(image)
        images[colour] = repair_hot_pixels(repair_lines(image))
        first = colours[0]
        for what, of_first, of_this in (
            ("shape", images[first].shape, images[colour].shape),
            ("pixel type", images[first].dtype, images[colour].dtype),
        ):
            if of_first != of_this:
                raise ImageError(
                    f"{paths[colour]}: {what} {of_this} differs from {of_first} of {paths[first]} in the same field"
                )
    return images


def check_field(images: Mapping[str, Image], paths: Mapping[str, str | os.PathLike[str]]) -> None:
    """Check whether channels can be those of one field of cells.

    images: {colour: (H, W) uint8 or uint16}, of one shape and type
    paths: their files
    Raises ImageError naming the file if the field is smaller than a cell, a reference channel has one grey level
    throughout, or two channels are the same image. Green may have one level, and yellow may repeat red (some
    microscopes have no fourth channel).
    """
    for colour, image in images.items():
        if min(image.shape) < MIN_SIDE:
            size = " x ".join(map(str, image.shape))
            raise ImageError(f"{paths[colour]}: {size} px is smaller than a cell (at least {MIN_SIDE} px a side)")
        if colour != "green" and _has_one_level(image):
            level = image[:1][0, 0]
            found = f"{paths[colour]}: every pixel is {level}; the {colour} channel is empty or saturated"
            # What people without a fourth colour put in its place.
            hint = "; if there is no yellow, write channels: {yellow: null}" if colour == "yellow" else ""
            raise ImageError(found + hint)
    for first, second in combinations(images, 2):
        if {first, second} != {"red", "yellow"} and _are_equal(images[first], images[second]):
            raise ImageError(f"{paths[second]}: {second} is the same image as {first}, {paths[first]}")


def find_odd_colours(images: Mapping[str, np.ndarray], empty: np.ndarray | None) -> list[str]:
    """Compare the channels of a field that ``check_field`` accepts.

    images: {colour: (H, W) uint8 or uint16}, of one shape and type
    empty: (H, W) bool, where the field has no data, as ``find_empty`` returns it
    Returns warnings of what is odd but possible: green of one grey level, and a colour that repeats another.
    """
    warnings = []
    if "green" in images and _has_one_level(images["green"]):
        warnings.append(f"every pixel of green is {images['green'][0, 0]}: was the protein recorded?")
    # Every fourth row and column is enough.
    data: Any = np.s_[:] if empty is None else ~empty[::4, ::4]
    samples = {colour: image[::4, ::4][data].ravel().astype(np.float64) for colour, image in images.items()}
    for first, second in combinations(images, 2):
        if np.array_equal(images[first], images[second]):
            warnings.append(f"{first} and {second} are the same image")
        # One grey level correlates with nothing.
        elif samples[first].std() > 0 and samples[second].std() > 0:
            correlation = float(np.corrcoef(samples[first], samples[second])[0, 1])
            if correlation > _REPEATS:
                warnings.append(
                    f"{second} repeats {first}: their correlation is {correlation:.3f}. Is one of them a copy?"
                )
    return warnings


def _has_one_level(image: Image) -> bool:
    level = image[:1][0, 0]
    return bool(level == image[-1:][0, -1]) and all((strip == level).all() for strip in strips(image))


def _are_equal(first: Image, second: Image) -> bool:
    return all(np.array_equal(*pair) for pair in zip(strips(first), strips(second), strict=True))
