"""Decoding one image out of a file, be its pixels intensities or ids: PNG, TIFF, OME-TIFF, JPEG, each also gzip'd."""

import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from hpaloc.rle import MAX_PIXELS

# A header that claims more pixels than this (rle.MAX_PIXELS) is broken or hostile, and is refused before they are
# unpacked. Pillow's own, lower limit would refuse in JPEG what is read in TIFF.
Image.MAX_IMAGE_PIXELS = None

# What a gzip'd file may unpack to, in bytes: a constant and so many times its size. Images of noise reach 10 times.
_UNPACKED, _UNPACKED_TIMES = 2**26, 300

_PNG = b"\x89PNG\r\n\x1a\n"

# tifffile brings YCbCr, which TIFFs hold for JPEG's sake, to RGB, and leaves a palette's indices as they are.
_PHOTOMETRIC = (
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.YCBCR,
    tifffile.PHOTOMETRIC.PALETTE,
)

# The compressions of TIFF that give every pixel back as it was. LERC does where it was asked to; JPEG 2000, JPEG XR and
# JPEG XL may, but their files do not say so.
_EXACT = {
    "NONE", "CCITTRLE", "CCITTFAX3", "CCITT_T4", "CCITTFAX4", "CCITT_T6", "LZW", "ADOBE_DEFLATE", "DEFLATE", "PIXTIFF",
    "PACKBITS", "LZMA", "ZSTD", "ZSTD_DEPRECATED", "PNG",
}  # fmt: skip
_SAVE = "save it as PNG, or as TIFF without compression or with LZW, Deflate or Zstandard"
_LERC_PARAMETERS = 50674


class ImageError(ValueError):
    """An image file that cannot be used; the message names the file."""


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


def _check_intensities(series: tifffile.TiffPageSeries, name: str) -> None:
    if series.dtype not in (np.uint8, np.uint16):
        kind = "1 bit" if series.dtype == bool else series.dtype
        raise ImageError(f"{name}: pixels are {kind}, 8- or 16-bit unsigned integers were expected")
    page = series.keyframe
    # A look-up table of one hue, as ImageJ writes it, leaves the pixels what they were measured as.
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and (
        page.colormap is None or (np.diff(page.colormap.astype(np.int64), axis=1) < 0).any()
    ):
        raise ImageError(f"{name}: its colour table is no scale of one hue; pixels are not intensities")


def _lerc_tolerance(data: bytes, page: tifffile.TiffPage) -> float:
    """Return by how much LERC may have changed a pixel, as its blobs say; infinite where they cannot be read."""
    tag = page.tags.get(_LERC_PARAMETERS)
    packed = tag.value[1] if tag else 0
    most = 0.0
    for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
        segment = data[start : start + length]
        # Those of nothing but zeros may be left out of a file.
        if not segment:
            continue
        # Of Deflate the beginning is enough.
        blob = zlib.decompressobj().decompress(segment, 200) if packed == 1 else segment
        blob = bytes(imagecodecs.zstd_decode(segment)) if packed == 2 else blob
        version = int.from_bytes(blob[6:10], "little")
        if blob[:6] != b"Lerc2 " or version > 6:
            return math.inf
        # After the signature and the version stand 6 integers, and up to four more in later versions.
        more = (version >= 3) + (version >= 4) + 2 * (version >= 6)
        most = max(most, struct.unpack_from("<d", blob, 10 + 4 * (6 + more))[0])
    return most


def _check_ids(data: bytes, series: tifffile.TiffPageSeries, name: str) -> None:
    page = series.keyframe
    compression = getattr(page.compression, "name", f"no. {page.compression}")
    if compression == "LERC":
        # Integers are rounded to the nearest one: half of one is no tolerance.
        exact = _lerc_tolerance(data, page) <= (0.5 if series.dtype.kind in "biu" else 0)
        compression = "LERC with a tolerance"
    else:
        exact = compression in _EXACT
    if not exact:
        raise ImageError(f"{name}: its compression, {compression}, may change ids; {_SAVE}")


def _read_tiff(data: bytes, name: str, limit: int, ids: bool) -> np.ndarray:
    # An OME-TIFF may name further files that hold its planes; what was not asked for is not opened.
    with tifffile.TiffFile(io.BytesIO(data), _multifile=False) as tiff:
        if not tiff.series:
            raise ImageError(f"{name}: the TIFF holds no image")
        if len(tiff.series) > 1:
            raise ImageError(f"{name}: the TIFF holds {len(tiff.series)} image series, one was expected")
        series = tiff.series[0]
        planes = math.prod(length for axis, length in zip(series.axes, series.shape, strict=True) if axis not in "YXS")
        # A writer that was given an axis of one too many may have taken rows for planes: one image all the same.
        if planes != 1 and sum(length != 1 for length in series.shape) > 2:
            raise ImageError(f"{name}: holds {planes} planes (axes {series.axes}), one image was expected")
        _check_size(series.shape, limit, name)
        if ids:
            _check_ids(data, series, name)
        else:
            _check_intensities(series, name)
        photometric = series.keyframe.photometric
        if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            raise ImageError(f"{name}: the TIFF is inverted (white is zero)")
        if photometric not in _PHOTOMETRIC:
            mode = getattr(photometric, "name", photometric)
            raise ImageError(f"{name}: colour mode {mode} is no grey or RGB image")
        return series.asarray()


def _png_chunks(data: bytes, name: str) -> list[tuple[bytes, int, int]]:
    """Return kind, start and end of each chunk, after its checksum was held to it; libpng lets some damage pass."""
    at = len(_PNG)
    chunks: list[tuple[bytes, int, int]] = []
    while not chunks or chunks[-1][0] != b"IEND":
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 12 + length
        if end > len(data):
            raise ImageError(f"{name}: the PNG is cut short")
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ImageError(f"{name}: the PNG is damaged (checksum at byte {at})")
        chunks.append((data[at + 4 : at + 8], at, end))
        at = end
    if chunks[0][0] != b"IHDR":
        raise ImageError(f"{name}: the PNG has no header")
    return chunks


def _read_png(data: bytes, name: str, limit: int, ids: bool) -> np.ndarray:
    chunks = _png_chunks(data, name)
    kinds = [kind for kind, _, _ in chunks]
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    _check_size((height, width), limit, name)
    if not ids and (colour == 3 or depth == 1):
        raise ImageError(f"{name}: colour mode {'P' if colour == 3 else 1} is no grey or RGB image")
    if b"acTL" in kinds:
        raise ImageError(f"{name}: the PNG is animated, one image was expected")
    if not ids or colour not in (0, 3):
        # Pillow brings 16-bit RGB down to 8; this keeps every depth.
        return imagecodecs.png_decode(data)
    if colour == 3 or b"tRNS" in kinds:
        # An index lies in the file as a grey pixel does: with a header that says grey, and nothing about colours or
        # transparency, it is what is read.
        header = b"IHDR" + data[16:25] + b"\0" + data[26:29]
        parts = [data[start:end] for kind, start, end in chunks if kind in (b"IDAT", b"IEND")]
        data = b"".join([_PNG, data[8:12], header, struct.pack(">I", zlib.crc32(header)), *parts])
    image = imagecodecs.png_decode(data)
    # Grey of fewer than 8 bits comes stretched to 255.
    return image // (255 // (2**depth - 1)) if depth < 8 else image


def _read_jpeg(data: bytes, name: str, limit: int, ids: bool) -> np.ndarray:
    if ids:
        raise ImageError(f"{name}: is a JPEG, whose compression changes ids; {_SAVE}")
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
    _PNG: _read_png,
    b"\xff\xd8\xff": _read_jpeg,
}


def _decode(data: bytes, name: str, limit: int, ids: bool) -> np.ndarray:
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(data, name)
    for start, decoder in _DECODERS.items():
        if data.startswith(start):
            return decoder(data, name, limit, ids)
    known = "PNG or TIFF" if ids else "PNG, TIFF or JPEG"
    raise ImageError(f"{name}: is no {known} file" if data else f"{name}: the file is empty")


def read_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS, *, ids: bool = False) -> np.ndarray:
    """Decode the one image of a file.

    ``path`` is a PNG, a TIFF (OME-TIFF too) or, unless ``ids``, a JPEG; each also gzip'd. ``ids`` says that pixels are
    ids and not intensities: then a palette's indices are the pixels, every type of number is read, and no compression
    that may change a pixel. A file whose header claims more than ``max_pixels`` is not unpacked. Returns an (H, W) or
    (H, W, channels) array, of uint8 or uint16 unless ``ids``; axes of length one are taken away. Raises ImageError
    naming the file if it is missing, broken, of another kind or too large, or holds several images.
    """
    name = os.fspath(path)
    try:
        image = _decode(Path(path).read_bytes(), name, min(max_pixels, MAX_PIXELS), ids)
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
    while image.ndim > 2 and 1 in image.shape:
        image = image.squeeze(image.shape.index(1))
    if image.ndim < 2 or 0 in image.shape:
        raise ImageError(f"{name}: has shape {image.shape}, one image was expected")
    return image
