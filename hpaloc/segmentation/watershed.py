"""The embedded backend: nuclei from the blue channel, cells grown from them over microtubules and reticulum."""

from collections.abc import Mapping
from typing import Any

import cv2
import fill_voids
import numpy as np
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.morphology import remove_small_objects
from skimage.segmentation import watershed

from hpaloc.masks import share_ids


def _reduced(image: np.ndarray, factor: float) -> np.ndarray:
    height, width = (max(1, round(side * factor)) for side in image.shape)
    return cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)


def find_nuclei(blue: np.ndarray, pixel_size: float, settings: Mapping[str, Any]) -> np.ndarray:
    """Find the nuclei in the blue channel; (H, W) label image, ids contiguous from 1."""
    target = 0.08 / settings.get("scale", 0.25)
    factor = min(1.0, pixel_size / target)
    size = pixel_size / factor
    image = cv2.GaussianBlur(_reduced(blue, factor), (0, 0), 0.5 / size)
    if image.max() <= image.min():
        return np.zeros(blue.shape, np.uint16)
    mask = fill_voids.fill(image > threshold_otsu(image))
    mask = remove_small_objects(mask, max_size=round(16 / size**2))
    distance = cv2.GaussianBlur(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5), (0, 0), 1.0 / size)
    parts = label(mask)
    peaks = peak_local_max(distance, min_distance=max(1, round(4 / size)), labels=parts, exclude_border=False)
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    found = watershed(-distance, seeds, mask=mask)
    return cv2.resize(found.astype(np.float32), blue.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint16)


def segment(
    images: Mapping[str, np.ndarray], pixel_size: float, settings: Mapping[str, Any], *, chunk_above: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find nuclei and cells; see `segment_field`."""
    nuclei = find_nuclei(images["blue"], pixel_size, settings)
    target = 0.08 / settings.get("scale", 0.25)
    factor = min(1.0, pixel_size / target)
    size = pixel_size / factor
    shape = nuclei.shape
    body = np.zeros(())
    for colour in ("red", "yellow"):
        image = cv2.GaussianBlur(_reduced(images[colour], factor), (0, 0), 0.8 / size)
        body = body + image / max(float(np.percentile(image, 99)), 1e-6)
    seeds = cv2.resize(nuclei.astype(np.float32), body.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(np.int32)
    mask = fill_voids.fill((body > 0.5 * threshold_otsu(body)) | (seeds > 0))
    cells = watershed(-body, seeds, mask=mask)
    cells = cv2.resize(cells.astype(np.float32), shape[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint32)
    return share_ids(nuclei, cells)
