"""The working grid: fields are reduced to one pixel size and segmented, and the outlines are drawn at full size."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import fill_voids
import numpy as np
from scipy import ndimage

from hpaloc.pixels.strips import STRIP, Image, LazyImage, packed, spans

# Scale 1 means this pixel size, that of the Human Protein Atlas (63x objective); 0.25 of it is 0.32 µm.
REFERENCE_PIXEL_SIZE = 0.08
# Fewer rows at a time would draw most labels twice.
_DRAWN_ROWS = 4096


@dataclass(frozen=True)
class Grid:
    """A field's own raster (``shape``, px) and the coarser one for segmentation (``factor`` of it, ``size`` µm/px)."""

    shape: tuple[int, int]
    factor: float
    size: float

    @property
    def coarse_shape(self) -> tuple[int, int]:
        """Height and width of the working grid in pixels."""
        height, width = (max(1, round(side * self.factor)) for side in self.shape)
        return height, width

    def reduce(self, image: np.ndarray) -> np.ndarray:
        """Average a channel onto the working grid.

        image: (H, W) of any number type
        Returns (h, w) float32.
        """
        image = np.ascontiguousarray(image, dtype=None if image.dtype in (np.uint8, np.uint16) else np.float32)
        if self.coarse_shape != self.shape:
            # In 32-bit floats: dim 8-bit channels would otherwise lose differences below one.
            image = cv2.resize(image.astype(np.float32), self.coarse_shape[::-1], interpolation=cv2.INTER_AREA)
        return image.astype(np.float32)

    def reduce_strips(self, image: Image) -> np.ndarray:
        """Average a channel onto the working grid strip by strip, with the result of ``reduce``.

        image: (H, W) of any number type
        Returns (h, w) float32.
        """
        height, width = self.coarse_shape
        scale = self.shape[0] / height
        reduced = np.empty((height, width), np.float32)
        for first, last in spans(height, max(1, int(STRIP / scale))):
            top, bottom = math.floor(first * scale), min(self.shape[0], math.ceil(last * scale))
            rows: np.ndarray = np.ascontiguousarray(image[top:bottom], dtype=np.float32)
            if scale == round(scale):
                reduced[first:last] = cv2.resize(rows, (width, last - first), interpolation=cv2.INTER_AREA)
                continue
            rows = cv2.resize(rows, (width, bottom - top), interpolation=cv2.INTER_AREA)
            for row in range(first, last):
                parts = [rows[n - top] * weight for n, weight in _weights(row, scale, self.shape[0])]
                # From the first to the last, as OpenCV adds them.
                reduced[row] = functools.reduce(np.add, parts)
        return reduced

    def enlarge(self, labels: np.ndarray, smoothing: float, side: int | None = None) -> Image:
        """Draw a label image of the working grid at full size with smooth outlines.

        Every pixel goes to the label (or the background) with most of its Gaussian surroundings, so that outlines are
        neither stairs nor frayed; each label keeps its largest connected part, its holes filled.

        labels: (h, w) int32, 1 … n
        smoothing: µm
        side: px; draw squares of this side one after the other, which takes less memory and gives the same result but
        for single pixels of outlines
        Returns (H, W) uint16, or uint32 above 65,535 labels; with ``side`` a LazyImage, compressed in memory.
        """
        most = int(labels.max(initial=0))
        dtype = np.dtype(np.uint16 if most <= np.iinfo(np.uint16).max else np.uint32)
        if side is None:
            drawn = np.zeros(self.shape, dtype)
            return whole(drawn, self._draw(drawn, 0, 0, labels, smoothing))
        ends = self._rows_of(labels, smoothing)

        def rows(start: int, stop: int) -> np.ndarray:
            # Of a label in these rows, all is drawn: only then its largest part and its holes are known.
            reach = ends[(ends[:, 0] < stop) & (ends[:, 1] > start)]
            top, bottom = int(reach[:, 0].min(initial=start)), int(reach[:, 1].max(initial=stop))
            drawn = np.zeros((bottom - top, self.shape[1]), dtype)
            for y, y_end in spans(bottom - top, side):
                for x, x_end in spans(self.shape[1], side):
                    self._draw(drawn[y:y_end, x:x_end], top + y, x, labels, smoothing)
            return whole(drawn)[start - top : stop - top]

        return packed(LazyImage(self.shape, dtype, rows), max(side, _DRAWN_ROWS))

    def _rows_of(self, labels: np.ndarray, smoothing: float) -> np.ndarray:
        """Return the first row, and the row after the last, that each label may have at full size, (n, 2) int."""
        reach = self._blur(smoothing)[1] + 1
        height, small = self.shape[0], labels.shape[0]
        ends = [
            (max(0, box[0].start - reach), min(small, box[0].stop + reach))
            for box in ndimage.find_objects(labels)
            if box is not None
        ]
        return np.round(np.array(ends, float).reshape(-1, 2) * height / small).astype(int)

    @property
    def _steps(self) -> tuple[float, float]:
        """Pixels of the working grid per pixel of the field, down and to the right."""
        (height, width), (small_height, small_width) = self.shape, self.coarse_shape
        return small_height / height, small_width / width

    def _enlarged(self, piece: np.ndarray, top: int, left: int, rows: slice, columns: slice) -> np.ndarray:
        """Return some rows and columns of the full-size raster from a piece of the working grid, interpolated.

        piece: (h, w) float32, whose first pixel is (top, left) of the working grid
        """
        step_y, step_x = self._steps
        if step_y == step_x and 1 / step_y in (1, 2, 4, 8):
            # The numbers of warpAffine, which rounds coordinates to 1/32, in a tenth of its time.
            times = round(1 / step_y)
            large = cv2.resize(piece, None, fx=times, fy=times, interpolation=cv2.INTER_LINEAR)
            above, before = times * top, times * left
            return large[rows.start - above : rows.stop - above, columns.start - before : columns.stop - before]
        # Pixel centres of the full-size raster in coordinates of the piece.
        back = np.array(
            [
                [step_x, 0, (columns.start + 0.5) * step_x - 0.5 - left],
                [0, step_y, (rows.start + 0.5) * step_y - 0.5 - top],
            ]
        )
        return cv2.warpAffine(
            piece,
            back,
            (columns.stop - columns.start, rows.stop - rows.start),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def _blur(self, smoothing: float) -> tuple[float, int]:
        """Return the width of a Gaussian, and how far it reaches, in pixels of the working grid."""
        sigma = max(smoothing / self.size, 0.5)
        return sigma, int(3 * sigma) + 2

    def _draw(
        self, square: np.ndarray, top: int, left: int, labels: np.ndarray, smoothing: float
    ) -> list[tuple[slice, slice] | None]:
        """Fill a square of the full-size raster whose first pixel is (top, left); return the window of each label."""
        step_y, step_x = self._steps
        bottom, right = top + square.shape[0], left + square.shape[1]
        sigma, reach = self._blur(smoothing)
        # Two sigma from its edge a label has 2 % of the surroundings, too little to win where fewer than forty labels
        # meet. One more pixel is for the interpolation.
        wins_within = math.ceil(2 * sigma) + 1
        # The part of the working grid that decides the square, plus one reach, since a blur is wrong at a cut edge.
        y, y_end = max(0, int(top * step_y) - 2 * reach), min(labels.shape[0], int(bottom * step_y) + 2 * reach + 1)
        x, x_end = max(0, int(left * step_x) - 2 * reach), min(labels.shape[1], int(right * step_x) + 2 * reach + 1)
        labels = labels[y:y_end, x:x_end]

        def share_of(belongs: np.ndarray, y0: int, x0: int, rows: slice, columns: slice) -> np.ndarray:
            return self._enlarged(cv2.GaussianBlur(belongs.astype(np.float32), (0, 0), sigma), y0, x0, rows, columns)

        most = share_of(labels == 0, y, x, slice(top, bottom), slice(left, right))
        windows: list[tuple[slice, slice] | None] = []
        for label, box in enumerate(ndimage.find_objects(labels), start=1):
            windows.append(None)
            if box is None:
                continue
            y0, y1 = max(0, box[0].start - reach), min(labels.shape[0], box[0].stop + reach)
            x0, x1 = max(0, box[1].start - reach), min(labels.shape[1], box[1].stop + reach)
            rows, columns = (
                slice(max(first, round((start - wins_within) / step)), min(last, round((stop + wins_within) / step)))
                for first, last, start, stop, step in (
                    (top, bottom, y + box[0].start, y + box[0].stop, step_y),
                    (left, right, x + box[1].start, x + box[1].stop, step_x),
                )
            )
            if rows.start >= rows.stop or columns.start >= columns.stop:
                continue
            share = share_of(labels[y0:y1, x0:x1] == label, y + y0, x + x0, rows, columns)
            window = np.s_[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
            wins = share > most[window]
            square[window][wins] = label
            most[window][wins] = share[wins]
            windows[-1] = window
        return windows


def grid_of(shape: tuple[int, ...], pixel_size: float, scale: float) -> Grid:
    """Return the working grid of a field; coarse fields keep their own pixels.

    shape: px
    pixel_size: µm
    scale: ``segmentation.scale``, of fields of 0.08 µm/px
    """
    factor = min(1.0, pixel_size * scale / REFERENCE_PIXEL_SIZE)
    return Grid((int(shape[0]), int(shape[1])), factor, pixel_size / factor)


def _weights(row: int, scale: float, height: int) -> list[tuple[int, np.float32]]:
    """Return the rows of which a row of the working grid is the mean, and their weights (OpenCV's INTER_AREA)."""
    start, end = row * scale, row * scale + scale
    length = min(scale, height - start)
    first, last = math.ceil(start), min(math.floor(end), height - 1)
    rows = [(n, 1.0) for n in range(first, last)]
    # Less than a thousandth of a row does not count.
    if first - start > 1e-3:
        rows.insert(0, (first - 1, first - start))
    if end - last > 1e-3:
        rows.append((last, min(end - last, 1.0, length)))
    return [(n, np.float32(weight / length)) for n, weight in rows]


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur an image, (h, w) float32, with a Gaussian of ``sigma`` px."""
    return cv2.GaussianBlur(image, (0, 0), sigma)


def disk(radius: float) -> np.ndarray:
    """Return a round structuring element of ``radius`` px, at least 1, as (side, side) uint8 of 0 and 1."""
    side = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def background(image: np.ndarray, size: float) -> np.ndarray:
    """Estimate the uneven background of a channel, without everything narrower than 60 µm.

    The radius of 30 µm is that of the widest cells; the estimate is made at 2.5 µm per pixel, since it has no finer
    detail.

    image: (h, w) float32
    size: µm per pixel
    Returns (h, w) float32.
    """
    radius = 30.0
    coarse = min(1.0, size / 2.5)
    shape = tuple(max(1, round(side * coarse)) for side in image.shape)
    small = cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE)
    # An opening keeps a slope, except within its radius of the field's bright side: the slope is subtracted before.
    slope = _lowest_plane(small)
    small = small - slope
    step = size / coarse
    small = cv2.morphologyEx(small, cv2.MORPH_OPEN, disk(radius / step), borderType=cv2.BORDER_REFLECT)
    small = cv2.GaussianBlur(small, (0, 0), radius / (2 * step)) + slope
    return cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _lowest_plane(image: np.ndarray) -> np.ndarray:
    """Fit a plane to the darkest part of a small image, each time to the pixels below the last plane."""
    height, width = image.shape
    down, right = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    terms = np.stack((np.ones(image.size), down.ravel(), right.ravel()), axis=1)
    values = image.ravel().astype(np.float64)
    plane = np.full(values.size, np.inf)
    for _ in range(4):
        # About half of the pixels remain each time, so the last fit is to the darkest eighth.
        below = values <= plane + 1e-6
        plane = terms @ np.linalg.lstsq(terms[below], values[below], rcond=None)[0]
    return plane.reshape(image.shape).astype(np.float32)


def whole(labels: np.ndarray, boxes: Sequence[tuple[slice, slice] | None] | None = None) -> np.ndarray:
    """Keep the largest 8-connected part of every label, and fill the holes inside it.

    labels: (H, W) of an integer type, changed in place
    boxes: of the labels 1 … n, each around all of it, or None for one that is absent; found if they are not given
    Returns ``labels``, with the same ids.
    """
    boxes = ndimage.find_objects(labels) if boxes is None else boxes
    several = []
    for label, box in enumerate(boxes, start=1):
        if box is None:
            continue
        window = labels[box]
        own = (window == label).astype(np.uint8)
        # Nearly all labels have one outline, thus one part and no hole; to count outlines is ten times as fast as to
        # search for parts and holes.
        if len(cv2.findContours(own, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]) == 1:
            continue
        several.append((label, window))
        n_parts, parts, stats, _ = cv2.connectedComponentsWithStats(own)
        if n_parts > 2:
            largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
            window[(parts > 0) & (parts != largest)] = 0
    for label, window in several:
        holes = fill_voids.fill(window == label) & (window == 0)
        window[holes] = label
    return labels
