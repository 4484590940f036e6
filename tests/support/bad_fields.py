"""Bad fields, and the expected outcome of each. tests/library/test_bad_input.py runs them."""

# ruff: noqa: E501 - one input a line, however long its sentence

import csv
import gzip
import io
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from coco_masks import encode
from PIL import Image

from hpaloc.classes import COLOURS
from hpaloc.rle import encode_labels, to_kaggle
from hpaloc.simulate.field import simulate_field

SHAPE = (320, 384)
SUFFIXES = (".png", ".tif", ".ome.tif", ".tif.gz", ".jpg")
Images = dict[str, np.ndarray]


def slug(what: str) -> str:
    """Return a description as an id: small letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", what.lower()).strip("-")


@dataclass(frozen=True)
class Bad:
    """One input: what it is, how its files are made, and its outcome.

    make: gets the folder, the field's id and its right images, whose right files are already there. outcome: rejected,
    warned or accepted. message: the reason or the warning, with {id}.
    """

    what: str
    make: Callable[..., object]
    outcome: str
    message: str = ""

    @property
    def id(self) -> str:
        return slug(self.what)


def right_images(n: int, made: dict[str, np.ndarray] = {}) -> Images:  # noqa: B006 - drawn once a process
    """Return the images of field ``n``: one simulated field, shifted sideways so that no two are equal."""
    if not made:
        made |= simulate_field("right", (0,), 3, SHAPE, pixel_size=0.16, density=2.0).images
    return {colour: np.roll(image, 5 * n, axis=1) for colour, image in made.items()}


def write_right(folder: Path, id: str, images: Images) -> None:
    for colour, image in images.items():
        cv2.imwrite(str(folder / f"{id}_{colour}.png"), image)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def tiff(image: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **options)
    return buffer.getvalue()


def pillow(image: np.ndarray, mode: str, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, depth: int = 8, colour: int = 0, rows: bytes = b"", *others: bytes) -> bytes:
    """Return a PNG that claims a size, with any rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *others, chunk(b"IDAT", zlib.compress(rows, 1)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def flipped(data: bytes, at: int | None = None) -> bytes:
    changed = bytearray(data)
    changed[len(data) // 2 if at is None else at] ^= 255
    return bytes(changed)


def halved(data: bytes) -> bytes:
    return data[: len(data) // 2]


def red(suffix: str, content: Callable[[np.ndarray], bytes]) -> Callable[[Path, str, Images], None]:
    """Return a maker that writes the red channel in another form."""

    def make(folder: Path, id: str, images: Images) -> None:
        (folder / f"{id}_red.png").unlink()
        (folder / f"{id}_red{suffix}").write_bytes(content(images["red"]))

    return make


def all_colours(change: Callable[[np.ndarray], np.ndarray], *colours: str) -> Callable[[Path, str, Images], None]:
    """Return a maker that changes the pixels of some colours, or of all."""

    def make(folder: Path, id: str, images: Images) -> None:
        for colour in colours or COLOURS:
            (folder / f"{id}_{colour}.png").write_bytes(png(change(images[colour])))

    return make


def exchange(first: str, second: str) -> Callable[[Path, str, Images], None]:
    def make(folder: Path, id: str, images: Images) -> None:
        write_right(folder, id, images | {first: images[second], second: images[first]})

    return make


def repeat(first: str, second: str) -> Callable[[Path, str, Images], None]:
    def make(folder: Path, id: str, images: Images) -> None:
        write_right(folder, id, images | {second: images[first]})

    return make


def two_series(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, ome=True) as writer:
        writer.write(image)
        writer.write(image[:40])
    return buffer.getvalue()


def pyramid(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, ome=True) as writer:
        writer.write(image, subifds=1, tile=(64, 64))
        writer.write(image[::2, ::2], subfiletype=1, tile=(64, 64))
    return buffer.getvalue()


def strip_bomb(image: np.ndarray) -> bytes:
    """Return a TIFF of 16 x 16 px whose one strip unpacks to 100 MB."""
    data = bytearray(tiff(np.zeros((16, 16), np.uint8), compression="deflate"))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        places = [file.pages[0].tags[name].valueoffset for name in ("StripOffsets", "StripByteCounts")]
    packed = zlib.compress(bytes(100_000_000), 1)
    for place, value in zip(places, (len(data), len(packed)), strict=True):
        struct.pack_into("<I", data, place, value)
    return bytes(data) + packed


def elsewhere(image: np.ndarray) -> bytes:
    """Return an OME-TIFF that says its plane lies in another file."""
    text = tifffile.TiffFile(io.BytesIO(tiff(image, ome=True))).ome_metadata
    named = text.replace('PlaneCount="1"/>', 'PlaneCount="1"><UUID FileName="/etc/passwd">urn:uuid:1</UUID></TiffData>')
    return tiff(image, description=named.encode(), metadata=None)


def four_bits(image: np.ndarray) -> bytes:
    small = image >> 4
    rows = (small[:, ::2] << 4 | small[:, 1::2]).astype(np.uint8)
    return png_of(SHAPE[1], SHAPE[0], 4, 0, b"".join(b"\0" + row.tobytes() for row in rows))


def tinted(*channels: int) -> Callable[[np.ndarray], bytes]:
    def content(image: np.ndarray) -> bytes:
        colour = np.zeros((*image.shape, 3), np.uint8)
        colour[..., channels] = image[..., None]
        return pillow(colour, "RGB", "JPEG", quality=95)

    return content


def with_alpha(mode: str, opaque: bool) -> Callable[[np.ndarray], bytes]:
    def content(image: np.ndarray) -> bytes:
        alpha = np.full_like(image, 255) if opaque else image
        planes = [image] * (3 if mode == "RGBA" else 1)
        return pillow(np.dstack([*planes, alpha]), mode, "PNG")

    return content


def hue(image: np.ndarray) -> bytes:
    ramp = np.zeros((3, 256), np.uint16)
    ramp[0] = np.arange(256) * 257
    return tiff(image, photometric="palette", colormap=ramp)


def any_palette(image: np.ndarray) -> bytes:
    colours = np.random.default_rng(0).integers(0, 65536, (3, 256)).astype(np.uint16)
    return tiff(image, photometric="palette", colormap=colours)


def not_a_number(image: np.ndarray) -> bytes:
    values = image.astype(np.float32)
    values[0, 0] = np.nan
    return tiff(values)


def absent(colour: str) -> Callable[[Path, str, Images], None]:
    def make(folder: Path, id: str, images: Images) -> None:
        (folder / f"{id}_{colour}.png").unlink()

    return make


def a_folder(folder: Path, id: str, images: Images) -> None:
    (folder / f"{id}_red.png").unlink()
    (folder / f"{id}_red.png").mkdir()


def a_link(target: str) -> Callable[[Path, str, Images], None]:
    def make(folder: Path, id: str, images: Images) -> None:
        (folder / f"{id}_red.png").unlink()
        (folder / f"{id}_red.png").symlink_to(target.format(id=id))

    return make


def narrow(folder: Path, id: str, images: Images) -> None:
    write_right(folder, id, {colour: image[:, :8] for colour, image in images.items()})


def a_pixel(folder: Path, id: str, images: Images) -> None:
    write_right(folder, id, {colour: image[100:101, 100:101] for colour, image in images.items()})


def huge(folder: Path, id: str, images: Images) -> None:
    content = png_of(20_000, 20_000, rows=bytes(20_001 * 20_000))
    for colour in COLOURS:
        (folder / f"{id}_{colour}.png").write_bytes(content)


def half_saturated(folder: Path, id: str, images: Images) -> None:
    changed = images["red"].copy()
    changed[:128] = 255
    write_right(folder, id, images | {"red": changed})


def from_another(folder: Path, id: str, images: Images) -> None:
    (folder / f"{id}_yellow.png").write_bytes((folder / "good-0_yellow.png").read_bytes())


def twice(folder: Path, id: str, images: Images) -> None:
    for colour in COLOURS:
        (folder / f"{id}_{colour}.png").write_bytes((folder / f"good-1_{colour}.png").read_bytes())


def noise(folder: Path, id: str, images: Images) -> None:
    rng = np.random.default_rng(0)
    write_right(folder, id, {colour: rng.poisson(3, SHAPE).astype(np.uint8) for colour in COLOURS})


def mismatched(folder: Path, id: str, images: Images) -> None:
    write_right(folder, id, images | {"blue": images["blue"][:, :-4]})


def mixed_depth(folder: Path, id: str, images: Images) -> None:
    write_right(folder, id, images | {"blue": images["blue"].astype(np.uint16) * 257})


EXPECTED = "not 8- or 16-bit unsigned integers"
MODE = "is neither grey nor RGB"
KIND = "is not a PNG, TIFF or JPEG file"
SAVE = "save it as PNG, or as TIFF without compression or with LZW, Deflate or Zstandard"
AS_INTEGERS = "save the label image with 16- or 32-bit integers"


def mask(content: Callable[[np.ndarray], bytes], suffix: str = ".png") -> Callable[[Path, str, np.ndarray], str]:
    """Return a maker that writes a field's cell mask in another form and returns its path."""

    def make(folder: Path, id: str, cells: np.ndarray) -> str:
        path = folder / f"{id}_mask{suffix}"
        path.write_bytes(content(cells))
        return str(path)

    return make


def table(rows: Callable[[str, np.ndarray], list[dict[str, object]]]) -> Callable[[Path, str, np.ndarray], str]:
    """Return a maker that writes a table of run-length masks, the field's rows among those of another."""

    def make(folder: Path, id: str, cells: np.ndarray) -> str:
        path = folder / f"{id}_table.csv"
        known = coded("other", cells)
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(known[0]))
            writer.writeheader()
            writer.writerows([*known, *rows(id, cells)])
        return str(path)

    return make


def coded(id: str, cells: np.ndarray, **changed: object) -> list[dict[str, object]]:
    size = {"ID": id, "ImageHeight": cells.shape[0], "ImageWidth": cells.shape[1]}
    return [{**size, "EncodedMask": to_kaggle(counts), **changed} for counts in encode_labels(cells).values()]


def many_cells(cells: np.ndarray) -> bytes:
    return tiff(np.where(cells, cells.astype(np.uint32) + 70_000, 0).astype(np.uint32))


def lossy(compression: str) -> Callable[[np.ndarray], bytes]:
    return lambda cells: tiff(cells.astype(np.uint8), compression=compression)


def renumbered(data: bytes, compression: int) -> bytes:
    """Return a TIFF that claims another compression."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages[0].tags["Compression"].valueoffset
    return data[:place] + struct.pack("<H", compression) + data[place + 2 :]


def palette_png(cells: np.ndarray, **options: object) -> bytes:
    """Return a mask as a PNG of indices into colours, of which two ids share one."""
    image = Image.fromarray(cells.astype(np.uint8), "L")
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 90, 0, 0, 90, 0] * 64)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def eroded(cells: np.ndarray) -> np.ndarray:
    return cv2.erode((cells > 0).astype(np.uint8), np.ones((3, 3))) * 255


def overlapping(id: str, cells: np.ndarray) -> list[dict[str, object]]:
    grown = {1: cells == 1, 2: cv2.dilate((cells == 2).astype(np.uint8), np.ones((9, 9))) != 0}
    return [coded(id, cells, EncodedMask=to_kaggle(encode(one)))[0] for one in grown.values()]


MASKS = [
    Bad("Mask of another size", mask(lambda c: png(c[:-1])), "rejected", "the cell mask is (319, 384), but the field is (320, 384)"),
    Bad("Mask turned by 90°", mask(lambda c: png(np.rot90(c).copy())), "rejected", "the cell mask is (384, 320), but the field is (320, 384)"),
    Bad("Mask that is missing", lambda folder, id, cells: f"masks/{id}.png", "rejected", "masks/{id}.png: no such file"),
    Bad("Mask cut in half", mask(lambda c: png(c)[: len(png(c)) // 2]), "rejected", "masks/{id}_mask.png: the PNG is cut short"),
    Bad("Mask with one changed byte", mask(lambda c: flipped(png(c))), "rejected", "masks/{id}_mask.png: the PNG is damaged (checksum at byte 33)"),
    Bad("Empty mask file", mask(lambda c: b""), "rejected", "masks/{id}_mask.png: the file is empty"),
    Bad("BMP called .png", mask(lambda c: pillow(c.astype(np.uint8), "L", "BMP")), "rejected", "masks/{id}_mask.png: is not a PNG or TIFF file"),
    Bad("Mask of several channels of one OME-TIFF", mask(lambda c: tiff(np.stack([c, c]), photometric="minisblack", ome=True, metadata={"axes": "CYX"}), ".ome.tif"), "rejected", "masks/{id}_mask.ome.tif: contains 2 planes (axes CYX); expected one image"),
    Bad("OME-TIFF mask of two series", mask(two_series, ".ome.tif"), "rejected", "masks/{id}_mask.ome.tif: the TIFF contains 2 image series; expected one"),
    Bad("Gzip'd mask cut in half", mask(lambda c: gzip.compress(tiff(c), mtime=0)[:500], ".tif.gz"), "rejected", "masks/{id}_mask.tif.gz: cannot be read (EOFError: Compressed file ended before the end-of-stream marker was reached)"),
    Bad("Gzip bomb for a mask", mask(lambda c: gzip.compress(b"II*\0" + bytes(100_000_000), mtime=0), ".tif.gz"), "rejected", "masks/{id}_mask.tif.gz: unpacks to more than 91 MB, 300 times its size"),
    Bad("Mask of 60,000 × 60,000 px", mask(lambda c: png_of(60_000, 60_000)), "rejected", "masks/{id}_mask.png: 60000 x 60000 px is more than hpaloc can read"),
    Bad("Mask of 20,000 × 20,000 px in a job of 2 GB", mask(lambda c: png_of(20_000, 20_000)), "rejected", "masks/{id}_mask.png: 20000 x 20000 px does not fit in the memory of the job (at most 257 million px; raise its mem_mb)"),
    Bad("JPEG mask", mask(lambda c: pillow(c.astype(np.uint8), "L", "JPEG"), ".jpg"), "rejected", "masks/{id}_mask.jpg: is a JPEG, whose compression changes ids; " + SAVE),
    Bad("Gzip'd JPEG mask called .png", mask(lambda c: gzip.compress(pillow(c.astype(np.uint8), "L", "JPEG"))), "rejected", "masks/{id}_mask.png: is a JPEG, whose compression changes ids; " + SAVE),
    Bad("TIFF mask compressed by JPEG", mask(lossy("jpeg"), ".tif"), "rejected", "masks/{id}_mask.tif: its compression, JPEG, may change ids; " + SAVE),
    Bad("TIFF mask compressed by old JPEG", mask(lambda c: renumbered(lossy("jpeg")(c), 6), ".tif"), "rejected", "masks/{id}_mask.tif: its compression, OJPEG, may change ids; " + SAVE),
    Bad("TIFF mask compressed by JPEG 2000", mask(lossy("jpeg2000"), ".tif"), "rejected", "masks/{id}_mask.tif: its compression, JPEG2000, may change ids; " + SAVE),
    Bad("TIFF mask compressed by JPEG XR", mask(lossy("jpegxr"), ".tif"), "rejected", "masks/{id}_mask.tif: its compression, JPEGXR, may change ids; " + SAVE),
    Bad("TIFF mask compressed by JPEG XL", mask(lossy("jpegxl"), ".tif"), "rejected", "masks/{id}_mask.tif: its compression, JPEGXL, may change ids; " + SAVE),
    Bad("TIFF mask compressed by WebP", mask(lambda c: tiff(np.dstack([c.astype(np.uint8)] * 3), compression="webp", compressionargs={"level": 50}), ".tif"), "rejected", "masks/{id}_mask.tif: its compression, WEBP, may change ids; " + SAVE),
    Bad("TIFF mask compressed by LERC with a tolerance of 2", mask(lambda c: tiff(c, compression="lerc", compressionargs={"level": 2}), ".tif"), "rejected", "masks/{id}_mask.tif: its compression, LERC with a tolerance, may change ids; " + SAVE),
    Bad("The same, compressed again by Zstandard", mask(lambda c: tiff(c, compression="lerc", compressionargs={"level": 2, "compression": "zstd"}), ".tif"), "rejected", "masks/{id}_mask.tif: its compression, LERC with a tolerance, may change ids; " + SAVE),
    Bad("TIFF mask compressed by LERC without tolerance", mask(lambda c: tiff(c, compression="lerc"), ".tif"), "accepted"),
    Bad("TIFF mask in an unknown compression", mask(lambda c: renumbered(tiff(c), 12_345), ".tif"), "rejected", "masks/{id}_mask.tif: its compression, no. 12345, may change ids; " + SAVE),
    Bad("Inverted TIFF mask (white is zero)", mask(lambda c: tiff(c, photometric="miniswhite"), ".tif"), "rejected", "masks/{id}_mask.tif: the TIFF is inverted (white is zero)"),
    Bad("1-bit TIFF mask, inverted (as tifffile writes it)", mask(lambda c: tiff(c > 0), ".tif"), "rejected", "masks/{id}_mask.tif: the TIFF is inverted (white is zero)"),
    Bad("RGB TIFF mask", mask(lambda c: tiff(np.dstack([c] * 3), photometric="rgb"), ".tif"), "rejected", "masks/{id}_mask.tif: a label image has one channel, but this one has shape (320, 384, 3)"),
    Bad("Grey PNG mask with alpha", mask(lambda c: pillow(c.astype(np.uint8), "LA", "PNG")), "rejected", "masks/{id}_mask.png: a label image has one channel, but this one has shape (320, 384, 2)"),
    Bad("Animated PNG mask", mask(lambda c: png(c)[:33] + chunk(b"acTL", bytes(8)) + png(c)[33:]), "rejected", "masks/{id}_mask.png: the PNG is animated; expected one image"),
    Bad("Mask drawn in colours", mask(lambda c: png(np.dstack([c.astype(np.uint8) * 40] * 3))), "rejected", "masks/{id}_mask.png: a label image has one channel, but this one has shape (320, 384, 3)"),
    Bad("Float mask (ImageJ, CellProfiler)", mask(lambda c: tiff(c.astype(np.float32)), ".tif"), "accepted"),
    Bad("Float mask with fractions", mask(lambda c: tiff(np.full(c.shape, 0.5, np.float32)), ".tif"), "rejected", "masks/{id}_mask.tif: 0.5 is not an id (a whole number from 0); " + AS_INTEGERS),
    Bad("Float mask with NaN as background", mask(lambda c: tiff(np.where(c, c, np.nan)), ".tif"), "rejected", "masks/{id}_mask.tif: nan is not an id (a whole number from 0); " + AS_INTEGERS),
    Bad("Float mask with ids that float32 rounds", mask(lambda c: tiff(np.where(c, c + 2.0**24, 0).astype(np.float32)), ".tif"), "rejected", "masks/{id}_mask.tif: id 16777222 is not exact as float32; " + AS_INTEGERS),
    Bad("Complex mask", mask(lambda c: tiff(c.astype(np.complex64)), ".tif"), "rejected", "masks/{id}_mask.tif: ids are whole numbers, not complex64"),
    Bad("Mask with negative ids", mask(lambda c: tiff(c.astype(np.int32) - 1), ".tif"), "rejected", "masks/{id}_mask.tif: -1 is not an id (a whole number from 0); " + AS_INTEGERS),
    Bad("Mask with ids beyond 32 bits", mask(lambda c: tiff(c.astype(np.uint64) << 32), ".tif"), "rejected", "masks/{id}_mask.tif: id 25769803776 does not fit in 32 bits"),
    Bad("Stack of masks", mask(lambda c: tiff(np.stack([c, c]), photometric="minisblack"), ".tif"), "rejected", "masks/{id}_mask.tif: contains 2 planes (axes QYX); expected one image"),
    Bad("TIFF mask cut in half", mask(lambda c: tiff(c)[: len(tiff(c)) // 2], ".tif"), "rejected", "masks/{id}_mask.tif: cannot be read (ValueError: failed to read 245760 bytes, got 122752)"),
    Bad("Binary mask (one id in many pieces)", mask(lambda c: png(eroded(c))), "rejected", "the cell mask is binary (one id in 3 pieces); give each cell its own id"),
    Bad("1-bit PNG mask", mask(lambda c: pillow(eroded(c), "1", "PNG")), "rejected", "the cell mask is binary (one id in 3 pieces); give each cell its own id"),
    Bad("1-bit TIFF mask", mask(lambda c: tiff(eroded(c) > 0, photometric="minisblack"), ".tif"), "rejected", "the cell mask is binary (one id in 3 pieces); give each cell its own id"),
    Bad("Mask without a cell", mask(lambda c: png(np.zeros_like(c))), "warned", "no cell was found"),
    Bad("Mask with ids above 65,535", mask(many_cells, ".tif"), "accepted"),
    Bad("Mask with gaps between its ids", mask(lambda c: png(c * 100)), "accepted"),
    Bad("Mask with a last axis of length one", mask(lambda c: tiff(c[..., None]), ".tif"), "accepted"),
    Bad("Mask with a last axis of length one, labelled as planes (OME)", mask(lambda c: tiff(c[..., None], ome=True), ".ome.tif"), "accepted"),
    Bad("Mask with first axes of length one (ImageJ)", mask(lambda c: tiff(c[None, None, None], imagej=True), ".tif"), "accepted"),
    Bad("Gzip'd TIFF mask", mask(lambda c: gzip.compress(tiff(c), mtime=0), ".tif.gz"), "accepted"),
    Bad("Gzip'd PNG mask", mask(lambda c: gzip.compress(png(c), mtime=0), ".png.gz"), "accepted"),
    Bad("Palette PNG mask", mask(palette_png), "accepted"),
    Bad("Palette PNG mask of 4 bits whose background is transparent", mask(lambda c: palette_png(c, bits=4, transparency=0)), "accepted"),
    Bad("Palette TIFF mask", mask(lambda c: any_palette(c.astype(np.uint8)), ".tif"), "accepted"),
    Bad("4-bit PNG mask", mask(lambda c: four_bits(c << 4)), "accepted"),
    Bad("Big-endian TIFF mask", mask(lambda c: tiff(c, byteorder=">"), ".tif"), "accepted"),
    Bad("Signed TIFF mask", mask(lambda c: tiff(c.astype(np.int32)), ".tif"), "accepted"),
    Bad("Tiled BigTIFF mask with a pyramid", mask(pyramid, ".ome.tif"), "accepted"),
    Bad("TIFF mask called .png", mask(tiff), "accepted"),
    Bad("Table without a row of the field", table(lambda id, c: []), "rejected", "masks/{id}_table.csv: the table has no row for field {id}"),
    Bad("Table with a mask that is not base64", table(lambda id, c: coded(id, c, EncodedMask="?")), "rejected", "masks/{id}_table.csv: field {id}: not a zlib and base64 mask: Only base64 data is allowed"),
    Bad("Table with a mask cut short", table(lambda id, c: coded(id, c, EncodedMask=to_kaggle(encode(c == 1))[:-8])), "rejected", "masks/{id}_table.csv: field {id}: not a zlib and base64 mask: cut short"),
    Bad("Table with a mask that unpacks to 100 MB", table(lambda id, c: coded(id, c, EncodedMask=to_kaggle("0" * 100_000_000))), "rejected", "masks/{id}_table.csv: field {id}: not a mask: unpacks to more letters than any mask has"),
    Bad("Table with a mask of another size", table(lambda id, c: coded(id, c, EncodedMask=to_kaggle(encode(c[1:] == 1)))), "rejected", "masks/{id}_table.csv: mask 1 covers 122496 pixels, but the image has 320 x 384"),
    Bad("Table that claims 10⁶ × 10⁶ px", table(lambda id, c: coded(id, c, ImageHeight=10**6, ImageWidth=10**6)), "rejected", "masks/{id}_table.csv: an image of 1000000 x 1000000 px is empty or more than hpaloc can read"),
    Bad("Table that names two sizes for a field", table(lambda id, c: [*coded(id, c), *coded(id, c, ImageHeight=5)]), "rejected", "masks/{id}_table.csv: field {id}: its rows give two sizes, 320 x 384 and 5 x 384"),
    Bad("Table with a height that is not a number", table(lambda id, c: coded(id, c, ImageHeight="tall")), "rejected", "masks/{id}_table.csv: field {id}: ImageHeight 'tall' is not a whole number"),
    Bad("Table with overlapping masks", table(overlapping), "accepted"),
]  # fmt: skip

FIELDS = [
    # Broken files.
    Bad("PNG cut in half", red(".png", lambda i: png(i)[: len(png(i)) // 2]), "rejected", "images/{id}_red.png: the PNG is cut short"),
    Bad("PNG that lacks its last 5 bytes", red(".png", lambda i: png(i)[:-5]), "rejected", "images/{id}_red.png: the PNG is cut short"),
    Bad("PNG with one changed byte", red(".png", lambda i: flipped(png(i))), "rejected", "images/{id}_red.png: the PNG is damaged (checksum at byte 24645)"),
    Bad("Empty file", red(".png", lambda i: b""), "rejected", "images/{id}_red.png: the file is empty"),
    Bad("File of zeros", red(".png", lambda i: bytes(5000)), "rejected", "images/{id}_red.png: " + KIND),
    Bad("Text called .png", red(".png", lambda i: b"no image"), "rejected", "images/{id}_red.png: " + KIND),
    Bad("Web page saved as .jpg", red(".jpg", lambda i: b"<!DOCTYPE html><title>404</title>"), "rejected", "images/{id}_red.jpg: " + KIND),
    Bad("TIFF cut in half", red(".tif", lambda i: tiff(i)[: len(tiff(i)) // 2]), "rejected", "images/{id}_red.tif: cannot be read (ValueError: failed to read 122880 bytes, got 61312)"),
    Bad("TIFF header only", red(".tif", lambda i: tiff(i)[:8]), "rejected", "images/{id}_red.tif: the TIFF contains no image"),
    Bad("JPEG cut in half", red(".jpg", lambda i: pillow(i, "L", "JPEG")[:4000]), "rejected", "images/{id}_red.jpg: cannot be read (image file is truncated (8 bytes not processed))"),
    Bad("Gzip cut in half", red(".tif.gz", lambda i: gzip.compress(tiff(i), mtime=0)[:4000]), "rejected", "images/{id}_red.tif.gz: cannot be read (EOFError: Compressed file ended before the end-of-stream marker was reached)"),
    Bad("Gzip with a changed byte", red(".tif.gz", lambda i: flipped(gzip.compress(tiff(i), mtime=0), -6)), "rejected", "images/{id}_red.tif.gz: cannot be read (CRC check failed 0xcecb3ac8 != 0xce343ac8)"),
    # Other formats.
    Bad("GIF called .png", red(".png", lambda i: pillow(i, "L", "GIF")), "rejected", "images/{id}_red.png: " + KIND),
    Bad("BMP called .png", red(".png", lambda i: pillow(i, "L", "BMP")), "rejected", "images/{id}_red.png: " + KIND),
    Bad("WebP called .jpg", red(".jpg", lambda i: pillow(i, "L", "WEBP")), "rejected", "images/{id}_red.jpg: " + KIND),
    Bad("JPEG 2000 called .jpg", red(".jpg", lambda i: pillow(i, "L", "JPEG2000")), "rejected", "images/{id}_red.jpg: " + KIND),
    Bad("PostScript called .png", red(".png", lambda i: pillow(i, "L", "EPS")), "rejected", "images/{id}_red.png: " + KIND),
    Bad("TIFF called .png", red(".png", lambda i: tiff(i)), "accepted"),
    Bad("PNG called .tif", red(".tif", png), "accepted"),
    Bad("Gzip'd TIFF", red(".tif.gz", lambda i: gzip.compress(tiff(i), mtime=0)), "accepted"),
    # Colour modes.
    Bad("CMYK JPEG", red(".jpg", lambda i: pillow(np.dstack([i] * 3), "CMYK", "JPEG")), "rejected", "images/{id}_red.jpg: colour mode CMYK " + MODE),
    Bad("CMYK TIFF", red(".tif", lambda i: tiff(np.dstack([i] * 4), photometric="separated")), "rejected", "images/{id}_red.tif: colour mode SEPARATED " + MODE),
    Bad("Lab TIFF", red(".tif", lambda i: tiff(np.dstack([i] * 3), photometric="cielab")), "rejected", "images/{id}_red.tif: colour mode CIELAB " + MODE),
    Bad("Palette PNG", red(".png", lambda i: pillow(i, "P", "PNG")), "rejected", "images/{id}_red.png: colour mode P " + MODE),
    Bad("Palette TIFF of arbitrary colours", red(".tif", any_palette), "rejected", "images/{id}_red.tif: its colour table is not a scale of one hue; pixels are not intensities"),
    Bad("Palette TIFF of one hue (ImageJ)", red(".tif", hue), "accepted"),
    Bad("Inverted TIFF (white is zero)", red(".tif", lambda i: tiff(i, photometric="miniswhite")), "rejected", "images/{id}_red.tif: the TIFF is inverted (white is zero)"),
    Bad("RGB PNG of several colours", red(".png", lambda i: png(np.dstack([i, i[::-1], i[:, ::-1]]))), "rejected", "images/{id}_red.png: is an RGB image of several colours, but was given as the red channel"),
    Bad("RGB PNG of three equal channels", red(".png", lambda i: png(np.dstack([i] * 3))), "accepted"),
    Bad("RGB JPEG of the right tint", red(".jpg", tinted(0)), "accepted"),
    Bad("RGB JPEG of the tint of another channel", red(".jpg", tinted(1)), "rejected", "images/{id}_red.jpg: is tinted green, but was given as the red channel"),
    Bad("RGBA PNG, opaque", red(".png", with_alpha("RGBA", True)), "accepted"),
    Bad("RGBA PNG with transparent pixels", red(".png", with_alpha("RGBA", False)), "rejected", "images/{id}_red.png: has transparent pixels"),
    Bad("Grey PNG with alpha, opaque", red(".png", with_alpha("LA", True)), "accepted"),
    Bad("Grey PNG with transparent pixels", red(".png", with_alpha("LA", False)), "rejected", "images/{id}_red.png: has transparent pixels"),
    # Pixel types.
    Bad("1-bit PNG", red(".png", lambda i: pillow(i, "1", "PNG")), "rejected", "images/{id}_red.png: colour mode 1 " + MODE),
    Bad("1-bit TIFF", red(".tif", lambda i: tiff(i > 50)), "rejected", "images/{id}_red.tif: pixels are 1 bit, " + EXPECTED),
    Bad("4-bit PNG", red(".png", four_bits), "accepted"),
    Bad("Signed 16-bit TIFF", red(".tif", lambda i: tiff(i.astype(np.int16))), "rejected", "images/{id}_red.tif: pixels are int16, " + EXPECTED),
    Bad("32-bit TIFF", red(".tif", lambda i: tiff(i.astype(np.uint32))), "rejected", "images/{id}_red.tif: pixels are uint32, " + EXPECTED),
    Bad("Float TIFF", red(".tif", lambda i: tiff(i.astype(np.float32))), "rejected", "images/{id}_red.tif: pixels are float32, " + EXPECTED),
    Bad("Double TIFF", red(".tif", lambda i: tiff(i.astype(np.float64))), "rejected", "images/{id}_red.tif: pixels are float64, " + EXPECTED),
    Bad("Float TIFF with NaN", red(".tif", not_a_number), "rejected", "images/{id}_red.tif: pixels are float32, " + EXPECTED),
    Bad("Complex TIFF", red(".tif", lambda i: tiff(i.astype(np.complex64))), "rejected", "images/{id}_red.tif: pixels are complex64, " + EXPECTED),
    Bad("One channel of 16 bits, three of 8", mixed_depth, "rejected", "images/{id}_blue.png: pixel type uint16 differs from uint8 of images/{id}_red.png in the same field"),
    # Layouts.
    Bad("Stack of 7 planes", red(".tif", lambda i: tiff(np.stack([i] * 7), photometric="minisblack")), "rejected", "images/{id}_red.tif: contains 7 planes (axes QYX); expected one image (choose it by the key project or channels)"),
    Bad("Stack of 3 equal planes", red(".tif", lambda i: tiff(np.stack([i] * 3), photometric="minisblack")), "rejected", "images/{id}_red.tif: contains 3 planes (axes QYX); expected one image (choose it by the key project or channels)"),
    Bad("Four channels in one OME-TIFF", red(".ome.tif", lambda i: tiff(np.stack([i] * 4), photometric="minisblack", ome=True, metadata={"axes": "CYX"})), "rejected", "images/{id}_red.ome.tif: contains 4 planes (axes CYX); expected one image (choose it by the key channels)"),
    Bad("OME-TIFF of two series", red(".ome.tif", two_series), "rejected", "images/{id}_red.ome.tif: the TIFF contains 2 image series; expected one (choose it by the key series)"),
    Bad("OME-TIFF that names another file", red(".ome.tif", elsewhere), "accepted"),
    Bad("OME-TIFF with a pyramid", red(".ome.tif", pyramid), "accepted"),
    Bad("Tiled TIFF", red(".tif", lambda i: tiff(i, tile=(64, 64))), "accepted"),
    Bad("Big-endian TIFF", red(".tif", lambda i: tiff(i, byteorder=">")), "accepted"),
    Bad("BigTIFF", red(".tif", lambda i: tiff(i, bigtiff=True)), "accepted"),
    Bad("LZW-compressed TIFF", red(".tif", lambda i: tiff(i, compression="lzw")), "accepted"),
    Bad("JPEG in TIFF", red(".tif", lambda i: tiff(i, compression="jpeg", compressionargs={"level": 98})), "accepted"),
    Bad("Animated PNG", red(".png", lambda i: png_of(SHAPE[1], SHAPE[0], 8, 0, bytes(SHAPE[0] * (SHAPE[1] + 1)), chunk(b"acTL", bytes(8)))), "rejected", "images/{id}_red.png: the PNG is animated; expected one image"),
    # Sizes.
    Bad("Channels of different size", mismatched, "rejected", "images/{id}_blue.png: shape (320, 380) differs from (320, 384) of images/{id}_red.png in the same field"),
    Bad("1 × 1 px", a_pixel, "rejected", "images/{id}_red.png: 1 x 1 px is smaller than a cell (at least 16 px a side)"),
    Bad("320 × 8 px", narrow, "rejected", "images/{id}_red.png: 320 x 8 px is smaller than a cell (at least 16 px a side)"),
    Bad("0 × 0 px", red(".png", lambda i: png_of(0, 0)), "rejected", "images/{id}_red.png: cannot be read (PngError: Invalid IHDR data)"),
    Bad("20,000 × 20,000 px in a job of 2 GB", huge, "rejected", "images/{id}_red.png: 20000 x 20000 px does not fit in the memory of the job (at most 257 million px; raise its mem_mb)"),
    Bad("Header that claims 60,000 × 60,000 px", red(".png", lambda i: png_of(60_000, 60_000)), "rejected", "images/{id}_red.png: 60000 x 60000 px is more than hpaloc can read"),
    Bad("Header that claims more rows than there are", red(".png", lambda i: png_of(SHAPE[1], 9000, rows=bytes(1000))), "rejected", "images/{id}_red.png: cannot be read (PngError: Not enough image data)"),
    Bad("Gzip bomb (100 MB of zeros in 0.1 MB)", red(".tif.gz", lambda i: gzip.compress(b"II*\0" + bytes(100_000_000), mtime=0)), "rejected", "images/{id}_red.tif.gz: unpacks to more than 91 MB, 300 times its size"),
    Bad("TIFF bomb (a strip of 256 px unpacks to 100 MB)", red(".tif", strip_bomb), "rejected", "images/{id}_red.tif: cannot be read (DeflateError: libdeflate_zlib_decompress returned LIBDEFLATE_INSUFFICIENT_SPACE)"),
    Bad("PNG bomb (a comment unpacks to 100 MB)", red(".png", lambda i: png(i)[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000), 1)) + png(i)[33:]), "accepted"),
    # Pixels.
    Bad("All black", all_colours(np.zeros_like), "rejected", "images/{id}_red.png: every pixel is 0; the red channel is empty or saturated"),
    Bad("Blue all black", all_colours(np.zeros_like, "blue"), "rejected", "images/{id}_blue.png: every pixel is 0; the blue channel is empty or saturated"),
    Bad("Green all black", all_colours(np.zeros_like, "green"), "warned", "every pixel of green is 0: was the protein recorded?"),
    Bad("All saturated", all_colours(lambda i: np.full_like(i, 255)), "rejected", "images/{id}_red.png: every pixel is 255; the red channel is empty or saturated"),
    Bad("Red saturated in 40 % of its pixels", half_saturated, "warned", "red is overexposed (on average 55 % of a cell's pixels are at its limit, 255): expose less, or leave the field out"),
    Bad("Only noise", noise, "warned", "no cell was found"),
    # Channels.
    Bad("Red and green the same image", repeat("red", "green"), "rejected", "images/{id}_green.png: green is the same image as red, images/{id}_red.png"),
    Bad("Blue and yellow the same image", repeat("blue", "yellow"), "rejected", "images/{id}_blue.png: blue is the same image as yellow, images/{id}_yellow.png"),
    Bad("Red and yellow the same image", repeat("red", "yellow"), "warned", "red and yellow are the same image"),
    Bad("Red and blue swapped", exchange("red", "blue"), "warned", "the nuclei do not look like nuclei (in blue 8.0 times as bright as the cytoplasm, 64 % of the cell): are channels swapped?"),
    Bad("Yellow and blue swapped", exchange("yellow", "blue"), "warned", "no cytoplasm was found (nuclei fill 97 % of the cells): are red and yellow dark, or swapped with blue?"),
    Bad("Red and yellow swapped", exchange("red", "yellow"), "accepted"),
    Bad("Yellow of another field", from_another, "warned", "the same yellow image as field good-0"),
    Bad("A field that is in the sheet under two ids", twice, "warned", "the same images as field good-1"),
    # Files.
    Bad("Red missing", absent("red"), "rejected", "images/{id}_red.png: no such file"),
    Bad("Green missing", absent("green"), "rejected", "images/{id}_green.png: no such file"),
    Bad("Folder in place of a file", a_folder, "rejected", "images/{id}_red.png: cannot be read (Is a directory)"),
    Bad("Link to nowhere", a_link("nowhere.png"), "rejected", "images/{id}_red.png: no such file"),
    Bad("Link to itself", a_link("{id}_red.png"), "rejected", "images/{id}_red.png: cannot be read (Too many levels of symbolic links)"),
    # Files that are cut short and still have whole pages. They are last: a field differs from the others by its place here.
    Bad("Compressed stack of 7 planes cut in half", red(".tif", lambda i: halved(tiff(np.stack([i] * 7), photometric="minisblack", compression="zlib"))), "rejected", "images/{id}_red.tif: the TIFF is cut short; copy it again"),
    Bad("Stack of ImageJ cut in half", red(".tif", lambda i: halved(tiff(np.stack([i] * 7), imagej=True))), "rejected", "images/{id}_red.tif: the TIFF is cut short; copy it again"),
    Bad("OME-TIFF of four channels cut in half", red(".ome.tif", lambda i: halved(tiff(np.stack([i] * 4), photometric="minisblack", ome=True, metadata={"axes": "CYX"}, compression="lzw"))), "rejected", "images/{id}_red.ome.tif: the TIFF is cut short; copy it again"),
    Bad("OME-TIFF that lacks its last 5 bytes", red(".ome.tif", lambda i: tiff(i, ome=True)[:-5]), "rejected", "images/{id}_red.ome.tif: the TIFF is cut short; copy it again"),
]  # fmt: skip
