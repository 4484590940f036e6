"""Blends: cells whose green light comes from two cells, in a known fraction."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from hpaloc.classes import N_CLASSES, NEGATIVE
from hpaloc.mixtures.shape import DIRECTIONS, CellShape, cell_shape


def blendable_shape(tile: np.ndarray, channels: Sequence[str]) -> CellShape | None:
    """Return the shape of a cell that can be blended, None without a nucleus or green light.

    tile: (S, S, len(channels)) uint8, of one cell
    channels: its colours, with green and blue
    """
    shape = cell_shape(tile, channels)
    return shape if shape is not None and tile[..., channels.index("green")][shape.cell].any() else None


def _at(angles: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.interp(angles, np.append(DIRECTIONS, np.pi), np.append(values, values[0]))


def _laid_over(light: np.ndarray, source: CellShape, target: CellShape, turn: float, mirrored: bool) -> np.ndarray:
    """Return the light of a cell mapped onto another: nucleus onto nucleus, cytoplasm onto cytoplasm."""
    rows, columns = np.indices(target.cell.shape, dtype=np.float32)
    dy, dx = rows - target.middle[0], columns - target.middle[1]
    away, angle = np.hypot(dy, dx), np.arctan2(dy, dx)
    inner, outer = (_at(angle, radius) for radius in target.radii)
    # 0 in the middle, 1 at the edge of the nucleus, 2 at the edge of the cell.
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
    """Return a cell whose green light is its own by the given fraction, and another cell's for the rest.

    The other cell's green is rotated, mirrored and warped so that its nucleus and outline match those of the first
    cell, whose other colours stay. The total green light stays that of the first cell; it is reduced if more than one
    pixel in 500 would be brighter than 255.

    tile, other: (S, S, len(channels)) uint8, of one cell each
    shapes: their shapes
    turn: rad

    Returns (S, S, len(channels)) uint8, or None if the first has no green light or none of the second's falls into it.
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
    """Draw blends of two cells of different classes, with fractions uniform between 0 and 1.

    All classes are equally frequent; rotation and mirroring are random. ``threads`` affect only the time.

    tiles: (n, S, S, len(channels)) uint8
    shapes: their shapes by ``blendable_shape``
    single: (n,) int, their only class; -1 is left out, as is Negative

    Returns (m, S, S, len(channels)) uint8 and the fractions (m, 19) float32; pairs where none of the second cell's
    light falls into the first are missing from ``count``.
    Raises ValueError if fewer than two classes have a cell.
    """
    rng = np.random.default_rng(seed)
    classes = [int(index) for index in np.unique(single) if index not in (-1, NEGATIVE)]
    if len(classes) < 2:
        raise ValueError("blending needs cells of two locations, and fewer than two have a cell")
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
