"""The positions and outlines of cells and nuclei."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy import ndimage

from hpaloc.simulate.cell_lines import LineShape

MARGIN = 14.0  # µm of canvas around the picture, so that its edge cuts cells instead of cells ending there
_MIN_NUCLEUS = 8.0  # µm² of nucleus inside the picture for a cell to be part of the field
_ANGLES = 360


@dataclass
class Cell:
    """A cell of the layout; positions (y, x) and lengths in canvas pixels, angles in radians.

    Outlines are radii in 360 directions from their centre. ``furnish`` fills in the fields after ``line``.
    """

    centre: np.ndarray
    outline: np.ndarray
    nucleus_centre: np.ndarray
    nucleus_outline: np.ndarray
    axis: float
    mitotic: bool
    line: LineShape
    centrosome: np.ndarray = field(default_factory=lambda: np.zeros(2))
    nucleoli: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    poles: tuple[np.ndarray, ...] = ()


def _outline(
    rng: np.random.Generator, radius: float, aspect: float, axis: float, lobes: float, smoothness: float = 0.8
) -> np.ndarray:
    """Return the radius in 360 directions of an ellipse with random lobes.

    Lobes of order k are smaller by (k - 1) to the power ``smoothness``.
    """
    angle = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
    along, across = radius * np.sqrt(aspect), radius / np.sqrt(aspect)
    outline = along * across / np.sqrt((across * np.cos(angle - axis)) ** 2 + (along * np.sin(angle - axis)) ** 2)
    for wave in range(2, 8):
        outline = outline * (
            1 + lobes * rng.normal() / (wave - 1) ** smoothness * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
        )
    return outline


def _protrude(rng: np.random.Generator, outline: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return the outline with a tapering protrusion in each direction."""
    angle = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
    for direction in directions:
        away = np.abs((angle - direction + np.pi) % (2 * np.pi) - np.pi)
        outline = outline * (1 + rng.uniform(0.2, 0.6) * np.exp(-((away / rng.uniform(0.14, 0.4)) ** 2)))
    return outline


def radius_at(outline: np.ndarray, angle: float) -> float:
    """Return the radius of an ``outline``, (360,) float64, in the direction ``angle`` in radians."""
    return float(outline[int(angle * _ANGLES / (2 * np.pi)) % _ANGLES])


def point_at(centre: np.ndarray, angle: float, distance: float) -> np.ndarray:
    """Return the point (2,) float64 at a ``distance`` from ``centre``, (2,) as (y, x), in the direction ``angle``."""
    return centre + distance * np.array([np.sin(angle), np.cos(angle)])


def _place(
    rng: np.random.Generator, line: LineShape, height: float, width: float, mitotic_fraction: float, density: float
) -> list[tuple[np.ndarray, float, float, float, bool]]:
    """Return (centre, radius, aspect, axis, mitotic) of each cell, in µm from the picture's corner.

    With the probability ``crowding`` of the line a new cell is put next to an old one, otherwise anywhere, so that
    islands and gaps arise; distances are measured in a frame shrunk along the field's common direction by the cells'
    aspect.
    """
    direction = rng.uniform(0, np.pi)
    squeeze = np.sqrt(np.mean(line.aspect))
    turn = np.array([[np.cos(direction), -np.sin(direction)], [np.sin(direction), np.cos(direction)]])
    frame = np.diag([squeeze, 1 / squeeze]) @ turn
    back = np.linalg.inv(frame)
    wanted = max(1, round(height * width / 1000 * line.density * density * rng.uniform(0.75, 1.2)))
    placed: list[tuple[np.ndarray, float, float, float, bool]] = []
    framed = np.zeros((0, 2))
    radii = np.zeros(0)
    for _ in range(60 * wanted):
        if len(placed) == wanted:
            break
        mitotic = bool(rng.random() < mitotic_fraction)
        radius = rng.uniform(8.5, 10.5) if mitotic else rng.uniform(*line.radius)
        aspect = rng.uniform(1.0, 1.15) if mitotic else rng.uniform(*line.aspect)
        axis = direction + (rng.normal(0, 0.3) if line.aspect[0] > 1.5 else rng.uniform(0, np.pi))
        crowded = bool(placed) and rng.random() < line.crowding
        if crowded:
            parent = rng.integers(len(placed))
            near = line.spacing * (radius + radii[parent]) * rng.uniform(1.0, 1.1)
            spot = back @ point_at(framed[parent], rng.uniform(0, 2 * np.pi), near)
        else:
            spot = rng.uniform((-4.0, -4.0), (height + 4.0, width + 4.0))
        if not (-4 <= spot[0] <= height + 4 and -4 <= spot[1] <= width + 4):
            continue
        here = frame @ spot
        least = line.spacing * (radii + radius)
        if len(placed) and np.any(((framed - here) ** 2).sum(1) < (least * 0.999) ** 2):
            continue
        placed.append((spot, radius, aspect, axis, mitotic))
        framed = np.vstack([framed, here])
        radii = np.append(radii, radius)
    return placed


def lay_out(
    rng: np.random.Generator,
    line: LineShape,
    shape: tuple[int, int],
    um: float,
    mitotic_fraction: float,
    density: float,
) -> tuple[list[Cell], np.ndarray, np.ndarray]:
    """Lay out the cells of a field on a canvas that reaches MARGIN beyond the picture.

    shape: (height, width) of the picture, px
    um: pixels in 1 µm
    mitotic_fraction: the share of cells that divide
    density: scales the number of cells
    Returns the cells and their label images on the canvas (cells, nuclei), each (H, W) uint16, ids from 1 in the order
    of the cells.
    """
    margin = round(MARGIN * um)
    canvas = (shape[0] + 2 * margin, shape[1] + 2 * margin)
    cells = []
    for spot, radius, aspect, axis, mitotic in _place(
        rng, line, shape[0] / um, shape[1] / um, mitotic_fraction, density
    ):
        centre = spot * um + margin
        if mitotic:
            outline = _outline(rng, radius * um, aspect, axis, 0.015)
            nucleus_outline = _outline(rng, 2.9 * um * rng.uniform(0.9, 1.1), rng.uniform(3.4, 4.6), axis, 0.045)
            nucleus_centre = centre + rng.normal(0, 0.3 * um, 2)
        else:
            outline = _outline(rng, radius * um, aspect, axis, 0.035 + line.lobes * 0.8)
            directions = rng.uniform(0, 2 * np.pi, rng.integers(line.protrusions[0], line.protrusions[1] + 1))
            if line.aspect[0] > 1.5:
                # A spindle-shaped cell protrudes at its two ends.
                directions = axis + np.pi * np.arange(len(directions)) + rng.normal(0, 0.2, len(directions))
            outline = _protrude(rng, outline, directions)
            lobes = line.lobes * (2.2 if rng.random() < 0.2 else 0.8)
            nucleus_axis = axis + rng.normal(0, 0.35)
            nucleus_outline = _outline(
                rng, rng.uniform(*line.nucleus) * um, rng.uniform(*line.nucleus_aspect), nucleus_axis, lobes, 1.5
            )
            shift = rng.uniform(0, 0.22) * radius * um
            nucleus_centre = point_at(centre, rng.uniform(0, 2 * np.pi), shift)
        cells.append(Cell(centre, outline, nucleus_centre, nucleus_outline, axis, mitotic, line))
    nuclei, nearest = np.zeros(canvas, np.uint16), np.ones(canvas, np.float32)
    labels, nearest_cell = np.zeros(canvas, np.uint16), np.ones(canvas, np.float32)
    for id, cell in enumerate(cells, 1):
        _claim(nuclei, nearest, id, cell.nucleus_centre, cell.nucleus_outline, 1.0)
        # A cell in mitosis is round and stiff: it pushes its neighbours aside.
        _claim(labels, nearest_cell, id, cell.centre, cell.outline, 0.6 if cell.mitotic else 1.0)
    np.copyto(labels, nuclei, where=nuclei > 0)
    _keep_largest(nuclei, len(cells))
    _keep_largest(labels, len(cells))
    nuclei[nuclei != labels] = 0
    picture = nuclei[margin : margin + shape[0], margin : margin + shape[1]]
    visible = np.bincount(picture.ravel(), minlength=len(cells) + 1)[1:] >= _MIN_NUCLEUS * um**2
    renumber = np.zeros(len(cells) + 1, np.uint16)
    renumber[1:][visible] = np.arange(1, visible.sum() + 1)
    return [cell for cell, keep in zip(cells, visible, strict=True) if keep], renumber[labels], renumber[nuclei]


def _claim(
    labels: np.ndarray, nearest: np.ndarray, id: int, centre: np.ndarray, outline: np.ndarray, stiffness: float
) -> None:
    """Give ``id`` the pixels inside the outline that are nearest to this centre, in units of the outlines."""
    reach = outline.max() + 2
    y0, x0 = np.maximum(np.floor(centre - reach).astype(int), 0)
    y1, x1 = np.minimum(np.ceil(centre + reach).astype(int), np.array(labels.shape))
    if y1 <= y0 or x1 <= x0:
        return
    dy = (np.arange(y0, y1) - centre[0])[:, None]
    dx = (np.arange(x0, x1) - centre[1])[None]
    turn = np.arctan2(dy, dx) * (_ANGLES / (2 * np.pi)) % _ANGLES
    index = turn.astype(np.intp)
    part = turn - index
    closed = np.append(outline, outline[:2])
    radius = closed[index] * (1 - part) + closed[index + 1] * part
    distance = np.sqrt(dy**2 + dx**2) / radius
    patch = nearest[y0:y1, x0:x1]
    mine = (distance < 1) & (distance * stiffness < patch)
    patch[mine] = distance[mine] * stiffness
    labels[y0:y1, x0:x1][mine] = id


def _keep_largest(labels: np.ndarray, n: int) -> None:
    """Keep the largest connected piece of each id, in place."""
    for id, box in enumerate(ndimage.find_objects(labels, n), 1):
        if box is None:
            continue
        patch = labels[box]
        mine = patch == id
        count, pieces, stats, _ = cv2.connectedComponentsWithStats(mine.view(np.uint8), connectivity=4)
        if count > 2:
            patch[mine & (pieces != 1 + stats[1:, cv2.CC_STAT_AREA].argmax())] = 0
