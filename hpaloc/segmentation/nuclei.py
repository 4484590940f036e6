"""Nuclei in the blue channel: dim next to bright, touching, lobed, with nucleoli, over an uneven background."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import cv2
import edt
import fastremap
import fill_voids
import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from hpaloc.segmentation.grid import background, blur, disk
from hpaloc.segmentation.regions import borders, join, solidity, summarise

# Lengths in µm, areas in µm².
SMOOTHING = 0.4
CHROMATIN = 0.8  # the grain of chromatin; smoothed over it, a nucleus is even
RIM = 3.0  # how far from its edge the level of a nucleus is measured; half the radius of a small one
OPENING = 0.6  # spurs and bridges thinner than twice this are not part of a nucleus
MIN_AREA = 16.0  # 2,500 px of 0.08 µm, the smallest nucleus of hpacellseg
# Condensed chromosomes are brighter than any interphase nucleus by this factor; a plate seen from its side is small.
CONDENSED, MIN_PLATE_AREA = 1.3, 8.0
# The largest nuclei that count for the field's usual level, and how many times brighter than it debris is.
MAX_AREA, FOREIGN = 1500.0, 4.0
# No nucleus is so many times brighter than the usual one.
BRIGHTEST = 8.0
# Fewer objects than this say nothing about the usual nucleus.
FEW = 3
# A leak is seen wherever its stain is bright, but for this percentage, and at least this share of that light is dark
# in blue; else the stain shows nuclei itself. A leak matters if it reaches this share of Otsu's threshold of blue: in
# 67 real and simulated fields without one, it reaches 0.026 at most. Every fourth row and column tell as much as all.
LEAK_PERCENTILE, DARK_SHARE, LEAST_LEAK, LEAK_STEP = 5, 0.5, 0.03, 4
# Two lobes joined by less than this share of the narrower one's width, seen in shape and brightness, are two nuclei.
NECK = 0.65
# Two nuclei that touch are darker than this share of the dimmer one's level along the line between them.
DARK_LINE = 0.8
# An object dimmer than this share of the field's usual nucleus is the haze of a cell's cytoplasm, unless it looks like
# a nucleus: it has at least this area and solidity, and outside its edge at most this share of its level. Haze does
# not; nuclei of one field differ severalfold in brightness.
DIMMEST, DIM_AREA, DIM_CONVEX, DIM_BESIDE = 0.2, 35.0, 0.9, 0.25
# Signals below this share of the usual nucleus are equally dark for the logarithm, whatever the depth of the image.
LOG_UNIT = 0.01
# How many times brighter than nearly all of the background the nuclei of a field must be. Pure noise, divided by Otsu's
# threshold, reaches 2.1.
SEPARATION = 3.0


@dataclass(frozen=True)
class NucleusLevels:
    """Levels of a field's blue channel above background: ``floor`` of any possible nucleus, ``usual`` of nuclei."""

    floor: float
    usual: float


def above_background(channel: np.ndarray, size: float) -> np.ndarray:
    """Smooth a channel lightly and subtract its background.

    channel: (h, w) float32, on the working grid
    size: µm per pixel
    Returns (h, w) float32, not negative.
    """
    smooth = blur(channel, SMOOTHING / size)
    return np.maximum(smooth - background(smooth, size), 0)


def otsu(values: np.ndarray) -> float:
    """Return Otsu's threshold of values (n,) float without the brightest thousandth: dust and hot pixels."""
    clipped = np.minimum(values, np.percentile(values, 99.9))
    return float(threshold_otsu(clipped)) if clipped.max() > clipped.min() else float("inf")


def _log_otsu(values: np.ndarray, unit: float) -> float:
    """Return Otsu's threshold of values (n,) float on a scale that is linear below ``unit`` and logarithmic above."""
    return unit * float(np.expm1(otsu(np.log1p(values / unit))))


def subtract_leak(blue: np.ndarray, stains: Sequence[np.ndarray]) -> np.ndarray:
    """Subtract from blue the share of other stains that leaks into it, so that it gives no haze of cytoplasm.

    blue, stains: (h, w) float32, above background, the whole field
    Returns (h, w) float32, not negative; blue itself if nothing leaks.
    """
    for stain in stains:
        share = _leak(stain[::LEAK_STEP, ::LEAK_STEP], blue[::LEAK_STEP, ::LEAK_STEP])
        if share:
            blue = np.maximum(blue - np.float32(share) * stain, 0)
    return blue


def _leak(stain: np.ndarray, blue: np.ndarray) -> float:
    """Return the share of a stain that leaks into blue: the 5th percentile of their ratio where the stain is bright.

    Returns 0 if the share is too small to matter, or if the stain shows nuclei itself.
    """
    unit = LOG_UNIT * float(np.percentile(stain, 99))
    if unit <= 0:
        return 0.0
    # The brighter half of the cells; debris is a small part of it.
    cells = stain[stain > _log_otsu(stain, unit)]
    if not cells.size:
        return 0.0
    bright, dark = stain >= np.median(cells), otsu(blue)
    if np.mean(blue[bright] <= dark) < DARK_SHARE:
        return 0.0
    share = float(np.percentile(blue[bright] / stain[bright], LEAK_PERCENTILE))
    return share if share * np.median(stain[bright]) > LEAST_LEAK * dark else 0.0


def nucleus_levels(signal: np.ndarray, size: float) -> NucleusLevels | None:
    """Measure the levels of a field from blue above background; None if nothing stands out as nuclei.

    signal: (h, w) float32, without what leaks into it, the whole field or an even sample of it
    size: µm per pixel
    """
    levels = _levels(signal)
    if levels is None:
        return None
    # Debris can be so bright that nuclei pass for background; objects count one by one, whatever their brightness.
    found = _object_levels(signal, levels.floor, size)
    if found.size < FEW or levels.usual <= FOREIGN * np.median(found):
        return levels
    return _levels(np.minimum(signal, np.float32(FOREIGN * np.median(found))))


def _object_levels(signal: np.ndarray, floor: float, size: float) -> np.ndarray:
    """Return the median level of each object above ``floor`` that has the size of a nucleus."""
    objects = cc3d.connected_components((signal > floor).astype(np.uint8), connectivity=8)
    area = np.bincount(objects.ravel())[1:] * size**2
    of_nuclei = 1 + np.flatnonzero((area >= MIN_AREA) & (area <= MAX_AREA))
    return summarise("median", signal, objects, of_nuclei) if of_nuclei.size else np.zeros(0)


def _levels(signal: np.ndarray) -> NucleusLevels | None:
    half = otsu(signal)
    bright, dark = signal[signal > half], signal[signal <= half]
    if bright.size == 0:
        return None
    if np.median(bright) <= SEPARATION * np.percentile(dark, 90):
        return None
    # The logarithm finds dim nuclei next to bright ones; half the linear threshold is its limit if all are bright.
    usual = float(np.median(bright))
    unit = LOG_UNIT * usual
    return NucleusLevels(min(_log_otsu(signal, unit), 0.5 * half), usual)


def _parts(landscape: np.ndarray, mask: np.ndarray, radius: float) -> np.ndarray:
    peaks = (cv2.dilate(landscape, disk(radius)) <= landscape) & mask
    seeds = cc3d.connected_components(peaks.astype(np.uint8), connectivity=8)
    return watershed(-landscape, seeds.astype(np.int32), mask=mask)


def find(signal: np.ndarray, size: float, levels: NucleusLevels) -> np.ndarray:
    """Find the nuclei of a field on the working grid.

    The edge of a nucleus is where the signal falls to half of the highest level within RIM: half-maximum is the edge of
    a blurred body, and a local level finds dim nuclei next to bright ones. Bodies are divided where both their width
    (distance to the edge) and their brightness have a neck narrower than NECK.

    signal: (h, w) float32, blue above background (``above_background``)
    size: µm per pixel
    levels: of the whole field
    Returns (h, w) int32, 1 … n.
    """
    may_be = signal > levels.floor
    even = blur(signal, CHROMATIN / size)
    level = blur(cv2.dilate(even, disk(RIM / size), borderType=cv2.BORDER_REPLICATE), 1.0 / size)
    mask = fill_voids.fill((signal > 0.5 * level) & may_be)
    opening = disk(OPENING / size)
    mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, opening, borderType=cv2.BORDER_REPLICATE) > 0
    if not mask.any():
        return np.zeros(signal.shape, np.int32)
    width = blur(edt.edt(mask, black_border=False, parallel=1).astype(np.float32), 0.5 / size)
    brightness = np.clip(even / np.maximum(level, 1e-6), 0, 1)
    # Nucleoli are dark, but not borders: closing hides what is narrower than they are.
    brightness = cv2.morphologyEx(brightness, cv2.MORPH_CLOSE, disk(1.2 / size))
    landscape = np.where(mask, width * brightness, 0).astype(np.float32)
    nuclei = _merge_lobes(_parts(landscape, mask, 1.2 / size), landscape)
    nuclei = _regrow(nuclei, signal, even, may_be, size)
    nuclei = _join_unparted(nuclei, signal)
    return _without_debris(nuclei, signal, size, levels)


def _merge_lobes(parts: np.ndarray, landscape: np.ndarray) -> np.ndarray:
    """Join the parts of a watershed over saddles, highest first, that reach NECK of the lower of their peaks."""
    pairs, saddle = borders(parts, landscape, np.minimum, "max")
    ids = np.arange(1, int(parts.max()) + 1)
    # Of the background, 0, there is none.
    peak = np.append(np.float32(0), summarise("max", landscape, parts, ids))
    chosen: list[tuple[int, int]] = []
    root = np.arange(peak.size)

    def find_root(part: int) -> int:
        while root[part] != part:
            root[part] = root[root[part]]
            part = root[part]
        return part

    for k in np.argsort(-saddle, kind="stable"):
        one, other = find_root(pairs[k, 0]), find_root(pairs[k, 1])
        if one != other and saddle[k] >= NECK * min(peak[one], peak[other]):
            low, high = (one, other) if peak[one] < peak[other] else (other, one)
            root[low] = high
            chosen.append((low, high))
    return join(parts, np.array(chosen, dtype=np.int64).reshape(-1, 2))


def _regrow(nuclei: np.ndarray, signal: np.ndarray, even: np.ndarray, may_be: np.ndarray, size: float) -> np.ndarray:
    """Give dim nuclei back the rim that a bright neighbour's level cut off, and smooth every nucleus."""
    n_nuclei = int(nuclei.max())
    level = np.asarray(ndimage.mean(signal, nuclei, np.arange(n_nuclei + 1)), dtype=np.float32)
    reach = cv2.dilate((nuclei > 0).astype(np.uint8), disk(RIM / size)) > 0
    owner = watershed(-even, nuclei, mask=may_be & reach)
    grown = np.where((signal > 0.5 * level[owner]) | (nuclei > 0), owner, 0).astype(np.int32)
    opening = disk(OPENING / size)
    pad = opening.shape[0]
    for nucleus, box in enumerate(ndimage.find_objects(grown), start=1):
        if box is None:
            continue
        window = grown[box]
        body = np.pad(fill_voids.fill(window == nucleus).astype(np.uint8), pad, mode="edge")
        body = cv2.morphologyEx(body, cv2.MORPH_OPEN, opening)[pad:-pad, pad:-pad] > 0
        window[(window == nucleus) & ~body] = 0
        window[body & (window == 0)] = nucleus
    return grown


def _join_unparted(nuclei: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """Join nuclei that touch with no dark line between them: lobes of one, or one around a vacuole."""
    pairs, along = borders(nuclei, signal, np.minimum, "mean")
    if not len(pairs):
        return nuclei
    level = summarise("median", signal, nuclei, np.arange(1, int(nuclei.max()) + 1))
    return join(nuclei, pairs[along >= DARK_LINE * level[pairs - 1].min(axis=1)])


def _without_debris(nuclei: np.ndarray, signal: np.ndarray, size: float, levels: NucleusLevels) -> np.ndarray:
    index = np.arange(int(nuclei.max()) + 1)
    area = np.bincount(nuclei.ravel(), minlength=index.size) * size**2
    level = np.asarray(ndimage.mean(signal, nuclei, index))
    least = np.where(level > CONDENSED * levels.usual, MIN_PLATE_AREA, MIN_AREA)
    dropped = (area < least) | ~(level >= DIMMEST * levels.usual)
    dropped[0] = False
    for nucleus in np.flatnonzero(dropped & (area >= DIM_AREA)):
        dropped[nucleus] = not _stands_out(nuclei, int(nucleus), signal, size, float(level[nucleus]))
    # Condensed chromosomes are a few times brighter than the usual nucleus.
    dropped |= level > BRIGHTEST * levels.usual
    kept = np.where(dropped[nuclei], 0, nuclei)
    return fastremap.renumber(kept.astype(np.int32))[0].astype(np.int32)


def _stands_out(nuclei: np.ndarray, nucleus: int, signal: np.ndarray, size: float, level: float) -> bool:
    """Return whether a dim object is compact with a sharp edge, like a nucleus and unlike a haze."""
    rows, columns = np.nonzero(nuclei == nucleus)
    margin = math.ceil(2.5 / size) + 1
    box = np.s_[
        max(0, rows.min() - margin) : rows.max() + margin + 1,
        max(0, columns.min() - margin) : columns.max() + margin + 1,
    ]
    window = nuclei[box]
    body = (window == nucleus).astype(np.uint8)
    # From 1 µm, beyond the blur of the edge, to 2.5 µm, without other nuclei and their blur.
    others = cv2.dilate(((window > 0) & (body == 0)).astype(np.uint8), disk(1.0 / size))
    beside = (cv2.dilate(body, disk(2.5 / size)) > 0) & (cv2.dilate(body, disk(1.0 / size)) == 0) & (others == 0)
    if not beside.any() or solidity(body > 0) < DIM_CONVEX:
        return False
    return bool(np.median(signal[box][beside]) <= DIM_BESIDE * level)
