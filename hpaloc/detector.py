"""What detectors and stitchers do to images: hot pixels, saturation, and regions without data."""

from collections.abc import Mapping

import cv2
import numpy as np

# A pixel is hot if it exceeds all its neighbours by more than this percentile exceeds the median of the image, and the
# neighbours exceed their own surroundings by less than this share of its height: the image of a point is wider than a
# pixel, and even at 0.32 µm its neighbours get 4 %.
_BRIGHT_PERCENTILE = 99.8
_HALO = 0.03
# Hot pixels are rare. A larger share belongs to the image.
_MOST_HOT = 0.003
# Of unrelated pixels, a third is brighter than both neighbours. If there are many such lines, the scanner made them.
_NEARLY_EVERYWHERE, _MOST_LINES, _LINE_STRIDE = 0.9, 0.01, 8
# Where a detector cuts off what is brighter, a level has so many times the pixels of the one below, and so many more.
_PILE_UP, _BY_CHANCE = 2.0, 50
# No level depends on fewer pixels than this share.
_LEAST_SHARE = 0.001
# µm; what a microscope shows so bright is rarely so wide.
_PLATEAU_UM = 1.5
# A region without data fills at least this share of the field. In at least one colour, less than this share of the
# pixels along its rim have the region's level; a dark background fades into that level.
_LEAST_REGION, _FADES = 0.005, 0.1
# A smaller part with data would be a few cells on a black background.
_LEAST_DATA = 0.2
# The square of its edge over the area of the part with data: 16 of a square, about 110 of nine cells on black.
_RAGGED = 40
_STRIDE = 4


def repair_hot_pixels(image: np.ndarray) -> np.ndarray:
    """Replace isolated bright pixels, which no optics could have made, by the median of their neighbours.

    image: (H, W) uint8 or uint16
    Returns an image of the same shape and type; the same one if it has no hot pixel.
    """
    around = np.ones((3, 3), np.uint8)
    around[1, 1] = 0
    highest = cv2.dilate(image, around, borderType=cv2.BORDER_REFLECT_101)
    middle, bright = np.percentile(image[::_STRIDE, ::_STRIDE], (50, _BRIGHT_PERCENTILE))
    above = cv2.subtract(image, highest)
    rows, columns = np.nonzero(above > max(bright - middle, 1))
    if not 0 < rows.size <= _MOST_HOT * image.size:
        return image
    padded = np.pad(image, 2, mode="reflect")
    patches = np.stack([padded[rows + y, columns + x] for y in range(5) for x in range(5)], axis=1).astype(np.float32)
    distance = np.maximum(*np.abs(np.mgrid[-2:3, -2:3])).ravel()
    # Medians: another hot pixel may be near.
    near, far = (np.median(patches[:, distance == ring], axis=1) for ring in (1, 2))
    hot = near - far < _HALO * (image[rows, columns] - near)
    if not hot.any():
        return image
    repaired = image.copy()
    repaired[rows[hot], columns[hot]] = near[hot].astype(image.dtype)
    return repaired


def repair_lines(image: np.ndarray) -> np.ndarray:
    """Replace rows and columns of a detector that are brighter, or darker, than both neighbours nearly everywhere.

    image: (H, W) uint8 or uint16
    Returns an image of the same shape and type; the same one if it has no such line.
    """
    repaired = image
    # A part of each line is enough.
    for axis, sample in enumerate((image[:, ::_LINE_STRIDE], image[::_LINE_STRIDE])):
        sample = np.moveaxis(np.ascontiguousarray(sample), axis, 0)
        before, line, after = sample[:-2], sample[1:-1], sample[2:]
        brighter, darker = line > np.maximum(before, after), line < np.minimum(before, after)
        apart = np.maximum(*(np.count_nonzero(where, axis=1) for where in (brighter, darker)))
        found = np.flatnonzero(apart > _NEARLY_EVERYWHERE * sample.shape[1]) + 1
        if len(found) > _MOST_LINES * len(sample):
            continue
        for at in found:
            repaired = image.copy() if repaired is image else repaired
            whole = np.moveaxis(repaired, axis, 0)
            whole[at] = ((whole[at - 1].astype(np.uint32) + whole[at + 1] + 1) // 2).astype(image.dtype)
    return repaired


def _brightest(image: np.ndarray) -> tuple[int, bool]:
    """Return the highest level that a thousandth of the pixels reach, and whether pixels pile up there."""
    sample = image[::_STRIDE]
    counts = np.bincount(sample.ravel())
    levels = np.flatnonzero(counts)
    counts = counts[levels]
    above = np.append(counts[::-1].cumsum()[::-1], 0)
    top = int(np.flatnonzero(above[:-1] >= _LEAST_SHARE * sample.size)[-1])
    below = _PILE_UP * counts[top - 1] + _BY_CHANCE
    return int(levels[top]), bool(top > 0 and counts[top] > max(below, above[top + 1], _LEAST_SHARE * sample.size))


def find_full_scale(image: np.ndarray, bits: int | None = None) -> int:
    """Find the level at which the detector of an image saturates.

    That is where pixels pile up; else 255 for 8-bit images; else the largest level of the file's ``bits``, or without
    them of 8, 12 or 16 bits, whichever are the first to hold all but a thousandth of the pixels.

    image: (H, W) or, of some of its pixels, (n,) uint8 or uint16
    bits: the significant bits that the file gives
    """
    level, piled_up = _brightest(image)
    if piled_up:
        return level
    if image.dtype == np.uint8:
        return 255
    # A file whose light needs more bits than it says is wrong about them.
    depths = (8, 12, 16) if bits is None else (bits, 8, 12, 16)
    return next(2**depth - 1 for depth in depths if level < 2**depth or depth == 16)


def find_plateaus(image: np.ndarray, full_scale: int, pixel_size: float) -> np.ndarray | None:
    """Find where an image is saturated over more than 1.5 µm in every direction, as in debris.

    image: (H, W) uint8 or uint16
    full_scale: the level at which its detector saturates
    pixel_size: µm
    Returns (H, W) bool, or None without such a region.
    """
    saturated = (image >= full_scale).view(np.uint8)
    side = max(3, round(_PLATEAU_UM / pixel_size))
    if cv2.countNonZero(saturated) < side**2:
        return None
    wide = cv2.morphologyEx(saturated, cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    if not wide.any():
        return None
    # Corners, which the opening removed.
    with_rim = cv2.dilate(wide, np.ones((side, side), np.uint8))
    return np.asarray(cv2.bitwise_and(with_rim, saturated) > 0)


def find_empty(images: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Find where a field has no data: regions of one level in every colour, as around a mosaic or a rotated image.

    A dark background that fades into the same level is not one, nor are gaps between cut-out cells. The region includes
    its rim of 3 px, which a stitcher may have blurred.

    images: {colour: (H, W) uint8 or uint16}
    Returns (H, W) bool, or None without such a region.
    """
    small = [image[::_STRIDE, ::_STRIDE] for image in images.values()]
    around = np.ones((3, 3), np.uint8)
    flat = np.all([cv2.erode(image, around) == cv2.dilate(image, around) for image in small], axis=0)
    flat &= cv2.erode(flat.astype(np.uint8), around) > 0
    if np.count_nonzero(flat) < _LEAST_REGION * flat.size / 2:
        return None
    levels, counts = np.unique(np.stack([image[flat] for image in small], axis=1), axis=0, return_counts=True)
    constant = levels[counts.argmax()]
    empty = np.all([image == level for image, level in zip(images.values(), constant, strict=True)], axis=0)
    empty = cv2.morphologyEx(empty.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    if np.count_nonzero(empty) < _LEAST_REGION * empty.size:
        return None
    with_rim = cv2.dilate(empty, np.ones((7, 7), np.uint8))
    rim = with_rim != empty
    data = np.count_nonzero(empty == 0)
    if not rim.any() or data < _LEAST_DATA * empty.size:
        return None
    fades = [np.mean(image[rim] == level) for image, level in zip(images.values(), constant, strict=True)]
    edge = np.count_nonzero(rim) / 3
    if min(fades) > _FADES or edge**2 > _RAGGED * data:
        return None
    return np.asarray(with_rim > 0)


def fill_empty(images: Mapping[str, np.ndarray], empty: np.ndarray) -> dict[str, np.ndarray]:
    """Fill the regions of a field without data with the dark level of each colour, the 2nd percentile elsewhere.

    images: {colour: (H, W) uint8 or uint16}
    empty: (H, W) bool, where there is no data
    Returns images of the same shapes and types.
    """
    filled = {}
    for colour, image in images.items():
        filled[colour] = image.copy()
        filled[colour][empty] = round(np.percentile(image[~empty][::_STRIDE], 2))
    return filled
