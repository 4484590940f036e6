"""Decoding the one image of a file, of intensities or of ids: PNG, TIFF, OME-TIFF, JPEG, each also gzip'd."""

import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from hpaloc.image_files.not_made import NOT_MADE
from hpaloc.rle import MAX_PIXELS

# MAX_PIXELS is the limit for all formats; Pillow's own, lower limit would refuse in JPEG what is read in TIFF.
Image.MAX_IMAGE_PIXELS = None

# The most bytes that a gzip'd file, or a file in a zip file, may unpack to: a constant plus this multiple of its size.
# Noise images reach 10.
_UNPACKED, _UNPACKED_TIMES = 2**26, 300

_PNG = b"\x89PNG\r\n\x1a\n"

# tifffile converts YCbCr, which TIFFs use with JPEG, to RGB, and leaves a palette's indices as they are.
_PHOTOMETRIC = (
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.YCBCR,
    tifffile.PHOTOMETRIC.PALETTE,
)

# The lossless compressions of TIFF. LERC says in the file whether it is; JPEG 2000, JPEG XR and JPEG XL do not.
_EXACT = {
    "NONE", "CCITTRLE", "CCITTFAX3", "CCITT_T4", "CCITTFAX4", "CCITT_T6", "LZW", "ADOBE_DEFLATE", "DEFLATE", "PIXTIFF",
    "PACKBITS", "LZMA", "ZSTD", "ZSTD_DEPRECATED", "PNG",
}  # fmt: skip
_SAVE = "save it as PNG, or as TIFF without compression or with LZW, Deflate or Zstandard"
_LERC_PARAMETERS = 50674
_DESCRIPTION = 270
_CUT_SHORT = "the TIFF is cut short; copy it again"

# How tifffile reads pages that nothing describes, such as those of an OME-TIFF whose planes are in several files.
NO_AXES = ("generic", "uniform")


class ImageError(ValueError):
    """An image file that cannot be used; the message names the file."""


def check_size(shape: Sequence[int], limit: int, name: str) -> None:
    """Raise ImageError, before the pixels of an image are unpacked, if it has more than ``limit`` of them."""
    if math.prod(shape) > limit:
        size = " x ".join(map(str, shape))
        if math.prod(shape) > MAX_PIXELS:
            raise ImageError(f"{name}: {size} px is more than hpaloc can read")
        raise ImageError(
            f"{name}: {size} px does not fit in the memory of the job "
            f"(at most {limit / 1e6:.0f} million px; raise its mem_mb)"
        )


def check_unpacked(unpacked: int, packed: int, name: str) -> None:
    """Raise ImageError if so many bytes unpack to far more than images do."""
    most = _UNPACKED + _UNPACKED_TIMES * packed
    if unpacked > most:
        raise ImageError(f"{name}: unpacks to more than {most // 2**20} MB, {_UNPACKED_TIMES} times its size")


def gunzip(data: bytes, name: str) -> bytes:
    """Return unpacked data; raise ImageError if they unpack to far more than images do."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        unpacked = file.read(_UNPACKED + _UNPACKED_TIMES * len(data) + 1)
    check_unpacked(len(unpacked), len(data), name)
    return unpacked


def open_tiff(file: Any, **options: Any) -> tifffile.TiffFile:
    """Open a TIFF; ``options`` are those of tifffile."""
    # An OME-TIFF may name other files with its planes; files that nobody asked for are not opened. Where the pages of
    # ScanImage are, tifffile would guess, and leave out the last one.
    return tifffile.TiffFile(file, _multifile=False, is_scanimage=False, **options)


def read_ome_xml(tiff: tifffile.TiffFile, name: str) -> ElementTree.Element:
    """Return the OME-XML of an OME-TIFF; raise ImageError if it has a document type, which OME-XML does not have."""
    text = tiff.ome_metadata or ""
    # The entities of a document type could fill the memory.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ImageError(f"{name}: its OME-XML has a document type; save it again")
    return ElementTree.fromstring(text)


def _has_description(tiff: tifffile.TiffFile) -> bool:
    """Return whether the description of the first page, which Bio-Formats writes at the end, is in the file."""
    file, form, start = tiff.filehandle, tiff.tiff, tiff.pages.first.offset
    file.seek(start)
    (count,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    for at in range(start + form.tagnosize, start + form.tagnosize + count * form.tagsize, form.tagsize):
        tag = tifffile.TiffTag.fromfile(tiff, offset=at, validate=False)
        if tag.code == _DESCRIPTION and tag.valueoffset + tag.count > file.size:
            return False
    return True


def check_complete(tiff: tifffile.TiffFile, name: str) -> None:
    """Raise ImageError if a TIFF ends before its last page, its description, or a plane that ImageJ counts."""
    tiff.filehandle.seek(tiff.pages.next_page_offset or 0)
    last = tiff.filehandle.read(tiff.tiff.offsetsize) == bytes(tiff.tiff.offsetsize)
    if not (last and _has_description(tiff)) or (tiff.is_imagej and tiff.series[0].kind in NO_AXES):
        raise ImageError(f"{name}: {_CUT_SHORT}")


def check_segments(pages: Iterable[tifffile.TiffPage | tifffile.TiffFrame | None], name: str) -> None:
    """Raise ImageError if the compressed pixels of a page end after the file, which not every decoder notices."""
    for page in pages:
        if page is None or page.keyframe is None or page.keyframe.compression == tifffile.COMPRESSION.NONE:
            continue
        segments = zip(page.dataoffsets, page.databytecounts, strict=False)
        if any(start + length > page.parent.filehandle.size for start, length in segments):
            raise ImageError(f"{name}: {_CUT_SHORT}")


def check_intensities(series: tifffile.TiffPageSeries, name: str) -> None:
    """Raise ImageError unless the pixels of a TIFF are measured intensities, of 8 or 16 bit."""
    if series.dtype not in (np.uint8, np.uint16):
        kind = "1 bit" if series.dtype == bool else series.dtype
        raise ImageError(f"{name}: pixels are {kind}, not 8- or 16-bit unsigned integers")
    page = series.keyframe
    # With a look-up table of one hue, as ImageJ writes it, the pixels are still the measured intensities.
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and (
        page.colormap is None or (np.diff(page.colormap.astype(np.int64), axis=1) < 0).any()
    ):
        raise ImageError(f"{name}: its colour table is not a scale of one hue; pixels are not intensities")


def check_mode(series: tifffile.TiffPageSeries, name: str) -> None:
    """Raise ImageError unless a TIFF is grey or RGB."""
    photometric = series.keyframe.photometric
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        raise ImageError(f"{name}: the TIFF is inverted (white is zero)")
    if photometric not in _PHOTOMETRIC:
        mode = getattr(photometric, "name", photometric)
        raise ImageError(f"{name}: colour mode {mode} is neither grey nor RGB")


def _lerc_tolerance(data: bytes, page: tifffile.TiffPage) -> float:
    """Return by how much LERC may have changed a pixel according to its blobs; infinite if they cannot be read."""
    tag = page.tags.get(_LERC_PARAMETERS)
    packed = tag.value[1] if tag else 0
    most = 0.0
    for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
        segment = data[start : start + length]
        # Segments that are all zero may be absent from a file.
        if not segment:
            continue
        # The beginning of a Deflate stream is enough.
        blob = zlib.decompressobj().decompress(segment, 200) if packed == 1 else segment
        blob = bytes(imagecodecs.zstd_decode(segment)) if packed == 2 else blob
        version = int.from_bytes(blob[6:10], "little")
        if blob[:6] != b"Lerc2 " or version > 6:
            return math.inf
        # The signature and the version are followed by 6 integers, and up to four more in later versions.
        more = (version >= 3) + (version >= 4) + 2 * (version >= 6)
        most = max(most, struct.unpack_from("<d", blob, 10 + 4 * (6 + more))[0])
    return most


def _check_ids(data: bytes, series: tifffile.TiffPageSeries, name: str) -> None:
    page = series.keyframe
    compression = getattr(page.compression, "name", f"no. {page.compression}")
    if compression == "LERC":
        # Integers are rounded to the nearest one: a tolerance of a half changes none.
        exact = _lerc_tolerance(data, page) <= (0.5 if series.dtype.kind in "biu" else 0)
        compression = "LERC with a tolerance"
    else:
        exact = compression in _EXACT
    if not exact:
        raise ImageError(f"{name}: its compression, {compression}, may change ids; {_SAVE}")


def _choice(axes: str) -> str:
    """Return by which keys of a collection one image of a file of these axes is chosen."""
    keys = [key for axis, key in (("Z", "project"), ("T", "time"), ("C", "channels")) if axis in axes]
    return f"choose it by the key{'s' * (len(keys) > 1)} {' and '.join(keys) or 'project or channels'}"


def _read_tiff(data: bytes, name: str, limit: int, ids: bool) -> np.ndarray:
    with open_tiff(io.BytesIO(data)) as tiff:
        if not tiff.series:
            raise ImageError(f"{name}: the TIFF contains no image")
        check_complete(tiff, name)
        if len(tiff.series) > 1:
            hint = "" if ids else " (choose it by the key series)"
            raise ImageError(f"{name}: the TIFF contains {len(tiff.series)} image series; expected one{hint}")
        series = tiff.series[0]
        planes = math.prod(length for axis, length in zip(series.axes, series.shape, strict=True) if axis not in "YXS")
        # A writer that was given an extra axis of length one may have labelled rows as planes: it is one image still.
        if planes != 1 and sum(length != 1 for length in series.shape) > 2:
            hint = "" if ids else f" ({_choice(series.axes)})"
            raise ImageError(f"{name}: contains {planes} planes (axes {series.axes}); expected one image{hint}")
        check_size(series.shape, limit, name)
        if ids:
            _check_ids(data, series, name)
        else:
            check_intensities(series, name)
        check_mode(series, name)
        check_segments(series, name)
        return series.asarray()


def _png_chunks(data: bytes, name: str) -> list[tuple[bytes, int, int]]:
    """Return kind, start and end of each chunk, and check each checksum; libpng lets some damage pass."""
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
    check_size((height, width), limit, name)
    if not ids and (colour == 3 or depth == 1):
        raise ImageError(f"{name}: colour mode {'P' if colour == 3 else 1} is neither grey nor RGB")
    if b"acTL" in kinds:
        raise ImageError(f"{name}: the PNG is animated; expected one image")
    if not ids or colour not in (0, 3):
        # Pillow reduces 16-bit RGB to 8; imagecodecs keeps every depth.
        return imagecodecs.png_decode(data)
    if colour == 3 or b"tRNS" in kinds:
        # An index is stored as a grey pixel is: with a header that says grey, and no chunks about colours or
        # transparency, the indices are read.
        header = b"IHDR" + data[16:25] + b"\0" + data[26:29]
        parts = [data[start:end] for kind, start, end in chunks if kind in (b"IDAT", b"IEND")]
        data = b"".join([_PNG, data[8:12], header, struct.pack(">I", zlib.crc32(header)), *parts])
    image = imagecodecs.png_decode(data)
    # libpng stretches grey of fewer than 8 bits to 255.
    return image // (255 // (2**depth - 1)) if depth < 8 else image


def _read_jpeg(data: bytes, name: str, limit: int, ids: bool) -> np.ndarray:
    if ids:
        raise ImageError(f"{name}: is a JPEG, whose compression changes ids; {_SAVE}")
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as header:
        check_size(header.size[::-1], limit, name)
        if header.mode not in ("L", "RGB"):
            raise ImageError(f"{name}: colour mode {header.mode} is neither grey nor RGB")
        return np.asarray(header)


def _read_reason(data: bytes, name: str, limit: int, ids: bool) -> np.ndarray:
    raise ImageError(data[len(NOT_MADE) :].decode())


# Decoders by the first bytes of a file, whatever its name. Pillow's other decoders are not used: one of them passes the
# file to a PostScript interpreter.
_DECODERS = {
    b"II": _read_tiff,
    b"MM": _read_tiff,
    _PNG: _read_png,
    b"\xff\xd8\xff": _read_jpeg,
    NOT_MADE: _read_reason,
}


def decode(data: bytes, name: str, limit: int, ids: bool) -> np.ndarray:
    """Decode the one image of a file's bytes.

    name: of the file, for messages
    limit: the most pixels
    ids: as in ``read_image``
    Returns (H, W) or (H, W, channels) of uint8, uint16 or, with ``ids``, any type, also with axes of length one.
    Raises ImageError naming the file if it is of another kind or too large, or has several images.
    """
    if data[:2] == b"\x1f\x8b":
        data = gunzip(data, name)
    for start, decoder in _DECODERS.items():
        if data.startswith(start):
            return decoder(data, name, limit, ids)
    known = "PNG or TIFF" if ids else "PNG, TIFF or JPEG"
    raise ImageError(f"{name}: is not a {known} file" if data else f"{name}: the file is empty")


@contextmanager
def errors_named(name: str) -> Iterator[None]:
    """Raise ImageError naming the file for any error of the block, which reads it."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except MemoryError as error:
        # From a large image, or a small file that claims to be one.
        raise ImageError(f"{name}: does not fit in memory when unpacked") from error
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror or error})") from error
    except Exception as error:
        # The decoders raise errors of many kinds on broken files; each becomes one that names the file.
        raise ImageError(f"{name}: cannot be read ({type(error).__name__}: {error})") from error


def read_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS, *, ids: bool = False) -> np.ndarray:
    """Decode the one image of a file.

    path: a PNG, a TIFF (also OME-TIFF) or, unless ``ids``, a JPEG; each also gzip'd
    max_pixels: a file whose header claims more is not unpacked
    ids: pixels are ids, not intensities: a palette's indices are the pixels, every type of number is read, and only
    lossless compressions
    Returns (H, W) or (H, W, channels), uint8 or uint16 unless ``ids``, without axes of length one.
    Raises ImageError naming the file if it is missing, broken, of another kind or too large, or has several images.
    """
    name = os.fspath(path)
    with errors_named(name):
        image = decode(Path(path).read_bytes(), name, min(max_pixels, MAX_PIXELS), ids)
    while image.ndim > 2 and 1 in image.shape:
        image = image.squeeze(image.shape.index(1))
    if image.ndim < 2 or 0 in image.shape:
        raise ImageError(f"{name}: has shape {image.shape}; expected one image")
    return image
