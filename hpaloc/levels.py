"""The levels of a field's colours: background, noise, the white level of tiles, and the threshold of green."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

WHITE_PERCENTILE = 99.98
WHITE_NOISE = 24.0
WHITE_FLOOR = 1 / 16
GREEN_NOISE = 12.0
GREEN_SPREAD = 5.0
GREEN_FLOOR = 5 / 255

# Every fourth row is measured: the noise needs neighbours, which along a row are kept.
_ROW_STEP = 4
_ENOUGH_BACKGROUND = 0.005


@dataclass(frozen=True)
class ColourLevels:
    """Intensities of one colour of one field, in its own grey levels.

    background: the median outside the cells
    spread: half of the distance from there to the 97.7th percentile outside (one standard deviation if Gaussian)
    noise: the standard deviation from pixel to pixel
    white: the level that readers of tiles show as 1.0
    """

    background: float
    spread: float
    noise: float
    white: float


def full_scale(images: Mapping[str, np.ndarray]) -> int:
    """Return the largest grey level of the field's detector.

    Cameras of 12 bits are often stored in 16: for 16-bit images it is the largest level of the fewest bits (8, 10, 12,
    14 or 16) that contain the brightest pixel of all colours, for 8-bit images 255.

    images: {colour: (H, W) uint8 or uint16}
    """
    first = next(iter(images.values()))
    if first.dtype == np.uint8:
        return 255
    brightest = max(int(image.max(initial=0)) for image in images.values())
    return next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if brightest < 2**bits)


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


def _colour_levels(
    image: np.ndarray, outside: np.ndarray, inside: np.ndarray, histogram: np.ndarray, scale: int
) -> ColourLevels:
    """Measure one colour on some rows of a field; outside, inside: bool, pixels far from cells and in cells."""
    if outside.mean() < _ENOUGH_BACKGROUND:
        # In a field without gaps between its cells, the darkest pixels represent the background.
        outside = image <= np.percentile(image, 2)
    background, upper = (float(level) for level in np.percentile(image[outside], (50, 97.7)))
    noise = _noise(image, outside, upper)
    bright = upper
    total = int(histogram.sum())
    if total:
        cumulative = np.cumsum(histogram)
        bright = float(np.searchsorted(cumulative, WHITE_PERCENTILE / 100 * total))
        middle = float(np.searchsorted(cumulative, total / 2))
        noise = max(noise, _noise(image, inside, middle))
    white = max(bright, background + WHITE_NOISE * noise, scale * WHITE_FLOOR)
    return ColourLevels(background, (upper - background) / 2, noise, white)


def field_levels(
    images: Mapping[str, np.ndarray], cells: np.ndarray, histograms: Mapping[str, np.ndarray], reach: int, scale: int
) -> dict[str, ColourLevels]:
    """Measure background, noise and white level of every colour of a field.

    White is the 99.98th percentile inside the field's cells, which follows exposure, gain and bit depth, but never
    lower than the background plus 24 times the noise, and never lower than 1/16 of the detector's range: a dim field
    with clean signal is stretched to full range, and one with nothing but noise stays dark.

    images: {colour: (H, W) uint8 or uint16}
    cells: (H, W) label image
    histograms: {colour: (n,) int64}, counts of the field's grey levels inside cells
    reach: px, the distance from a cell within which a pixel is not background
    scale: the detector's largest level
    Returns {colour: ColourLevels}.
    """
    near = cv2.dilate((cells != 0).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=reach)
    outside, inside = near[::_ROW_STEP] == 0, cells[::_ROW_STEP] != 0
    return {
        colour: _colour_levels(np.ascontiguousarray(image[::_ROW_STEP]), outside, inside, histograms[colour], scale)
        for colour, image in images.items()
    }


def green_threshold(green: ColourLevels, scale: int) -> float:
    """Return the grey level from which a cell shows a protein.

    A cell whose brightest spot, smoothed over 3 x 3 px, is below this shows only background, noise and
    autofluorescence. docs/data.md has the results in the demo.

    scale: the detector's largest level
    """
    return green.background + max(GREEN_NOISE * green.noise, GREEN_SPREAD * green.spread, GREEN_FLOOR * scale)
