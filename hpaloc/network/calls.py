"""From probabilities to called locations, without TensorFlow."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from hpaloc.classes import NAMES, NEGATIVE
from hpaloc.network.options import NEGATIVE_RULES, ModelError

# In a fusion, a predictor that is surer than this counts as this sure: the logits of 0 and 1 are not finite.
_LEAST_PROBABILITY = 1e-6


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


def fuse(network: np.ndarray, regression: np.ndarray, weight: float, normalise: bool = False) -> np.ndarray:
    """Return the probabilities whose logits are the weighted mean of those of a network and a regression.

    network, regression: (n, 19) float; a location that the regression has not learned is 0 in all rows, and keeps the
        probability of the network
    weight: that of the regression, from 0 to 1
    normalise: for a softmax head, the mean is of the logarithms, and each row is scaled back to the sum 1

    Returns (n, 19), the dtype of ``network``.
    """
    least, most = _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY
    one, other = (np.clip(np.asarray(p, np.float64), least, most) for p in (network, regression))
    other = np.where(np.any(regression, axis=0), other, one)
    if normalise:
        fused = one ** (1 - weight) * other**weight
        fused /= fused.sum(axis=1, keepdims=True)
    else:
        fused = expit((1 - weight) * logit(one) + weight * logit(other))
    return np.asarray(fused, network.dtype)


def lean_on_field(
    probabilities: np.ndarray, fields: Sequence[str], weight: float, normalise: bool = False
) -> np.ndarray:
    """Shift the probabilities of each cell towards the mean over its field: p^(1-w) · mean^w.

    With w = 0.5 the order of the classes is that of the product of cell and field, by which the best teams of the
    competition ranked their calls (docs/model.md, "Prediction").

    probabilities: (n, 19) float, every cell of each field
    fields: (n,) names
    weight: w, from 0 (unchanged) to 1 (every cell has the mean of its field)
    normalise: whether to scale each row back to the sum 1, for a softmax head

    Returns (n, 19), the dtype of the probabilities.
    """
    if not weight:
        return probabilities
    cells = pd.DataFrame(probabilities, dtype=np.float64)
    mean = cells.groupby(np.asarray(fields)).transform("mean").to_numpy()
    drawn = cells.to_numpy() ** (1.0 - weight) * mean**weight
    if normalise:
        drawn /= drawn.sum(axis=1, keepdims=True)
    return drawn.astype(probabilities.dtype)


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


def decision_thresholds(decision: Mapping[str, Any], field_weight: float = 0.0) -> np.ndarray | None:
    """Return the (19,) float32 thresholds of a thresholds.json, or None if the likeliest class is called.

    field_weight: of the probabilities that they are for, see ``lean_on_field``; between the weights that were fitted
        they are interpolated, and a file without leaned_thresholds has those of weight 0 for every weight
    """
    if decision["thresholds"] is None:
        return None
    tables = {0.0: decision["thresholds"]}
    tables |= {float(weight): table for weight, table in decision.get("leaned_thresholds", {}).items()}
    weights = sorted(tables)
    # Negative has none: a cell is Negative if no location reaches its threshold.
    values = [[tables[weight].get(name, np.inf) for weight in weights] for name in NAMES[:NEGATIVE]]
    return np.array([*(np.interp(field_weight, weights, row) for row in values), np.inf], np.float32)
