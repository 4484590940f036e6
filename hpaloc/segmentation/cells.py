"""Cells grown from their nuclei over microtubules and endoplasmic reticulum."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cc3d
import cv2
import fastremap
import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import dijkstra
from skimage.segmentation import expand_labels

from hpaloc.segmentation.grid import blur, disk, whole
from hpaloc.segmentation.nuclei import NucleusLevels, otsu
from hpaloc.segmentation.regions import borders, join, summarise

# Lengths in µm, areas in µm². Levels are relative: 1 is the usual cytoplasm next to the field's nuclei.
RING = 3.0  # the width of the cytoplasm next to a nucleus
# A channel is noise if its grain finer than this is more than the given share of its level: fibres and reticulum reach
# 0.22 in real fields, pure noise 0.65.
GRAIN_BLUR, NOISE = 1.0, 0.4
EDGE_BLUR = 0.3
# A cell ends where its signal falls below this share of the usual cytoplasm: cells thin out towards their edge.
FAINTEST = 0.06
STEEP, STEEP_SHARE = 1.0, 0.15  # within this distance a signal does not fall below this share inside a cell
OPENING = 0.4  # fibres and noise thinner than twice this are not part of a cell's body
CRACK = 0.8  # a gap narrower than twice this is a border between two cells, or a dark spot in one
LEAST_GAP = 0.2  # a gap smaller than this is a dark spot in the cytoplasm
BORDER_BLUR = 1.0  # the width of a border between two cells
FIBRE_BLUR = 1.0  # the neighbourhood that has one direction of fibres
FLOOR = 0.05  # added before logarithms, so that noise in dark regions gives no borders
# A path costs 1 per µm, and in addition this per e-fold of brightness per µm, and per e-fold per µm² of a valley's
# curvature. Valleys weigh most: two cells that meet are both thinner there. The result changes little over an order of
# magnitude of either.
SLOPE_COST, VALLEY_COST = 10.0, 150.0
# A path straight across the fibres costs this much more than one along them: microtubules run along their own cell.
ACROSS_FIBRES = 3.0
# Nuclei closer than this touch; they belong to one cell if the border between their halves is brighter by this factor
# than the cytoplasm of the fainter half (a true border is fainter).
TOUCHING, BRIGHT_BORDER = 1.0, 1.25
# Without red and yellow, a cell is what is nearer than this to its nucleus.
REACH = 8.0
MIN_AREA = 35.0  # 5,500 px of 0.08 µm, the smallest cell of hpacellseg

# Steps to 16 neighbours, one of each pair of opposite ones: path lengths are then right within 3 % in any direction.
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (2, -1), (1, -2))


@dataclass(frozen=True)
class CellLevels:
    """Levels of a field: the weights of red and yellow, or of one of them, and the least weighted sum in a cell."""

    weights: tuple[float, ...]
    faintest: float

    def body(self, stains: Sequence[np.ndarray]) -> np.ndarray:
        """Return the weighted sum of the stains above background, (h, w) float32; 1 is the usual cytoplasm.

        stains: red and yellow, or the one that there is, (h, w) float32, above background
        """
        first, *others = (stain * np.float32(weight) for stain, weight in zip(stains, self.weights, strict=True))
        return np.asarray(sum(others, start=first))


def cell_levels(stains: Sequence[np.ndarray], blue: np.ndarray, nuclei: NucleusLevels, size: float) -> CellLevels:
    """Measure the levels of a field; red and yellow get equal weight, however exposed, and pure noise gets none.

    stains: red and yellow, or the one that there is, (h, w) float32, above background, on the working grid
    blue: (h, w) float32, as the stains
    size: µm per pixel
    """
    # Half of the usual nucleus, not the floor: a blue haze over whole cells would be above the floor and leave no ring.
    nucleus = (blue > 0.5 * nuclei.usual).astype(np.uint8)
    ring = (cv2.dilate(nucleus, disk(RING / size)) > 0) & (nucleus == 0)
    usual = [_usual(channel, ring, size) for channel in stains]
    counted = max(1, np.count_nonzero(usual))
    levels = CellLevels(tuple(1 / (counted * level) if level > 0 else 0.0 for level in usual), FAINTEST)
    # A threshold between cells and gaps, on a scale where a cell's faint edge counts as much as its bright middle. In a
    # field without gaps it would cut the cells themselves; FAINTEST is its limit.
    relative = blur(levels.body(stains), EDGE_BLUR / size)
    between = float(np.expm1(otsu(np.log1p(50 * relative)))) / 50
    return replace(levels, faintest=min(between, FAINTEST))


def _usual(channel: np.ndarray, ring: np.ndarray, size: float) -> float:
    """Return the usual level of a channel next to the nuclei, 0 if its grain shows that it is noise."""
    if not ring.any():
        return 0.0
    level = float(np.percentile(channel[ring], 60))
    grain = float(np.median(np.abs(channel - blur(channel, GRAIN_BLUR / size))[ring]))
    return level if grain < NOISE * level else 0.0


def grow(body: np.ndarray, nuclei: np.ndarray, size: float, levels: CellLevels) -> np.ndarray:
    """Grow the cells of a field from its nuclei, and drop those below MIN_AREA.

    Every pixel of the foreground goes to the nearest nucleus along a path through the foreground; paths that cross a
    valley or a step of brightness, or run across the fibres, are long (seeded geodesic growth as in Jones, Carpenter
    and Golland 2005, CVBIA, with the direction of the fibres added).

    body: (h, w) float32, ``CellLevels.body`` of red and yellow, 1 = usual cytoplasm
    nuclei: (h, w) int32, 1 … n
    size: µm per pixel
    levels: of the whole field
    Returns the cells, (h, w) int32, 1 … m; a cell may have several nuclei.
    """
    foreground = _foreground(body, nuclei, size, levels)
    cells = _nearest(foreground, nuclei, _price(body, size), _fibres(body, nuclei, size))
    cells = _share_between_touching(cells, nuclei, body, size)
    return _without_small(whole(cells), size)


def surround(nuclei: np.ndarray, size: float) -> np.ndarray:
    """Grow the cells of a field without red and yellow: REACH around each nucleus, half way to a nearer one.

    nuclei: (h, w) int32, 1 … n
    size: µm per pixel
    Returns the cells, (h, w) int32, 1 … m, without those below MIN_AREA.
    """
    return _without_small(expand_labels(nuclei, REACH / size), size)


def _without_small(cells: np.ndarray, size: float) -> np.ndarray:
    area = np.bincount(cells.ravel()) * size**2
    small = area < MIN_AREA
    small[0] = False
    return fastremap.renumber(np.where(small[cells], 0, cells).astype(np.int32))[0].astype(np.int32)


def _foreground(body: np.ndarray, nuclei: np.ndarray, size: float, levels: CellLevels) -> np.ndarray:
    smooth = blur(body, EDGE_BLUR / size)
    # A sharp edge, once blurred, reaches far out at the level of the faintest cell; the true edge is where it is steep.
    nearby = cv2.dilate(smooth, disk(STEEP / size), borderType=cv2.BORDER_REPLICATE)
    bright = (smooth > np.maximum(levels.faintest, STEEP_SHARE * nearby)) | (nuclei > 0)
    opened = cv2.morphologyEx(
        bright.astype(np.uint8), cv2.MORPH_OPEN, disk(OPENING / size), borderType=cv2.BORDER_REPLICATE
    )
    closing = disk(CRACK / size)
    pad = closing.shape[0]
    closed = cv2.morphologyEx(np.pad(opened, pad, mode="edge"), cv2.MORPH_CLOSE, closing)[pad:-pad, pad:-pad]
    foreground = (closed > 0) | (nuclei > 0)
    gaps, n_gaps = cc3d.connected_components((~foreground).astype(np.uint8), connectivity=4, return_N=True)
    small = np.bincount(gaps.ravel(), minlength=n_gaps + 1) * size**2 < LEAST_GAP
    small[0] = False
    return foreground | small[gaps]


def _price(body: np.ndarray, size: float) -> np.ndarray:
    """Return the cost of a µm of path at each pixel, from the slope and the valleys of the logarithm of the body."""
    height = np.log(blur(body, BORDER_BLUR / size) + FLOOR)
    down, right = np.gradient(height)
    dd, dr = np.gradient(down)
    rr = np.gradient(right, axis=1)
    # The larger eigenvalue of the Hessian: positive across a valley.
    curvature = (dd + rr) / 2 + np.sqrt(((dd - rr) / 2) ** 2 + dr**2)
    slope = np.hypot(down, right) / size
    return (1 + SLOPE_COST * slope + VALLEY_COST * np.maximum(curvature, 0) / size**2).astype(np.float32)


def _fibres(body: np.ndarray, nuclei: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the structure tensor of the body, scaled to a trace of 1: large across the fibres, small along them."""
    # Nuclei are dark in these channels; they are filled with the level of cytoplasm, so that their outlines do not
    # count as fibres.
    height = np.log(np.where(nuclei > 0, 1.0, body) + 0.1)
    down, right = (cv2.Sobel(height, cv2.CV_32F, *axes, borderType=cv2.BORDER_CONSTANT) for axes in ((0, 1), (1, 0)))
    # The numbers of scikit-image's structure_tensor, but for rounding, in a fifth of its time.
    sigma = FIBRE_BLUR / size
    side = 2 * int(4 * sigma + 0.5) + 1
    rows, mixed, columns = (
        cv2.GaussianBlur(product, (side, side), sigma, borderType=cv2.BORDER_CONSTANT)
        for product in (down * down, down * right, right * right)
    )
    trace = rows + columns + 1e-6
    return rows / trace, mixed / trace, columns / trace


def _nearest(
    foreground: np.ndarray, nuclei: np.ndarray, price: np.ndarray, fibres: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> np.ndarray:
    """Give each foreground pixel the id of the nucleus that is nearest along the cheapest path."""
    inside = foreground | (nuclei > 0)
    number = np.full(inside.shape, -1, np.int32)
    n_pixels = int(np.count_nonzero(inside))
    number[inside] = np.arange(n_pixels, dtype=np.int32)
    seeds = nuclei[inside]
    if not seeds.any():
        return np.zeros(inside.shape, np.int32)
    height, width = inside.shape
    # No path gets shorter in a nucleus, where every pixel is a start.
    outside = nuclei == 0
    starts, ends, costs = [], [], []
    for dy, dx in _STEPS:
        here = np.s_[0 : height - dy, max(0, -dx) : width - max(0, dx)]
        there = np.s_[dy:height, max(0, dx) : width + min(0, dx)]
        passable = inside[here] & inside[there] & (outside[here] | outside[there])
        length = float(np.hypot(dy, dx))
        # On whole images: to select passable pixels from each of them first takes longer.
        across = sum(
            weight * (tensor[here] + tensor[there])
            for weight, tensor in zip((dy * dy, 2 * dy * dx, dx * dx), fibres, strict=True)
            if weight
        )
        cost = (price[here] + price[there]) * (0.5 * length * (1 + ACROSS_FIBRES * 0.5 / length**2 * across))
        starts.append(number[here][passable])
        ends.append(number[there][passable])
        costs.append(cost[passable].astype(np.float64))
    graph = sparse.csr_matrix(
        (np.concatenate(costs), (np.concatenate(starts), np.concatenate(ends))), shape=(n_pixels, n_pixels)
    )
    del starts, ends, costs
    _, _, source = dijkstra(
        graph, directed=False, indices=np.flatnonzero(seeds), min_only=True, return_predecessors=True
    )
    cells = np.zeros(inside.shape, np.int32)
    # Pixels that no path reaches have a negative source: bodies without a nucleus.
    cells[inside] = np.where(source >= 0, seeds[np.maximum(source, 0)], 0)
    return cells


def _share_between_touching(cells: np.ndarray, nuclei: np.ndarray, body: np.ndarray, size: float) -> np.ndarray:
    """Join the cells of touching nuclei if nothing between them looks like a border."""
    smooth = blur(body, BORDER_BLUR / size)
    pairs, on_border = borders(cells, smooth, np.minimum, "mean")
    if not len(pairs):
        return cells
    index = np.arange(int(cells.max()) + 1)
    around = np.where(nuclei == 0, cells, 0)
    cytoplasm = np.zeros(index.size)
    present = np.unique(around[around > 0])
    cytoplasm[present] = summarise("median", smooth, around, present)
    wide = cv2.dilate(nuclei.astype(np.float32), disk(TOUCHING / size)).astype(np.int32)
    meet = (nuclei > 0) & (wide != nuclei)
    touching = {(int(min(a, b)), int(max(a, b))) for a, b in zip(nuclei[meet], wide[meet], strict=True)}
    together = [
        (one, other)
        for (one, other), level in zip(pairs.tolist(), on_border, strict=True)
        if (one, other) in touching and level >= BRIGHT_BORDER * min(cytoplasm[one], cytoplasm[other])
    ]
    return join(cells, np.array(together, dtype=np.int64).reshape(-1, 2))
