"""What a detector does to an image: hot pixels, a ceiling of its levels, and regions without data."""

from collections.abc import Mapping

import cv2
import numpy as np

# A pixel is hot if it is brighter than its neighbours by more than nearly all light of the image, while the neighbours
# are not brighter than their own surroundings, by this share of its height: the image of a point is wider than a pixel,
# and even at 0.32 µm its neighbours get 4 %.
_BRIGHT_PERCENTILE = 99.8
_HALO = 0.03
# Hot pixels are rare: a larger share is how the image is.
_MOST_HOT = 0.003
# A level has so many times the pixels of the one below where a detector cuts off what is brighter.
_PILE_UP = 2.0
# No level depends on fewer pixels than this share.
LEAST_SHARE = 0.001
# A region without data fills at least this share of the field; along its rim, a colour falls to the region's level in
# less than this share of the pixels, while a dark background fades into the dark.
_LEAST_REGION, _FADES = 0.005, 0.1
_STRIDE = 4


def repair_hot_pixels(image: np.ndarray) -> np.ndarray:
    """Replace isolated bright pixels, which no optics could have made, by the median of their neighbours.

    image: (H, W) uint8 or uint16
    Returns an image of the same shape and type; the same one if it has no hot pixel.
    """
    around = np.ones((3, 3), np.uint8)
    around[1, 1] = 0
    highest = cv2.dilate(image, around, borderType=cv2.BORDER_REPLICATE)
    middle, bright = np.percentile(image[::_STRIDE, ::_STRIDE], (50, _BRIGHT_PERCENTILE))
    above = cv2.subtract(image, highest)
    rows, columns = np.nonzero(above > max(bright - middle, 1))
    if not 0 < rows.size <= _MOST_HOT * image.size:
        return image
    padded = np.pad(image, 2, mode="reflect").astype(np.float32)
    patches = np.stack([padded[rows + y, columns + x] for y in range(5) for x in range(5)], axis=1)
    inner = np.zeros((5, 5), bool)
    inner[1:4, 1:4] = True
    inner[2, 2] = False
    outer = np.ones((5, 5), bool)
    outer[1:4, 1:4] = False
    near, far = patches[:, inner.ravel()], patches[:, outer.ravel()]
    # Medians: another hot pixel may be near.
    height = patches[:, 12] - np.median(near, axis=1)
    hot = np.median(near, axis=1) - np.median(far, axis=1) < _HALO * height
    if not hot.any():
        return image
    repaired = image.copy()
    repaired[rows[hot], columns[hot]] = np.median(near[hot], axis=1).astype(image.dtype)
    return repaired


def ceiling(image: np.ndarray, bits: int | None = None) -> tuple[int, bool]:
    """Return the level at which the detector of an image saturates, and whether pixels pile up there.

    Without the file's ``bits``, it is 255 of 8-bit images, else the level where pixels pile up, else the largest of the
    fewest bits (8, 10, 12, 14, 16) that hold all but a thousandth of the pixels.

    image: (H, W) uint8 or uint16
    bits: the file's significant bits
    """
    sample = image[::_STRIDE]
    counts = np.bincount(sample.ravel())
    levels = np.flatnonzero(counts)
    counts = counts[levels]
    above = np.append(counts[::-1].cumsum()[::-1], 0)
    top = int(np.flatnonzero(above[:-1] >= LEAST_SHARE * sample.size)[-1])
    below = _PILE_UP * counts[top - 1] if top else 0
    piled_up = bool(counts[top] > max(below, above[top + 1], LEAST_SHARE * sample.size))
    if bits is not None or image.dtype == np.uint8:
        return 2 ** (bits or 8) - 1, piled_up
    return int(levels[top]) if piled_up else fewest_bits(float(levels[top])), piled_up


def fewest_bits(level: float) -> int:
    """Return the largest level of the fewest bits, 8, 10, 12, 14 or 16, that hold a level."""
    return next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if level < 2**bits or bits == 16)


def find_empty(images: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Find where a field has no data: regions of one level in every colour, as around a mosaic or a rotated image.

    A dark background that fades into the same level is not one, nor are gaps between cut-out cells.

    images: {colour: (H, W) uint8 or uint16}
    Returns (H, W) bool, or None without such a region.
    """
    small = [image[::_STRIDE, ::_STRIDE] for image in images.values()]
    flat = np.all([cv2.erode(image, np.ones((3, 3))) == cv2.dilate(image, np.ones((3, 3))) for image in small], axis=0)
    flat &= cv2.erode(flat.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if np.count_nonzero(flat) < _LEAST_REGION * flat.size / 2:
        return None
    levels, counts = np.unique(np.stack([image[flat] for image in small], axis=1), axis=0, return_counts=True)
    constant = levels[counts.argmax()]
    empty = np.all([image == level for image, level in zip(images.values(), constant, strict=True)], axis=0)
    empty = cv2.morphologyEx(empty.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    if np.count_nonzero(empty) < _LEAST_REGION * empty.size:
        return None
    rim = cv2.dilate(empty, np.ones((7, 7), np.uint8)) != empty
    if not rim.any():
        return None
    fades = [np.mean(image[rim] == level) for image, level in zip(images.values(), constant, strict=True)]
    _, _, parts, _ = cv2.connectedComponentsWithStats(1 - empty)
    areas = parts[1:, cv2.CC_STAT_AREA]
    if min(fades) > _FADES or areas.max(initial=0) < areas.sum() / 2:
        return None
    return np.asarray(empty > 0)


def fill_empty(images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fill the regions of a field without data with the darkest level of each colour elsewhere, for segmentation."""
    empty = find_empty(images)
    if empty is None:
        return dict(images)
    filled = {}
    for colour, image in images.items():
        filled[colour] = image.copy()
        filled[colour][empty] = round(np.percentile(image[~empty][::_STRIDE], 2))
    return filled
