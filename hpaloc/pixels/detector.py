"""What detectors and stitchers do to images: hot pixels, saturation, and regions without data."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from hpaloc.pixels.strips import Image, derived, spans, thinned

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
# Around such a region, a stitcher may have blurred 3 px. A rim so many times brighter than the data next to it is
# blurred with a bright level.
_RIM, _BLURRED = np.ones((7, 7), np.uint8), 1.5
# A smaller part with data would be a few cells on a black background.
_LEAST_DATA = 0.2
# The square of its edge over the area of the part with data: 16 of a square, about 110 of nine cells on black.
_RAGGED = 40
_STRIDE = 4


def repair_hot_pixels(image: Image) -> Image:
    """Replace isolated bright pixels, which no optics could have made, by the median of their neighbours.

    image: (H, W) uint8 or uint16
    Returns an image of the same shape and type; the same one if it has no hot pixel.
    """
    height, width = image.shape
    middle, bright = np.percentile(thinned(image, _STRIDE), (50, _BRIGHT_PERCENTILE))
    candidates = 0
    found = []
    for start, stop in spans(height):
        # The margin is that of the patches; at the edge of the image it is reflected.
        top, bottom = max(0, start - 2), min(height, stop + 2)
        window = image[top:bottom]
        # Cut to a whole number, as differences are: to compare with a fraction, all pixels are converted.
        rows, columns = _spikes(window, start - top, stop - top, int(max(bright - middle, 1)))
        candidates += rows.size
        if candidates > _MOST_HOT * height * width:
            return image
        if rows.size:
            hot, levels = _hot(window, rows, columns)
            found.append((rows[hot] + top, columns[hot], levels))
    if not any(rows.size for rows, _, _ in found):
        return image
    rows, columns, levels = (np.concatenate(parts) for parts in zip(*found, strict=True))

    def read(start: int, stop: int) -> np.ndarray:
        repaired = image[start:stop].copy()
        here = slice(*np.searchsorted(rows, (start, stop)))
        repaired[rows[here] - start, columns[here]] = levels[here]
        return repaired

    return derived(image, read)


def _spikes(window: np.ndarray, start: int, stop: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the pixels, in rows start to stop, that exceed all their neighbours by so much."""
    around = np.ones((3, 3), np.uint8)
    around[1, 1] = 0
    highest = cv2.dilate(window, around, borderType=cv2.BORDER_REFLECT_101)[start:stop]
    above = cv2.subtract(window[start:stop], highest) > least
    # NumPy looks through a line faster than through an image.
    rows, columns = np.unravel_index(np.flatnonzero(above), above.shape)
    return rows + start, columns


def _hot(window: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which of some pixels are hot, (n,) bool, and the levels that replace these."""
    padded = np.pad(window, 2, mode="reflect")
    patches = np.stack([padded[rows + y, columns + x] for y in range(5) for x in range(5)], axis=1).astype(np.float32)
    distance = np.maximum(*np.abs(np.mgrid[-2:3, -2:3])).ravel()
    # Medians: another hot pixel may be near.
    near, far = (np.median(patches[:, distance == ring], axis=1) for ring in (1, 2))
    hot = near - far < _HALO * (window[rows, columns] - near)
    return hot, near[hot].astype(window.dtype)


def repair_lines(image: Image) -> Image:
    """Replace rows and columns of a detector that are brighter, or darker, than both neighbours nearly everywhere.

    image: (H, W) uint8 or uint16
    Returns an image of the same shape and type; the same one if it has no such line.
    """
    rows, columns = _lines(image)
    if not rows.size and not columns.size:
        return image
    replaced: dict[int, np.ndarray] = {}
    for at in rows.tolist():
        before = replaced[at - 1] if at - 1 in replaced else image[at - 1 : at][0]
        replaced[at] = _between(before, image[at + 1 : at + 2][0])

    def read(start: int, stop: int) -> np.ndarray:
        repaired = image[start:stop].copy()
        for at, line in replaced.items():
            if start <= at < stop:
                repaired[at - start] = line
        for at in columns:
            repaired[:, at] = _between(repaired[:, at - 1], repaired[:, at + 1])
        return repaired

    return derived(image, read)


def _lines(image: Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the rows and of the columns that differ from both neighbours nearly everywhere."""
    height, width = image.shape
    of_rows = []
    of_columns = np.zeros((2, max(0, width - 2)), np.int64)
    for start, stop in spans(height):
        # A part of each line is enough.
        of_rows.append(_apart(image[max(0, start - 1) : stop + 1][:, ::_LINE_STRIDE]))
        of_columns += _apart(image[start:stop][::_LINE_STRIDE].T)
    found = []
    for counts, sampled in ((np.concatenate(of_rows, axis=1), width), (of_columns, height)):
        most = counts.max(axis=0)
        lines = np.flatnonzero(most > _NEARLY_EVERYWHERE * -(-sampled // _LINE_STRIDE)) + 1
        found.append(lines if len(lines) <= _MOST_LINES * (len(most) + 2) else lines[:0])
    return found[0], found[1]


def _apart(lines: np.ndarray) -> np.ndarray:
    """Count the pixels of all but the first and last of lines (n, m) that are above, and below, both neighbours."""
    lines = np.ascontiguousarray(lines)
    before, line, after = lines[:-2], lines[1:-1], lines[2:]
    brighter, darker = line > np.maximum(before, after), line < np.minimum(before, after)
    return np.stack([np.count_nonzero(where, axis=1) for where in (brighter, darker)])


def _between(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return ((before.astype(np.uint32) + after + 1) // 2).astype(before.dtype)


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


def find_empty(images: Mapping[str, Image]) -> np.ndarray | None:
    """Find where a field has no data: regions of one level in every colour, as around a mosaic or a rotated image.

    A dark background that fades into the same level is not one, nor are gaps between cut-out cells. The region includes
    its rim of 3 px, which a stitcher may have blurred.

    images: {colour: (H, W) uint8 or uint16}
    Returns (H, W) bool, or None without such a region.
    """
    small = [thinned(image, _STRIDE) for image in images.values()]
    around = np.ones((3, 3), np.uint8)
    flat = np.all([cv2.erode(image, around) == cv2.dilate(image, around) for image in small], axis=0)
    flat &= cv2.erode(flat.astype(np.uint8), around) > 0
    if np.count_nonzero(flat) < _LEAST_REGION * flat.size / 2:
        return None
    constant = dict(zip(images, _most_frequent([image[flat] for image in small]), strict=True))
    empty = _opened(images, constant)
    if np.count_nonzero(empty) < _LEAST_REGION * empty.size:
        return None
    with_rim = np.empty_like(empty)
    in_rim, of_level = 0, dict.fromkeys(images, 0)
    for start, stop in spans(len(empty)):
        top = max(0, start - 3)
        wider = cv2.dilate(empty[top : stop + 3].view(np.uint8), _RIM)
        with_rim[start:stop] = wider[start - top : stop - top] > 0
        rim = with_rim[start:stop] != empty[start:stop]
        in_rim += np.count_nonzero(rim)
        for colour, image in images.items():
            of_level[colour] += np.count_nonzero(image[start:stop][rim] == constant[colour])
    with_data = empty.size - np.count_nonzero(empty)
    if not in_rim or with_data < _LEAST_DATA * empty.size:
        return None
    if min(of_level.values()) / in_rim > _FADES or (in_rim / 3) ** 2 > _RAGGED * with_data:
        return None
    return with_rim


def without_rim(images: Mapping[str, Image], empty: np.ndarray) -> np.ndarray:
    """Return the regions without data without their rim, so that cells reach to where the data end.

    A rim that is blurred with a bright level would look like cells, and stays a part of its region; one that is blurred
    with a dark level does no harm.

    images: {colour: (H, W) uint8 or uint16}
    empty: (H, W) bool, as ``find_empty`` returns it
    Returns (H, W) bool.
    """
    dark = {
        colour: np.percentile(thinned(image, _STRIDE)[~empty[::_STRIDE, ::_STRIDE]], 2)
        for colour, image in images.items()
    }
    bare = np.empty_like(empty)
    n_rim = n_beside = 0
    light = {colour: np.zeros(2) for colour in images}
    for start, stop in spans(len(empty)):
        top = max(0, start - 3)
        own = empty[start:stop]
        narrow, wide = (
            change(empty[top : stop + 3].view(np.uint8), _RIM)[start - top : stop - top] > 0
            for change in (cv2.erode, cv2.dilate)
        )
        bare[start:stop] = narrow
        rim, beside = own & ~narrow, wide & ~own
        n_rim, n_beside = n_rim + np.count_nonzero(rim), n_beside + np.count_nonzero(beside)
        if rim.any() or beside.any():
            for colour, image in images.items():
                rows = image[start:stop]
                light[colour] += [rows[where].sum(dtype=np.int64) for where in (rim, beside)]
    for colour, (of_rim, of_data) in light.items():
        # Means above the dark level of the field.
        if of_rim / max(1, n_rim) - dark[colour] > _BLURRED * (of_data / max(1, n_beside) - dark[colour]) + 1:
            return empty
    return bare


def _most_frequent(colours: Sequence[np.ndarray]) -> list[int]:
    """Return the levels that most pixels share in up to four colours, each (n,) uint8 or uint16."""
    # As one number each, pixels sort many times faster than as rows of an array.
    pixels = np.zeros(len(colours[0]), np.uint64)
    for levels in colours:
        pixels = pixels << np.uint64(16) | levels
    values, counts = np.unique(pixels, return_counts=True)
    most = int(values[counts.argmax()])
    return [most >> 16 * place & 0xFFFF for place in reversed(range(len(colours)))]


def _opened(images: Mapping[str, Image], constant: Mapping[str, int]) -> np.ndarray:
    """Return where every colour has its constant level over 5 px in each direction, (H, W) bool."""
    empty = np.empty(next(iter(images.values())).shape, bool)
    for start, stop in spans(len(empty)):
        top = max(0, start - 4)
        same = np.all([image[top : stop + 4] == constant[colour] for colour, image in images.items()], axis=0)
        opened = cv2.morphologyEx(same.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
        empty[start:stop] = opened[start - top : stop - top] > 0
    return empty


def fill_empty(images: Mapping[str, Image], empty: np.ndarray) -> dict[str, Image]:
    """Fill the regions of a field without data with the dark level of each colour, the 2nd percentile elsewhere.

    images: {colour: (H, W) uint8 or uint16}
    empty: (H, W) bool, where there is no data
    Returns images of the same shapes and types.
    """
    return {colour: _filled(image, empty) for colour, image in images.items()}


def _filled(image: Image, empty: np.ndarray) -> Image:
    samples, skipped = [], 0
    for start, stop in spans(len(empty)):
        data = image[start:stop][~empty[start:stop]]
        samples.append(data[-skipped % _STRIDE :: _STRIDE])
        skipped += data.size
    level = round(np.percentile(np.concatenate(samples), 2))

    def read(start: int, stop: int) -> np.ndarray:
        filled = image[start:stop].copy()
        filled[empty[start:stop]] = level
        return filled

    return derived(image, read)
