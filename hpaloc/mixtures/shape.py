"""Cell and nucleus in the tile of a cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from scipy import ndimage

# Directions in which the outlines of cell and nucleus are known.
DIRECTIONS = np.linspace(-np.pi, np.pi, 128, endpoint=False)
# Lengths are for a tile of 128 px, and scale with the tile.
SIDE = 128
# Pixels up to this level, of 255, are outside the cell: JPEG leaves some light there.
_DARK = 3


@dataclass(frozen=True)
class CellShape:
    """Cell and nucleus, (S, S) bool each, and the middle of the nucleus (y, x), px."""

    cell: np.ndarray
    nucleus: np.ndarray
    middle: tuple[float, float]

    @cached_property
    def radii(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances from the middle to the outlines of nucleus and cell in 128 directions, (128,) float64 each, px."""
        side = self.cell.shape[0]
        scale = side / SIDE
        steps = np.arange(0, 1.5 * side, 0.5)
        rows = np.rint(self.middle[0] + np.outer(np.sin(DIRECTIONS), steps)).astype(int)
        columns = np.rint(self.middle[1] + np.outer(np.cos(DIRECTIONS), steps)).astype(int)
        within = (rows >= 0) & (columns >= 0) & (rows < side) & (columns < side)

        def radius(mask: np.ndarray) -> np.ndarray:
            hit = np.zeros(rows.shape, bool)
            hit[within] = mask[rows[within], columns[within]]
            outermost = np.where(hit.any(axis=1), hit.shape[1] - 1 - hit[:, ::-1].argmax(axis=1), 0)
            return np.asarray(ndimage.gaussian_filter1d(0.5 * outermost, 1.5, mode="wrap"))

        nucleus = np.maximum(radius(self.nucleus), 2.0 * scale)
        return nucleus, np.maximum(radius(self.cell), nucleus + scale)


def _largest(mask: np.ndarray) -> np.ndarray:
    parts, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    if parts < 2:
        return mask
    return np.asarray(labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))


def cell_shape(tile: np.ndarray, channels: Sequence[str]) -> CellShape | None:
    """Find cell and nucleus in a tile: the largest piece that is not dark, and the largest bright one in its blue.

    The threshold in blue is Otsu's. Returns None if cell or nucleus is missing.

    tile: (S, S, len(channels)) uint8, of one cell
    channels: its colours, with blue
    """
    scale = tile.shape[0] / SIDE
    cell = np.asarray(ndimage.binary_fill_holes(_largest(tile.max(axis=2) > _DARK)))
    blue = cv2.GaussianBlur(tile[..., channels.index("blue")], (0, 0), 1.5 * scale)
    if not cell.any() or blue[cell].min() == blue[cell].max():
        return None
    threshold, _ = cv2.threshold(blue[cell].reshape(-1, 1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    nucleus = _largest((blue > threshold) & cell)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(2 * scale) + 1,) * 2)
    closed = cv2.morphologyEx(nucleus.astype(np.uint8), cv2.MORPH_CLOSE, disk) > 0
    nucleus = np.asarray(ndimage.binary_fill_holes(closed & cell))
    y, x = ndimage.center_of_mass(nucleus)
    return CellShape(cell, nucleus, (float(y), float(x)))
