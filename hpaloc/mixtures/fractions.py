"""Fractions of locations in a field, from the mean outputs of its cells."""

from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from hpaloc.classes import N_CLASSES
from hpaloc.mixtures.reading import MIXTURES, load_reading
from hpaloc.network.folder import prototype_table, read_settings
from hpaloc.tables import PROBABILITIES

FRACTIONS = tuple(f"fraction_{index}" for index in range(N_CLASSES))
# What the prototypes say has this weight beside the readings; docs/evaluation.md has what either gives alone.
_PROTOTYPE_WEIGHT = 2 / 3


def read_prototypes(folder: Path, mixtures: bool = True) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """Read the class prototypes of a model folder, and say of which outputs they are.

    They are those of its reading of mixtures or, where it has none or ``mixtures`` is False, of its thresholds.json.
    Returns (19, 19) float64 with rows of nan for locations without prototype, and the columns that hold the outputs of
    a cell (readings or probabilities); None where there are no prototypes. Raises ModelError naming the file at fault.
    """
    _, decision = read_settings(folder)
    reading = load_reading(folder) if mixtures else None
    prototypes = prototype_table((reading or decision).get("prototypes"))
    return (prototypes, MIXTURES if reading else PROBABILITIES) if np.isfinite(prototypes).any() else None


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
