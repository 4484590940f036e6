"""Label images of cells and nuclei: files, ids, and drawing from run-length masks."""

import os
from collections.abc import Mapping
from pathlib import Path

import fastremap
import imagecodecs
import numpy as np
import tifffile

from hpaloc import rle
from hpaloc.files import all_or_none, atomic_path
from hpaloc.image_files.decoding import ImageError, read_image
from hpaloc.pixels.strips import Image, as_array, derived, found_ids, strips

SUFFIX = {"cell": "_cellmask", "nucleus": "_nucleimask"}
LARGEST_PNG_ID = 65_535
# Most rows of labels equal the row above: with this one filter, zlib's lowest level is several times as fast as with a
# filter for each row, and the file of cells is as small.
_PNG = {"level": 1, "strategy": imagecodecs.PNG.STRATEGY.DEFAULT, "filter": imagecodecs.PNG.FILTER.UP}
_AS_INTEGERS = "save the label image with 16- or 32-bit integers"


class MaskError(ValueError):
    """A mask file or table that cannot be used; the message names the file."""


def mask_path(folder: str | os.PathLike[str], field: str, kind: str) -> Path:
    """Find the mask file of a field in a folder.

    kind: "cell" or "nucleus"
    Returns the 16-bit PNG or, for a field of more than 65,535 cells, the 32-bit TIFF.
    Raises FileNotFoundError naming the PNG if there is neither.
    """
    png = Path(folder) / f"{field}{SUFFIX[kind]}.png"
    for path in (png, png.with_suffix(".tif")):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{png}: there is no mask of field {field!r} (and no .tif of that name)")


def read_mask(path: str | os.PathLike[str], max_pixels: int = rle.MAX_PIXELS) -> np.ndarray:
    """Read a label image from a file.

    path: a PNG or TIFF (also OME-TIFF), each also gzip'd, of integers of any width, or of floating-point numbers that
    are all whole; the ids of a palette image are its indices
    max_pixels: a file whose header claims more is not unpacked
    Returns (H, W) uint16, or uint32 if an id does not fit; ids as in the file, 0 is background.
    Raises MaskError naming the file if it is missing, broken, too large, of another kind, of several images or
    channels, compressed in a way that may change ids, or has a value that is not an id.
    """
    try:
        labels = read_image(path, max_pixels, ids=True)
    except ImageError as error:
        raise MaskError(str(error)) from error
    if labels.ndim != 2:
        raise MaskError(f"{path}: a label image has one channel, but this one has shape {labels.shape}")
    if labels.dtype.kind == "b":
        labels = labels.astype(np.uint8)
    elif labels.dtype.kind != "u":
        labels = _as_ids(labels, path)
    top = int(labels.max(initial=0))
    if top > np.iinfo(np.uint32).max:
        raise MaskError(f"{path}: id {top} does not fit in 32 bits")
    return labels.astype(np.uint16 if top <= LARGEST_PNG_ID else np.uint32, copy=False)


def _as_ids(labels: np.ndarray, path: str | os.PathLike[str]) -> np.ndarray:
    """Return signed integers or floating-point numbers as uint64 if each of them is an id."""
    if labels.dtype.kind not in "if":
        raise MaskError(f"{path}: ids are whole numbers, not {labels.dtype.name}")
    # So that nan is wrong too.
    wrong = ~(labels >= 0)
    if labels.dtype.kind == "f":
        wrong |= ~np.isfinite(labels) | (np.floor(labels) != labels)
        # Above this the type lacks whole numbers, so that neighbours may have got the same id.
        exact = 2 ** (np.finfo(labels.dtype).nmant + 1)
        if not wrong.any() and labels.max(initial=0) > exact:
            raise MaskError(f"{path}: id {labels.max():.0f} is not exact as {labels.dtype.name}; {_AS_INTEGERS}")
    if wrong.any():
        raise MaskError(f"{path}: {labels[wrong][0]:g} is not an id (a whole number from 0); {_AS_INTEGERS}")
    return labels.astype(np.uint64)


def write_mask(path: str | os.PathLike[str], labels: Image) -> Path:
    """Write a label image atomically as a 16-bit PNG, or as a 32-bit TIFF if an id is above 65,535.

    A file of the other format from before is removed.

    path: the PNG; the TIFF has the same name ending in .tif
    labels: (H, W), any integer type, not negative
    Returns the path written.
    Raises OSError if the file cannot be written, FileNameError if that is because of its name.
    """
    png = Path(path)
    tif = png.with_suffix(".tif")
    labels = as_array(labels)
    if labels.max(initial=0) <= LARGEST_PNG_ID:
        encoded = imagecodecs.png_encode(np.ascontiguousarray(labels, dtype=np.uint16), **_PNG)
        with atomic_path(png) as temporary:
            temporary.write_bytes(encoded)
        tif.unlink(missing_ok=True)
        return png
    with atomic_path(tif) as temporary:
        wide = labels.astype(np.uint32, copy=False)
        tifffile.imwrite(temporary, wide, compression="deflate", predictor=True, metadata=None)
    png.unlink(missing_ok=True)
    return tif


def write_masks(folder: str | os.PathLike[str], field: str, cells: Image, nuclei: Image) -> None:
    """Write the two masks of a field into a folder: both, or none if the file system refuses a name.

    cells, nuclei: (H, W) label images, see ``write_mask``
    Raises FileNameError naming the file whose name is refused, and another OSError if a file cannot be written.
    """
    with all_or_none() as written:
        for kind, labels in (("cell", cells), ("nucleus", nuclei)):
            written.append(write_mask(Path(folder) / f"{field}{SUFFIX[kind]}.png", labels))


def compact(labels: Image) -> Image:
    """Renumber the ids of a label image to 1 … n, keeping their order.

    labels: (H, W), an unsigned integer type: uint8 to uint64
    Returns (H, W) uint16, or uint32 above 65,535 objects.
    """
    ids = found_ids(labels)
    dtype = np.uint16 if ids.size <= LARGEST_PNG_ID else np.uint32
    if ids.size == 0 or (int(ids[0]) == 1 and int(ids[-1]) == ids.size):
        if labels.dtype == dtype:
            return labels
        return derived(labels, lambda start, stop: labels[start:stop].astype(dtype), dtype)
    numbers = {0: 0, **{int(old): new for new, old in enumerate(ids, start=1)}}

    def read(start: int, stop: int) -> np.ndarray:
        return fastremap.remap(labels[start:stop].astype(np.uint32), numbers).astype(dtype)

    return derived(labels, read, dtype)


def share_ids(nuclei: Image, cells: Image) -> tuple[Image, Image]:
    """Give each nucleus the id of the cell that contains most of it, and number the cells 1 … n.

    A nucleus is cut to its cell; one that is mostly outside of cells is dropped; a cell may end with no nucleus or with
    several.

    nuclei, cells: (H, W) label images, with unrelated ids
    Returns (nuclei, cells), both (H, W) uint16, or uint32 above 65,535 cells.
    Raises ValueError if the shapes differ.
    """
    if nuclei.shape != cells.shape:
        raise ValueError(f"the nucleus mask is {nuclei.shape}, but the cell mask is {cells.shape}")
    cells = compact(cells)
    # Strip by strip: the pairs of ids of a whole field take many times its memory.
    shared: dict[int, int] = {}
    for of_nuclei, of_cells in zip(strips(nuclei), strips(cells), strict=True):
        inside = of_nuclei != 0
        codes = (of_nuclei[inside].astype(np.uint64) << np.uint64(32)) | of_cells[inside].astype(np.uint64)
        for code, area in zip(*fastremap.unique(codes, return_counts=True), strict=True):
            shared[int(code)] = shared.get(int(code), 0) + int(area)
    owner = {0: 0}
    # The largest share decides; among equal ones the lower id.
    for code, _ in sorted(shared.items(), key=lambda one: (-one[1], one[0])):
        owner.setdefault(code >> 32, code & 0xFFFFFFFF)

    def read(start: int, stop: int) -> np.ndarray:
        own = cells[start:stop]
        # A type that holds the ids of both.
        owned = fastremap.remap(nuclei[start:stop].astype(np.promote_types(nuclei.dtype, own.dtype), copy=False), owner)
        return own * (owned == own)

    return derived(cells, read), cells


def draw(masks: Mapping[int, str], height: int, width: int) -> np.ndarray:
    """Draw run-length masks into one label image, the inverse of ``rle.encode_labels``; in overlaps the higher id wins.

    masks: {id: COCO run-length string}
    height, width: px
    Returns (height, width) uint16, or uint32 if an id is above 65,535.
    Raises ValueError naming the id whose runs do not fill height x width pixels, or if these are more than
    ``rle.MAX_PIXELS``.
    """
    if not 0 < height * width <= rle.MAX_PIXELS or min(height, width) < 1:
        raise ValueError(f"an image of {height} x {width} px is empty or more than hpaloc can read")
    column_order = np.zeros(height * width, dtype=np.uint32)
    for cell in sorted(masks):
        runs = rle.run_lengths(masks[cell])
        ends = np.cumsum(runs)
        if ends[-1] != column_order.size:
            raise ValueError(f"mask {cell} covers {ends[-1]} pixels, but the image has {height} x {width}")
        for start, end in zip(ends[:-1:2], ends[1::2], strict=True):
            column_order[start:end] = cell
    labels = np.ascontiguousarray(column_order.reshape(width, height).T)
    return labels.astype(np.uint16 if labels.max(initial=0) <= LARGEST_PNG_ID else np.uint32)
