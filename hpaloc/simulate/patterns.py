"""The pattern of each location.

Every ``draw_…`` function draws one pattern in a scene of n cells:

chosen: (n + 1,) bool by id (0 is the background), the cells that have it
Returns the signal, (H, W) float32, of the order of 1, before blur, camera and noise.
"""

from collections.abc import Callable

import numpy as np

from hpaloc.classes import N_CLASSES
from hpaloc.simulate.drawing import Pen, draw_threads, grow_threads, headings_along, in_cytoplasm, per_cell, scatter
from hpaloc.simulate.layout import Cell, point_at, radius_at
from hpaloc.simulate.scene import Scene, ramp

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


def draw_microtubules(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw fine filaments that leave the centrosome and fill the cytoplasm; a spindle where the cell divides."""
    resting = chosen & ~scene.mitotic
    centred = per_cell(scene, resting, lambda id, cell: scene.area[id] * 0.10)
    start, owner = scatter(
        rng, scene, centred, lambda p: in_cytoplasm(scene, p, 0.1), lambda cell: (cell.centrosome, 1.6 * scene.um)
    )
    heading = rng.uniform(0, 2 * np.pi, len(start))
    spread = per_cell(scene, resting, lambda id, cell: scene.area[id] * 0.30)
    more, more_owner = scatter(
        rng, scene, spread, lambda p: in_cytoplasm(scene, p) * (1 - 0.6 * scene.look_up(p, scene.radial))
    )
    home = np.array([(cell.centrosome + cell.nucleus_centre) / 2 for cell in scene.cells]).reshape(-1, 2)
    away = more - home[more_owner - 1]
    outward = np.arctan2(away[:, 0], away[:, 1]) + rng.normal(0, 0.6, len(more))
    along = headings_along(rng, scene, more, scene.outside, 0.4)
    outward = np.where(rng.random(len(more)) < 0.45, along, outward)
    start, owner = np.concatenate([start, more]), np.concatenate([owner, more_owner])
    heading = np.concatenate([heading, outward])
    paths = grow_threads(rng, scene, start, heading, owner, rng.uniform(5, 20, len(start)), 0.9, 0.13, edge=0.7)
    signal = draw_threads(scene, paths, 0.17, (0.5, 0.36, 0.26, 0.2))
    above, above_owner = scatter(
        rng,
        scene,
        per_cell(scene, resting, lambda id, cell: rng.integers(0, 14)),
        lambda p: scene.look_up(p, scene.outside) < 0.8,
    )
    heading = rng.uniform(0, 2 * np.pi, len(above))
    over = grow_threads(rng, scene, above, heading, above_owner, rng.uniform(5, 14, len(above)), 0.9, 0.1, True)
    return signal + draw_threads(scene, over, 0.17, (0.09,)) + draw_spindle(rng, scene, chosen & scene.mitotic)


def draw_spindle(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw two poles, the fibres from them to the plate, and short asters."""
    um = scene.um
    pens = [Pen(scene) for _ in range(3)]
    for id, cell in enumerate(scene.cells, 1):
        if not chosen[id]:
            continue
        width = rng.uniform(3.4, 4.6)
        for pole in cell.poles:
            for k, offset in enumerate(np.linspace(-1, 1, 27) + rng.normal(0, 0.03, 27)):
                end = point_at(cell.nucleus_centre, cell.axis, offset * width * um)
                bow = point_at((pole + end) / 2, cell.axis, offset * width * 0.36 * um)
                t = np.linspace(0, rng.uniform(0.75, 1.0), 9)[:, None]
                fibre = (1 - t) ** 2 * pole + 2 * t * (1 - t) * bow + t**2 * end
                pens[k % 3].lines([fibre], 0.17, rng.uniform(0.25, 0.6))
            for angle in rng.uniform(0, 2 * np.pi, 14):
                pens[0].lines([np.stack([pole, point_at(pole, angle, rng.uniform(1.2, 3.2) * um)])], 0.17, 0.2)
            pens[1].dot(pole, rng.uniform(0.45, 0.65), 0.8)
    return sum(pen.signal() for pen in pens) * scene.cell


def draw_intermediate_filaments(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw wavy bundles that wrap the nucleus like a basket and thin out before the cell's border."""
    counts = per_cell(scene, chosen & ~scene.mitotic, lambda id, cell: 40 + scene.area[id] * 0.12)
    start, owner = scatter(
        rng,
        scene,
        counts,
        lambda p: in_cytoplasm(scene, p, 0.2) * (1 - ramp(scene.look_up(p, scene.outside), 0.3, 5.0)),
    )
    heading = headings_along(rng, scene, start, scene.outside, 0.75)
    paths = grow_threads(rng, scene, start, heading, owner, rng.uniform(5, 14, len(start)), 0.6, 0.24, edge=2.5)
    fine = draw_threads(scene, paths, 0.17, (0.75, 0.55, 0.4))
    bundles = draw_threads(scene, paths[::4], 0.42, (0.4, 0.3))
    uneven = np.clip(1 + 0.25 * scene.texture(0.9, 10), 0.3, 1.7)
    return (fine + bundles) * uneven * (1 - 0.8 * ramp(scene.radial, 0.3, 0.95))


def draw_actin(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw straight parallel stress fibres across the whole cell and a cortical line."""
    axes = np.array([0.0] + [cell.axis + rng.normal(0, 0.25) for cell in scene.cells])
    resting = chosen & ~scene.mitotic
    signal = np.zeros(scene.shape, np.float32)
    for density, thickness, levels in ((0.03, 0.3, (0.7, 0.45)), (0.1, 0.16, (0.45, 0.3, 0.2))):
        counts = np.where(resting, np.rint(5 + scene.area * density), 0).astype(int)
        start, owner = scatter(rng, scene, counts, lambda p: scene.look_up(p, scene.edge) > 0.3)
        heading = axes[owner] + rng.normal(0, 0.09, len(owner))
        length = rng.uniform(2, 12, len(start))
        one = grow_threads(rng, scene, start, heading, owner, length, 1.0, 0.012, True, 0.3)
        other = grow_threads(rng, scene, start, heading + np.pi, owner, length, 1.0, 0.012, True, 0.3)
        signal += draw_threads(scene, one + other, thickness, levels)
    cortex = np.clip(1 - scene.edge / 0.55, 0, 1) * scene.cell
    beaded = np.clip(1 + 0.18 * scene.texture(0.3, 9), 0.3, 1.6)
    return signal * beaded + 0.6 * cortex * np.clip(0.55 + 0.3 * scene.texture(1.6, 11), 0.1, 1.2)


def draw_mitochondria(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw worm-like threads that fill the cytoplasm, denser towards the nucleus."""
    counts = per_cell(scene, chosen & ~scene.mitotic, lambda id, cell: scene.area[id] * 0.22)
    start, owner = scatter(
        rng, scene, counts, lambda p: in_cytoplasm(scene, p, 0.5) * (1 - 0.85 * scene.look_up(p, scene.radial))
    )
    heading = rng.uniform(0, 2 * np.pi, len(start))
    paths = grow_threads(rng, scene, start, heading, owner, rng.uniform(0.8, 4.0, len(start)), 0.4, 0.3)
    uneven = np.clip(1 + 0.2 * scene.texture(0.3, 8), 0.3, 1.6)
    return draw_threads(scene, paths, 0.34, (0.8, 0.6, 0.42)) * uneven


def draw_golgi(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw a compact ribbon of short curved pieces on one side of the nucleus, with a few vesicles around."""
    chosen = chosen & ~scene.mitotic
    counts = per_cell(scene, chosen, lambda id, cell: rng.integers(9, 18))

    def near(cell: Cell) -> tuple[np.ndarray, float]:
        outward = cell.centrosome - cell.nucleus_centre
        return cell.centrosome + outward * (0.8 * scene.um / np.sqrt((outward**2).sum())), 4.4 * scene.um

    def flat(points: np.ndarray) -> np.ndarray:
        return in_cytoplasm(scene, points, 0.3) * (1 - ramp(scene.look_up(points, scene.outside), 0.8, 3.6))

    start, owner = scatter(rng, scene, counts, flat, near)
    heading = headings_along(rng, scene, start, scene.outside, 0.6)
    paths = grow_threads(rng, scene, start, heading, owner, rng.uniform(1.2, 4.0, len(start)), 0.4, 0.34)
    signal = draw_threads(scene, paths, 0.45, (0.75, 0.6))
    dots, _ = scatter(
        rng,
        scene,
        per_cell(scene, chosen, lambda id, cell: rng.integers(3, 10)),
        lambda p: in_cytoplasm(scene, p, 0.3),
        lambda cell: (cell.centrosome, 6.5 * scene.um),
    )
    pen = Pen(scene)
    for spot in dots:
        pen.dot(spot, 0.22, 0.55)
    return signal * np.clip(0.9 + 0.25 * scene.texture(0.35, 12), 0.3, 1.5) + pen.signal()


def draw_centrosome(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw one dot, or two close together, next to the nucleus."""
    pen = Pen(scene)
    for id, cell in enumerate(scene.cells, 1):
        if chosen[id] and not cell.mitotic:
            pen.dot(cell.centrosome, rng.uniform(0.45, 0.6), 1.0)
            second = point_at(cell.centrosome, rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 1.7) * scene.um)
            if rng.random() < 0.7 and scene.look_up(second[None], scene.labels)[0] == id:
                pen.dot(second, 0.42, 0.9)
    return 1.4 * pen.signal()


def draw_aggresome(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw one large granular body next to the nucleus."""
    um = scene.um
    pen = Pen(scene)
    for id, cell in enumerate(scene.cells, 1):
        if not chosen[id] or cell.mitotic:
            continue
        outward = cell.centrosome - cell.nucleus_centre
        size = rng.uniform(1.2, 1.9)
        room = max(0.0, float(scene.look_up(cell.centrosome[None], scene.edge)[0]) - 1.3 * size)
        centre = cell.centrosome + outward * (min(rng.uniform(0.8, 1.4), room) * um / np.sqrt((outward**2).sum()))
        for _ in range(9):
            spot = point_at(centre, rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.85) * size * um)
            pen.dot(spot, size * rng.uniform(0.5, 0.75), rng.uniform(0.75, 1.0))
    uneven = np.clip(0.95 + 0.16 * scene.texture(0.3, 13), 0.3, 1.4)
    return pen.signal() * uneven * scene.cell * 1.15


def draw_vesicles(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw many small dots of uneven size and brightness all over the cytoplasm."""
    density = rng.uniform(0.12, 0.3)
    counts = per_cell(
        scene, chosen & ~scene.mitotic, lambda id, cell: 15 + scene.area[id] * density * rng.uniform(0.6, 1.3)
    )
    points, _ = scatter(
        rng, scene, counts, lambda p: in_cytoplasm(scene, p, 0.35) * (1 - 0.6 * scene.look_up(p, scene.radial))
    )
    pen = Pen(scene)
    sizes = rng.uniform(0.2, 0.42, len(points))
    for spot, size, level in zip(points, sizes, rng.uniform(0.4, 1.0, len(points)), strict=True):
        pen.dot(spot, size, level)
    return 1.2 * pen.signal()


def draw_plasma_membrane(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw the border of the cell as an uneven line with ruffles near it and a faint haze."""
    line = np.clip(1 - scene.edge / 0.7, 0, 1) * scene.cell
    uneven = np.clip(0.85 + 0.28 * scene.texture(1.2, 14), 0.25, 1.6)
    counts = per_cell(scene, chosen & ~scene.mitotic, lambda id, cell: 4 + scene.area[id] * 0.03)
    start, owner = scatter(rng, scene, counts, lambda p: 1 - ramp(scene.look_up(p, scene.edge), 0.3, 2.4))
    paths = grow_threads(
        rng,
        scene,
        start,
        headings_along(rng, scene, start, scene.edge, 0.35),
        owner,
        rng.uniform(1, 4, len(start)),
        0.5,
        0.3,
        True,
    )
    haze = scene.soft_cell * np.clip(0.14 + 0.035 * scene.texture(0.3, 15), 0, 1)
    return line * uneven + 0.45 * draw_threads(scene, paths, 0.3, (1.0, 0.6)) + haze


def draw_nucleoplasm(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Fill the nucleus except its nucleoli with a fine texture."""
    fine = 0.64 + 0.13 * scene.texture(0.18, 16) + 0.06 * scene.texture(0.8, 17)
    return scene.soft_nucleus * np.clip(fine, 0, 1.2) * (1 - 0.8 * nucleolar(scene))


def nucleolar(scene: Scene) -> np.ndarray:
    """Return the share, 0 to 1, of each canvas pixel that is in a nucleolus, (H, W) float32."""
    pen = Pen(scene)
    for cell in scene.cells:
        for y, x, radius, aspect, axis in cell.nucleoli:
            pen.blob(y, x, radius, aspect, axis, 1.0)
    return pen.signal() * ramp(scene.inside, 0.1, 0.5)


def draw_nuclear_membrane(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw a thin ring around the nucleus, a faint inside and an occasional fold."""
    ring = np.clip(1 - np.where(scene.nucleus, scene.inside, scene.outside) / 0.45, 0, 1)
    pen = Pen(scene)
    for id, cell in enumerate(scene.cells, 1):
        if chosen[id] and not cell.mitotic and rng.random() < 0.3:
            angle = rng.uniform(0, 2 * np.pi)
            rim = radius_at(cell.nucleus_outline, angle)
            inner = point_at(cell.nucleus_centre, angle + rng.normal(0, 0.5), 0.3 * rim)
            middle = point_at(cell.nucleus_centre, angle, 0.7 * rim)
            pen.lines([np.stack([point_at(cell.nucleus_centre, angle, rim), middle, inner])], 0.3, 0.5)
    uneven = np.clip(0.9 + 0.18 * scene.texture(0.4, 18), 0.3, 1.5)
    faint = 0.12 * scene.soft_nucleus * np.clip(1 + 0.3 * scene.texture(0.2, 6), 0, 2)
    return (ring * uneven + pen.signal() * scene.nucleus + faint) * scene.cell


def draw_nucleoli(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Fill the nucleoli, the holes of the chromatin."""
    return nucleolar(scene) * np.clip(0.9 + 0.1 * scene.texture(0.3, 19), 0, 1.3)


def draw_fibrillar_centers(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw a few small dots inside each nucleolus."""
    pen = Pen(scene)
    for id, cell in enumerate(scene.cells, 1):
        if chosen[id]:
            for y, x, radius, _, _ in cell.nucleoli:
                for _ in range(rng.integers(2, 5)):
                    spot = point_at(np.array([y, x]), rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.75) * radius)
                    pen.dot(spot, rng.uniform(0.22, 0.34), rng.uniform(0.7, 1.0))
    return 1.3 * pen.signal() * scene.nucleus


def _beside_nucleoli(
    rng: np.random.Generator, scene: Scene, counts: np.ndarray, depth: float, share: float
) -> np.ndarray:
    """Return points in the nuclei, deeper than ``depth`` µm and less than ``share`` in a nucleolus."""
    holes = nucleolar(scene)
    points, _ = scatter(
        rng,
        scene,
        counts,
        lambda p: (scene.look_up(p, scene.inside) > depth) & (scene.look_up(p, holes) < share),
        lambda cell: (cell.nucleus_centre, cell.nucleus_outline.max()),
    )
    return points


def draw_speckles(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw 20 to 50 irregular patches in the nucleus, outside the nucleoli."""
    counts = per_cell(scene, chosen & ~scene.mitotic, lambda id, cell: rng.integers(20, 51))
    pen = Pen(scene)
    for point in _beside_nucleoli(rng, scene, counts, 0.5, 0.3):
        level = rng.uniform(0.45, 0.9)
        for _ in range(rng.integers(1, 5)):
            spot = point_at(point, rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.6) * scene.um)
            pen.dot(spot, rng.uniform(0.16, 0.4), level)
    return pen.signal() * np.clip(1 + 0.25 * scene.texture(0.25, 7), 0.3, 1.6) * scene.nucleus


def draw_nuclear_bodies(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Draw 2 to 15 round dots in the nucleus, outside the nucleoli."""
    counts = per_cell(scene, chosen & ~scene.mitotic, lambda id, cell: rng.integers(2, 16))
    pen = Pen(scene)
    for spot in _beside_nucleoli(rng, scene, counts, 0.7, 0.05):
        pen.dot(spot, rng.uniform(0.3, 0.52), rng.uniform(0.75, 1.0))
    return 1.3 * pen.signal() * scene.nucleus


def draw_reticulum(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Fill the cytoplasm with a granular net, bright around the nucleus and fading to the border."""
    shift = int(rng.integers(20, 60))
    grain = np.clip(0.86 + 0.22 * scene.texture(0.14, shift), 0.2, 1.6)
    net = np.clip(1 - 0.24 * scene.texture(0.4, shift + 1), 0.2, 2)
    patchy = np.clip(1 + 0.15 * scene.texture(2.5, shift + 2), 0.4, 1.6)
    fade = 1 - 0.85 * ramp(scene.radial, 0.05, 1.0)
    dark = 1 - 0.9 * ramp(scene.inside, -0.05, 0.3)
    # The square skews the grain: many dim spots, few bright ones.
    return 0.75 * scene.soft_cell * grain * grain * net * patchy * fade * dark


def draw_cytosol(rng: np.random.Generator, scene: Scene, chosen: np.ndarray) -> np.ndarray:
    """Fill the cell smoothly up to its border, weaker in the nucleus."""
    shift = int(rng.integers(60, 90))
    smooth = np.clip(0.6 + 0.07 * scene.texture(0.2, shift) + 0.05 * scene.texture(1.5, shift + 1), 0, 1)
    weaker = 1 - rng.uniform(0.45, 0.75) * ramp(scene.inside, -0.05, 0.6)
    return scene.soft_cell * smooth * weaker * (1 - 0.25 * scene.radial)


PATTERNS: dict[int, Callable[[np.random.Generator, Scene, np.ndarray], np.ndarray]] = {
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
