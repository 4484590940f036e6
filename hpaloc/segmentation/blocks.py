"""Large fields in overlapping blocks: segmented one by one, and their labels joined again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import fastremap
import numpy as np
from scipy import ndimage

# How far a window extends beyond its core: two radii of the widest cells (grid.background), so that a cell that reaches
# into the core is seen as a whole, with its neighbours.
MARGIN_UM = 60.0


@dataclass(frozen=True)
class Block:
    """A part of a field: its own ``core``, and the ``window`` around it that is segmented."""

    core: tuple[slice, slice]
    window: tuple[slice, slice]

    @property
    def core_in_window(self) -> tuple[slice, slice]:
        """The core in the coordinates of the window."""
        rows, columns = (
            slice(core.start - window.start, core.stop - window.start)
            for core, window in zip(self.core, self.window, strict=True)
        )
        return rows, columns


def cut(shape: tuple[int, ...], side: int, margin: int, multiple: int = 1) -> list[Block]:
    """Cut a field into blocks whose windows have sides of about ``side`` px, but cores at least as wide as the margin.

    shape: height and width in px
    side, margin: px
    multiple: px; cores and windows start at a multiple of this, so that blocks can be reduced by it
    Returns the blocks row by row; the cores cover the field once.
    """
    margin = -(-margin // multiple) * multiple
    core = max(side - 2 * margin, margin, multiple)
    edges = []
    for length in shape:
        n = -(-length // core)
        step = -(-length // (n * multiple)) * multiple
        edges.append([(start, min(start + step, length)) for start in range(0, length, step)])
    height, width = shape
    return [
        Block(
            (slice(top, bottom), slice(left, right)),
            (
                slice(max(0, top - margin), min(height, bottom + margin)),
                slice(max(0, left - margin), min(width, right + margin)),
            ),
        )
        for top, bottom in edges[0]
        for left, right in edges[1]
    ]


def joined(blocks: list[Block], find: Callable[[Block], np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Find the objects of a field block by block, and put each once and whole into one label image.

    An object found in several blocks is taken from the block whose core contains most of it. In the others more than
    half of its pixels are taken already, by which it is recognised.

    find: returns the objects of a block's window, (h, w) int, 1 … n
    shape: of the field in px
    Returns (H, W) int32, 1 … m in the order of first appearance.
    """
    seen = sorted(_objects(blocks, find), key=lambda one: one[0])
    result = np.zeros(shape, np.int32)
    for number, (_, place, pixels) in enumerate(seen, start=1):
        window = result[place]
        free = pixels & (window == 0)
        if 2 * np.count_nonzero(free) > np.count_nonzero(pixels):
            window[free] = number
    return fastremap.renumber(result, in_place=True)[0].astype(np.int32)


def _objects(
    blocks: list[Block], find: Callable[[Block], np.ndarray]
) -> Iterator[tuple[tuple[float, int, int], tuple[slice, slice], np.ndarray]]:
    """Yield rank (share outside the core, block, label), place in the field, and pixels of each object in a core."""
    for n, block in enumerate(blocks):
        labels = find(block)
        area = np.bincount(labels.ravel())
        inside = np.bincount(labels[block.core_in_window].ravel(), minlength=area.size)
        for label, box in enumerate(ndimage.find_objects(labels), start=1):
            if box is not None and inside[label]:
                rows, columns = (
                    slice(window.start + part.start, window.start + part.stop)
                    for window, part in zip(block.window, box, strict=True)
                )
                yield (1 - inside[label] / area[label], n, label), (rows, columns), labels[box] == label
