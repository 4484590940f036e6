"""Reading any channel file of a field as one grey image: PNG, TIFF, OME-TIFF, gzip'd TIFF, JPEG."""

import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from hpaloc.classes import COLOURS
from hpaloc.rle import MAX_PIXELS

# A header that claims more pixels than this (rle.MAX_PIXELS) is broken or hostile, and is refused before they are
# unpacked. Pillow's own, lower limit would refuse in JPEG what is read in TIFF.
Image.MAX_IMAGE_PIXELS = None

# What a gzip'd file may unpack to, in bytes: a constant and so many times its size. Images of noise reach 10 times.
_UNPACKED, _UNPACKED_TIMES = 2**26, 300

# No cell fits into less, at any pixel size.
MIN_SIDE = 16
# From this share on, saturation is worth a warning.
_SATURATED = 0.2

# Which of an RGB image's three channels carry each colour in the tinted JPEG files of the public Human Protein
# Atlas. Yellow is drawn in red and green alike.
_TINT = {"red": (0,), "green": (1,), "blue": (2,), "yellow": (0, 1)}

# tifffile brings YCbCr, which TIFFs hold for JPEG's sake, to RGB.
_PHOTOMETRIC = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)

# JPEG's chroma compression leaks a little of the informative channel into the others: a channel with less than
# this share of the strongest one's energy is leakage.
_LEAK = 0.25
# In a JPEG whose brightest of 255 levels is no higher than this, rounding and quantisation leak as much as there is:
# a field without staining. Its tint is that of its strongest channel.
_DARK = 16


class ImageError(ValueError):
    """A channel file that cannot be read as one grey image; the message names the file."""


def _check_size(shape: Sequence[int], limit: int, name: str) -> None:
    """Refuse an image before its pixels are unpacked."""
    if math.prod(shape) > limit:
        size = " x ".join(map(str, shape))
        if math.prod(shape) > MAX_PIXELS:
            raise ImageError(f"{name}: {size} px is more than hpaloc reads")
        raise ImageError(
            f"{name}: {size} px does not fit in the memory of the job (at most {limit / 1e6:.0f} million px)"
        )


def _gunzip(data: bytes, name: str) -> bytes:
    most = _UNPACKED + _UNPACKED_TIMES * len(data)
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        unpacked = file.read(most + 1)
    if len(unpacked) > most:
        raise ImageError(f"{name}: unpacks to more than {most // 2**20} MB, {_UNPACKED_TIMES} times its size and more")
    return unpacked


def _read_tiff(data: bytes, name: str, limit: int) -> np.ndarray:
    # An OME-TIFF may name further files that hold its planes; what was not asked for is not opened.
    with tifffile.TiffFile(io.BytesIO(data), _multifile=False) as tiff:
        if not tiff.series:
            raise ImageError(f"{name}: the TIFF holds no image")
        if len(tiff.series) > 1:
            raise ImageError(f"{name}: the TIFF holds {len(tiff.series)} image series, one was expected")
        series = tiff.series[0]
        planes = [length for axis, length in zip(series.axes, series.shape, strict=True) if axis not in "YXS"]
        if math.prod(planes) != 1:
            raise ImageError(f"{name}: holds {math.prod(planes)} planes (axes {series.axes}), one image was expected")
        _check_size(series.shape, limit, name)
        if series.dtype not in (np.uint8, np.uint16):
            kind = "1 bit" if series.dtype == bool else series.dtype
            raise ImageError(f"{name}: pixels are {kind}, 8- or 16-bit unsigned integers were expected")
        page = series.keyframe
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            raise ImageError(f"{name}: the TIFF is inverted (white is zero)")
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            # A look-up table of one hue, as ImageJ writes it, leaves the pixels what they were measured as.
            if page.colormap is None or (np.diff(page.colormap.astype(np.int64), axis=1) < 0).any():
                raise ImageError(f"{name}: its colour table is no scale of one hue; pixels are not intensities")
        elif page.photometric not in _PHOTOMETRIC:
            mode = getattr(page.photometric, "name", page.photometric)
            raise ImageError(f"{name}: colour mode {mode} is no grey or RGB image")
        return series.asarray()


def _read_png(data: bytes, name: str, limit: int) -> np.ndarray:
    """Read a PNG whose every chunk has the checksum it was written with; libpng lets some damage pass."""
    at = 8
    kinds: list[bytes] = []
    while not kinds or kinds[-1] != b"IEND":
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 12 + length
        if end > len(data):
            raise ImageError(f"{name}: the PNG is cut short")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ImageError(f"{name}: the PNG is damaged (checksum at byte {at})")
        kinds.append(data[at + 4 : at + 8])
        at = end
    if kinds[0] != b"IHDR":
        raise ImageError(f"{name}: the PNG has no header")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    _check_size((height, width), limit, name)
    if colour == 3 or depth == 1:
        raise ImageError(f"{name}: colour mode {'P' if colour == 3 else 1} is no grey or RGB image")
    if b"acTL" in kinds:
        raise ImageError(f"{name}: the PNG is animated, one image was expected")
    # Pillow brings 16-bit RGB down to 8; this keeps every depth.
    return imagecodecs.png_decode(data)


def _read_jpeg(data: bytes, name: str, limit: int) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as header:
        _check_size(header.size[::-1], limit, name)
        if header.mode not in ("L", "RGB"):
            raise ImageError(f"{name}: colour mode {header.mode} is no grey or RGB image")
        return np.asarray(header)


# Decoders by the first bytes of a file, whatever its name. Others that Pillow has are not let near: one of them hands
# the file to an interpreter of PostScript.
_DECODERS = {
    b"II": _read_tiff,
    b"MM": _read_tiff,
    b"\x89PNG\r\n\x1a\n": _read_png,
    b"\xff\xd8\xff": _read_jpeg,
}


def _decode(data: bytes, name: str, limit: int) -> np.ndarray:
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(data, name)
    for start, decoder in _DECODERS.items():
        if data.startswith(start):
            return decoder(data, name, limit)
    raise ImageError(f"{name}: is no PNG, TIFF or JPEG file" if data else f"{name}: the file is empty")


def _grey(image: np.ndarray, colour: str, name: str) -> np.ndarray:
    """Reduce an (H, W, 2 to 4) image to the one channel that carries information; of 2 and 4 the last is alpha."""
    if image.shape[2] in (2, 4):
        if image[..., -1].min() < np.iinfo(image.dtype).max:
            raise ImageError(f"{name}: has transparent pixels")
        image = image[..., :-1]
    if image.shape[2] == 1:
        return np.ascontiguousarray(image[..., 0])
    if np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 1], image[..., 2]):
        return np.ascontiguousarray(image[..., 0])
    # Energy rather than mean: the dim background of a JPEG leaks relatively more than its bright structures.
    energy = np.square(image.reshape(-1, 3), dtype=np.float32).sum(axis=0, dtype=np.float64)
    strong = energy > _LEAK * energy.max()
    found = tuple(int(channel) for channel in np.flatnonzero(strong))
    tints = {channels: tint for tint, channels in _TINT.items()}
    dark = image.dtype == np.uint8 and image.max() <= _DARK
    if dark and found not in tints and energy.argmax() in _TINT[colour]:
        found = _TINT[colour]
    if found != _TINT[colour]:
        seen = f"is tinted {tints[found]}" if found in tints else "is an RGB image of several colours"
        raise ImageError(f"{name}: {seen}, but was given as the {colour} channel")
    return np.ascontiguousarray(image[..., found].max(axis=2))


def read_channel(path: str | os.PathLike[str], colour: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read one channel file as a grey image.

    ``path`` is a PNG, JPEG or TIFF (any compression tifffile reads, OME-TIFF, gzip'd ``.tif.gz``), 8 or 16 bit.
    An RGB file is taken where its three channels are equal, or where it is tinted with ``colour`` as the public
    Human Protein Atlas files are. A file whose header claims more than ``max_pixels`` is not unpacked. Returns an
    (H, W) array, uint8 or uint16, as stored. Raises ImageError naming the file if it is missing, broken, of another
    kind, too large, or tinted with another colour. A ``colour`` that is none of the four raises ValueError.
    """
    name = os.fspath(path)
    if colour not in COLOURS:
        raise ValueError(f"unknown colour {colour!r}, expected one of {', '.join(COLOURS)}")
    try:
        image = _decode(Path(path).read_bytes(), name, min(max_pixels, MAX_PIXELS))
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except MemoryError as error:
        # Of a large image, or of a small file that claims to unpack to one.
        raise ImageError(f"{name}: does not unpack in the memory there is") from error
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror or error})") from error
    except Exception as error:
        # The decoders raise errors of many kinds on broken files; each becomes one that names the file.
        raise ImageError(f"{name}: cannot be read ({type(error).__name__}: {error})") from error
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{name}: pixels are {image.dtype}, 8- or 16-bit unsigned integers were expected")
    while image.ndim > 2 and 1 in (image.shape[0], image.shape[-1]):
        image = image[0] if image.shape[0] == 1 else image[..., 0]
    if image.ndim == 3:
        if image.shape[0] in (3, 4) and image.shape[2] not in (3, 4):
            image = np.moveaxis(image, 0, 2)
        if image.shape[2] not in (2, 3, 4):
            raise ImageError(f"{name}: holds a stack of shape {image.shape}, one image was expected")
        image = _grey(image, colour, name)
    if image.ndim != 2 or 0 in image.shape:
        raise ImageError(f"{name}: has shape {image.shape}, one image was expected")
    return image


def read_field(
    paths: Mapping[str, str | os.PathLike[str]], colours: Sequence[str] = COLOURS, max_pixels: int = MAX_PIXELS
) -> dict[str, np.ndarray]:
    """Read the channel files of one field.

    ``paths`` gives the file of each colour. Returns ``{colour: (H, W) uint8 or uint16}`` for ``colours``; none is
    unpacked whose header claims more than ``max_pixels``. Raises ImageError naming the file that cannot be read, or
    both files where two channels differ in size or bit depth.
    """
    images: dict[str, np.ndarray] = {}
    for colour in colours:
        images[colour] = read_channel(paths[colour], colour, max_pixels)
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


def check_field(images: Mapping[str, np.ndarray], paths: Mapping[str, str | os.PathLike[str]]) -> list[str]:
    """Check whether channels can be those of one field of cells.

    images: {colour: (H, W) uint8 or uint16}, of one shape and type; paths: their files. Returns what is odd but may be
    so: a protein channel of one grey level, yellow that repeats red (some microscopes have no fourth channel), much
    saturation. Raises ImageError naming the file where the field is smaller than a cell, a reference channel has one
    grey level throughout, or two channels are the same image.
    """
    warnings = []
    for colour, image in images.items():
        if min(image.shape) < MIN_SIDE:
            size = " x ".join(map(str, image.shape))
            raise ImageError(f"{paths[colour]}: {size} px is smaller than a cell ({MIN_SIDE} px a side at least)")
        level = image[0, 0]
        if level == image[-1, -1] and (image == level).all():
            if colour != "green":
                raise ImageError(f"{paths[colour]}: every pixel is {level}; the {colour} channel is empty or saturated")
            warnings.append(f"every pixel of green is {level}")
            continue
        saturated = np.count_nonzero(image == np.iinfo(image.dtype).max) / image.size
        if saturated > _SATURATED:
            warnings.append(f"{100 * saturated:.0f} % of {colour} is saturated")
    for first, second in combinations(images, 2):
        if np.array_equal(images[first], images[second]):
            if {first, second} != {"red", "yellow"}:
                raise ImageError(f"{paths[second]}: {second} is the same image as {first}, {paths[first]}")
            warnings.append("red and yellow are the same image")
    return warnings
