"""Simulated confocal fields of the Human Protein Atlas kind, with truth masks and truth labels per cell.

A field is built in this order: cells and nuclei are laid out on a canvas wider than the picture, organelles are
drawn into the red, blue and yellow reference colours, the protein of interest is drawn into green in the pattern of
the field's labels, and a camera with blur, uneven light and noise takes the picture.

The same seed gives the same bytes on any machine: geometry is computed in float64 and rounded to whole pixels or
sixteenths, textures and blur use OpenCV's bit-exact integer filters, and everything per pixel is made of additions,
products, quotients and square roots, which IEEE 754 rounds alike everywhere.

Every ``draw_…`` function draws one pattern from a scene of n cells: ``chosen`` (n + 1,) bool says by id which cells
have it (0 is the background), and the signal that it returns is (H, W) float32, of the order of 1, before blur, camera
and noise.
"""

import csv
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage

from hpaloc.classes import COLOURS, N_CLASSES, NEGATIVE, format_labels
from hpaloc.files import FileNameError, all_or_none, names_checked
from hpaloc.manifests import ManifestRow, read_manifest
from hpaloc.progress import log, track

(
    NUCLEOPLASM,
    NUCLEAR_MEMBRANE,
    NUCLEOLI,
    FIBRILLAR_CENTER,
    NUCLEAR_SPECKLES,
    NUCLEAR_BODIES,
    ENDOPLASMIC_RETICULUM,
    GOLGI,
    INTERMEDIATE_FILAMENTS,
    ACTIN,
    MICROTUBULES,
    MITOTIC_SPINDLE,
    CENTROSOME,
    PLASMA_MEMBRANE,
    MITOCHONDRIA,
    AGGRESOME,
    CYTOSOL,
    VESICLES,
) = range(N_CLASSES - 1)

_MARGIN = 14.0  # µm of canvas around the picture, so that cells are cut by the edge rather than end at it
_MIN_NUCLEUS = 8.0  # µm² of nucleus inside the picture for a cell to be part of the field
_VISIBLE = 0.2  # share of a pattern's signal inside the picture for the cell to carry its label
_ANGLES = 360
_SUBPIXEL = 4  # binary digits of the fraction in OpenCV's drawing coordinates


@dataclass(frozen=True)
class CellShape:
    """How the cells of a line look: sizes in µm, ratios without unit, ``density`` in cells per 1000 µm²."""

    radius: tuple[float, float]
    aspect: tuple[float, float]
    nucleus: tuple[float, float]
    nucleus_aspect: tuple[float, float]
    lobes: float
    protrusions: tuple[int, int]
    spacing: float
    crowding: float
    density: float


SHAPES = {
    "cobblestone": CellShape((11.5, 15.0), (1.0, 1.35), (6.2, 7.6), (1.05, 1.5), 0.05, (0, 0), 0.72, 0.85, 0.90),
    "spread": CellShape((12.5, 17.5), (1.0, 1.6), (6.6, 8.2), (1.15, 1.7), 0.09, (1, 4), 0.74, 0.30, 0.70),
    "spindle": CellShape((9.5, 12.5), (2.2, 3.6), (5.6, 6.8), (1.4, 2.1), 0.06, (1, 2), 0.84, 0.35, 0.70),
    "round": CellShape((9.5, 12.0), (1.0, 1.25), (5.8, 7.0), (1.0, 1.3), 0.03, (0, 1), 0.78, 0.70, 1.05),
}

# The usual look of the lines that the Atlas uses most; a line that is not listed gets one shape by its name.
CELL_LINES = {
    "A-431": "cobblestone",
    "A549": "cobblestone",
    "CACO-2": "cobblestone",
    "HaCaT": "cobblestone",
    "Hep G2": "cobblestone",
    "MCF7": "cobblestone",
    "RT4": "cobblestone",
    "HeLa": "spread",
    "PC-3": "spread",
    "SiHa": "spread",
    "U-2 OS": "spread",
    "U-251 MG": "spread",
    "SK-MEL-30": "spread",
    "RH-30": "spread",
    "ASC TERT1": "spindle",
    "BJ": "spindle",
    "fHDF/TERT166": "spindle",
    "HUVEC TERT2": "spindle",
    "SH-SY5Y": "spindle",
    "hTERT-RPE1": "spindle",
    "HEK 293": "round",
    "HL-60": "round",
    "K-562": "round",
    "REH": "round",
    "THP-1": "round",
}


@dataclass(frozen=True)
class SimulatedField:
    """One field: pictures by colour (H, W), label images of cells and nuclei (H, W) uint16, and the truth.

    Ids run from 1 without gaps and are shared by the two label images; each cell has a nucleus in the picture (for
    a cell in mitosis: its plate). ``truth`` lists (id, labels) of every cell, (18,) where no protein is to be seen.
    """

    images: dict[str, np.ndarray]
    cells: np.ndarray
    nuclei: np.ndarray
    truth: list[tuple[int, tuple[int, ...]]]


@dataclass
class _Cell:
    """A cell of the layout; positions (y, x) and lengths in canvas pixels, angles in radians."""

    centre: np.ndarray
    outline: np.ndarray
    nucleus_centre: np.ndarray
    nucleus_outline: np.ndarray
    axis: float
    mitotic: bool
    line: CellShape
    centrosome: np.ndarray = field(default_factory=lambda: np.zeros(2))
    nucleoli: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    poles: tuple[np.ndarray, ...] = ()


class _Scene:
    """The laid-out cells on their canvas, and the maps from which every pattern is drawn.

    ``um`` is the number of pixels in 1 µm. Distances are in µm: ``edge`` from the cell's own border inward,
    ``free`` inward from where no cell is, ``outside`` from the nearest nucleus outward, ``inside`` from the nuclear
    border inward. ``radial`` runs from 0 at a nucleus to 1 at the cell's border.
    """

    def __init__(
        self, cells: list[_Cell], labels: np.ndarray, nuclei: np.ndarray, um: float, seed: np.random.SeedSequence
    ):
        self.cells, self.labels, self.nuclei, self.um = cells, labels, nuclei, um
        self.shape = labels.shape
        self.mitotic = np.array([False] + [cell.mitotic for cell in cells])
        border = np.zeros(self.shape, bool)
        border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
        border[1:] |= labels[1:] != labels[:-1]
        self.cell = labels > 0
        self.nucleus = nuclei > 0
        self.edge = self._distance(self.cell & ~border)
        self.free = self._distance(self.cell)
        self.outside = self._distance(~self.nucleus)
        touching = np.zeros(self.shape, bool)
        touching[:, 1:] |= nuclei[:, 1:] != nuclei[:, :-1]
        touching[1:] |= nuclei[1:] != nuclei[:-1]
        self.inside = self._distance(self.nucleus & ~touching)
        self.radial = self.outside / (self.outside + self.edge + np.float32(1e-3))
        # Touching cells leave a narrow dim seam; a free border thins out more slowly.
        self.soft_cell = _ramp(self.free, 0.0, 1.0) * (0.7 + 0.3 * _ramp(self.edge, 0.0, 0.45))
        self.soft_nucleus = _ramp(self.inside, 0.0, 0.35)
        self.boxes = ndimage.find_objects(labels)
        self.area = np.bincount(labels.ravel(), minlength=len(cells) + 1) / um**2
        self._noise = np.random.default_rng(seed).integers(0, 65536, self.shape, dtype=np.uint16)

    def _distance(self, mask: np.ndarray) -> np.ndarray:
        return cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * np.float32(1 / self.um)

    def texture(self, size: float, shift: int) -> np.ndarray:
        """Return smooth Gaussian noise of mean 0 and deviation 1, float32; ``size`` is its sigma in µm.

        Textures of different ``shift`` are unrelated.
        """
        sigma = max(size * self.um, 0.6)
        factor = 1
        while sigma / factor > 4:
            factor *= 2
        height, width = (-(-length // factor) for length in self.shape)
        noise = np.roll(self._noise, 37 * shift, axis=(0, 1))[:height, :width]
        sigma /= factor
        smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
        if factor > 1:
            smooth = cv2.resize(smooth, self.shape[::-1], interpolation=cv2.INTER_LINEAR_EXACT)
        # White noise of deviation s has deviation s / (2 sqrt(pi) sigma) after a Gaussian of that sigma.
        return (smooth.astype(np.float32) - 32767.5) * np.float32(2 * np.sqrt(np.pi) * sigma / 18918.6)

    def look_up(self, points: np.ndarray, image: np.ndarray) -> np.ndarray:
        """Return the values of an image at points (n, 2); points beyond the canvas take its border's values."""
        y = np.clip(np.rint(points[:, 0]).astype(np.intp), 0, self.shape[0] - 1)
        x = np.clip(np.rint(points[:, 1]).astype(np.intp), 0, self.shape[1] - 1)
        return image[y, x]


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the smooth step from 0 at ``low`` to 1 at ``high`` (3t² - 2t³), float32."""
    t = np.clip((values - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def _outline(
    rng: np.random.Generator, radius: float, aspect: float, axis: float, lobes: float, smoothness: float = 0.8
) -> np.ndarray:
    """Return the radius at 360 directions of an ellipse of given mean radius with random lobes.

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


def _reach(outline: np.ndarray, angle: float) -> float:
    return float(outline[int(angle * _ANGLES / (2 * np.pi)) % _ANGLES])


def _point(centre: np.ndarray, angle: float, distance: float) -> np.ndarray:
    return centre + distance * np.array([np.sin(angle), np.cos(angle)])


def _place(
    rng: np.random.Generator, line: CellShape, height: float, width: float, mitotic_fraction: float, density: float
) -> list[tuple[np.ndarray, float, float, float, bool]]:
    """Return (centre, radius, aspect, axis, mitotic) of each cell, in µm from the picture's corner.

    New cells are put beside an old one with the line's ``crowding`` and anywhere otherwise, so that islands and gaps
    arise; distances are measured in a frame shrunk along the field's common direction by the cells' aspect.
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
            spot = back @ _point(framed[parent], rng.uniform(0, 2 * np.pi), near)
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


def _lay_out(
    rng: np.random.Generator,
    line: CellShape,
    shape: tuple[int, int],
    um: float,
    mitotic_fraction: float,
    density: float,
) -> tuple[list[_Cell], np.ndarray, np.ndarray]:
    """Return the cells with their label images on the canvas (cells, nuclei), ids from 1 in order of the cells."""
    margin = round(_MARGIN * um)
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
                # A spindly cell draws out its two ends.
                directions = axis + np.pi * np.arange(len(directions)) + rng.normal(0, 0.2, len(directions))
            outline = _protrude(rng, outline, directions)
            lobes = line.lobes * (2.2 if rng.random() < 0.2 else 0.8)
            nucleus_axis = axis + rng.normal(0, 0.35)
            nucleus_outline = _outline(
                rng, rng.uniform(*line.nucleus) * um, rng.uniform(*line.nucleus_aspect), nucleus_axis, lobes, 1.5
            )
            shift = rng.uniform(0, 0.22) * radius * um
            nucleus_centre = _point(centre, rng.uniform(0, 2 * np.pi), shift)
        cells.append(_Cell(centre, outline, nucleus_centre, nucleus_outline, axis, mitotic, line))
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
    """Give ``id`` the pixels inside the outline that are, in units of the outlines, nearest to this centre."""
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
    """Leave of each id the largest connected piece, in place."""
    for id, box in enumerate(ndimage.find_objects(labels, n), 1):
        if box is None:
            continue
        patch = labels[box]
        mine = patch == id
        count, pieces, stats, _ = cv2.connectedComponentsWithStats(mine.view(np.uint8), connectivity=4)
        if count > 2:
            patch[mine & (pieces != 1 + stats[1:, cv2.CC_STAT_AREA].argmax())] = 0


def _furnish(rng: np.random.Generator, scene: _Scene) -> None:
    """Give each cell its centrosome and its nucleoli or, where it divides, the poles of its spindle."""
    um = scene.um
    for id, cell in enumerate(scene.cells, 1):
        angles = rng.uniform(0, 2 * np.pi, 8)
        gaps = rng.uniform(0.7, 1.8, 8) * um
        spots = np.array(
            [
                _point(cell.nucleus_centre, angle, _reach(cell.nucleus_outline, angle) + gap)
                for angle, gap in zip(angles, gaps, strict=True)
            ]
        )
        fits = (scene.look_up(spots, scene.labels) == id) & (scene.look_up(spots, scene.nuclei) == 0)
        if fits.any():
            cell.centrosome = spots[np.where(fits, scene.look_up(spots, scene.edge), -1.0).argmax()]
        else:
            box = scene.boxes[id - 1]
            room = np.where((scene.labels[box] == id) & ~scene.nucleus[box], scene.edge[box], -1.0)
            y, x = np.unravel_index(room.argmax(), room.shape)
            cell.centrosome = np.array([box[0].start + y, box[1].start + x], float)
        if cell.mitotic:
            normal = cell.axis + np.pi / 2 + rng.normal(0, 0.08)
            reach = rng.uniform(4.4, 5.6, 2) * um * (1, -1)
            cell.poles = tuple(_point(cell.nucleus_centre, normal, distance) for distance in reach)
            continue
        size = cell.nucleus_outline.mean()
        wanted = rng.integers(2, 6)
        for _ in range(40):
            if len(cell.nucleoli) == wanted:
                break
            radius = rng.uniform(0.10, 0.20) * size
            angle = rng.uniform(0, 2 * np.pi)
            rim = _reach(cell.nucleus_outline, angle)
            y, x = _point(cell.nucleus_centre, angle, rng.uniform(0, 0.68) * rim)
            if all((y - b) ** 2 + (x - a) ** 2 > (1.15 * (radius + r)) ** 2 for b, a, r, _, _ in cell.nucleoli):
                cell.nucleoli.append((y, x, radius, rng.uniform(1.0, 1.6), rng.uniform(0, np.pi)))


class _Pen:
    """Draws dots and lines on an 8-bit layer; positions in canvas pixels, thickness and radius in µm."""

    def __init__(self, scene: _Scene):
        self.scene = scene
        self.layer = np.zeros(scene.shape, np.uint8)

    def dot(self, centre: np.ndarray, radius: float, level: float) -> None:
        y, x = (round(value) for value in centre * (1 << _SUBPIXEL))
        size = max(round(radius * self.scene.um * (1 << _SUBPIXEL)), 1 << _SUBPIXEL >> 1)
        cv2.circle(self.layer, (x, y), size, (255 * level,), -1, cv2.LINE_AA, _SUBPIXEL)

    def blob(self, y: float, x: float, radius: float, aspect: float, axis: float, level: float) -> None:
        """Draw a filled, slightly uneven ellipse; here ``radius`` is in pixels."""
        angle = np.arange(24) * (np.pi / 12)
        rim = radius * (1 + 0.12 * np.cos(2 * angle + 7 * axis) + 0.09 * np.cos(3 * angle + 5 * axis))
        dx, dy = rim * np.sqrt(aspect) * np.cos(angle), rim / np.sqrt(aspect) * np.sin(angle)
        points = np.stack([x + dx * np.cos(axis) - dy * np.sin(axis), y + dx * np.sin(axis) + dy * np.cos(axis)], 1)
        cv2.fillPoly(self.layer, [_fixed(points)], (255 * level,), cv2.LINE_AA, _SUBPIXEL)

    def lines(self, paths: Sequence[np.ndarray], thickness: float, level: float) -> None:
        """Draw open lines through points (n, 2) given as (y, x)."""
        width = max(1, round(thickness * self.scene.um))
        points = [_fixed(path[:, ::-1]) for path in paths]
        cv2.polylines(self.layer, points, False, (255 * level,), width, cv2.LINE_AA, _SUBPIXEL)

    def signal(self) -> np.ndarray:
        return self.layer.astype(np.float32) * np.float32(1 / 255)


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.rint(points * (1 << _SUBPIXEL)).astype(np.int32)


def _scatter(
    rng: np.random.Generator,
    scene: _Scene,
    counts: np.ndarray,
    chance: Callable[[np.ndarray], np.ndarray],
    around: Callable[[_Cell], tuple[np.ndarray, float]] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return random points (n, 2) in the cells and their owners (n,).

    ``counts`` (ids from 1, so the first entry is unused) is how many points a cell gets at most; ``chance`` gives the
    probability to accept each of (m, 2) candidates; ``around`` limits a cell's candidates to a disc (centre, radius).
    """
    owners = np.repeat(np.arange(len(counts)), np.where(counts > 0, counts * 8 + 24, 0))
    if not len(owners):
        return np.zeros((0, 2)), np.zeros(0, np.intp)
    corner, size = np.zeros((len(counts), 2)), np.zeros((len(counts), 2))
    for id, cell in enumerate(scene.cells, 1):
        if around is None:
            box = scene.boxes[id - 1]
            corner[id] = [part.start for part in box]
            size[id] = [part.stop - part.start for part in box]
        else:
            centre, radius = around(cell)
            corner[id], size[id] = centre - radius, 2 * radius
    points = corner[owners] + rng.random((len(owners), 2)) * size[owners]
    good = scene.look_up(points, scene.labels) == owners
    if around is not None:
        good &= (((points - corner[owners]) / size[owners] - 0.5) ** 2).sum(1) < 0.25
    good &= rng.random(len(owners)) < chance(points)
    points, owners = points[good], owners[good]
    rank = np.arange(len(owners)) - np.searchsorted(owners, owners)
    taken = rank < counts[owners]
    return points[taken], owners[taken]


def _grow(
    rng: np.random.Generator,
    scene: _Scene,
    start: np.ndarray,
    heading: np.ndarray,
    owner: np.ndarray,
    length: float | np.ndarray,
    step: float,
    wiggle: float,
    through_nucleus: bool = False,
    edge: float = 1.2,
) -> list[np.ndarray]:
    """Grow threads inside their cells, all at once, and return their paths (m, 2) as (y, x).

    ``length`` and ``step`` in µm; ``wiggle`` is the standard deviation of the bend in radians per step. A thread bends
    along the cell's border within ``edge`` µm of it, likewise along the nucleus, and ends where it would leave.
    """
    um = scene.um
    n = len(start)
    steps = np.ceil(np.broadcast_to(np.asarray(length, float), (n,)) / step).astype(int)
    paths = np.empty((int(steps.max(initial=0)) + 1, n, 2))
    paths[0] = start
    ends = np.zeros(n, int)
    velocity = np.stack([np.sin(heading), np.cos(heading)], 1)
    bend = np.zeros(n)
    alive = np.ones(n, bool)
    height, width = scene.shape
    for k in range(1, len(paths)):
        position = paths[k - 1]
        bend = 0.6 * bend + rng.normal(0, wiggle, n)
        cos, sin = np.cos(bend), np.sin(bend)
        velocity = np.stack(
            [velocity[:, 0] * cos + velocity[:, 1] * sin, velocity[:, 1] * cos - velocity[:, 0] * sin], 1
        )
        y = np.clip(np.rint(position[:, 0]).astype(np.intp), 2, height - 3)
        x = np.clip(np.rint(position[:, 1]).astype(np.intp), 2, width - 3)
        walls = [(scene.edge, edge)] if through_nucleus else [(scene.edge, edge), (scene.outside, 0.9)]
        for wall, reach in walls:
            slope = np.stack([wall[y + 2, x] - wall[y - 2, x], wall[y, x + 2] - wall[y, x - 2]], 1).astype(float)
            slope /= np.sqrt((slope**2).sum(1, keepdims=True)) + 1e-9
            near = np.clip(1 - wall[y, x] / reach, 0, 1)
            into = np.minimum((velocity * slope).sum(1), 0) * near
            velocity -= into[:, None] * slope
        velocity /= np.sqrt((velocity**2).sum(1, keepdims=True)) + 1e-9
        ahead = position + velocity * (step * um)
        alive &= (scene.look_up(ahead, scene.labels) == owner) & (k <= steps)
        if not through_nucleus:
            alive &= scene.look_up(ahead, scene.nuclei) == 0
        paths[k] = np.where(alive[:, None], ahead, position)
        ends += alive
    return [paths[: end + 1, i] for i, end in enumerate(ends) if end]


def _tangent(
    rng: np.random.Generator, scene: _Scene, points: np.ndarray, wall: np.ndarray, spread: float
) -> np.ndarray:
    """Return headings (n,) along the contours of a distance map, either way, with a random spread in radians."""
    y = np.clip(np.rint(points[:, 0]).astype(np.intp), 2, scene.shape[0] - 3)
    x = np.clip(np.rint(points[:, 1]).astype(np.intp), 2, scene.shape[1] - 3)
    dy = (wall[y + 2, x] - wall[y - 2, x]).astype(float)
    dx = (wall[y, x + 2] - wall[y, x - 2]).astype(float)
    return np.arctan2(dy, dx) + np.pi / 2 + np.pi * rng.integers(0, 2, len(points)) + rng.normal(0, spread, len(points))


def _layers(scene: _Scene, paths: list[np.ndarray], thickness: float, levels: Sequence[float]) -> np.ndarray:
    """Return threads drawn in as many layers as levels and added up, so that crossings are brighter."""
    total = np.zeros(scene.shape, np.float32)
    for k, level in enumerate(levels):
        pen = _Pen(scene)
        pen.lines(paths[k :: len(levels)], thickness, level)
        total += pen.signal()
    return total


def _where(scene: _Scene, chosen: np.ndarray, number: Callable[[int, _Cell], float]) -> np.ndarray:
    """Return counts per id (0 first) for the chosen cells."""
    counts = np.zeros(len(scene.cells) + 1, int)
    for id, cell in enumerate(scene.cells, 1):
        if chosen[id]:
            counts[id] = round(number(id, cell))
    return counts


def _cytoplasm(scene: _Scene, points: np.ndarray, gap: float = 0.4) -> np.ndarray:
    return (scene.look_up(points, scene.outside) > gap) & (scene.look_up(points, scene.edge) > gap)


def draw_microtubules(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw fine filaments that leave the centrosome and fill the cytoplasm; a spindle where the cell divides."""
    resting = chosen & ~scene.mitotic
    centred = _where(scene, resting, lambda id, cell: scene.area[id] * 0.10)
    start, owner = _scatter(
        rng, scene, centred, lambda p: _cytoplasm(scene, p, 0.1), lambda cell: (cell.centrosome, 1.6 * scene.um)
    )
    heading = rng.uniform(0, 2 * np.pi, len(start))
    spread = _where(scene, resting, lambda id, cell: scene.area[id] * 0.30)
    more, more_owner = _scatter(
        rng, scene, spread, lambda p: _cytoplasm(scene, p) * (1 - 0.6 * scene.look_up(p, scene.radial))
    )
    home = np.array([(cell.centrosome + cell.nucleus_centre) / 2 for cell in scene.cells]).reshape(-1, 2)
    away = more - home[more_owner - 1]
    outward = np.arctan2(away[:, 0], away[:, 1]) + rng.normal(0, 0.6, len(more))
    along = _tangent(rng, scene, more, scene.outside, 0.4)
    outward = np.where(rng.random(len(more)) < 0.45, along, outward)
    start, owner = np.concatenate([start, more]), np.concatenate([owner, more_owner])
    heading = np.concatenate([heading, outward])
    paths = _grow(rng, scene, start, heading, owner, rng.uniform(5, 20, len(start)), 0.9, 0.13, edge=0.7)
    signal = _layers(scene, paths, 0.17, (0.5, 0.36, 0.26, 0.2))
    above, above_owner = _scatter(
        rng,
        scene,
        _where(scene, resting, lambda id, cell: rng.integers(0, 14)),
        lambda p: scene.look_up(p, scene.outside) < 0.8,
    )
    heading = rng.uniform(0, 2 * np.pi, len(above))
    over = _grow(rng, scene, above, heading, above_owner, rng.uniform(5, 14, len(above)), 0.9, 0.1, True)
    return signal + _layers(scene, over, 0.17, (0.09,)) + draw_spindle(rng, scene, chosen & scene.mitotic)


def draw_spindle(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw two poles, the fibres from them to the plate, and short asters."""
    um = scene.um
    pens = [_Pen(scene) for _ in range(3)]
    for id, cell in enumerate(scene.cells, 1):
        if not chosen[id]:
            continue
        width = rng.uniform(3.4, 4.6)
        for pole in cell.poles:
            for k, offset in enumerate(np.linspace(-1, 1, 27) + rng.normal(0, 0.03, 27)):
                end = _point(cell.nucleus_centre, cell.axis, offset * width * um)
                bow = _point((pole + end) / 2, cell.axis, offset * width * 0.36 * um)
                t = np.linspace(0, rng.uniform(0.75, 1.0), 9)[:, None]
                fibre = (1 - t) ** 2 * pole + 2 * t * (1 - t) * bow + t**2 * end
                pens[k % 3].lines([fibre], 0.17, rng.uniform(0.25, 0.6))
            for angle in rng.uniform(0, 2 * np.pi, 14):
                pens[0].lines([np.stack([pole, _point(pole, angle, rng.uniform(1.2, 3.2) * um)])], 0.17, 0.2)
            pens[1].dot(pole, rng.uniform(0.45, 0.65), 0.8)
    return sum(pen.signal() for pen in pens) * scene.cell


def draw_intermediate_filaments(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw wavy bundles that wrap the nucleus like a basket and thin out before the cell's border."""
    counts = _where(scene, chosen & ~scene.mitotic, lambda id, cell: 40 + scene.area[id] * 0.12)
    start, owner = _scatter(
        rng, scene, counts, lambda p: _cytoplasm(scene, p, 0.2) * (1 - _ramp(scene.look_up(p, scene.outside), 0.3, 5.0))
    )
    heading = _tangent(rng, scene, start, scene.outside, 0.75)
    paths = _grow(rng, scene, start, heading, owner, rng.uniform(5, 14, len(start)), 0.6, 0.24, edge=2.5)
    fine = _layers(scene, paths, 0.17, (0.75, 0.55, 0.4))
    bundles = _layers(scene, paths[::4], 0.42, (0.4, 0.3))
    uneven = np.clip(1 + 0.25 * scene.texture(0.9, 10), 0.3, 1.7)
    return (fine + bundles) * uneven * (1 - 0.8 * _ramp(scene.radial, 0.3, 0.95))


def draw_actin(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw straight parallel stress fibres across the whole cell and a cortical line."""
    axes = np.array([0.0] + [cell.axis + rng.normal(0, 0.25) for cell in scene.cells])
    resting = chosen & ~scene.mitotic
    signal = np.zeros(scene.shape, np.float32)
    for density, thickness, levels in ((0.03, 0.3, (0.7, 0.45)), (0.1, 0.16, (0.45, 0.3, 0.2))):
        counts = np.where(resting, np.rint(5 + scene.area * density), 0).astype(int)
        start, owner = _scatter(rng, scene, counts, lambda p: scene.look_up(p, scene.edge) > 0.3)
        heading = axes[owner] + rng.normal(0, 0.09, len(owner))
        length = rng.uniform(2, 12, len(start))
        one = _grow(rng, scene, start, heading, owner, length, 1.0, 0.012, True, 0.3)
        other = _grow(rng, scene, start, heading + np.pi, owner, length, 1.0, 0.012, True, 0.3)
        signal += _layers(scene, one + other, thickness, levels)
    cortex = np.clip(1 - scene.edge / 0.55, 0, 1) * scene.cell
    beaded = np.clip(1 + 0.18 * scene.texture(0.3, 9), 0.3, 1.6)
    return signal * beaded + 0.6 * cortex * np.clip(0.55 + 0.3 * scene.texture(1.6, 11), 0.1, 1.2)


def draw_mitochondria(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw worm-like threads that fill the cytoplasm, denser towards the nucleus."""
    counts = _where(scene, chosen & ~scene.mitotic, lambda id, cell: scene.area[id] * 0.22)
    start, owner = _scatter(
        rng, scene, counts, lambda p: _cytoplasm(scene, p, 0.5) * (1 - 0.85 * scene.look_up(p, scene.radial))
    )
    heading = rng.uniform(0, 2 * np.pi, len(start))
    paths = _grow(rng, scene, start, heading, owner, rng.uniform(0.8, 4.0, len(start)), 0.4, 0.3)
    uneven = np.clip(1 + 0.2 * scene.texture(0.3, 8), 0.3, 1.6)
    return _layers(scene, paths, 0.34, (0.8, 0.6, 0.42)) * uneven


def draw_golgi(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw a compact ribbon of short curved pieces on one side of the nucleus, with a few vesicles around."""
    chosen = chosen & ~scene.mitotic
    counts = _where(scene, chosen, lambda id, cell: rng.integers(9, 18))

    def near(cell: _Cell) -> tuple[np.ndarray, float]:
        outward = cell.centrosome - cell.nucleus_centre
        return cell.centrosome + outward * (0.8 * scene.um / np.sqrt((outward**2).sum())), 4.4 * scene.um

    def flat(points: np.ndarray) -> np.ndarray:
        return _cytoplasm(scene, points, 0.3) * (1 - _ramp(scene.look_up(points, scene.outside), 0.8, 3.6))

    start, owner = _scatter(rng, scene, counts, flat, near)
    heading = _tangent(rng, scene, start, scene.outside, 0.6)
    paths = _grow(rng, scene, start, heading, owner, rng.uniform(1.2, 4.0, len(start)), 0.4, 0.34)
    signal = _layers(scene, paths, 0.45, (0.75, 0.6))
    dots, _ = _scatter(
        rng,
        scene,
        _where(scene, chosen, lambda id, cell: rng.integers(3, 10)),
        lambda p: _cytoplasm(scene, p, 0.3),
        lambda cell: (cell.centrosome, 6.5 * scene.um),
    )
    pen = _Pen(scene)
    for spot in dots:
        pen.dot(spot, 0.22, 0.55)
    return signal * np.clip(0.9 + 0.25 * scene.texture(0.35, 12), 0.3, 1.5) + pen.signal()


def draw_centrosome(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw one dot, or two close together, beside the nucleus."""
    pen = _Pen(scene)
    for id, cell in enumerate(scene.cells, 1):
        if chosen[id] and not cell.mitotic:
            pen.dot(cell.centrosome, rng.uniform(0.45, 0.6), 1.0)
            second = _point(cell.centrosome, rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 1.7) * scene.um)
            if rng.random() < 0.7 and scene.look_up(second[None], scene.labels)[0] == id:
                pen.dot(second, 0.42, 0.9)
    return 1.4 * pen.signal()


def draw_aggresome(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw one large granular body beside the nucleus."""
    um = scene.um
    pen = _Pen(scene)
    for id, cell in enumerate(scene.cells, 1):
        if not chosen[id] or cell.mitotic:
            continue
        outward = cell.centrosome - cell.nucleus_centre
        size = rng.uniform(1.2, 1.9)
        room = max(0.0, float(scene.look_up(cell.centrosome[None], scene.edge)[0]) - 1.3 * size)
        centre = cell.centrosome + outward * (min(rng.uniform(0.8, 1.4), room) * um / np.sqrt((outward**2).sum()))
        for _ in range(9):
            spot = _point(centre, rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.85) * size * um)
            pen.dot(spot, size * rng.uniform(0.5, 0.75), rng.uniform(0.75, 1.0))
    uneven = np.clip(0.95 + 0.16 * scene.texture(0.3, 13), 0.3, 1.4)
    return pen.signal() * uneven * scene.cell * 1.15


def draw_vesicles(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw many small dots of uneven size and brightness all over the cytoplasm."""
    density = rng.uniform(0.12, 0.3)
    counts = _where(
        scene, chosen & ~scene.mitotic, lambda id, cell: 15 + scene.area[id] * density * rng.uniform(0.6, 1.3)
    )
    points, _ = _scatter(
        rng, scene, counts, lambda p: _cytoplasm(scene, p, 0.35) * (1 - 0.6 * scene.look_up(p, scene.radial))
    )
    pen = _Pen(scene)
    sizes = rng.uniform(0.2, 0.42, len(points))
    for spot, size, level in zip(points, sizes, rng.uniform(0.4, 1.0, len(points)), strict=True):
        pen.dot(spot, size, level)
    return 1.2 * pen.signal()


def draw_plasma_membrane(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw the border of the cell as an uneven line with ruffles near it and a faint haze."""
    line = np.clip(1 - scene.edge / 0.7, 0, 1) * scene.cell
    uneven = np.clip(0.85 + 0.28 * scene.texture(1.2, 14), 0.25, 1.6)
    counts = _where(scene, chosen & ~scene.mitotic, lambda id, cell: 4 + scene.area[id] * 0.03)
    start, owner = _scatter(rng, scene, counts, lambda p: 1 - _ramp(scene.look_up(p, scene.edge), 0.3, 2.4))
    paths = _grow(
        rng,
        scene,
        start,
        _tangent(rng, scene, start, scene.edge, 0.35),
        owner,
        rng.uniform(1, 4, len(start)),
        0.5,
        0.3,
        True,
    )
    haze = scene.soft_cell * np.clip(0.14 + 0.035 * scene.texture(0.3, 15), 0, 1)
    return line * uneven + 0.45 * _layers(scene, paths, 0.3, (1.0, 0.6)) + haze


def draw_nucleoplasm(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Fill the nucleus but its nucleoli, with a fine texture."""
    fine = 0.64 + 0.13 * scene.texture(0.18, 16) + 0.06 * scene.texture(0.8, 17)
    return scene.soft_nucleus * np.clip(fine, 0, 1.2) * (1 - 0.8 * nucleolar(scene))


def nucleolar(scene: _Scene) -> np.ndarray:
    """Return the (H, W) float32 share, 0 to 1, of each canvas pixel that lies in a nucleolus."""
    pen = _Pen(scene)
    for cell in scene.cells:
        for y, x, radius, aspect, axis in cell.nucleoli:
            pen.blob(y, x, radius, aspect, axis, 1.0)
    return pen.signal() * _ramp(scene.inside, 0.1, 0.5)


def draw_nuclear_membrane(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw a thin ring around the nucleus, a faint inside and an occasional fold."""
    ring = np.clip(1 - np.where(scene.nucleus, scene.inside, scene.outside) / 0.45, 0, 1)
    pen = _Pen(scene)
    for id, cell in enumerate(scene.cells, 1):
        if chosen[id] and not cell.mitotic and rng.random() < 0.3:
            angle = rng.uniform(0, 2 * np.pi)
            rim = _reach(cell.nucleus_outline, angle)
            inner = _point(cell.nucleus_centre, angle + rng.normal(0, 0.5), 0.3 * rim)
            middle = _point(cell.nucleus_centre, angle, 0.7 * rim)
            pen.lines([np.stack([_point(cell.nucleus_centre, angle, rim), middle, inner])], 0.3, 0.5)
    uneven = np.clip(0.9 + 0.18 * scene.texture(0.4, 18), 0.3, 1.5)
    faint = 0.12 * scene.soft_nucleus * np.clip(1 + 0.3 * scene.texture(0.2, 6), 0, 2)
    return (ring * uneven + pen.signal() * scene.nucleus + faint) * scene.cell


def draw_nucleoli(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Fill the nucleoli, the holes of the chromatin."""
    return nucleolar(scene) * np.clip(0.9 + 0.1 * scene.texture(0.3, 19), 0, 1.3)


def draw_fibrillar_centers(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw a few small dots inside each nucleolus."""
    pen = _Pen(scene)
    for id, cell in enumerate(scene.cells, 1):
        if chosen[id]:
            for y, x, radius, _, _ in cell.nucleoli:
                for _ in range(rng.integers(2, 5)):
                    spot = _point(np.array([y, x]), rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.75) * radius)
                    pen.dot(spot, rng.uniform(0.22, 0.34), rng.uniform(0.7, 1.0))
    return 1.3 * pen.signal() * scene.nucleus


def draw_speckles(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw 20 to 50 irregular patches in the nucleus, outside the nucleoli."""
    holes = nucleolar(scene)
    counts = _where(scene, chosen & ~scene.mitotic, lambda id, cell: rng.integers(20, 51))
    points, _ = _scatter(
        rng,
        scene,
        counts,
        lambda p: (scene.look_up(p, scene.inside) > 0.5) & (scene.look_up(p, holes) < 0.3),
        lambda cell: (cell.nucleus_centre, cell.nucleus_outline.max()),
    )
    pen = _Pen(scene)
    for point in points:
        level = rng.uniform(0.45, 0.9)
        for _ in range(rng.integers(1, 5)):
            spot = _point(point, rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.6) * scene.um)
            pen.dot(spot, rng.uniform(0.16, 0.4), level)
    return pen.signal() * np.clip(1 + 0.25 * scene.texture(0.25, 7), 0.3, 1.6) * scene.nucleus


def draw_nuclear_bodies(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw 2 to 15 round dots in the nucleus, outside the nucleoli."""
    holes = nucleolar(scene)
    counts = _where(scene, chosen & ~scene.mitotic, lambda id, cell: rng.integers(2, 16))
    points, _ = _scatter(
        rng,
        scene,
        counts,
        lambda p: (scene.look_up(p, scene.inside) > 0.7) & (scene.look_up(p, holes) < 0.05),
        lambda cell: (cell.nucleus_centre, cell.nucleus_outline.max()),
    )
    pen = _Pen(scene)
    for spot in points:
        pen.dot(spot, rng.uniform(0.3, 0.52), rng.uniform(0.75, 1.0))
    return 1.3 * pen.signal() * scene.nucleus


def draw_reticulum(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Fill the cytoplasm with a granular net, bright around the nucleus and fading to the border."""
    shift = int(rng.integers(20, 60))
    grain = np.clip(0.86 + 0.22 * scene.texture(0.14, shift), 0.2, 1.6)
    net = np.clip(1 - 0.24 * scene.texture(0.4, shift + 1), 0.2, 2)
    patchy = np.clip(1 + 0.15 * scene.texture(2.5, shift + 2), 0.4, 1.6)
    fade = 1 - 0.85 * _ramp(scene.radial, 0.05, 1.0)
    dark = 1 - 0.9 * _ramp(scene.inside, -0.05, 0.3)
    # The square skews the grain: many dim spots, few bright ones.
    return 0.75 * scene.soft_cell * grain * grain * net * patchy * fade * dark


def draw_cytosol(rng: np.random.Generator, scene: _Scene, chosen: np.ndarray) -> np.ndarray:
    """Fill the cell smoothly up to its border, weaker in the nucleus."""
    shift = int(rng.integers(60, 90))
    smooth = np.clip(0.6 + 0.07 * scene.texture(0.2, shift) + 0.05 * scene.texture(1.5, shift + 1), 0, 1)
    weaker = 1 - rng.uniform(0.45, 0.75) * _ramp(scene.inside, -0.05, 0.6)
    return scene.soft_cell * smooth * weaker * (1 - 0.25 * scene.radial)


PATTERNS: dict[int, Callable[[np.random.Generator, _Scene, np.ndarray], np.ndarray]] = {
    NUCLEOPLASM: draw_nucleoplasm,
    NUCLEAR_MEMBRANE: draw_nuclear_membrane,
    NUCLEOLI: draw_nucleoli,
    FIBRILLAR_CENTER: draw_fibrillar_centers,
    NUCLEAR_SPECKLES: draw_speckles,
    NUCLEAR_BODIES: draw_nuclear_bodies,
    ENDOPLASMIC_RETICULUM: draw_reticulum,
    GOLGI: draw_golgi,
    INTERMEDIATE_FILAMENTS: draw_intermediate_filaments,
    ACTIN: draw_actin,
    MICROTUBULES: draw_microtubules,
    MITOTIC_SPINDLE: draw_spindle,
    CENTROSOME: draw_centrosome,
    PLASMA_MEMBRANE: draw_plasma_membrane,
    MITOCHONDRIA: draw_mitochondria,
    AGGRESOME: draw_aggresome,
    CYTOSOL: draw_cytosol,
    VESICLES: draw_vesicles,
}

# Diffuse signal of the same protein (cytoplasm, nucleus), as a share of the pattern's brightest parts.
_HAZE = {
    NUCLEOPLASM: (0.04, 0.0),
    NUCLEAR_MEMBRANE: (0.05, 0.0),
    NUCLEOLI: (0.04, 0.10),
    FIBRILLAR_CENTER: (0.04, 0.09),
    NUCLEAR_SPECKLES: (0.04, 0.14),
    NUCLEAR_BODIES: (0.04, 0.09),
    GOLGI: (0.06, 0.03),
    MITOTIC_SPINDLE: (0.09, 0.0),
    CENTROSOME: (0.06, 0.05),
    AGGRESOME: (0.08, 0.05),
    MITOCHONDRIA: (0.05, 0.03),
    VESICLES: (0.06, 0.03),
}


def _express(
    rng: np.random.Generator, scene: _Scene, labels: tuple[int, ...], silent_fraction: float
) -> list[tuple[int, ...]]:
    """Return the labels that each cell of a field with these labels expresses, ids from 1."""
    located = tuple(label for label in labels if label != NEGATIVE)
    resting = tuple(label for label in located if label != MITOTIC_SPINDLE)
    expressed = []
    for cell in scene.cells:
        silent = rng.random() < (silent_fraction if NEGATIVE not in labels else max(silent_fraction, 0.5))
        dropped = int(rng.integers(len(resting))) if len(resting) > 1 and rng.random() < 0.2 else None
        if silent or not located:
            shown: tuple[int, ...] = ()
        elif cell.mitotic:
            shown = (MITOTIC_SPINDLE,) if MITOTIC_SPINDLE in located else ()
        else:
            shown = tuple(label for k, label in enumerate(resting) if k != dropped)
        expressed.append(shown)
    return expressed


def _protein(
    rng: np.random.Generator, scene: _Scene, expressed: list[tuple[int, ...]], microtubules: np.ndarray, margin: int
) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """Return the green signal on the canvas and, per cell, the labels whose pattern lies inside the picture."""
    n = len(scene.cells)
    present = sorted({label for shown in expressed for label in shown})
    weight = np.zeros((N_CLASSES, n + 1), np.float32)
    for id, shown in enumerate(expressed, 1):
        level = np.clip(np.exp(rng.normal(0, 0.25)), 0.55, 1.5)
        parts = rng.uniform(0.5, 1.0, len(shown))
        for label, part in zip(shown, parts / parts.max(initial=0.5), strict=True):
            weight[label, id] = level * part
    unspecific = np.append(0, rng.uniform(0.025, 0.07, n)).astype(np.float32)
    cytoplasm, nucleus = unspecific.copy(), unspecific * np.float32(rng.uniform(0.4, 1.3))
    for label in present:
        outer, inner = _HAZE.get(label, (0.0, 0.0))
        cytoplasm += np.float32(outer) * weight[label]
        nucleus += np.float32(inner) * weight[label]
    grain = np.clip(1 + 0.34 * scene.texture(0.14, 3), 0.1, 2.5)
    green = np.where(scene.nucleus, nucleus[scene.labels], cytoplasm[scene.labels]) * scene.soft_cell * grain
    visible: list[list[int]] = [[] for _ in range(n)]
    flat = scene.labels.ravel()
    inner_labels = scene.labels[margin:-margin, margin:-margin].ravel()
    for label in present:
        chosen = weight[label] > 0
        pattern = microtubules if label == MICROTUBULES else PATTERNS[label](rng, scene, chosen)
        whole = np.bincount(flat, pattern.ravel(), n + 1)
        seen = np.bincount(inner_labels, pattern[margin:-margin, margin:-margin].ravel(), n + 1)
        for id in np.flatnonzero(chosen):
            if seen[id] > 0 and seen[id] >= _VISIBLE * whole[id]:
                visible[id - 1].append(label)
        green += pattern * weight[label][scene.labels]
    return green, [tuple(shown) or (NEGATIVE,) for shown in visible]


def _chromatin(rng: np.random.Generator, scene: _Scene) -> np.ndarray:
    """Return the blue signal: textured nuclei with nucleolar holes, bright condensed plates."""
    level = np.append(0, rng.uniform(0.55, 0.95, len(scene.cells))).astype(np.float32)
    coarse = 0.13 * scene.texture(0.55, 1) + 0.1 * scene.texture(0.25, 2)
    resting = (0.8 + coarse) * (1 - 0.5 * nucleolar(scene))
    plate = 1.15 + 0.5 * coarse
    body = np.where(scene.mitotic[scene.nuclei], plate, np.clip(resting, 0.1, 1.3))
    return level[scene.nuclei] * scene.soft_nucleus * body


def _photograph(
    rng: np.random.Generator, signal: np.ndarray, um: float, blur: float, gain: float, dtype: np.dtype
) -> np.ndarray:
    """Return the picture of a signal (1 is bright): blur, uneven light, background, shot and read noise, digits.

    ``blur`` is the sigma of the point spread in µm; ``gain`` scales the signal to grey levels of 255. Noise follows
    the normal limit of the Poisson law, so that each pixel takes one random number whatever its brightness.
    """
    height, width = signal.shape
    whole = np.rint(np.clip(signal, 0, 4) * 16000).astype(np.uint16)
    whole = cv2.GaussianBlur(whole, (0, 0), max(0.6, blur * um))
    fall = rng.uniform(0.05, 0.22)
    y0, x0 = rng.uniform(0.3, 0.7, 2)
    dy = ((np.arange(height) / height - y0) ** 2).astype(np.float32)[:, None]
    dx = ((np.arange(width) / width - x0) ** 2).astype(np.float32)[None]
    light = 1 - np.float32(2 * fall) * (dy + dx)
    grey = whole * (light * np.float32(gain / 16000)) + np.float32(rng.uniform(0.5, 3.0))
    shot = np.float32(rng.uniform(0.25, 0.6))
    read = np.float32(rng.uniform(0.5, 1.2) ** 2)
    grey += np.sqrt(grey * shot + read) * rng.standard_normal(grey.shape, np.float32)
    top = np.iinfo(dtype).max
    return np.rint(np.clip(grey * np.float32(top / 255), 0, top)).astype(dtype)


def _seeds(field: str, seed: int, number: int) -> list[np.random.SeedSequence]:
    digest = hashlib.blake2b(f"{seed}:{field}".encode(), digest_size=16).digest()
    return np.random.SeedSequence(int.from_bytes(digest, "big")).spawn(number)


def _shape_of(cell_line: str | None, field: str) -> CellShape:
    """Return the line's shape; one by the name's hash for a line not listed, by the field's id for none."""
    kind = CELL_LINES.get(cell_line or "")
    if kind is None:
        names = sorted(SHAPES)
        kind = names[hashlib.blake2b((cell_line or field).encode(), digest_size=2).digest()[0] % len(names)]
    return SHAPES[kind]


def simulate_field(
    field: str,
    labels: tuple[int, ...],
    seed: int,
    shape: tuple[int, int] = (1024, 1024),
    pixel_size: float = 0.16,
    cell_line: str | None = None,
    dtype: str = "uint8",
    silent_fraction: float = 0.1,
    mitotic_fraction: float = 0.5,
    density: float = 1.0,
) -> SimulatedField:
    """Simulate one four-colour field whose protein shows the patterns of ``labels``.

    ``shape`` is (height, width) in pixels of ``pixel_size`` µm; ``dtype`` is uint8 or uint16. ``silent_fraction`` is
    the share of cells that do not express the protein (at least half where Negative is one of several labels);
    ``mitotic_fraction`` the share of dividing cells in a field labelled Mitotic spindle (elsewhere 1 in 50 divides,
    and shows none of the field's patterns); ``density`` scales the number of cells. In a field of several labels a
    cell shows all of them or lacks one. The truth of a cell holds what can be seen of it in the picture. Everything
    is drawn from blake2b of seed and field id. Raises ValueError naming the field where an argument is out of range.
    """
    if not labels or not set(labels) <= set(range(N_CLASSES)):
        raise ValueError(f"field {field}: labels {labels!r} are not one or more integers from 0 to {N_CLASSES - 1}")
    if np.dtype(dtype) not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise ValueError(f"field {field}: dtype {dtype!r} is neither uint8 nor uint16")
    if min(shape) < 64 or not 0.02 <= pixel_size <= 1:
        raise ValueError(
            f"field {field}: shape {shape} (at least 64) or pixel_size {pixel_size} (0.02 to 1 µm) is out of range"
        )
    for name, value in (("silent_fraction", silent_fraction), ("mitotic_fraction", mitotic_fraction)):
        if not 0 <= value <= 1:
            raise ValueError(f"field {field}: {name} {value} is not between 0 and 1")
    if not density > 0:
        raise ValueError(f"field {field}: density {density} is not positive")
    um = 1 / pixel_size
    margin = round(_MARGIN * um)
    layout, textures, organelles, protein, camera = _seeds(field, seed, 5)
    rng = np.random.default_rng(layout)
    dividing = mitotic_fraction if MITOTIC_SPINDLE in labels else 0.02
    cells, cell_ids, nucleus_ids = _lay_out(rng, _shape_of(cell_line, field), shape, um, dividing, density)
    scene = _Scene(cells, cell_ids, nucleus_ids, um, textures)
    _furnish(rng, scene)

    rng = np.random.default_rng(organelles)
    everyone = np.append(False, np.ones(len(cells), bool))
    level = np.zeros((2, len(cells) + 1), np.float32)
    level[:, 1:] = rng.uniform(0.7, 1.15, (2, len(cells)))
    microtubules = draw_microtubules(rng, scene, everyone)
    haze = np.where(scene.nucleus, 0.02, 0.07) * scene.soft_cell
    signals = {
        "red": (microtubules + haze) * level[0][cell_ids],
        "blue": _chromatin(rng, scene),
        "yellow": draw_reticulum(rng, scene, everyone) * level[1][cell_ids],
    }
    rng = np.random.default_rng(protein)
    expressed = _express(rng, scene, labels, silent_fraction)
    signals["green"], truth = _protein(rng, scene, expressed, microtubules, margin)

    rng = np.random.default_rng(camera)
    picture = (slice(margin, margin + shape[0]), slice(margin, margin + shape[1]))
    gains = {"red": (150, 230), "green": (120, 220), "blue": (120, 210), "yellow": (130, 220)}
    images = {
        colour: _photograph(rng, signals[colour][picture], um, 0.13, rng.uniform(*gains[colour]), np.dtype(dtype))
        for colour in COLOURS
    }
    return SimulatedField(
        images,
        np.ascontiguousarray(cell_ids[picture]),
        np.ascontiguousarray(nucleus_ids[picture]),
        list(enumerate(truth, 1)),
    )


def simulate_shard(
    manifest: str | Path | Sequence[ManifestRow],
    out_dir: str | Path,
    shape: tuple[int, int] = (1024, 1024),
    pixel_size: float | None = None,
    dtype: str = "uint8",
    silent_fraction: float = 0.1,
    mitotic_fraction: float = 0.5,
    density: float = 1.0,
    threads: int = 1,
) -> None:
    """Simulate the fields of a manifest into ``out_dir``.

    Writes, per field, ``{id}_{colour}.png``, ``{id}_cellmask.png`` and ``{id}_nucleimask.png`` (16-bit), and for all
    of them ``cells.csv`` (ID, cell, Label: the truth). A field whose ID can be no file's name gets a warning and
    neither files nor truth. ``pixel_size`` in µm, None for the rows' own; the other arguments are simulate_field's.
    Raises ValueError naming a row without labels or seed, OSError naming a file that cannot be written.
    """
    rows = read_manifest(manifest) if isinstance(manifest, str | Path) else manifest
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)

    def one(row: ManifestRow) -> list[tuple[str, int, str]]:
        if row.labels is None or row.seed is None:
            raise ValueError(f"field {row.id}: a simulated field needs labels and a seed in its manifest")
        result = simulate_field(
            row.id,
            row.labels,
            row.seed,
            shape,
            row.pixel_size if pixel_size is None else pixel_size,
            row.cell_line,
            dtype,
            silent_fraction,
            mitotic_fraction,
            density,
        )
        images = {**result.images, "cellmask": result.cells, "nucleimask": result.nuclei}
        try:
            with all_or_none() as written:
                for kind, image in images.items():
                    written.append(_write_png(out / f"{row.id}_{kind}.png", image))
        except FileNameError as error:
            # Without files it is rejected where they are read, as any other field that lacks one.
            log.warning("field %s: %s", row.id, error)
            return []
        return [(row.id, cell, format_labels(labels)) for cell, labels in result.truth]

    with ThreadPoolExecutor(max(1, threads)) as pool, open(out / "cells.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("ID", "cell", "Label"))
        for truth in track(pool.map(one, rows), total=len(rows), what="fields simulated"):
            writer.writerows(truth)


def _write_png(path: Path, image: np.ndarray) -> Path:
    _, encoded = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    try:
        with names_checked(path):
            path.write_bytes(encoded.data)
    except OSError as error:
        if not isinstance(error, FileNameError):
            # That of a full disk does not say which file it was.
            error.filename = str(path)
        raise
    return path


DEMO_LINES = ("U-2 OS", "A-431", "BJ", "HEK 293", "U-251 MG", "Hep G2")
DEMO_PAIRS = ((0, 16), (0, 2), (0, 13), (13, 16), (0, 7), (0, 12))  # the most frequent pairs of the 2021 train.csv


def demo_sheet(part: str, seed: int = 1) -> list[dict[str, str]]:
    """Return the rows (ID, Label, antibody, cell_line) of the demo's sheet ``train`` or ``test``.

    In train each field is of an antibody of its own, so that a split by antibody can be near any fraction: four
    fields a class (six for Mitotic spindle, of whose cells half divide, and for three classes of small dots), two to
    four for each of the most frequent pairs of labels. In test each class has one antibody of two fields, of different
    cell lines, and each pair one field. No antibody is in both. Raises ValueError for another ``part``.
    """
    if part not in ("train", "test"):
        raise ValueError(f"part {part!r} is neither train nor test")
    single = [(label,) for label in range(N_CLASSES)]
    extra = [(MITOTIC_SPINDLE,), (FIBRILLAR_CENTER,), (NUCLEAR_BODIES,), (CENTROSOME,)]
    if part == "train":
        plan = [(labels, 1) for labels in 4 * single + 2 * [*extra, *DEMO_PAIRS, *DEMO_PAIRS[:2]]]
    else:
        plan = [(labels, 2) for labels in single] + [(labels, 1) for labels in DEMO_PAIRS]
    digest = hashlib.blake2b(f"{seed}:{part}".encode(), digest_size=16).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    rows = []
    for antibody, (labels, fields) in enumerate(plan, 1):
        for line in rng.permutation(len(DEMO_LINES))[:fields]:
            rows.append((format_labels(labels), f"{part}-{antibody:03d}", DEMO_LINES[line]))
    return [
        {"ID": f"demo-{part}-{number:03d}", "Label": label, "antibody": antibody, "cell_line": line}
        for number, (label, antibody, line) in enumerate((rows[k] for k in rng.permutation(len(rows))), 1)
    ]


def write_demo_sheets(folder: str | Path, seed: int = 1) -> None:
    """Write ``train.csv`` and ``test.csv`` of the demo into a folder."""
    for part in ("train", "test"):
        rows = demo_sheet(part, seed)
        with open(Path(folder) / f"{part}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
