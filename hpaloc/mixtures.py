"""Mixtures of locations: cells whose green is blended from two cells, and a reading of fractions learnt from them.

A fraction is a share of the protein's light. Networks trained on cells of one location see a mixture as the location
that stands out; so the outputs for blends of known fractions, together with plain measurements of where the light lies
and how coarse it is, are regressed on the fractions.
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy import ndimage
from scipy.optimize import nnls
from sklearn.linear_model import Ridge

from hpaloc.classes import N_CLASSES, NAMES, NEGATIVE, class_prototypes
from hpaloc.tables import PROBABILITIES

MIXTURES = tuple(f"mixture_{index}" for index in range(N_CLASSES))
FRACTIONS = tuple(f"fraction_{index}" for index in range(N_CLASSES))

# Directions in which the outlines of cell and nucleus are known.
_DIRECTIONS = np.linspace(-np.pi, np.pi, 128, endpoint=False)
# Shells by depth in the nucleus (0 at its edge, 1 in its middle), and of the cytoplasm from nucleus (0) to edge (1).
_NUCLEAR_SHELLS = (0.0, 0.2, 0.45, 1.0)
_CYTOPLASMIC_SHELLS = (0.0, 0.1, 0.3, 0.55, 0.8, 0.92, 1.0)
# Lengths are of a cell 128 px across, and grow with the tile.
_SIDE = 128
_EDGE_WIDTHS = (2.0, 4.0)
_GRAINS = (0.7, 1.4, 2.8, 5.6)
_FINE, _COARSE = 0.8, 5.0
# Below this a tile is outside of the cell, of 255: JPEG leaves some light there.
_DARK = 3
_FEWEST_PIXELS = 20
# Probabilities below are alike; the logarithm of a smaller one says nothing.
_LEAST_PROBABILITY = 1e-4
_RIDGE = 10.0
# What the prototypes say has this weight beside the readings; docs/evaluation.md has what either gives alone.
_PROTOTYPE_WEIGHT = 2 / 3


@dataclass(frozen=True)
class CellShape:
    """Cell and nucleus, (S, S) bool each, and the middle of the nucleus (y, x), px."""

    cell: np.ndarray
    nucleus: np.ndarray
    middle: tuple[float, float]

    @cached_property
    def radii(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances from the middle to the outlines of nucleus and cell in 128 directions, (128,) float64 each, px."""
        side = self.cell.shape[0]
        scale = side / _SIDE
        steps = np.arange(0, 1.5 * side, 0.5)
        rows = np.rint(self.middle[0] + np.outer(np.sin(_DIRECTIONS), steps)).astype(int)
        columns = np.rint(self.middle[1] + np.outer(np.cos(_DIRECTIONS), steps)).astype(int)
        within = (rows >= 0) & (columns >= 0) & (rows < side) & (columns < side)

        def radius(mask: np.ndarray) -> np.ndarray:
            hit = np.zeros(rows.shape, bool)
            hit[within] = mask[rows[within], columns[within]]
            outermost = np.where(hit.any(axis=1), hit.shape[1] - 1 - hit[:, ::-1].argmax(axis=1), 0)
            return np.asarray(ndimage.gaussian_filter1d(0.5 * outermost, 1.5, mode="wrap"))

        nucleus = np.maximum(radius(self.nucleus), 2.0 * scale)
        return nucleus, np.maximum(radius(self.cell), nucleus + scale)


def _largest(mask: np.ndarray) -> np.ndarray:
    parts, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    if parts < 2:
        return mask
    return np.asarray(labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))


def cell_shape(tile: np.ndarray, channels: Sequence[str]) -> CellShape | None:
    """Find cell and nucleus in a tile: the largest piece that is not dark, and the largest bright one in its blue.

    tile (S, S, len(channels)) uint8 of one cell, channels with blue. The threshold in blue is Otsu's. None where
    either is missing.
    """
    scale = tile.shape[0] / _SIDE
    cell = np.asarray(ndimage.binary_fill_holes(_largest(tile.max(axis=2) > _DARK)))
    blue = cv2.GaussianBlur(tile[..., channels.index("blue")], (0, 0), 1.5 * scale)
    if not cell.any() or blue[cell].min() == blue[cell].max():
        return None
    threshold, _ = cv2.threshold(blue[cell].reshape(-1, 1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    nucleus = _largest((blue > threshold) & cell)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(2 * scale) + 1,) * 2)
    closed = cv2.morphologyEx(nucleus.astype(np.uint8), cv2.MORPH_CLOSE, disk) > 0
    nucleus = np.asarray(ndimage.binary_fill_holes(closed & cell))
    y, x = ndimage.center_of_mass(nucleus)
    return CellShape(cell, nucleus, (float(y), float(x)))


def blendable_shape(tile: np.ndarray, channels: Sequence[str]) -> CellShape | None:
    """Return the shape of a cell that can be blended, None where it lacks a nucleus or green light.

    tile (S, S, len(channels)) uint8 of one cell, channels with green and blue.
    """
    shape = cell_shape(tile, channels)
    return shape if shape is not None and tile[..., channels.index("green")][shape.cell].any() else None


def _at(angles: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.interp(angles, np.append(_DIRECTIONS, np.pi), np.append(values, values[0]))


def _laid_over(light: np.ndarray, source: CellShape, target: CellShape, turn: float, mirrored: bool) -> np.ndarray:
    """Return the light of a cell where it would lie in another: nucleus over nucleus, cytoplasm over cytoplasm."""
    rows, columns = np.indices(target.cell.shape, dtype=np.float32)
    dy, dx = rows - target.middle[0], columns - target.middle[1]
    away, angle = np.hypot(dy, dx), np.arctan2(dy, dx)
    inner, outer = (_at(angle, radius) for radius in target.radii)
    # 0 in the middle, 1 at the edge of the nucleus, 2 at that of the cell.
    depth = np.where(away < inner, away / inner, 1.0 + (away - inner) / (outer - inner))
    there = ((-angle if mirrored else angle) + turn + np.pi) % (2 * np.pi) - np.pi
    inner, outer = (_at(there, radius) for radius in source.radii)
    distance = np.where(depth < 1.0, depth * inner, inner + (depth - 1.0) * (outer - inner))
    laid = cv2.remap(
        light.astype(np.float32),
        (source.middle[1] + distance * np.cos(there)).astype(np.float32),
        (source.middle[0] + distance * np.sin(there)).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
    )
    return np.asarray(laid * target.cell)


def blended(
    tile: np.ndarray,
    other: np.ndarray,
    shapes: tuple[CellShape, CellShape],
    channels: Sequence[str],
    fraction: float,
    turn: float = 0.0,
    mirrored: bool = False,
) -> np.ndarray | None:
    """Return a cell of whose green light the given fraction is its own and the rest another cell's.

    tile and other (S, S, len(channels)) uint8, shapes theirs. The other cell's green is turned (radians), mirrored and
    bent so that its nucleus and outline fall on those of the first cell, whose other colours stay. The green light of
    the whole stays that of the first cell, less where a pixel in 500 would be brighter than 255. Returns (S, S,
    len(channels)) uint8, or None where the first has no green light or none of the second's falls into it.
    """
    green = channels.index("green")
    own = tile[..., green].astype(np.float64)
    laid = _laid_over(other[..., green], shapes[1], shapes[0], turn, mirrored).astype(np.float64)
    if not own.sum() or not laid.sum():
        return None
    light = fraction * own + (1.0 - fraction) * laid * (own.sum() / laid.sum())
    light *= min(1.0, 255.0 / max(float(np.percentile(light[shapes[0].cell], 99.8)), 1.0))
    blend = tile.copy()
    blend[..., green] = np.clip(np.rint(light), 0, 255)
    return blend


def draw_blends(
    tiles: np.ndarray,
    shapes: Sequence[CellShape],
    single: np.ndarray,
    channels: Sequence[str],
    count: int,
    seed: int | Sequence[int],
    threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw blends of two cells of different classes, in fractions uniform between 0 and 1.

    tiles (n, S, S, len(channels)) uint8, shapes theirs from ``blendable_shape``, single (n,) int their only class (-1:
    left out, as is Negative). Each class is drawn as often as any other, turns and mirroring are random; ``threads``
    change nothing but the time. Returns (m, S, S, len(channels)) uint8 and the fractions (m, 19) float32; m is below
    ``count`` by the pairs where none of the second cell's light falls into the first. Raises ValueError where fewer
    than two classes have a cell.
    """
    rng = np.random.default_rng(seed)
    classes = [int(index) for index in np.unique(single) if index not in (-1, NEGATIVE)]
    if len(classes) < 2:
        raise ValueError("two locations are blended, and fewer than two have a cell of their own")
    members = {index: np.flatnonzero(single == index) for index in classes}
    drawn = []
    for _ in range(count):
        pair = rng.choice(classes, 2, replace=False)
        own, other = (int(rng.choice(members[index])) for index in pair)
        drawn.append((pair, own, other, rng.uniform(), rng.uniform(-np.pi, np.pi), bool(rng.integers(2))))

    def blend_of(draw: tuple[np.ndarray, int, int, float, float, bool]) -> np.ndarray | None:
        _, own, other, fraction, turn, mirrored = draw
        return blended(tiles[own], tiles[other], (shapes[own], shapes[other]), channels, fraction, turn, mirrored)

    with ThreadPoolExecutor(threads) as pool:
        made = [
            (draw, blend) for draw, blend in zip(drawn, pool.map(blend_of, drawn), strict=True) if blend is not None
        ]
    blends = [blend for _, blend in made]
    fractions = [np.bincount(pair, (fraction, 1.0 - fraction), N_CLASSES) for (pair, _, _, fraction, _, _), _ in made]
    shape = (len(blends), *tiles.shape[1:])
    return np.array(blends, np.uint8).reshape(shape), np.array(fractions, np.float32).reshape(-1, N_CLASSES)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else 0.0


def light_features(tile: np.ndarray, channels: Sequence[str]) -> np.ndarray:
    """Measure where the green light of a cell lies and how coarse it is.

    tile (S, S, len(channels)) uint8 of one cell, channels with green and blue. Returns (33 + 9 r,) float32, r
    the number of colours that are not green:

    - shares of the light in 3 shells of the nucleus and 6 of the cytoplasm, and within 1.6 and 3.1 % of the
      tile's side from the cell's edge;
    - per other colour, in nucleus and cytoplasm: shares of the light where that colour is locally lowest (15 %), in the
      upper half and highest (15 %);
    - in nucleus and cytoplasm: mean and cubic mean of the light in 4 bands of size, its 99th and 90th percentiles, and
      the logarithm of its mean, all relative to the mean of the cell;
    - its correlation with each other colour, in nucleus, cytoplasm and cell.

    All zero where no cell or nucleus is found or no light is green.
    """
    others = [plane for plane, colour in enumerate(channels) if colour != "green"]
    count = len(_NUCLEAR_SHELLS) + len(_CYTOPLASMIC_SHELLS) - 2 + len(_EDGE_WIDTHS) + 2 * (2 * len(_GRAINS) + 3)
    count += 9 * len(others)
    shape = cell_shape(tile, channels)
    green = tile[..., channels.index("green")].astype(np.float32)
    if shape is None or not (green * shape.cell).any():
        return np.zeros(count, np.float32)
    scale = tile.shape[0] / _SIDE
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
    """Return `light_features` of tiles (n, S, S, len(channels)) uint8 as (n, d) float32, on ``threads`` threads."""
    with ThreadPoolExecutor(threads) as pool:
        rows = list(pool.map(partial(light_features, channels=channels), tiles))
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def _outputs(probabilities: np.ndarray, light: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    known = np.log(np.maximum(probabilities[:, list(classes)], _LEAST_PROBABILITY))
    return np.concatenate([known, light], axis=1, dtype=np.float64)


def learn_reading(probabilities: np.ndarray, light: np.ndarray, fractions: np.ndarray, pure: int) -> dict[str, Any]:
    """Regress the fractions of blends on what the network and `light_features` say of them, by ridge regression.

    probabilities (n, 19), light (n, d) and fractions (n, 19) of any number type; the last ``pure`` rows are unblended
    cells, which teach nothing, since the network knows them by heart, but whose mean reading is the prototype of their
    class. Returns what thresholds.json keeps under ``mixtures``: names of the classes, mean and scale of the outputs,
    coefficients, intercept, and prototypes, the (19,) reading of each class.
    """
    count = len(fractions) - pure
    classes = np.flatnonzero(fractions[:count].any(axis=0))
    outputs = _outputs(probabilities, light, classes.tolist())[:count]
    mean, scale = outputs.mean(axis=0), outputs.std(axis=0)
    scale[scale == 0] = 1.0
    ridge = Ridge(_RIDGE).fit((outputs - mean) / scale, fractions[:count, classes])
    reading: dict[str, Any] = {
        "classes": [NAMES[index] for index in classes],
        "blends": count,
        "mean": mean.tolist(),
        "scale": scale.tolist(),
        "coefficients": np.reshape(ridge.coef_, (len(classes), -1)).tolist(),
        "intercept": np.reshape(ridge.intercept_, -1).tolist(),
    }
    read = read_mixtures(reading, probabilities[count:], light[count:])
    prototypes = class_prototypes(read, fractions[count:].argmax(axis=1))
    reading["prototypes"] = {
        name: None if np.isnan(row).any() else row.tolist() for name, row in zip(NAMES, prototypes, strict=True)
    }
    return reading


def check_reading(reading: Any) -> None:
    """Raise ValueError, naming the key at fault, where a value is not what `learn_reading` returns."""
    if not isinstance(reading, dict):
        raise ValueError("mixtures is no table")
    classes = reading.get("classes")
    if not isinstance(classes, list) or sorted(map(str, classes)) != sorted(
        {name for name in NAMES if name in classes}
    ):
        raise ValueError(f"mixtures.classes is {classes!r}, not different locations")
    mean = reading.get("mean")
    width = len(mean) if isinstance(mean, list) else 0
    shapes = {"mean": (width,), "scale": (width,), "coefficients": (len(classes), width), "intercept": (len(classes),)}
    for key, shape in shapes.items():
        try:
            values = np.array(reading.get(key), np.float64)
        except (TypeError, ValueError):
            values = np.zeros(0)
        if values.shape != shape or not np.isfinite(values).all():
            raise ValueError(f"mixtures.{key} is not {' x '.join(map(str, shape))} numbers")


def read_mixtures(reading: Mapping[str, Any], probabilities: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Return the reading of each cell: an estimate of the fraction of each location, not yet made to sum to 1.

    reading from `learn_reading`; probabilities (n, 19) and light (n, d) of any number type. Returns (n, 19) float32, 0
    for a class that the reading does not know. Raises ValueError where the reading is of other measurements.
    """
    classes = [NAMES.index(name) for name in reading["classes"]]
    outputs = _outputs(probabilities, light, classes)
    if outputs.shape[1] != len(reading["mean"]):
        raise ValueError(
            f"the reading of mixtures is of {len(reading['mean'])} outputs a cell, and {outputs.shape[1]} are given"
        )
    standard = (outputs - np.array(reading["mean"])) / np.array(reading["scale"])
    read = np.zeros((len(outputs), N_CLASSES), np.float32)
    read[:, classes] = standard @ np.array(reading["coefficients"]).T + np.array(reading["intercept"])
    return read


def read_prototypes(path: Path) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """Read the class prototypes of a model folder from its thresholds.json, and say of which outputs they are.

    The key ``mixtures`` (a reading learnt from blends), else the file itself, has the key ``prototypes``, which maps
    the name of a location to the 19 mean outputs of its cells, or to null. Returns (19, 19) float64 with rows of nan
    for locations without prototype, and the columns that hold the outputs of a cell (readings or probabilities); None
    where the file has no prototypes. Raises ValueError naming the file and the location whose prototype has not 19
    numbers.
    """
    decision = json.loads(path.read_text(encoding="utf-8"))
    learnt = decision.get("mixtures")
    named = (learnt or decision).get("prototypes")
    if named is None:
        return None
    if not isinstance(named, dict):
        raise ValueError(f"{path}: prototypes is {named!r}, no table of locations")
    prototypes = np.full((N_CLASSES, N_CLASSES), np.nan)
    for name, row in named.items():
        try:
            values = np.full(N_CLASSES, np.nan) if row is None else np.array(row, np.float64)
        except (TypeError, ValueError):
            values = np.zeros(0)
        if name not in NAMES or values.shape != (N_CLASSES,):
            raise ValueError(f"{path}: the prototype of {name!r} is not {N_CLASSES} numbers of a known location")
        prototypes[NAMES.index(name)] = values
    return (prototypes, MIXTURES if learnt else PROBABILITIES) if np.isfinite(prototypes).any() else None


def mixture_fractions(features: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """Infer the fraction of each location in each row by non-negative least squares on class prototypes.

    features (m, d), usually the mean over the cells of a field; prototypes (19, d) from ``class_prototypes``. Each row
    is written as a non-negative combination of the prototypes, its coefficients then scaled to sum to 1: argmin over f
    >= 0 of ||prototypes.T f - row||. Returns (m, 19) float64; 0 for a class without prototype, nan for a row that holds
    nan or that no prototype explains. Raises ValueError where no class has a prototype.
    """
    known = np.flatnonzero(np.isfinite(prototypes).all(axis=1))
    if not len(known):
        raise ValueError("no class has a prototype")
    fractions = np.zeros((len(features), N_CLASSES))
    for row, vector in enumerate(np.asarray(features, np.float64)):
        if not np.isfinite(vector).all():
            fractions[row] = np.nan
            continue
        weights, _ = nnls(prototypes[known].T, vector)
        fractions[row, known] = weights / weights.sum() if weights.sum() > 0 else np.nan
    return fractions


def reading_fractions(readings: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """Infer the fraction of each location from mean readings: a weighted mean of two estimates.

    readings (m, 19), each row a mean of ``read_mixtures`` over cells; prototypes (19, 19), the mean readings of cells
    of one class, nan for a class without. One estimate is ``mixture_fractions``, right on average and noisy; the other
    the readings themselves, negative ones cut off, steady and drawn to what blends have on average, so that the only
    location of a field stays below 1. They are the classical and the inverse estimator of calibration (Krutchkoff
    1967), and err in opposite directions. Returns (m, 19) float64, nan as ``mixture_fractions`` has it; the first
    estimate alone where no reading is positive. Raises ValueError where no class has a prototype.
    """
    classical = mixture_fractions(readings, prototypes)
    inverse = np.where(np.isfinite(prototypes).all(axis=1), np.maximum(readings, 0.0), 0.0).astype(np.float64)
    total = inverse.sum(axis=1, keepdims=True)
    inverse = np.divide(inverse, total, out=classical.copy(), where=total > 0)
    return _PROTOTYPE_WEIGHT * classical + (1.0 - _PROTOTYPE_WEIGHT) * inverse
