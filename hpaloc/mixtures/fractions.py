"""Fractions of locations in a field, from the mean outputs of its cells."""

from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from hpaloc.classes import N_CLASSES
from hpaloc.mixtures.reading import MIXTURES, load_reading
from hpaloc.network.folder import prototype_table
from hpaloc.network.fusion import decision_in_use
from hpaloc.tables import PROBABILITIES

FRACTIONS = tuple(f"fraction_{index}" for index in range(N_CLASSES))
# The weight of the estimate by prototypes; docs/evaluation.md has the scores of each estimate alone.
_PROTOTYPE_WEIGHT = 2 / 3


def read_prototypes(
    folder: Path, mixtures: bool = True, fused: bool = True
) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """Read the class prototypes of a model folder, and the columns of their outputs.

    They are those of its reading of mixtures, or of its probabilities if it has none or ``mixtures`` is False.

    fused: whether the probabilities are fused, if the folder has a fusion

    Returns (19, 19) float64 with rows of nan for locations without prototype, and the columns with the outputs of a
    cell (readings or probabilities); None without prototypes.
    Raises ModelError naming the invalid file.
    """
    decision = decision_in_use(folder, fused)
    reading = load_reading(folder) if mixtures else None
    prototypes = prototype_table((reading or decision).get("prototypes"))
    return (prototypes, MIXTURES if reading else PROBABILITIES) if np.isfinite(prototypes).any() else None


def mixture_fractions(features: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """Infer the fraction of each location in each row by non-negative least squares on class prototypes.

    Each row is a non-negative combination of the prototypes, argmin over f >= 0 of ||prototypes.T f - row||; f is then
    scaled to the sum 1.

    features: (m, d) float, usually the mean over the cells of a field
    prototypes: (19, d) float from ``class_prototypes``

    Returns (m, 19) float64; 0 for a class without prototype, nan for a row that has nan or that no prototype explains.
    Raises ValueError if no class has a prototype.
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

    One estimate is ``mixture_fractions``, which is unbiased and noisy. The other is the readings themselves, without
    negative ones; they vary little and are biased towards the mean of the blends, so that the only location of a field
    stays below 1. They are the classical and the inverse estimator of calibration, and err in opposite directions.

    readings: (m, 19) float, each row a mean of ``read_mixtures`` over cells
    prototypes: (19, 19) float, the mean readings of cells of one class, nan for a class without prototype

    Returns (m, 19) float64, nan as in ``mixture_fractions``; the first estimate alone if no reading is positive.
    Raises ValueError if no class has a prototype.
    Source: Krutchkoff 1967.
    """
    classical = mixture_fractions(readings, prototypes)
    inverse = np.where(np.isfinite(prototypes).all(axis=1), np.maximum(readings, 0.0), 0.0).astype(np.float64)
    total = inverse.sum(axis=1, keepdims=True)
    inverse = np.divide(inverse, total, out=classical.copy(), where=total > 0)
    return _PROTOTYPE_WEIGHT * classical + (1.0 - _PROTOTYPE_WEIGHT) * inverse
