"""The protein of interest: the cells that express it, and the green signal of its patterns."""

import numpy as np

from hpaloc.classes import N_CLASSES, NEGATIVE
from hpaloc.simulate.patterns import (
    AGGRESOME,
    CENTROSOME,
    FIBRILLAR_CENTER,
    GOLGI,
    MICROTUBULES,
    MITOCHONDRIA,
    MITOTIC_SPINDLE,
    NUCLEAR_BODIES,
    NUCLEAR_MEMBRANE,
    NUCLEAR_SPECKLES,
    NUCLEOLI,
    NUCLEOPLASM,
    PATTERNS,
    VESICLES,
)
from hpaloc.simulate.scene import Scene

# The share of a pattern's signal inside the picture from which the cell has its label.
_VISIBLE = 0.2

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


def express(
    rng: np.random.Generator, scene: Scene, labels: tuple[int, ...], silent_fraction: float
) -> list[tuple[int, ...]]:
    """Return the labels that each cell of a field with these labels expresses, in the order of ids."""
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


def draw_protein(
    rng: np.random.Generator, scene: Scene, expressed: list[tuple[int, ...]], microtubules: np.ndarray, margin: int
) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """Draw the patterns that the cells express, and return which of them are visible.

    expressed: the labels of each cell
    microtubules: (H, W) float32, the pattern that red shows too
    margin: px of canvas around the picture
    Returns the green signal on the canvas, (H, W) float32, and per cell the labels whose pattern is inside the picture.
    """
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
