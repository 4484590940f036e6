"""From the probability maps of a nucleus and a cell network to nuclei and cells.

The steps and constants are those of ``label_cell`` of hpacellseg (CellProfiling/HPA-Cell-Segmentation), so that the
regions are the same; but areas scale with the pixel size, ids may exceed 255, and the floods, which take nearly all of
its time, run only where they decide something.
"""

import cv2
import fill_voids
import numpy as np
from skimage.filters import threshold_otsu
from skimage.morphology import disk
from skimage.segmentation import watershed

from hpaloc.segmentation.grid import REFERENCE_PIXEL_SIZE

# Probabilities, of 255 in the maps.
NUCLEUS, NUCLEUS_SEED, NOT_BORDER, BORDER = 0.4, 0.15, 0.95, 0.05
LEAST_CELL, OTSU_SHARE = 0.22, 0.5
# Areas in pixels of REFERENCE_PIXEL_SIZE, for which the constants were chosen.
SEED_AREA, NUCLEUS_HOLE, NUCLEUS_SPECK, NUCLEUS_AREA, CELL_AREA = 500, 1000, 8, 2500, 5500
CLOSING_RADIUS = 6
# The reduction of the first, coarse flood of the cells.
COARSE = 4


def label_maps(
    nuclei_map: np.ndarray,
    cell_map: np.ndarray,
    pixel_size: float = REFERENCE_PIXEL_SIZE,
    reduce: int = 1,
    threshold: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Label the nuclei and the cells of a field from its two probability maps.

    nuclei_map, cell_map: (H, W, 3) uint8, channel 1 the border and channel 2 the body, 255 = certain
    pixel_size: µm
    reduce: average ``reduce`` x ``reduce`` px (4 is the scale of the networks) and draw the result at full size, which
    is quicker and a little smoother
    threshold: the least probability of a cell, from ``cell_threshold`` of the whole field if the maps are a part of it;
    None measures it on these maps
    Returns (nuclei, cells), (H, W) uint16, or uint32 above 65,535 cells, ids shared and contiguous from 1; every
    nucleus is in a cell, and a cell may have no nucleus left.
    Raises ValueError for maps of another shape or type.
    """
    for name, probabilities in (("nucleus", nuclei_map), ("cell", cell_map)):
        if probabilities.ndim != 3 or probabilities.shape[2] != 3 or probabilities.dtype != np.uint8:
            raise ValueError(f"the {name} map must be (H, W, 3) uint8, not {probabilities.shape} {probabilities.dtype}")
    if nuclei_map.shape != cell_map.shape:
        raise ValueError(f"the nucleus map is {nuclei_map.shape}, but the cell map is {cell_map.shape}")
    height, width = cell_map.shape[:2]
    if reduce > 1:
        size = (max(1, round(width / reduce)), max(1, round(height / reduce)))
        nuclei_map, cell_map = (cv2.resize(m, size, interpolation=cv2.INTER_AREA) for m in (nuclei_map, cell_map))
    scale = REFERENCE_PIXEL_SIZE / (pixel_size * reduce)
    channels = [np.ascontiguousarray(m[..., k]) for m in (nuclei_map, cell_map) for k in (1, 2)]
    nuclei, cells = _label(channels, scale, threshold)
    if reduce > 1:
        cells = _drawn_back(cells, (height, width), reduce)
        nuclei = cells * (_drawn_back(nuclei, (height, width), 1) > 0)
    dtype = np.uint16 if int(cells.max(initial=0)) <= np.iinfo(np.uint16).max else np.uint32
    return nuclei.astype(dtype), cells.astype(dtype)


def _above(probabilities: np.ndarray, least: float) -> np.ndarray:
    # In integers: comparing with a fraction would first convert the map to 64-bit floats.
    return probabilities > int(255 * least)


def _label(channels: list[np.ndarray], scale: float, threshold: float | None) -> tuple[np.ndarray, np.ndarray]:
    nucleus_border, nucleus, cell_border, cell = channels
    area = scale**2
    nuclei = _nuclei(nucleus, nucleus_border, cell_border, area)
    cells = _flood_in_steps(cell, nuclei, _above(cell, cell_threshold(cell) if threshold is None else threshold))
    cells = _closed(_without_small(cells, CELL_AREA * area), round(CLOSING_RADIUS * scale))
    cells = _components(_apart(cells), 4)
    cells = _flood(cell, cells, (cells > 0) | _above(cell_border, BORDER))
    cells = _components(_without_small_parts(_apart(cells), CELL_AREA * area, 8), 8)
    inside = _without_small_parts((nuclei > 0) & (cells > 0), NUCLEUS_AREA * area, 8)
    return cells * inside, cells


def _nuclei(nucleus: np.ndarray, nucleus_border: np.ndarray, cell_border: np.ndarray, area: float) -> np.ndarray:
    # cv2.add saturates; the sum of two certain borders must not start again from zero.
    no_border = ~_above(cv2.add(nucleus_border, cell_border), NOT_BORDER)
    seeds = _without_small_parts(_above(nucleus, NUCLEUS_SEED) & no_border, SEED_AREA * area, 4)
    body = ~_without_small_parts(~_above(nucleus, NUCLEUS), NUCLEUS_HOLE * area, 4)
    body = _without_small_parts(body, NUCLEUS_SPECK * area, 4)
    nuclei = _flood(np.zeros_like(nucleus), _components(seeds, 4), body, line=True)
    return _without_small(nuclei, NUCLEUS_AREA * area)


def cell_threshold(cell: np.ndarray) -> float:
    """Return the least probability of a cell's body, from Otsu's threshold of the field's map ((H, W) uint8)."""
    counts = cv2.calcHist([cell], [0], None, [256], [0, 256]).ravel()
    present = np.flatnonzero(counts)
    low, high = present[0] / 255, present[-1] / 255
    if low == high:
        return max(LEAST_CELL, OTSU_SHARE * low)
    histogram, edges = np.histogram(np.arange(256) / 255, bins=256, range=(low, high), weights=counts)
    otsu = float(threshold_otsu(hist=(histogram, (edges[:-1] + edges[1:]) / 2)))
    return max(LEAST_CELL, OTSU_SHARE * otsu)


def _components(mask: np.ndarray, connectivity: int) -> np.ndarray:
    return cv2.connectedComponents(mask.view(np.uint8), connectivity=connectivity, ltype=cv2.CV_32S)[1]


def _without_small_parts(mask: np.ndarray, least: float, connectivity: int) -> np.ndarray:
    """Clear the connected parts of a mask that are smaller than ``least`` px, in place."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=connectivity, ltype=cv2.CV_32S
    )
    for part in np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] < least) + 1:
        x, y, width, height = stats[part, :4]
        box = np.s_[y : y + height, x : x + width]
        mask[box][parts[box] == part] = False
    return mask


def _without_small(labels: np.ndarray, least: float) -> np.ndarray:
    small = np.bincount(labels.ravel()) < least
    small[0] = False
    if not small.any():
        return labels
    return np.where(small, 0, np.arange(small.size, dtype=np.int32)).astype(np.int32)[labels]


def _flood(landscape: np.ndarray, seeds: np.ndarray, mask: np.ndarray, line: bool = False) -> np.ndarray:
    """Flood a mask from seeds in falling order of the landscape; the result of skimage's watershed(-landscape, …).

    The inside of a seed decides nothing, so only its rim is given to the flood.
    """
    result = seeds * mask
    open_ = mask & (result == 0)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    rim = cv2.dilate(open_.view(np.uint8), cross, iterations=2 if line else 1)
    if line:
        # With lines between regions, seeds that touch lose their common border too.
        values = _storable(result)
        touching = (cv2.dilate(values, cross) != values).astype(np.uint8)
        rim = cv2.bitwise_or(rim, cv2.dilate(touching, cross, iterations=2))
    rim = cv2.bitwise_and(rim, mask.view(np.uint8))
    rows, columns = rim.any(axis=1).nonzero()[0], rim.any(axis=0).nonzero()[0]
    if rows.size == 0:
        return result
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    active = rim[box] > 0
    flooded = watershed(255 - landscape[box], result[box] * active, mask=active, watershed_line=line)
    result[box][active] = flooded[active]
    return result


def _flood_in_steps(landscape: np.ndarray, seeds: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Flood coarsely first, then at full size only where the coarse regions meet."""
    height, width = mask.shape
    size = (max(1, round(width / COARSE)), max(1, round(height / COARSE)))
    small = cv2.resize(landscape, size, interpolation=cv2.INTER_AREA)
    small_mask = cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    small_seeds = cv2.resize(_storable(seeds), size, interpolation=cv2.INTER_NEAREST).astype(np.int32)
    coarse = _storable(_flood(small, small_seeds, small_mask))
    # A pixel is certain if there is one coarse region within two coarse pixels of it; the others are flooded again.
    square = np.ones((5, 5), np.uint8)
    highest = cv2.dilate(coarse, square)
    top = np.float32(np.inf) if coarse.dtype == np.float32 else np.iinfo(np.uint16).max
    lowest = cv2.erode(np.where(coarse > 0, coarse, top).astype(coarse.dtype), square)
    certain = cv2.resize(
        np.where(highest == lowest, highest, 0).astype(coarse.dtype), (width, height), interpolation=cv2.INTER_NEAREST
    ).astype(np.int32)
    np.copyto(certain, seeds, where=seeds > 0)
    return _flood(landscape, certain, mask)


def _storable(labels: np.ndarray) -> np.ndarray:
    # OpenCV filters 16-bit values and floats, and floats represent every id below 2^24 exactly.
    return labels.astype(np.uint16 if int(labels.max(initial=0)) < np.iinfo(np.uint16).max else np.float32)


def _closed(labels: np.ndarray, radius: int) -> np.ndarray:
    """Close every region with a disk; between two the higher id wins, as in a closing of grey values."""
    if radius < 1:
        return labels
    return cv2.morphologyEx(_storable(labels), cv2.MORPH_CLOSE, disk(radius)).astype(np.int32)


def _apart(labels: np.ndarray) -> np.ndarray:
    """Remove the outermost pixels of every region and fill its holes, to a mask in which regions do not touch."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    values = _storable(labels)
    inner = (cv2.erode(values, cross) == cv2.dilate(values, cross)) & (values > 0)
    return fill_voids.fill(inner)


def _drawn_back(labels: np.ndarray, shape: tuple[int, int], border: int) -> np.ndarray:
    """Enlarge labels by ``border``, give back the rim pixel that small regions lost, and remove one full-size pixel."""
    values = _storable(labels)
    if border > 1:
        values = np.where(values > 0, values, cv2.dilate(values, np.ones((3, 3), np.uint8)))
    values = cv2.resize(values, shape[::-1], interpolation=cv2.INTER_NEAREST)
    if border > 1:
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        values = values * (cv2.erode(values, cross) == cv2.dilate(values, cross))
    return values.astype(np.int32)
