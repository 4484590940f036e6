"""One simulated field."""

import hashlib
from dataclasses import dataclass

import numpy as np

from hpaloc.classes import COLOURS, N_CLASSES
from hpaloc.simulate.camera import photograph
from hpaloc.simulate.cell_lines import shape_of
from hpaloc.simulate.layout import MARGIN, lay_out
from hpaloc.simulate.patterns import MITOTIC_SPINDLE, draw_microtubules, draw_reticulum, nucleolar
from hpaloc.simulate.protein import draw_protein, express
from hpaloc.simulate.scene import Scene, furnish


@dataclass(frozen=True)
class SimulatedField:
    """One field: pictures by colour (H, W), label images of cells and nuclei (H, W) uint16, and the truth.

    Ids run from 1 without gaps and are shared by the two label images; each cell has a nucleus in the picture (in
    mitosis, its plate). ``truth`` lists (id, labels) of every cell, with labels (18,) if no protein is visible.
    """

    images: dict[str, np.ndarray]
    cells: np.ndarray
    nuclei: np.ndarray
    truth: list[tuple[int, tuple[int, ...]]]


def _seeds(field: str, seed: int, number: int) -> list[np.random.SeedSequence]:
    digest = hashlib.blake2b(f"{seed}:{field}".encode(), digest_size=16).digest()
    return np.random.SeedSequence(int.from_bytes(digest, "big")).spawn(number)


def _chromatin(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """Return the blue signal: textured nuclei with nucleolar holes, bright condensed plates."""
    level = np.append(0, rng.uniform(0.55, 0.95, len(scene.cells))).astype(np.float32)
    coarse = 0.13 * scene.texture(0.55, 1) + 0.1 * scene.texture(0.25, 2)
    resting = (0.8 + coarse) * (1 - 0.5 * nucleolar(scene))
    plate = 1.15 + 0.5 * coarse
    body = np.where(scene.mitotic[scene.nuclei], plate, np.clip(resting, 0.1, 1.3))
    return level[scene.nuclei] * scene.soft_nucleus * body


def _check(
    field: str,
    labels: tuple[int, ...],
    shape: tuple[int, int],
    pixel_size: float,
    dtype: str,
    silent_fraction: float,
    mitotic_fraction: float,
    density: float,
) -> None:
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


def _draw_references(rng: np.random.Generator, scene: Scene) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the signals of red, blue and yellow on the canvas, and the pattern of the microtubules."""
    n = len(scene.cells)
    everyone = np.append(False, np.ones(n, bool))
    level = np.zeros((2, n + 1), np.float32)
    level[:, 1:] = rng.uniform(0.7, 1.15, (2, n))
    microtubules = draw_microtubules(rng, scene, everyone)
    haze = np.where(scene.nucleus, 0.02, 0.07) * scene.soft_cell
    signals = {
        "red": (microtubules + haze) * level[0][scene.labels],
        "blue": _chromatin(rng, scene),
        "yellow": draw_reticulum(rng, scene, everyone) * level[1][scene.labels],
    }
    return signals, microtubules


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

    In a field with several labels a cell shows all of them or all but one. The truth of a cell is what is visible in
    the picture. All random numbers come from blake2b of seed and field id.

    shape: (height, width), px
    pixel_size: µm
    dtype: uint8 or uint16
    silent_fraction: the share of cells that do not express the protein, at least half if Negative is one of several
    labels
    mitotic_fraction: the share of dividing cells in a field labelled Mitotic spindle; in others 1 in 50 divides, and
    shows none of the field's patterns
    density: scales the number of cells
    Raises ValueError naming the field if an argument is out of range.
    """
    _check(field, labels, shape, pixel_size, dtype, silent_fraction, mitotic_fraction, density)
    um = 1 / pixel_size
    margin = round(MARGIN * um)
    layout, textures, organelles, protein, camera = _seeds(field, seed, 5)
    rng = np.random.default_rng(layout)
    dividing = mitotic_fraction if MITOTIC_SPINDLE in labels else 0.02
    cells, cell_ids, nucleus_ids = lay_out(rng, shape_of(cell_line, field), shape, um, dividing, density)
    scene = Scene(cells, cell_ids, nucleus_ids, um, textures)
    furnish(rng, scene)
    signals, microtubules = _draw_references(np.random.default_rng(organelles), scene)
    rng = np.random.default_rng(protein)
    expressed = express(rng, scene, labels, silent_fraction)
    signals["green"], truth = draw_protein(rng, scene, expressed, microtubules, margin)

    rng = np.random.default_rng(camera)
    picture = (slice(margin, margin + shape[0]), slice(margin, margin + shape[1]))
    gains = {"red": (150, 230), "green": (120, 220), "blue": (120, 210), "yellow": (130, 220)}
    images = {
        colour: photograph(rng, signals[colour][picture], um, 0.13, rng.uniform(*gains[colour]), np.dtype(dtype))
        for colour in COLOURS
    }
    return SimulatedField(
        images,
        np.ascontiguousarray(cell_ids[picture]),
        np.ascontiguousarray(nucleus_ids[picture]),
        list(enumerate(truth, 1)),
    )
