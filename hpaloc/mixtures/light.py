"""Where the green light of a cell is, and how coarse it is."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import cv2
import numpy as np

from hpaloc.mixtures.shape import SIDE, cell_shape

# Shells of the nucleus from its edge (0) to its middle (1), and of the cytoplasm from nucleus (0) to cell edge (1).
_NUCLEAR_SHELLS = (0.0, 0.2, 0.45, 1.0)
_CYTOPLASMIC_SHELLS = (0.0, 0.1, 0.3, 0.55, 0.8, 0.92, 1.0)
_EDGE_WIDTHS = (2.0, 4.0)
_GRAINS = (0.7, 1.4, 2.8, 5.6)
_FINE, _COARSE = 0.8, 5.0
_FEWEST_PIXELS = 20


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else 0.0


def light_features(tile: np.ndarray, channels: Sequence[str]) -> np.ndarray:
    """Measure where the green light of a cell is, and how coarse it is.

    tile: (S, S, len(channels)) uint8, of one cell
    channels: its colours, with green and blue

    Returns (33 + 9 r,) float32, r the number of colours other than green:

    - shares of the light in 3 shells of the nucleus and 6 of the cytoplasm, and within 1.6 and 3.1 % of the
      tile's side from the cell's edge;
    - per other colour, in nucleus and cytoplasm: shares of the light where that colour is locally lowest (15 %), in its
      upper half and highest (15 %);
    - in nucleus and cytoplasm: mean and cubic mean of the light in 4 bands of size, its 99th and 90th percentiles, and
      the logarithm of its mean, all relative to the mean of the cell;
    - its correlation with each other colour, in nucleus, cytoplasm and cell.

    They are all 0 without a cell, a nucleus or green light.
    """
    others = [plane for plane, colour in enumerate(channels) if colour != "green"]
    count = len(_NUCLEAR_SHELLS) + len(_CYTOPLASMIC_SHELLS) - 2 + len(_EDGE_WIDTHS) + 2 * (2 * len(_GRAINS) + 3)
    count += 9 * len(others)
    shape = cell_shape(tile, channels)
    green = tile[..., channels.index("green")].astype(np.float32)
    if shape is None or not (green * shape.cell).any():
        return np.zeros(count, np.float32)
    scale = tile.shape[0] / SIDE
    cell, nucleus, cytoplasm = shape.cell, shape.nucleus, shape.cell & ~shape.nucleus
    light = green * cell
    total = float(light.sum())
    mean = total / cell.sum()
    blur = partial(cv2.GaussianBlur, ksize=(0, 0))
    depth, from_nucleus, from_edge = (
        cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for mask in (nucleus, ~nucleus, np.pad(cell, 1))
    )
    from_edge = from_edge[1:-1, 1:-1]
    depth = depth / max(float(depth.max()), 1.0)
    outwards = from_nucleus / np.maximum(from_nucleus + from_edge, 1e-6)
    values: list[float] = []
    for place, region, shells in (
        (depth, nucleus, _NUCLEAR_SHELLS),
        (outwards, cytoplasm, _CYTOPLASMIC_SHELLS),
    ):
        values += np.histogram(place[region], shells, weights=light[region])[0].tolist()
    values += [float(light[cell & (from_edge <= width * scale)].sum()) for width in _EDGE_WIDTHS]
    for plane in others:
        stain = tile[..., plane].astype(np.float32)
        local = blur(stain, sigmaX=_FINE * scale) - blur(stain, sigmaX=_COARSE * scale)
        for region in (nucleus, cytoplasm):
            inside, lit = local[region], light[region]
            if len(inside) < _FEWEST_PIXELS:
                values += [0.0] * 3
                continue
            low, middle, high = np.quantile(inside, (0.15, 0.5, 0.85))
            values += [float(lit[part].sum()) for part in (inside <= low, inside > middle, inside > high)]
    shares = np.array(values) / total
    grains: list[float] = []
    blurred = [light, *(blur(light, sigmaX=sigma * scale) for sigma in _GRAINS)]
    bands = [finer - coarser for finer, coarser in pairwise(blurred)]
    for region in (nucleus, cytoplasm):
        lit = light[region]
        if not len(lit):
            grains += [0.0] * (2 * len(_GRAINS) + 3)
            continue
        for band in (one[region] / mean for one in bands):
            grains += [float(np.abs(band).mean()), float((np.maximum(band, 0.0) ** 3).mean() ** (1 / 3))]
        grains += [float(value) / mean for value in np.percentile(lit, (99, 90))]
        grains.append(float(np.log(lit.mean() / mean + 1e-6)))
    overlaps = [
        _correlation(light[region], tile[..., plane][region].astype(np.float32))
        if region.sum() > _FEWEST_PIXELS
        else 0.0
        for plane in others
        for region in (nucleus, cytoplasm, cell)
    ]
    return np.concatenate([shares, grains, overlaps]).astype(np.float32)


def measure_light(tiles: np.ndarray, channels: Sequence[str], threads: int = 1) -> np.ndarray:
    """Return the ``light_features`` of tiles (n, S, S, len(channels)) uint8 as (n, d) float32."""
    with ThreadPoolExecutor(threads) as pool:
        rows = list(pool.map(partial(light_features, channels=channels), tiles))
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)
