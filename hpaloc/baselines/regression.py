"""Logistic regression with several classes, kept as plain numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from hpaloc.classes import N_CLASSES, NAMES

# Measurements that are further from the mean count as if they were this many standard deviations from it.
_FURTHEST = 5.0
# A penalty relative to the mean loss is as strong for few cells as for many; docs/evaluation.md, Baselines, has others.
_STRENGTH = 50.0


def fit_regression(
    measures: np.ndarray, labels: np.ndarray, weights: np.ndarray, strength: float = _STRENGTH
) -> dict[str, Any]:
    """Fit the probabilities of the locations to measurements of cells.

    A cell of several locations counts in equal parts for each.

    measures: (n, d) float, nan if undefined
    labels: (n, 19) 0 or 1, at least one per cell
    weights: (n,) float, of the cells
    strength: inverse of the penalty on the coefficients relative to the mean loss of a cell: scikit-learn's C is this
        over the sum of the weights

    Returns classes (names), mean, scale (d,), coefficients (classes, d) and intercept (classes,), as lists.
    """
    row, label = np.nonzero(labels)
    known = np.isfinite(measures)
    counts = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, measures, 0).sum(axis=0, dtype=np.float64) / counts
    scale = np.sqrt((np.where(known, measures - mean, 0) ** 2).sum(axis=0, dtype=np.float64) / counts)
    scale[~(scale > 0)] = 1
    classes = np.unique(label)
    if len(classes) > 1:
        learned = LogisticRegression(C=strength / weights.sum(), max_iter=500)
        learned.fit(_standard(measures, mean, scale)[row], label, weights[row] / labels.sum(axis=1)[row])
        coefficients, intercept = learned.coef_, learned.intercept_
        if len(classes) == 2:
            # For two classes, scikit-learn gives the difference of the two.
            coefficients, intercept = (np.concatenate([-gap, gap]) / 2 for gap in (coefficients, intercept))
    else:
        coefficients, intercept = np.zeros((len(classes), measures.shape[1])), np.zeros(len(classes))
    return {
        "classes": [NAMES[index] for index in classes],
        "mean": mean.tolist(),
        "scale": scale.tolist(),
        "coefficients": coefficients.tolist(),
        "intercept": intercept.tolist(),
    }


def apply_regression(regression: Mapping[str, Any], measures: np.ndarray) -> np.ndarray:
    """Return the probability of each location, (n, 19) float64, 0 for one that was not learned.

    regression: from ``fit_regression``
    measures: (n, d) float, nan if undefined
    """
    standard = _standard(measures, np.array(regression["mean"]), np.array(regression["scale"]))
    logits = standard @ np.array(regression["coefficients"]).T + np.array(regression["intercept"])
    p = np.zeros((len(measures), N_CLASSES))
    p[:, [NAMES.index(name) for name in regression["classes"]]] = softmax(logits, axis=1)
    return p


def _standard(measures: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return measurements as multiples of the standard deviation, those that are undefined as 0, the mean."""
    return np.nan_to_num(np.clip((measures.astype(np.float64) - mean) / scale, -_FURTHEST, _FURTHEST))
