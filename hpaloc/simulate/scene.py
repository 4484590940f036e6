"""The maps from which all patterns of a field are drawn, and the organelles of each cell."""

import cv2
import numpy as np
from scipy import ndimage

from hpaloc.simulate.layout import Cell, point_at, radius_at


class Scene:
    """The cells on their canvas, and the maps from which all patterns are drawn, (H, W).

    um: pixels in 1 µm
    edge: µm, distance inward from the cell's own border
    free: µm, distance inward from the area without cells
    outside: µm, distance outward from the nearest nucleus
    inside: µm, distance inward from the nuclear border
    radial: 0 at a nucleus to 1 at the cell's border
    """

    def __init__(
        self, cells: list[Cell], labels: np.ndarray, nuclei: np.ndarray, um: float, seed: np.random.SeedSequence
    ):
        self.cells, self.labels, self.nuclei, self.um = cells, labels, nuclei, um
        self.shape = labels.shape
        self.mitotic = np.array([False] + [cell.mitotic for cell in cells])
        self.cell = labels > 0
        self.nucleus = nuclei > 0
        self.edge = self._distance(self.cell & ~_seams(labels))
        self.free = self._distance(self.cell)
        self.outside = self._distance(~self.nucleus)
        self.inside = self._distance(self.nucleus & ~_seams(nuclei))
        self.radial = self.outside / (self.outside + self.edge + np.float32(1e-3))
        # Touching cells have a narrow dim seam; a free border thins out more slowly.
        self.soft_cell = ramp(self.free, 0.0, 1.0) * (0.7 + 0.3 * ramp(self.edge, 0.0, 0.45))
        self.soft_nucleus = ramp(self.inside, 0.0, 0.35)
        self.boxes = ndimage.find_objects(labels)
        self.area = np.bincount(labels.ravel(), minlength=len(cells) + 1) / um**2
        self._noise = np.random.default_rng(seed).integers(0, 65536, self.shape, dtype=np.uint16)

    def _distance(self, mask: np.ndarray) -> np.ndarray:
        return cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * np.float32(1 / self.um)

    def texture(self, size: float, shift: int) -> np.ndarray:
        """Return smooth Gaussian noise of mean 0 and deviation 1, (H, W) float32, unrelated for different ``shift``.

        size: µm, its sigma
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
        """Return the values of an image at some points; points beyond the canvas have the values of its border.

        points: (n, 2) float64, as (y, x)
        image: (H, W) of any type
        Returns (n,) of that type.
        """
        y = np.clip(np.rint(points[:, 0]).astype(np.intp), 0, self.shape[0] - 1)
        x = np.clip(np.rint(points[:, 1]).astype(np.intp), 0, self.shape[1] - 1)
        return image[y, x]


def _seams(labels: np.ndarray) -> np.ndarray:
    """Return the pixels whose label differs from the one above or to the left, (H, W) bool."""
    seams = np.zeros(labels.shape, bool)
    seams[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    seams[1:] |= labels[1:] != labels[:-1]
    return seams


def ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the smooth step (3t² - 2t³) of ``values`` from 0 at ``low`` to 1 at ``high``, both (n, …) float32."""
    t = np.clip((values - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def furnish(rng: np.random.Generator, scene: Scene) -> None:
    """Give each cell its centrosome and its nucleoli or, if it divides, the poles of its spindle."""
    um = scene.um
    for id, cell in enumerate(scene.cells, 1):
        angles = rng.uniform(0, 2 * np.pi, 8)
        gaps = rng.uniform(0.7, 1.8, 8) * um
        spots = np.array(
            [
                point_at(cell.nucleus_centre, angle, radius_at(cell.nucleus_outline, angle) + gap)
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
            cell.poles = tuple(point_at(cell.nucleus_centre, normal, distance) for distance in reach)
            continue
        size = cell.nucleus_outline.mean()
        wanted = rng.integers(2, 6)
        for _ in range(40):
            if len(cell.nucleoli) == wanted:
                break
            radius = rng.uniform(0.10, 0.20) * size
            angle = rng.uniform(0, 2 * np.pi)
            rim = radius_at(cell.nucleus_outline, angle)
            y, x = point_at(cell.nucleus_centre, angle, rng.uniform(0, 0.68) * rim)
            if all((y - b) ** 2 + (x - a) ** 2 > (1.15 * (radius + r)) ** 2 for b, a, r, _, _ in cell.nucleoli):
                cell.nucleoli.append((y, x, radius, rng.uniform(1.0, 1.6), rng.uniform(0, np.pi)))
