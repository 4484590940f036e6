"""From probabilities to called locations, without TensorFlow."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hpaloc.classes import NAMES, NEGATIVE
from hpaloc.network.options import NEGATIVE_RULES, ModelError


def settle_negative(probabilities: np.ndarray, rule: str) -> np.ndarray:
    """Return a copy of the probabilities whose Negative column follows ``rule``.

    probabilities: (n, 19) float
    rule: ``complement``, the smallest of 1 - p over the other classes (docs/model.md, "Prediction"), ``network``, the
        output for Negative, or ``mean``, the mean of both

    Raises ModelError for another rule.
    """
    if rule not in NEGATIVE_RULES:
        raise ModelError(f"the rule for Negative must be one of {', '.join(NEGATIVE_RULES)}, got {rule!r}")
    settled = np.array(probabilities)
    complement = 1 - np.delete(settled, NEGATIVE, axis=1).max(axis=1)
    if rule == "complement":
        settled[:, NEGATIVE] = complement
    elif rule == "mean":
        settled[:, NEGATIVE] = (settled[:, NEGATIVE] + complement) / 2
    return settled


def call_labels(probabilities: np.ndarray, thresholds: np.ndarray | None) -> list[tuple[int, ...]]:
    """Return the label set of each cell.

    probabilities: (n, 19) float
    thresholds: (19,) float; a cell is called every location that reaches its threshold, Negative alone if none does.
        None (softmax, one location per cell): the likeliest class
    """
    if thresholds is None:
        return [(int(best),) for best in probabilities.argmax(axis=1)]
    passed = probabilities >= thresholds
    passed[:, NEGATIVE] = ~np.delete(passed, NEGATIVE, axis=1).any(axis=1)
    return [tuple(np.flatnonzero(row).tolist()) for row in passed]


def decision_thresholds(decision: Mapping[str, Any]) -> np.ndarray | None:
    """Return the (19,) float32 thresholds of a thresholds.json, or None if the likeliest class is called."""
    if decision["thresholds"] is None:
        return None
    # Negative has none: a cell is Negative if no location reaches its threshold.
    return np.array([decision["thresholds"].get(name, np.inf) for name in NAMES], np.float32)
