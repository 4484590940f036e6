"""Reading any channel file of a field as one grey image: PNG, TIFF, OME-TIFF, gzip'd TIFF, JPEG."""

import gzip
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from hpaloc.classes import COLOURS

# The widest field of the Human Protein Atlas has 4096 px a side; a header that claims more than this is broken
# or hostile, and is refused before its pixels are unpacked.
MAX_PIXELS = 2**30

# Which of an RGB image's three channels carry each colour in the tinted JPEG files of the public Human Protein
# Atlas. Yellow is drawn in red and green alike.
_TINT = {"red": (0,), "green": (1,), "blue": (2,), "yellow": (0, 1)}

# JPEG's chroma compression leaks a little of the informative channel into the others: a channel with less than
# this share of the strongest one's energy is leakage.
_LEAK = 0.25


class ImageError(ValueError):
    """A channel file that cannot be read as one grey image; the message names the file."""


def _read_tiff(file: str | Path | io.BytesIO, name: str) -> np.ndarray:
    with tifffile.TiffFile(file) as tiff:
        if not tiff.series:
            raise ImageError(f"{name}: the TIFF holds no image")
        if len(tiff.series) > 1:
            raise ImageError(f"{name}: the TIFF holds {len(tiff.series)} image series, one was expected")
        series = tiff.series[0]
        if np.prod(series.shape, dtype=float) > MAX_PIXELS:
            raise ImageError(f"{name}: {' x '.join(map(str, series.shape))} px is more than hpaloc reads")
        image = series.asarray()
    if tiff.pages and getattr(tiff.pages[0], "photometric", None) == tifffile.PHOTOMETRIC.MINISWHITE:
        raise ImageError(f"{name}: the TIFF is inverted (white is zero)")
    return image


def _read_other(data: bytes, name: str) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as header:
        mode, size = header.mode, header.size
        if size[0] * size[1] > MAX_PIXELS:
            raise ImageError(f"{name}: {size[0]} x {size[1]} px is more than hpaloc reads")
        if mode in ("1", "P", "PA", "CMYK", "LAB", "HSV", "F"):
            raise ImageError(f"{name}: colour mode {mode} is no grey or RGB image")
        frames = getattr(header, "n_frames", 1)
        if frames > 1:
            raise ImageError(f"{name}: {frames} frames, one was expected")
        if header.format == "PNG":
            # Pillow brings 16-bit RGB down to 8; this keeps every depth, and refuses a file cut short.
            return imagecodecs.png_decode(data)
        return np.asarray(header)


def _grey(image: np.ndarray, colour: str, name: str) -> np.ndarray:
    """Reduce an (H, W, 3 or 4) image to the one channel that carries information."""
    if image.shape[2] == 4:
        if image[..., 3].min() < np.iinfo(image.dtype).max:
            raise ImageError(f"{name}: has transparent pixels")
        image = image[..., :3]
    if image.shape[2] != 3:
        raise ImageError(f"{name}: {image.shape[2]} channels, 1 or 3 were expected")
    if np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 1], image[..., 2]):
        return np.ascontiguousarray(image[..., 0])
    # Energy rather than mean: the dim background of a JPEG leaks relatively more than its bright structures.
    energy = np.square(image.reshape(-1, 3), dtype=np.float32).sum(axis=0, dtype=np.float64)
    strong = energy > _LEAK * energy.max()
    found = tuple(int(channel) for channel in np.flatnonzero(strong))
    if found != _TINT[colour]:
        tints = {channels: tint for tint, channels in _TINT.items()}
        seen = f"is tinted {tints[found]}" if found in tints else "is an RGB image of several colours"
        raise ImageError(f"{name}: {seen}, but was given as the {colour} channel")
    return np.ascontiguousarray(image[..., found].max(axis=2))


def read_channel(path: str | os.PathLike[str], colour: str) -> np.ndarray:
    """Read one channel file as a grey image.

    ``path`` is a PNG, JPEG or TIFF (any compression tifffile reads, OME-TIFF, gzip'd ``.tif.gz``), 8 or 16 bit. An RGB
    file is taken where its three channels are equal, or where it is tinted with ``colour`` as the public Human Protein
    Atlas files are. Returns an (H, W) array, uint8 or uint16, as stored. Raises ImageError naming the file if it is
    missing, broken, of another kind, or tinted with another colour. A ``colour`` that is none of the four raises
    ValueError.
    """
    name = os.fspath(path)
    if colour not in COLOURS:
        raise ValueError(f"unknown colour {colour!r}, expected one of {', '.join(COLOURS)}")
    try:
        data = Path(path).read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        image = _read_tiff(io.BytesIO(data), name) if data[:2] in (b"II", b"MM") else _read_other(data, name)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except MemoryError:
        raise
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
        if image.shape[2] not in (3, 4):
            raise ImageError(f"{name}: holds a stack of shape {image.shape}, one image was expected")
        image = _grey(image, colour, name)
    if image.ndim != 2 or 0 in image.shape:
        raise ImageError(f"{name}: has shape {image.shape}, one image was expected")
    return image


def read_field(paths: Mapping[str, str | os.PathLike[str]], colours: Sequence[str] = COLOURS) -> dict[str, np.ndarray]:
    """Read the channel files of one field.

    ``paths`` gives the file of each colour. Returns ``{colour: (H, W) uint8 or uint16}`` for ``colours``. Raises
    ImageError naming the file that cannot be read, or both files where two channels differ in size or bit depth.
    """
    images: dict[str, np.ndarray] = {}
    for colour in colours:
        images[colour] = read_channel(paths[colour], colour)
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
