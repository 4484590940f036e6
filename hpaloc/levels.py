"""The levels of a field's colours: background, noise, the white level of tiles, and the threshold of green."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# A change of how levels are measured needs another LEVELS_EDITION (network/options.py).
# Bright is the level that 1 % of a cell's pixels exceed in the mean over cells, in which no cell counts for more than
# 4 %: neither a speck nor debris on one cell of five or more moves it much.
BRIGHT_SHARE, MOST_OF_A_CELL = 0.01, 0.04
WHITE_FACTOR = 1.5
# Tiles keep what is brighter than white, up to so many times as far above the background: spindles, centrosomes.
HEADROOM = 3.0
WHITE_NOISE = 24.0
WHITE_FLOOR = 1 / 16
GREEN_NOISE = 12.0
GREEN_SPREAD = 5.0
GREEN_FLOOR = 5 / 255

# Every fourth row is measured: the noise needs neighbours, which along a row are kept.
_ROW_STEP = 4
_ENOUGH_BACKGROUND = 0.005
# The background of so many parts of a field, in rows and in columns, is compared by this percentile. Light that leaks
# from cells does not reach the darkest pixels of a part; uneven illumination does.
_PARTS, _DARK_PERCENTILE = 3, 5


@dataclass(frozen=True)
class ColourLevels:
    """Intensities of one colour of one field, in its own grey levels.

    background: the median outside the cells
    spread: half of the distance from there to the 97.7th percentile outside (one standard deviation if Gaussian)
    noise: the standard deviation from pixel to pixel
    white: the level that pictures show as 1.0; tiles reach ``HEADROOM`` times as far above the background
    full_scale: the level at which the detector saturates
    threshold: the level from which a cell shows a stain
    unevenness: by how much the background differs between parts of the field
    """

    background: float
    spread: float
    noise: float
    white: float
    full_scale: int
    threshold: float
    unevenness: float


class CellLight:
    """The grey levels of one colour in the cells of a field, summed cell by cell.

    counts: (n_levels,) int64, the pixels of each level in all cells
    exceeded: (n_levels,) float64, the share of a cell's pixels above each level, at most ``MOST_OF_A_CELL``, summed
    cells: their number
    """

    def __init__(self, n_levels: int) -> None:
        self.counts = np.zeros(n_levels, np.int64)
        self.exceeded = np.zeros(n_levels)
        self.cells = 0

    def add(self, counts: np.ndarray) -> None:
        """Add a cell.

        counts: (n_levels,) int64, its pixels of each grey level; a cell without any does not count
        """
        total = counts.sum()
        if total:
            self.counts += counts
            self.exceeded += np.minimum(1 - np.cumsum(counts) / total, MOST_OF_A_CELL)
            self.cells += 1

    def bright(self) -> float:
        """Return the level that ``BRIGHT_SHARE`` of a cell's pixels exceed in the mean over one or more cells."""
        share = self.exceeded / self.cells
        first = int(np.argmax(share <= BRIGHT_SHARE))
        if first == 0:
            return 0.0
        # Interpolated: a dim image has few levels.
        return float(first - (BRIGHT_SHARE - share[first]) / (share[first - 1] - share[first]))

    def middle(self) -> float:
        """Return the median level."""
        return float(np.searchsorted(np.cumsum(self.counts), self.counts.sum() / 2))


def _percentiles(levels: np.ndarray, percent: Sequence[float]) -> np.ndarray:
    """Return what ``np.percentile`` does, from the number of pixels of each grey level, in a tenth of the time.

    levels: (n,) uint8 or uint16, n > 0
    percent: (k,) 0 to 100
    Returns (k,) float64.
    """
    ranks = np.asarray(percent) / 100 * (levels.size - 1)
    below = np.floor(ranks)
    ends = np.cumsum(np.bincount(levels))
    low, high = (np.searchsorted(ends, at, side="right") for at in (below, np.ceil(ranks)))
    # From the nearer of the two levels, as numpy does, to the last bit.
    share = ranks - below
    return np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1 - share))


def _noise(image: np.ndarray, where: np.ndarray, at_most: float) -> float:
    """Return the standard deviation of the pixel noise, from the mean absolute difference of neighbours in a row.

    For Gaussian noise E|a - b| = 2 sigma / sqrt(pi). Only pairs of dark pixels count: differences between bright ones
    are structure.
    """
    dark = where & (image <= at_most)
    pairs = dark[:, 1:] & dark[:, :-1]
    if not pairs.any():
        return 0.0
    difference = cv2.absdiff(image[:, 1:], image[:, :-1])
    return float(difference[pairs].mean(dtype=np.float64) * math.sqrt(math.pi) / 2)


def _unevenness(image: np.ndarray, outside: np.ndarray) -> float:
    """Return by how much the background differs between parts of a field; arguments as in ``_colour_levels``."""
    found = []
    for strip, where in zip(np.array_split(image, _PARTS), np.array_split(outside, _PARTS), strict=True):
        for part, own in zip(np.array_split(strip, _PARTS, 1), np.array_split(where, _PARTS, 1), strict=True):
            if np.count_nonzero(own) > _ENOUGH_BACKGROUND * own.size:
                found.append(_percentiles(part[own], [_DARK_PERCENTILE])[0])
    return float(np.ptp(found)) if found else 0.0


def _colour_levels(
    image: np.ndarray, outside: np.ndarray, inside: np.ndarray, data: np.ndarray, light: CellLight, full_scale: int
) -> ColourLevels:
    """Measure one colour on some rows of a field.

    image: (h, W) uint8 or uint16
    outside, inside, data: (h, W) bool, far from cells, in cells, with data
    """
    unevenness = _unevenness(image, outside)
    if np.count_nonzero(outside) < _ENOUGH_BACKGROUND * outside.size:
        # In a field without gaps between its cells, the darkest pixels represent the background.
        outside = data & (image <= _percentiles(image[data], [2])[0])
    background, upper = (float(level) for level in _percentiles(image[outside], (50, 97.7)))
    noise = _noise(image, outside, upper)
    if light.cells:
        noise = max(noise, _noise(image, inside, light.middle()))
    bright = (light.bright() if light.cells else upper) - background
    # Of a detector of unknown range, the light says how much of it is used. A file often says 16 bits of 12-bit data.
    span = 255 if image.dtype == np.uint8 else 2 ** max(8, math.ceil(math.log2(max(bright, 0) + 1))) - 1
    white = max(WHITE_FACTOR * bright, min(WHITE_NOISE * noise, full_scale - background), WHITE_FLOOR * span)
    spread = (upper - background) / 2
    threshold = max(GREEN_NOISE * noise, GREEN_SPREAD * spread, GREEN_FLOOR * span)
    return ColourLevels(background, spread, noise, background + white, full_scale, background + threshold, unevenness)


def field_levels(
    images: Mapping[str, np.ndarray],
    cells: np.ndarray,
    light: Mapping[str, CellLight],
    reach: int,
    full_scale: Mapping[str, int],
    hidden: Mapping[str, np.ndarray | None],
) -> dict[str, ColourLevels]:
    """Measure background, noise and white level of every colour of a field, each from this colour alone.

    White is 1.5 times as far above the background as the level that 1 % of a cell's pixels exceed in the mean over
    cells, which follows exposure, gain and bit depth. But it is never less than 24 times the noise (at most the
    detector's range) or 1/16 of the range that the light needs above the background: a dim field with clean signal is
    stretched to full range, and one with nothing but noise stays dark.

    A cell whose brightest spot, smoothed over 3 x 3 px, is below the threshold shows only background, noise and
    autofluorescence. docs/data.md has the results in the demo.

    images: {colour: (H, W) uint8 or uint16}
    cells: (H, W) label image
    light: {colour: the levels inside the cells}
    reach: px, the distance from a cell within which a pixel is not background
    full_scale: {colour: the level at which its detector saturates}
    hidden: {colour: (H, W) bool, where there is no data or debris; None if there is neither}
    Returns {colour: ColourLevels}.
    """
    square = np.ones((3, 3), np.uint8)
    near = cv2.dilate((cells != 0).astype(np.uint8), square, iterations=reach)
    outside, inside = near[::_ROW_STEP] == 0, cells[::_ROW_STEP] != 0
    levels = {}
    for colour, image in images.items():
        data = np.ones(outside.shape, bool)
        if (without := hidden[colour]) is not None:
            # Debris has a halo, and a stitcher may blur the rim of what has no data.
            data = cv2.dilate(without.astype(np.uint8), square, iterations=reach)[::_ROW_STEP] == 0
            # An image of full scale everywhere has the levels of all its pixels.
            if not data.any():
                data[:] = True
        rows = np.ascontiguousarray(image[::_ROW_STEP])
        levels[colour] = _colour_levels(rows, outside & data, inside & data, data, light[colour], full_scale[colour])
    return levels


def scaled(image: np.ndarray, background: float, white: float, headroom: float = HEADROOM) -> np.ndarray:
    """Return an image as the network sees it: 0 at the background, 1 at ``headroom`` times white, clipped.

    image: (H, W) of any number type
    Returns (H, W) float32.
    """
    black = round(background)
    return np.clip((image.astype(np.float32) - black) / np.float32(max(headroom * (white - black), 1e-6)), 0, 1)
