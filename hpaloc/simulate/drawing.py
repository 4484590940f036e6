"""The tools that draw patterns: dots, lines, random points and threads that grow inside their cells."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from hpaloc.simulate.layout import Cell
from hpaloc.simulate.scene import Scene

_SUBPIXEL = 4  # bits of the fraction in OpenCV's drawing coordinates


class Pen:
    """Draws dots and lines on an 8-bit layer; positions in canvas pixels, thickness and radius in µm."""

    def __init__(self, scene: Scene):
        self.scene = scene
        self.layer = np.zeros(scene.shape, np.uint8)

    def dot(self, centre: np.ndarray, radius: float, level: float) -> None:
        """Draw a filled circle around ``centre``, (2,) float64, ``radius`` in µm."""
        y, x = (round(value) for value in centre * (1 << _SUBPIXEL))
        size = max(round(radius * self.scene.um * (1 << _SUBPIXEL)), 1 << _SUBPIXEL >> 1)
        cv2.circle(self.layer, (x, y), size, (255 * level,), -1, cv2.LINE_AA, _SUBPIXEL)

    def blob(self, y: float, x: float, radius: float, aspect: float, axis: float, level: float) -> None:
        """Draw a filled, slightly uneven ellipse; unlike elsewhere, ``radius`` is in pixels."""
        angle = np.arange(24) * (np.pi / 12)
        rim = radius * (1 + 0.12 * np.cos(2 * angle + 7 * axis) + 0.09 * np.cos(3 * angle + 5 * axis))
        dx, dy = rim * np.sqrt(aspect) * np.cos(angle), rim / np.sqrt(aspect) * np.sin(angle)
        points = np.stack([x + dx * np.cos(axis) - dy * np.sin(axis), y + dx * np.sin(axis) + dy * np.cos(axis)], 1)
        cv2.fillPoly(self.layer, [_fixed(points)], (255 * level,), cv2.LINE_AA, _SUBPIXEL)

    def lines(self, paths: Sequence[np.ndarray], thickness: float, level: float) -> None:
        """Draw open lines; each of ``paths`` is (n, 2) float64, points as (y, x), ``thickness`` in µm."""
        width = max(1, round(thickness * self.scene.um))
        points = [_fixed(path[:, ::-1]) for path in paths]
        cv2.polylines(self.layer, points, False, (255 * level,), width, cv2.LINE_AA, _SUBPIXEL)

    def signal(self) -> np.ndarray:
        """Return what was drawn, (H, W) float32 from 0 to 1."""
        return self.layer.astype(np.float32) * np.float32(1 / 255)


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.rint(points * (1 << _SUBPIXEL)).astype(np.int32)


def scatter(
    rng: np.random.Generator,
    scene: Scene,
    counts: np.ndarray,
    chance: Callable[[np.ndarray], np.ndarray],
    around: Callable[[Cell], tuple[np.ndarray, float]] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return random points in the cells and the ids of their cells.

    counts: (cells + 1,) int64 by id (0 is the background), the most points of a cell
    chance: returns the probability of accepting each of (m, 2) candidates
    around: limits a cell's candidates to a disc (centre, radius)
    Returns points (n, 2) float64 and ids (n,) int64.
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


def grow_threads(
    rng: np.random.Generator,
    scene: Scene,
    start: np.ndarray,
    heading: np.ndarray,
    owner: np.ndarray,
    length: float | np.ndarray,
    step: float,
    wiggle: float,
    through_nucleus: bool = False,
    edge: float = 1.2,
) -> list[np.ndarray]:
    """Grow n threads inside their cells, all at once.

    Near the cell's border a thread bends along it, and likewise along the nucleus unless it runs through it; it ends
    where it would leave.

    start: (n, 2) float64, points
    heading: (n,) float64, radians
    owner: (n,) int, ids
    length: one or (n,), µm
    step: µm
    wiggle: radians, the standard deviation of the bend per step
    through_nucleus: ignore the nucleus
    edge: µm, how near to the border a thread bends
    Returns their paths, each (m, 2) float64 as (y, x).
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


def headings_along(
    rng: np.random.Generator, scene: Scene, points: np.ndarray, wall: np.ndarray, spread: float
) -> np.ndarray:
    """Return headings along the contours of a distance map, in either direction with equal chance.

    points: (n, 2) float64
    wall: (H, W) float32, the map
    spread: radians, the standard deviation of the headings
    Returns (n,) float64, radians.
    """
    y = np.clip(np.rint(points[:, 0]).astype(np.intp), 2, scene.shape[0] - 3)
    x = np.clip(np.rint(points[:, 1]).astype(np.intp), 2, scene.shape[1] - 3)
    dy = (wall[y + 2, x] - wall[y - 2, x]).astype(float)
    dx = (wall[y, x + 2] - wall[y, x - 2]).astype(float)
    return np.arctan2(dy, dx) + np.pi / 2 + np.pi * rng.integers(0, 2, len(points)) + rng.normal(0, spread, len(points))


def draw_threads(scene: Scene, paths: list[np.ndarray], thickness: float, levels: Sequence[float]) -> np.ndarray:
    """Draw threads in one layer per level and add these up, so that crossings are brighter.

    paths: each (m, 2) float64
    thickness: µm
    Returns (H, W) float32.
    """
    total = np.zeros(scene.shape, np.float32)
    for k, level in enumerate(levels):
        pen = Pen(scene)
        pen.lines(paths[k :: len(levels)], thickness, level)
        total += pen.signal()
    return total


def per_cell(scene: Scene, chosen: np.ndarray, number: Callable[[int, Cell], float]) -> np.ndarray:
    """Return a number for each of the ``chosen`` cells, (cells + 1,) bool by id, rounded, as (cells + 1,) int64."""
    counts = np.zeros(len(scene.cells) + 1, int)
    for id, cell in enumerate(scene.cells, 1):
        if chosen[id]:
            counts[id] = round(number(id, cell))
    return counts


def in_cytoplasm(scene: Scene, points: np.ndarray, gap: float = 0.4) -> np.ndarray:
    """Return which of ``points`` (n, 2) float64 are farther than ``gap`` µm from nucleus and border, (n,) bool."""
    return (scene.look_up(points, scene.outside) > gap) & (scene.look_up(points, scene.edge) > gap)
