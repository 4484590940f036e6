"""The working grid: fields are brought to one pixel size, segmented there, and the outlines drawn back at full size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cc3d
import cv2
import fill_voids
import numpy as np
from scipy import ndimage

# Scale 1 means this pixel size, that of the Human Protein Atlas (63x objective); 0.25 of it is 0.32 µm.
REFERENCE_PIXEL_SIZE = 0.08


@dataclass(frozen=True)
class Grid:
    """A field's own raster (`shape`, px) and the coarser one it is segmented on (`factor` of it, `size` µm a pixel)."""

    shape: tuple[int, int]
    factor: float
    size: float

    @property
    def coarse_shape(self) -> tuple[int, int]:
        """Height and width of the working grid in pixels."""
        height, width = (max(1, round(side * self.factor)) for side in self.shape)
        return height, width

    def reduce(self, image: np.ndarray) -> np.ndarray:
        """Average a channel onto the working grid; (H, W) of any number type to float32."""
        image = np.ascontiguousarray(image, dtype=None if image.dtype in (np.uint8, np.uint16) else np.float32)
        if self.coarse_shape != self.shape:
            # The average is taken in 32-bit floats: dim 8-bit channels would otherwise lose their steps below one.
            image = cv2.resize(image.astype(np.float32), self.coarse_shape[::-1], interpolation=cv2.INTER_AREA)
        return image.astype(np.float32)

    def enlarge(self, labels: np.ndarray, smoothing: float) -> np.ndarray:
        """Draw a label image of the working grid at full size, outlines smoothed over `smoothing` µm.

        Every pixel goes to the label (or the background) that holds most of its Gaussian surroundings, so that outlines
        are neither stairs nor frayed; each label keeps its largest connected part, its holes filled.
        labels: (h, w) int32, 1 … n. Returns (H, W) int32.
        """
        height, width = self.shape
        coarse_height, coarse_width = labels.shape
        step_y, step_x = coarse_height / height, coarse_width / width
        sigma = max(smoothing / self.size, 0.5)
        reach = int(3 * sigma) + 2
        drawn = np.zeros(self.shape, np.int32)
        background = cv2.GaussianBlur((labels == 0).astype(np.float32), (0, 0), sigma)
        most = cv2.resize(background, (width, height), interpolation=cv2.INTER_LINEAR)
        for label, box in enumerate(ndimage.find_objects(labels), start=1):
            if box is None:
                continue
            y0, y1 = max(0, box[0].start - reach), min(coarse_height, box[0].stop + reach)
            x0, x1 = max(0, box[1].start - reach), min(coarse_width, box[1].stop + reach)
            share = cv2.GaussianBlur((labels[y0:y1, x0:x1] == label).astype(np.float32), (0, 0), sigma)
            top, bottom = round(y0 / step_y), round(y1 / step_y)
            left, right = round(x0 / step_x), round(x1 / step_x)
            # Pixel centres of the fine raster in coordinates of the coarse window.
            back = np.array(
                [
                    [step_x, 0, (left + 0.5) * step_x - 0.5 - x0],
                    [0, step_y, (top + 0.5) * step_y - 0.5 - y0],
                ]
            )
            share = cv2.warpAffine(
                share,
                back,
                (right - left, bottom - top),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            window = np.s_[top:bottom, left:right]
            wins = share > most[window]
            drawn[window][wins] = label
            most[window][wins] = share[wins]
        return whole(drawn)


def grid_of(shape: tuple[int, ...], pixel_size: float, settings: Mapping[str, Any]) -> Grid:
    """Lay the working grid over a field of `shape` px of `pixel_size` µm; coarse fields keep their own pixels."""
    factor = min(1.0, pixel_size * settings.get("scale", 0.25) / REFERENCE_PIXEL_SIZE)
    return Grid((int(shape[0]), int(shape[1])), factor, pixel_size / factor)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a float32 image with a Gaussian of `sigma` px."""
    return cv2.GaussianBlur(image, (0, 0), sigma)


def disk(radius: float) -> np.ndarray:
    """Return a round structuring element of `radius` px, at least 1."""
    side = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def background(image: np.ndarray, size: float) -> np.ndarray:
    """Estimate the uneven background of a channel: what stays when everything narrower than 60 µm is cut off.

    image: (h, w) float32. size: µm a pixel. Returns the same shape. The radius of 30 µm is that of the widest cells;
    the estimate is made at 2.5 µm a pixel, since nothing of it is sharper.
    """
    radius = 30.0
    coarse = min(1.0, size / 2.5)
    shape = tuple(max(1, round(side * coarse)) for side in image.shape)
    small = cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE)
    # An opening keeps a slope, but not within its radius of the field's bright side: the slope is taken out before.
    slope = _lowest_plane(small)
    small = small - slope
    step = size / coarse
    small = cv2.morphologyEx(small, cv2.MORPH_OPEN, disk(radius / step), borderType=cv2.BORDER_REFLECT)
    small = cv2.GaussianBlur(small, (0, 0), radius / (2 * step)) + slope
    return cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _lowest_plane(image: np.ndarray) -> np.ndarray:
    """Fit a plane to the darkest part of a small image: each time to what lies below the last one."""
    height, width = image.shape
    down, right = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    terms = np.stack((np.ones(image.size), down.ravel(), right.ravel()), axis=1)
    values = image.ravel().astype(np.float64)
    plane = np.full(values.size, np.inf)
    for _ in range(4):
        # About half of the pixels stay each time, so the last fit is to the darkest eighth.
        below = values <= plane + 1e-6
        plane = terms @ np.linalg.lstsq(terms[below], values[below], rcond=None)[0]
    return plane.reshape(image.shape).astype(np.float32)


def whole(labels: np.ndarray) -> np.ndarray:
    """Keep the largest 8-connected part of every label, and fill the holes inside it.

    labels: (H, W) int32. Returns the same; ids stay.
    """
    parts, n_parts = cc3d.connected_components(labels, connectivity=8, return_N=True)
    if n_parts == 0:
        return labels
    area = np.bincount(parts.ravel(), minlength=n_parts + 1)
    owner = np.zeros(n_parts + 1, np.int64)
    owner[parts.ravel()] = labels.ravel()
    largest = np.zeros(int(labels.max()) + 1, np.int64)
    # Ascending area, so that the largest part of a label is written last; ties go to the first part.
    for part in np.lexsort((-np.arange(n_parts + 1), area)):
        if part:
            largest[owner[part]] = part
    kept = np.where(largest[labels] == parts, labels, 0).astype(np.int32)
    for label, box in enumerate(ndimage.find_objects(kept), start=1):
        if box is not None:
            window = kept[box]
            holes = fill_voids.fill(window == label) & (window == 0)
            window[holes] = label
    return kept
