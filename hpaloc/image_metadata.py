"""What the header of an image file says about its pixels: their size, and the bits of the detector."""

import gzip
import io
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any, BinaryIO
from xml.etree import ElementTree

import tifffile
from PIL import Image

from hpaloc.image_files.decoding import open_tiff, read_ome_xml
from hpaloc.image_files.ome_zarr import read_multiscale, zarr_images
from hpaloc.planes import Plane, is_zarr_file

# µm, as in the configuration and in sheets. A resolution for printers or screens, such as 72 or 300 dpi, is outside.
PIXEL_SIZES = (0.001, 10.0)
# Sizes that differ by more are different: programs round them to two digits or more.
_TOLERANCE = 1.02 + 1e-9

# The length of units in µm, as OME-XML, ImageJ and people name them; µ and Å each have two characters.
_MICRONS = ("\u00b5m", "\u03bcm", "um", "micron", "microns", *(f"micromet{end}" for end in ("er", "ers", "re", "res")))
_UNITS = {
    **dict.fromkeys(_MICRONS, 1.0),
    **{"pm": 1e-6, "\u00c5": 1e-4, "\u212b": 1e-4, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "dm": 1e5, "m": 1e6},
    **{"nanometer": 1e-3, "nanometers": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6},
    **{"thou": 25.4, "in": 25400.0, "inch": 25400.0, "inches": 25400.0},
}
# By the tag ResolutionUnit of TIFF, and by the unit in the header of JPEG.
_TIFF_UNITS = {
    tifffile.RESUNIT.INCH: 25400.0,
    tifffile.RESUNIT.CENTIMETER: 1e4,
    tifffile.RESUNIT.MILLIMETER: 1e3,
    tifffile.RESUNIT.MICROMETER: 1.0,
}
_JPEG_UNITS = {1: 25400.0, 2: 1e4}
_MAX_SAMPLE_VALUE = 281
_PNG = b"\x89PNG\r\n\x1a\n"
# Bytes that a gzip'd file unpacks in no time.
_NEAR = 2**16
# The size of a gzip'd file, for tifffile, which would unpack all of it to know; no offset is beyond.
_ANY_SIZE = 2**62


class PixelSizeError(ValueError):
    """The files of a field do not say their pixel size, or contradict each other; the message names the file."""


@dataclass(frozen=True)
class ImageMetadata:
    """What the header of a file says; None where it says nothing.

    pixel_size: of x and of y, µm
    significant_bits: of a pixel of the detector
    """

    pixel_size: tuple[float, float] | None = None
    significant_bits: int | None = None


def _plausible(x: float, y: float) -> tuple[float, float] | None:
    least, most = PIXEL_SIZES
    return (x, y) if least <= x <= most and least <= y <= most else None


def _per_unit(x: float, y: float, unit: float | None) -> tuple[float, float] | None:
    """Return the pixel size from the pixels per unit; a program that does not know it writes 1."""
    return None if unit is None or min(x, y) <= 0 or x == y == 1 else _plausible(unit / x, unit / y)


def _unit(name: str) -> float | None:
    """Return the length of a unit in µm; ImageJ writes µ as an escape, and the case of a symbol counts (mm, Mm)."""
    name = name.strip().replace("\\u00B5", "\u00b5")
    return _UNITS.get(name if len(name) < 3 else name.casefold())


def _bits(bits: float, depth: int) -> int | None:
    return int(bits) if 1 <= bits <= depth else None


def _of_pixels(pixels: ElementTree.Element, depth: int) -> ImageMetadata:
    x, y = (float(pixels.get(f"PhysicalSize{axis}", "nan")) for axis in "XY")
    units = [_unit(pixels.get(f"PhysicalSize{axis}Unit", "um")) for axis in "XY"]
    size = None
    if units[0] is not None and units[1] is not None and not x == y == 1:
        size = _plausible(x * units[0], y * units[1])
    return ImageMetadata(size, _bits(float(pixels.get("SignificantBits", "nan")), depth))


def _of_ome(tiff: tifffile.TiffFile, name: str, depth: int, series: int | None) -> ImageMetadata:
    """Read the OME-XML of a file; in a data set of many files, each describes the images of all."""
    root = read_ome_xml(tiff, name)
    every = root.findall("{*}Image/{*}Pixels")
    own = {root.get("UUID"), name}
    of_file = [
        pixels
        for pixels in every
        if own & {part for uuid in pixels.iterfind("{*}TiffData/{*}UUID") for part in (uuid.text, uuid.get("FileName"))}
    ]
    images = of_file or every
    said = {_of_pixels(pixels, depth) for pixels in (images if series is None else [images[series]])}
    return said.pop() if len(said) == 1 else ImageMetadata()


def _of_tags(tiff: tifffile.TiffFile, depth: int, series: int | None) -> ImageMetadata:
    tags = (tiff.series[series].keyframe if series else tiff.pages.first).tags
    x, y = (across / per if per else 0.0 for across, per in (tags.valueof(name) for name in (282, 283)))
    size = _per_unit(x, y, _TIFF_UNITS.get(tags.valueof(296, default=tifffile.RESUNIT.INCH)))
    if size is None and (imagej := tiff.imagej_metadata):
        # ImageJ's own unit counts where the unit of the tag gives no plausible size.
        units = [_unit(str(imagej.get(key, imagej.get("unit", "")))) for key in ("unit", "yunit")]
        if x > 0 < y and not x == y == 1 and units[0] is not None and units[1] is not None:
            size = _plausible(units[0] / x, units[1] / y)
    most = tags.valueof(_MAX_SAMPLE_VALUE)
    most = max(most) if isinstance(most, tuple) else most
    # The brightest pixel, which some programs write there, is rarely the end of a detector's range.
    full = isinstance(most, int) and most > 0 and not most & (most + 1)
    return ImageMetadata(size, _bits(most.bit_length(), depth) if full else None)


def _tried(read: Callable[..., ImageMetadata], *arguments: Any) -> ImageMetadata:
    """Return what a header says; the readers raise errors of many kinds on a broken one, which says nothing."""
    try:
        return read(*arguments)
    except Exception:
        return ImageMetadata()


def _of_tiff(file: BinaryIO, name: str, series: int | None) -> ImageMetadata:
    size = _ANY_SIZE if isinstance(file, gzip.GzipFile) else None
    with open_tiff(file, size=size) as tiff:
        depth = tiff.pages.first.bitspersample
        ome = _tried(_of_ome, tiff, name, depth, series) if tiff.is_ome else ImageMetadata()
        tags = _tried(_of_tags, tiff, depth, series)
    return ImageMetadata(ome.pixel_size or tags.pixel_size, ome.significant_bits or tags.significant_bits)


def _of_png(file: BinaryIO, name: str, series: int | None) -> ImageMetadata:
    file.seek(len(_PNG))
    size = bits = None
    depth = colour = 0
    while (kind := (head := file.read(8))[4:]) not in (b"IDAT", b"IEND", b""):
        length = int.from_bytes(head[:4], "big")
        start = file.read(min(length, 16))
        file.seek(length - len(start) + 4, os.SEEK_CUR)
        if kind == b"IHDR":
            depth, colour = struct.unpack_from(">BB", start, 8)
        elif kind == b"sBIT":
            # Of a colour type with 4 in it, the last channel is alpha.
            bits = _bits(max(start[:-1] if colour & 4 else start), depth)
        elif kind == b"pHYs" and start[8] == 1:
            x, y = struct.unpack_from(">II", start)
            size = _per_unit(x, y, 1e6)
    return ImageMetadata(size, bits)


def _of_jpeg(file: BinaryIO, name: str, series: int | None) -> ImageMetadata:
    with Image.open(file, formats=("JPEG",)) as header:
        x, y = header.info["jfif_density"]
        return ImageMetadata(_per_unit(x, y, _JPEG_UNITS.get(header.info["jfif_unit"])))


_READERS = {b"II": _of_tiff, b"MM": _of_tiff, _PNG: _of_png, b"\xff\xd8\xff": _of_jpeg}


def _unpacked(packed: BinaryIO) -> Any:
    """Return a gzip'd file that unpacks as it is read; all unpacked if it is a TIFF whose tags are far from its start.

    A step back in a file that unpacks as it is read starts from its beginning.
    """
    file = gzip.GzipFile(fileobj=packed)
    start = file.read(8)
    first_tag = int.from_bytes(start[4:], "little" if start.startswith(b"II") else "big")
    file.seek(0)
    return io.BytesIO(file.read()) if start.startswith((b"II", b"MM")) and first_tag > _NEAR else file


def _of_multiscale(multiscale: Mapping[str, Any]) -> ImageMetadata:
    size = dict.fromkeys("yx", 1.0)
    given = False
    for level in (multiscale, multiscale["datasets"][0]):
        for transformation in level.get("coordinateTransformations", ()):
            if transformation["type"] == "scale":
                given = True
                for axis, factor in zip(multiscale["axes"], transformation["scale"], strict=True):
                    if axis["name"] in size:
                        size[axis["name"]] *= factor
    units = {axis["name"]: _unit(axis.get("unit", "")) for axis in multiscale["axes"]}
    if not given or units["x"] is None or units["y"] is None or size["x"] == size["y"] == 1:
        return ImageMetadata()
    return ImageMetadata(_plausible(size["x"] * units["x"], size["y"] * units["y"]))


def _read(path: str | os.PathLike[str]) -> ImageMetadata:
    series = int(path.series) if isinstance(path, Plane) and path.series is not None else None
    if is_zarr_file(path):
        return _of_multiscale(read_multiscale(zarr_images(os.fspath(path))[series or 0]))
    with open(path, "rb") as packed:
        file: BinaryIO = _unpacked(packed) if packed.peek(2).startswith(b"\x1f\x8b") else packed
        start = file.read(len(_PNG))
        file.seek(0)
        for first, reader in _READERS.items():
            if start.startswith(first):
                return reader(file, os.path.basename(path), series)
    return ImageMetadata()


def read_metadata(path: str | os.PathLike[str]) -> ImageMetadata:
    """Return what the header of an image file says about its pixels, without unpacking them.

    The sources are OME-XML, ImageJ's description and the resolution of TIFF, in this order, pHYs and sBIT of PNG, the
    density of JPEG, and the scale of OME-Zarr. A missing or broken file gives nothing. The placeholders of programs
    that do not know the size are ignored: 1 or 0 pixels per unit, and the resolutions of printers and screens.

    path: a PNG, TIFF or JPEG, each also gzip'd; an OME-Zarr, a folder or a zip file
    """
    return _tried(_read, path)


def read_each(paths: Mapping[str, str | os.PathLike[str]]) -> dict[str, ImageMetadata]:
    """Return what the headers of the files of a field say, by colour; a file of several colours is read once."""
    read = {name: read_metadata(path) for name, path in {os.fspath(path): path for path in paths.values()}.items()}
    return {colour: read[os.fspath(path)] for colour, path in paths.items()}


def _differ(one: float, other: float) -> bool:
    return max(one, other) > _TOLERANCE * min(one, other)


def _pixel_sizes(
    paths: Mapping[str, str | os.PathLike[str]], headers: Mapping[str, ImageMetadata]
) -> dict[str, tuple[float, float]]:
    """Return the pixel size of the files that say one."""
    sizes = {os.fspath(path): headers[colour].pixel_size for colour, path in paths.items()}
    return {path: size for path, size in sizes.items() if size is not None}


def _contradiction(sizes: Mapping[str, tuple[float, float]]) -> str | None:
    """Return why files cannot all be right about the pixel size of their field; None if they can."""
    for path, (x, y) in sizes.items():
        if _differ(x, y):
            return f"{path}: says that its pixels are not square ({x:.4g} x {y:.4g} µm)"
    of_file = {path: (x + y) / 2 for path, (x, y) in sizes.items()}
    if of_file:
        least, most = (of(of_file, key=of_file.__getitem__) for of in (min, max))
        if _differ(of_file[least], of_file[most]):
            return f"{most}: says {of_file[most]:.4g} µm per pixel, but {least} says {of_file[least]:.4g}"
    return None


def resolve_pixel_size(pixel_size: float, paths: Mapping[str, str | os.PathLike[str]]) -> float:
    """Return the pixel size of a field in µm: the one that is configured, or else the one that its files say.

    pixel_size: µm; nan for the one of the files, which may differ by 2 % from each other
    paths: the file of each colour
    Raises PixelSizeError naming the file if none says one, if two contradict each other or if pixels are not square.
    """
    if not isnan(pixel_size):
        return pixel_size
    sizes = _pixel_sizes(paths, read_each(paths))
    reason = _contradiction(sizes)
    if not sizes:
        others = ", and neither do the other channels" if len(paths) > 1 else ""
        reason = f"{os.fspath(next(iter(paths.values())))}: does not say its pixel size{others}"
    if reason:
        raise PixelSizeError(f"{reason}; give `pixel_size` in µm")
    x, y = next(iter(sizes.values()))
    return (x + y) / 2


def check_pixel_size(
    pixel_size: float, paths: Mapping[str, str | os.PathLike[str]], headers: Mapping[str, ImageMetadata]
) -> list[str]:
    """Compare the pixel size of a field with what its files say.

    pixel_size: µm
    paths: the file of each colour
    headers: what ``read_each`` returns for them
    Returns a warning if a file says another one, by over 2 %.
    """
    sizes = _pixel_sizes(paths, headers)
    if reason := _contradiction(sizes):
        return [f"{reason}, and pixel_size is {pixel_size:.4g}: correct the one that is wrong"]
    for path, (x, y) in sizes.items():
        if _differ((x + y) / 2, pixel_size):
            return [
                f"{path} says {(x + y) / 2:.4g} µm per pixel, but pixel_size is {pixel_size:.4g}: write "
                "`pixel_size: file` or correct the one that is wrong"
            ]
    return []
