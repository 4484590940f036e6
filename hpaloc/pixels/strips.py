"""Images of which a strip of rows at a time is in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import fastremap
import imagecodecs
import numpy as np
from numpy.typing import DTypeLike

# The rows of a strip: those of the chunks that most OME-Zarr writers choose, and a multiple of every stride.
STRIP = 1024
# A strip with its neighbours.
_KEPT = 3


@dataclass(frozen=True)
class LazyImage:
    """An image whose rows are read, or computed, each time that they are asked for.

    shape: height and width in px
    read: returns the rows (stop - start, W) from start to stop
    """

    shape: tuple[int, int]
    dtype: np.dtype
    read: Callable[[int, int], np.ndarray]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return some rows, (n, W)."""
        start, stop, _ = rows.indices(self.shape[0])
        return self.read(start, stop)


Image = np.ndarray | LazyImage


@dataclass(frozen=True)
class Lazily:
    """Which images are read as LazyImage: those with a side of more than ``above`` px; at most ``max_pixels`` px."""

    above: int
    max_pixels: int


def spans(height: int, step: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield the first row, and the row after the last, of each strip of an image of ``height`` rows.

    step: the rows of a strip; None is STRIP
    """
    step = step or STRIP
    for start in range(0, height, step):
        yield start, min(start + step, height)


def strips(image: Image) -> Iterator[np.ndarray]:
    """Yield the strips of an image, (H, W) uint8, uint16 or uint32, each (h, W) of the same type."""
    for start, stop in spans(image.shape[0]):
        yield image[start:stop]


def thinned(image: Image, step: int) -> np.ndarray:
    """Return every ``step``-th pixel of every ``step``-th row of an image.

    image: (H, W) uint8 or uint16
    step: a divisor of STRIP
    """
    # Copies: a view would keep its strip in memory.
    return np.concatenate([strip[::step, ::step].copy() for strip in strips(image)])


def as_array(image: Image) -> np.ndarray:
    """Return all of an image, (H, W) of any number type, as an array; an array is returned as it is."""
    if isinstance(image, np.ndarray):
        return image
    whole = np.empty(image.shape, image.dtype)
    for start, stop in spans(image.shape[0]):
        whole[start:stop] = image[start:stop]
    return whole


def lazy_view(image: np.ndarray) -> LazyImage:
    """Return an image, (H, W) of any number type, as a LazyImage."""
    height, width = image.shape
    return LazyImage((height, width), image.dtype, lambda start, stop: image[start:stop])


def found_ids(labels: Image) -> np.ndarray:
    """Return the ids in a label image (H, W) of an unsigned type, without 0, in ascending order, as uint64."""
    found: set[int] = set()
    for strip in strips(labels):
        found.update(fastremap.unique(strip).tolist())
    return np.array(sorted(found - {0}), np.uint64)


def derived(image: Image, read: Callable[[int, int], np.ndarray], dtype: DTypeLike = None) -> Image:
    """Return an image that is computed from another: at once from an array, when rows are asked for from a LazyImage.

    image: (H, W)
    read: returns the new rows from start to stop
    dtype: of the new image; None is that of ``image``
    """
    height, width = image.shape
    lazy = LazyImage((height, width), np.dtype(dtype or image.dtype), read)
    return as_array(lazy) if isinstance(image, np.ndarray) else lazy


def cropped(image: Image, rows: slice, columns: slice) -> Image:
    """Return a rectangle of an image, (H, W); rows, columns: with start and stop."""
    if isinstance(image, np.ndarray):
        return image[rows, columns]
    first, width = rows.start, columns.stop - columns.start
    return LazyImage(
        (rows.stop - first, width), image.dtype, lambda start, stop: image[first + start : first + stop][:, columns]
    )


def surrounded(image: Image, rows: slice, columns: slice, shape: tuple[int, ...]) -> Image:
    """Return an image of a larger shape with zeros around an image; rows, columns: where the image is in it."""
    height, width = shape

    def read(start: int, stop: int) -> np.ndarray:
        whole = np.zeros((stop - start, width), image.dtype)
        top, bottom = max(start, rows.start), min(stop, rows.stop)
        if top < bottom:
            whole[top - start : bottom - start, columns] = image[top - rows.start : bottom - rows.start]
        return whole

    larger = LazyImage((height, width), np.dtype(image.dtype), read)
    return as_array(larger) if isinstance(image, np.ndarray) else larger


def cached(image: LazyImage) -> LazyImage:
    """Return an image that is read in whole strips and keeps the last ones, for readers that need a margin."""

    @lru_cache(maxsize=_KEPT)
    def strip(number: int) -> np.ndarray:
        return image[number * STRIP : (number + 1) * STRIP]

    return LazyImage(image.shape, image.dtype, lambda start, stop: _cut(strip, start, stop))


def packed(image: LazyImage, step: int = 0) -> LazyImage:
    """Return a label image, computed once in steps of about ``step`` rows, that is kept compressed in memory."""
    width, dtype = image.shape[1], image.dtype
    pieces: list[bytes | bytearray] = []
    for start, stop in spans(image.shape[0], max(1, -(-step // STRIP)) * STRIP):
        rows = image[start:stop]
        pieces += [imagecodecs.lz4_encode(rows[at:to].tobytes()) for at, to in spans(stop - start)]
    heights = [stop - start for start, stop in spans(image.shape[0])]

    def strip(number: int) -> np.ndarray:
        size = heights[number] * width * dtype.itemsize
        return np.frombuffer(imagecodecs.lz4_decode(pieces[number], out=size), dtype).reshape(-1, width)

    return LazyImage(image.shape, dtype, lambda start, stop: _cut(strip, start, stop))


def _cut(strip: Callable[[int], np.ndarray], start: int, stop: int) -> np.ndarray:
    """Return the rows from start to stop of strips that are known by their numbers."""
    first = start // STRIP
    rows = [strip(number) for number in range(first, -(-stop // STRIP))]
    joined = rows[0] if len(rows) == 1 else np.concatenate(rows)
    return joined[start - first * STRIP : stop - first * STRIP]
