"""Where the green light of a cell is, by the outlines of the cell and its nucleus."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from scipy import ndimage

# µm. Edges of zones by depth in the nucleus, distance from the nucleus, and depth in the cell.
_DEPTHS, _DISTANCES, _RIMS = (0, 0.6, 1.2, 2.4), (0, 1, 2.5, 5, 10), (0, 0.7, 1.5, 3, 6)
# µm. The blur before the brightest pixels are chosen, those of ridges, and the two whose difference shows grains.
_BLUR, _RIDGES, _GRAINS = 0.5, (0.35, 0.8), (0.3, 1.5)
# The brightest share of a region, in percent, and percentiles of its light.
_BRIGHTEST, _PERCENTILES = 8, (5, 25, 75, 95, 99.5)
# Regions with fewer pixels are not described.
_FEWEST, _FEWEST_OF_A_ZONE = 20, 9
_LEAST = 1e-3
# Colours with which green is compared.
_OTHERS = ("red", "blue", "yellow")
N_MEASUREMENTS = 4 + 5 + 4 + 2 * 8 + 1 + 6 + 2 * 5 + 6 * len(_OTHERS)


def describe_light(
    planes: Mapping[str, np.ndarray], cell: np.ndarray, nucleus: np.ndarray, pixel_size: float
) -> np.ndarray:
    """Measure where the green light of a cell is, and of what form.

    planes: {colour: (S, S) float, above the background, in any unit}, with green
    cell, nucleus: (S, S) bool
    pixel_size: µm

    Returns (64,) float64, nan where a region or a colour is lacking. In this order, most as logarithms:

    - mean light by depth in the nucleus, relative to the nucleus; by distance from the nucleus, relative to the
      cytoplasm; by depth in the cell, relative to the cell;
    - of the brightest 8 % of cytoplasm and nucleus: their spread, distance of their middle from that of the nucleus,
      concentration in one direction from there, number and largest area of their pieces, share of the light, mean
      distance from the edge of the nucleus and depth in the cell;
    - the concentration of all light of the cytoplasm in one direction;
    - in the cytoplasm, for two widths: the shares of ridges and of spots, and the strength of both together;
    - percentiles of the light of nucleus and cytoplasm;
    - its correlation with red, blue and yellow in nucleus, cytoplasm and cell, and that of their grains.
    """
    nucleus = nucleus & cell
    cytoplasm = cell & ~nucleus
    total = float(planes["green"][cell].sum(dtype=np.float64))
    if cytoplasm.sum() < _FEWEST or total <= 0:
        return np.full(N_MEASUREMENTS, np.nan)
    # In 64 bits: with 32, the last digit of a blur and of a sum depends on the place in memory.
    green = np.asarray(planes["green"], np.float64) * (cell.sum() / total)
    # Beyond the edge of the tile there is neither cell nor nucleus.
    depth, rim = (ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] * pixel_size for mask in (nucleus, cell))
    distance = ndimage.distance_transform_edt(~nucleus) * pixel_size if nucleus.any() else np.full(cell.shape, np.nan)
    values = [
        *_by_zone(green, nucleus, depth, _DEPTHS),
        *(_by_zone(green, cytoplasm, distance, _DISTANCES) if nucleus.any() else [np.nan] * len(_DISTANCES)),
        *_by_zone(green, cell, rim, _RIMS)[:-1],
    ]
    rows, columns = np.indices(cell.shape) * pixel_size
    middle = nucleus if nucleus.any() else cell
    rows, columns = rows - rows[middle].mean(), columns - columns[middle].mean()
    radius = float(np.sqrt(cell.sum() / np.pi)) * pixel_size
    blurred = _blur(green, _BLUR / pixel_size)
    for region, along in ((cytoplasm, distance), (nucleus, depth)):
        values += _brightest(green, blurred, region, (rows, columns), along, rim, radius, pixel_size)
    values.append(_concentration(rows[cytoplasm], columns[cytoplasm], green[cytoplasm]))
    for width in _RIDGES:
        values += _ridges(green, cytoplasm, width / pixel_size)
    for region in (nucleus, cytoplasm):
        light = green[region]
        values += (
            _logarithms(np.percentile(light, _PERCENTILES) / max(float(light.mean()), _LEAST))
            if len(light) >= _FEWEST
            else [np.nan] * len(_PERCENTILES)
        )
    regions = (nucleus, cytoplasm, cell)
    of_green = _deviations(green, regions, pixel_size)
    for colour in _OTHERS:
        if colour not in planes:
            values += [np.nan] * len(of_green)
            continue
        of_other = _deviations(np.asarray(planes[colour], np.float64), regions, pixel_size)
        values += [_correlation(*pair) for pair in zip(of_green, of_other, strict=True)]
    return np.array(values, np.float64)


def _logarithms(values: Sequence[float] | np.ndarray) -> list[float]:
    return np.log(np.maximum(values, _LEAST)).tolist()  # type: ignore[no-any-return]


def _by_zone(light: np.ndarray, region: np.ndarray, place: np.ndarray, edges: Sequence[float]) -> list[float]:
    """Return the logarithms of the mean light from each edge to the next, relative to the region."""
    zone = np.digitize(place[region], edges) - 1
    counts = np.bincount(zone, minlength=len(edges))
    if counts.sum() < _FEWEST:
        return [np.nan] * len(edges)
    means = np.bincount(zone, light[region], len(edges)) / np.maximum(counts, 1) / max(light[region].mean(), _LEAST)
    return np.where(counts >= _FEWEST_OF_A_ZONE, np.log(np.maximum(means, _LEAST)), np.nan).tolist()  # type: ignore[no-any-return]


def _brightest(
    green: np.ndarray,
    blurred: np.ndarray,
    region: np.ndarray,
    places: tuple[np.ndarray, np.ndarray],
    along: np.ndarray,
    rim: np.ndarray,
    radius: float,
    pixel_size: float,
) -> list[float]:
    """Describe the brightest pixels of a region; places: rows and columns from the middle of the nucleus, µm."""
    if region.sum() < _FEWEST:
        return [np.nan] * 8
    threshold = np.percentile(blurred[region], 100 - _BRIGHTEST)
    chosen = region & (blurred >= threshold)
    weights = blurred[chosen] - threshold + 1e-6
    rows, columns = (place[chosen] for place in places)
    row, column = np.average(rows, weights=weights), np.average(columns, weights=weights)
    spread = np.sqrt(np.average((rows - row) ** 2 + (columns - column) ** 2, weights=weights))
    _, _, pieces, _ = cv2.connectedComponentsWithStats(chosen.astype(np.uint8), connectivity=4)
    areas = pieces[1:, cv2.CC_STAT_AREA] * pixel_size**2
    distance = np.average(along[chosen], weights=weights) / radius
    return [
        *_logarithms([spread / np.sqrt(region.sum() / np.pi) / pixel_size, np.hypot(row, column) / radius]),
        _concentration(rows, columns, weights),
        *_logarithms([len(areas), areas.max(), green[chosen].sum() / max(float(green[region].sum()), _LEAST)]),
        float(distance),
        *_logarithms([np.average(rim[chosen], weights=weights) / radius]),
    ]


def _concentration(rows: np.ndarray, columns: np.ndarray, light: np.ndarray) -> float:
    """Return how much light lies in one direction: 1 if all does, 0 if it is the same in all."""
    lengths = np.maximum(np.hypot(rows, columns), 1e-6)
    total = max(float(light.sum()), 1e-9)
    return float(np.hypot((light * rows / lengths).sum(), (light * columns / lengths).sum()) / total)


def _ridges(green: np.ndarray, region: np.ndarray, width: float) -> list[float]:
    """Describe ridges and spots of a width in px by the eigenvalues of the second derivatives of the blurred light."""
    if region.sum() < _FEWEST:
        return [np.nan] * 3
    blurred = _blur(green, width)
    along, across, mixed = (cv2.Sobel(blurred, cv2.CV_64F, *order, ksize=3) for order in ((0, 2), (2, 0), (1, 1)))
    # Sobel's masks sum to 4 times a second derivative.
    middle, half = (along + across)[region] / 8, np.sqrt((along - across)[region] ** 2 + 4 * mixed[region] ** 2) / 8
    steepest, other = np.maximum(half - middle, 0), middle + half
    strength = max(float(steepest.mean()), 1e-6)
    ridges = np.maximum(steepest - np.abs(other), 0).mean()
    spots = np.maximum(-other, 0).mean()
    return _logarithms([ridges / strength, spots / strength, strength * width**2 / max(green[region].mean(), _LEAST)])


def _grains(plane: np.ndarray, pixel_size: float) -> np.ndarray:
    fine, coarse = (_blur(plane, width / pixel_size) for width in _GRAINS)
    return fine - coarse


def _blur(plane: np.ndarray, width: float) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), width))


def _deviations(
    plane: np.ndarray, regions: Sequence[np.ndarray], pixel_size: float
) -> list[tuple[np.ndarray, float] | None]:
    """Return, for each region, its light and then its grains: deviations from their mean (n,), and the standard one.

    None for a region that is too small to be described.
    """
    grains = _grains(plane, pixel_size)
    deviations: list[tuple[np.ndarray, float] | None] = []
    for region in regions:
        for values in (plane[region], grains[region]):
            if len(values) < _FEWEST:
                deviations.append(None)
                continue
            deviation = values - values.mean()
            deviations.append((deviation, float(np.sqrt((deviation * deviation).mean()))))
    return deviations


def _correlation(one: tuple[np.ndarray, float] | None, other: tuple[np.ndarray, float] | None) -> float:
    """Return the correlation of two results of ``_deviations``."""
    if one is None or other is None:
        return np.nan
    spread = one[1] * other[1]
    return float((one[0] * other[0]).mean() / spread) if spread > 1e-9 else 0.0
